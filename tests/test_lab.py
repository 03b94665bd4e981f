# SPDX-License-Identifier: Apache-2.0
"""The lab's own parts, without the pipeline: network and its account, sink, player, what is settled
before a run. Each test says what it needs where that is missing."""

import ctypes
import ipaddress
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest as xxh3

from ticklab import capture, generate, manifest, network, player, prepare, reference
from ticklab.child import LabError, Talker, end, spawn

ROOT = Path(__file__).resolve().parents[1]
SINK = ROOT / "build" / "sink"
IEX = ROOT.parent / "shared" / "captures" / "iex-tops16.pcap.gz"
SO_MEMINFO = 55
SK_MEMINFO_DROPS = 8
DELIVERED = np.dtype(
    [
        ("id", "<u8"),
        ("kernel_ns", "<u8"),
        ("reply_hash", "<u8"),
        ("length", "<u4"),
        ("status", "<u4"),
    ]
)
OK, DUPLICATED, CORRUPTED, UNKNOWN = range(4)
DESTINATIONS = ["192.0.2.1", "192.0.2.255", "239.1.2.3", "2001:db8::5"]


@pytest.fixture(scope="module")
def net() -> Iterator[network.Network]:
    try:
        made = network.Network(DESTINATIONS)
    except LabError as error:
        pytest.skip(f"no network namespaces: {error}")
    with made:
        yield made


