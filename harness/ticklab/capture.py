# SPDX-License-Identifier: Apache-2.0
"""Checks a capture and rewrites it, where needed, into a cached copy that a socket will receive.

Frames of real captures often cannot be received: checksums left to the network card, addresses of
the loopback, link types without a MAC. The kernel drops such frames silently. Here they become
plain Ethernet with right checksums and the lab's MACs. Payloads, order and stamps stay as they are;
every kind of change is counted, and every frame that cannot be delivered is excluded by a reason
and not `offered`.

A prepared capture is a directory `<sha256 of the file>-<hash of the parameters and of this code>`:

    replay.pcap    what tcpreplay sends; Ethernet, nanosecond stamps
    warmup.pcap    the datagrams of its first `warmup` requests: its beginning, sent once before
    offered.bin    {u64 id; i64 planned_ns}, a request each, in order, from the first packet, at 1x
    counts.bin     {u32 requests}, a datagram each
    expected.bin   {u64 id; u64 reply_hash}, an expected reply each, in order
    plan.json      what the capture holds, what was changed, what was left out

dpkt's readers give neither the length on the wire nor whole nanoseconds nor more than one
interface, so pcap and pcapng are read here; a file is mapped and its frames are taken apart by the
column.
"""

import fcntl
import hashlib
import ipaddress
import json
import mmap
import os
import re
import shutil
import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rich import box
from rich.console import Console
from rich.table import Table
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from ticklab import reference, streams, tapped
from ticklab.run import ANY_REPLY

CACHE = Path(".cache/captures")
SOURCE_MAC = bytes.fromhex("020000007701")
DESTINATION_MAC = bytes.fromhex("020000007702")
SOURCE = ipaddress.ip_address("10.77.0.1")
DESTINATION = ipaddress.ip_address("10.77.0.2")
SOURCE_V6 = ipaddress.ip_address("fd77::1")
DESTINATION_V6 = ipaddress.ip_address("fd77::2")
PORTS_MAX = 64

OFFERED = np.dtype([("id", "<u8"), ("planned_ns", "<i8")])
EXPECTED = np.dtype([("id", "<u8"), ("reply_hash", "<u8")])
RECORD = np.dtype([("s", "<u4"), ("ns", "<u4"), ("captured", "<u4"), ("wire", "<u4")])

# Why a frame is not offered, in the order of the checks.
EXCLUSIONS = (
    "link",  # a link type that is not known here
    "not_ip",
    "not_udp",  # for a tap: and not TCP
    "fragment",
    "snaplen",  # cut by the capture
    "bad_length",  # lengths of IP, UDP or TCP that contradict the frame or each other
    "source",  # an address the kernel takes for a forgery (0.0.0.0, multicast …)
    "destination",  # an address no host can have (0.0.0.0, :: …)
    "port",  # 0, or beyond the 64 busiest
)
CHANGES = (
    "link",  # made Ethernet
    "vlan",  # tags taken off
    "padding",  # bytes behind the IP packet left out
    "destination_mac",
    "source_mac",
    "loopback",  # addresses of the loopback replaced by the lab's
    "ip_checksum",
    "udp_checksum",
    "tcp_checksum",
    "stamp",  # ran backwards, clamped
)

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
# Rows of the rewriting: record header, Ethernet header, IP packet.
_ETHERNET_AT = RECORD.itemsize
_IP_AT = _ETHERNET_AT + 14
_CHUNK_BYTES = 16 << 20
_RECORD_BYTES_MAX = 262144  # the largest snaplen of libpcap
# What a packed capture may unpack to: it is held in memory, while a plain one is mapped.
UNPACKED_BYTES_MAX = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4

_LINKS = {
    0: "NULL",
    1: "Ethernet",
    12: "RAW",
    14: "RAW",
    101: "RAW",
    108: "LOOP",
    113: "SLL",
    228: "IPV4",
    229: "IPV6",
    276: "SLL2",
}
_MAPPED = bytes(10) + b"\xff\xff"  # IPv4 addresses are kept as ::ffff:a.b.c.d


SLOT_CAPACITY = 33 * 64 - 40  # bytes of a slot where nothing is known of replies


@dataclass(frozen=True)
class Tap:
    """What a tap keeps of TCP streams: rx.reorder, rx.connection_buffer, and flows at once."""

    reorder_bytes: int
    buffer_bytes: int
    flows: int


class CaptureError(Exception):
    """A capture that cannot be used; the message is one line that says how to mend it."""


@dataclass
class Prepared:
    """A prepared capture: its directory and its plan."""

    directory: Path
    plan: dict

    @property
    def replay(self) -> Path:
        return self.directory / "replay.pcap"

    @property
    def warmup(self) -> Path:
        return self.directory / "warmup.pcap"

    @property
    def expected(self) -> Path:
        return self.directory / "expected.bin"

    def offered_at(self, speed: str = "1x", datagrams: int | None = None) -> np.ndarray:
        """OFFERED, shape (requests,); planned_ns at `speed` (`10x`, `0.5x`), all 0 for `top`.

        At `20000pps` the k-th datagram, from 0, is planned at k / 20000 s.

        With `datagrams` only the requests of so many from the beginning: a player was stopped.
        """
        factor = speed_factor(speed)
        offered = np.fromfile(self.directory / "offered.bin", OFFERED)
        if speed.endswith("pps"):
            counts = np.fromfile(self.directory / "counts.bin", "<u4")
            datagram = np.repeat(np.arange(len(counts)), counts)
            offered["planned_ns"] = np.rint(datagram * 1e9 / float(speed[:-3]))
        if datagrams is not None and datagrams < self.plan["offered"]["datagrams"]:
            counts = np.fromfile(self.directory / "counts.bin", "<u4")
            offered = offered[: int(counts[:datagrams].sum())]
        if factor is None:
            offered["planned_ns"] = 0
        elif factor != 1:
            offered["planned_ns"] = np.rint(offered["planned_ns"] / factor)
        return offered


