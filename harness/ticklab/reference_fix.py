# SPDX-License-Identifier: Apache-2.0
"""FIX tag=value from the rules of its session layer, for reference.py.

    8=FIX.4.1|9=112|35=D| … |10=042|       with SOH for |

BodyLength (at most 8 digits, zeros in front or not) counts what stands between its own SOH and
`10=`; CheckSum is the sum of all bytes in front of `10=`, modulo 256, in three digits. The
handler's payload is the body; a reply's BodyLength has no zeros in front.
"""

import re

from xxhash import xxh3_64_intdigest

from ticklab.reference_base import Request, malformed, walk

LENGTH_MAX = 65535
GARBAGE_MAX = 4096  # bytes that are no message, in one piece

_header = re.compile(rb"(8=FIXT?\.[0-9]\.[0-9]\x01)9=([0-9]{1,8})\x01")
_trailer = re.compile(rb"10=([0-9]{3})\x01").match
# What may still become a header when more bytes come.
_FORMS = (b"8=FIX.0.0\x019=", b"8=FIXT.0.0\x019=")


def frame(datagram: bytes) -> list[Request]:
    """The messages of a datagram."""
    return walk(datagram, _first)


def stream(data: bytes) -> tuple[list[Request], bytes]:
    """The messages of a stream, and what may become one."""
    requests: list[Request] = []
    at = 0
    while at < len(data):
        size, whole = _measure(data[at : at + GARBAGE_MAX + LENGTH_MAX])
        if size is None:
            break
        if not whole:
            size = _next(data[at:])
            if size is None:
                break
        requests.append(_first(data[at : at + size]))
        at += size
    return requests, data[at:]


def answer(request: Request, payload: bytes) -> bytes:
    """The reply with this payload."""
    begin = request.raw[: request.raw.index(b"\x01") + 1]
    covered = begin + b"9=%d\x01" % len(payload) + payload
    return covered + b"10=%03d\x01" % (sum(covered) % 256)


def _measure(data: bytes) -> tuple[int | None, bool]:
    """Bytes of the message that `data` begins with and True; 0 and False: none; None: not known."""
    found = _header.match(data)
    if not found:
        return (None if _may_begin(data) else 0), False
    if int(found[2]) > LENGTH_MAX:
        return 0, False
    trailer = found.end() + int(found[2])
    if len(data) < trailer + 7:
        return None, False
    good = data[trailer - 1] == 1 and _trailer(data, trailer)
    return (trailer + 7, True) if good else (0, False)


def _may_begin(data: bytes) -> bool:
    """Is it the beginning of a header that is not whole?"""
    for form in _FORMS:
        head, digits = data[: len(form)], data[len(form) : len(form) + 9]
        if _same(head, form[: len(head)]) and re.fullmatch(rb"[0-9]{0,8}", digits):
            return True
    return False


def _same(data: bytes, form: bytes) -> bool:
    return len(data) == len(form) and all(
        _is_digit(d) if f == ord("0") else d == f for d, f in zip(data, form, strict=True)
    )


def _is_digit(byte: int) -> bool:
    return ord("0") <= byte <= ord("9")


def _next(data: bytes) -> int | None:
    """Where the next message begins in `data`, behind its first byte; None: not known yet."""
    for at in range(1, min(len(data), GARBAGE_MAX)):
        if data[at] == ord("8"):
            if _header.match(data, at):
                return at
            if _may_begin(data[at : at + 24]):
                return None
    return GARBAGE_MAX if len(data) >= GARBAGE_MAX else None


def _first(data: bytes) -> Request:
    size, whole = _measure(data)
    if not whole:
        return malformed(data, reason)
    raw = data[:size]
    found = _header.match(raw)
    covered, stated = raw[:-7], int(raw[-4:-1])
    if sum(covered) % 256 != stated:
        return Request(xxh3_64_intdigest(raw), b"", raw, "bad_checksum")
    return Request(xxh3_64_intdigest(raw), covered[found.end() :], raw, None)


def reason(raw: bytes) -> str:
    """Why these bytes do not frame."""
    form = _FORMS[1] if raw[5:6] == b"T" else _FORMS[0]
    head = raw[: len(form)]
    if not _same(head, form[: len(head)]):
        return "bad_header"
    digits = raw[len(form) :].split(b"\x01", 1)
    for place, byte in enumerate(digits[0]):
        if not _is_digit(byte):
            return "bad_digit"
        if place == 8:
            return "bad_length"
    if len(digits) == 1:
        return "truncated"
    if not digits[0]:
        return "bad_digit"
    length = int(digits[0])
    if length > LENGTH_MAX:
        return "bad_length"
    trailer = digits[1][length : length + 7]
    if len(trailer) < 7:
        return "truncated"
    if raw[len(form) + len(digits[0]) + length] != 1 or not re.fullmatch(
        rb"10=...\x01", trailer, re.S
    ):
        return "wrong_length"
    return "bad_digit"
