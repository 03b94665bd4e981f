# SPDX-License-Identifier: Apache-2.0
"""Replies over TCP in whole runs: peers that are slow, that go and come back, or are not there."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from conftest import BUILD
from streams import RESET, Peer, Pipeline, ids, request, wait_until

pytestmark = pytest.mark.skipif(not (BUILD / "tickline").exists(), reason="needs tickline: make")


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.listener.close()


def to(peer: Peer) -> tuple[str, ...]:
    return (f"tx.to=127.0.0.1:{peer.address[1]}", "tx.sink=tcp", "ring.full=wait")


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_a_slow_reader_slows_the_pipeline(tmp_path: Path) -> None:
    """All buffers fill, requests wait in rx's socket, memory does not grow; then all comes."""
    requests, payload = 3000, 1400
    peer = Peer(receive_buffer=4096, pause_s=0.02, chunk=4096)
    sets = ("ring.depth=64", "tx.patience=never", "supervise.drain_timeout=60s")
    pipeline = Pipeline(tmp_path / "run", *to(peer), *sets)
    before = resident_kib(pipeline.ready["pids"]["tx"])
    pipeline.send(range(1, requests + 1), payload, burst=50)
    time.sleep(0.3)
    assert len(peer.received[0]) < requests * payload / 4  # upstream is held up
    assert resident_kib(pipeline.ready["pids"]["tx"]) - before < 2048
    peer.pause_s, peer.chunk = 0, 1 << 20
    peer.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    pipeline.drain()
    peer.finish()
    assert ids(bytes(peer.received[0]), payload) == list(range(1, requests + 1))
    assert pipeline.counters["end"]["outcomes"]["transmitted"] == requests


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_peer_that_goes_and_comes_back(how: str, peer: Peer, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "run", *to(peer), "tx.connections=2", "worker.dispatch=key")
    pipeline.send(range(1, 501))
    wait_until(lambda: sum(map(len, peer.received)) == 500 * 23)
    peer.stop_listening()
    for index in range(2):
        if how == "reset":
            peer.reset(index)
        else:
            peer.sockets[index].shutdown(socket.SHUT_RDWR)
            peer.sockets[index].close()
    time.sleep(0.05)
    pipeline.send(range(501, 1001))  # nobody is there: they wait
    peer.listen_again()
    wait_until(lambda: len(peer.received) == 4)
    pipeline.send(range(1001, 1501))
    pipeline.drain()
    peer.finish()
    found = [ids(bytes(data)) for data in peer.received]
    assert sorted(chain(*found)) == list(range(1, 1501))
    assert all(numbers == sorted(numbers) for numbers in found)
    replies = pipeline.counters["end"]["replies"]
    assert (replies["lost"], replies["back"]) == (2, 2)
    assert replies["refused"] >= 2
    assert replies["unacknowledged_bytes"] == 0
    assert replies["undelivered"] == {"gone": 0, "patience": 0, "error": 0}
    for place in range(2):
        assert f"connection {place} is lost: " in pipeline.told
        assert f"connection {place} is back after " in pipeline.told


def test_bytes_that_nobody_acknowledged(tmp_path: Path) -> None:
    """A peer that never reads is reset: what the kernel held counts as sent, its bytes are told."""
    peer = Peer(receive_buffer=4096)
    peer.read = lambda connection, into: None  # type: ignore[method-assign]
    pipeline = Pipeline(tmp_path / "run", *to(peer))
    pipeline.send(range(1, 501), 1000)
    time.sleep(0.1)
    peer.read = Peer.read.__get__(peer)  # type: ignore[method-assign]
    peer.reset(0)
    wait_until(lambda: len(peer.received) == 2)
    pipeline.send(range(501, 601), 1000)
    pipeline.drain()
    peer.finish()
    end = pipeline.counters["end"]
    assert end["outcomes"]["transmitted"] == 600
    second = ids(bytes(peer.received[1]), 1000)
    assert second == list(range(601 - len(second), 601))
    missing = 600 - len(second)  # and a part of the next may have been with the kernel
    assert 0 < end["replies"]["unacknowledged_bytes"] <= (missing + 1) * 1015


@pytest.mark.parametrize(("patience", "ends"), [("50ms", False), ("never", True)])
def test_nobody_there(patience: str, ends: bool, peer: Peer, tmp_path: Path) -> None:
    """Refused from the start: told once; replies are dropped when patience or the run ends."""
    peer.stop_listening()
    sets = (f"tx.patience={patience}", "supervise.drain_timeout=1s")
    pipeline = Pipeline(tmp_path / "run", *to(peer), *sets)
    pipeline.send(range(1, 101))
    if not ends:
        time.sleep(0.3)
    pipeline.drain()
    assert pipeline.launcher.returncode == 0
    end = pipeline.counters["end"]
    assert end["outcomes"]["dropped_tx"] == end["replies"]["undelivered"]["patience"] == 100
    assert end["replies"]["lost"] == 0 < end["replies"]["refused"]
    assert pipeline.told.count("connection 0 cannot be made: Connection refused") == 1


