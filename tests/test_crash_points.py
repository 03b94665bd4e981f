# SPDX-License-Identifier: Apache-2.0
"""A stage with real sockets is killed at each crash point that only whole runs pass."""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT

BUILD = ROOT / "build-crash"
REQUESTS = 3000
BURST = 20
PASS = 40  # the point is passed so often before it kills; at least once a batch
POINTS = re.findall(r'X\("((?:rx|tx|receiver):\w+)"', (ROOT / "shm" / "crash.h").read_text(), re.M)
WINDOW = 256  # replies that io_uring may have under way


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """The programs with crash points in them."""
    subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "crash"], cwd=ROOT, check=True)


def run_killed_at(point: str, io: str, directory: Path, *more: str) -> tuple[Counter, dict]:
    """Replies by id, and counters, of REQUESTS in bursts with a stage killed at the point."""
    victim = "rx" if point.startswith("receiver") else point.partition(":")[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        client.bind(("127.0.0.1", 0))
        client.setblocking(False)
        sets = ["rx.bind=127.0.0.1:9322", f"tx.to=127.0.0.1:{client.getsockname()[1]}"]
        sets += [f"rx.io={io}", f"tx.io={io}", "pipeline.name=crash", "trace.lane=1MiB", *more]
        command = [BUILD / "tickline", "run", ROOT / "configs/isolated.ini", "--json"]
        command += ["--run-dir", directory]
        for value in sets:
            command += ["--set", value]
        environment = os.environ | {"TICKLINE_CRASH": f"{victim}/{point}:{PASS}"}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as launcher:
            assert json.loads(launcher.stdout.readline())["event"] == "ready"
            replies: Counter = Counter()
            for number in range(1, REQUESTS + 1):
                client.sendto(b"|%08d|0008|abcdefgh" % number, ("127.0.0.1", 9322))
                if number % BURST == 0:
                    time.sleep(0.0005)
            launcher.stdin.write("drain\n")
            launcher.stdin.flush()
            events = [json.loads(line) for line in launcher.stdout]
            with contextlib.suppress(BlockingIOError):
                while True:
                    replies[int(client.recv(64)[1:9])] += 1
    assert launcher.returncode == 0, events
    return replies, json.loads((directory / "counters.json").read_text())


def assert_once(point: str, counters: dict) -> None:
    assert [restart["cause"] for restart in counters["restarts"]] == ["killed by signal 9 (Killed)"]
    end = counters["end"]
    assert end["rx"]["datagrams"] == end["rx"]["issued"] == REQUESTS, point
    published = end["to_worker"][0]["published"]
    assert published + sum(end["rx"]["dropped"]) == REQUESTS
    assert published == end["to_worker"][0]["consumed"] == end["to_tx"][0]["published"]
    assert published == end["to_tx"][0]["consumed"] == end["outcomes"]["transmitted"]


@pytest.mark.parametrize("io", ["plain", "uring"])
@pytest.mark.parametrize("point", [p for p in POINTS if p != "rx:dropped"])
def test_killed_at(point: str, io: str, tmp_path: Path) -> None:
    if point == "receiver:held" and io == "plain":
        return  # plain calls never hold: the kernel's own words say what is taken
    replies, counters = run_killed_at(point, io, tmp_path / "run")
    assert_once(point, counters)
    assert len(replies) == counters["end"]["outcomes"]["transmitted"]
    twice = [number for number, count in replies.items() if count > 1]
    in_doubt = counters["end"]["repeated"]
    assert len(twice) <= len(in_doubt) <= (1 if io == "plain" else WINDOW)
    assert set(twice) <= set(in_doubt)  # here a request's number is its id
    if point.startswith("tx:s"):
        assert in_doubt  # killed around a send: it is listed
    if point == "tx:sent" and io == "plain":
        assert twice == in_doubt  # and this one was sent


def test_killed_at_a_drop(tmp_path: Path) -> None:
    """A drop that was about to be counted, and one that was: each counts once."""
    more = ("ring.depth=2", "worker.handler=spin", "handler.spin.time=50us")
    replies, counters = run_killed_at("rx:dropped", "plain", tmp_path / "run", *more)
    assert_once("rx:dropped", counters)
    assert sum(counters["end"]["rx"]["dropped"]) >= PASS
    assert sum(replies.values()) == counters["end"]["outcomes"]["transmitted"]
