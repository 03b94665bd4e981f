# SPDX-License-Identifier: Apache-2.0
"""A prepared capture for a tap (rx.source = packet): what is to be found in its frames."""

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from xxhash import xxh3_64_intdigest

from ticklab import reference, streams

if TYPE_CHECKING:
    from ticklab import capture


def requests(
    frames: "capture._Frames", datagrams: "capture._Datagrams", parameters: dict, made: type
) -> tuple[Any, dict[str, int]]:
    """The requests of the replayed frames, as capture._requests has those of datagrams (`made`).

    Each belongs to the frame with which its last byte had come, and those behind gaps that stay
    open to the last frame. With them the counts of the streams.
    """
    schema, handler = parameters["schema"], parameters["handler"]
    capacity = parameters["slot_capacity"]
    ids, counts, expected = array("Q"), array("q"), array("Q")
    rejected = dict.fromkeys(reference.REASONS, 0)
    largest = largest_reply = 0
    tap = _Tap(frames, datagrams, parameters)
    for found in tap:
        counts.append(len(found))
        for request in found:
            ids.append(request.id)
            largest = max(largest, len(request.raw))
            answer = reference.reply(schema, handler, request, capacity)
            if isinstance(answer, str):
                rejected[answer] += 1
                continue
            expected.extend((request.id, xxh3_64_intdigest(answer)))
            largest_reply = max(largest_reply, len(answer))
    left = counts.pop()
    counts[-1] += left
    requests = made(
        ids=np.array(ids, np.uint64),
        counts=np.array(counts, np.int64),
        expected=np.array(expected, np.uint64).view([("id", "<u8"), ("reply_hash", "<u8")]),
        rejected=rejected,
        largest=largest,
        largest_reply=largest_reply,
    )
    return requests, tap.counts()


class _Tap:
    """Goes through frames as rx does: the requests of each, at the end those of what is left."""

    def __init__(
        self, frames: "capture._Frames", datagrams: "capture._Datagrams", parameters: dict
    ) -> None:
        self.frames, self.datagrams = frames, datagrams
        self.schema = parameters["schema"]
        limits = parameters["tap"]
        self.buffer_bytes = limits["buffer_bytes"]
        self.reassembly = streams.Reassembly(limits["reorder_bytes"], limits["flows"])
        self.framers: dict[int, tuple[streams.Stream, streams.Framer]] = {}
        self.taken: dict[int, int] = {}  # pieces of each stream

    def __iter__(self) -> Iterator[list[reference.Request]]:
        segments = iter(streams.segments(self.frames, self.datagrams.frame[self.datagrams.tcp]))
        data, columns, last = self.frames.data, self.datagrams, None
        begin = columns.ip_at + columns.udp_at + 8
        end = begin + columns.udp_bytes - 8
        for i, tcp in enumerate(columns.tcp.tolist()):
            if not tcp:
                yield reference.frame(self.schema, data[begin[i] : end[i]])
                continue
            last = next(segments)
            before = self.reassembly.flows.get(last.key)
            stream = self.reassembly.take(last)
            found = self._fresh(before.stream) if before else []
            yield found + (self._fresh(stream) if stream else [])
        left = list(self.reassembly.flows.values())
        self.reassembly.finish(last)
        yield [request for flow in left for request in self._fresh(flow.stream)]

    def counts(self) -> dict[str, int]:
        skipped = sum(framer.skipped for _, framer in self.framers.values())
        return vars(self.reassembly.counts) | {"skipped": skipped}

    def _fresh(self, stream: streams.Stream) -> list[reference.Request]:
        """Requests in the pieces that a stream has got since the last time."""
        known = self.framers.get(id(stream))
        if not known:
            framer = streams.Framer(self.schema, stream.whole, self.buffer_bytes)
            known = self.framers[id(stream)] = stream, framer
        taken = self.taken.get(id(stream), 0)
        self.taken[id(stream)] = len(stream.pieces)
        return [
            request
            for piece in stream.pieces[taken:]
            for request in known[1].take(bytes(stream.data[piece.begin : piece.end]), piece.gap)
        ]


_IP_AT = 16 + 14  # behind the header of the record and Ethernet's


def endings(records: bytes) -> list[bytes]:
    """An RST for each TCP flow in the records of a prepared capture, as records that follow them.

    So what is played before a measured phase leaves nothing behind in a tap.
    """
    flows: dict[bytes, bytes] = {}
    at = 0
    while at < len(records):
        size = 16 + int.from_bytes(records[at + 8 : at + 12], "little")
        record = records[at : at + size]
        at += size
        v6 = record[_IP_AT - 2 : _IP_AT] == b"\x86\xdd"
        tcp_at = _IP_AT + (40 if v6 else (record[_IP_AT] & 15) * 4)
        if record[_IP_AT + (6 if v6 else 9)] == 6:
            ends = record[_IP_AT + 8 : _IP_AT + 40] if v6 else record[_IP_AT + 12 : _IP_AT + 20]
            flows[ends + record[tcp_at : tcp_at + 4]] = record
    return [_reset(record) for record in flows.values()]


def _reset(record: bytes) -> bytes:
    """An RST of the flow of this record, at its time."""
    from ticklab import capture

    v6 = record[_IP_AT - 2 : _IP_AT] == b"\x86\xdd"
    ip_bytes = 40 if v6 else 20
    tcp_at = _IP_AT + (40 if v6 else (record[_IP_AT] & 15) * 4)
    rows = np.zeros((1, _IP_AT + ip_bytes + 20), np.uint8)
    reset = memoryview(rows[0])
    reset[:8] = record[:8]
    reset[8:12] = reset[12:16] = (14 + ip_bytes + 20).to_bytes(4, "little")
    reset[16 : _IP_AT + ip_bytes] = record[16 : _IP_AT + ip_bytes]
    if v6:
        reset[_IP_AT + 4 : _IP_AT + 6] = (20).to_bytes(2, "big")
    else:
        reset[_IP_AT] = 0x45
        reset[_IP_AT + 2 : _IP_AT + 4] = (40).to_bytes(2, "big")
    reset[_IP_AT + ip_bytes : _IP_AT + ip_bytes + 12] = record[tcp_at : tcp_at + 12]
    reset[_IP_AT + ip_bytes + 12] = 0x50
    reset[_IP_AT + ip_bytes + 13] = streams.RST
    capture.seal(rows, _IP_AT + ip_bytes, 20, v6, tcp=True)
    return rows.tobytes()
