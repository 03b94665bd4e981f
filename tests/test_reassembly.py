# SPDX-License-Identifier: Apache-2.0
"""TCP streams of a capture, put together again in Python, against what was said."""

import random

import pytest

from ticklab import streams
from ticklab.streams import FIN, RST, SYN, Framer, Key, Reassembly, Segment, Stream

KEY = Key(b"\x0a\0\0\1", 1000, b"\x0a\0\0\2", 2000)


def said(count: int, dice: random.Random) -> bytes:
    payloads = (dice.randbytes(dice.randrange(80)) for _ in range(count))
    return b"".join(b"|%08d|%04d|%b" % (i, len(p), p) for i, p in enumerate(payloads, 1))


def segment(at: int, first: int, data: bytes, flags: int = 0, key: Key = KEY) -> Segment:
    """The `at`-th one of a capture, a microsecond each."""
    return Segment(at, at * 1000, key, first & 0xFFFFFFFF, flags, data)


def cut(data: bytes, first: int, dice: random.Random) -> list[tuple[int, bytes]]:
    """Sequence number and bytes of segments; some again, some over more than one."""
    pieces, at = [], 0
    while at < len(data):
        size = dice.randrange(1, 300)
        pieces.append((first + at, data[at : at + size]))
        at += size
        if dice.random() < 0.2:
            back = dice.randrange(min(at, len(data)))
            pieces.append((first + back, data[back : back + dice.randrange(1, 900)]))
    keys = [(i + dice.random() * 6, i) for i in range(len(pieces))]
    return [pieces[i] for _, i in sorted(keys)]


@pytest.mark.parametrize("seed", range(30))
def test_cut_shuffled_repeated_wrapped(seed: int) -> None:
    dice = random.Random(seed)
    data = said(300, dice)
    first = -dice.randrange(len(data)) if seed % 2 else dice.randrange(1 << 32)
    reassembly = Reassembly()
    reassembly.take(segment(0, first - 1, b"", SYN))
    for at, (sequence, piece) in enumerate(cut(data, first, dice), 1):
        reassembly.take(segment(at, sequence, piece))
    reassembly.take(segment(at + 1, first + len(data), b"", FIN))
    (stream,) = reassembly.finish()
    assert bytes(stream.data) == data
    assert stream.end == "fin"
    assert (reassembly.counts.gaps, reassembly.counts.differing) == (0, 0)
    found = streams.requests(stream, "v1")
    assert [one.request.id for one in found] == list(range(1, 301))
    stamps = [one.stamp_ns for one in found]
    assert stamps == sorted(stamps)
    assert all(one.stamp_ns == one.frame * 1000 for one in found)


def test_a_gap_is_counted_and_gone_on_behind() -> None:
    data = said(100, random.Random(1))
    begins = [data.index(b"|%08d|" % number) for number in range(1, 101)]
    reassembly = Reassembly(reorder_bytes=1000)
    reassembly.take(segment(0, 99, b"", SYN))
    lost = range(begins[9], begins[12])
    for at, (low, high) in enumerate(zip(begins, [*begins[1:], len(data)], strict=True), 1):
        if low not in lost:
            reassembly.take(segment(at, 100 + low, data[low:high]))
    (stream,) = reassembly.finish()
    assert (reassembly.counts.gaps, reassembly.counts.gap) == (1, len(lost))
    assert [piece.gap for piece in stream.pieces if piece.gap] == [len(lost)]
    ids = [one.request.id for one in streams.requests(stream, "v1")]
    assert ids == [*range(1, 10), *range(13, 101)]


def test_the_first_byte_wins() -> None:
    reassembly = Reassembly()
    reassembly.take(segment(0, 99, b"", SYN))
    reassembly.take(segment(1, 103, b"def"))
    reassembly.take(segment(2, 100, b"abcXYZgh"))
    (stream,) = reassembly.finish()
    assert bytes(stream.data) == b"abcdefgh"
    assert (reassembly.counts.retransmitted, reassembly.counts.differing) == (3, 3)


def test_connections_and_what_ends_them() -> None:
    reassembly = Reassembly()
    for at, (sequence, data, flags, key) in enumerate(
        [
            (99, b"", SYN, KEY),
            (499, b"", SYN, KEY.back),
            (100, b"ask", 0, KEY),
            (500, b"answer", FIN, KEY.back),
            (500, b"answer", FIN, KEY.back),  # again
            (103, b"", RST, KEY),
            (7, b"", SYN, KEY),  # the same ends, another connection
            (8, b"more", 0, KEY),
        ]
    ):
        reassembly.take(segment(at, sequence, data, flags, key))
    first, second = streams.pair(reassembly.finish())
    assert [bytes(side.data) for side in first.sides] == [b"ask", b"answer"]
    assert [side.end for side in first.sides] == ["rst", "fin"]
    assert [side.closed_ns for side in first.sides] == [5000, 3000]
    assert [bytes(side.data) for side in second.sides] == [b"more", b""]
    assert reassembly.counts.streams == 3


def test_a_stream_heard_from_its_middle() -> None:
    data = said(5, random.Random(2))
    framer = Framer("v1", whole=False)
    assert framer.take(data[7:30]) == []
    assert framer.skipped == 23
    assert [request.id for request in framer.take(data)] == [1, 2, 3, 4, 5]


def test_a_request_beyond_the_buffer_is_given_up() -> None:
    framer = Framer("v1", whole=True, buffer_bytes=64)
    request = b"|00000007|0100|" + bytes(100)
    assert framer.take(request[:40]) == []
    assert framer.take(request[40:]) == []
    assert framer.skipped == len(request)
    assert [one.id for one in framer.take(request)] == [7]  # whole in one piece


def test_alone_a_stream_has_a_silent_side() -> None:
    alone = Stream(KEY.ends[0], KEY.ends[1], True, 5)
    (connection,) = streams.pair([alone])
    assert connection.sides[0] is alone
    assert str(connection.sides[1].source) == "10.0.0.2:2000"
