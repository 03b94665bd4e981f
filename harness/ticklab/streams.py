# SPDX-License-Identifier: Apache-2.0
"""The TCP streams in a capture: bytes in order, with the time at which each had come, and requests.

By the rules of rx/reassembly.h, written a second time: what a tap is to find in a capture is
computed here, and a difference between the two shows as a wrong account.

A *flow* is one direction of a connection. Of its bytes the first to come count; a segment behind a
gap is held while it ends at most `reorder_bytes` behind the gap, and while what is held stands in
at most RANGES_MAX pieces. One segment more, and the gap is given up: counted, and the flow goes on
behind it. An RST ends a stream at once, a FIN once all before it has come; what comes again of one
that has ended is told by its numbers. A SYN with another number begins a new stream, and so does
any segment behind a FIN. What is still held at the end of a capture is delivered then.

Requests are sought where the beginning of one is not known (a capture that begins within a
connection, a gap, a request that does not frame): in FIX at any byte, else at the next piece, a
segment or what was held together, that begins with a whole request.

    for connection in connections("session.pcap"):
        for stream in connection.sides:
            for found in requests(stream, "fix"):
                found.request, found.stamp_ns
"""

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ticklab import reference

RANGES_MAX = 16
FIN, SYN, RST = 1, 2, 4


class Endpoint(NamedTuple):
    """An address and a port."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def __str__(self) -> str:
        v6 = self.address.version == 6
        return f"[{self.address}]:{self.port}" if v6 else f"{self.address}:{self.port}"


class Key(NamedTuple):
    """A flow: addresses as in the packet, and ports."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int

    @property
    def back(self) -> "Key":
        return Key(self.destination, self.destination_port, self.source, self.source_port)

    @property
    def ends(self) -> tuple[Endpoint, Endpoint]:
        return (
            Endpoint(ipaddress.ip_address(self.source), self.source_port),
            Endpoint(ipaddress.ip_address(self.destination), self.destination_port),
        )


class Segment(NamedTuple):
    """A TCP segment of a capture; `frame` counts frames from 0."""

    frame: int
    stamp_ns: int
    key: Key
    sequence: int
    flags: int
    data: bytes


class Piece(NamedTuple):
    """Bytes of a stream that became deliverable together: data[begin:end], by that frame."""

    begin: int
    end: int
    stamp_ns: int
    frame: int
    gap: int  # bytes missing in front of it


@dataclass
class Counts:
    """What happened in the streams; bytes but where the name says otherwise."""

    segments: int = 0
    out_of_order: int = 0  # segments held behind a gap
    retransmitted: int = 0
    differing: int = 0  # of those, as far as the first ones were still held
    gaps: int = 0  # how many
    gap: int = 0
    streams: int = 0  # how many
    evicted: int = 0  # streams put out for others


@dataclass
class Stream:
    """One direction of a connection, from its SYN or the first segment with data."""

    source: Endpoint
    destination: Endpoint
    whole: bool  # begins with a SYN
    opened_ns: int
    data: bytearray = field(default_factory=bytearray)
    pieces: list[Piece] = field(default_factory=list)
    end: str | None = None  # "fin", "rst", "new", "evicted"; None: as long as the capture
    closed_ns: int | None = None


@dataclass
class Connection:
    """Both directions of a connection; first that of who opened it, else of who spoke first."""

    sides: tuple[Stream, Stream]

    @property
    def opened_ns(self) -> int:
        return min(side.opened_ns for side in self.sides)


class Found(NamedTuple):
    """A request of a stream and when its last byte had come."""

    request: reference.Request
    stamp_ns: int
    frame: int


