# SPDX-License-Identifier: Apache-2.0
"""rx is killed at each crash point of TCP: requests come once, connections are counted once."""

import os
import random
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT
from tcp_run import Run, ended_by, in_order, request, reset, run, stream

BUILD = ROOT / "build-crash"
POINTS = re.findall(r'X\("((?:rx|tcp):\w+)"', (ROOT / "shm" / "crash.h").read_text(), re.MULTILINE)
PER_CONNECTION = {
    *("tcp:reserved", "tcp:accepted", "tcp:deposited", "tcp:cleared", "tcp:opened"),
    *("tcp:doomed", "tcp:tallied", "tcp:tallied_up", "tcp:left", "tcp:released", "tcp:freed"),
}
PER_READ = {"tcp:received", "tcp:filled", "tcp:taken", "tcp:copied"}
CONNECTIONS = 6
REQUESTS = 60


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """The programs with crash points in them."""
    subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "crash"], cwd=ROOT, check=True)


def send_in_pieces(client: socket.socket, data: bytes, rng: random.Random) -> None:
    while data:
        length = rng.randrange(1, 200)
        client.sendall(data[:length])
        data = data[length:]
        if rng.randrange(4) == 0:
            time.sleep(0.0002)


def talk(pipeline: Run, index: int, resets: list[int]) -> None:
    """Sends all requests of a connection; again from the beginning where the kill has reset it."""
    rng = random.Random(index)
    while True:
        client = pipeline.connect()
        try:
            send_in_pieces(client, stream(index, REQUESTS), rng)
            client.shutdown(socket.SHUT_WR)
            if ended_by(client) == "end":
                return
        except OSError:
            pass
        finally:
            client.close()
        resets.append(index)


def misbehave(pipeline: Run) -> None:
    """A request cut off by the end, one by a reset, a header that cannot be: two more requests."""
    with pipeline.connect() as client:
        client.sendall(request(90, 1)[:15])
        client.shutdown(socket.SHUT_WR)
        assert ended_by(client) in ("end", "reset")
    client = pipeline.connect()
    client.sendall(request(91, 1)[:9])
    time.sleep(0.02)
    reset(client)
    with pipeline.connect() as client:
        client.sendall(b"\xff" * 20)
        assert ended_by(client) == "reset"


@pytest.mark.parametrize("point", [p for p in POINTS if p != "rx:dropped"])
def test_killed_at(point: str, tmp_path: Path) -> None:
    passes = 3 if point in PER_CONNECTION else 8 if point in PER_READ else 40
    resets: list[int] = []
    with run(tmp_path / "run", BUILD, f"rx/{point}:{passes}") as pipeline:
        threads = [
            threading.Thread(target=talk, args=(pipeline, index, resets))
            for index in range(CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        misbehave(pipeline)
        end = pipeline.drain()
        ids = pipeline.ids()
        restarts = [restart["cause"] for restart in pipeline.counters["restarts"]]
    assert restarts == ["killed by signal 9 (Killed)"]
    assert in_order(ids) == {index: list(range(REQUESTS)) for index in range(CONNECTIONS)}
    assert end["rx"]["issued"] == CONNECTIONS * REQUESTS + 2
    assert end["outcomes"]["transmitted"] == CONNECTIONS * REQUESTS
    assert sum(end["outcomes"]["rejected"].values()) == 2
    connections = end["connections"]
    assert len(resets) == (1 if point == "tcp:accepted" else 0)
    # It cannot be known whether the kernel had begun to accept: at most one is counted too many.
    assert connections["lost"] == (1 if point in ("tcp:accepted", "tcp:reserved") else 0)
    assert connections["opened"] == CONNECTIONS + 3
    assert connections["ended"] == CONNECTIONS + 1
    assert connections["reset"] == connections["malformed"] == 1
    assert connections["open"] == connections["held_bytes"] == connections["unread_bytes"] == 0
    assert connections["cut_bytes"] == 9 + 8  # and what stands behind the header that cannot be
