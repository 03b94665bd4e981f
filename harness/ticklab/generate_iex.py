# SPDX-License-Identifier: Apache-2.0
"""A session of IEX DEEP 1.0 for generate.py: price levels of a few symbols, trades and events.

It begins with the events and the state of each symbol and ends with official closing prices;
between them stand price level updates (a size of 0 removes the level) and trade reports. A level
that is removed is there, a trade takes from the best level of its side, and no bid reaches an ask.

Chance: NUMBERS 64-bit numbers a message, taken as needed; r becomes a number below n by
(r >> 32) * n >> 32.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from ticklab.reference_iex import HEADER, PROTOCOLS

NUMBERS = 4
SYMBOLS = (b"AAPL", b"IBM", b"MSFT", b"SPY", b"ZIEXT")
CHANNEL, SESSION = 1, 1_137_508_352
TICK = 100  # of prices in 1/10,000 dollar: a cent
DEPTH = 8  # levels from the best
MESSAGE_BYTES_MAX = 40

_event = struct.Struct("<cBq").pack
_symbol_event = struct.Struct("<cBq8s").pack
_directory = struct.Struct("<cBq8sIqB").pack
_status = struct.Struct("<cBq8s4s").pack
_level = struct.Struct("<cBq8sIq").pack
_trade = struct.Struct("<cBq8sIqq").pack
_official = struct.Struct("<cBq8sq").pack


def datagram_bytes(messages: int) -> int:
    """The most that a datagram of so many messages takes."""
    return HEADER.size + messages * MESSAGE_BYTES_MAX


def session(
    numbers: np.ndarray, count: int, rate: float, start_ns: int
) -> tuple[np.ndarray, np.ndarray]:
    """`count` messages, each behind its length: their bytes and where each begins, as _Strings."""
    gap_ns = 1e9 / rate
    messages = _messages(numbers, count)
    out = []
    for index in range(count):
        message = next(messages)(start_ns + round(index * gap_ns))
        out.append(struct.pack("<H", len(message)) + message)
    at = np.concatenate(([0], np.cumsum([len(message) for message in out])))
    return np.frombuffer(b"".join(out), np.uint8), at


def _messages(numbers: np.ndarray, count: int) -> Iterator[Callable[[int], bytes]]:
    """Makers of messages; each is given its time."""
    yield lambda ns: _event(b"S", ord("O"), ns)  # start of messages
    yield lambda ns: _event(b"S", ord("S"), ns)  # start of system hours
    books = [_Book(name.ljust(8), 1_000_000 * (1 + k)) for k, name in enumerate(SYMBOLS)]
    for book in books:
        yield lambda ns, b=book: _directory(b"D", 0, ns, b.name, 100, b.middle, 1)
        yield lambda ns, b=book: _status(b"H", ord("T"), ns, b.name, b"")
    yield lambda ns: _event(b"S", ord("R"), ns)  # start of regular market hours
    for book in books:
        yield lambda ns, b=book: _symbol_event(b"E", ord("O"), ns, b.name)
    done = 3 + 3 * len(books)
    chance = iter(numbers.tolist())

    def below(limit: int) -> int:
        return (next(chance) >> 32) * limit >> 32

    waiting: deque[Callable[[int], bytes]] = deque()
    for _ in range(count - done - len(books)):
        if not waiting:
            book = books[below(len(books))]
            waiting.extend(book.step(below))
        yield waiting.popleft()
    for book in books:
        yield lambda ns, b=book: _official(b"X", ord("M"), ns, b.name, b.middle)


class _Book:
    """Levels of one symbol: shares by price, of bids and of asks."""

    def __init__(self, name: bytes, middle: int) -> None:
        self.name, self.middle = name, middle
        self.sides: dict[bytes, dict[int, int]] = {b"8": {}, b"5": {}}
        self.trades = 0

    def step(self, below: Callable[[int], int]) -> list[Callable[[int], bytes]]:
        """What happens next, as one event: one message or more; takes three numbers at most."""
        what, kind = below(100), b"85"[below(2) :][:1]
        levels = self.sides[kind]
        if what < 6:
            return self._move(TICK if kind == b"8" else -TICK)
        if what < 18 and levels:
            return self._trade(kind, below)
        price = self.middle + (1 + below(DEPTH)) * (-TICK if kind == b"8" else TICK)
        size = 0 if price in levels and what < 50 else 100 * (1 + what)
        return [self._update(kind, price, size, last=True)]

    def _move(self, by: int) -> list[Callable[[int], bytes]]:
        """The middle moves, and what it reaches goes."""
        self.middle += by
        kind = b"5" if by > 0 else b"8"
        reached = [
            p for p in self.sides[kind] if (p <= self.middle if by > 0 else p >= self.middle)
        ]
        gone = [self._update(kind, price, 0, last=price == reached[-1]) for price in reached]
        return gone or [lambda ns: _status(b"H", ord("T"), ns, self.name, b"")]

    def _trade(self, kind: bytes, below: Callable[[int], int]) -> list[Callable[[int], bytes]]:
        levels = self.sides[kind]
        price = max(levels) if kind == b"8" else min(levels)
        size = min(levels[price], 100 * (1 + below(5)))
        self.trades += 1
        number = self.trades
        return [
            lambda ns: _trade(b"T", 0, ns, self.name, size, price, number),
            self._update(kind, price, levels[price] - size, last=True),
        ]

    def _update(self, kind: bytes, price: int, size: int, last: bool) -> Callable[[int], bytes]:
        if size:
            self.sides[kind][price] = size
        else:
            self.sides[kind].pop(price, None)
        return lambda ns: _level(kind, last, ns, self.name, size, price)


# ---- segments -----------------------------------------------------------------------------------

_HEADER = np.dtype(
    [
        ("version", "u1"),
        ("reserved", "u1"),
        ("protocol", "<u2"),
        ("channel", "<u4"),
        ("session", "<u4"),
        ("payload", "<u2"),
        ("count", "<u2"),
        ("offset", "<u8"),
        ("first", "<u8"),
        ("sent", "<u8"),
    ]
)


def segments(
    data: np.ndarray,
    at: np.ndarray,
    rank: np.ndarray,
    count: np.ndarray,
    first: np.ndarray,
    sent_ns: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Messages with a header in front of the first of each segment.

    `data`, `at`: the messages. A segment each: index of its first message, how many it has, the
    sequence number of the first, and when it was sent.
    """
    head = np.zeros(len(rank), _HEADER)
    head["version"], head["protocol"] = 1, PROTOCOLS["DEEP 1.0"]
    head["channel"], head["session"] = CHANNEL, SESSION
    head["offset"] = at[rank]
    head["payload"] = at[rank + count] - at[rank]
    head["count"], head["first"], head["sent"] = count, first, sent_ns
    rows = head.view(np.uint8).reshape(-1, HEADER.size)
    out = np.empty(len(data) + rows.size, np.uint8)
    is_head = np.zeros(len(out), bool)
    begin = at[rank] + HEADER.size * np.arange(len(rank))
    is_head[begin[:, None] + np.arange(HEADER.size)] = True
    out[is_head], out[~is_head] = rows.ravel(), data
    return out, at + HEADER.size * np.searchsorted(rank, np.arange(len(at)), "left")


