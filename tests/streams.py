# SPDX-License-Identifier: Apache-2.0
"""What tests of replies over TCP share: a pipeline without a lab, and a peer that reads."""

import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import BUILD, ISOLATED

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets


def request(number: int, payload: int = 8) -> bytes:
    return b"|%08d|%04d|" % (number, payload) + b"a" * payload


def ids(replies: bytes, payload: int = 8) -> list[int]:
    """Ids of the replies of a connection; fails where one is not whole, or not what it must be."""
    size = 15 + payload
    assert len(replies) % size == 0, f"{len(replies)} bytes: a part of a reply"
    pieces = [replies[at : at + size] for at in range(0, len(replies), size)]
    for piece in pieces:
        assert piece[0:1] == b"|", piece[:40]
        assert piece[9:] == b"|%04d|" % payload + b"b" * payload, piece[:40]
    return [int(piece[1:9]) for piece in pieces]


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port() -> int:
    """One that neither UDP uses nor TCP, not even a connection that has just ended."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return tcp.getsockname()[1]


class Peer:
    """Accepts connections and keeps what each brings, as fast as it is told to read."""

    def __init__(self, receive_buffer: int = 0, pause_s: float = 0, chunk: int = 65536) -> None:
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.pause_s = pause_s
        self.chunk = chunk
        self.sockets: list[socket.socket] = []
        self.received: list[bytearray] = []
        self.threads: list[threading.Thread] = []
        self.start()

    def start(self) -> None:
        self.listener.listen(128)
        self.thread = threading.Thread(target=self.accept, args=(self.listener,), daemon=True)
        self.thread.start()

    def accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.sockets.append(connection)
            self.received.append(bytearray())
            reader = threading.Thread(
                target=self.read, args=(connection, self.received[-1]), daemon=True
            )
            self.threads.append(reader)
            reader.start()

    def read(self, connection: socket.socket, into: bytearray) -> None:
        while True:
            try:
                data = connection.recv(self.chunk)
            except OSError:
                return
            if not data:
                return
            into += data
            if self.pause_s:
                time.sleep(self.pause_s)

    def stop_listening(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)

    def listen_again(self) -> None:
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(self.address)
        self.start()

    def reset(self, index: int) -> None:
        self.sockets[index].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sockets[index].shutdown(socket.SHUT_RD)  # its reader comes back
        self.threads[index].join(5)
        self.sockets[index].close()

    def finish(self) -> None:
        """All has come that will: the pipeline has closed its ends."""
        self.stop_listening()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive(), "a connection has no end"
        for connection in self.sockets:
            connection.close()


class Pipeline:
    """`tickline run` with requests by UDP."""

    def __init__(
        self, directory: Path, *sets: str, build: Path = BUILD, crash: str | None = None
    ) -> None:
        self.directory = directory
        self.port = free_port()
        command = [str(build / "tickline"), "run", str(ISOLATED), "--json"]
        command += ["--run-dir", str(directory)]
        own = [f"rx.bind=127.0.0.1:{self.port}", f"pipeline.name=streams-{os.getpid()}"]
        for value in (*own, "trace.lane=1MiB", *sets):
            command += ["--set", value]
        environment = os.environ | ({"TICKLINE_CRASH": crash} if crash else {})
        self.launcher = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ready = json.loads(self.launcher.stdout.readline())
        assert self.ready["event"] == "ready", self.ready
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(
        self, numbers: range, payload: int = 8, burst: int = 20, pause_s: float = 5e-4
    ) -> None:
        for count, number in enumerate(numbers, 1):
            self.client.sendto(request(number, payload), ("127.0.0.1", self.port))
            if count % burst == 0:
                time.sleep(pause_s)

    def drain(self, timeout_s: float = 60) -> list[dict[str, Any]]:
        self.client.close()
        out, _ = self.launcher.communicate("drain\n", timeout=timeout_s)
        return [json.loads(line) for line in out.splitlines() if line]

    def end(self) -> None:
        if self.launcher.poll() is None:
            self.launcher.kill()
            self.launcher.wait()

    @property
    def counters(self) -> dict[str, Any]:
        return json.loads((self.directory / "counters.json").read_text())

    @property
    def told(self) -> str:
        return (self.directory / "log" / "tx.log").read_text()