def inside(pid: int, act: Callable[[], Any]) -> Any:
    """Calls `act` in the network namespace of a process; a socket made there stays there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as home, open(f"/proc/{pid}/ns/net") as there:
        assert libc.setns(there.fileno(), 0) == 0
        try:
            return act()
        finally:
            assert libc.setns(home.fileno(), 0) == 0


def receiver(address: str, port: int, rcvbuf: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    if rcvbuf:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    made.bind((address, port))
    made.setblocking(False)
    return made


def take_all(made: socket.socket) -> int:
    count = 0
    while select.select([made], [], [], 0.05)[0]:
        try:
            made.recv(65536)
        except BlockingIOError:  # it had a wrong checksum
            continue
        count += 1
    return count


def drops_of(made: socket.socket) -> int:
    info = made.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)
    return struct.unpack_from("=I", info, 4 * SK_MEMINFO_DROPS)[0]


# ---- network -------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def frame(
    destination: str,
    port: int,
    size: int = 8,
    source: str = "203.0.113.9",
    *,
    udp_wrong: int = 0,
    ip_wrong: int = 0,
    udp_length: int | None = None,
    mac: str = network.RX_MAC,
) -> bytes:
    """An Ethernet frame with one UDP datagram, right unless told otherwise."""
    ends = [ipaddress.ip_address(text).packed for text in (source, destination)]
    udp = struct.pack("!HHHH", 4000, port, udp_length or 8 + size, 0) + b"x" * size
    pseudo = b"".join(ends) + struct.pack("!II", len(udp), socket.IPPROTO_UDP)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) ^ udp_wrong) + udp[8:]
    macs = bytes.fromhex((mac + network.PLAY_MAC).replace(":", ""))
    if ":" in destination:
        head = struct.pack("!IHBB", 6 << 28, len(udp), socket.IPPROTO_UDP, 64) + b"".join(ends)
        return macs + b"\x86\xdd" + head + udp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    head += b"".join(ends)
    head = head[:10] + struct.pack("!H", checksum(head) ^ ip_wrong) + head[12:]
    return macs + b"\x08\0" + head + udp


# name: frames, then how many are received, and lost on the wire, in IP, at a socket
LEDGER = {
    "received": ([frame("192.0.2.1", 9000)] * 7, 7, 0, 0, 0),
    "large": ([frame("192.0.2.1", 9000, 65000)] * 2, 2, 0, 0, 0),
    "broadcast": ([frame("192.0.2.255", 9000)] * 7, 7, 0, 0, 0),
    "from itself": ([frame("192.0.2.1", 9000, source="192.0.2.1")] * 7, 7, 0, 0, 0),
    "from the sink's net": ([frame("192.0.2.1", 9000, source="10.78.0.2")] * 7, 7, 0, 0, 0),
    "group": ([frame("239.1.2.3", 9002)] * 7, 7, 0, 0, 0),
    "IPv6": ([frame("2001:db8::5", 9003, source="2001:db8::9")] * 7, 7, 0, 0, 0),
    "no listener": ([frame("192.0.2.1", 9009)] * 7, 0, 0, 7, 0),
    "no listener in the group": ([frame("239.1.2.3", 9009)] * 7, 0, 0, 7, 0),
    "no listener, IPv6": (
        [frame("2001:db8::5", 9009, source="2001:db8::9")] * 7,
        0,
        0,
        7,
        0,
    ),
    "group nobody joined": ([frame("239.1.2.4", 9002)] * 7, 0, 0, 7, 0),
    "not our address": ([frame("192.0.3.1", 9000)] * 7, 0, 0, 7, 0),
    "source 127.0.0.1": ([frame("192.0.2.1", 9000, source="127.0.0.1")] * 7, 0, 0, 7, 0),
    "source 0.0.0.0": ([frame("192.0.2.1", 9000, source="0.0.0.0")] * 7, 0, 0, 7, 0),
    "wrong IP checksum": ([frame("192.0.2.1", 9000, ip_wrong=0x1111)] * 7, 0, 0, 7, 0),
    "UDP length too long": ([frame("192.0.2.1", 9000, udp_length=100)] * 7, 0, 0, 7, 0),
    # The kernel looks at the checksum of a short datagram at once, of a long one when it is read.
    "wrong checksum, short": ([frame("192.0.2.1", 9000, udp_wrong=0x5555)] * 7, 0, 0, 7, 0),
    "wrong checksum, long": ([frame("192.0.2.1", 9000, 800, udp_wrong=0x5555)] * 7, 0, 0, 0, 7),
    "wrong checksum, IPv6": (
        [frame("2001:db8::5", 9003, source="2001:db8::9", udp_wrong=0x5555)] * 7,
        0,
        0,
        7,
        0,
    ),
    "wrong checksum, no listener": ([frame("192.0.2.1", 9009, udp_wrong=5)] * 7, 0, 0, 7, 0),
    "wrong MAC": ([frame("192.0.2.1", 9000, mac="02:00:00:00:00:99")] * 7, 0, 7, 0, 0),
    "not IP": (
        [bytes.fromhex("020000007702020000007701") + b"\x88\xb5" + b"x" * 50] * 7,
        0,
        7,
        0,
        0,
    ),
}


@pytest.fixture(scope="module")
def receivers(net: network.Network) -> Iterator[list[socket.socket]]:
    pid = net.pipeline.pid
    ends = [("0.0.0.0", 9000), ("239.1.2.3", 9002), ("2001:db8::5", 9003)]
    made = [inside(pid, lambda end=end: receiver(*end)) for end in ends]
    group = socket.inet_aton("239.1.2.3") + socket.inet_aton("0.0.0.0")
    inside(pid, lambda: made[1].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group))
    yield made
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def wire(net: network.Network) -> Iterator[socket.socket]:
    """A raw socket where the player sends."""
    made = inside(net.client.pid, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    made.bind(("play0", 0))
    yield made
    made.close()


@pytest.mark.parametrize("name", LEDGER)
def test_ledger(
    net: network.Network, wire: socket.socket, receivers: list[socket.socket], name: str
) -> None:
    frames, received, on_wire, in_ip, at_socket = LEDGER[name]
    mark, dropped = net.snapshot(), sum(map(drops_of, receivers))
    for one in frames:
        wire.send(one)
    assert sum(map(take_all, receivers)) == received
    dropped = sum(map(drops_of, receivers)) - dropped
    lost = network.drops(mark, net.snapshot(), dropped)
    assert (lost.sent, lost.wire, lost.ip, dropped) == (len(frames), on_wire, in_ip, at_socket)


def test_ledger_with_a_full_receive_buffer(net: network.Network, wire: socket.socket) -> None:
    tiny = inside(net.pipeline.pid, lambda: receiver("192.0.2.1", 9004, rcvbuf=4608))
    mark = net.snapshot()
    for _ in range(50):
        wire.send(frame("192.0.2.1", 9004, 1000))
    received, dropped = take_all(tiny), drops_of(tiny)
    lost = network.drops(mark, net.snapshot(), dropped)
    tiny.close()
    assert 0 < received < 50
    assert (lost.sent, lost.wire, lost.ip, received + dropped) == (50, 0, 0, 50)


def test_growth_names_only_what_grew(net: network.Network, wire: socket.socket) -> None:
    mark = net.snapshot()
    wire.send(frame("192.0.2.1", 9009))
    grown = network.growth(mark, net.snapshot())
    assert grown["Udp"] == {"NoPorts": 1}
    assert grown["play0"]["tx_packets"] == 1


def test_wires_are_silent(net: network.Network) -> None:
    before = net.snapshot()
    time.sleep(0.3)
    after = net.snapshot()
    for interface in ("play0", "rx0", "tx0", "sink0"):
        assert after[interface] == before[interface]


def test_a_client_of_ones_own_reaches_the_pipeline(
    net: network.Network, receivers: list[socket.socket]
) -> None:
    with inside(net.client.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as own:
        own.sendto(b"hello", ("192.0.2.1", 9000))
    assert take_all(receivers[0]) == 1


def test_sink_moves_out_of_the_way() -> None:
    assert str(network.sink_network(["10.1.2.3"])[2]) == "10.78.0.2"
    assert str(network.sink_network(["10.78.200.1", "fe80::1"])[2]) == "172.30.0.2"
    with pytest.raises(LabError, match="no room"):
        network.sink_network(["10.78.0.1", "172.30.0.1", "192.168.0.1", "198.18.0.1"])


def test_nothing_is_left_after_kill_9(net: network.Network) -> None:
    code = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(ROOT / 'harness')!r})\n"
        "from ticklab import network\n"
        "net = network.Network(['192.0.2.1'])\n"
        "print(net.client.pid, net.pipeline.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert [Path(f"/proc/{pid}/comm").read_text() for pid in pids] == ["cat\n"] * 2
        owner.kill()
    assert wait_until(lambda: not any(running(pid) for pid in pids))


def running(pid: int) -> bool:
    """Is it there, and no zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# ---- sink ----------------------------------------------------------------------------------------