class Flow:
    """Puts the segments of one direction in order. Positions count from the sequence number 0."""

    def __init__(self, key: Key, first: Segment) -> None:
        self.key = key
        self.touched = 0  # when a segment last changed it
        self.missing = 0  # bytes of gaps given up since the last piece
        self._begin(first)

    def _begin(self, first: Segment) -> None:
        whole = bool(first.flags & SYN)
        self.initial = (first.sequence + whole) & 0xFFFFFFFF
        self.next = self.initial
        self.fin: int | None = None
        self.held: list[tuple[int, bytearray]] = []  # (position, bytes), apart, in order
        self.stream = Stream(*self.key.ends, whole, first.stamp_ns)

    @property
    def ended(self) -> bool:
        return self.fin == self.next

    def is_new(self, segment: Segment) -> bool:
        """Does the segment belong to another connection, one with the same ends?"""
        syn = bool(segment.flags & SYN)
        if not self.ended:
            return syn and (segment.sequence + 1) & 0xFFFFFFFF != self.initial
        at = self._position(segment.sequence)
        return syn or at < self.initial or at + len(segment.data) > self.next

    def _position(self, sequence: int) -> int:
        """The one next to `self.next` that has this sequence number."""
        ahead = (sequence - self.next) & 0xFFFFFFFF
        return self.next + (ahead - (1 << 32) if ahead >> 31 else ahead)

    def take(self, segment: Segment, counts: Counts, reorder_bytes: int) -> None:
        """A segment with data, SYN or FIN; the stream gets what is in order now."""
        data = segment.data
        at = self._position(segment.sequence + bool(segment.flags & SYN))
        if segment.flags & FIN:
            self.fin = at + len(data)
        if not data:
            return
        while at > self.next:
            if at + len(data) - self.next <= reorder_bytes and self._holds(at, data, counts):
                counts.out_of_order += 1
                return
            self.give_up(segment, counts, at)
        if at < self.next:
            old = min(self.next - at, len(data))
            counts.retransmitted += old
            data, at = data[old:], at + old
        while data:  # up to the next held piece, which came first, then that
            room = self.held[0][0] - self.next if self.held else len(data)
            self._deliver(segment, data[:room])
            data = data[room:]
            if not self.held or self.held[0][0] > self.next:
                break
            _, piece = self.held.pop(0)
            self._compare(piece[: len(data)], data[: len(piece)], counts)
            data = data[len(piece) :]
            self._deliver(segment, piece)

    def give_up(self, segment: Segment, counts: Counts, at: int | None = None) -> None:
        """Goes on at the first held piece, or at `at` where that comes first."""
        held = self.held[0][0] if self.held else None
        to = min(place for place in (held, at) if place is not None)
        counts.gaps += 1
        counts.gap += to - self.next
        self.missing += to - self.next
        self.next = to
        if to == held:
            self._deliver(segment, self.held.pop(0)[1])

    def flush(self, segment: Segment, counts: Counts) -> None:
        while self.held:
            self.give_up(segment, counts)

    def _deliver(self, segment: Segment, data: bytes | bytearray) -> None:
        if not data:
            return
        begin, stream = len(stream_data := self.stream.data), self.stream
        stream_data += data
        stream.pieces.append(
            Piece(begin, len(stream_data), segment.stamp_ns, segment.frame, self.missing)
        )
        self.missing = 0
        self.next += len(data)

    def _holds(self, at: int, data: bytes, counts: Counts) -> bool:
        """Adds what is new of a segment to what is held; False where it has no room there."""
        end = at + len(data)
        # Those it overlaps or touches become one with it.
        first = last = 0
        for place, piece in self.held:
            first += place + len(piece) < at
            last += place <= end
        if first == last and len(self.held) == RANGES_MAX:
            return False
        merged_at, merged = at, bytearray(data)
        for place, piece in self.held[first:last]:
            low, high = max(place, at), min(place + len(piece), end)
            if low < high:
                self._compare(piece[low - place : high - place], data[low - at : high - at], counts)
            if place < merged_at:
                merged[:0] = piece[: merged_at - place]
                merged_at = place
            begin = place - merged_at
            merged[begin : begin + len(piece)] = piece
        self.held[first:last] = [(merged_at, merged)]
        return True

    @staticmethod
    def _compare(held: bytes | bytearray, again: bytes, counts: Counts) -> None:
        counts.retransmitted += len(again)
        if held != again:
            counts.differing += sum(a != b for a, b in zip(held, again, strict=True))


