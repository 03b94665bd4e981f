# SPDX-License-Identifier: Apache-2.0
"""Makes captures of requests, the same byte for byte from the same options and seed.

Chance comes from numpy's PCG64, seeded by its SeedSequence, and nothing else: both have a fixed
stream by numpy's compatibility policy, while the methods of Generator (`integers`, `exponential` …)
may change. So only `random_raw` is called, once for each purpose below and in that order, and its
64-bit numbers r are turned into what is wanted here, by integers alone except for one logarithm:

    malformed    the k = round(errors * count) requests with the smallest r, in turn of every kind
    payload      symbol (r >> 32) * symbols >> 32, a number for each byte of each request; the
                 messages of `iex` have sizes of their own (generate_iex.py)
    flow         (r >> 32) * flows >> 32, a number for each datagram; skewed: see below
    arrivals     poisson: -log(1 - (r >> 11) / 2^53); bursts: r < 2^64 / 16 begins one

Sizes of payloads that differ come from a stream of their own (the first child of the seed), a
number for each request. So does a choice with weights w: the first k for which (r >> 11) / 2^53 <
(w[0] + … + w[k]) / (sum of w), in floating point.

Arrivals, for a rate R and requests i = 0, 1, …, n - 1 over the time T = n / R:

    fixed        i / R
    poisson      gaps with an exponential distribution, 1 / R on average
    bursts       of a geometric number of datagrams 1 µs apart, 16 on average
    ramp         rate R * (0.1 + 1.8 * t / T) at the time t, so from R / 10 to 1.9 R, even gaps;
                 i is due at T * (sqrt(0.01 + 3.6 * i / n) - 0.1) / 1.8
    onoff        even gaps at peak * R for `on`, then silence for (peak - 1) * on, and again

The bytes of the packets are this module's own: pcap with nanosecond stamps, Ethernet with the lab's
MACs, IPv4 without options, UDP with a checksum. Request ids count from 1. A malformed request
stands alone in its datagram, in the place of the good one that it was made from. How requests are
written and broken: generate_forms.py.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ticklab import capture, generate_iex, reference, reference_book
from ticklab.generate_forms import FORMS, digits

START_NS = 1_700_000_000_000_000_000  # the first stamp
BURST_MEAN = 16  # datagrams
BURST_GAP_NS = 1_000
DATAGRAM_BYTES_MAX = 65507  # all that UDP over IPv4 can hold; the lab's wires carry it
SOURCE_PORT = 40000
GROUP = "233.252.0.1"  # of those that are kept for examples (MCAST-TEST-NET)
V1_ID_MAX = 99_999_999
ARRIVALS = ("fixed", "poisson", "bursts", "ramp", "onoff")
EXPONENTIAL_MOST = 16  # times its mean; beyond lies one size in ten million

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGITS = b"0123456789"
_ANY = bytes(range(256))
_UDP_AT = capture.RECORD.itemsize + 14 + 20
_PAYLOAD_AT = _UDP_AT + 8


class GenerateError(Exception):
    """Options that cannot be met; the message is one line that says how to mend them.

    `option` is the name of the one that is blamed, None for the file.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


