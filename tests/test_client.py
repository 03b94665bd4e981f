# SPDX-License-Identifier: Apache-2.0
"""The lab's client and its scripts, without the pipeline: what it writes, when, and what it makes
of what comes back. The peer is a few lines of Python on the loopback."""

import contextlib
import json
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BUILD, ROOT

from ticklab import capture, generate, reference, script
from ticklab.run import CONNECTIONS, NOT_DONE, SENT

CLIENT, SINK = BUILD / "client", BUILD / "sink"
FIX = ROOT.parent / "shared" / "captures" / "fix41-tcp.pcap.gz"
RESET, ENDED, BROKEN = 4, 5, 6  # enum link_state
DELIVERED = np.dtype([("id", "<u8"), ("kernel_ns", "<u8"), ("hash", "<u8"), ("rest", "<u8")])


class Peer:
    """Listens on the loopback and keeps what each connection brings; with `echo`, sends it back."""

    def __init__(self, echo: bool = True, take: bool = True) -> None:
        self.echo, self.take = echo, take
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.select = selectors.DefaultSelector()
        self.select.register(self.listener, selectors.EVENT_READ)
        self.waiting: dict[socket.socket, bytearray] = {}
        self.got: dict[socket.socket, bytearray] = {}
        self.order: list[socket.socket] = []  # as accepted
        self.ended = self.reset = 0
        self.stopping = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self.stopping:
            for key, _ in self.select.select(0.05):
                if key.fileobj is self.listener:
                    self._accept()
                else:
                    self._read(key.fileobj)
            for connection in [c for c, data in self.waiting.items() if data]:
                self._send(connection)

    def _accept(self) -> None:
        try:
            made, _ = self.listener.accept()
        except OSError:
            return
        made.setblocking(False)
        self.order.append(made)
        self.got[made], self.waiting[made] = bytearray(), bytearray()
        if self.take:
            self.select.register(made, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(1 << 16)
        except OSError:
            self.reset += 1
            self._leave(connection)
            return
        self.got[connection] += data
        if self.echo:
            self.waiting[connection] += data
        if not data:
            self.ended += 1
            connection.setblocking(True)
            with contextlib.suppress(OSError):  # reset since
                connection.sendall(self.waiting[connection])
            self._leave(connection)

    def _send(self, connection: socket.socket) -> None:
        data = self.waiting[connection]
        try:
            del data[: connection.send(data)]
        except BlockingIOError:
            pass
        except OSError:
            data.clear()

    def _leave(self, connection: socket.socket) -> None:
        self.waiting[connection].clear()
        self.select.unregister(connection)
        connection.close()

    def close(self) -> None:
        self.stopping = True
        self.thread.join()
        for connection in self.order:
            connection.close()
        self.listener.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(**how: bool) -> Peer:
        made.append(Peer(**how))
        return made[-1]

    yield make
    for each in made:
        each.close()


def write_script(path: Path, operations: list[tuple], ports: list[int]) -> Path:
    """`operations`: (planned_ns, connection, kind, bytes)."""
    data, rows = bytearray(), []
    for planned, connection, kind, content in operations:
        rows.append((planned, len(data), connection, len(content), kind, 0))
        data += content
    table = np.array(rows, script.OPERATION)
    count = np.zeros((len(ports) + 1) // 2 * 2, "<u4")
    count[: len(ports)] = ports
    head = script.HEADER.pack(b"ticklscr", len(rows), len(ports), len(data), 0)
    path.write_bytes(head + count.tobytes() + table.tobytes() + bytes(data))
    return path


class Client:
    """build/client under test."""

    def __init__(self, path: Path, where: Path, *flags: str) -> None:
        if not CLIENT.exists():
            pytest.skip("build/client is missing: run make")
        self.where = where
        command = [str(CLIENT), "--script", str(path), "--to", "127.0.0.1"]
        command += ["--sent", str(where / "sent.bin")]
        command += ["--connections", str(where / "connections.bin"), *flags]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.wait()["event"] == "ready"

    def wait(self) -> dict[str, Any]:
        assert self.child.stdout
        return json.loads(self.child.stdout.readline())

    def say(self, command: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(command + "\n")
        self.child.stdin.flush()

    def ask(self, command: str) -> dict[str, Any]:
        self.say(command)
        return self.wait()

    def stop(self) -> dict[str, Any]:
        done = self.ask("stop")
        assert done["event"] == "done"
        assert self.child.wait(20) == 0
        return done

    def sent(self) -> np.ndarray:
        return np.fromfile(self.where / "sent.bin", SENT)

    def connections(self) -> np.ndarray:
        return np.fromfile(self.where / "connections.bin", CONNECTIONS)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(path: Path, *flags: str) -> Client:
        made.append(Client(path, tmp_path, *flags))
        return made[-1]

    yield make
    for each in made:
        if each.child.poll() is None:
            each.child.kill()
        each.child.wait()
        each.child.stdin.close()
        each.child.stdout.close()


def prepared(
    tmp_path: Path, count: int = 2000, warmup: int = 100, **options: Any
) -> tuple[script.Script, dict[int, bytes]]:
    """A script of generated v2 requests, and what each connection must write in a replay."""
    made = {"flows": 16, "rate": 20_000, "payload": "0-64", "seed": 3}
    generate.generate(tmp_path / "g.pcap", generate.Options(schema="v2", count=count, **made))
    chosen = script.Options("v2", "spin", warmup=warmup, **options)
    plan = script.prepare(tmp_path / "g.pcap", chosen, tmp_path / "cache")
    return plan, streams_of(plan)


def streams_of(plan: script.Script, operations: int | None = None) -> dict[int, bytes]:
    raw, table = plan.path.read_bytes(), plan.operations()
    data = raw[len(raw) - int(table["length"].sum()) :]
    streams: dict[int, bytes] = {}
    for row in table[:operations]:
        at, size = int(row["at"]), int(row["length"])
        if row["kind"] == script.DATA:
            number = int(row["connection"])
            streams[number] = streams.get(number, b"") + data[at : at + size]
    return streams


# ---- scripts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", script.CUTS)
def test_a_script_holds_every_request_in_order(tmp_path: Path, cuts: str) -> None:
    plan, streams = prepared(tmp_path, cuts=cuts, churn=50)
    table, offered, where = plan.operations(), plan.offered_at(), plan.requests()
    assert (np.diff(table["planned_ns"]) >= 0).all()
    found = {}
    for number, stream in streams.items():
        requests, rest = reference.frame_stream("v2", stream)
        assert rest == b""
        found[number] = [request.id for request in requests]
    assert sum(map(len, found.values())) == 2000
    for number, ids in found.items():  # in order in each connection, as offered, too
        assert offered["id"][where["connection"] == number].tolist() == ids
        assert ids == sorted(ids)
    # What completes a request is planned when the request is, and holds its last byte.
    completing = table[where["operation"]]
    assert (completing["connection"] == where["connection"]).all()
    assert (completing["planned_ns"] == offered["planned_ns"]).all()
    written = {}
    for index, row in enumerate(table):
        number = int(row["connection"])
        written[number] = written.get(number, 0) + int(row["length"])
        here = where["end"][where["operation"] == index]
        assert (here <= written[number]).all()
    # A connection of the churn: opened, one request, closed or reset.
    kinds = [table["kind"][table["connection"] == number].tolist() for number in range(16, 66)]
    if cuts != "random":
        assert kinds[0] == [script.OPEN, script.DATA, script.RESET]
        assert kinds[1] == [script.OPEN, script.DATA, script.CLOSE]
    # The warm-up leaves no connection within a request.
    warm = streams_of(plan, plan.plan["warmup"]["operations"])
    begun = [reference.frame_stream("v2", stream) for stream in warm.values()]
    assert sum(len(requests) for requests, _ in begun) == 100
    assert all(rest == b"" for _, rest in begun)


def test_random_cuts_cut_requests_and_put_them_together(tmp_path: Path) -> None:
    plan, _ = prepared(tmp_path, cuts="random")
    where, table = plan.requests(), plan.operations()
    writes = int((table["kind"] == script.DATA).sum())
    assert 0.9 * 2000 < writes < 1.1 * 2000
    inside = len(np.unique(where["operation"]))  # writes that complete a request
    assert inside < 0.9 * writes  # others complete none,
    assert inside < 0.9 * 2000  # some more than one


def test_the_same_seed_makes_the_same_script(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, _ = prepared(tmp_path / "a", cuts="random", churn=10)
    second, _ = prepared(tmp_path / "b", cuts="random", churn=10)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_more_connections_than_may_be_open_are_refused(tmp_path: Path) -> None:
    with pytest.raises(capture.CaptureError, match=r"16 connections at once: .* at most"):
        prepared(tmp_path, connections=15)


def test_malformed_requests_are_left_out_and_counted(tmp_path: Path) -> None:
    options = generate.Options(schema="v1", count=500, errors=0.1)
    generate.generate(tmp_path / "e.pcap", options)
    plan = script.prepare(tmp_path / "e.pcap", script.Options("v1", "rot1"), tmp_path / "cache")
    assert plan.plan["excluded"] == {"malformed requests": 50}
    assert plan.plan["offered"]["requests"] == 450
    assert "50 malformed requests: left out" in plan.plan["warnings"][0]
    kept = script.prepare(
        tmp_path / "e.pcap", script.Options("v1", "rot1", datagrams=True), tmp_path / "cache"
    )
    assert kept.plan["offered"] == {"operations": 500, "writes": 500, "requests": 500}


@pytest.mark.parametrize("cuts", ["segments", "none", "random"])
def test_a_script_of_the_captured_fix_session(tmp_path: Path, cuts: str) -> None:
    if not FIX.exists():
        pytest.skip(f"needs {FIX}")
    from ticklab import streams

    options = script.Options("fix", "spin", cuts=cuts)
    plan = script.prepare(FIX, options, tmp_path / "cache")
    held = [
        found.request.raw
        for connection in streams.connections(FIX)
        for side in connection.sides
        for found in streams.requests(side, "fix")
        if found.request.reason is None
    ]
    assert held
    assert plan.plan["offered"]["requests"] == len(held)
    written = b"".join(streams_of(plan)[number] for number in range(plan.plan["flows"]))
    assert written == b"".join(held)
    assert [end["port"] for end in plan.plan["endpoints"]] == [4000]


# ---- the client ----------------------------------------------------------------------------------


def test_every_byte_arrives_in_order_at_its_time(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client]
) -> None:
    plan, streams = prepared(tmp_path, cuts="random")
    far = peer(echo=False)
    sender = client(plan.path, "--to", f"127.0.0.1:{far.port}")
    count = plan.plan["offered"]["operations"]
    played = sender.ask(f"play 0 {count} 1x")
    assert (played["event"], played["settled"], played["sent"]) == ("played", count, count)
    sent = sender.sent()
    assert sent["planned_ns"].tolist() == plan.planned_at("1x").tolist()
    late = sent["done_ns"] - sent["planned_ns"]
    assert late.min() >= 0  # never early
    assert sent["done_ns"][-1] == played["took_ns"]
    sender.stop()
    wait_for(lambda: sum(map(len, far.got.values())) == sum(map(len, streams.values())))
    assert sorted(map(bytes, far.got.values())) == sorted(streams.values())
    made = sender.connections()
    assert made["written"].tolist() == [len(streams[number]) for number in range(16)]
    assert made["opened"].tolist() == [1] * 16


@pytest.mark.parametrize("speed", ["10x", "top", "40000pps"])
def test_speeds(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client], speed: str
) -> None:
    plan, _ = prepared(tmp_path)
    sender = client(plan.path, "--to", f"127.0.0.1:{peer(echo=False).port}")
    sender.ask(f"play 0 {plan.plan['offered']['operations']} {speed}")
    sent, planned = sender.sent(), plan.planned_at(speed)
    assert np.abs(sent["planned_ns"] - planned).max() <= 1
    assert (sent["done_ns"] >= sent["planned_ns"]).all()
    sender.stop()


def judging(plan: script.Script, where: Path) -> list[str]:
    flags = ["--expected", str(plan.expected), "--flows", str(plan.flows)]
    return [*flags, "--out", str(where / "delivered.bin"), "--schema", "v2"]


def test_replies_are_judged_on_the_connection_that_asked(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client]
) -> None:
    """And a thousand connections are opened, reset and closed meanwhile."""
    plan, streams = prepared(tmp_path, count=4000, cuts="random", churn=1000)
    far = peer()
    flags = ["--to", f"127.0.0.1:{far.port}", *judging(plan, tmp_path)]
    sender = client(plan.path, *flags)
    sender.ask(f"play 0 {plan.plan['warmup']['operations']} top")
    wait_for(lambda: sender.ask("stats")["delivered"] == 100)
    assert sender.ask("mark") == {"event": "mark"}
    played = sender.ask(f"play 0 {plan.plan['offered']['operations']} 1x")
    assert played["settled"] == plan.plan["offered"]["operations"]
    wait_for(lambda: sender.ask("stats")["delivered"] >= 3500)
    time.sleep(0.1)
    done = sender.stop()
    wrong = ("duplicated", "corrupted", "unknown", "misordered")
    assert {name: done[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert 3500 <= done["delivered"] <= 4000  # whose connection was reset has perhaps none
    assert (np.fromfile(tmp_path / "delivered.bin", DELIVERED)["kernel_ns"] > 0).all()
    made = sender.connections()
    assert int(made["resets"].sum()) == 500
    assert int(made["opened"].sum()) == 1000
    assert (made["state"][16:][::2] == RESET).all()
    wait_for(lambda: len(far.order) == 16 + 1000)
    assert not (made["state"] == BROKEN).any()
    del streams


def test_replies_that_are_wrong(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client]
) -> None:
    """Out of order, twice, with another content, of another connection, and no reply at all."""
    one, two, three = (struct.pack(">QI", number, 4) + b"abcd" for number in (1, 2, 3))
    path = write_script(
        tmp_path / "s", [(0, 0, script.DATA, one + two), (0, 1, script.DATA, three)], [1, 1]
    )
    rows = [(number, reference.xxh3_64_intdigest(raw)) for number, raw in enumerate((one, two), 1)]
    rows.append((3, reference.xxh3_64_intdigest(three)))
    np.array(rows, "<u8").tofile(tmp_path / "expected")
    np.array([0, 0, 1], "<u4").tofile(tmp_path / "flows")
    far = peer(echo=False)
    flags = ["--expected", str(tmp_path / "expected"), "--flows", str(tmp_path / "flows")]
    flags += ["--out", str(tmp_path / "out"), "--schema", "v2", "--to", f"127.0.0.1:{far.port}"]
    sender = client(path, *flags)
    sender.ask("play 0 2 top")
    wait_for(lambda: sum(map(len, far.got.values())) == 48)
    asked = next(c for c, data in far.got.items() if bytes(data) == one + two)
    asked.sendall(two + one)  # 1 was overtaken
    asked.sendall(one)  # twice
    asked.sendall(three)  # the other connection's: known, and never asked for here
    asked.sendall(two[:-1] + b"x")
    asked.sendall(b"\xff" * 40)  # of no length that could be
    wait_for(lambda: sender.ask("stats")["delivered"] == 6)
    done = sender.stop()
    assert (done["misordered"], done["duplicated"], done["corrupted"]) == (1, 1, 2)
    assert done["unknown"] == 1


def test_a_write_that_cannot_go_holds_up_its_own_connection_alone(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client]
) -> None:
    """Partial writes: much more than the sockets hold, to somebody who does not read."""
    deaf, far = peer(echo=False, take=False), peer(echo=False)
    large = bytes(range(256)) * (24 << 12)  # 24 MiB
    operations = [(0, 0, script.DATA, large), (0, 0, script.DATA, b"behind")]
    operations += [(i * 100_000, 1, script.DATA, b"%04d" % i) for i in range(1000)]
    path = write_script(tmp_path / "s", operations, [deaf.port, far.port])
    sender = client(path)
    sender.say(f"play 0 {len(operations)} 1x")
    wait_for(lambda: sum(map(len, far.got.values())) == 4000)
    assert sender.ask("stats")["sent"] == 1000  # the other is still at its first write
    deaf.take = True
    deaf.select.register(deaf.order[0], selectors.EVENT_READ)
    played = sender.wait()
    assert (played["event"], played["sent"]) == ("played", 1002)
    sender.stop()
    wait_for(lambda: len(deaf.got[deaf.order[0]]) == len(large) + 6)
    assert bytes(deaf.got[deaf.order[0]]) == large + b"behind"
    assert sender.sent()["done_ns"][1] > sender.sent()["done_ns"][0] > 50_000_000


def test_half_close_reads_to_the_end(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client]
) -> None:
    requests = [struct.pack(">QI", number, 2) + b"ab" for number in range(1, 5001)]
    rows = [(number, reference.xxh3_64_intdigest(raw)) for number, raw in enumerate(requests, 1)]
    np.array(rows, "<u8").tofile(tmp_path / "expected")
    operations = [(0, 0, script.DATA, b"".join(requests)), (0, 0, script.CLOSE, b"")]
    far = peer()
    path = write_script(tmp_path / "s", operations, [far.port])
    flags = ["--expected", str(tmp_path / "expected"), "--out", str(tmp_path / "out")]
    sender = client(path, *flags, "--schema", "v2")
    sender.ask("play 0 2 top")
    done = sender.stop()
    assert done["delivered"] == 5000
    assert far.ended == 1


