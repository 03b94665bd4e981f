# SPDX-License-Identifier: Apache-2.0
"""Whole runs over TCP: account exact, order of each connection kept, content right, whatever the
connections do.

TICKLINE_REQUESTS=1000000 gives the first its full size, and runs those that take long as well.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Lab, Outcome

from ticklab import summary
from ticklab.run import STATUS_OK, Run
from ticklab.wire import match

GATEWAY = ROOT / "configs" / "gateway.ini"
REQUESTS = int(os.environ.get("TICKLINE_REQUESTS", "20000"))
long = pytest.mark.skipif(
    "TICKLINE_REQUESTS" not in os.environ, reason="takes long: TICKLINE_REQUESTS=1000000 runs it"
)


@pytest.fixture
def gateway(lab: Lab) -> Lab:
    if not (ROOT / "build" / "client").exists():
        pytest.skip("needs build/client: make")
    return lab


def run(lab: Lab, *arguments: str, **values: Any) -> Outcome:
    values = {"replay__requests": 5000, "replay__warmup": 200} | values
    return lab.run(*arguments, config=GATEWAY, **values)


def start(lab: Lab, *arguments: str, **values: Any) -> Any:
    values = {"replay__warmup": 200} | values
    return lab.start(*arguments, config=GATEWAY, **values)


def is_exact(made: Outcome, requests: int) -> dict[str, Any]:
    """The account's requests, of a run that lost nothing."""
    assert made.status == 0, made.stderr
    account = made.summary["account"]["requests"]
    whole = ("offered", "received", "processed", "transmitted", "delivered")
    assert {name: account[name] for name in whole} == dict.fromkeys(whole, requests)
    assert account["misordered"] == 0
    return account


def in_order(made: Outcome) -> None:
    """Replies of each connection stand in the order of its requests; by the files alone."""
    run_ = Run(made.directory)
    answers = run_.delivered["id"][run_.delivered["status"] == STATUS_OK]
    position = match(run_.offered["id"], answers)
    connection = run_.requests["connection"][position]
    for number in np.unique(connection):
        assert (np.diff(position[connection == number]) > 0).all(), number


@pytest.mark.parametrize("sink", ["reply", pytest.param("tcp", marks=long)])
def test_requests_cut_at_random_bytes_with_four_workers(gateway: Lab, sink: str) -> None:
    made = run(
        gateway,
        "--speed",
        "top",
        replay__requests=REQUESTS,
        replay__cuts="random",
        replay__flows=64,
        replay__payload="8-64",
        worker__count=4,
        tx__sink=sink,
        tx__connections=3 if sink == "tcp" else 1,
    )
    is_exact(made, REQUESTS)
    in_order(made)
    if sink == "reply":
        assert made.manifest["client"]["misordered"] == 0
        assert made.manifest["replay"]["player"] == "client"


@long
@pytest.mark.parametrize("dispatch", ["key", "round-robin"])
def test_any_dispatch_answers_everything(gateway: Lab, dispatch: str) -> None:
    """With several workers and another dispatch than by flow replies may overtake each other."""
    made = run(gateway, "--speed", "top", worker__count=2, worker__dispatch=dispatch)
    assert made.status == 0, made.stderr
    assert made.summary["account"]["requests"]["delivered"] == 5000


@pytest.mark.parametrize("sink", ["reply", pytest.param("tcp", marks=long)])
def test_connections_come_and_go_while_others_work(gateway: Lab, sink: str) -> None:
    made = run(
        gateway,
        replay__churn=1000,
        replay__requests=10000,
        replay__cuts="random",
        rx__connections=1024,
        worker__count=2,
        tx__sink=sink,
    )
    assert made.status == 0, made.stderr
    account = made.summary["account"]
    assert account["connections"]["connected"] == account["connections"]["opened"] == 1000
    requests = account["requests"]
    lost = requests["lost_with_connections"] + requests["dropped"].get("connection", 0)
    lost += requests["dropped"]["tx"]
    assert requests["delivered"] == 10000 - lost
    assert lost <= 500  # those that were reset, at most
    in_order(made)