@dataclass(frozen=True)
class Sizes:
    """Payload sizes and how often each comes: `size` ascending, i64; `below`, the share up to it.

    Written `8` (always), `8-64` (any of these alike), `exp:32` (a geometric distribution from 1
    up, the exponential one of whole bytes, with this mean, cut at 16 times as much), or
    `8:90,256:9,1024:1` (each with its weight).
    """

    size: np.ndarray
    below: np.ndarray

    @classmethod
    def parse(cls, text: str | int) -> "Sizes":
        """Raises ValueError for any other text."""
        text = str(text)
        if re.fullmatch(r"[0-9]+", text):
            return cls(np.array([int(text)]), np.ones(1))
        if found := re.fullmatch(r"([0-9]+)-([0-9]+)", text):
            least, most = map(int, found.groups())
            if least > most or most > DATAGRAM_BYTES_MAX:
                raise ValueError
            size = np.arange(least, most + 1)
            return cls(size, _shares([1.0] * len(size)))
        if found := re.fullmatch(r"exp:([0-9]+)", text):
            mean = int(found[1])
            if not 2 <= mean <= DATAGRAM_BYTES_MAX:
                raise ValueError
            size = np.arange(1, EXPONENTIAL_MOST * mean + 1)
            return cls(size, _shares([(1 - 1 / mean) ** int(k) for k in size]))
        if re.fullmatch(r"[0-9]+:[0-9]+(,[0-9]+:[0-9]+)*", text):
            pairs = sorted(tuple(map(int, part.split(":"))) for part in text.split(","))
            if all(weight > 0 for _, weight in pairs):
                size, weight = zip(*pairs, strict=True)
                return cls(np.array(size), _shares([float(each) for each in weight]))
        raise ValueError

    @property
    def least(self) -> int:
        return int(self.size[0])

    @property
    def most(self) -> int:
        return int(self.size[-1])

    def draw(self, seed: int, count: int) -> np.ndarray:
        """The sizes of `count` requests; i64."""
        if len(self.size) == 1:
            return np.full(count, self.size[0])
        chance = np.random.PCG64(np.random.SeedSequence(seed).spawn(1)[0])
        return self.size[_choose(chance.random_raw(count), self.below)]


def _shares(weights: list[float]) -> np.ndarray:
    """What share of the weights stands up to each; f64, the last is 1."""
    total = np.cumsum(weights)
    return total / total[-1]


def _choose(raw: np.ndarray, below: np.ndarray) -> np.ndarray:
    """An index for each 64-bit number, by shares; i64."""
    return np.searchsorted(below, (raw >> np.uint64(11)) * 2.0**-53, side="right")


