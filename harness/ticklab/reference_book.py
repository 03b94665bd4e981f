# SPDX-License-Identifier: Apache-2.0
"""The order book by price level as it must be, and an order flow to feed it with.

Written from the rules at the top of worker/book.c alone, in the plainest way: a dictionary a side.
"""

import struct

import numpy as np

DEEP_UPDATE = struct.Struct("<cBq8sIq")  # type, flags, timestamp, symbol, size, price
ORDER = struct.Struct(">cc2xIq8s")  # what, side, size, price, symbol
BEST = struct.Struct(">8sqIqI")  # symbol, best bid: price, size, best ask: price, size
SIZE_MAX = 2**32 - 1
_SIDES = {b"8": "bid", b"5": "ask", b"B": "bid", b"S": "ask"}


class Book:
    """Price levels of several symbols; `levels[symbol][side]` is {price: size}."""

    def __init__(self, symbols: int = 64, levels: int = 128) -> None:
        self.most = symbols, levels
        self.levels: dict[bytes, dict[str, dict[int, int]]] = {}

    def update(self, payload: bytes) -> bytes | str:
        """The reply's payload, or the reason (`filtered` too) why there is none."""
        kind = payload[:1]
        if b"A" <= kind <= b"Z":
            return "filtered"
        if kind in (b"8", b"5") and len(payload) == DEEP_UPDATE.size:
            _, _, _, symbol, size, price = DEEP_UPDATE.unpack(payload)
            return self._set(symbol, _SIDES[kind], price, size) if price > 0 else "bad_payload"
        if kind in (b"a", b"r", b"q") and len(payload) == ORDER.size and payload[2:4] == b"\0\0":
            _, side, size, price, symbol = ORDER.unpack(payload)
            if kind == b"q":
                return "bad_payload" if size or price or side != b"\0" else self.best(symbol)
            if side not in (b"B", b"S") or price <= 0:
                return "bad_payload"
            had = self.levels.get(symbol, {}).get(_SIDES[side], {}).get(price, 0)
            size = had + size if kind == b"a" else max(had - size, 0)
            return (
                self._set(symbol, _SIDES[side], price, size) if size <= SIZE_MAX else "bad_payload"
            )
        return "bad_payload"

    def best(self, symbol: bytes) -> bytes:
        """Symbol, best bid and best ask, as a reply has them."""
        sides = self.levels.get(symbol, {"bid": {}, "ask": {}})
        bid, ask = max(sides["bid"], default=0), min(sides["ask"], default=0)
        return BEST.pack(symbol, bid, sides["bid"].get(bid, 0), ask, sides["ask"].get(ask, 0))

    def _set(self, symbol: bytes, side: str, price: int, size: int) -> bytes | str:
        symbols, levels = self.most
        here = self.levels.get(symbol, {}).get(side, {})
        if size == 0:
            here.pop(price, None)
        elif price in here:
            here[price] = size
        elif len(here) == levels or (symbol not in self.levels and len(self.levels) == symbols):
            return "full"
        else:
            self.levels.setdefault(symbol, {"bid": {}, "ask": {}})[side][price] = size
        return self.best(symbol)


class Reference:
    """What harness/ticklab/judge.py asks; `keys` are those of [handler.book]."""

    def __init__(self, keys: dict[str, str]) -> None:
        self.book = Book(int(keys.get("symbols", 64)), int(keys.get("levels", 128)))

    def reply(self, payload: bytes, flow: int) -> bytes | str:
        return self.book.update(payload)


SYMBOLS = 8
OFFSETS = 40  # ticks from the middle that prices keep within
DRIFT = 20  # ticks that the middle moves to either side
TICK = 100  # of 1/10,000 $


def order_flow(seed: int, count: int) -> np.ndarray:
    """Payloads of `count` orders as the handler `book` takes them; u8, shape (count, 24).

    Of 16 requests 8 add to a level, 7 remove and 1 only asks, for 8 symbols, prices within 40 ticks
    of a middle that drifts by 20 to and fro. Chance is PCG64's random_raw alone, a number each.
    """
    raw = np.random.PCG64(np.random.SeedSequence(seed).spawn(2)[1]).random_raw(count)

    def take(shift: int, bits: int) -> np.ndarray:
        return (raw >> np.uint64(shift) & np.uint64((1 << bits) - 1)).astype(np.int64)

    symbol, turn, sell = take(0, 3), take(3, 4), take(7, 1)
    offset = np.minimum(take(8, 6) & take(14, 6), OFFSETS - 1)  # near the middle more often
    size = 100 * (1 + take(20, 3)) * np.where(turn < 8, 1, 2)
    step = np.arange(count) // 256 % (4 * DRIFT)
    drift = np.abs(step - 2 * DRIFT) - DRIFT
    middle = 1_000_000 + 50_000 * symbol + TICK * drift
    price = middle + TICK * np.where(sell == 1, 1 + offset, -1 - offset)
    order = np.zeros(
        count,
        [
            ("what", "u1"),
            ("side", "u1"),
            ("", "V2"),
            ("size", ">u4"),
            ("price", ">i8"),
            ("at", "S8"),
        ],
    )
    asks = turn == 15
    order["what"] = np.where(asks, ord("q"), np.where(turn < 8, ord("a"), ord("r")))
    order["side"] = np.where(asks, 0, np.where(sell == 1, ord("S"), ord("B")))
    order["size"] = np.where(asks, 0, size)
    order["price"] = np.where(asks, 0, price)
    order["at"] = np.array([b"TICK%d   " % i for i in range(SYMBOLS)])[symbol]
    return order.view(np.uint8).reshape(count, ORDER.size)