class Sink:
    """A sink in the client namespace and a socket in the pipeline's that sends to it."""

    def __init__(self, net: network.Network, folder: Path, schema: str, expected: list) -> None:
        self.net, self.folder = net, folder
        self.to = (net.sink_address, 9100)
        entries = b"".join(struct.pack("<QQ", id_, xxh3(reply)) for id_, reply in expected)
        (folder / "expected.bin").write_bytes(entries)
        self.talker = Talker("sink", self.command(schema), folder / "log", namespace=net.client.pid)
        self.ready = self.talker.wait_for("ready", 5)
        self.socket = inside(
            net.pipeline.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        )

    def command(self, schema: str, **other: str) -> list[str]:
        given = {
            "expected": str(self.folder / "expected.bin"),
            "out": str(self.folder / "delivered.bin"),
            "replies": str(self.folder / "replies.bin"),
            "listen": f"{self.to[0]}:{self.to[1]}",
            "schema": schema,
            **other,
        }
        return [str(SINK), *(word for key, value in given.items() for word in (f"--{key}", value))]

    def send(self, *replies: bytes) -> None:
        for reply in replies:
            self.socket.sendto(reply, self.to)

    def stop(self) -> dict[str, Any]:
        done = self.talker.ask("stop", "done", 5)
        assert self.talker.child.wait(5) == 0
        return done

    def delivered(self) -> np.ndarray:
        return np.fromfile(self.folder / "delivered.bin", DELIVERED)

    def replies(self) -> list[bytes]:
        data, found = (self.folder / "replies.bin").read_bytes(), []
        while data:
            (length,) = struct.unpack_from("<I", data)
            found.append(data[4 : 4 + length])
            data = data[4 + length :]
        return found


@pytest.fixture
def sink(net: network.Network, tmp_path: Path) -> Iterator[Callable[[str, list], Sink]]:
    if not SINK.exists():
        pytest.skip("build/sink is missing: run make")
    made: list[Sink] = []

    def make(schema: str, expected: list) -> Sink:
        made.append(Sink(net, tmp_path, schema, expected))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()
        end(one.talker.child)


def v1(number: int, payload: bytes) -> bytes:
    return b"|%08d|%04d|%b" % (number, len(payload), payload)