@dataclass(frozen=True)
class Options:
    """What to generate; the module's docstring has the formulas.

    count: requests, malformed ones included. rate: requests a second on average. on_ns, peak: of
    the arrivals `onoff`. payload: bytes of a request without its header, see Sizes. errors: share
    of malformed requests, 0 to 1. error_kinds: `all`, or names of mutations() and of reasons,
    separated by commas. flows: source ports. flow_skew: the k-th has 1 / k^skew of the first's
    datagrams on average. Bursts begin when their first request is due, so the rate holds at any
    time. destination: auto is the lab's, and a multicast group for market data.
    """

    schema: str = "v1"
    handler: str = "rot1"
    count: int = 200_000
    rate: float = 20_000.0
    arrivals: str = "bursts"
    on_ns: int = 10_000_000
    peak: float = 4.0
    payload: str | int = "8"
    per_datagram: int = 1
    errors: float = 0.0
    error_kinds: str = "all"
    seed: int = 1
    flows: int = 16
    flow_skew: float = 0.0
    source: str = str(capture.SOURCE)
    destination: str = "auto"
    port: int = 9000

    def check(self) -> None:
        """Raises GenerateError where the options contradict each other or the formats."""
        rules = [
            ("schema", self.schema in reference.SCHEMAS, " or ".join(reference.SCHEMAS)),
            ("handler", self.handler in reference.HANDLERS, " or ".join(reference.HANDLERS)),
            ("arrivals", self.arrivals in ARRIVALS, " or ".join(ARRIVALS)),
            ("count", 1 <= self.count <= V1_ID_MAX, f"1 to {V1_ID_MAX:,}"),
            ("rate", 0 < self.rate <= 1e9, "more than 0 and at most 1e9 requests a second"),
            ("rate", self.count <= self.rate * 1e9, "a capture of less than 1e9 seconds"),
            ("errors", 0 <= self.errors <= 1, "a share from 0 to 1"),
            ("flows", 1 <= self.flows <= 20_000, "1 to 20,000"),
            ("flow_skew", 0 <= self.flow_skew <= 10, "0 (all alike) to 10"),
            ("on_ns", 1000 <= self.on_ns <= 10**13, "1 µs to 10,000 s"),
            ("peak", 1 < self.peak <= 1e6, "more than 1"),
            ("port", 1 <= self.port <= 65535, "1 to 65535"),
            ("seed", self.seed >= 0, "0 or more"),
            ("per_datagram", self.per_datagram >= 1, "1 or more"),
        ]
        try:
            sizes = Sizes.parse(self.payload)
        except ValueError:
            sizes = Sizes.parse(8)
            rules.append(("payload", False, "bytes: 8, 8-64, exp:32, or 8:90,256:9 with weights"))
        for name, address in (("source", self.source), ("destination", self.sent_to())):
            try:
                IPv4Address(address)
            except ValueError:
                rules.append((name, False, "an IPv4 address such as 10.77.0.1"))
        if self.schema == "datagram":
            unique = self.handler == "fizzbuzz" or len(_LETTERS) ** sizes.least >= self.count
            rules += [
                ("per_datagram", self.per_datagram == 1, "1, as a datagram is one request"),
                ("payload", unique, f"enough bytes to tell {self.count:,} datagrams apart"),
                (
                    "errors",
                    not self.errors or self.handler == "fizzbuzz",
                    "0, as no datagram is malformed for this handler",
                ),
            ]
        if self.handler == "fizzbuzz" and self.schema in ("fix", "iex"):
            rules.append(("handler", False, f"another one: no {self.schema} message is a number"))
        if self.handler == "book" and self.schema != "iex":
            order = reference_book.ORDER.size
            right = sizes.least == sizes.most == order
            rules.append(("payload", right, f"{order} with book, the bytes of an order"))
        if self.handler == "fizzbuzz":
            most = reference.FIZZBUZZ_DIGITS_MAX
            right = sizes.least >= 1 and sizes.most <= most
            rules.append(("payload", right, f"1 to {most} digits for fizzbuzz"))
        if self.errors:
            rules.append(("payload", sizes.least > 0, "at least 1 byte with errors, which cut it"))
        if self.schema == "v1":
            most = 9998 if self.errors else 9999  # errors make a length one greater
            rules.append(("payload", sizes.most <= most, f"at most {most:,} bytes for v1"))
        if self.arrivals == "bursts":
            most = 1_000_000_000 // BURST_GAP_NS
            rules.append(("rate", self.rate <= most, f"at most {most:,} with bursts"))
        if rules[0][1] and rules[1][1] and not self.kinds():
            reasons = ", ".join(["all", *_reasons(self.schema, self.handler)])
            rules.append(("error_kinds", not self.errors, f"{reasons}, or the name of a kind"))
        form = FORMS.get(self.schema, FORMS["datagram"])
        size = self.per_datagram * (form.most + sizes.most)
        if self.schema == "iex":
            size = generate_iex.datagram_bytes(self.per_datagram)
        rules.append(
            (
                "payload",
                size <= DATAGRAM_BYTES_MAX,
                f"datagrams of {DATAGRAM_BYTES_MAX:,} B at most",
            )
        )
        for name, right, expected in rules:
            if not right:
                raise GenerateError(f"{name} = {getattr(self, name)}: expected {expected}", name)

    def sent_to(self) -> str:
        """The destination's address."""
        if self.destination != "auto":
            return self.destination
        return GROUP if self.schema == "iex" else str(capture.DESTINATION)

    def kinds(self) -> list[Callable[[bytes], bytes]]:
        """The mutations chosen by `error_kinds`; none where one of its words is unknown."""
        known = mutations(self.schema, self.handler)
        if self.error_kinds == "all":
            return list(known.values())
        chosen: dict[str, None] = {}
        for word in self.error_kinds.split(","):
            names = _reasons(self.schema, self.handler).get(word, [word] if word in known else [])
            if not names:
                return []
            chosen |= dict.fromkeys(names)
        return [known[name] for name in chosen]

    def alphabet(self) -> bytes:
        """The bytes that payloads are made of."""
        if self.handler == "fizzbuzz":
            return _DIGITS
        return _ANY if self.schema in ("v2", "v3", "v4") else _LETTERS