def calls_of(pid: int, out: Path) -> subprocess.Popen:
    """Counts the system calls of a process until it ends."""
    command = ["strace", "-qq", "-c", "-o", str(out), "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: f"TracerPid:\t{tracer.pid}" in Path(f"/proc/{pid}/status").read_text())
    return tracer


def counts(out: Path) -> dict[str, int]:
    """Calls by name, as strace -c writes them."""
    fields = [line.split() for line in out.read_text().splitlines()]
    return {row[-1]: int(row[3]) for row in fields if row and row[0][0].isdigit()}


@pytest.mark.parametrize("flush", ["1", "16,2ms"])
def test_calls_a_reply(flush: str, peer: Peer, tmp_path: Path) -> None:
    """flush = 1: one sendto for each reply and nothing else; 16: one sendmsg for many."""
    pipeline = Pipeline(tmp_path / "run", *to(peer), f"tx.flush={flush}")
    tracer = calls_of(pipeline.ready["pids"]["tx"], tmp_path / "calls")
    pipeline.send(range(1, 501))
    pipeline.drain()
    assert tracer.wait(20) == 0
    calls = counts(tmp_path / "calls")
    if flush == "1":
        assert calls["sendto"] == 500
        assert "sendmsg" not in calls
    else:
        assert calls["sendmsg"] + calls.get("sendto", 0) < 250


# ---- reply ----


class Client:
    """A connection that asks `numbers`, and keeps what comes back until the other side ends it."""

    def __init__(self, port: int, numbers: range) -> None:
        self.numbers = numbers
        self.replies = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(30)
        self.threads = [threading.Thread(target=work) for work in (self.ask, self.read)]
        for thread in self.threads:
            thread.start()

    def ask(self) -> None:
        for count, number in enumerate(self.numbers):
            self.socket.sendall(request(number))
            if count % 25 == 0:
                time.sleep(0.001)
        self.socket.shutdown(socket.SHUT_WR)

    def read(self) -> None:
        while data := self.socket.recv(65536):
            self.replies += data

    def finish(self) -> None:
        for thread in self.threads:
            thread.join(40)
            assert not thread.is_alive()
        self.socket.close()


REPLY = ("rx.source=tcp", "tx.sink=reply")


@pytest.mark.parametrize(
    "sets", [(), ("worker.count=4", "tx.flush=8,100us")], ids=["one", "four-flush"]
)
def test_reply_on_64_connections(sets: tuple[str, ...], tmp_path: Path) -> None:
    """Each connection gets its own replies, all of them, in order, and then the end."""
    pipeline = Pipeline(tmp_path / "run", *REPLY, *sets)
    clients = [Client(pipeline.port, range(k * 1000 + 1, k * 1000 + 101)) for k in range(64)]
    for client in clients:
        client.finish()
    pipeline.drain()
    assert pipeline.launcher.returncode == 0
    for client in clients:
        assert ids(bytes(client.replies)) == list(client.numbers)
    end = pipeline.counters["end"]
    assert end["outcomes"]["transmitted"] == 6400
    assert end["replies"]["undelivered"] == {"gone": 0, "patience": 0, "error": 0}
    assert end["connections"]["open"] == 0


def test_connections_that_are_reset_while_others_work(tmp_path: Path) -> None:
    """Places are used again, no reply goes to the wrong connection, and each is counted."""
    sets = ("rx.connections=8", "worker.handler=spin", "handler.spin.time=20us")
    pipeline = Pipeline(tmp_path / "run", *REPLY, *sets)
    steady = Client(pipeline.port, range(1, 2001))
    for k in range(200):
        with socket.create_connection(("127.0.0.1", pipeline.port)) as brief:
            brief.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            brief.sendall(request(100_000 + k) * 5)
            time.sleep(0.0005 * (k % 3))
    steady.finish()
    pipeline.drain()
    assert pipeline.launcher.returncode == 0
    payload = bytes(steady.replies).replace(b"|0008|aaaaaaaa", b"|0008|bbbbbbbb")
    assert ids(payload) == list(range(1, 2001))
    end = pipeline.counters["end"]
    undelivered = end["replies"]["undelivered"]
    assert sum(undelivered.values()) == end["outcomes"]["dropped_tx"]
    assert end["outcomes"]["transmitted"] + end["outcomes"]["dropped_tx"] == end["rx"]["issued"]


def test_reply_to_1000_senders(tmp_path: Path) -> None:
    """Each datagram's sender gets the reply to it, from the address it sent to."""
    pipeline = Pipeline(tmp_path / "run", "tx.sink=reply", "worker.count=2")
    senders = []
    for _ in range(1000):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.connect(("127.0.0.1", pipeline.port))
        sender.setblocking(False)
        senders.append(sender)
    for turn in range(3):
        for k, sender in enumerate(senders):
            sender.send(request(turn * 1000 + k))
            if k % 20 == 0:
                time.sleep(0.0005)
    pipeline.drain()
    assert pipeline.launcher.returncode == 0
    for k, sender in enumerate(senders):
        replies = [ids(sender.recv(100))[0] for _ in range(3)]
        assert replies == [k, 1000 + k, 2000 + k]
        sender.close()
    assert pipeline.counters["end"]["outcomes"]["transmitted"] == 3000
