# SPDX-License-Identifier: Apache-2.0
"""tx with TCP connections is killed at each crash point: each reply comes once, whole, in order."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from streams import Peer, Pipeline, ids

BUILD = ROOT / "build-crash"
REQUESTS = 2000
PASS = 200
LIST = (ROOT / "shm" / "crash.h").read_text()
# Those of a connection that is lost, and of places in rx's table, have tests of their own.
ELSEWHERE = {"renumbered", "down", "connecting", "begun", "up", "ended", "released"}
POINTS = [p for p in re.findall(r'X\("(stream:\w+)"', LIST) if p.split(":")[1] not in ELSEWHERE]
POINTS += ["tx:counted", "tx:committed", "tx:completed"]

SHAPES = {
    "one": (),
    "flush": ("tx.flush=16,200us",),
    "rings": ("worker.count=2", "worker.dispatch=key", "tx.connections=1"),
    "spread": ("worker.count=2", "worker.dispatch=key", "tx.connections=3", "tx.flush=8"),
}


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """The programs with crash points in them."""
    subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "crash"], cwd=ROOT, check=True)


def killed_at(point: str, tmp_path: Path, peer: Peer, payload: int, *sets: str) -> dict:
    sets = (f"tx.to=127.0.0.1:{peer.address[1]}", "tx.sink=tcp", "ring.full=wait", *sets)
    pipeline = Pipeline(tmp_path / "run", *sets, build=BUILD, crash=f"tx/{point}")
    try:
        pipeline.send(range(1, REQUESTS + 1), payload)
        events = pipeline.drain()
        assert pipeline.launcher.returncode == 0, events
    finally:
        pipeline.end()
    peer.finish()
    counters = pipeline.counters
    assert [restart["stage"] for restart in counters["restarts"]] == ["tx"], pipeline.told
    assert counters["end"]["outcomes"]["transmitted"] == REQUESTS
    assert counters["end"]["repeated"] == []
    return counters


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point: str, shape: str, tmp_path: Path) -> None:
    peer = Peer()
    killed_at(f"{point}:{PASS if 'written' not in point else 40}", tmp_path, peer, 8, *SHAPES[shape])
    found = [ids(bytes(data)) for data in peer.received]
    assert sorted(sum(found, [])) == list(range(1, REQUESTS + 1))
    if "worker.count=2" not in SHAPES[shape]:
        assert found[0] == sorted(found[0])
    for worker in range(2):  # order of what one worker made holds on every connection
        for one in found:
            mine = [number for number in one if number % 2 == worker]
            assert mine == sorted(mine)


@pytest.mark.parametrize("shape", ["one", "flush"])
@pytest.mark.parametrize("point", ["stream:written:20", "stream:marked:700", "tx:counted:900"])
def test_killed_while_the_kernel_has_a_part(point: str, shape: str, tmp_path: Path) -> None:
    """A reader so slow that writes end within a reply."""
    peer = Peer(receive_buffer=4096, pause_s=0.0002, chunk=3000)
    killed_at(point, tmp_path, peer, 1200, *SHAPES[shape])
    assert ids(bytes(peer.received[0]), 1200) == list(range(1, REQUESTS + 1))