def generate(path: str | Path, options: Options) -> dict:
    """Writes a capture to `path`; returns what was made. Raises GenerateError."""
    options.check()
    path = Path(path)
    chance = np.random.PCG64(options.seed)
    malformed = _malformed(chance, options)
    good = _good(chance, options)
    spread = _spread(options, malformed)
    flow = _flows(chance.random_raw(len(spread.first)), options)
    stamp_ns = START_NS + _arrivals(chance, options, spread)

    whole, rows = good.where(~malformed), good.where(malformed).rows()
    if options.schema == "iex":
        whole, rows = _segments(whole, rows, spread, stamp_ns)
    broken = _mutants(options, rows)
    data = np.concatenate((whole.data, broken.data))
    begin, end = np.empty((2, len(flow)), np.int64)
    for which, strings, skip in (
        (~spread.broken, whole, 0),
        (spread.broken, broken, len(whole.data)),
    ):
        rank = spread.rank[which]
        begin[which] = skip + strings.at[rank]
        end[which] = skip + strings.at[rank + spread.requests[which]]
    size = end - begin
    at = len(capture.PCAP_HEADER) + np.concatenate(([0], np.cumsum(size + _PAYLOAD_AT)))
    out = np.empty(at[-1], np.uint8)
    out[: at[0]] = np.frombuffer(capture.PCAP_HEADER, np.uint8)
    order = np.argsort(size, kind="stable")
    for which in np.split(order, np.flatnonzero(np.diff(size[order])) + 1):
        length = int(size[which[0]])
        payload = sliding_window_view(data, length)[begin[which]] if length else data[:0]
        payload = payload.reshape(len(which), length)
        _place(out, at, which, payload, stamp_ns, flow, options)

    part = path.with_name(path.name + ".part")
    try:
        out.tofile(part)
        os.replace(part, path)
    except OSError as error:
        raise GenerateError(f"{path}: {error.strerror}: expected a place to write to") from error
    return {
        "path": str(path),
        "sha256": hashlib.sha256(out).hexdigest(),
        "requests": options.count,
        "malformed": int(malformed.sum()),
        "datagrams": len(size),
        "bytes": len(out),
        "duration_ns": int(stamp_ns[-1] - stamp_ns[0]),
    }


def _below(raw: np.ndarray, limit: int) -> np.ndarray:
    """Numbers from 0 to limit - 1 out of 64-bit ones; i64."""
    return ((raw >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32)).astype(np.int64)


def _malformed(chance: np.random.PCG64, options: Options) -> np.ndarray:
    """Which requests are malformed; bool, shape (count,)."""
    raw = chance.random_raw(options.count)
    which = np.zeros(options.count, bool)
    which[np.argsort(raw, kind="stable")[: round(options.errors * options.count)]] = True
    return which


@dataclass(frozen=True)
class _Strings:
    """Strings of bytes one behind the other; the k-th is data[at[k] : at[k + 1]]."""

    data: np.ndarray  # u8
    at: np.ndarray  # i64, shape (count + 1,)

    def where(self, which: np.ndarray) -> "_Strings":
        """Those marked in a bool of shape (count,)."""
        size = np.diff(self.at)
        at = np.concatenate(([0], np.cumsum(size[which])))
        return _Strings(self.data[np.repeat(which, size)], at)

    def rows(self) -> list[bytes]:
        return [self.data[a:b].tobytes() for a, b in zip(self.at, self.at[1:], strict=False)]


def _good(chance: np.random.PCG64, options: Options) -> _Strings:
    """Every request well-formed; of `iex` the messages."""
    if options.schema == "iex":
        numbers = chance.random_raw(generate_iex.NUMBERS * options.count)
        return _Strings(*generate_iex.session(numbers, options.count, options.rate, START_NS))
    count, alphabet = options.count, options.alphabet()
    sizes = Sizes.parse(options.payload)
    size = sizes.draw(options.seed, count)
    ids = np.arange(1, count + 1)
    symbols = np.frombuffer(alphabet, np.uint8)
    payload = symbols[_below(chance.random_raw(int(size.sum())), len(alphabet))]
    if options.handler == "book" and options.schema != "iex":
        payload = reference_book.order_flow(options.seed, count).ravel()
    begin = np.concatenate(([0], np.cumsum(size)))
    form = FORMS[options.schema]
    made = []
    order = np.argsort(size, kind="stable")
    for which in np.split(order, np.flatnonzero(np.diff(size[order])) + 1):
        rows = payload[begin[which][:, None] + np.arange(size[which[0]])]
        made.append((which, form.rows(ids[which], rows)))
    length = np.empty(count, np.int64)
    for which, rows in made:
        length[which] = rows.shape[1]
    at = np.concatenate(([0], np.cumsum(length)))
    data = np.empty(at[-1], np.uint8)
    for which, rows in made:
        data[at[which][:, None] + np.arange(rows.shape[1])] = rows
    if options.schema == "datagram" and sizes.least:
        # No two alike: the first bytes count (for fizzbuzz as far as there are digits).
        width = 1
        while len(alphabet) ** width < count and width < sizes.least:
            width += 1
        first = at[:-1, None] + np.arange(width)
        data[first] = symbols[digits(ids - 1, width, len(alphabet))]
    return _Strings(data, at)