class Reassembly:
    """The streams of a sequence of segments, each finished one in `done`.

    Parameters
    ----------
    reorder_bytes : how far behind a gap a segment may end and be waited for (rx.reorder).
    flows_max : flows at once (rx.connections); one more takes the place of the one longest unused.
    """

    def __init__(self, reorder_bytes: int = 65536, flows_max: int = 1 << 30) -> None:
        self.reorder_bytes, self.flows_max = reorder_bytes, flows_max
        self.counts = Counts()
        self.flows: dict[Key, Flow] = {}
        self.done: list[Stream] = []
        self.steps = 0

    def take(self, segment: Segment) -> Stream | None:
        """The stream that the segment belongs to, unless it says nothing of one."""
        counts, flags = self.counts, segment.flags & (FIN | SYN | RST)
        counts.segments += 1
        flow = self.flows.get(segment.key)
        if not segment.data and not flags:
            return flow.stream if flow else None
        if flow and (flags & RST or flow.is_new(segment)):
            flow.flush(segment, counts)
            self._end(flow, "rst" if flags & RST else "new", segment)
            flow = None
        if flags & RST or not (flow or segment.data or flags & SYN):
            return None
        flow = flow or self._open(segment)
        self.steps += 1
        flow.touched = self.steps
        flow.take(segment, counts, self.reorder_bytes)
        if flow.ended and not flow.stream.end:
            flow.stream.end, flow.stream.closed_ns = "fin", segment.stamp_ns
        return flow.stream

    def finish(self, last: Segment | None = None) -> list[Stream]:
        """What is held becomes deliverable, by `last`; all streams."""
        for flow in list(self.flows.values()):
            if last:
                flow.flush(last, self.counts)
            self.done.append(flow.stream)
        self.flows.clear()
        return self.done

    def _open(self, segment: Segment) -> Flow:
        if len(self.flows) >= self.flows_max:
            oldest = min(self.flows.values(), key=lambda flow: (not flow.ended, flow.touched))
            self.counts.evicted += not oldest.ended
            self._end(oldest, "evicted", segment)
        flow = self.flows[segment.key] = Flow(segment.key, segment)
        self.counts.streams += 1
        return flow

    def _end(self, flow: Flow, how: str, segment: Segment) -> None:
        if not flow.stream.end:
            flow.stream.end, flow.stream.closed_ns = how, segment.stamp_ns
        self.done.append(flow.stream)
        del self.flows[flow.key]


class Framer:
    """Finds the requests in one stream as its pieces come.

    Parameters
    ----------
    buffer_bytes : what is kept of a request that has not come whole (rx.connection_buffer).
    """

    def __init__(self, schema: str, whole: bool, buffer_bytes: int = 65536) -> None:
        self.schema, self.buffer_bytes = schema, buffer_bytes
        self.seeking = not whole
        self.pending = b""
        self.skipped = 0  # bytes that belong to no request

    def take(self, data: bytes, gap: int = 0) -> list[reference.Request]:
        if gap:
            self._lose(len(self.pending))
        found: list[reference.Request] = []
        while data:
            if self.seeking and self.schema not in reference.RESYNCS and not self._begins(data):
                self._lose(len(data))
                return found
            # A request comes together in the buffer; where none has begun, the data stand alone.
            room = self.buffer_bytes - len(self.pending) if self.pending else len(data)
            found += self._frame(self.pending + data[:room])
            data = data[room:]
            if len(self.pending) >= self.buffer_bytes:
                self._lose(len(self.pending))
        return found

    def _begins(self, data: bytes) -> bool:
        requests, _ = reference.frame_stream(self.schema, data)
        return bool(requests) and requests[0].framed

    def _frame(self, data: bytes) -> list[reference.Request]:
        requests, self.pending = reference.frame_stream(self.schema, data)
        found = []
        for request in requests:
            if self.seeking and not request.framed:
                self.skipped += len(request.raw)
                continue
            self.seeking = not request.framed and self.schema not in reference.RESYNCS
            found.append(request)
        if self.seeking and self.schema not in reference.RESYNCS:  # it broke here
            self._lose(len(self.pending))
        return found

    def _lose(self, size: int) -> None:
        self.skipped += size
        self.pending, self.seeking = b"", True