def alone(message: bytes, number: int, sent_ns: int) -> bytes:
    """A message in a segment of its own."""
    size, protocol = 2 + len(message), PROTOCOLS["DEEP 1.0"]
    head = HEADER.pack(1, 0, protocol, CHANNEL, SESSION, size, 1, 0, number, sent_ns)
    return head + len(message).to_bytes(2, "little") + message


# ---- malformed segments --------------------------------------------------------------------------


def _field(good: bytes, name: str, value: int) -> bytes:
    kind, at = _HEADER.fields[name][:2]
    return good[:at] + value.to_bytes(kind.itemsize, "little") + good[at + kind.itemsize :]


def _message(good: bytes, message: bytes) -> bytes:
    """A whole segment with another message."""
    payload = len(message).to_bytes(2, "little") + message
    return _field(good[: HEADER.size], "payload", len(payload)) + payload


def _size(good: bytes, size: int) -> bytes:
    """With another length of its message."""
    return good[:40] + size.to_bytes(2, "little") + good[42:]


def _payload(good: bytes) -> int:
    return len(good) - HEADER.size


# Good ones are a segment of one message of a known type.
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "one_byte": lambda good: good[:1],
    "header_cut": lambda good: good[:39],
    "payload_cut": lambda good: good[:-1],
    "header_only": lambda good: good[:40],
    "version_2": lambda good: _field(good, "version", 2),
    "version_0": lambda good: _field(good, "version", 0),
    "tops_1_5": lambda good: _field(good, "protocol", 0x8002),
    "protocol_0": lambda good: _field(good, "protocol", 0),
    "protocol_swapped": lambda good: _field(good, "protocol", 0x0480),
    "payload_plus_one": lambda good: _field(good, "payload", _payload(good) + 1),
    "payload_minus_one": lambda good: _field(good, "payload", _payload(good) - 1),
    "payload_most": lambda good: _field(good, "payload", 65535),
    "payload_0": lambda good: _field(good, "payload", 0),
    "count_0": lambda good: _field(good, "count", 0),
    "count_2": lambda good: _field(good, "count", 2),
    "count_most": lambda good: _field(good, "count", 65535),
    "message_plus_one": lambda good: _size(good, _payload(good) - 1),
    "message_minus_one": lambda good: _size(good, _payload(good) - 3),
    "message_most": lambda good: _size(good, 65535),
    "message_empty": lambda good: _message(good, b""),
    "message_short": lambda good: _message(good, good[42:-1]),
    "message_type_only": lambda good: _message(good, good[42:43]),
    "message_of_another": lambda good: _message(good, b"A" + good[43:]),
}
