# SPDX-License-Identifier: Apache-2.0
"""tx with TCP connections is killed at each crash point: each reply comes once, whole, in order."""

import os
import socket
import subprocess
from itertools import chain
from pathlib import Path

import pytest
from conftest import ROOT
from streams import Peer, Pipeline, ids, request, wait_until
from test_streams import REPLY, Client, to

BUILD = ROOT / "build-crash"
REQUESTS = 1500

SHAPES = {
    "one": (),
    "flush": ("tx.flush=16,200us",),
    "spread": ("worker.count=2", "worker.dispatch=key", "tx.connections=3", "tx.flush=8"),
    "rings": ("worker.count=2", "worker.dispatch=key"),
}


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """The programs with crash points in them."""
    subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "crash"], cwd=ROOT, check=True)


def assert_killed_once(pipeline: Pipeline, stage: str = "tx") -> None:
    assert [restart["stage"] for restart in pipeline.counters["restarts"]] == [stage]


def killed_at(crash: str, tmp_path: Path, peer: Peer, payload: int, *sets: str) -> None:
    pipeline = Pipeline(tmp_path / "run", *to(peer), *sets, build=BUILD, crash=crash)
    pipeline.send(range(1, REQUESTS + 1), payload)
    pipeline.drain()
    assert pipeline.launcher.returncode == 0
    peer.finish()
    assert_killed_once(pipeline)
    assert pipeline.counters["end"]["outcomes"]["transmitted"] == REQUESTS
    assert pipeline.counters["end"]["repeated"] == []


@pytest.mark.parametrize(
    ("point", "shape"),
    [
        ("stream:noted:200", "spread"),
        ("stream:taken:200", "flush"),
        ("stream:written:200", "one"),
        ("stream:written:40", "rings"),
        ("stream:marked:205", "spread"),
        ("tx:counted:210", "flush"),
        ("tx:committed:40", "spread"),
    ],
)
def test_killed_at(point: str, shape: str, tmp_path: Path) -> None:
    peer = Peer()
    killed_at(f"tx/{point}", tmp_path, peer, 8, *SHAPES[shape])
    found = [ids(bytes(data)) for data in peer.received]
    assert sorted(chain(*found)) == list(range(1, REQUESTS + 1))
    for numbers in found:  # what one worker made stays in order on every connection
        for worker in range(2):
            mine = [number for number in numbers if number % 2 == worker]
            assert mine == sorted(mine)


def test_killed_while_the_kernel_has_a_part(tmp_path: Path) -> None:
    """A reader so slow that writes end within a reply."""
    peer = Peer(receive_buffer=4096, pause_s=0.0002, chunk=3000)
    killed_at("tx/stream:written:20", tmp_path, peer, 1200, *SHAPES["flush"])
    assert ids(bytes(peer.received[0]), 1200) == list(range(1, REQUESTS + 1))


@pytest.mark.parametrize("point", ["down:1", "renumbered:3", "connecting:2", "begun:2", "up:2"])
def test_killed_while_a_connection_is_made_anew(point: str, tmp_path: Path) -> None:
    """What had come before it was lost does not come again, what waited comes once."""
    peer = Peer()
    crash = f"tx/stream:{point}"
    pipeline = Pipeline(tmp_path / "run", *to(peer), build=BUILD, crash=crash)
    pipeline.send(range(1, 301))
    wait_until(lambda: len(peer.received[0]) == 300 * 23)
    peer.stop_listening()
    peer.sockets[0].shutdown(socket.SHUT_RDWR)
    tx = Path(f"/proc/{pipeline.ready['pids']['tx']}")
    wait_until(lambda: "is lost" in pipeline.told or not tx.exists())
    pipeline.send(range(301, 401))
    peer.listen_again()
    wait_until(lambda: len(peer.received) >= 2)
    pipeline.send(range(401, 501))
    pipeline.drain()
    peer.finish()
    assert_killed_once(pipeline)
    found = [ids(bytes(data)) for data in peer.received]
    assert list(chain(*found)) == list(range(1, 501))
    assert found[0] == list(range(1, 301))


@pytest.mark.parametrize("point", ["written:150", "ended:3", "released:3"])
def test_killed_with_accepted_connections(point: str, tmp_path: Path) -> None:
    crash = f"tx/stream:{point}"
    pipeline = Pipeline(tmp_path / "run", *REPLY, "worker.count=2", build=BUILD, crash=crash)
    clients = [Client(pipeline.port, range(k * 1000 + 1, k * 1000 + 101)) for k in range(6)]
    for client in clients:
        client.finish()
    pipeline.drain()
    assert_killed_once(pipeline)
    for client in clients:
        assert ids(bytes(client.replies)) == list(client.numbers)
    assert pipeline.counters["end"]["outcomes"]["transmitted"] == 600


@pytest.mark.parametrize("point", ["peer:first", "peer:address"])
def test_killed_while_a_sender_gets_a_place(point: str, tmp_path: Path) -> None:
    crash = f"rx/{point}:5"
    pipeline = Pipeline(tmp_path / "run", "tx.sink=reply", build=BUILD, crash=crash)
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
    for turn in range(2):
        for k, sender in enumerate(senders):
            sender.sendto(request(turn * 10 + k), ("127.0.0.1", pipeline.port))
    pipeline.drain()
    assert_killed_once(pipeline, "rx")
    for k, sender in enumerate(senders):
        sender.settimeout(5)
        assert [ids(sender.recv(100))[0] for _ in range(2)] == [k, 10 + k]
        sender.close()
