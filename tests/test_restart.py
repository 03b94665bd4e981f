# SPDX-License-Identifier: Apache-2.0
"""Stages that are killed under load: successors, budget, and what is told of it."""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import chaos
import pytest
from conftest import BUILD, ROOT, Lab, Outcome
from test_runs import babeltrace, live_run, needs

KILLS = 6
MEASURED_S = 1.5  # after the start the warm-up is over, and the replay is not


def kill(lab: Lab, stage: str) -> int:
    """Kills a stage of the run once all are up; its pid."""
    pid = next(s["pid"] for s in live_run(lab)["stages"] if s["name"] == stage)
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for_successor(lab: Lab, stage: str, old: int) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = next(s for s in live_run(lab)["stages"] if s["name"] == stage)
        if found["pid"] != old:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{stage} got no successor")


@pytest.mark.parametrize(
    ("victim", "sets"),
    [
        ("rx", []),
        ("worker", []),
        ("tx", []),
        ("tracer", []),
        ("worker", ["worker.count=4", "worker.dispatch=key"]),
        ("all", ["worker.count=2", "ring.full=wait", "ring.depth=64"]),
        ("all", ["sched.wait=park", "replay.errors=10%", "trace.sample=10"]),
        ("tracer", ["trace.keep=last 1s"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_killed_under_load(victim: str, sets: list[str], tmp_path: Path) -> None:
    killed_under_load(chaos.ISOLATED, victim, sets, tmp_path)


def test_a_gateway_is_killed_under_load(tmp_path: Path) -> None:
    sets = ["replay.cuts=random", "worker.count=2"]
    killed_under_load(ROOT / "configs" / "gateway.ini", "all", sets, tmp_path)


def killed_under_load(config: Path, victim: str, sets: list[str], tmp_path: Path) -> None:
    options = argparse.Namespace(config=config, victim=victim, sets=sets)
    tally = chaos.Tally()
    chaos.one_run(options, random.Random(7), tmp_path, KILLS, tally, dump=False)
    assert not tally.failures
    assert tally.restarts >= KILLS // 2


def test_a_feed_goes_on_behind_a_killed_rx(lab: Lab) -> None:
    """No datagram is counted twice or not at all, wherever in one its predecessor was."""
    sets = {"pipeline__schema": "iex", "replay__per_datagram": 7, "replay__requests": 60_000}
    process = lab.start("--name", "feed", **sets)
    live_run(lab)
    time.sleep(MEASURED_S)
    for _ in range(3):
        old = kill(lab, "rx")
        wait_for_successor(lab, "rx", old)
        time.sleep(0.2)
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    feed = outcome.summary["feed"]
    assert feed["messages"] == outcome.summary["account"]["requests"]["received"] == 60_000
    assert feed["missing"] == feed["gaps"] == feed["repeated"] == 0
    assert (feed["resets"], feed["at_ends"]) == (0, 0)  # though the warm-up came before


def failed_run(lab: Lab, **values: Any) -> Outcome:
    """A replay whose worker is killed twice, at 20,000 a second."""
    process = lab.start("--name", "budget", replay__requests=60_000, **values)
    live_run(lab)
    time.sleep(MEASURED_S)
    old = kill(lab, "worker0")
    if values.get("supervise__restart") != "off":
        wait_for_successor(lab, "worker0", old)
        kill(lab, "worker0")
    return lab.finish(process)


def test_a_spent_budget_ends_the_run_in_order(lab: Lab) -> None:
    outcome = failed_run(lab, supervise__max_restarts=1, supervise__window="60s")
    assert outcome.status == 1
    lines = [line for line in outcome.stderr.splitlines() if "worker0" in line]
    assert lines[-1] == (
        "tickline: stage failed: worker0 ended unasked: killed by signal 9 (Killed), and "
        "supervise.max_restarts is spent; see log/worker0.log"
    )
    summary = outcome.summary
    assert summary["balanced"], summary["unbalanced"]
    assert not summary["complete"]
    assert summary["account"]["requests"]["in_flight"]["to_worker"] > 0
    assert summary["account"]["requests"]["in_flight"]["to_tx"] == 0
    assert [restart["generation"] for restart in summary["restarts"]] == [2]
    babeltrace(outcome.directory / "trace")


@pytest.mark.parametrize("full", ["drop", "wait"])
def test_restart_can_be_switched_off(lab: Lab, full: str) -> None:
    outcome = failed_run(lab, supervise__restart="off", ring__full=full)
    assert outcome.status == 1
    assert "killed by signal 9 (Killed) (supervise.restart = off)" in outcome.stderr
    assert "restarts" not in outcome.summary
    assert outcome.summary["balanced"], outcome.summary["unbalanced"]


@pytest.mark.parametrize("stage", ["rx", "tx", "tracer"])
def test_a_stage_that_is_gone_for_good_leaves_a_whole_run(lab: Lab, stage: str) -> None:
    process = lab.start("--name", "gone", replay__requests=60_000, supervise__restart="off")
    live_run(lab)
    time.sleep(MEASURED_S)
    kill(lab, stage)
    outcome = lab.finish(process)
    assert outcome.status == 1
    assert f"stage failed: {stage} ended unasked" in outcome.stderr
    assert outcome.summary["balanced"], outcome.summary["unbalanced"]
    babeltrace(outcome.directory / "trace")


def test_killed_while_draining(tmp_path: Path) -> None:
    """Whoever is killed while others drain is replaced as well, and drains."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        sets = ["rx.bind=127.0.0.1:9321", f"tx.to=127.0.0.1:{client.getsockname()[1]}"]
        sets += ["worker.handler=spin", "handler.spin.time=500us", "ring.depth=4096"]
        command = [str(BUILD / "tickline"), "run", str(ROOT / "configs/isolated.ini")]
        command += ["--json", "--run-dir", str(tmp_path / "run"), "--set", "pipeline.name=draining"]
        for value in sets:
            command += ["--set", value]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as launcher:
            ready = json.loads(launcher.stdout.readline())
            for number in range(1, 2001):
                client.sendto(b"|%08d|0008|abcdefgh" % number, ("127.0.0.1", 9321))
            launcher.stdin.write("drain\n")
            launcher.stdin.flush()
            while Path(f"/proc/{ready['pids']['rx']}").exists():
                time.sleep(0.005)
            for stage in ("worker0", "tx"):
                os.kill(ready["pids"][stage], signal.SIGKILL)
            events = [json.loads(line) for line in launcher.stdout]
    assert launcher.returncode == 0, events
    assert sorted(e["stage"] for e in events if e["event"] == "restart") == ["tx", "worker0"]
    end = json.loads((tmp_path / "run" / "counters.json").read_text())["end"]
    assert end["rx"]["issued"] == end["to_tx"][0]["consumed"] == 2000
    assert end["outcomes"]["transmitted"] == 2000


def test_the_trace_tells_of_a_restart(lab: Lab) -> None:
    process = lab.start("--name", "told", replay__requests=40_000)
    old = kill(lab, "worker0")
    assert wait_for_successor(lab, "worker0", old)["generation"] == 2
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    read = subprocess.run(
        [needs("babeltrace2"), outcome.directory / "trace"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    events = [line for line in read.stdout.splitlines() if " restarted: " in line]
    assert len(events) == 1
    assert "argument = 2" in events[0]
    restart = outcome.summary["restarts"][0]
    assert (restart["stage"], restart["generation"]) == ("worker0", 2)
    assert 0 < restart["gone_ns"] < 5e9
    counters = json.loads((outcome.directory / "counters.json").read_text())
    assert counters["end"]["stages"]["worker0"]["generation"] == 2


@pytest.mark.parametrize("stage", ["rx", "worker0", "tx", "tracer"])
def test_killed_together_with_the_launcher(tmp_path: Path, stage: str) -> None:
    """Nobody replaces it or ends the others: they go by themselves, also with full rings."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        name = f"orphans-{os.getpid()}-{stage}"
        sets = ["rx.bind=127.0.0.1:9323", f"tx.to=127.0.0.1:{client.getsockname()[1]}"]
        sets += ["ring.depth=16", "ring.full=wait", "supervise.drain_timeout=1s"]
        command = [str(BUILD / "tickline"), "run", str(ROOT / "configs/isolated.ini"), "--json"]
        command += ["--run-dir", str(tmp_path / "run"), "--set", f"pipeline.name={name}"]
        for value in sets:
            command += ["--set", value]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as launcher:
            pids = json.loads(launcher.stdout.readline())["pids"]
            os.kill(launcher.pid, signal.SIGSTOP)  # it sees nothing of what follows
            os.kill(pids[stage], signal.SIGKILL)
            for number in range(1, 2001):
                client.sendto(b"|%08d|0008|abcdefgh" % number, ("127.0.0.1", 9323))
            launcher.kill()
            launcher.wait()
            deadline = time.monotonic() + 20
            left = dict(pids)
            while left and time.monotonic() < deadline:
                time.sleep(0.05)
                left = {who: pid for who, pid in left.items() if runs(pid)}
        for pid in left.values():
            os.kill(pid, signal.SIGKILL)
    done = subprocess.run(
        [BUILD / "tickline", "salvage", name], capture_output=True, text=True, check=False
    )
    assert not left
    assert done.returncode == 0, done.stderr


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