def _flows(raw: np.ndarray, options: Options) -> np.ndarray:
    """The flow of each datagram, from 0; i64."""
    if not options.flow_skew:
        return _below(raw, options.flows)
    return _choose(raw, _shares([k**-options.flow_skew for k in range(1, options.flows + 1)]))


@dataclass
class _Spread:
    """How requests are spread over datagrams, a column each, in order of the capture."""

    first: np.ndarray  # i64, index of the first request
    requests: np.ndarray  # i64, how many
    rank: np.ndarray  # i64, index of the first request among the good (or the malformed) ones
    broken: np.ndarray  # bool, holds one malformed request

    def before(self) -> np.ndarray:
        """Requests in earlier datagrams; i64."""
        return np.cumsum(self.requests) - self.requests


def _spread(options: Options, malformed: np.ndarray) -> _Spread:
    good, bad = np.flatnonzero(~malformed), np.flatnonzero(malformed)
    heads = good[:: options.per_datagram]
    requests = np.full(len(heads), options.per_datagram)
    if len(heads):
        requests[-1] = len(good) - options.per_datagram * (len(heads) - 1)
    first = np.concatenate((heads, bad))
    order = np.argsort(first, kind="stable")
    rank = np.concatenate((np.arange(len(heads)) * options.per_datagram, np.arange(len(bad))))
    return _Spread(
        first=first[order],
        requests=np.concatenate((requests, np.ones(len(bad), np.int64)))[order],
        rank=rank[order],
        broken=malformed[first[order]],
    )


def _segments(
    whole: _Strings, rows: list[bytes], spread: _Spread, stamp_ns: np.ndarray
) -> tuple[_Strings, list[bytes]]:
    """Messages of `iex` as segments, numbered as they come; each of `rows` in one of its own."""
    first, good, bad = 1 + spread.before(), ~spread.broken, spread.broken
    made = generate_iex.segments(
        whole.data, whole.at, spread.rank[good], spread.requests[good], first[good], stamp_ns[good]
    )
    numbered = zip(rows, first[bad].tolist(), stamp_ns[bad].tolist(), strict=True)
    return _Strings(*made), [generate_iex.alone(row[2:], n, ns) for row, n, ns in numbered]


