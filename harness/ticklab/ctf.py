# SPDX-License-Identifier: Apache-2.0
"""Reads a trace, CTF 1.8 as the tracer writes it, a column at a time.

A stream file is a sequence of packets, the first of them empty. A packet begins with a page of its
own, header and context, and its events follow:

    event         0  8  tsc        8  2  id       10  2  argument      12  4  request, low 32 bits
    wide event   16  8  value     24  8  extra    (where the id has the bit WIDE)

So a packet's payload is a row of 16-byte units, of which some are the second half of a wide event.
Each packet's events are verified by their CRC32C where the module crc32c is installed. Without it
they are not: by a table in Python a run would take minutes.

The metadata is read as far as the tracer varies it: clock, env, uuid, names and ids of events.
"""

import dataclasses
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

try:
    from crc32c import crc32c
except ImportError:
    crc32c = None

MAGIC = 0xC1FC1FC1
PAGE_BYTES = 4096
UNIT_BYTES = 16
WIDE = 0x8000
UNIT = np.dtype([("tsc", "<u8"), ("point", "<u2"), ("argument", "<u2"), ("request", "<u4")])
TABLE = np.dtype(
    [
        ("tsc", "<u8"),
        ("point", "<u2"),
        ("argument", "<u2"),
        ("request", "<u8"),
        ("value", "<u8"),
        ("extra", "<u8"),
    ]
)
# magic, uuid, stream_id | begin, end, content and packet size in bits, sequence number, discarded |
# cpu, generation, high bits, checksum
_HEADER = struct.Struct("<I16sI6Q4I")


class TraceError(Exception):
    """A trace that is not as the tracer writes it; the message names file and byte offset."""


@dataclass(frozen=True)
class Metadata:
    """What the TSDL text states: `events` maps id to name; ticks 0 is `offset_ns` of REALTIME."""

    uuid: bytes
    tsc_hz: int
    offset_ns: int
    events: dict[int, str]
    env: dict[str, str | int]


@dataclass(frozen=True)
class Lane:
    """The records of one process, in order.

    `units` is UNIT, shape (records,). `wide` are the positions of the wide records; `value` and
    `extra` are theirs, shape (wide,). `packets` has a row (first record, generation, high bits of
    the request, cpu) for each packet. `discarded` is the count the lane itself gives,
    `lost_packets` what its packet numbers skip.
    """

    name: str
    units: np.ndarray
    wide: np.ndarray
    value: np.ndarray
    extra: np.ndarray
    packets: np.ndarray
    discarded: int
    lost_packets: int

    def __len__(self) -> int:
        return len(self.units)

    @property
    def tsc(self) -> np.ndarray:
        return self.units["tsc"]

    @property
    def point(self) -> np.ndarray:
        return self.units["point"]

    @property
    def argument(self) -> np.ndarray:
        return self.units["argument"]

    @cached_property
    def request(self) -> np.ndarray:
        """Whole request numbers, uint64."""
        low = self.units["request"].astype(np.uint64)
        high = self.packets[:, 2].astype(np.uint64) << np.uint64(32)
        if high.any():
            low += np.repeat(high, np.diff(self.packets[:, 0], append=len(self)))
        return low

    def generations(self) -> list[tuple[int, slice]]:
        """Stretches of records written by one generation of the process, in order."""
        first, generation = self.packets[:, 0], self.packets[:, 1]
        cuts = np.flatnonzero(np.diff(generation)) + 1
        bounds = [0, *first[cuts].tolist(), len(self)]
        names = generation[[0, *cuts]].tolist() if len(generation) else []
        return [(name, slice(*bounds[i : i + 2])) for i, name in enumerate(names)]

    def table(self) -> np.ndarray:
        """TABLE, shape (records,); value and extra are 0 in records that are not wide."""
        table = np.zeros(len(self), TABLE)
        for name in ("tsc", "point", "argument"):
            table[name] = self.units[name]
        table["request"] = self.request
        table["value"][self.wide] = self.value
        table["extra"][self.wide] = self.extra
        return table


