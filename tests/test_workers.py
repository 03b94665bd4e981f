# SPDX-License-Identifier: Apache-2.0
"""Several workers: what order each dispatch keeps, and what the summary says of each of them."""

import io
import random
from collections import defaultdict
from pathlib import Path

import dpkt
import numpy as np
import pytest
from conftest import Lab, Outcome
from synthetic import Synthetic

from ticklab import spans, terminal
from ticklab.clock import clock_of
from ticklab.run import Run
from ticklab.summary import summarise

WORKERS = 4
REQUESTS = 5_000

# ---- runs of which all is known


def noisy(requests: int = 40_000, seed: int = 1, **options) -> Synthetic:
    """Service and wait with a long tail, and slow stretches that all workers share."""
    synthetic = Synthetic(requests=requests, workers=WORKERS, **options)
    chance = np.random.default_rng(seed)
    count = len(synthetic.fate)
    slow = np.repeat(1 + (chance.random(count // 500 + 1) < 0.2) * 2.0, 500)[:count]
    lengthen(synthetic, "worker_done", (chance.lognormal(6, 1.2, count) * slow).astype(np.int64))
    lengthen(synthetic, "worker_got", (chance.pareto(1.5, count) * 2000 * slow).astype(np.int64))
    return synthetic


def lengthen(synthetic: Synthetic, point: str, ticks: np.ndarray) -> None:
    """Makes the span that ends at `point` longer, for each request; all that follows is later."""
    names = list(synthetic.ticks)
    for name in names[names.index(point) :]:
        synthetic.ticks[name] = synthetic.ticks[name] + ticks


def of_worker(synthetic: Synthetic, worker: int) -> np.ndarray:
    """Which requests `worker` has: they go round."""
    return np.arange(len(synthetic.fate)) % WORKERS == worker


def told(synthetic: Synthetic, directory: Path) -> dict:
    return summarise(synthetic.write(directory))


@pytest.mark.parametrize("seed", range(4))
def test_workers_that_are_alike_are_not_flagged(tmp_path, seed):
    summary = told(noisy(seed=seed), tmp_path / "run")
    assert summary["imbalance"] == []
    for entry in summary["workers"].values():
        for found in entry["against_peers"].values():
            slower = found["slower"]
            assert slower["low"] <= 0.5 <= slower["high"]
            assert abs(slower["p"] - 0.5) < 0.05
            assert found["beyond_p99"]["p"] < 0.03


def test_one_bad_stretch_of_a_worker_does_not_make_it_the_slow_one(tmp_path):
    synthetic = noisy()
    count = len(synthetic.fate)
    bad = of_worker(synthetic, 2) & (np.arange(count) < count // 4)
    lengthen(synthetic, "worker_done", np.where(bad, 2_600_000, 0))
    assert told(synthetic, tmp_path / "run")["imbalance"] == []


def test_a_slow_worker_is_named_in_one_line(tmp_path):
    synthetic = noisy()
    lengthen(synthetic, "worker_done", np.where(of_worker(synthetic, 2), 1_300, 0))
    summary = told(synthetic, tmp_path / "run")
    (line,) = summary["imbalance"]
    assert line.startswith("worker2 serves 25% of requests and is slower than its peers: service ")
    found = summary["workers"]["worker2"]["against_peers"]["service"]
    assert found["slower"]["low"] > 0.6
    assert found["p50"] - found["peers_p50"] == pytest.approx(500, abs=60)
    assert summary["workers"]["worker1"]["against_peers"]["service"]["slower"]["p"] < 0.5
    text = io.StringIO()
    terminal.show_summary(summary, text)
    assert line[:60] in text.getvalue()


def test_a_small_difference_is_told_and_not_said(tmp_path):
    """Certain, and of no weight: 20 ns."""
    synthetic = Synthetic(requests=40_000, workers=WORKERS)
    lengthen(synthetic, "worker_done", np.where(of_worker(synthetic, 1), 52, 0))
    summary = told(synthetic, tmp_path / "run")
    assert summary["imbalance"] == []
    assert summary["workers"]["worker1"]["against_peers"]["service"]["slower"]["p"] == 1.0


def test_a_worker_with_a_longer_tail_is_named(tmp_path):
    """One request in ten: no median shows it."""
    synthetic = noisy()
    chance = np.random.default_rng(9)
    late = of_worker(synthetic, 3) & (chance.random(len(synthetic.fate)) < 0.1)
    lengthen(synthetic, "worker_done", np.where(late, 130_000, 0))
    (line,) = told(synthetic, tmp_path / "run")["imbalance"]
    assert line.startswith("worker3 serves 25% of requests and has a longer tail of service: ")


def test_the_wait_must_exceed_the_turns_of_those_who_share_the_cpu(tmp_path):
    """Seven stages stand on one CPU: who comes later in the rotation waits a turn longer."""
    for ticks, flagged in ((7_800, False), (78_000, True)):
        synthetic = Synthetic(requests=40_000, workers=WORKERS)
        lengthen(synthetic, "worker_got", np.where(of_worker(synthetic, 3), ticks, 0))
        lines = told(synthetic, tmp_path / f"run{ticks}")["imbalance"]
        assert len(lines) == flagged, lines
        assert all("worker3" in line and "wait for it longer" in line for line in lines)


def test_figures_of_each_worker(tmp_path):
    restart = {"stage": "worker1", "generation": 2, "cause": "killed by signal 9 (Killed)"}
    restart |= {"last_tick": 5_200, "back": 2_605_200, "waiting": 0, "first": 0, "last": 0}
    synthetic = Synthetic(
        workers=WORKERS,
        counters={"restarts": [restart], "end.rx.dropped": [0, 3, 0, 0]},
    )
    synthetic.counters["mark.rx.dropped"] = [0, 1, 0, 0]
    workers = told(synthetic, tmp_path / "run")["workers"]
    assert list(workers) == [f"worker{i}" for i in range(WORKERS)]
    assert sum(entry["requests"] for entry in workers.values()) == 1000
    for name, entry in workers.items():
        assert entry["share"] == 0.25
        assert entry["busy"] == 0.25  # of its regimes
        assert entry["dropped"] == (2 if name == "worker1" else 0)
        assert entry["restarts"] == (name == "worker1")
        assert [entry[key]["p50"] for key in ("service_ns", "handler_ns", "wait_ns")] == [
            600.0,
            200.0,
            1000.0,
        ]
        assert "against_peers" not in entry  # 250 requests tell nothing


def test_one_worker_has_figures_and_no_peers(tmp_path):
    summary = told(Synthetic(requests=20_000), tmp_path / "run")
    assert list(summary["workers"]) == ["worker0"]
    assert "against_peers" not in summary["workers"]["worker0"]
    assert summary["imbalance"] == []
    text = io.StringIO()
    terminal.show_summary(summary, text)
    assert "restarts" not in text.getvalue()


def test_records_that_are_missing_are_not_made_up(tmp_path):
    synthetic = Synthetic(requests=4_000, workers=2, discard={"worker1": list(range(900, 1000))})
    workers = told(synthetic, tmp_path / "run")["workers"]
    of = workers["worker1"]["service_ns"]
    assert of["count"] < of["of"]
    assert workers["worker0"]["service_ns"]["count"] == workers["worker0"]["service_ns"]["of"]


# ---- whole runs


def who_had(outcome: Outcome) -> dict[int, int]:
    """Request number → worker, by the trace."""
    run = Run(outcome.directory)
    point = next(p["id"] for p in run.manifest["points"] if p["name"] == "worker_got")
    had = {}
    for name, lane in run.trace.lanes.items():
        if name.startswith("worker"):
            mine = lane.request[lane.point == point].tolist()
            had |= dict.fromkeys(mine, int(name[6:]))
    return had


def test_round_robin_goes_round(lab: Lab) -> None:
    values = {"worker__count": 3, "worker__dispatch": "round-robin", "replay__warmup": 500}
    outcome = lab.run(replay__requests=REQUESTS, **values)
    assert outcome.status == 0, outcome.stderr
    had = who_had(outcome)
    assert len(had) >= REQUESTS
    offset = {(worker - number) % 3 for number, worker in had.items()}
    assert len(offset) == 1


def test_key_keeps_the_order_of_each_key(lab: Lab, tmp_path: Path) -> None:
    """A datagram's key is its content: 60 of them, again and again, from as many senders."""
    capture = tmp_path / "keys.pcap"
    chance = random.Random(5)
    with capture.open("wb") as file:
        writer = dpkt.pcap.Writer(file)
        for i in range(REQUESTS):
            udp = dpkt.udp.UDP(sport=41000 + i % 60, dport=9000)
            udp.data = b"key%02d" % chance.randrange(60)
            udp.ulen = len(udp)
            ip = dpkt.ip.IP(src=bytes([10, 9, 0, 1]), dst=bytes([10, 9, 0, 2]), p=17, data=udp)
            writer.writepkt(bytes(dpkt.ethernet.Ethernet(data=ip)), ts=1_700_000_000 + i * 5e-5)
    values = {"pipeline__schema": "datagram", "worker__count": WORKERS, "worker__dispatch": "key"}
    outcome = lab.run("--capture", str(capture), replay__warmup=0, **values)
    assert outcome.status == 0, outcome.stderr
    run = Run(outcome.directory)
    points = spans.points_of(run.manifest["points"])
    table = spans.requests_of(run.trace, points, clock_of(run), run.measured_from)
    sent = dict(zip(table.number.tolist(), table.ticks["tx_sent"].tolist(), strict=True))
    had = who_had(outcome)
    requests = defaultdict(list)
    for number, key in run.ingress[["request", "id"]].tolist():
        requests[key].append(number)
    assert len(requests) == 60
    for key, numbers in requests.items():
        assert {had[number] for number in numbers} == {key % WORKERS}
        times = [sent[number] for number in sorted(numbers)]
        assert times == sorted(times)