def requests(stream: Stream, schema: str, buffer_bytes: int = 65536) -> list[Found]:
    """The requests of a stream, each with the capture time of the segment that completed it."""
    framer = Framer(schema, stream.whole, buffer_bytes)
    return [
        Found(request, piece.stamp_ns, piece.frame)
        for piece in stream.pieces
        for request in framer.take(bytes(stream.data[piece.begin : piece.end]), piece.gap)
    ]


def connections(path: str | Path, reorder_bytes: int = 65536) -> list[Connection]:
    """The TCP connections of a capture file, in the order of their beginning."""
    from ticklab import capture

    reassembly, last = Reassembly(reorder_bytes), None
    for last in segments(capture._read(Path(path))):
        reassembly.take(last)
    return pair(reassembly.finish(last))


def pair(streams: Iterable[Stream]) -> list[Connection]:
    """Streams as connections: each with the first one after it that goes the other way."""
    waiting: dict[tuple[Endpoint, Endpoint], list[Stream]] = {}
    made: list[Connection] = []
    for stream in sorted(streams, key=lambda stream: stream.opened_ns):
        others = waiting.get((stream.destination, stream.source))
        if others:
            made.append(Connection((others.pop(0), stream)))
        else:
            waiting.setdefault((stream.source, stream.destination), []).append(stream)
    for (source, destination), alone in waiting.items():
        for stream in alone:
            silent = Stream(destination, source, stream.whole, stream.opened_ns)
            made.append(Connection((stream, silent)))
    return sorted(made, key=lambda connection: connection.opened_ns)


def segments(frames, which: np.ndarray | None = None) -> Iterator[Segment]:
    """The TCP segments among the frames of a capture (capture._Frames), whole ones alone.

    `which`: indices of the frames to look at; None: all.
    """
    from ticklab import capture

    column = np.frombuffer(frames.data, np.uint8)

    def byte(at: np.ndarray) -> np.ndarray:
        return column[np.minimum(at, len(column) - 1)].astype(np.int64)

    at, kind, _ = capture._network_layer(frames, byte, lambda at: byte(at) << 8 | byte(at + 1))
    end = frames.start + frames.captured
    wanted = np.isin(kind, (0x0800, 0x86DD)) & (at < end)
    order = np.flatnonzero(wanted) if which is None else which[wanted[which]]
    for frame in order.tolist():
        packet = frames.data[at[frame] : end[frame]]
        found = _segment(packet, frame, int(frames.stamp_ns[frame]))
        if found:
            yield found


_tcp = struct.Struct(">HHIIBB").unpack_from


def _segment(packet: bytes, frame: int, stamp_ns: int) -> Segment | None:
    """The TCP segment in an IP packet; None where there is none, or not all of it."""
    if len(packet) < 40:
        return None
    if packet[0] >> 4 == 4:
        at, size, protocol = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big"), packet[9]
        source, destination = packet[12:16], packet[16:20]
        if at < 20 or (packet[6] & 0x3F) | packet[7]:
            return None
    elif packet[0] >> 4 == 6:
        at, size, protocol = 40, 40 + int.from_bytes(packet[4:6], "big"), packet[6]
        source, destination = packet[8:24], packet[24:40]
        while protocol in (0, 43, 44, 60) and at + 8 <= len(packet):
            if protocol == 44 and int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF9:
                return None
            more = 0 if protocol == 44 else packet[at + 1]
            protocol, at = packet[at], at + (more + 1) * 8
    else:
        return None
    if protocol != 6 or size > len(packet) or at + 20 > size:
        return None
    source_port, destination_port, sequence, _, offset, flags = _tcp(packet, at)
    data_at = at + (offset >> 4) * 4
    if offset < 0x50 or data_at > size:
        return None
    key = Key(source, source_port, destination, destination_port)
    return Segment(frame, stamp_ns, key, sequence, flags, bytes(packet[data_at:size]))