@long
@pytest.mark.parametrize("sink", ["reply", "tcp"])
def test_a_slow_reader_slows_the_sender(gateway: Lab, sink: str) -> None:
    """Nothing is lost, and memory does not grow: 32 MB, more than sockets hold, at 16 MiB/s."""
    process = start(
        gateway,
        replay__requests=4000,
        replay__payload=8000,
        replay__flows=1,
        replay__rate=20000,
        replay__warmup=10,
        lab__slow_sink="16MiB",
        ring__depth=64,
        tx__sink=sink,
    )
    sizes: dict[int, list[int]] = {}
    while process.poll() is None:
        for pid in stages():
            sizes.setdefault(pid, []).append(resident(pid))
        time.sleep(0.1)
    made = gateway.finish(process)
    is_exact(made, 4000)
    late = made.summary["replay"]["lateness_ns"]
    assert late["max"] > 200_000_000  # the replay is planned to take as much
    for seen in sizes.values():
        assert max(seen) - min(seen[len(seen) // 4 :]) < 64 << 20


def stages() -> list[int]:
    """Pids of rx, workers and tx of this tree."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            program = (path / "exe").readlink()
        except OSError:
            continue
        if program.parent == ROOT / "build" and program.name in ("rx", "worker", "tx"):
            found.append(int(path.name))
    return found


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def children(pid: int, name: str) -> list[int]:
    """Pids of the children of a process that run this program."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "status").read_text()
            program = (path / "exe").readlink().name
        except OSError:
            continue
        if program == name and f"PPid:\t{pid}\n" in status:
            found.append(int(path.name))
    return found


def child_of(process: Any, name: str) -> int:
    """Pid of a program that this lab has started, once it plays."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None
        if found := children(process.pid, name):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no {name}")


def directory_of(lab: Lab) -> Path:
    return next(iter(lab.runs.iterdir()))


def wait_played(lab: Lab, process: Any) -> None:
    """Until the measured phase has begun a while ago: offered.bin is written then."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        files = list(lab.runs.glob("*/wire/offered.bin")) if lab.runs.exists() else []
        if files and files[0].stat().st_size:
            time.sleep(0.3)
            return
        time.sleep(0.02)
    raise AssertionError("it never played")


@pytest.mark.parametrize("sink", ["reply", pytest.param("tcp", marks=long)])
def test_ctrl_c_leaves_a_whole_run(gateway: Lab, sink: str) -> None:
    process = start(
        gateway, replay__requests=20_000, replay__rate=5000, tx__sink=sink, replay__cuts="random"
    )
    wait_played(gateway, process)
    process.send_signal(signal.SIGINT)
    made = gateway.finish(process)
    assert made.status == 128 + signal.SIGINT, made.stderr
    assert made.summary["balanced"], made.summary["unbalanced"]
    account = made.summary["account"]["requests"]
    assert 0 < account["offered"] == account["delivered"] < 20_000
    assert made.manifest["interrupted"]


@pytest.mark.parametrize(
    ("victim", "sink"),
    [
        ("client", "reply"),
        pytest.param("client", "tcp", marks=long),
        pytest.param("sink", "tcp", marks=long),
    ],
)
def test_a_killed_end_of_the_lab_ends_the_run_in_one_line(
    gateway: Lab, victim: str, sink: str
) -> None:
    process = start(gateway, replay__requests=20_000, replay__rate=5000, tx__sink=sink)
    wait_played(gateway, process)
    os.kill(child_of(process, victim), signal.SIGKILL)
    made = gateway.finish(process)
    assert made.status == 128 + signal.SIGKILL, made.stderr
    assert f"tickline: {victim}: killed by signal 9" in made.stderr
    assert "Traceback" not in made.stderr
    assert "failed" in json.loads((directory_of(gateway) / "manifest.json").read_text())


@long
@pytest.mark.parametrize("sink", ["reply", "tcp"])
@pytest.mark.parametrize("stage", ["rx", "tx", "worker"])
def test_a_killed_stage_loses_no_connection(gateway: Lab, stage: str, sink: str) -> None:
    process = start(
        gateway, replay__requests=20_000, tx__sink=sink, replay__cuts="random", worker__count=2
    )
    wait_played(gateway, process)
    os.kill(stage_of(process, stage), signal.SIGKILL)
    made = gateway.finish(process)
    assert made.status == 0, made.stderr
    assert len(made.summary["restarts"]) == 1
    is_exact(made, 20_000)
    in_order(made)


def stage_of(process: Any, name: str) -> int:
    """Pid of a stage: a child of the launcher, a child of the lab."""
    return children(child_of(process, "tickline"), name)[0]


def test_latency_counts_from_the_planned_time_and_each_line_can_fail(gateway: Lab) -> None:
    made = run(gateway, "--speed", "5x")
    is_exact(made, 5000)
    latency, replay = made.summary["latency_ns"], made.summary["replay"]
    assert latency["from_planned"]["count"] == 5000
    assert latency["from_planned"]["p50"] >= latency["wire_to_wire"]["p50"]
    assert replay["lateness_ns"]["max"] >= replay["lateness_ns"]["p50"] >= 0
    assert "later_than_1ms" in replay
    assert len(Run(made.directory).sent) == 5000
    # A request on a connection that nobody reset, and that was never received, has no excuse.
    wire, counters = made.directory / "wire", made.directory / "counters.json"
    (wire / "ingress.bin").write_bytes((wire / "ingress.bin").read_bytes()[:-32])
    told = json.loads(counters.read_text())
    told["end"]["rx"]["issued"] -= 1
    counters.write_text(json.dumps(told))
    unbalanced = summary.summarise(made.directory)["unbalanced"]
    assert any(line.startswith("requests.offered: offered 5000") for line in unbalanced)


def test_datagrams_are_answered_where_they_came_from(gateway: Lab) -> None:
    """Malformed ones, too, are sent: they end no stream."""
    made = run(gateway, rx__source="udp", replay__errors="10%", worker__count=2)
    assert made.status == 0, made.stderr
    account = made.summary["account"]
    assert account["datagrams"]["sent"] == 5000
    assert sum(account["requests"]["rejected"].values()) == 500
    assert account["requests"]["delivered"] == 4500


def test_more_connections_than_configured_are_refused_before_the_run(gateway: Lab) -> None:
    made = run(gateway, replay__flows=100)
    assert made.status == 2
    assert "100 connections at once: expected at most rx.connections = 64" in made.stderr
    assert made.stderr.count("tickline:") == 1


@long
def test_serve_says_how_to_reach_it(gateway: Lab) -> None:
    process = start(gateway, "--serve", replay__requests=2000)
    lines = []
    while not lines or not lines[-1].startswith("Ctrl-C"):
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()
    said = "".join(lines)
    assert "receiving at:       0.0.0.0:9000" in said
    assert "replies go to:      who asked" in said
    command = next(line for line in lines if line.startswith("for example:"))
    words = command.removeprefix("for example:").split()
    done = os.spawnvp(os.P_WAIT, words[0], words)
    assert done == 0
    process.send_signal(signal.SIGINT)
    made = gateway.finish(process)
    assert made.status == 0, made.stderr
    assert made.summary["account"]["requests"]["transmitted"] == 2000