def speed_factor(speed: str) -> float | None:
    """`10x` → 10.0, `top` → None; 1.0 for a packet rate, `20000pps`."""
    if speed == "top":
        return None
    if re.fullmatch(r"\d+(\.\d+)?pps", speed) and float(speed[:-3]) > 0:
        return 1.0
    if re.fullmatch(r"\d+(\.\d+)?x", speed) and float(speed[:-1]) > 0:
        return float(speed[:-1])
    raise CaptureError(
        f"speed {speed!r}: expected a factor such as 1x, 10x, 0.5x, 20000pps, or top"
    )


def prepare(
    path: str | Path,
    *,
    schema: str = "v1",
    handler: str = "rot1",
    slot_capacity: int | None = None,
    warmup: int = 0,
    tap: Tap | None = None,
    cache_dir: str | Path = CACHE,
    destination_mac: bytes = DESTINATION_MAC,
    source_mac: bytes = SOURCE_MAC,
) -> Prepared:
    """The prepared copy of the capture at `path`, from the cache where it is there already.

    `slot_capacity`: bytes of a request or reply that a ring slot holds (None: no limit). `warmup`:
    requests of the warm-up, rounded up to whole datagrams and down to what the capture holds; the
    replay holds them as well. `tap`: TCP segments are replayed, too, for rx.source = packet, and
    whatever a socket would refuse. Raises CaptureError.
    """
    parameters = {
        "schema": schema,
        "handler": handler,
        "slot_capacity": slot_capacity,
        "warmup": warmup,
        "tap": asdict(tap) if tap else None,
        "destination_mac": destination_mac.hex(":"),
        "source_mac": source_mac.hex(":"),
    }
    code = code_of(__file__, streams.__file__, tapped.__file__)

    def make(sha256: str, part: Path) -> dict:
        return _check(Path(path), sha256, parameters, part)

    return Prepared(*cached(path, cache_dir, parameters, code, make))


def code_of(*modules: str) -> bytes:
    """The text of these modules and of those that say what a right answer is."""
    references = sorted(Path(reference.__file__).parent.glob("reference*.py"))
    return b"".join(Path(file).read_bytes() for file in (*modules, *references))


def cached(
    path: str | Path,
    cache_dir: str | Path,
    parameters: dict,
    code: bytes,
    make: Callable[[str, Path], dict],
) -> tuple[Path, dict]:
    """What is made of the capture at `path` by this code and these parameters: its directory and
    its plan, from the cache where they are there.

    `make` is given the file's sha256 and the directory to fill; it returns the plan, which names
    the files in it. Raises CaptureError.
    """
    path, cache = Path(path), Path(cache_dir)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CaptureError(
            f"{cache}: {error.strerror}: expected a directory to keep prepared captures in;"
            " give another one"
        ) from error
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sha256 = _sha256(path, cache)
        key = xxh3_64_hexdigest(json.dumps(parameters).encode() + code)
        directory = cache / f"{sha256}-{key}"
        plan = _cached_plan(directory)
        if plan is None:
            part = cache / "part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(directory, ignore_errors=True)
            part.mkdir()
            try:
                plan = make(sha256, part)
                (part / "plan.json").write_text(json.dumps(plan, indent=1) + "\n")
                part.rename(directory)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    plan["capture"] = str(path)
    return directory, plan


def check(path: str | Path, *, schema: str = "v1", handler: str = "rot1") -> dict:
    """The plan of the capture at `path`, with nothing written. Raises CaptureError."""
    path = Path(path)
    parameters = {
        "schema": schema,
        "handler": handler,
        "slot_capacity": None,
        "warmup": 0,
        "tap": None,
        "destination_mac": DESTINATION_MAC.hex(":"),
        "source_mac": SOURCE_MAC.hex(":"),
    }
    return _check(path, _sha256(path, None), parameters, None)


def show(plan: dict) -> None:
    """Prints a plan to stdout as a short table."""
    largest, offered = plan["largest"], plan["offered"]
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("capture", plan["capture"])
    table.add_row("format", f"{plan['format']}; {_counts(plan['links'])}")
    table.add_row("packets", f"{plan['packets']:,}")
    table.add_row(
        "offered",
        f"{offered['datagrams']:,} datagrams, {offered['requests']:,} requests"
        f" ({plan['parameters']['schema']}), {plan['flows']:,} flows",
    )
    table.add_row("replies", f"{plan['expected']:,} expected, {plan['ambiguous']:,} ambiguous")
    table.add_row("time", f"{plan['duration_ns'] / 1e9:,.6f} s, {plan['rate']:,.1f} requests/s")
    table.add_row(
        "largest",
        f"request {largest['request_bytes']:,} B, reply {largest['reply_bytes']:,} B,"
        f" datagram {largest['datagram_bytes']:,} B, frame {largest['frame_bytes']:,} B",
    )
    ends = [f"{e['address']} port {e['port']}: {e['datagrams']:,}" for e in plan["endpoints"]]
    more = [f"and {len(ends) - 8:,} more"] if len(ends) > 8 else []
    table.add_row("endpoints", "\n".join(ends[:8] + more))
    table.add_row("changed", _counts(plan["changes"]))
    table.add_row("excluded", _counts(plan["excluded"]))
    table.add_row("malformed", _counts(plan["rejected"]))
    for warning in plan["warnings"]:
        table.add_row("warning", warning)
    Console(markup=False, highlight=False).print(table)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "none"


def _sha256(path: Path, cache: Path | None) -> str:
    """sha256 of the file; with a cache, known again by name, size and times without reading it."""
    try:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known_path = cache and cache / "known.json"
        known = _load(known_path) if known_path else None
        known = known if isinstance(known, dict) else {}
        name = str(path.resolve())
        if name in known and known[name][:-1] == stamp:
            return known[name][-1]
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CaptureError(
            f"{path}: {error.strerror}: expected a pcap or pcapng file that can be read"
        ) from error
    if known_path:
        known[name] = [*stamp, sha256]
        fresh = known_path.with_suffix(".part")
        fresh.write_text(json.dumps(known))
        fresh.replace(known_path)
    return sha256