class Trace:
    """A trace directory: its `metadata` and `lanes` by name. Raises TraceError.

    A lane is one file, or with a bounded history a row of chunks `NAME.NNNNNN`.
    """

    def __init__(self, directory: str | Path):
        directory = Path(directory)
        self.metadata = read_metadata(directory / "metadata")
        parts: dict[str, list[Lane]] = {}
        for path in sorted(directory.iterdir()):
            if path.name != "metadata" and path.is_file():
                name = path.name.partition(".")[0]
                parts.setdefault(name, []).append(read_lane(path, self.metadata.uuid))
        self.lanes = {name: joined(name, lanes) for name, lanes in parts.items()}

    @property
    def records(self) -> int:
        return sum(map(len, self.lanes.values()))


def joined(name: str, parts: list[Lane]) -> Lane:
    """One lane of its chunks, in order."""
    if len(parts) == 1:
        return dataclasses.replace(parts[0], name=name)
    begins = np.cumsum([0] + [len(part) for part in parts[:-1]])
    moved = [np.array([begin, 0, 0, 0]) for begin in begins]
    packets = [part.packets + by for by, part in zip(moved, parts, strict=True)]
    wide = [part.wide + begin for begin, part in zip(begins, parts, strict=True)]
    return Lane(
        name,
        np.concatenate([part.units for part in parts]),
        np.concatenate(wide),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.extra for part in parts]),
        np.concatenate(packets),
        parts[-1].discarded,
        sum(part.lost_packets for part in parts),
    )