def test_who_is_reset_says_so_and_the_others_go_on(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client]
) -> None:
    far, other = peer(echo=False), peer(echo=False)
    operations = []
    for i in range(400):
        operations += [(i * 1_000_000, number, script.DATA, b"%04d" % i) for number in (0, 1)]
    path = write_script(tmp_path / "s", operations, [far.port, other.port])
    sender = client(path)
    sender.say(f"play 0 {len(operations)} 1x")
    wait_for(lambda: far.order and len(far.got[far.order[0]]) > 40)
    far.stopping = True
    far.thread.join()
    linger = struct.pack("ii", 1, 0)
    far.order[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    far.order[0].close()
    played = sender.wait()
    assert played["settled"] == 800
    assert 400 < played["sent"] < 800
    sender.stop()
    made, sent = sender.connections(), sender.sent()
    assert made["state"].tolist()[0] == BROKEN
    assert (sent["done_ns"][1::2] != NOT_DONE).all()
    gone = sent["done_ns"][0::2] == NOT_DONE
    assert gone.any()
    assert not np.diff(gone.astype(int)).min() < 0  # from some moment on
    wait_for(lambda: len(other.got[other.order[0]]) == 1600)


def test_halt_ends_the_playing(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client]
) -> None:
    far = peer(echo=False)
    operations = [(i * 20_000_000, 0, script.DATA, b"abcd") for i in range(1000)]
    sender = client(write_script(tmp_path / "s", operations, [far.port]))
    sender.say("play 0 1000 1x")
    wait_for(lambda: sender.ask("stats")["sent"] > 3)
    played = sender.ask("halt")
    assert played["event"] == "played"
    assert 3 < played["sent"] < 1000
    sender.stop()
    assert int((sender.sent()["done_ns"] != NOT_DONE).sum()) == played["sent"]
    assert sender.connections()["written"][0] == 4 * played["sent"]