def _load(path: Path) -> object:
    """The JSON in `path`; None where it is absent or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def requests_by_id(path: Path, schema: str) -> dict[int, list[reference.Request]]:
    """Every request of a prepared capture by its wire id."""
    frames = _read(path)
    datagrams = _dissect(path, frames)
    begin = datagrams.ip_at + datagrams.udp_at + 8
    end = begin + datagrams.udp_bytes - 8
    found: dict[int, list[reference.Request]] = {}
    for a, b in zip(begin.tolist(), end.tolist(), strict=True):
        for request in reference.frame(schema, frames.data[a:b]):
            found.setdefault(request.id, []).append(request)
    return found


def _cached_plan(directory: Path) -> dict | None:
    """The plan in `directory` if all files it names are there in full."""
    plan = _load(directory / "plan.json")
    try:
        if all((directory / name).stat().st_size == n for name, n in plan["files"].items()):
            return plan
    except (OSError, TypeError, KeyError):
        pass
    return None


def _check(path: Path, sha256: str, parameters: dict, directory: Path | None) -> dict:
    """The plan of a capture; writes the prepared files too where a directory is given."""
    for key, known in (("schema", reference.SCHEMAS), ("handler", tuple(reference.HANDLERS))):
        if parameters[key] not in known:
            raise CaptureError(f"{key} {parameters[key]!r}: expected one of {', '.join(known)}")
    frames = _read(path)
    datagrams = _dissect(path, frames, tap=bool(parameters["tap"]))
    if parameters["tap"]:
        requests, counts = tapped.requests(frames, datagrams, parameters, _Requests)
    else:
        requests, counts = _requests(frames.data, datagrams, parameters), None
    changes = dict.fromkeys(CHANGES, 0) | datagrams.changes
    macs = [bytes.fromhex(parameters[key].replace(":", "")) for key in _MACS]
    chunks = _rewrite(frames, datagrams, macs, changes)
    frame_at = datagrams.frame_at()

    # The warm-up ends with the datagram that completes its requests.
    warm = int(np.searchsorted(np.cumsum(requests.counts), parameters["warmup"]))
    warm = min(warm + 1, len(requests.counts)) if parameters["warmup"] else 0
    warm_requests = int(requests.counts[:warm].sum())
    planned_ns = np.repeat(datagrams.stamp_ns - datagrams.stamp_ns[0], requests.counts)
    files = {}
    if directory:
        with (directory / "replay.pcap").open("wb") as file:
            file.write(PCAP_HEADER)
            file.writelines(chunks)
        offered = np.empty(len(requests.ids), OFFERED)
        offered["id"], offered["planned_ns"] = requests.ids, planned_ns
        offered.tofile(directory / "offered.bin")
        requests.counts.astype("<u4").tofile(directory / "counts.bin")
        requests.expected.tofile(directory / "expected.bin")
        with (directory / "replay.pcap").open("rb") as file:
            beginning = file.read(len(PCAP_HEADER) + int(frame_at[warm]))
        endings = tapped.endings(beginning[len(PCAP_HEADER) :]) if parameters["tap"] else []
        (directory / "warmup.pcap").write_bytes(beginning + b"".join(endings))
        warm += len(endings)
        files = {file.name: file.stat().st_size for file in sorted(directory.iterdir())}
    else:
        for _ in chunks:  # for the changes it counts
            pass

    duration_ns = int(datagrams.stamp_ns[-1] - datagrams.stamp_ns[0])
    plan = {
        "schema": 1,
        "capture": str(path),
        "sha256": sha256,
        "parameters": parameters,
        "format": frames.format,
        "links": frames.links(),
        "packets": len(frames.start),
        "offered": {"datagrams": len(datagrams.stamp_ns), "requests": len(requests.ids)},
        "expected": len(requests.expected),
        "rejected": requests.rejected,
        "ambiguous": _ambiguous(requests.expected, parameters["schema"]),
        "largest": {
            "request_bytes": requests.largest,
            "reply_bytes": requests.largest_reply,
            "datagram_bytes": int((datagrams.udp_bytes - np.where(datagrams.tcp, 20, 8)).max()),
            "frame_bytes": int(datagrams.ip_bytes.max()) + 14,
        },
        "mtu": int(datagrams.ip_bytes.max()),
        "duration_ns": duration_ns,
        "rate": len(requests.ids) * 1e9 / duration_ns if duration_ns else 0.0,
        "warmup": {"datagrams": warm, "requests": warm_requests},
        "ipv6": bool(datagrams.v6.any()),
        **_ends(datagrams),
        "changes": changes,
        "excluded": datagrams.excluded,
        "warnings": frames.warnings,
        "files": files,
    }
    if counts:
        plan["streams"] = counts
    return plan


_MACS = ("destination_mac", "source_mac")


# ---- files --------------------------------------------------------------------------------------


@dataclass
class _Frames:
    """The frames of a file, a column each; offsets in bytes from the start of `data`."""

    data: bytes | mmap.mmap
    format: str
    warnings: list[str]
    start: np.ndarray  # i64, first byte of the frame
    captured: np.ndarray  # i64, bytes there
    wire: np.ndarray  # i64, bytes on the wire
    stamp_ns: np.ndarray  # i64, REALTIME
    link: np.ndarray  # i64, LINKTYPE_ number

    def links(self) -> dict[str, int]:
        numbers, counts = np.unique(self.link, return_counts=True)
        names = [_LINKS.get(number, f"link type {number}") for number in numbers.tolist()]
        return dict(zip(names, counts.tolist(), strict=True))


def _read(path: Path) -> _Frames:
    """Reads pcap or pcapng, told apart by their magic, also packed by gzip."""
    warnings: list[str] = []
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise CaptureError(
                f"{path}: the file is empty: expected a pcap or pcapng; record it again"
            )
        data: bytes | mmap.mmap = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    packed = data[:2] == b"\x1f\x8b"
    if packed:
        data = _unpack(path, data, warnings)
    magic = data[:4]
    if magic in _PCAP_MAGICS:
        table, name = _read_pcap(data, warnings)
    elif magic == b"\x0a\x0d\x0d\x0a":
        table, name = _read_pcapng(data, warnings)
    else:
        raise CaptureError(
            f"{path}: not a capture, it begins with the bytes {magic.hex(' ') or '(none)'}:"
            " expected pcap or pcapng, plain or gzip; unpack it, or convert it by"
            " `editcap -F nsecpcap IN OUT`"
        )
    if not table:
        raise CaptureError(
            f"{path}: a capture without a whole packet: expected at least one UDP datagram;"
            " record one by `tcpdump -i IFACE -w FILE udp`"
        )
    columns = np.array(table, np.int64).reshape(-1, 5).T.copy()
    return _Frames(data, name + ", gzip" * packed, warnings, *columns)


def _unpack(path: Path, data: mmap.mmap, warnings: list[str]) -> bytes:
    """Unpacks gzip, several members too, as far as it goes; CaptureError where it is too much."""
    rest, parts, room = data[:], [], UNPACKED_BYTES_MAX
    while rest[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(31)
        try:
            parts.append(member.decompress(rest, room + 1))
        except zlib.error as error:
            warnings.append(f"the gzip file is damaged ({error}): the rest is left out")
            break
        room -= len(parts[-1])
        if room < 0:
            raise CaptureError(
                f"{path}: unpacks to more than {UNPACKED_BYTES_MAX:,} bytes, a quarter of this"
                " machine's memory: expected a smaller one; unpack it to a file by `gunzip`"
            )
        if not member.eof:
            warnings.append("the gzip file is cut: the rest is missing")
            break
        rest = member.unused_data
    return b"".join(parts)


# magic bytes: byte order, nanoseconds a unit, record header bytes beyond 16
_PCAP_MAGICS = {
    struct.pack(order + "I", magic): (order, unit, extra)
    for order in "<>"
    for magic, unit, extra in ((0xA1B2C3D4, 1000, 0), (0xA1B23C4D, 1, 0), (0xA1B2CD34, 1000, 8))
}
_ORDERS = {"<": "little-endian", ">": "big-endian"}


def _cut(what: str, at: int, size: int) -> str:
    return f"{what} at byte {at:,} is cut or damaged: the last {size - at:,} bytes are left out"


def _read_pcap(data: bytes | mmap.mmap, warnings: list[str]) -> tuple[array, str]:
    """Rows of start, captured, wire, stamp_ns, link."""
    order, unit, extra = _PCAP_MAGICS[data[:4]]
    table, size, at = array("q"), len(data), 24
    link = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF if size >= at else 0
    unpack, head = struct.Struct(order + "IIII").unpack_from, 16 + extra
    while at + head <= size:
        seconds, fraction, captured, wire = unpack(data, at)
        start = at + head
        if captured > _RECORD_BYTES_MAX or start + captured > size:
            break
        table.extend((start, captured, wire, seconds * 1_000_000_000 + fraction * unit, link))
        at = start + captured
    if at != size:
        warnings.append(_cut(f"record {len(table) // 5 + 1:,}", at, size))
    return table, f"pcap, {_ORDERS[order]}, {'ns' if unit == 1 else 'µs'}"


def _read_pcapng(data: bytes | mmap.mmap, warnings: list[str]) -> tuple[array, str]:
    """Rows of start, captured, wire, stamp_ns, link; all sections and interfaces."""
    table, size, at = array("q"), len(data), 0
    order, seen = "<", {}
    interfaces: list[tuple[int, int, int, int]] = []  # link, snaplen, ticks a second, offset ns
    stamp_ns = unstamped = 0
    while at + 12 <= size:
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = ">" if data[at + 8 : at + 12] == b"\x1a\x2b\x3c\x4d" else "<"
            seen[_ORDERS[order]] = interfaces = []
        kind, length = struct.unpack_from(order + "II", data, at)
        if length < 12 or length % 4 or at + length > size:
            break
        try:
            if kind == 1:
                interfaces.append(_interface(data[at : at + length], order))
            elif kind in (2, 6):  # packet (obsolete), enhanced packet
                fields = struct.unpack_from(
                    order + ("HHIIII" if kind == 2 else "IIIII"), data, at + 8
                )
                number, (high, low, captured, wire) = fields[0], fields[-4:]
                link, _, ticks, offset_ns = interfaces[number]
                if captured > length - 32:
                    break
                stamp_ns = (high << 32 | low) * 1_000_000_000 // ticks + offset_ns
                if not 0 <= stamp_ns < 1_000_000_000 << 32:
                    stamp_ns = 0
                table.extend((at + 28, captured, wire, stamp_ns, link))
            elif kind == 3:  # simple packet: of the first interface, without a stamp
                link, snaplen, _, _ = interfaces[0]
                wire = struct.unpack_from(order + "I", data, at + 8)[0]
                captured = min(wire, snaplen or wire, length - 16)
                table.extend((at + 12, captured, wire, stamp_ns, link))
                unstamped += 1
        except (IndexError, struct.error):
            break
        at += length
    if at != size:
        warnings.append(_cut("the block", at, size))
    if unstamped:
        warnings.append(f"{unstamped:,} packets have no stamp: each takes that of the one before")
    return table, f"pcapng, {' and '.join(seen)}"


def _interface(block: bytes, order: str) -> tuple[int, int, int, int]:
    """Link type, snaplen, ticks a second and offset (ns) of an interface description block."""
    link, _, snaplen = struct.unpack_from(order + "HHI", block, 8)
    ticks, offset_s, at = 1_000_000, 0, 16
    while at + 4 <= len(block) - 4:
        code, length = struct.unpack_from(order + "HH", block, at)
        if code == 0:
            break
        if code == 9 and length == 1:
            exponent = block[at + 4]
            ticks = 1 << (exponent & 0x7F) if exponent & 0x80 else 10**exponent
        elif code == 14 and length == 8:
            offset_s = struct.unpack_from(order + "q", block, at + 4)[0]
        at += 4 + (length + 3) // 4 * 4
    return link, snaplen, ticks, offset_s * 1_000_000_000


# ---- frames -------------------------------------------------------------------------------------


@dataclass
class _Datagrams:
    """The deliverable datagrams, a column each, in order of the capture."""

    frame: np.ndarray  # i64, index into the frames
    ip_at: np.ndarray  # i64, offset in the file
    ip_bytes: np.ndarray  # i64, whole IP packet
    udp_at: np.ndarray  # i64, offset in the IP packet; of TCP's header as well
    udp_bytes: np.ndarray  # i64, header included
    tcp: np.ndarray  # bool
    v6: np.ndarray  # bool
    source: np.ndarray  # u8 (n, 16), loopback already replaced
    destination: np.ndarray  # u8 (n, 16)
    ports: np.ndarray  # u8 (n, 4), source and destination, big-endian
    stamp_ns: np.ndarray  # i64, never runs backwards
    changes: dict[str, int]
    excluded: dict[str, int]

    def frame_at(self) -> np.ndarray:
        """Offset of every record behind the header of replay.pcap, and the end; shape (n + 1,)."""
        return np.concatenate(([0], np.cumsum(self.ip_bytes + _IP_AT)))


def _dissect(path: Path, frames: _Frames, *, tap: bool = False) -> _Datagrams:
    """Finds the UDP datagrams, for a tap also TCP segments, and excludes what cannot be delivered.

    Raises CaptureError if nothing is left.
    """
    data = np.frombuffer(frames.data, np.uint8)
    start, end = frames.start, frames.start + frames.captured
    cut = frames.captured < frames.wire
    why = np.zeros(len(start), np.uint8)

    def byte(at: np.ndarray) -> np.ndarray:
        return data[np.minimum(at, len(data) - 1)].astype(np.int64)  # beyond the end: not used

    def u16(at: np.ndarray) -> np.ndarray:
        return byte(at) << 8 | byte(at + 1)

    def exclude(which: np.ndarray, reason: str) -> None:
        why[which & (why == 0)] = EXCLUSIONS.index(reason) + 1

    def exclude_short(needed: np.ndarray) -> None:
        exclude((needed > end) & cut, "snaplen")
        exclude(needed > end, "bad_length")

    ip_at, kind, tags = _network_layer(frames, byte, u16)
    exclude(kind == _UNKNOWN_LINK, "link")
    version = byte(ip_at) >> 4
    v4, v6 = (kind == 0x0800) & (version == 4), (kind == 0x86DD) & (version == 6)
    exclude(~np.isin(kind, (0x0800, 0x86DD)), "not_ip")
    exclude_short(ip_at + np.where(kind == 0x86DD, 40, 20))
    exclude(~v4 & ~v6, "not_ip")

    header = np.where(v4, (byte(ip_at) & 15) * 4, 40)
    ip_bytes = np.where(v4, u16(ip_at + 2), 40 + u16(ip_at + 4))
    protocol = byte(ip_at + np.where(v4, 9, 6))
    fragment = v4 & (u16(ip_at + 6) & 0x3FFF != 0)
    for _ in range(8):  # IPv6 extension headers: hop-by-hop, destination options, fragment
        inside = v6 & ~fragment & (ip_at + header + 8 <= end)
        options, piece = inside & np.isin(protocol, (0, 60)), inside & (protocol == 44)
        at = ip_at + header
        fragment |= piece & (u16(at + 2) & 0xFFF9 != 0)
        protocol = np.where(options | piece, byte(at), protocol)
        header += np.where(options, (byte(at + 1) + 1) * 8, np.where(piece, 8, 0))
    exclude(v4 & (header < 20), "bad_length")
    tcp = (protocol == 6) & tap
    exclude((protocol != 17) & ~tcp, "not_udp")
    exclude(fragment, "fragment")
    exclude_short(ip_at + ip_bytes)
    udp_bytes = np.where(tcp, ip_bytes - header, u16(ip_at + header + 4))
    exclude((udp_bytes < 8) | (header + udp_bytes > ip_bytes), "bad_length")
    tcp_header = (byte(ip_at + header + 12) >> 4) * 4
    exclude(tcp & ((tcp_header < 20) | (tcp_header > udp_bytes)), "bad_length")

    # Addresses of all frames as 16 bytes, those of IPv4 mapped; then only of the good ones.
    good = np.flatnonzero(why == 0)
    source, destination = np.zeros((2, len(good), 16), np.uint8)
    for address, at4, at6 in ((source, 12, 8), (destination, 16, 24)):
        four = v4[good]
        address[four, :12] = np.frombuffer(_MAPPED, np.uint8)
        address[four, 12:] = _gather(data, ip_at[good][four] + at4, 4)
        address[~four] = _gather(data, ip_at[good][~four] + at6, 16)
    if not tap:
        bad_source, bad_destination = _undeliverable(source, destination, v4[good])
        why[good[bad_source]] = EXCLUSIONS.index("source") + 1
        why[good[bad_destination & ~bad_source]] = EXCLUSIONS.index("destination") + 1
        port = u16(ip_at + header + 2)
        counts = np.bincount(port[why == 0], minlength=65536)
        counts[0] = 0
        ports = np.flatnonzero(counts)
        busiest = ports[np.argsort(-counts[ports], kind="stable")][:PORTS_MAX]
        exclude(~np.isin(port, busiest), "port")
        if len(ports) > PORTS_MAX:
            frames.warnings.append(
                f"{len(ports):,} destination ports: only the {PORTS_MAX} busiest are replayed"
            )

    excluded = np.bincount(why, minlength=len(EXCLUSIONS) + 1)[1:].tolist()
    excluded = dict(zip(EXCLUSIONS, excluded, strict=True))
    kept = why[good] == 0
    source, destination, good = source[kept], destination[kept], good[kept]
    if not len(good):
        raise CaptureError(
            f"{path}: nothing in it can be replayed ({len(why):,} packets; {_counts(excluded)};"
            f" {', '.join(frames.links())}): expected whole UDP datagrams over IPv4 or IPv6;"
            " record them by `tcpdump -i IFACE -s 0 -w FILE udp`"
        )
    answers, asked = _answers(source, destination, _gather(data, (ip_at + header)[good], 4))
    if answers and not tap:
        frames.warnings.append(
            f"{answers:,} datagrams answer others in it: both directions are replayed; keep one by"
            f" `tcpdump -r FILE -w OUT udp dst port {asked}`"
        )
    looped = _replace_loopback(source, v6[good], SOURCE, SOURCE_V6)
    looped |= _replace_loopback(destination, v6[good], DESTINATION, DESTINATION_V6)
    stamp_ns = frames.stamp_ns[good]
    clamped = np.maximum.accumulate(stamp_ns)
    backwards = int((clamped != stamp_ns).sum())
    if backwards:
        frames.warnings.append(f"{backwards:,} stamps run backwards: raised to the one before")
    return _Datagrams(
        frame=good,
        ip_at=ip_at[good],
        ip_bytes=ip_bytes[good],
        udp_at=header[good],
        udp_bytes=udp_bytes[good],
        tcp=tcp[good],
        v6=v6[good],
        source=source,
        destination=destination,
        ports=_gather(data, (ip_at + header)[good], 4),
        stamp_ns=clamped,
        changes={
            "link": int((frames.link[good] != 1).sum()),
            "vlan": int((tags[good] > 0).sum()),
            "padding": int(((ip_at + ip_bytes)[good] < end[good]).sum()),
            "loopback": int(looped.sum()),
            "stamp": backwards,
        },
        excluded=excluded,
    )


_UNKNOWN_LINK = -1


def _network_layer(frames: _Frames, byte, u16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the network header of each frame stands, its Ethernet type, and its VLAN tags."""
    at, link = frames.start, frames.link
    family = np.where(u16(at + 1) == 0, byte(at) | byte(at + 3), 0)  # in either byte order
    of_family = np.where(family == 2, 0x0800, np.where(np.isin(family, _AF_INET6), 0x86DD, 0))
    of_version = np.where(byte(at) >> 4 == 6, 0x86DD, 0x0800)
    null, raw = np.isin(link, (0, 108)), np.isin(link, (12, 14, 101, 228, 229))
    which = [link == 1, link == 113, link == 276, null, raw]
    kind = np.select(which, [u16(at + 12), u16(at + 14), u16(at), of_family, of_version], -1)
    at = at + np.select(which, [14, 16, 20, 4, 0], 0)
    tags = np.zeros(len(at), np.int64)
    for _ in range(4):
        tagged = np.isin(kind, (0x8100, 0x88A8, 0x9100))
        if not tagged.any():
            break
        kind = np.where(tagged, u16(at + 2), kind)
        at = at + 4 * tagged
        tags += tagged
    return at, kind, tags