def read_metadata(path: Path) -> Metadata:
    """The TSDL text at `path`. Raises TraceError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: {error}") from None
    if not text.startswith("/* CTF 1.8"):
        raise TraceError(f"{path}: 0: expected `/* CTF 1.8 */`")
    clock, trace = _block(path, text, "clock"), _block(path, text, "trace")
    events = {}
    for event in re.split(r"\bevent\s*\{", text)[1:]:
        events[_number(path, event, "id")] = _field(path, event, "name")
    env = re.findall(r'\b(\w+)\s*=\s*(?:"(.*?)"|(-?\d+))\s*;', _block(path, text, "env"))
    uuid = _field(path, trace, "uuid").replace("-", "")
    if not re.fullmatch(r"[0-9a-fA-F]{32}", uuid):
        raise TraceError(f"{path}: uuid {uuid!r}: expected 32 hexadecimal digits")
    tsc_hz = _number(path, clock, "freq")
    if tsc_hz == 0:
        raise TraceError(f"{path}: freq 0: expected the ticks of a second")
    offset_ns = _number(path, clock, "offset_s") * 1_000_000_000
    return Metadata(
        uuid=bytes.fromhex(uuid),
        tsc_hz=tsc_hz,
        offset_ns=offset_ns + _number(path, clock, "offset") * 1_000_000_000 // tsc_hz,
        events=events,
        env={key: int(number[:20]) if number else value for key, value, number in env},
    )


def _block(path: Path, text: str, name: str) -> str:
    """What stands between the braces of `name { … }` at the top level."""
    found = re.search(rf"^{name}\s*\{{", text, re.M)
    if not found:
        raise TraceError(f"{path}: no `{name} {{ … }}`")
    depth = 1
    for brace in re.finditer(r'"[^"]*"|[{}]', text[found.end() :]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[found.end() : found.end() + brace.start()]
    raise TraceError(f"{path}: `{name} {{` is not closed")


def _field(path: Path, block: str, name: str) -> str:
    found = re.search(rf'\b{name}\s*=\s*"?([^";]*)"?\s*;', block)
    if not found:
        raise TraceError(f"{path}: no `{name}` where one is expected")
    return found[1].strip()


def _number(path: Path, block: str, name: str) -> int:
    text = _field(path, block, name)
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise TraceError(f"{path}: {name} {text[:40]!r}: expected a whole number")
    return int(text)


def read_lane(path: Path, uuid: bytes) -> Lane:
    """The stream file at `path` of the trace `uuid`. Raises TraceError."""
    if path.stat().st_size == 0:
        raise TraceError(f"{path}: 0: an empty file: expected a packet of {PAGE_BYTES} bytes")
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    payloads, offsets, rows = [], [], []
    at, sequence, discarded, lost = 0, -1, 0, 0
    while at < len(data):
        header = _read_header(path, data, at, uuid)
        _, _, content_bytes, packet_bytes, number, lost_events, cpu, generation, high = header[:-1]
        _verify(path, data, at, content_bytes, header[-1])
        if number <= sequence:
            raise TraceError(f"{path}: {at + 56}: packet {number} follows packet {sequence}")
        if lost_events < discarded:
            raise TraceError(
                f"{path}: {at + 64}: discarded runs back from {discarded} to {lost_events}"
            )
        # A lane that keeps its end alone begins anywhere.
        lost += number - sequence - 1 if rows else 0
        sequence, discarded = number, lost_events
        payloads.append(data[at + PAGE_BYTES : at + content_bytes].view(UNIT))
        offsets.append(at)
        rows.append((generation, high, cpu))
        at += packet_bytes
    units = np.concatenate(payloads)
    sizes = np.array([len(payload) for payload in payloads], np.int64)
    starts = np.cumsum(sizes) - sizes
    headers, torn = split_wide(units["point"], starts)
    if torn is not None:
        packet = int(np.searchsorted(starts, torn, "right")) - 1
        where = offsets[packet] + PAGE_BYTES + UNIT_BYTES * (torn - int(starts[packet]))
        raise TraceError(f"{path}: {where}: the packet ends inside a wide record")
    words = units.view("<u8").reshape(-1, 2)[headers + 1]
    first = starts
    wide = headers
    if len(headers):
        keep = np.ones(len(units), bool)
        keep[headers + 1] = False
        units = units[keep]
        first = starts - np.searchsorted(headers, starts)
        wide = headers - np.arange(len(headers))
    packets = np.column_stack((first, np.array(rows, np.int64)))
    return Lane(path.name, units, wide, words[:, 0], words[:, 1], packets, discarded, lost)


def _read_header(path: Path, data: np.ndarray, at: int, uuid: bytes) -> tuple[int, ...]:
    """begin, end, content, packet bytes, sequence, discarded, cpu, generation, high bits, CRC."""
    if len(data) - at < PAGE_BYTES:
        raise TraceError(
            f"{path}: {at}: {len(data) - at} bytes: expected a packet's page of {PAGE_BYTES}"
        )
    magic, its_uuid, stream, begin, end, content, size, *rest = _HEADER.unpack_from(data, at)
    if magic != MAGIC:
        raise TraceError(f"{path}: {at}: magic {magic:#x}: expected {MAGIC:#x}")
    if its_uuid != uuid:
        raise TraceError(f"{path}: {at + 4}: a packet of another trace: uuid {its_uuid.hex()}")
    if stream != 0:
        raise TraceError(f"{path}: {at + 20}: stream_id {stream}: expected 0")
    if end < begin:
        raise TraceError(f"{path}: {at + 24}: the packet ends before it begins")
    if size % 8 or size // 8 < PAGE_BYTES or at + size // 8 > len(data):
        raise TraceError(
            f"{path}: {at + 48}: packet_size {size} bits: expected whole bytes, at least a page, "
            f"and no more than the file has ({len(data) - at} bytes)"
        )
    if (
        content > size
        or content // 8 < PAGE_BYTES
        or (content // 8 - PAGE_BYTES) % UNIT_BYTES
        or content % 8
    ):
        raise TraceError(
            f"{path}: {at + 40}: content_size {content} bits: expected a page and whole records"
        )
    return (begin, end, content // 8, size // 8, *rest)


def _verify(path: Path, data: np.ndarray, at: int, content_bytes: int, checksum: int) -> None:
    """The events of the packet at `at` are those that were written."""
    if crc32c is None:
        return
    found = crc32c(data[at + PAGE_BYTES : at + content_bytes])
    if found != checksum:
        raise TraceError(
            f"{path}: {at + 84}: checksum {checksum:#010x}: the events that follow have "
            f"{found:#010x}; `tickline salvage RUN` keeps the packets that are whole"
        )


def split_wide(point: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Which units begin a wide record.

    `point` is the id word of every unit, shape (units,), `starts` the first unit of every packet.
    The second half of a wide record holds any bytes, so its id word may look wide too. But the unit
    before a run of units that look wide begins no wide record, so the run begins with one, and from
    there first and second halves alternate.

    Returns the positions of the first halves, and the position of one whose second half is missing
    in its packet (None: there is no such).
    """
    candidates = np.flatnonzero(point >= WIDE)
    if not len(candidates):
        return candidates, None
    boundary = np.zeros(len(point) + 1, bool)
    boundary[starts] = True
    boundary[len(point)] = True
    begins = np.diff(candidates, prepend=-2) != 1
    run = np.maximum.accumulate(np.where(begins, candidates, 0))
    headers = candidates[(candidates - run) % 2 == 0]
    torn = headers[boundary[headers + 1]]
    return headers, int(torn[0]) if len(torn) else None