def test_sink_tells_right_replies_from_wrong_ones(sink: Callable[[str, list], Sink]) -> None:
    replies = [v1(number, b"bcdefghi") for number in range(1, 6)]
    made = sink("v1", list(enumerate(replies, 1)))
    began = time.time_ns()
    strange = [v1(2, b"bcdefghX"), v1(77, b"bcdefghi"), b"", b"|0000000x|0000|", b"|00000001"]
    made.send(*replies[:3], replies[0], *strange, replies[4])
    done = made.stop()
    counted = [done[name] for name in ("delivered", "duplicated", "corrupted", "unknown")]
    assert counted == [10, 1, 1, 4]
    assert done["dropped_socket"] == 0
    assert done["rcvbuf"] == made.ready["rcvbuf"] > 0
    delivered = made.delivered()
    assert delivered["id"].tolist() == [1, 2, 3, 1, 2, 77, 0, 0, 0, 5]
    assert delivered["status"].tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3, 0]
    sent = [*replies[:3], replies[0], *strange, replies[4]]
    assert delivered["length"].tolist() == [len(reply) for reply in sent]
    assert delivered["reply_hash"].tolist() == [xxh3(reply) for reply in sent]
    assert made.replies() == sent
    stamps = delivered["kernel_ns"].astype(np.int64)
    assert began <= stamps[0] <= stamps[-1] <= time.time_ns()
    assert (np.diff(stamps) >= 0).all()


def test_sink_counts_how_often_a_reply_may_come(sink: Callable[[str, list], Sink]) -> None:
    same, other = v1(1, b"b"), v1(1, b"c")
    made = sink("v1", [(1, same), (1, other), (1, same)])
    made.send(same, same, same, other)
    made.stop()
    assert made.delivered()["status"].tolist() == [OK, OK, DUPLICATED, OK]


def test_sink_reads_v2(sink: Callable[[str, list], Sink]) -> None:
    number = 0xFEDCBA9876543210
    right = struct.pack(">QI", number, 3) + b"bcd"
    made = sink("v2", [(number, right)])
    made.send(right, right[:-1], right[:11], right)
    made.stop()
    delivered = made.delivered()
    assert delivered["id"].tolist() == [number, number, 0, number]
    assert delivered["status"].tolist() == [OK, CORRUPTED, UNKNOWN, DUPLICATED]


def test_sink_knows_a_datagram_by_its_content(sink: Callable[[str, list], Sink]) -> None:
    """Replies of one content belong to its requests in their order."""
    made = sink("datagram", [(11, b"Fizz"), (12, b""), (13, b"Fizz"), (14, b"Buzz")])
    made.send(b"Fizz", b"Buzz", b"Fizz", b"Fizz", b"", b"Fuzz")
    made.stop()
    delivered = made.delivered()
    assert delivered["id"].tolist() == [11, 14, 13, 13, 12, 0]
    assert delivered["status"].tolist() == [OK, OK, OK, DUPLICATED, OK, UNKNOWN]


def test_sink_begins_anew_at_mark(sink: Callable[[str, list], Sink]) -> None:
    reply = v1(1, b"b")
    made = sink("v1", [(1, reply)])
    made.send(reply, reply)
    assert wait_until(lambda: made.talker.ask("stats", "stats", 5)["delivered"] == 2)
    made.talker.ask("mark", "mark", 5)
    assert made.talker.ask("stats", "stats", 5)["duplicated"] == 0
    made.send(reply)
    assert made.stop()["delivered"] == 1
    assert made.delivered()["status"].tolist() == [OK]
    assert made.replies() == [reply]


def test_sink_keeps_replies_up_to_a_limit(sink: Callable[[str, list], Sink]) -> None:
    made = sink("v1", [])
    made.send(b"a" * 60000, *[b"b" * 60000] * 20)
    assert made.stop()["unknown"] == 21
    kept = made.replies()
    assert kept == [b"a" * 60000] + [b"b" * 60000] * 16
    assert (made.folder / "replies.bin").stat().st_size <= 1 << 20


@pytest.mark.parametrize("how", ["end of stdin", "SIGTERM"])
def test_sink_stops_without_being_told(sink: Callable[[str, list], Sink], how: str) -> None:
    reply = v1(1, b"b")
    made = sink("v1", [(1, reply)])
    made.talker.child.send_signal(signal.SIGINT)  # a terminal's Ctrl-C: not for the sink
    made.send(reply)
    assert made.talker.ask("stats", "stats", 5)["event"] == "stats"
    if how == "SIGTERM":
        made.talker.child.terminate()
    else:
        assert made.talker.child.stdin is not None
        made.talker.child.stdin.close()
    assert made.talker.wait_for("done", 5)["delivered"] == 1
    assert made.talker.child.wait(5) == 0
    assert len(made.delivered()) == 1


