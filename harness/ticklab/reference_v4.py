# SPDX-License-Identifier: Apache-2.0
"""v4, Cap'n Proto by its encoding rules, for reference.py.

    struct Request { id @0 :UInt64; payload @1 :Data; }         in the stream framing

    u32 segments - 1, u32 words of each, filled up to 8 bytes; segments of words of 8 bytes. The
    first word is the pointer to the root:

    struct  bits 0-1: 0 | 2-31: offset from behind the pointer | 32-47: data words | 48-63: pointers
    list    bits 0-1: 1 | 2-31: offset | 32-34: element size (2: bytes) | 35-63: elements
    far     bits 0-1: 2 | 2: double | 3-31: word of the landing pad | 32-63: its segment

The landing pad holds the pointer itself; a double one a far pointer to the content, then a pointer
that says its size. At most 8 segments, and 65,528 bytes in all; the root is in the first segment.
"""

import struct

from xxhash import xxh3_64_intdigest

from ticklab.reference_base import Request, malformed, walk, walk_stream

SEGMENTS_MAX = 8
BYTES_MAX = 65528
_WORD = 8


def frame(datagram: bytes) -> list[Request]:
    """The messages of a datagram."""
    return walk(datagram, _first)


def stream(data: bytes) -> tuple[list[Request], bytes]:
    """The messages of a stream, and what may become one."""
    return walk_stream(data, _measure, BYTES_MAX, _first)


def answer(request: Request, payload: bytes) -> bytes:
    """The reply with this payload."""
    return encode(request.id, payload)


def encode(number: int, payload: bytes) -> bytes:
    """A message of one segment as the library's own writers make it."""
    padded = payload + bytes(-len(payload) % _WORD)
    root = struct.pack("<IHH", 0, 1, 1)
    pointer = struct.pack("<II", 1, len(payload) << 3 | 2)
    segment = root + struct.pack("<Q", number) + pointer + padded
    return struct.pack("<II", 0, len(segment) // _WORD) + segment


def _table(data: bytes) -> tuple[list[int], int]:
    """Words of each segment, and bytes of the table."""
    count = int.from_bytes(data[:4], "little") + 1
    table = -(-(4 + 4 * count) // _WORD) * _WORD
    return list(struct.unpack_from(f"<{count}I", data, 4)), table


def _measure(data: bytes) -> tuple[int, str | None]:
    """Bytes of the message; or those that show what is wrong with its table."""
    if len(data) < 4:
        return 0, "truncated"
    count = int.from_bytes(data[:4], "little") + 1
    if not count <= SEGMENTS_MAX:
        return 4, "bad_header"
    table = -(-(4 + 4 * count) // _WORD) * _WORD
    if len(data) < table:
        return 0, "truncated"
    size = table + _WORD * sum(_table(data)[0])
    return (table, "bad_length") if size > BYTES_MAX else (size, None)


def _first(data: bytes) -> Request:
    size, fault = _measure(data)
    if not fault and size > len(data):
        fault = "truncated"
    if fault:
        return malformed(data, lambda _: str(fault))
    raw = data[:size]
    words, at = _table(raw)
    segments = []
    for count in words:
        segments.append(raw[at : at + count * _WORD])
        at += count * _WORD
    try:
        number = _id(segments[0])
    except (ValueError, struct.error):
        return Request(xxh3_64_intdigest(raw), b"", raw, "bad_encoding")
    try:
        return Request(number, _payload(segments), raw, None)
    except (ValueError, struct.error):
        return Request(number, b"", raw, "bad_encoding")


def _root(segment: bytes) -> tuple[int, int, int]:
    """Where the root is (a word), its data words and pointers."""
    low, data, pointers = struct.unpack_from("<iHH", segment)
    if low & 3:
        raise ValueError("no struct")
    begin = 1 + (low >> 2)
    if data + pointers and not 0 <= begin <= len(segment) // _WORD - data - pointers:
        raise ValueError("outside of its segment")
    return begin, data, pointers


def _id(segment: bytes) -> int:
    begin, data, _ = _root(segment)
    return struct.unpack_from("<Q", segment, begin * _WORD)[0] if data else 0


def _payload(segments: list[bytes]) -> bytes:
    begin, data, pointers = _root(segments[0])
    if not pointers:
        return b""
    segment, place = segments[0], begin + data
    low, high = struct.unpack_from("<iI", segment, place * _WORD)
    if low == high == 0:
        return b""
    target = place + 1 + (low >> 2)
    if low & 3 == 2:
        unsigned, pad = low & 0xFFFFFFFF, (low & 0xFFFFFFFF) >> 3
        segment = _segment(segments, high, pad, 2 if unsigned & 4 else 1)
        low, high = struct.unpack_from("<iI", segment, pad * _WORD)
        target = pad + 1 + (low >> 2)
        if unsigned & 4:
            if low & 3 != 2:
                raise ValueError("no far pointer in a double landing pad")
            target = (low & 0xFFFFFFFF) >> 3
            place, segment_id = pad + 1, high
            low, high = struct.unpack_from("<iI", segment, place * _WORD)
            segment = _segment(segments, segment_id, 0, 0)
    if low & 3 != 1 or high & 7 != 2:
        raise ValueError("no bytes")
    size = high >> 3
    if size and not 0 <= target <= len(segment) // _WORD - -(-size // _WORD):
        raise ValueError("outside of its segment")
    return segment[target * _WORD : target * _WORD + size] if size else b""


def _segment(segments: list[bytes], number: int, word: int, words: int) -> bytes:
    # One without a word counts as none.
    there = number < len(segments) and segments[number]
    if not there or word + words > len(there) // _WORD:
        raise ValueError("a far pointer to nowhere")
    return segments[number]
