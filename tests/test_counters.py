# SPDX-License-Identifier: Apache-2.0
"""trace.counters: what stages counted of themselves, by stage and by span, and why no more."""

import io

import numpy as np
import pytest
from conftest import Lab
from synthetic import RECORD, TSC_HZ, WIDE, Synthetic

from ticklab import terminal
from ticklab.counters import SETS
from ticklab.run import Run
from ticklab.summary import summarise

POINT = WIDE | 0x17
NOTE = {"asked": "span", "obtained": "hardware", "why": "a reading takes 31 ns"}
TOTALS = {"instructions": 5_000, "cycles": 2_500}


def counted(worker: str = "worker0") -> tuple[Synthetic, np.ndarray]:
    """A run whose worker counted each handler: request k took 1000 + k instructions."""
    synthetic = Synthetic(extra_points=[(POINT, "counters", "none", "any")])
    synthetic.manifest = {"obtained": {f"{worker} trace.counters": NOTE}}
    synthetic.counters = {
        f"mark.stages.{worker}.counters": TOTALS,
        f"end.stages.{worker}.counters": {name: 3 * n for name, n in TOTALS.items()},
    }
    k = np.arange(len(synthetic.fate))
    records = np.zeros(len(k), RECORD)
    # With the time of the stamp in front of it.
    records["tsc"] = synthetic.ticks["worker_parsed"] + 1
    records["point"], records["request"], records["generation"] = POINT, synthetic.first + k, 1
    records["value"] = (1000 + k) | 500 << 32
    records["extra"] = (k % 2).astype(np.uint64) | np.uint64((2**32 - 1) << 32)
    synthetic.extra_records = {worker: records}
    return synthetic, k


def test_spans_have_what_stands_between_their_stamps(tmp_path):
    synthetic, k = counted()
    summary = summarise(synthetic.write(tmp_path / "run"))
    counters = summary["counters"]
    assert (counters["asked"], counters["obtained"], counters["why"]) == ("span", "hardware", "")
    assert counters["reading_ns"] == {"worker0": 31}
    assert counters["stages"] == {"worker0": {name: 2 * n for name, n in TOTALS.items()}}
    (span,) = counters["spans"]
    assert span == "worker_parsed..worker_done"
    found, measured = counters["spans"][span], 1000 + k[synthetic.warmup :]
    assert found["requests"] == len(measured)
    assert found["instructions"] == {
        "sum": int(measured.sum()),
        "mean": round(float(measured.mean()), 3),
        "p50": int(measured[len(measured) // 2 - 1]),
        "p99": int(measured[len(measured) * 99 // 100 - 1]),
        "max": int(measured[-1]),
    }
    assert found["cycles"]["mean"] == 500
    assert found["cache_misses"]["max"] == 1
    assert found["branch_misses"]["p50"] == 2**32 - 1
    text = io.StringIO()
    terminal.show_summary(summary, text)
    assert "trace.counters asked span obtained hardware" in text.getvalue()
    assert f"{measured.mean():,}" in text.getvalue()


def test_a_count_whose_stamp_found_no_room_is_nobodys(tmp_path):
    """Five records a request: got, parsed, the count, done, put."""
    synthetic, _ = counted()
    whole = summarise(synthetic.write(tmp_path / "whole"))["counters"]["spans"]
    synthetic, _ = counted()
    # Of request 100 the stamp behind its count, of 101 the one in front.
    synthetic.discard = {"worker0": [5 * 100 + 3, 5 * 101 + 1]}
    part = summarise(synthetic.write(tmp_path / "part"))["counters"]["spans"]
    requests = whole["worker_parsed..worker_done"]["requests"]
    assert part["worker_parsed..worker_done"]["requests"] == requests - 2
    assert part["worker_got..worker_done"]["requests"] == 1


def test_nobody_asked(tmp_path):
    assert "counters" not in summarise(Synthetic().write(tmp_path / "run"))


@pytest.mark.parametrize("sample", [1, 10])
def test_a_run_counts_and_says_what_it_could_not(lab: Lab, sample: int) -> None:
    outcome = lab.run(
        trace__counters="span", trace__sample=sample, replay__requests=5_000, replay__warmup=500
    )
    assert outcome.status == 0, outcome.stderr
    notes = {k: v for k, v in outcome.manifest["obtained"].items() if k.endswith("trace.counters")}
    assert set(notes) == {f"{stage} trace.counters" for stage in ("rx", "worker0", "tx", "tracer")}
    counters = outcome.summary["counters"]
    assert counters["asked"] == "span"
    assert counters["obtained"] in ("hardware", "software")
    if counters["obtained"] == "software":
        assert counters["why"].startswith("hardware: ")
    assert f"trace.counters asked span obtained {counters['obtained']}" in outcome.stdout
    # A stage that runs takes CPU time, no more than there was.
    took = Run(outcome.directory).measured("tsc") / TSC_HZ
    for stage, totals in counters["stages"].items():
        assert 0 < totals["cpu_ns"] < 1e12 * max(took, 1), stage
    names = SETS[counters["obtained"] == "software"]
    for span in ("rx_got..rx_put", "worker_parsed..worker_done", "tx_sent..tx_complete"):
        found = counters["spans"][span]
        assert found["requests"] == pytest.approx(5_000 / sample, abs=1)
        assert set(found) == {"requests", *names}
        if "instructions" in names:
            assert found["instructions"]["p50"] > 0