def test_sink_dies_with_the_lab(net: network.Network, tmp_path: Path) -> None:
    """Killed with -9, the lab leaves no sink behind, though somebody holds its stdin open."""
    if not SINK.exists():
        pytest.skip("build/sink is missing: run make")
    (tmp_path / "expected.bin").write_bytes(b"")
    command = [str(SINK), "--expected", str(tmp_path / "expected.bin"), "--schema", "v1"]
    command += ["--out", str(tmp_path / "delivered.bin"), "--listen", "127.0.0.1:0"]
    code = f"import subprocess, sys, time\nchild = subprocess.Popen({command!r})\ntime.sleep(60)\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        pid = json.loads(owner.stdout.readline())["pid"]
        owner.kill()
        assert wait_until(lambda: not running(pid))


def test_sink_on_a_full_disk_still_counts(sink: Callable[[str, list], Sink]) -> None:
    made = sink("v1", [])
    made.stop()
    command = made.command("v1", out="/dev/full")
    log = made.folder / "full.log"
    talker = Talker("sink", command, log, namespace=made.net.client.pid)
    talker.wait_for("ready", 5)
    made.send(b"one", b"two")
    assert talker.ask("stop", "done", 5)["delivered"] == 2
    assert talker.child.wait(5) == 1
    assert "/dev/full: No space left on device" in log.read_text()
    assert log.read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"cpu": "x"}, 2, "--cpu x: expected a number"),
        ({"cpu": "1023"}, 2, "not a CPU this process may run on"),
        ({"schema": "v9"}, 2, "expected v1, v2, v3, v4, fix, iex or datagram"),
        ({"listen": "nowhere"}, 2, "expected ADDRESS:PORT"),
        ({"listen": "::1:9000"}, 2, "expected ADDRESS:PORT or [ADDRESS]:PORT"),
        ({"listen": "203.0.113.1:9"}, 4, "cannot listen on 203.0.113.1:9"),
        ({"expected": "/nope"}, 2, "/nope: No such file"),
        ({"expected": "odd"}, 2, "not a whole number of 16-byte entries"),
        ({"out": "/nope/delivered.bin"}, 4, "/nope/delivered.bin: No such file"),
        ({"frobnicate": "1"}, 2, "--frobnicate"),
    ],
)
def test_sink_refuses_in_one_line(
    tmp_path: Path, change: dict[str, str], status: int, words: str
) -> None:
    if not SINK.exists():
        pytest.skip("build/sink is missing: run make")
    (tmp_path / "odd").write_bytes(b"12345")
    given = {
        "expected": "/dev/null",
        "out": str(tmp_path / "out"),
        "listen": "127.0.0.1:0",
        "schema": "v1",
    }
    flags = [word for key, value in (given | change).items() for word in (f"--{key}", value)]
    done = subprocess.run(
        [str(SINK), *flags], cwd=tmp_path, capture_output=True, text=True, input="", check=False
    )
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_sink_listens_on_ipv6(tmp_path: Path) -> None:
    if not SINK.exists():
        pytest.skip("build/sink is missing: run make")
    flags = ["--expected", "/dev/null", "--out", str(tmp_path / "out"), "--schema", "v1"]
    done = subprocess.run(
        [str(SINK), *flags, "--listen", "[::1]:0"],
        capture_output=True,
        text=True,
        input="",
        check=False,
    )
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert (done.returncode, events) == (0, ["ready", "done"])


# ---- player --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> capture.Prepared:
    """2,000 requests in a tenth of a second."""
    folder = tmp_path_factory.mktemp("captures")
    options = generate.Options(count=2000, rate=20_000, destination="192.0.2.1", port=9005)
    generate.generate(folder / "small.pcap", options)
    return capture.prepare(folder / "small.pcap", warmup=100, cache_dir=folder)


