# SPDX-License-Identifier: Apache-2.0
"""`tickline run` with rx.source = tcp over loopback, and what its tests do to it."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conftest import ISOLATED, ROOT

CONNECTION = 1 << 32  # an id is this times the connection's index plus the request's
RESET = struct.pack("ii", 1, 0)


def request(connection: int, number: int, payload: bytes = b"abcdefgh") -> bytes:
    """A v2 request whose id says where it belongs."""
    return struct.pack(">QI", connection * CONNECTION + number, len(payload)) + payload


def stream(connection: int, count: int, begin: int = 0) -> bytes:
    return b"".join(
        request(connection, number, b"x" * (number % 50)) for number in range(begin, begin + count)
    )


class Run:
    """A pipeline that is up; replies come to a UDP socket here."""

    def __init__(self, directory: Path, build: Path, crash: str | None, **values: Any) -> None:
        self.directory = directory
        self.replies = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.replies.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.replies.bind(("127.0.0.1", 0))
        self.replies.setblocking(False)
        values = {
            "pipeline.schema": "v2",
            "pipeline.name": f"tcp-{os.getpid()}",
            "rx.source": "tcp",
            "rx.bind": "127.0.0.1:9327",
            "tx.to": f"127.0.0.1:{self.replies.getsockname()[1]}",
            "trace.lane": "1MiB",
        } | {key.replace("__", "."): value for key, value in values.items()}
        command = [build / "tickline", "run", ISOLATED, "--json", "--run-dir", directory]
        for key, value in values.items():
            command += ["--set", f"{key}={value}"]
        environment = os.environ | ({"TICKLINE_CRASH": crash} if crash else {})
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ready = json.loads(self.process.stdout.readline())
        assert self.ready["event"] == "ready", self.ready

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", 9327), timeout=20)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def stats(self) -> dict[str, int]:
        self.process.stdin.write("stats\n")
        self.process.stdin.flush()
        while True:
            event = json.loads(self.process.stdout.readline())
            if event["event"] == "stats":
                return event

    def await_received(self, count: int) -> None:
        """Until so many requests have their number; what comes later is not waited for."""
        deadline = time.monotonic() + 30
        while self.stats()["received"] < count:
            assert time.monotonic() < deadline, (self.stats(), count)
            time.sleep(0.01)

    def drain(self) -> dict[str, Any]:
        """Ends it; its counters of the end."""
        self.process.stdin.write("drain\n")
        self.process.stdin.flush()
        events = [json.loads(line) for line in self.process.stdout]
        assert self.process.wait() == 0, events
        return self.counters["end"]

    @property
    def counters(self) -> dict[str, Any]:
        return json.loads((self.directory / "counters.json").read_text())

    def ids(self) -> list[int]:
        """Of the replies that have come since, in their order."""
        ids = []
        with contextlib.suppress(BlockingIOError):
            while True:
                ids.append(struct.unpack(">Q", self.replies.recv(65536)[:8])[0])
        return ids

    def close(self) -> None:
        self.replies.close()
        if self.process.poll() is None:
            self.process.terminate()  # killed, it would leave its trace behind
        self.process.communicate()


@contextlib.contextmanager
def run(
    directory: Path, build: Path = ROOT / "build", crash: str | None = None, **values: Any
) -> Iterator[Run]:
    pipeline = Run(directory, build, crash, **values)
    try:
        yield pipeline
    finally:
        pipeline.close()


def in_order(ids: list[int]) -> dict[int, list[int]]:
    """Numbers of the requests of each connection, as they were answered."""
    numbers: dict[int, list[int]] = {}
    for wire in ids:
        numbers.setdefault(wire // CONNECTION, []).append(wire % CONNECTION)
    return numbers


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def ended_by(client: socket.socket) -> str:
    """How the other side has closed it."""
    try:
        return "data" if client.recv(1) else "end"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
