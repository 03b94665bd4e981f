# SPDX-License-Identifier: Apache-2.0
"""rx.source = packet: frames of a wire tapped, what TCP streams held found again, also after kills.

What is to be found is said by others than the tap's own reference: by the generator of a session,
by tshark, and by a splitter of FIX messages that knows nothing but dpkt.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dpkt
import numpy as np
import pytest
from conftest import BUILD, ROOT, Lab
from test_lab import inside
from xxhash import xxh3_64_intdigest

from ticklab import capture, network, run, streams
from ticklab.child import LabError, Talker, end

FIX = ROOT / "../shared/captures/fix41-tcp.pcap.gz"
IEX = ROOT / "../shared/captures/iex-tops16.pcap.gz"
TAP = ROOT / "configs" / "tap.ini"
CRASH_BUILD = ROOT / "build-crash"
POINTS = re.findall(r'X\("(packet:\w+)"', (ROOT / "shm" / "crash.h").read_text())
needs_fix = pytest.mark.skipif(not FIX.exists(), reason=f"{FIX.name} is not in ../shared/captures")
needs_iex = pytest.mark.skipif(not IEX.exists(), reason=f"{IEX.name} is not in ../shared/captures")

# ---- frames -------------------------------------------------------------------------------------


def ethernet(ip: dpkt.ip.IP | dpkt.ip6.IP6, tags: int = 0) -> bytes:
    """A frame to rx0, with that many VLAN tags."""
    kind = 0x86DD if isinstance(ip, dpkt.ip6.IP6) else 0x0800
    vlans = b"".join(struct.pack(">HH", 0x8100 if i else 0x88A8, 7 + i) for i in range(tags))
    if tags == 1:
        vlans = b"\x81\x00" + vlans[2:]
    return bytes.fromhex("020000007702020000007701") + vlans + struct.pack(">H", kind) + bytes(ip)


def ip_of(tcp: dpkt.tcp.TCP, source: bytes, destination: bytes) -> dpkt.ip.IP | dpkt.ip6.IP6:
    """IPv4 or IPv6 by the length of the addresses."""
    if len(source) == 4:
        ip = dpkt.ip.IP(src=source, dst=destination, p=dpkt.ip.IP_PROTO_TCP, data=tcp)
        ip.len = len(ip)
        return ip
    return dpkt.ip6.IP6(
        src=source, dst=destination, nxt=dpkt.ip.IP_PROTO_TCP, hlim=64, plen=len(tcp), data=tcp
    )


def displaced(frames: list[bytes], most: int, dice: random.Random) -> list[bytes]:
    """Each frame moved by at most `most` places."""
    keys = [(i + dice.random() * most, i) for i in range(len(frames))]
    return [frames[i] for _, i in sorted(keys)]


def session(requests: int, dice: random.Random, connections: int = 8) -> list[bytes]:
    """Requests of schema v2 with ids from 1, over connections, cut anywhere; a tenth of the
    segments twice, all moved by up to 6 places, sequence numbers that wrap."""
    frames, left = [], [b""] * connections
    sequence = [dice.randrange(1 << 32) for _ in left]
    sequence[0] = 0xFFFFFF00

    def send(connection: int, flags: int, data: bytes = b"") -> None:
        tcp = dpkt.tcp.TCP(sport=40000 + connection, dport=7000, flags=flags, data=data)
        tcp.seq = sequence[connection]
        ip = ip_of(tcp, b"\x0a\x01\x00\x01", b"\x0a\x01\x00\x02")
        frames.extend([ethernet(ip)] * (2 if dice.random() < 0.1 else 1))
        advance = len(data) + (flags & (streams.SYN | streams.FIN) != 0)
        sequence[connection] = (sequence[connection] + advance) & 0xFFFFFFFF

    for connection in range(connections):
        send(connection, streams.SYN)
    first = len(frames)
    for number in range(1, requests + 1):
        connection = dice.randrange(connections)
        payload = bytes(dice.choices(b"abcxyz", k=dice.randrange(60)))
        left[connection] += struct.pack(">QI", number, len(payload)) + payload
        if dice.random() < 0.4:
            size = dice.randrange(1, 400)
            send(connection, 0x10, left[connection][:size])
            left[connection] = left[connection][size:]
    for connection, rest in enumerate(left):
        for at in range(0, len(rest), 1400):
            send(connection, 0x10, rest[at : at + 1400])
        send(connection, streams.FIN | 0x10)
    return frames[:first] + displaced(frames[first:], 6, dice)


# ---- a pipeline with a tap ----------------------------------------------------------------------


class Tapped:
    """A pipeline in the lab's network, tapping rx0; frames are sent from play0."""

    def __init__(self, net: network.Network, directory: Path, *sets: str, build: Path) -> None:
        for folder in ("log", "trace", "wire"):
            (directory / folder).mkdir(parents=True)
        self.directory = directory
        command = [str(build / "tickline"), "run", str(TAP), "--json", "--run-dir", str(directory)]
        for value in (f"tx.to={net.sink_address}:9100", "rx.frame=2KiB", *sets):
            command += ["--set", value]
        self.talker = Talker(
            "tickline", command, directory / "log" / "tickline.log", namespace=net.pipeline.pid
        )
        self.talker.wait_for("ready", 20)
        self.socket = inside(
            net.client.pid, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        )
        self.socket.bind(("play0", 0))
        self.sent = 0

    def send(self, frames: list[bytes], pace_s: float = 0.0005) -> None:
        for i, frame in enumerate(frames):
            self.socket.send(frame)
            self.sent += 1
            if i % 16 == 0:
                time.sleep(pace_s)

    def rx_pid(self) -> int:
        children = Path(f"/proc/{self.talker.pid}/task/{self.talker.pid}/children").read_text()
        for pid in children.split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == "rx":
                return int(pid)
        raise AssertionError("no rx")

    def drain(self) -> dict:
        """Ends it once all frames were taken; its counters."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.talker.ask("stats", "stats", 10)["datagrams"] >= self.sent:
                break
            time.sleep(0.01)
        assert self.talker.ask("drain", "done", 30)["exit"] == 0
        return json.loads((self.directory / "counters.json").read_text())

    def ids(self) -> list[int]:
        """Wire ids of the requests received, in order."""
        table = np.fromfile(self.directory / "wire" / "ingress.bin", run.INGRESS)
        return table["id"].tolist()

    def close(self) -> None:
        self.socket.close()
        end(self.talker.child, patience=10)


@pytest.fixture(scope="module")
def net() -> Iterator[network.Network]:
    if os.geteuid() != 0:
        pytest.skip("needs root: the tap opens a packet socket")
    try:
        made = network.Network(["192.0.2.1"], tap=True)
    except LabError as error:
        pytest.skip(f"no network namespaces: {error}")
    with made:
        yield made


@pytest.fixture
def tapped(net: network.Network, tmp_path: Path) -> Iterator:
    made: list[Tapped] = []

    def make(*sets: str, build: Path = BUILD) -> Tapped:
        made.append(Tapped(net, tmp_path / "run", *sets, build=build))
        return made[-1]

    yield make
    for one in made:
        one.close()


def assert_found_once(one: Tapped, counters: dict, requests: int, frames: int) -> None:
    """Every request of a session was received once, and those of a connection in order."""
    ids = one.ids()
    assert sorted(ids) == list(range(1, requests + 1))
    ends = counters["end"]
    assert ends["rx"]["issued"] == requests
    assert ends["to_worker"][0]["published"] + sum(ends["rx"]["dropped"]) == requests
    assert ends["tap"]["frames"] == ends["rx"]["datagrams"] == ends["tap"]["segments"] == frames
    assert ends["tap"]["gaps"] == ends["tap"]["skipped_bytes"] == 0
    flows = np.fromfile(one.directory / "wire" / "ingress.bin", run.INGRESS)
    for flow in set(flows["flow"].tolist()):
        assert (np.diff(flows["id"][flows["flow"] == flow].astype(np.int64)) > 0).all()


def test_own_replies_are_no_requests(net: network.Network, tapped) -> None:
    """On a loopback every frame comes by twice, and the replies do, too."""
    one = tapped("rx.interface=lo", "tx.to=127.0.0.1:9100")
    asks = inside(net.pipeline.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with asks:
        for number in range(1, 101):
            asks.sendto(struct.pack(">QI", number, 3) + b"abc", ("127.0.0.1", 7000))
            time.sleep(0.0005)
    time.sleep(0.1)
    counters = one.drain()
    assert one.ids() == list(range(1, 101))
    tap = counters["end"]["tap"]
    assert tap["datagrams"] == 100
    assert tap["other"] >= 100  # replies, and what the kernel says of ports nobody listens at


# ---- kills --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crash_build() -> Path:
    subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "crash"], cwd=ROOT, check=True)
    return CRASH_BUILD


@pytest.mark.parametrize(
    ("point", "tap"),
    [*((point, "frames") for point in (*POINTS, "rx:issued", "rx:put")), (POINTS[-1], "blocks")],
)
def test_killed_at(point: str, tap: str, tapped, crash_build: Path, monkeypatch) -> None:
    """A successor goes on with the very frame and byte: nothing is lost, nothing comes twice."""
    monkeypatch.setenv("TICKLINE_CRASH", f"rx/{point}:300")
    frames = session(1500, random.Random(3))
    one = tapped(f"rx.tap={tap}", build=crash_build)
    one.send(frames)
    counters = one.drain()
    assert [restart["stage"] for restart in counters["restarts"]] == ["rx"]
    assert_found_once(one, counters, 1500, len(frames))


@pytest.mark.parametrize("tap", ["frames", "blocks"])
def test_killed_at_random(tap: str, tapped) -> None:
    dice = random.Random(11)
    frames = session(4000, dice)
    one = tapped(f"rx.tap={tap}", "ring.full=wait", "ring.depth=16")
    pieces = [frames[at : at + 500] for at in range(0, len(frames), 500)]
    for piece in pieces:
        one.send(piece)
        if piece is not pieces[-1]:
            os.kill(one.rx_pid(), signal.SIGKILL)
    counters = one.drain()
    assert 1 <= len(counters["restarts"]) <= len(pieces)
    assert_found_once(one, counters, 4000, len(frames))


# ---- FIX ----------------------------------------------------------------------------------------


def fix_frames() -> list[tuple[float, bytes]]:
    import gzip

    with gzip.open(FIX) as file:
        return list(dpkt.pcap.Reader(file))


def fix_by_dpkt(frames: list[tuple[float, bytes]]) -> Counter[bytes]:
    """The FIX messages of a capture, by sequence numbers alone: body length and sum are right."""
    flows: dict[tuple, dict[int, bytes]] = {}
    for _, frame in frames:
        ip = dpkt.ethernet.Ethernet(frame).data
        tcp = ip.data
        if tcp.data:
            flow = flows.setdefault((ip.src, tcp.sport, ip.dst, tcp.dport), {})
            flow.setdefault(tcp.seq, bytes(tcp.data))
    found: Counter[bytes] = Counter()
    for flow in flows.values():
        stream = b"".join(flow[sequence] for sequence in sorted(flow))
        for head in re.finditer(rb"8=FIX[^\x01]*\x019=(\d+)\x01", stream):
            close = head.end() + int(head[1])
            message = stream[head.start() : close + 7]
            if message[-7:] == b"10=%03d\x01" % (sum(stream[head.start() : close]) % 256):
                found[message] += 1
    return found


def fix_by_tshark(path: Path) -> Counter[bytes]:
    """What tshark takes for a FIX message with a sum."""
    command = ["tshark", "-r", str(path), "-Y", "fix.CheckSum", "-T", "json", "-x"]
    done = subprocess.run(command, capture_output=True, check=True)
    found: Counter[bytes] = Counter()

    def look(pairs: list) -> list:
        for name, value in pairs:
            if name == "fix_raw":
                raw = value if isinstance(value[0], list) else [value]
                found.update(bytes.fromhex(one[0]) for one in raw)
        return pairs

    json.loads(done.stdout, object_pairs_hook=look)
    return found


@needs_fix
def test_fix_of_tapped_frames(tapped) -> None:
    """A real session four times over: as it is, shuffled and repeated, tagged, by IPv6."""
    frames, dice = fix_frames(), random.Random(5)
    expected = fix_by_dpkt(frames)
    assert expected.total() == 34
    copies: list[list[bytes]] = [[], [], [], []]
    for _, frame in frames:
        ip = dpkt.ethernet.Ethernet(frame).data
        tcp = ip.data
        for copy, out in enumerate(copies):
            tcp.sport, tcp.dport = (port ^ copy << 12 for port in (tcp.sport, tcp.dport))
            tcp.sum = 0
            if copy == 3:
                ends = (bytes([0xFD, *bytes(11)]) + address for address in (ip.src, ip.dst))
                out.append(ethernet(ip_of(tcp, *ends)))
            else:
                ip.sum = 0
                out.append(ethernet(ip, tags=2 if copy == 2 else 0))
            tcp.sport, tcp.dport = (port ^ copy << 12 for port in (tcp.sport, tcp.dport))
    # A stream heard from its middle begins with what comes first: that stays in its place.
    ahead = {}
    for frame in copies[1]:
        if dpkt.ethernet.Ethernet(frame).data.data.data:
            ahead.setdefault(frame[26:38], frame)  # by addresses and ports
    rest = [frame for frame in copies[1] if frame not in ahead.values()]
    repeated = [frame for frame in rest for _ in range(dice.choice((1, 1, 2)))]
    copies[1] = [*ahead.values(), *displaced(repeated, 5, dice)]
    one = tapped("pipeline.schema=fix", "ring.slot=8KiB")
    for copy in copies:
        one.send(copy)
    tap = one.drain()["end"]["tap"]
    assert tap["segments"] == tap["frames"] == sum(map(len, copies))
    assert tap["out_of_order"] > 0
    assert tap["retransmitted_bytes"] > 0
    received = Counter(one.ids())
    assert {message: received[xxh3_64_intdigest(message)] for message in expected} == {
        message: 4 * count for message, count in expected.items()
    }


@needs_fix
def test_fix_as_tshark_finds_it(lab: Lab) -> None:
    """tcpreplay of the file, both directions; content and number by another's dissector."""
    frames = fix_frames()
    path = lab.runs.parent / "fix.pcap"
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file)
        for stamp, frame in frames:
            writer.writepkt(frame, stamp)
    expected, by = fix_by_dpkt(frames), "dpkt"
    if shutil.which("tshark"):
        by = "tshark"
        assert fix_by_tshark(path) == expected
    print(f"FIX messages by {by}: {expected.total()}")
    outcome = lab.run(
        "--capture",
        str(path),
        config=TAP,
        pipeline__schema="fix",
        replay__speed="top",
        replay__warmup=20,
    )
    assert outcome.status == 0, outcome.stderr
    made = run.Run(outcome.directory)
    received = Counter(made.ingress["id"].tolist())
    assert {message: received[xxh3_64_intdigest(message)] for message in expected} == expected
    requests = outcome.summary["account"]["requests"]
    assert requests["processed"] == requests["delivered"] == expected.total()
    assert outcome.summary["tap"]["segments"] == len(frames)


@needs_iex
def test_iex_tapped_as_received(lab: Lab, tmp_path: Path) -> None:
    """Market data off the wire: the same requests and replies as those that a socket receives."""
    by_socket = capture.prepare(IEX, schema="iex", cache_dir=tmp_path / "captures")
    outcome = lab.run(
        "--capture",
        str(IEX),
        config=TAP,
        pipeline__schema="iex",
        replay__speed="1000x",
        ring__depth=65536,
    )
    assert outcome.status == 0, outcome.stderr
    made = run.Run(outcome.directory)
    offered = by_socket.offered_at("top")
    assert len(offered) == 57674
    assert sorted(made.ingress["id"].tolist()) == sorted(offered["id"].tolist())
    expected = np.fromfile(by_socket.expected, run.EXPECTED)
    assert sorted(made.delivered["reply_hash"].tolist()) == sorted(expected["reply_hash"].tolist())
    assert (made.delivered["status"] == run.STATUS_OK).all()