def play(
    net: network.Network,
    prepared: capture.Prepared,
    speed: str,
    log: Path,
    watch: Callable[[int], bool] = lambda sent: True,
) -> player.Report:
    if not shutil.which("tcpreplay"):
        pytest.skip("tcpreplay is missing: apt-get install tcpreplay")
    return player.replay(
        net,
        prepared.replay,
        player.scale(speed),
        min(os.sched_getaffinity(0)),
        packets=prepared.plan["offered"]["datagrams"],
        span_ns=prepared.plan["duration_ns"],
        log=log,
        watch=watch,
    )


@pytest.mark.parametrize("speed", ["1x", "10x", "top"])
def test_player_and_sink_agree(
    net: network.Network, small: capture.Prepared, tmp_path: Path, speed: str
) -> None:
    """The capture straight to the sink, which stands where rx would and expects the requests."""
    if not SINK.exists():
        pytest.skip("build/sink is missing: run make")
    offered = np.fromfile(small.directory / "offered.bin", np.dtype([("id", "<u8"), ("at", "<i8")]))
    payloads = udp_payloads(small.replay)
    expected = [(reference.frame("v1", one)[0].id, one) for one in payloads]
    assert [id_ for id_, _ in expected] == offered["id"].tolist()
    entries = b"".join(struct.pack("<QQ", id_, xxh3(one)) for id_, one in expected)
    (tmp_path / "expected.bin").write_bytes(entries)
    command = [str(SINK), "--expected", str(tmp_path / "expected.bin"), "--schema", "v1"]
    command += ["--out", str(tmp_path / "delivered.bin"), "--listen", "0.0.0.0:9005"]
    command += ["--cpu", str(max(os.sched_getaffinity(0)))]
    talker = Talker("sink", command, tmp_path / "log", namespace=net.pipeline.pid)
    talker.wait_for("ready", 5)
    mark, seen = net.snapshot(), []
    report = play(net, small, speed, tmp_path / "player.log", lambda sent: not seen.append(sent))
    done = talker.ask("stop", "done", 5)
    lost = network.drops(mark, net.snapshot(), done["dropped_socket"])
    assert (report.sent, report.failed, report.complete) == (2000, 0, True)
    assert (lost.sent, seen[-1]) == (2000, 2000)
    assert done["delivered"] + lost.wire + lost.ip + done["dropped_socket"] == 2000
    assert done["delivered"] == 2000
    delivered = np.fromfile(tmp_path / "delivered.bin", DELIVERED)
    assert delivered["id"].tolist() == offered["id"].tolist()
    assert (delivered["status"] == OK).all()
    assert talker.child.wait(5) == 0


def udp_payloads(pcap: Path) -> list[bytes]:
    """Of a prepared IPv4 capture."""
    data, found, at = pcap.read_bytes(), [], 24
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 8)
        found.append(data[at + 16 + 42 : at + 16 + length])
        at += 16 + length
    return found


def test_player_sends_a_real_capture(tmp_path: Path) -> None:
    """Multicast market data, nearly all of it with wrong UDP checksums as recorded."""
    if not IEX.exists():
        pytest.skip(f"{IEX} is missing")
    prepared = capture.prepare(IEX, schema="datagram", cache_dir=tmp_path)
    ends = {end["address"] for end in prepared.plan["endpoints"]}
    port = prepared.plan["endpoints"][0]["port"]
    with network.Network(ends) as net:
        listener = inside(net.pipeline.pid, lambda: receiver("0.0.0.0", port, 64 << 20))
        for group in prepared.plan["groups"]:
            member = socket.inet_aton(group) + socket.inet_aton("0.0.0.0")
            inside(
                net.pipeline.pid,
                lambda member=member: listener.setsockopt(
                    socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member
                ),
            )
        received, mark = 0, net.snapshot()

        def watch(sent: int) -> bool:
            nonlocal received
            received += take_all(listener)
            return True

        report = play(net, prepared, "top", tmp_path / "log", watch)
        received += take_all(listener)
        lost = network.drops(mark, net.snapshot(), drops_of(listener))
        assert report.sent == lost.sent == prepared.plan["offered"]["datagrams"]
        assert lost.sent == received + lost.wire + lost.ip + drops_of(listener)
        assert lost.wire == lost.ip == 0
        listener.close()


def test_player_stops_when_told(
    net: network.Network, small: capture.Prepared, tmp_path: Path
) -> None:
    """A replay of 100 s, told to stop once something was sent."""
    began = time.monotonic()
    report = play(net, small, "0.001x", tmp_path / "log", lambda sent: sent < 3)
    assert time.monotonic() - began < 10
    assert not report.complete
    assert 3 <= report.sent < 2000