def _arrivals(chance: np.random.PCG64, options: Options, spread: _Spread) -> np.ndarray:
    """When each datagram arrives, ns after the first; i64, never runs backwards."""
    raw = chance.random_raw(len(spread.first))
    before, gap_ns = spread.before(), 1e9 / options.rate
    due = np.rint(before * gap_ns).astype(np.int64)
    if options.arrivals == "fixed":
        return due
    if options.arrivals == "ramp":
        share = (np.sqrt(0.01 + 3.6 * (before / options.count)) - 0.1) / 1.8
        return np.rint(share * (options.count * gap_ns)).astype(np.int64)
    if options.arrivals == "onoff":
        busy_ns = np.rint(before * (gap_ns / options.peak)).astype(np.int64)
        return busy_ns + busy_ns // options.on_ns * round((options.peak - 1) * options.on_ns)
    if options.arrivals == "poisson":
        uniform = ((raw >> np.uint64(11)) * 2.0**-53).tolist()
        gaps = np.array([-math.log(1 - u) for u in uniform]) * spread.requests * 1e9 / options.rate
        gaps[0] = 0
        return np.cumsum(np.rint(gaps).astype(np.int64))
    begins = raw < np.uint64(2**64 // BURST_MEAN)
    begins[0] = True
    place = np.arange(len(raw))
    head = np.maximum.accumulate(np.where(begins, place, 0))
    return due[head] + (place - head) * BURST_GAP_NS


def _place(
    out: np.ndarray,
    at: np.ndarray,
    which: np.ndarray,
    payload: np.ndarray,
    stamp_ns: np.ndarray,
    flow: np.ndarray,
    options: Options,
) -> None:
    """Writes the records of datagrams of one size to their places in `out`."""
    size = payload.shape[1]
    rows = np.zeros((len(which), _PAYLOAD_AT + size), np.uint8)
    to = IPv4Address(options.sent_to())
    mac = capture.DESTINATION_MAC
    if to.is_multicast:
        mac = (0x01005E << 24 | int(to) & 0x7FFFFF).to_bytes(6, "big")
    ethernet = mac + capture.SOURCE_MAC + b"\x08\x00"
    total = (28 + size).to_bytes(2, "big")
    ip = b"\x45\0" + total + bytes.fromhex("0000 4000 4011 0000")  # don't fragment, TTL 64, UDP
    ip += IPv4Address(options.source).packed + to.packed
    rows[:, :16] = capture.record_headers(stamp_ns[which], 42 + size)
    rows[:, 16:_UDP_AT] = np.frombuffer(ethernet + ip, np.uint8)
    ports = (SOURCE_PORT + flow[which]).astype(">u2").view(np.uint8).reshape(-1, 2)
    rows[:, _UDP_AT : _UDP_AT + 2] = ports
    udp = options.port.to_bytes(2, "big") + (8 + size).to_bytes(2, "big")
    rows[:, _UDP_AT + 2 : _UDP_AT + 6] = np.frombuffer(udp, np.uint8)
    rows[:, _PAYLOAD_AT:] = payload
    capture.seal(rows, _UDP_AT, 8 + size, fill=True)
    capture.place_rows(out, at[which], rows)


# ---- malformed requests -------------------------------------------------------------------------


def _mutants(options: Options, rows: list[bytes]) -> _Strings:
    """The malformed requests made of these good ones, each kind in its turn."""
    kinds = options.kinds()
    broken = [kinds[k % len(kinds)](row) for k, row in enumerate(rows)]
    at = np.cumsum([0, *map(len, broken)])
    return _Strings(np.frombuffer(b"".join(broken), np.uint8), at)


def mutations(schema: str, handler: str) -> dict[str, Callable[[bytes], bytes]]:
    """Kinds of malformed request by name; each turns a good request into one malformed datagram."""
    form = FORMS[schema]
    kinds = dict(form.kinds)
    if handler == "fizzbuzz" and (wrap := form.wrap):
        for name, payload in _NO_NUMBERS.items():
            kinds[name] = lambda good, payload=payload, wrap=wrap: wrap(good, payload)
    return kinds


def _reasons(schema: str, handler: str) -> dict[str, list[str]]:
    """Names of mutations() by the reason for which what they make is refused."""
    good = FORMS[schema].good(b"12345678")
    if schema == "iex":
        good = generate_iex.alone(b"H" + bytes(21), 1, START_NS)
    found: dict[str, list[str]] = {reason: [] for reason in reference.REASONS}
    for name, mutate in mutations(schema, handler).items():
        answer = reference.reply(schema, handler, reference.frame(schema, mutate(good))[0])
        assert isinstance(answer, str), name
        found[answer].append(name)
    return {reason: names for reason, names in found.items() if names}


# Payloads that fizzbuzz cannot use.
_NO_NUMBERS = {
    "number_none": b"",
    "number_19_digits": b"1" * 19,
    "number_letters": b"fifteen",
    "number_negative": b"-15",
    "number_plus": b"+15",
    "number_blank": b" 15",
    "number_newline": b"15\n",
    "number_decimal": b"1.5",
    "number_exponent": b"1e5",
    "number_hexadecimal": b"0x0f",
    "number_underscore": b"1_000",
    "number_comma": b"1,000",
    "number_zero_byte": b"15\0",
    "number_high_bit": b"\xb1\xb5",
}