_AF_INET6 = (10, 23, 24, 28, 30)  # Linux, Windows, NetBSD, FreeBSD, macOS


def _gather(data: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """The `size` bytes at each offset; u8, shape (len(at), size)."""
    if not len(at):
        return np.empty((0, size), np.uint8)
    return sliding_window_view(data, size)[at]


def _is(addresses: np.ndarray, text: str) -> np.ndarray:
    """Which of the addresses (u8, shape (n, 16)) are the one written as `text`."""
    packed = ipaddress.ip_address(text).packed
    packed = _MAPPED + packed if len(packed) == 4 else packed
    return (addresses == np.frombuffer(packed, np.uint8)).all(axis=1)


def _undeliverable(
    source: np.ndarray, destination: np.ndarray, v4: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which datagrams the kernel drops for their source, and which for their destination.

    Broadcasts reach a socket bound to any address, and 0.0.0.0 may send them (as DHCP does).
    """
    from4 = (source[:, 12] & 0xF0 == 0xE0) | _is(source, "255.255.255.255")
    from4 |= _is(source, "0.0.0.0") & ~_is(destination, "255.255.255.255")
    to4 = _is(destination, "0.0.0.0")
    mapped = np.frombuffer(_MAPPED, np.uint8)
    from6 = (source[:, 0] == 0xFF) | (source[:, :12] == mapped).all(axis=1)
    to6 = _is(destination, "::") | (destination[:, :12] == mapped).all(axis=1)
    scope = destination[:, 1] & 15  # 0 is reserved, 1 never leaves an interface
    to6 |= (destination[:, 0] == 0xFF) & (scope < 2)
    return np.where(v4, from4, from6), np.where(v4, to4, to6)


def _replace_loopback(addresses: np.ndarray, v6: np.ndarray, four, six) -> np.ndarray:
    """Replaces 127/8 by `four`, `four` + 2 …, one each, and ::1 by `six`; returns which were."""
    looped6 = v6 & _is(addresses, "::1")
    addresses[looped6] = np.frombuffer(six.packed, np.uint8)
    looped4 = ~v6 & (addresses[:, 12] == 127)
    old, which = np.unique(addresses[looped4, 12:].copy().view(">u4").ravel(), return_inverse=True)
    fresh = (int(four) + 2 * (np.arange(len(old)) % 32000)).astype(">u4")
    addresses[looped4, 12:] = fresh[which].view(np.uint8).reshape(-1, 4)
    return looped4 | looped6


def _answers(source: np.ndarray, destination: np.ndarray, ports: np.ndarray) -> tuple[int, int]:
    """How many datagrams go back where earlier ones came from, and a port those were sent to.

    Addresses as in _dissect; ports u8, shape (n, 4): of the source, of the destination.
    """
    from_port, to_port = np.ascontiguousarray(ports).view(">u2").reshape(-1, 2).T
    if not np.isin(from_port, to_port).any():
        return 0, 0
    key = np.hstack((destination, ports[:, 2:], source, ports[:, :2]))
    answers, asked, seen = 0, 0, set()
    for flow, count in Counter(key.view("V36").ravel().tolist()).items():
        back = flow[18:] + flow[:18]
        if back in seen:
            answers, asked = answers + count, asked or int.from_bytes(back[16:18], "big")
        seen.add(flow)
    return answers, asked


def _ends(datagrams: _Datagrams) -> dict:
    """Endpoints, multicast groups, sources and the number of flows, as the plan lists them."""
    key = np.hstack((datagrams.destination, datagrams.ports[:, 2:], datagrams.source))
    key = np.hstack((key, datagrams.ports[:, :2]))
    flows = Counter(key.view("V36").ravel().tolist())
    endpoints: Counter[tuple] = Counter()
    for flow, count in flows.items():
        endpoints[_address(flow[:16]), int.from_bytes(flow[16:18], "big")] += count
    order = sorted(endpoints.items(), key=lambda e: (-e[1], e[0][0].version, e[0]))
    addresses = {address for address, _ in endpoints}
    return {
        "endpoints": [
            {"address": str(address), "port": port, "datagrams": count}
            for (address, port), count in order
        ],
        "groups": _texts({address for address in addresses if address.is_multicast}),
        "sources": _texts({_address(flow[18:34]) for flow in flows}),
        "flows": len(flows),
    }


def _address(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(packed[12:] if packed.startswith(_MAPPED) else packed)


def _texts(addresses: set) -> list[str]:
    return [str(address) for address in sorted(addresses, key=lambda a: (a.version, a))]


# ---- requests -----------------------------------------------------------------------------------


@dataclass
class _Requests:
    ids: np.ndarray  # u64, a request each
    counts: np.ndarray  # i64, requests of each datagram
    expected: np.ndarray  # EXPECTED, an answered request each
    rejected: dict[str, int]
    largest: int
    largest_reply: int


def _requests(data: bytes | mmap.mmap, datagrams: _Datagrams, parameters: dict) -> _Requests:
    """Frames every datagram and computes every reply."""
    schema, handler = parameters["schema"], parameters["handler"]
    capacity = parameters["slot_capacity"]
    frame, reply, reply_hash = reference.frame, reference.reply, xxh3_64_intdigest
    ids, counts, expected = array("Q"), array("q"), array("Q")
    rejected = dict.fromkeys(reference.REASONS, 0)
    largest = largest_reply = 0
    begin = datagrams.ip_at + datagrams.udp_at + 8
    end = begin + datagrams.udp_bytes - 8
    for a, b in zip(begin.tolist(), end.tolist(), strict=True):
        requests = frame(schema, data[a:b])
        counts.append(len(requests))
        for request in requests:
            ids.append(request.id)
            if len(request.raw) > largest:
                largest = len(request.raw)
            answer = reply(schema, handler, request, capacity)
            if isinstance(answer, str):
                rejected[answer] += 1
                continue
            if answer is None:
                expected.extend((request.id, ANY_REPLY))
                largest_reply = max(largest_reply, SLOT_CAPACITY)
                continue
            expected.extend((request.id, reply_hash(answer)))
            if len(answer) > largest_reply:
                largest_reply = len(answer)
    return _Requests(
        ids=np.array(ids, np.uint64),
        counts=np.array(counts, np.int64),
        expected=np.array(expected, np.uint64).view(EXPECTED),
        rejected=rejected,
        largest=largest,
        largest_reply=largest_reply,
    )


def _ambiguous(expected: np.ndarray, schema: str) -> int:
    """How many expected replies share what the sink knows them by with another one."""
    keys = expected["reply_hash"] if schema == "datagram" else expected["id"]
    _, counts = np.unique(keys, return_counts=True)
    return int(counts[counts > 1].sum())


# ---- rewriting ----------------------------------------------------------------------------------


def _rewrite(
    frames: _Frames, datagrams: _Datagrams, macs: list[bytes], changes: dict[str, int]
) -> Iterator[np.ndarray]:
    """The records of replay.pcap in chunks of bytes; adds to `changes` what it mends.

    Frames of one shape are the rows of one matrix, whatever their place in the capture.
    """
    data = np.frombuffer(frames.data, np.uint8)
    wanted = _macs(datagrams, *macs)
    ethernet = np.flatnonzero(frames.link[datagrams.frame] == 1)
    had = _gather(data, frames.start[datagrams.frame[ethernet]], 12)
    differ = had != wanted[ethernet]
    changes["destination_mac"] += int(differ[:, :6].any(axis=1).sum())
    changes["source_mac"] += int(differ[:, 6:].any(axis=1).sum())

    shape = (datagrams.ip_bytes << 33) + (datagrams.udp_at << 17) + (datagrams.udp_bytes << 1)
    shape += datagrams.v6 + (datagrams.tcp.astype(np.int64) << 50)
    at = datagrams.frame_at()
    begin = 0
    while begin < len(shape):
        end = max(begin + 1, int(np.searchsorted(at, at[begin] + _CHUNK_BYTES, "right")) - 1)
        chunk = np.empty(at[end] - at[begin], np.uint8)
        order = begin + np.argsort(shape[begin:end], kind="stable")
        for which in np.split(order, np.flatnonzero(np.diff(shape[order])) + 1):
            rows = _rows(data, datagrams, which, wanted)
            first = which[0]
            fixed = seal(
                rows,
                _IP_AT + int(datagrams.udp_at[first]),
                int(datagrams.udp_bytes[first]),
                bool(datagrams.v6[first]),
                tcp=bool(datagrams.tcp[first]),
            )
            changes["ip_checksum"] += fixed[0]
            changes["tcp_checksum" if datagrams.tcp[first] else "udp_checksum"] += fixed[1]
            place_rows(chunk, at[which] - at[begin], rows)
        yield chunk
        begin = end


def _macs(datagrams: _Datagrams, destination_mac: bytes, source_mac: bytes) -> np.ndarray:
    """Destination and source MAC of every datagram; u8, shape (n, 12)."""
    to, v6 = datagrams.destination, datagrams.v6
    macs = np.empty((len(to), 12), np.uint8)
    macs[:] = np.frombuffer(destination_mac + source_mac, np.uint8)
    group6 = v6 & (to[:, 0] == 0xFF)
    macs[group6, :2] = 0x33
    macs[group6, 2:6] = to[group6, 12:]
    group4 = ~v6 & (to[:, 12] & 0xF0 == 0xE0)
    macs[group4, :3] = (0x01, 0x00, 0x5E)
    macs[group4, 3:6] = to[group4, 13:] & (0x7F, 0xFF, 0xFF)
    macs[_is(to, "255.255.255.255") & ~v6, :6] = 0xFF
    return macs


def _rows(
    data: np.ndarray, datagrams: _Datagrams, which: np.ndarray, macs: np.ndarray
) -> np.ndarray:
    """Records of datagrams of one shape; u8, shape (len(which), record bytes)."""
    size, v6 = int(datagrams.ip_bytes[which[0]]), bool(datagrams.v6[which[0]])
    rows = np.empty((len(which), _IP_AT + size), np.uint8)
    rows[:, :_ETHERNET_AT] = record_headers(datagrams.stamp_ns[which], size + 14)
    rows[:, _ETHERNET_AT : _IP_AT - 2] = macs[which]
    rows[:, _IP_AT - 2 : _IP_AT] = (0x86, 0xDD) if v6 else (0x08, 0x00)
    rows[:, _IP_AT:] = _gather(data, datagrams.ip_at[which], size)
    if v6:
        rows[:, _IP_AT + 8 : _IP_AT + 24] = datagrams.source[which]
        rows[:, _IP_AT + 24 : _IP_AT + 40] = datagrams.destination[which]
    else:
        rows[:, _IP_AT + 12 : _IP_AT + 16] = datagrams.source[which, 12:]
        rows[:, _IP_AT + 16 : _IP_AT + 20] = datagrams.destination[which, 12:]
    return rows


def record_headers(stamp_ns: np.ndarray, frame_bytes: int) -> np.ndarray:
    """pcap record headers of frames of one size; u8, shape (n, 16)."""
    records = np.empty(len(stamp_ns), RECORD)
    records["s"], records["ns"] = np.divmod(stamp_ns, 1_000_000_000)
    records["captured"] = records["wire"] = frame_bytes
    return records.view(np.uint8).reshape(-1, RECORD.itemsize)


def place_rows(out: np.ndarray, at: np.ndarray, rows: np.ndarray) -> None:
    """Writes each row of a matrix to its offset in `out` (u8)."""
    sliding_window_view(out, rows.shape[1], writeable=True)[at] = rows


def seal(
    rows: np.ndarray,
    udp_at: int,
    udp_bytes: int,
    v6: bool = False,
    *,
    fill: bool = False,
    tcp: bool = False,
) -> tuple[int, int]:
    """Mends the checksums of records of one shape in place, where they are wrong.

    A zero UDP checksum over IPv4 means none and is right as it is, unless `fill` asks for one.
    `tcp`: it is TCP's. Returns how many IP and how many UDP or TCP checksums were mended.
    """
    addresses = rows[:, _IP_AT + 8 : _IP_AT + 40] if v6 else rows[:, _IP_AT + 12 : _IP_AT + 20]
    protocol, at = (6, udp_at + 16) if tcp else (17, udp_at + 6)
    total = _sum(rows[:, udp_at : udp_at + udp_bytes]) + _sum(addresses) + protocol + udp_bytes
    total = _fold(total)
    none = ((rows[:, at] | rows[:, at + 1]) == 0) & (not tcp)
    wrong = (total != 0xFFFF) | none if v6 or fill else (total != 0xFFFF) & ~none
    _mend(rows, at, total, wrong, zero=0 if tcp else 0xFFFF)
    if v6:
        return 0, int(wrong.sum())
    total = _fold(_sum(rows[:, _IP_AT : _IP_AT + (rows[0, _IP_AT] & 15) * 4]))
    _mend(rows, _IP_AT + 10, total, total != 0xFFFF, zero=0)
    return int((total != 0xFFFF).sum()), int(wrong.sum())


def _sum(rows: np.ndarray) -> np.ndarray:
    """Sum of the big-endian 16-bit words of each row, an odd last byte padded; u64."""
    even = rows.shape[1] & ~1
    total = rows[:, :even].view(">u2").sum(axis=1, dtype=np.uint64)
    if even < rows.shape[1]:
        total += rows[:, -1].astype(np.uint64) << np.uint64(8)
    return total


def _fold(total: np.ndarray) -> np.ndarray:
    for _ in range(3):
        total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    return total


def _mend(rows: np.ndarray, at: int, total: np.ndarray, wrong: np.ndarray, zero: int) -> None:
    """Replaces the checksum at column `at`; `total`: the sum with the one that stands there."""
    had = rows[wrong, at : at + 2].copy().view(">u2").ravel().astype(np.uint64)
    fresh = np.uint64(0xFFFF) ^ _fold(total[wrong] + (np.uint64(0xFFFF) ^ had))
    fresh[fresh == 0] = zero
    rows[wrong, at : at + 2] = fresh.astype(">u2").view(np.uint8).reshape(-1, 2)