def test_player_tells_why_it_failed(net: network.Network, tmp_path: Path) -> None:
    (tmp_path / "not.pcap").write_bytes(b"nothing of the kind")
    if not shutil.which("tcpreplay"):
        pytest.skip("tcpreplay is missing: apt-get install tcpreplay")
    with pytest.raises(LabError, match=r"not\.pcap"):
        player.replay(
            net,
            tmp_path / "not.pcap",
            1.0,
            0,
            packets=1,
            span_ns=0,
            log=tmp_path / "log",
            watch=lambda sent: True,
        )


def test_player_that_is_missing(
    net: network.Network, small: capture.Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("setpriv", "nsenter", "taskset"):
        (tmp_path / program).symlink_to(shutil.which(program) or "/nope")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="tcpreplay: no such program; apt-get install tcpreplay"):
        player.replay(
            net,
            small.replay,
            1.0,
            0,
            packets=1,
            span_ns=0,
            log=tmp_path / "log",
            watch=lambda sent: True,
        )


def test_speed_and_limit() -> None:
    assert player.arguments(Path("a.pcap"), 10.0)[-2:] == ["--multiplier=10", "a.pcap"]
    assert "--topspeed" in player.arguments(Path("a.pcap"), None)
    assert player.time_limit_s(1000, 400 * 10**9, 10) < 100
    assert player.time_limit_s(10**6, 400 * 10**9, None) < 100
    assert player.time_limit_s(1000, 400 * 10**9, 1) > 600


def test_player_makes_up_for_what_sending_costs() -> None:
    """1,000 packets in 50 ms, each of which takes 10 us to send: the gaps must give 10 ms."""
    assert player.scale("0.5x") == 0.5
    assert player.scale("top") is None
    assert player.multiplier(1, 1000, 50_000_000, 0) == 1
    assert player.multiplier(1, 1000, 50_000_000, 10_000) == 1.25
    assert player.multiplier(2, 1000, 50_000_000, 10_000) == pytest.approx(50 / 15)
    assert player.multiplier(5, 1000, 50_000_000, 10_000) == 5 * player.HASTE_MAX
    assert player.multiplier(None, 1000, 50_000_000, 10_000) is None
    assert player.multiplier(1, 1, 0, 10_000) == 1
    printed = "Rated: 1 Bps, 8.85 Mbps, 12500.00 pps\n\tFailed packets:            3\n"
    report = player.parse_report(printed, 1000, True)
    assert (report.took_ns, report.failed) == (80_000_000, 3)
    assert player.send_cost_ns(report, 50_000_000, 1) == 30_000
    assert player.send_cost_ns(report, 50_000_000, 1.25) == 40_000
    assert player.send_cost_ns(report, 50_000_000, None) == 0
    assert player.send_cost_ns(report, 10_000_000, 1) == player.COST_MAX_NS


# ---- before a run --------------------------------------------------------------------------------


def config(**values: str) -> prepare.Config:
    keys = ("rx.bind", "rx.cpu", "worker.cpu", "tx.cpu", "lab.cpu", "ring.slot")
    entries = {key: {"value": "auto", "origin": "default"} for key in keys}
    entries["rx.source"] = entries["tx.sink"] = {"value": "udp", "origin": "default"}
    for name, value in values.items():
        entries[name.replace("_", ".")]["value"] = value
    return prepare.Config(entries)


def test_binds_where_the_capture_was_sent() -> None:
    ends = [
        ("10.0.0.1", 9000),
        ("10.0.0.2", 9000),
        ("10.0.0.1", 80),
        ("239.1.1.1", 9000),
        ("ff02::7", 7),
        ("2001:db8::1", 9000),
    ]
    plan = {"endpoints": [{"address": address, "port": port} for address, port in ends]}
    bound = "0.0.0.0:80,0.0.0.0:9000,[::]:9000,239.1.1.1:9000,[ff02::7]:7"
    assert prepare.bind(plan) == bound
    many = {"endpoints": [{"address": f"239.1.1.{n}", "port": 1} for n in range(65)]}
    with pytest.raises(LabError, match=r"65 ports.*rx\.bind"):
        prepare.bind(many)


