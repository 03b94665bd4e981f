# SPDX-License-Identifier: Apache-2.0
"""Generated captures, and what preparing a capture changes, excludes, computes and refuses."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import dpkt
import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from ticklab import capture, generate, reference

ROOT = Path(__file__).parent.parent
IEX = ROOT / "../shared/captures/iex-tops16.pcap.gz"
LAB = bytes.fromhex("020000007702 020000007701")
BASE_NS = 1_600_000_000_123_456_789
A, B = "192.0.2.1", "192.0.2.2"
A6, B6 = "2001:db8::1", "2001:db8::2"


# ---- packets, made and read here independently ---------------------------------------------------


def ones_sum(data: bytes) -> int:
    """RFC 1071, word by word; 0xffff over a header that holds its right checksum."""
    data += b"\0" * (len(data) % 2)
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2], "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def udp4(payload=b"hello", source=A, destination=B, port=9000, **fields) -> bytes:
    """An IPv4 packet with right checksums, unless a field is given."""
    udp = struct.pack(">HHHH", 4000, port, fields.get("udp_length", 8 + len(payload)), 0) + payload
    pseudo = packed(source) + packed(destination) + struct.pack(">HH", 17, len(udp))
    checksum = fields.get("udp_checksum", 0xFFFF ^ ones_sum(pseudo + udp) or 0xFFFF)
    udp = udp[:6] + struct.pack(">H", checksum) + udp[8:]
    options = fields.get("options", b"")
    tail = fields.get("tail", b"")
    head = struct.pack(
        ">BBHHHBBH",
        0x45 + len(options) // 4,
        0,
        fields.get("ip_length", 20 + len(options) + len(udp) + len(tail)),
        7,
        fields.get("fragment", 0),
        9,
        fields.get("protocol", 17),
        0,
    )
    head += packed(source) + packed(destination) + options
    checksum = fields.get("ip_checksum", 0xFFFF ^ ones_sum(head))
    return head[:10] + struct.pack(">H", checksum) + head[12:] + udp + tail


def udp6(payload=b"hello", source=A6, destination=B6, port=9000, extension=b"", first=17, **fields):
    udp = struct.pack(">HHHH", 4000, port, 8 + len(payload), 0) + payload
    pseudo = packed(source) + packed(destination) + struct.pack(">II", len(udp), 17)
    checksum = fields.get("udp_checksum", 0xFFFF ^ ones_sum(pseudo + udp) or 0xFFFF)
    udp = udp[:6] + struct.pack(">H", checksum) + udp[8:]
    head = struct.pack(">IHBB", 6 << 28, len(extension) + len(udp), first, 9)
    return head + packed(source) + packed(destination) + extension + udp


def ethernet(packet: bytes, macs: bytes = LAB, tags: bytes = b"", kind: int | None = None) -> bytes:
    kind = kind or (0x86DD if packet[:1] and packet[0] >> 4 == 6 else 0x0800)
    return macs + tags + struct.pack(">H", kind) + packet


def pcap(frames, link=1, order="<", magic=0xA1B23C4D, wire=None, stamps=None) -> bytes:
    """A pcap of frames 1 ms apart, by default with nanosecond stamps."""
    unit = 1 if magic == 0xA1B23C4D else 1000
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    for index, frame in enumerate(frames):
        ns = stamps[index] if stamps else BASE_NS + index * 1_000_000
        seconds, rest = divmod(ns, 1_000_000_000)
        size = wire[index] if wire else len(frame)
        out += struct.pack(order + "IIII", seconds, rest // unit, len(frame), size)
        out += bytes(8) if magic == 0xA1B2CD34 else b""
        out += frame
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return (
        struct.pack(order + "II", kind, len(body) + 12)
        + body
        + struct.pack(order + "I", len(body) + 12)
    )


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link=1, snaplen=0, resolution: int | None = None, offset_s=0) -> bytes:
    options = b""
    if resolution is not None:
        options += struct.pack(order + "HHB3x", 9, 1, resolution)
    if offset_s:
        options += struct.pack(order + "HHq", 14, 8, offset_s)
    return block(order, 1, struct.pack(order + "HHI", link, 0, snaplen) + options + bytes(4))


def enhanced(order: str, frame: bytes, ticks: int, number=0, wire: int | None = None) -> bytes:
    head = struct.pack(
        order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wire or len(frame)
    )
    return block(order, 6, head + frame)


class Checked:
    """A prepared capture and its replay as dpkt reads it, every checksum verified."""

    def __init__(self, prepared: capture.Prepared):
        self.prepared, self.plan = prepared, prepared.plan
        self.frames = records(prepared.replay)
        self.changes = {name: n for name, n in self.plan["changes"].items() if n}
        self.excluded = {name: n for name, n in self.plan["excluded"].items() if n}
        self.expected = np.fromfile(prepared.expected, capture.EXPECTED)
        for _, frame in self.frames:
            verify(frame)

    @property
    def payloads(self) -> list[bytes]:
        return [dpkt.ethernet.Ethernet(frame).data.data.data for _, frame in self.frames]


def records(path: Path) -> list[tuple[int, bytes]]:
    with path.open("rb") as file:
        reader = dpkt.pcap.Reader(file)
        assert reader.datalink() == dpkt.pcap.DLT_EN10MB
        return [(round(stamp * 10**9), frame) for stamp, frame in reader]


def verify(frame: bytes) -> None:
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\0":
        header = (packet[0] & 15) * 4
        assert ones_sum(packet[:header]) == 0xFFFF
        addresses = packet[12:20]
        assert len(packet) == int.from_bytes(packet[2:4], "big")
    else:
        assert kind == b"\x86\xdd"
        header, following = 40, packet[6]
        while following != 17:
            size = 8 if following == 44 else packet[header + 1] * 8 + 8
            following, header = packet[header], header + size
        addresses = packet[8:40]
    length = int.from_bytes(packet[header + 4 : header + 6], "big")
    udp = packet[header : header + length]
    if udp[6:8] == b"\0\0":
        assert kind == b"\x08\0"
    else:
        assert ones_sum(addresses + struct.pack(">HH", 17, length) + udp) == 0xFFFF


@pytest.fixture
def check(tmp_path):
    """Prepares bytes as a capture of datagrams."""

    def prepare(data: bytes, **options) -> Checked:
        path = tmp_path / "x.pcap"
        path.write_bytes(data)
        options = {"schema": "datagram", "cache_dir": tmp_path / "cache"} | options
        return Checked(capture.prepare(path, **options))

    return prepare


# ---- generating ----------------------------------------------------------------------------------


def made(path: Path, **options) -> tuple[dict, list[tuple[int, bytes]]]:
    result = generate.generate(path, generate.Options(**options))
    assert result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    return result, records(path)


def test_generated_bytes_never_change(tmp_path):
    """These sums change only with the format, which the docstring of the module owns."""
    sums = {
        name: made(tmp_path / name, count=500, **options)[0]["sha256"][:16]
        for name, options in {
            "default": {},
            "poisson": {"arrivals": "poisson"},
            "v2": {"schema": "v2", "arrivals": "bursts", "errors": 0.2, "per_datagram": 4},
            "datagram": {"schema": "datagram", "arrivals": "fixed", "seed": 2},
            "fizzbuzz": {"handler": "fizzbuzz", "errors": 0.5, "payload": 3, "arrivals": "poisson"},
        }.items()
    }
    assert sums == {
        "default": "eca64c7c604c6bb9",
        "poisson": "a9021f1d4c665568",
        "v2": "7418d663f685d62b",
        "datagram": "d0f8ebc1ac96f696",
        "fizzbuzz": "dcce0426f38de8e1",
    }


def test_same_seed_same_bytes_other_seed_others(tmp_path):
    sums = [
        made(tmp_path / f"{n}", count=300, errors=0.1, seed=seed)[0]["sha256"]
        for n, seed in enumerate((5, 5, 6))
    ]
    assert sums[0] == sums[1] != sums[2]


def test_generated_v1(tmp_path):
    _, frames = made(tmp_path / "x", count=1000, flows=4, payload=9)
    ids, ports = [], set()
    for _, frame in frames:
        verify(frame)
        packet = dpkt.ethernet.Ethernet(frame)
        assert frame[:12] == LAB
        assert packet.data.src == packed("10.77.0.1")
        assert packet.data.dst == packed("10.77.0.2")
        assert packet.data.data.dport == 9000
        assert packet.data.data.sum != 0
        ports.add(packet.data.data.sport)
        (request,) = reference.frame("v1", packet.data.data.data)
        assert request.payload.isalpha()
        assert len(request.payload) == 9
        ids.append(request.id)
    assert ids == list(range(1, 1001))
    assert ports == {40000, 40001, 40002, 40003}


def test_generated_v2_packs_requests_and_sets_malformed_ones_apart(tmp_path):
    result, frames = made(tmp_path / "x", schema="v2", count=1000, per_datagram=7, errors=0.25)
    good, refused = [], 0
    for _, frame in frames:
        verify(frame)
        requests = reference.frame("v2", dpkt.ethernet.Ethernet(frame).data.data.data)
        if len(requests) == 1 and requests[0].reason:
            refused += 1
            continue
        assert {request.reason for request in requests} == {None}
        good += [request.id for request in requests]
        assert len(requests) == 7 or len(good) == 750
    assert refused == result["malformed"] == 250
    assert len(good) == len(set(good)) == 750
    assert good == sorted(good)
    assert set(good) <= set(range(1, 1001))


@pytest.mark.parametrize("payload", [2, 8, 100])
def test_generated_datagrams_are_unique(tmp_path, payload):
    _, frames = made(tmp_path / "x", schema="datagram", count=2700, payload=payload)
    assert len({dpkt.ethernet.Ethernet(frame).data.data.data for _, frame in frames}) == 2700


def test_generated_numbers(tmp_path):
    _, frames = made(tmp_path / "x", schema="datagram", handler="fizzbuzz", count=300, errors=0.1)
    payloads = [dpkt.ethernet.Ethernet(frame).data.data.data for _, frame in frames]
    numbers = [payload for payload in payloads if reference.fizzbuzz(payload) is not None]
    assert len(numbers) == len(set(numbers)) == 270


@pytest.mark.parametrize(("schema", "payload"), [("v1", 9998), ("v2", 65_495)])
def test_largest_requests(tmp_path, schema, payload):
    options = {"schema": schema, "payload": payload, "count": 60, "errors": 0.5}
    generate.generate(tmp_path / "x.pcap", generate.Options(**options))
    checked = Checked(capture.prepare(tmp_path / "x.pcap", schema=schema, cache_dir=tmp_path))
    assert checked.plan["expected"] == sum(checked.plan["rejected"].values()) == 30
    assert not checked.changes


def gaps(tmp_path, **options) -> np.ndarray:
    _, frames = made(tmp_path / "x", count=20_000, **options)
    return np.diff([stamp for stamp, _ in frames])


def test_fixed_arrivals(tmp_path):
    assert set(gaps(tmp_path, arrivals="fixed").tolist()) == {50_000}
    assert set(gaps(tmp_path, arrivals="fixed", per_datagram=10).tolist()) == {500_000}


def test_poisson_arrivals(tmp_path):
    found = gaps(tmp_path, arrivals="poisson")
    assert found.mean() == pytest.approx(50_000, rel=0.03)
    assert found.std() == pytest.approx(50_000, rel=0.05)
    assert np.median(found) == pytest.approx(50_000 * np.log(2), rel=0.05)


def test_burst_arrivals(tmp_path):
    found = gaps(tmp_path, arrivals="bursts")
    assert found.mean() == pytest.approx(50_000, rel=0.01)
    within = found == 1000
    assert within.mean() == pytest.approx(15 / 16, abs=0.003)
    assert found.min() == 1000
    sizes = np.diff(np.flatnonzero(~within))
    assert sizes.std() == pytest.approx(np.sqrt(15 * 16), rel=0.15)  # geometric


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schema": "v9"}, "schema = v9: expected v1 or v2 or v3 or v4 or fix or iex or datagram"),
        ({"count": 100_000_000}, "count = 100000000: expected 1 to 99,999,999"),
        ({"count": 0}, "count = 0"),
        ({"rate": 0.0}, "rate = 0.0"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"rate": 2e6, "arrivals": "bursts"}, "at most 1,000,000 with bursts"),
        ({"errors": 1.5}, "errors = 1.5: expected a share from 0 to 1"),
        ({"errors": 0.1, "payload": 0}, "payload = 0"),
        ({"errors": 0.1, "schema": "datagram"}, "errors = 0.1: expected 0"),
        ({"payload": 2, "schema": "datagram"}, "payload = 2: expected enough bytes"),
        ({"payload": 10_000}, "payload = 10000: expected at most 9,999 bytes for v1"),
        ({"payload": 9999, "errors": 0.1}, "at most 9,998 bytes"),
        ({"payload": 65496, "schema": "v2"}, "expected datagrams of 65,507 B at most"),
        ({"payload": 19, "handler": "fizzbuzz"}, "1 to 18 digits"),
        ({"schema": "datagram", "per_datagram": 2}, "per_datagram = 2: expected 1"),
        ({"destination": "nowhere"}, "destination = nowhere: expected an IPv4 address"),
    ],
)
def test_options_that_cannot_be_met(tmp_path, options, said):
    with pytest.raises(generate.GenerateError) as error:
        generate.generate(tmp_path / "x", generate.Options(**options))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


# ---- what a prepared capture holds ---------------------------------------------------------------


def test_generated_capture_needs_no_change(tmp_path):
    path = tmp_path / "x.pcap"
    generate.generate(path, generate.Options(count=500, errors=0.1, per_datagram=3))
    checked = Checked(capture.prepare(path, cache_dir=tmp_path / "cache", warmup=100))
    assert checked.prepared.replay.read_bytes() == path.read_bytes()
    assert not checked.changes
    assert not checked.excluded
    plan = checked.plan
    assert plan["offered"] == {"datagrams": len(checked.frames), "requests": 500}
    assert plan["expected"] == 450
    assert sum(plan["rejected"].values()) == 50
    assert plan["endpoints"] == [
        {"address": "10.77.0.2", "port": 9000, "datagrams": len(checked.frames)}
    ]
    assert plan["sources"] == ["10.77.0.1"]
    assert plan["flows"] == 16
    assert plan["groups"] == []
    assert plan["ambiguous"] == 0
    assert plan["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_offered_and_expected_follow_the_requests(check):
    datagrams = [
        b"|00000001|0001|a|00000002|0001|z",
        b"|00000003|0001|b|000000x4|",
        b"",
        b"|00000009|0002|QQ",
    ]
    checked = check(pcap([ethernet(udp4(d)) for d in datagrams]), schema="v1")
    bad = xxh3_64_intdigest(b"|000000x4|")
    offered = checked.prepared.offered_at("1x")
    assert offered["id"].tolist() == [1, 2, 3, bad, 0x2D06800538D394C2, 9]
    assert offered["planned_ns"].tolist() == [0, 0, 10**6, 10**6, 2 * 10**6, 3 * 10**6]
    replies = {1: b"|00000001|0001|b", 2: b"|00000002|0001|a", 3: b"|00000003|0001|c"}
    replies[9] = b"|00000009|0002|RR"
    assert dict(checked.expected.tolist()) == {i: xxh3_64_intdigest(r) for i, r in replies.items()}
    assert checked.plan["rejected"]["bad_digit"] == checked.plan["rejected"]["empty"] == 1
    assert checked.plan["largest"] == {
        "request_bytes": 17,
        "reply_bytes": 17,
        "datagram_bytes": 32,
        "frame_bytes": 74,
    }
    assert checked.plan["mtu"] == 60
    assert checked.plan["duration_ns"] == 3_000_000
    assert checked.plan["rate"] == pytest.approx(2000)


def test_slot_capacity_decides_who_is_answered(check):
    data = pcap([ethernet(udp4(b"|%08d|0001|%d" % (i, i))) for i in range(1, 6)])
    checked = check(data, schema="v1", handler="fizzbuzz", slot_capacity=18)
    assert checked.expected["id"].tolist() == [1, 2, 4]
    assert checked.plan["rejected"]["reply_too_big"] == 2
    checked = check(data, schema="v1", handler="fizzbuzz", slot_capacity=15)
    assert checked.plan["rejected"]["oversized"] == 5


def test_speed(check):
    prepared = check(pcap([ethernet(udp4())] * 3)).prepared
    planned = {speed: prepared.offered_at(speed)["planned_ns"].tolist() for speed in SPEEDS}
    assert planned == SPEEDS
    for wrong in ("fast", "0x", "-1x", "10", "x", "1e3x", "nanx"):
        with pytest.raises(capture.CaptureError, match="expected a factor"):
            prepared.offered_at(wrong)


SPEEDS = {
    "1x": [0, 1_000_000, 2_000_000],
    "10x": [0, 100_000, 200_000],
    "0.5x": [0, 2_000_000, 4_000_000],
    "3x": [0, 333_333, 666_667],
    "top": [0, 0, 0],
}


@pytest.mark.parametrize(("warmup", "datagrams"), [(0, 0), (1, 1), (2, 1), (3, 2), (6, 3), (99, 3)])
def test_warmup_is_the_beginning_in_whole_datagrams(check, warmup, datagrams):
    two = b"|00000001|0001|a|00000002|0001|z"
    checked = check(pcap([ethernet(udp4(two))] * 3), schema="v1", warmup=warmup)
    assert records(checked.prepared.warmup) == checked.frames[:datagrams]
    assert checked.plan["warmup"] == {"datagrams": datagrams, "requests": 2 * datagrams}
    assert len(checked.prepared.offered_at("1x")) == 6


def test_ambiguous(check):
    payloads = [b"a", b"b", b"a", b"c", b"a", b"b"]
    assert check(pcap([ethernet(udp4(p)) for p in payloads])).plan["ambiguous"] == 5
    payloads = [b"|00000001|0001|a", b"|00000001|0001|b", b"|00000002|0001|a"]
    checked = check(pcap([ethernet(udp4(p)) for p in payloads]), schema="v1")
    assert checked.plan["ambiguous"] == 2


def test_cache(check, tmp_path, monkeypatch):
    data = pcap([ethernet(udp4(b"one")), ethernet(udp4(b"two"))])
    first = check(data).prepared
    made_at = first.replay.stat().st_mtime_ns
    assert check(data, handler="fizzbuzz").prepared.directory != first.directory
    assert check(data, warmup=1).prepared.directory != first.directory
    again = check(data).prepared
    assert (again.directory, again.plan) == (first.directory, first.plan)
    assert first.replay.stat().st_mtime_ns == made_at
    assert json.loads((first.directory / "plan.json").read_text()) == first.plan

    first.expected.write_bytes(b"")  # a damaged copy is made again
    assert len(check(data).expected) == 2

    other = check(pcap([ethernet(udp4(b"six")), ethernet(udp4(b"ten"))]))  # as long, not the same
    assert other.prepared.directory != first.directory
    assert other.payloads == [b"six", b"ten"]

    def refuse(*_):
        raise AssertionError("the file was read again")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    again = capture.prepare(tmp_path / "x.pcap", schema="datagram", cache_dir=tmp_path / "cache")
    assert again.plan == other.plan


# ---- what is changed -----------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"x", b"ab", b"odd", bytes(1471), b"\xff" * 1472])
def test_checksums_are_mended(check, payload):
    frames = [
        ethernet(udp4(payload, udp_checksum=0x1234)),
        ethernet(udp4(payload, ip_checksum=0x1234)),
        ethernet(udp4(payload)),
        ethernet(udp6(payload, udp_checksum=0x1234)),
        ethernet(udp6(payload, udp_checksum=0)),
        ethernet(udp6(payload)),
    ]
    checked = check(pcap(frames))
    assert checked.changes == {"ip_checksum": 1, "udp_checksum": 3}
    right = [ethernet(udp4(payload))] * 3 + [ethernet(udp6(payload))] * 3
    assert [frame for _, frame in checked.frames] == right


def test_udp_without_checksum_over_ipv4_stays(check):
    frame = ethernet(udp4(udp_checksum=0))
    checked = check(pcap([frame]))
    assert not checked.changes
    assert checked.frames[0][1] == frame


def test_checksum_that_comes_out_as_zero_is_written_as_ones(check):
    blank = udp4(b"\0\0", udp_checksum=0)
    pseudo = packed(A) + packed(B) + struct.pack(">HH", 17, 10)
    fill = struct.pack(">H", 0xFFFF ^ ones_sum(pseudo + blank[20:]))
    checked = check(pcap([ethernet(udp4(fill, udp_checksum=0x1234))]))
    assert checked.frames[0][1][14 + 26 : 14 + 28] == b"\xff\xff"

    pseudo = packed(A6) + packed(B6) + struct.pack(">II", 10, 17)
    fill = struct.pack(">H", 0xFFFF ^ ones_sum(pseudo + udp6(b"\0\0", udp_checksum=0)[40:]))
    checked = check(pcap([ethernet(udp6(fill, udp_checksum=0))]))  # over IPv6 zero is never right
    assert checked.changes == {"udp_checksum": 1}
    assert checked.frames[0][1][14 + 46 : 14 + 48] == b"\xff\xff"


def test_macs(check):
    foreign = bytes(range(12))
    addresses = ["203.0.113.9", "224.1.2.3", "239.129.130.131", "255.255.255.255"]
    frames = [ethernet(udp4(destination=to), foreign) for to in addresses]
    frames += [ethernet(udp6(destination=to), foreign) for to in ("2001:db8::9", "ff02::1:3")]
    checked = check(pcap(frames))
    assert checked.changes == {"destination_mac": 6, "source_mac": 6}
    assert {frame[6:12] for _, frame in checked.frames} == {LAB[6:]}
    assert [frame[:6].hex() for _, frame in checked.frames] == [
        "020000007702",
        "01005e010203",
        "01005e018283",
        "ffffffffffff",
        "020000007702",
        "333300010003",
    ]
    assert checked.plan["groups"] == ["224.1.2.3", "239.129.130.131", "ff02::1:3"]
    assert checked.plan["ipv6"] is True
    mine = bytes.fromhex("0a0000000001")
    checked = check(pcap(frames), destination_mac=mine)
    assert checked.frames[0][1][:6] == mine


def test_loopback(check):
    checked = check(
        pcap(
            [
                ethernet(udp4(b"a", "127.0.0.1", "127.0.0.1")),
                ethernet(udp4(b"b", "127.0.0.53", "127.0.0.1")),
                ethernet(udp4(b"c", "127.0.0.1", "127.0.0.9")),
                ethernet(udp6(b"d", "::1", "::1")),
                ethernet(udp4(b"e")),
            ]
        )
    )
    assert checked.changes == {"loopback": 4, "ip_checksum": 3, "udp_checksum": 4}
    assert checked.payloads == [b"a", b"b", b"c", b"d", b"e"]
    ends = [
        (frame.data.src, frame.data.dst)
        for frame in (dpkt.ethernet.Ethernet(frame) for _, frame in checked.frames)
    ]
    assert ends == [
        (packed("10.77.0.1"), packed("10.77.0.2")),
        (packed("10.77.0.3"), packed("10.77.0.2")),
        (packed("10.77.0.1"), packed("10.77.0.4")),
        (packed("fd77::1"), packed("fd77::2")),
        (packed(A), packed(B)),
    ]
    assert {e["address"] for e in checked.plan["endpoints"]} == {
        "10.77.0.2",
        "10.77.0.4",
        "fd77::2",
        B,
    }


V4, V6 = udp4(b"four"), udp6(b"six")
SLL = struct.pack(">HHH8s", 0, 1, 6, bytes(8))
LINKS = {
    "NULL": (0, [b"\2\0\0\0" + V4, b"\x1e\0\0\0" + V6]),
    "NULL of the other byte order": (0, [b"\0\0\0\2" + V4, b"\0\0\0\x1c" + V6]),
    "LOOP": (108, [b"\0\0\0\2" + V4, b"\0\0\0\x18" + V6]),
    "RAW": (101, [V4, V6]),
    "RAW as 12": (12, [V4, V6]),
    "RAW as 14": (14, [V4, V6]),
    "IPV4": (228, [V4]),
    "IPV6": (229, [V6]),
    "SLL": (113, [SLL + b"\x08\0" + V4, SLL + b"\x86\xdd" + V6]),
    "SLL2": (276, [b"\x08\0" + bytes(18) + V4, b"\x86\xdd" + bytes(18) + V6]),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_types_become_ethernet(check, name):
    link, frames = LINKS[name]
    checked = check(pcap(frames, link))
    assert checked.changes == {"link": len(frames)}
    assert not checked.excluded
    right = [V6] if name == "IPV6" else [V4, V6][: len(frames)]
    assert [frame for _, frame in checked.frames] == [ethernet(packet) for packet in right]


def test_vlan_tags_are_taken_off(check):
    one, two = b"\x81\0\0\x05", b"\x88\xa8\0\x07\x81\0\0\x05"
    frames = [ethernet(V4, tags=one), ethernet(V6, tags=two), ethernet(V4)]
    checked = check(pcap(frames))
    assert checked.changes == {"vlan": 2}
    assert [frame for _, frame in checked.frames] == [ethernet(V4), ethernet(V6), ethernet(V4)]
    checked = check(pcap([SLL + b"\x81\0\0\x05\x08\0" + V4], 113))
    assert checked.changes == {"link": 1, "vlan": 1}


def test_padding_is_left_out(check):
    checked = check(pcap([ethernet(V4) + bytes(14), ethernet(V4)]))
    assert checked.changes == {"padding": 1}
    assert {frame for _, frame in checked.frames} == {ethernet(V4)}


def test_bytes_behind_the_datagram_within_ip_stay(check):
    frame = ethernet(udp4(b"hello", tail=b"tail"))
    checked = check(pcap([frame]))
    assert not checked.changes
    assert checked.frames[0][1] == frame
    assert checked.plan["largest"]["datagram_bytes"] == 5


def test_ip_options_and_extension_headers_stay(check):
    hop = b"\x3c\0\x01\x04\0\0\0\0" + b"\x11\x01\x01\x0c" + bytes(12)
    frames = [
        ethernet(udp4(options=b"\x94\x04\0\0")),
        ethernet(udp6(extension=hop, first=0)),
        ethernet(udp6(extension=b"\x11\0\0\0\0\0\0\7", first=44)),  # the only fragment
    ]
    checked = check(pcap(frames))
    assert not checked.changes
    assert not checked.excluded
    assert [frame for _, frame in checked.frames] == frames


@pytest.mark.parametrize("host", ["127.0.0.1", A])
def test_a_capture_of_both_directions_says_so(check, host):
    ask = ethernet(udp4(b"ask", source=host, destination=host, port=9000))
    answer = bytearray(udp4(b"answer", source=host, destination=host, port=4000))
    answer[20:22] = (9000).to_bytes(2, "big")
    checked = check(pcap([ask, ethernet(bytes(answer)), ask, ethernet(bytes(answer))]))
    assert checked.plan["offered"]["datagrams"] == 4
    (warning,) = checked.plan["warnings"]
    assert warning.startswith("2 datagrams answer others in it")
    assert warning.endswith("udp dst port 9000`")
    assert not check(pcap([ask] * 2)).plan["warnings"]


def test_stamps_that_run_backwards_are_clamped(check):
    stamps = [BASE_NS + offset for offset in (0, 500, 200, 499, 500, 900)]
    payloads = [b"%d" % n for n in range(6)]
    checked = check(pcap([ethernet(udp4(p)) for p in payloads], stamps=stamps))
    assert checked.changes == {"stamp": 2}
    assert "2 stamps run backwards" in checked.plan["warnings"][0]
    assert checked.payloads == payloads
    offered = checked.prepared.offered_at("1x")["planned_ns"].tolist()
    assert offered == [0, 500, 500, 500, 500, 900]
    assert [stamp - BASE_NS for stamp, _ in checked.frames] == offered


# ---- what is excluded ----------------------------------------------------------------------------

EXCLUDED = {
    "ARP": ("not_ip", ethernet(bytes(28), kind=0x0806)),
    "LLC": ("not_ip", ethernet(bytes(46), kind=46)),
    "IPv6 in the type of IPv4": ("not_ip", ethernet(V6, kind=0x0800)),
    "a runt": ("not_ip", bytes(9)),
    "TCP": ("not_udp", ethernet(udp4(protocol=6))),
    "ICMPv6": ("not_udp", ethernet(udp6(first=58))),
    "a routing header": ("not_udp", ethernet(udp6(extension=b"\x11\0\0\1\0\0\0\0", first=43))),
    "a fragment of TCP": ("not_udp", ethernet(udp4(protocol=6, fragment=0x2000))),
    "the first fragment": ("fragment", ethernet(udp4(fragment=0x2000))),
    "a later fragment": ("fragment", ethernet(udp4(fragment=0x0010))),
    "a fragment of IPv6": (
        "fragment",
        ethernet(udp6(extension=b"\x11\0\0\1\0\0\0\7", first=44)),
    ),
    "IP longer than the frame": ("bad_length", ethernet(udp4(ip_length=500))),
    "IP shorter than its header": ("bad_length", ethernet(udp4(ip_length=19))),
    "half an IP header": ("bad_length", ethernet(V4[:12])),
    "no room for UDP": ("bad_length", ethernet(udp4(ip_length=27))),
    "UDP longer than IP": ("bad_length", ethernet(udp4(udp_length=14))),
    "UDP shorter than its header": ("bad_length", ethernet(udp4(udp_length=7))),
    "from 0.0.0.0": ("source", ethernet(udp4(source="0.0.0.0"))),
    "from multicast": ("source", ethernet(udp4(source="224.0.0.5"))),
    "from broadcast": ("source", ethernet(udp4(source="255.255.255.255"))),
    "from IPv6 multicast": ("source", ethernet(udp6(source="ff02::1"))),
    "from mapped IPv4": ("source", ethernet(udp6(source="::ffff:192.0.2.1"))),
    "to 0.0.0.0": ("destination", ethernet(udp4(destination="0.0.0.0"))),
    "to ::": ("destination", ethernet(udp6(destination="::"))),
    "to the interface": ("destination", ethernet(udp6(destination="ff01::1"))),
    "to port 0": ("port", ethernet(udp4(port=0))),
}


@pytest.mark.parametrize("name", EXCLUDED)
def test_excluded(check, name):
    reason, frame = EXCLUDED[name]
    checked = check(pcap([ethernet(udp4(b"first")), frame, ethernet(udp4(b"last"))]))
    assert checked.excluded == {reason: 1}
    assert checked.payloads == [b"first", b"last"]
    assert checked.plan["packets"] == 3
    assert checked.plan["offered"] == {"datagrams": 2, "requests": 2}
    assert checked.prepared.offered_at("1x")["planned_ns"].tolist() == [0, 2_000_000]


def test_cut_by_snaplen(check):
    whole = ethernet(udp4(bytes(100)))
    padded = ethernet(V4) + bytes(14)
    frames = [whole[:80], whole[:20], whole, ethernet(V4)]
    wire = [len(whole), len(whole), len(whole), len(padded)]
    checked = check(pcap(frames, wire=wire))
    assert checked.excluded == {"snaplen": 2}  # only padding of the last one is missing
    assert checked.payloads == [bytes(100), b"four"]


def test_broadcast_is_delivered_also_from_nowhere(check):
    checked = check(pcap([ethernet(udp4(source="0.0.0.0", destination="255.255.255.255"))]))
    assert not checked.excluded


def test_only_the_busiest_ports(check):
    frames = [ethernet(udp4(b"%d" % n, port=1000 + n % 70)) for n in range(140)]
    frames += [ethernet(udp4(b"more", port=1069))]
    checked = check(pcap(frames))
    assert checked.excluded == {"port": 12}
    ports = [end["port"] for end in checked.plan["endpoints"]]
    assert ports == [1069, *range(1000, 1063)]
    assert checked.plan["endpoints"][0]["datagrams"] == 3
    assert "70 destination ports: only the 64 busiest" in checked.plan["warnings"][0]


def test_unknown_link_of_one_interface(check):
    data = section("<") + interface("<", link=1) + interface("<", link=127)
    data += enhanced("<", ethernet(V4), 1) + enhanced("<", bytes(64), 2, number=1)
    checked = check(data)
    assert checked.excluded == {"link": 1}
    assert checked.plan["links"] == {"Ethernet": 1, "link type 127": 1}


# ---- formats -------------------------------------------------------------------------------------

FRAMES = [ethernet(V4), ethernet(V6), ethernet(udp4(b"last"))]
STAMPS = [BASE_NS + n * 1_000_000 for n in range(3)]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34])
@pytest.mark.parametrize("zipped", [False, True])
def test_pcap_variants(check, order, magic, zipped):
    data = pcap(FRAMES, order=order, magic=magic)
    checked = check(gzip.compress(data) if zipped else data)
    unit = 1 if magic == 0xA1B23C4D else 1000
    assert checked.frames == [
        (stamp // unit * unit, frame) for stamp, frame in zip(STAMPS, FRAMES, strict=True)
    ]
    assert not checked.plan["warnings"]


def test_pcap_as_dpkt_writes_it(check):
    file = io.BytesIO()
    dpkt.pcap.Writer(file, nano=True).writepkts([(1.5, FRAMES[0]), (2.25, FRAMES[1])])
    checked = check(file.getvalue())
    assert checked.frames == [(1_500_000_000, FRAMES[0]), (2_250_000_000, FRAMES[1])]


def test_pcapng_as_dpkt_writes_it(check):
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file)
    writer.writepkts([(1.5, FRAMES[0]), (2.25, FRAMES[1])])
    checked = check(file.getvalue())
    assert checked.frames == [(1_500_000_000, FRAMES[0]), (2_250_000_000, FRAMES[1])]
    assert not checked.plan["warnings"]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("resolution", "ticks", "stamp_ns"),
    [
        (None, 1_600_000_000_123_456, 1_600_000_000_123_456_000),
        (6, 1_600_000_000_123_456, 1_600_000_000_123_456_000),
        (9, 1_600_000_000_123_456_789, 1_600_000_000_123_456_789),
        (3, 1_600_000_000_123, 1_600_000_000_123_000_000),
        (12, 1_600_000_000_123_456_789_000 % 2**63, None),
        (0x80 | 10, 1_600_000_000 * 1024 + 512, 1_600_000_000_500_000_000),
    ],
)
def test_pcapng_resolutions(check, order, resolution, ticks, stamp_ns):
    data = (
        section(order) + interface(order, resolution=resolution) + enhanced(order, FRAMES[0], ticks)
    )
    expected = ticks // 1000 if stamp_ns is None else stamp_ns
    assert check(data).frames == [(expected, FRAMES[0])]


def test_pcapng_sections_interfaces_and_kinds_of_blocks(check):
    simple = struct.pack("<I", len(FRAMES[0])) + FRAMES[0]
    old = struct.pack("<HHIIII", 0, 3, 0, 2_000_000, len(V4), len(V4)) + V4
    cut = FRAMES[2] + b"cut off"
    data = section("<") + interface("<", snaplen=len(FRAMES[2]))
    data += block("<", 0x0BAD, b"unknown") + enhanced("<", FRAMES[0], 1_000_000)
    data += block("<", 3, simple) + block("<", 3, struct.pack("<I", len(cut)) + FRAMES[2])
    data += section(">") + interface(">", link=101, offset_s=100, resolution=0)
    data += enhanced(">", V6, 1) + section("<") + interface("<", link=228) + block("<", 2, old)
    checked = check(data)
    second = 1_000_000_000
    assert checked.frames == [
        (second, FRAMES[0]),
        (second, FRAMES[0]),
        (second, FRAMES[2]),
        (101 * second, FRAMES[1]),
        (101 * second, FRAMES[0]),
    ]
    assert checked.plan["warnings"] == [
        "2 packets have no stamp: each takes that of the one before",
        "1 stamps run backwards: raised to the one before",
    ]
    assert checked.plan["format"] == "pcapng, little-endian and big-endian"
    assert checked.changes == {"link": 2, "stamp": 1}


NG = section("<") + interface("<") + b"".join(enhanced("<", f, n) for n, f in enumerate(FRAMES))


@pytest.mark.parametrize("data", [pcap(FRAMES), NG], ids=["pcap", "pcapng"])
@pytest.mark.parametrize("missing", [1, 20, 50])
def test_cut_last_record_is_a_warning(check, data, missing):
    checked = check(data[:-missing])
    assert [frame for _, frame in checked.frames] == FRAMES[:2]
    assert "is cut or damaged" in checked.plan["warnings"][0]
    assert checked.plan["packets"] == 2


def test_damaged_record_ends_the_capture(check):
    data = bytearray(pcap(FRAMES))
    at = 24 + 16 + len(FRAMES[0])
    data[at + 8 : at + 12] = b"\xff" * 4
    checked = check(bytes(data))
    assert len(checked.frames) == 1
    assert f"record 2 at byte {at} is cut or damaged" in checked.plan["warnings"][0]


def test_cut_gzip_is_a_warning(check):
    data = pcap([ethernet(udp4(os.urandom(1000))) for _ in range(50)])
    checked = check(gzip.compress(data)[:-20_000])
    assert 0 < len(checked.frames) < 50
    assert "the gzip file is cut" in checked.plan["warnings"][0]
    members = gzip.compress(data[:5000]) + gzip.compress(data[5000:])
    assert len(check(members).frames) == 50


REFUSED = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello, this is no capture\n", "not a capture, it begins with the bytes 68 65 6c 6c"),
    "short": (b"\xd4", "not a capture"),
    "zipped text": (gzip.compress(b"hello"), "not a capture"),
    "half a header": (pcap([])[:10], "without a whole packet"),
    "no packet": (pcap([]), "without a whole packet"),
    "no packet in pcapng": (section("<") + interface("<"), "without a whole packet"),
    "half a packet": (pcap(FRAMES[:1])[:-1], "without a whole packet"),
    "an interface that is not": (section("<") + enhanced("<", V4, 1), "without a whole packet"),
    "TCP alone": (pcap([ethernet(udp4(protocol=6))] * 2), "(2 packets; not_udp 2; Ethernet)"),
    "an unknown link": (pcap([bytes(64)], 127), "(1 packets; link 1; link type 127)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_line(check, name, tmp_path):
    data, said = REFUSED[name]
    with pytest.raises(capture.CaptureError) as error:
        check(data)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'x.pcap'}: ")
    assert "expected" in str(error.value)
    assert "\n" not in str(error.value)
    left = {entry.name for entry in (tmp_path / "cache").iterdir()}
    assert left <= {"lock", "known.json"}


def test_refused_without_a_file(tmp_path):
    for path in (tmp_path / "none.pcap", tmp_path):
        with pytest.raises(capture.CaptureError, match="expected a pcap or pcapng"):
            capture.check(path)


def test_refused_without_a_cache(check, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(capture.CaptureError, match="expected a directory to keep"):
        check(pcap(FRAMES), cache_dir=tmp_path / "file" / "cache")


def test_unknown_schema_and_handler(check):
    with pytest.raises(
        capture.CaptureError,
        match="schema 'v7': expected one of v1, v2, v3, v4, fix, iex, datagram",
    ):
        check(pcap(FRAMES), schema="v7")
    with pytest.raises(
        capture.CaptureError, match="handler 'nope': expected one of rot1, fizzbuzz, spin"
    ):
        check(pcap(FRAMES), handler="nope")


@pytest.mark.parametrize("seed", range(20))
def test_noise_never_breaks_the_reader(check, seed):
    """Bytes turned over at random are read, warned of or refused, nothing else."""
    chance = np.random.default_rng(seed)
    for whole in (pcap(FRAMES * 3), NG, gzip.compress(pcap(FRAMES), mtime=0)):
        data = np.frombuffer(whole, np.uint8).copy()
        data[chance.integers(4, len(data), 8)] = chance.integers(0, 256, 8)
        with contextlib.suppress(capture.CaptureError):
            check(data.tobytes())


# ---- a real capture, and the commands ------------------------------------------------------------


@pytest.mark.skipif(not IEX.exists(), reason=f"the sample {IEX.name} is not in ../shared/captures")
def test_iex_sample(tmp_path):
    checked = Checked(capture.prepare(IEX, schema="datagram", cache_dir=tmp_path, warmup=1000))
    assert checked.plan["packets"] == len(checked.frames) == 13_022
    assert checked.changes == {"source_mac": 13_022, "udp_checksum": 13_021}
    assert not checked.excluded
    assert checked.plan["groups"] == ["224.67.0.199"]
    assert checked.plan["warmup"] == {"datagrams": 1000, "requests": 1000}
    original = dpkt.pcap.Reader(io.BytesIO(gzip.decompress(IEX.read_bytes())))
    for (stamp, frame), (had_stamp, had) in zip(checked.frames, original, strict=True):
        assert stamp == round(had_stamp * 1_000_000) * 1000
        assert frame[42:] == had[42:]
    assert checked.expected["id"].tolist() == [
        xxh3_64_intdigest(payload) for payload in checked.payloads
    ]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=cwd, timeout=60, check=False
    )


def test_commands(tmp_path):
    tools = ROOT / "harness"
    result = run(tools / "generate.py", "x.pcap", "--count", "100", "--json", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["requests"] == 100
    for words in (["info", "x.pcap"], ["prepare", "x.pcap", "--warmup", "10"]):
        result = run(tools / "capture.py", *words, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert "100 requests (v1)" in result.stdout
        result = run(tools / "capture.py", *words, "--json", cwd=tmp_path)
        assert json.loads(result.stdout)["offered"] == {"datagrams": 100, "requests": 100}
    assert Path(tmp_path, json.loads(result.stdout)["directory"], "replay.pcap").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["capture.py", "info", "none.pcap"],
        ["generate.py", "x.pcap", "--rate", "-1"],
        ["generate.py", "none/x.pcap", "--count", "1"],
    ],
)
def test_commands_refuse_with_one_line(tmp_path, words):
    result = run(ROOT / "harness" / words[0], *words[1:], cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("tickline: ")
    assert result.stderr.count("\n") == 1


def test_what_unpacks_to_too_much_is_refused(check, monkeypatch):
    data = gzip.compress(pcap([ethernet(udp4())]))
    unpacked = len(gzip.decompress(data))
    monkeypatch.setattr(capture, "UNPACKED_BYTES_MAX", unpacked - 1)
    said = f"unpacks to more than {unpacked - 1:,} bytes.*gunzip"
    with pytest.raises(capture.CaptureError, match=said):
        check(data)
    monkeypatch.setattr(capture, "UNPACKED_BYTES_MAX", unpacked)
    assert not check(data).plan["warnings"]