def test_datagrams_and_their_replies(tmp_path: Path, client: Callable[..., Client]) -> None:
    plan, _ = prepared(tmp_path, datagrams=True)
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    far.bind(("127.0.0.1", 0))
    senders: set = set()

    def echo() -> None:
        for _ in range(2000):
            data, sender = far.recvfrom(1 << 16)
            senders.add(sender)
            far.sendto(data, sender)

    far.settimeout(20)
    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    flags = ["--udp", "--to", f"127.0.0.1:{far.getsockname()[1]}", *judging(plan, tmp_path)]
    both = client(plan.path, *flags)
    both.ask("play 0 2000 1x")
    thread.join(20)
    wait_for(lambda: both.ask("stats")["delivered"] == 2000)
    done = both.stop()
    assert len(senders) == 16  # a socket a sender
    wrong = ("duplicated", "corrupted", "unknown", "misordered", "dropped_socket")
    assert {name: done[name] for name in wrong} == dict.fromkeys(wrong, 0)
    far.close()


def test_nobody_listens(tmp_path: Path) -> None:
    if not CLIENT.exists():
        pytest.skip("build/client is missing: run make")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        path = write_script(tmp_path / "s", [(0, 0, script.DATA, b"x")], [unused.getsockname()[1]])
        done = subprocess.run(
            [str(CLIENT), "--script", str(path), "--to", "127.0.0.1", "--speed", "1x"],
            stdin=subprocess.PIPE,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 4
    assert "connection 0 to 127.0.0.1: Connection refused" in done.stdout


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "not a script"),
        (lambda data: b"x" + data[1:], "not a script"),
        (lambda data: data[:-1], "not a script"),
        (lambda data: data[:8] + b"\xff" * 8 + data[16:], "not a script"),
        (lambda data: data[:72] + b"\xff" * 8 + data[80:], "not a script"),  # a time before
        (lambda data: data[:48] + b"\xff" * 8 + data[56:], "not a script"),  # bytes from nowhere
        (lambda data: data[:56] + b"\x01" + data[57:], "not a script"),  # of no connection
        (lambda data: data[:64] + b"\x09" + data[65:], "not a script"),  # of no kind
        (lambda data: data[:32] + b"\0\0\0\0" + data[36:], "not a script"),  # to no port
    ],
)
def test_a_damaged_script_is_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    if not CLIENT.exists():
        pytest.skip("build/client is missing: run make")
    good = write_script(tmp_path / "s", [(0, 0, 0, b"x"), (2, 0, 0, b"yz")], [9])
    damaged = tmp_path / "damaged"
    damaged.write_bytes(damage(good.read_bytes()))
    done = subprocess.run(
        [str(CLIENT), "--script", str(damaged), "--to", "127.0.0.1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_client_goes_with_its_parent(
    tmp_path: Path, peer: Callable[..., Peer], client: Callable[..., Client]
) -> None:
    operations = [(i * 20_000_000, 0, script.DATA, b"abcd") for i in range(1000)]
    path = write_script(tmp_path / "s", operations, [peer(echo=False).port])
    sender = client(path)
    sender.say("play 0 1000 1x")
    sender.child.send_signal(signal.SIGINT)  # a terminal's: not for it
    wait_for(lambda: sender.ask("stats")["sent"] > 2)
    sender.child.send_signal(signal.SIGTERM)
    assert sender.child.wait(10) == 0


# ---- the sink's end of TCP -----------------------------------------------------------------------


def tcp_sink(tmp_path: Path, replies: list[bytes], *flags: str) -> tuple[subprocess.Popen, int]:
    if not SINK.exists():
        pytest.skip("build/sink is missing: run make")
    rows = [(i, reference.xxh3_64_intdigest(raw)) for i, raw in enumerate(replies, 1)]
    np.array(rows, "<u8").tofile(tmp_path / "expected")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(SINK), "--tcp", "--expected", str(tmp_path / "expected"), *flags]
    command += ["--out", str(tmp_path / "delivered"), "--listen", f"127.0.0.1:{port}"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert json.loads(child.stdout.readline())["event"] == "ready"
    return child, port


def stop_sink(child: subprocess.Popen) -> dict[str, Any]:
    done = json.loads(child.communicate("stop\n", timeout=30)[0].splitlines()[-1])
    assert child.returncode == 0
    return done


def v2(number: int, size: int = 20) -> bytes:
    return struct.pack(">QI", number, size) + bytes((number + i) % 256 for i in range(size))


def test_sink_cuts_streams_at_any_byte(tmp_path: Path) -> None:
    replies = [v2(number, number % 50) for number in range(1, 2001)]
    child, port = tcp_sink(tmp_path, replies, "--schema", "v2")
    whole = [b"".join(replies[k::4]) for k in range(4)]
    chance = np.random.default_rng(1)
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    at = [0] * 4
    while any(at[k] < len(whole[k]) for k in range(4)):
        for k, connection in enumerate(made):
            size = int(chance.integers(1, 400))
            connection.sendall(whole[k][at[k] : at[k] + size])
            at[k] += size
    for connection in made:
        connection.close()
    done = stop_sink(child)
    assert (done["delivered"], done["accepted"], done["open"]) == (2000, 4, 0)
    wrong = ("duplicated", "corrupted", "unknown", "misordered")
    assert {name: done[name] for name in wrong} == dict.fromkeys(wrong, 0)
    table = np.fromfile(tmp_path / "delivered", DELIVERED)
    assert sorted(table["id"].tolist()) == list(range(1, 2001))
    assert abs(int(table["kernel_ns"][0]) - time.time_ns()) < 60e9


def test_sink_knows_the_order_of_each_flow(tmp_path: Path) -> None:
    """Two flows, one connection: each in order, then one reply that was overtaken."""
    replies = [v2(number) for number in (1, 2, 3, 4, 5, 6)]
    np.array([0, 0, 0, 1, 1, 1], "<u4").tofile(tmp_path / "flows")
    flags = ["--schema", "v2", "--flows", str(tmp_path / "flows")]
    child, port = tcp_sink(tmp_path, replies, *flags)
    with socket.create_connection(("127.0.0.1", port)) as made:
        made.sendall(b"".join(replies[k] for k in (3, 0, 4, 2, 1, 5)))
    assert stop_sink(child)["misordered"] == 1


FORMS = {
    "v1": [b"|00000001|0003|abc", b"|00000002|0000|"],
    "v2": [v2(1), v2(2, 0), v2(3, 65535)],
    "v3": [
        b"\x0e\x09\1\0\0\0\0\0\0\0\x12\x03abc",
        b"\x09\x09\2\0\0\0\0\0\0\0",
        b"\xb8\x02\x09\3\0\0\0\0\0\0\0\x12\xac\x02" + b"x" * 300,
    ],
    "v4": [
        struct.pack("<IIQQ", 0, 2, 0, 1),
        struct.pack("<IIIIQQQ", 1, 2, 1, 0, 0, 2, 0),
    ],
    "fix": [b"8=FIX.4.1\x019=5\x0135=0\x0110=161\x01", b"8=FIX.4.4\x019=0\x0110=000\x01"],
}


@pytest.mark.parametrize("schema", FORMS)
def test_sink_knows_the_form_of_each_schema_in_a_stream(tmp_path: Path, schema: str) -> None:
    child, port = tcp_sink(tmp_path, FORMS[schema], "--schema", schema)
    with socket.create_connection(("127.0.0.1", port)) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b"".join(FORMS[schema])
        for k in range(0, min(len(data), 60)):
            made.sendall(data[k : k + 1])
        made.sendall(data[60:])
    done = stop_sink(child)
    assert (done["delivered"], done["unknown"]) == (len(FORMS[schema]), 0)


def test_sink_reads_slowly_when_told(tmp_path: Path) -> None:
    replies = [v2(number, 1000) for number in range(1, 4001)]
    child, port = tcp_sink(tmp_path, replies, "--schema", "v2", "--slow", "1000000")
    with socket.create_connection(("127.0.0.1", port)) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
        begun = time.monotonic()
        made.sendall(b"".join(replies[:1500]))
        assert time.monotonic() - begun > 0.7  # 1.5 MB, of which the sockets hold some
        assert child.poll() is None
    assert stop_sink(child)["delivered"] == 1500


def wait_for(true: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