@pytest.mark.parametrize(
    ("request_bytes", "reply_bytes", "slot"),
    [(0, 0, 64), (24, 24, 64), (25, 25, 128), (23, 25, 128), (9000, 9000, 9088)],
)
def test_slot_holds_the_largest(request_bytes: int, reply_bytes: int, slot: int) -> None:
    plan = {
        "endpoints": [{"address": "10.0.0.1", "port": 9000}],
        "largest": {"request_bytes": request_bytes, "reply_bytes": reply_bytes},
    }
    assert prepare.fills(config(), plan, "10.78.0.2", (0, 0)) == [
        "rx.bind=0.0.0.0:9000@from the capture",
        f"ring.slot={slot}@from the capture",
        "tx.to=10.78.0.2:9100@the lab",
        "lab.cpu=0@the lab",
    ]


def test_lab_keeps_off_the_stages_cpus() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert prepare.lab_cpus(config()) == (allowed[0], allowed[0])
    assert prepare.lab_cpus(config(lab_cpu="2,5")) == (2, 5)
    assert prepare.lab_cpus(config(lab_cpu="4")) == (4, 4)
    if len(allowed) > 1:
        taken = str(allowed[0])
        assert prepare.lab_cpus(config(rx_cpu=taken)) == (allowed[1], allowed[1])
    assert prepare.cpu_list("1,3-5") == [1, 3, 4, 5]


def test_run_directories_never_collide(tmp_path: Path) -> None:
    made = {prepare.run_directory(tmp_path / "runs", "same") for _ in range(3)}
    assert len(made) == 3
    assert all((path / "wire").is_dir() for path in made)


def test_build_id_is_the_linkers(tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("gcc is missing")
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    chosen = "0123456789abcdef"
    flags = [f"-Wl,--build-id=0x{chosen}", "-o", "a", "a.c"]
    subprocess.run(["gcc", *flags], cwd=tmp_path, check=True)
    assert manifest.build_id(tmp_path / "a") == chosen
    subprocess.run(["gcc", "-Wl,--build-id=none", "-o", "b", "a.c"], cwd=tmp_path, check=True)
    assert manifest.build_id(tmp_path / "b") is None
    assert manifest.build_id(tmp_path / "a.c") is None


def test_git_tells_commit_and_dirtiness(tmp_path: Path) -> None:
    if not shutil.which("git"):
        pytest.skip("git is missing")
    assert manifest.git(tmp_path) is None
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    clean = manifest.git(tmp_path)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "new").touch()
    assert manifest.git(tmp_path) == clean | {"dirty": True}


# ---- children ------------------------------------------------------------------------------------


def script(tmp_path: Path, net: network.Network, text: str) -> Talker:
    return Talker("script", ["sh", "-c", text], tmp_path / "log", namespace=net.pipeline.pid)


def test_talker_answers_and_keeps_what_came_unasked(net: network.Network, tmp_path: Path) -> None:
    text = """echo '{"event":"ready","n":1}'; read c; echo '{"event":"stats","n":2}'; read c"""
    made = script(tmp_path, net, text)
    assert made.ask("stats", "stats", 5)["n"] == 2
    assert made.wait_for("ready", 5)["n"] == 1
    made.check()
    with pytest.raises(LabError, match="no mark within"):
        made.wait_for("mark", 0.05)
    end(made.child)


@pytest.mark.parametrize(
    ("text", "message", "status"),
    [
        ("""echo '{"event":"error","message":"no luck","exit":4}'; read c""", "no luck", 4),
        ("echo oh dear >&2; exit 3", "oh dear", 3),
        ("kill -9 $$", "killed by signal 9", 137),
        ("echo nonsense; read c", "not a line of JSON", 4),
    ],
)
def test_talker_tells_the_childs_trouble(
    net: network.Network, tmp_path: Path, text: str, message: str, status: int
) -> None:
    made = script(tmp_path, net, text)
    with pytest.raises(LabError, match=message) as caught:
        made.wait_for("ready", 5)
    assert caught.value.status == status
    end(made.child)


def test_end_kills_who_does_not_listen() -> None:
    stubborn = spawn(["sh", "-c", "trap '' TERM; echo; sleep 60 & wait; sleep 60"])
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    assert end(stubborn, patience=0.1) == -signal.SIGKILL
