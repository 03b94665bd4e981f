# SPDX-License-Identifier: Apache-2.0
"""harness/compare.py on runs of which all is known."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from synthetic import Synthetic

from ticklab.compare import compare
from ticklab.run import Run

COMPARE = Path(__file__).resolve().parent.parent / "harness" / "compare.py"


def compare_py(*arguments):
    return subprocess.run(
        [sys.executable, COMPARE, *map(str, arguments)], capture_output=True, text=True
    )


def two(tmp_path, a, b):
    return Run(a.write(tmp_path / "a")), Run(b.write(tmp_path / "b"))


def test_one_run_a_side_gives_no_verdict(tmp_path):
    slower = Synthetic(name="slower")
    for name in ("worker_done", "worker_put", "tx_got", "tx_sent", "tx_complete"):
        slower.ticks[name] += 1300
    two(tmp_path, Synthetic(), slower)
    done = compare_py(tmp_path / "a", tmp_path / "b")
    assert done.returncode == 3
    assert "no verdict: one run a side does not tell a difference from chance" in done.stdout
    assert "1,000 requests answered in both, all alike" in done.stdout
    assert "\x1b" not in done.stdout
    told = json.loads(compare_py(tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert told["latency_ns"]["worker_parsed..worker_done"]["p50"] == {
        "a": 200.0,
        "b": 700.0,
        "difference": 500.0,
        "ratio": 3.5,
        "bound": [],
    }
    assert told["latency_ns"]["rx_got..rx_put"]["p99"]["difference"] == 0.0
    assert told["latency_ns"]["through"]["max"]["difference"] == 500.0
    assert told["exit"] == 3


def test_the_same_run_differs_in_nothing(tmp_path):
    directory = Synthetic().write(tmp_path / "a")
    told = compare(Run(directory), Run(directory))
    assert told["differences"] == {}
    assert told["replies"] == {
        "compared": 1000,
        "differing": 0,
        "first": [],
        "only_a": 0,
        "only_b": 0,
    }
    rows = [row for entry in told["latency_ns"].values() for row in entry.values()]
    assert {row["difference"] for row in rows} == {0.0}
    assert {row["ratio"] for row in rows} == {1.0}
    assert told["exit"] == 3


def test_requests_with_different_replies_are_named(tmp_path):
    wrong = Synthetic()
    wrong.reply_hash[[wrong.row(position) for position in range(40, 60)]] += np.uint64(1)
    wrong.fate[wrong.row(50)] = "sink"  # a loss, no different reply
    a, b = two(tmp_path, Synthetic(), wrong)
    told = compare(a, b)
    assert told["replies"] == {
        "compared": 999,
        "differing": 19,
        "first": list(range(41, 51)),
        "only_a": 1,
        "only_b": 0,
    }
    done = compare_py(a.path, b.path)
    assert done.returncode == 1
    assert (
        "19 requests got DIFFERENT REPLIES: 41, 42, 43, 44, 45, 46, 47, 48, 49, 50" in done.stdout
    )


def test_replies_in_another_order_are_the_same(tmp_path):
    synthetic = Synthetic(warmup=0)
    synthetic.id[:] = np.arange(1000) % 10
    other = Synthetic(warmup=0)
    other.id[:] = synthetic.id
    other.fate[77] = "sink"  # one of a hundred of its id, each with a reply of its own
    a, b = two(tmp_path, synthetic, other)
    path = b.path / "wire" / "delivered.bin"
    np.random.default_rng(5).permutation(np.fromfile(path, "V32")).tofile(path)
    replies = compare(a, b)["replies"]
    assert (replies["compared"], replies["differing"]) == (10, 0)


def test_other_captures_have_no_replies_in_common(tmp_path):
    other = Synthetic(manifest={"capture.sha256": "cd" * 32})
    other.reply_hash += np.uint64(1)
    a, b = two(tmp_path, Synthetic(), other)
    told = compare(a, b)
    assert told["replies"] == {"why": "the runs replayed different captures"}
    assert told["differences"] == {"capture.sha256": ["ab" * 32, "cd" * 32]}
    assert told["exit"] == 3


def test_how_the_runs_were_made_is_compared(tmp_path):
    made = {
        "config": {"worker.handler": {"value": "fizzbuzz", "origin": "command line"}},
        "placement.tx": 2,
        "builds.rx.build_id": "01",
        "git.dirty": True,
        "degraded": ["3 stages share cpu 1"],
        "started_utc": "2026-01-01T00:00:00Z",
        "replay.speed": "10x",
    }
    other = Synthetic(manifest=made, counters={"rotation.order": ["tx", "rx", "worker0"]})
    told = compare(*two(tmp_path, Synthetic(), other))
    assert told["differences"] == {
        "config.pipeline.schema": ["v1", None],
        "config.worker.handler": ["rot1", "fizzbuzz"],
        "config.trace.sample": ["1", None],
        "git.dirty": [False, True],
        "builds.rx.build_id": ["00", "01"],
        "placement.tx": [1, 2],
        "degraded": [[], ["3 stages share cpu 1"]],
        "replay.speed": ["1x", "10x"],
        "rotation.order": [["rx", "worker0", "tx"], ["tx", "rx", "worker0"]],
    }
    shown = compare_py(tmp_path / "a", tmp_path / "b").stdout
    for word in ("worker.handler", "fizzbuzz", "degraded", "build_id"):
        assert word in shown


def test_bounds_stay_bounds(tmp_path):
    short = Synthetic(requests=2000, discard={"worker0": list(range(400, 420))})
    told = compare(*two(tmp_path, Synthetic(requests=2000), short))
    rows = told["latency_ns"]["worker_put..tx_got"]
    assert rows["p50"]["bound"] == []
    assert rows["p99"]["bound"] == ["b"]
    assert told["only_b"] == ["rx_put..tx_got"]
    shown = compare_py(tmp_path / "a", tmp_path / "b").stdout
    assert "≥0.800" in shown


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    directory = Synthetic().write(tmp_path / "a")
    done = compare_py(directory, tmp_path / "b")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"compare.py: {tmp_path / 'b'}: not a run directory: expected a directory such as "
        "runs/NAME-TIME\n"
    )
    assert compare_py(directory).returncode == 2
