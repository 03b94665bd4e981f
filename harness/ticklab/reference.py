# SPDX-License-Identifier: Apache-2.0
"""What a right answer is: framing, wire ids, handlers and replies, written from the rules alone.

Shares no code with the stages, so that an error in either shows as a difference between the two.

A datagram is walked from its start. While a well-framed request stands at the position it is one
request; if bytes remain that do not frame, all of them together are one malformed request. An empty
v1 or v2 datagram is one malformed request, so every datagram holds at least one.

    v1        |00000001|0008|abcdefgh      id 8 digits, length 4 digits, payload
    v2        u64 id, u32 length           big-endian, then the payload
    datagram  the whole datagram, any bytes, none as well

The wire id is the id field of a well-framed v1 or v2 request, and XXH3_64bits (seed 0) of the bytes
of any other: malformed ones and every `datagram` request.
"""

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

SCHEMAS = ("v1", "v2", "datagram")
REASONS = (
    "empty",
    "truncated",
    "bad_header",
    "bad_digit",
    "bad_length",
    "oversized",
    "bad_payload",
    "reply_too_big",
)

V1_HEADER_BYTES = 15
V2_HEADER = struct.Struct(">QI")
V2_LENGTH_MAX = 65535
FIZZBUZZ_DIGITS_MAX = 18

_v1_header = re.compile(rb"\|([0-9]{8})\|([0-9]{4})\|").match
_v1_bars = frozenset((0, 9, 14))
_ROTATED = bytes.maketrans(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"bcdefghijklmnopqrstuvwxyzaBCDEFGHIJKLMNOPQRSTUVWXYZA",
)


class Request(NamedTuple):
    """One request as it stands in a datagram.

    `id` is the wire id, `raw` all bytes of the request, `payload` what the handler gets. `reason`
    is None, or why the framing refuses it; a malformed request has an empty payload.
    """

    id: int
    payload: bytes
    raw: bytes
    reason: str | None


def frame(schema: str, datagram: bytes) -> list[Request]:
    """The requests of one UDP payload, in order; at least one."""
    return _FRAMES[schema](datagram)


def frame_stream(schema: str, data: bytes) -> tuple[list[Request], bytes]:
    """The requests at the beginning of a stream, and the bytes that may yet become one.

    Malformed bytes are one request: all of them, but in FIX those up to the next beginning of one.
    """
    requests: list[Request] = []
    at, size = 0, len(data)
    while at < size:
        needed = _NEEDED[schema](data, at)
        if needed is None:
            return requests, data[at:]
        length, good = needed
        if at + length > size:
            return requests, data[at:]
        raw = data[at : at + length] if good or schema == "fix" else data[at:]
        if good and schema != "fix":
            requests += frame(schema, raw)
        else:
            reason = None if good else "bad_header"
            requests.append(Request(xxh3_64_intdigest(raw), raw if good else b"", raw, reason))
        at += len(raw)
    return requests, b""


def reply(
    schema: str, handler: str, request: Request, slot_capacity: int | None = None
) -> bytes | str:
    """The whole reply to `request` as bytes, or the reason (str) why there is none.

    `slot_capacity` is how many bytes of a request or reply a ring slot holds; None: no limit.
    """
    if request.reason is not None:
        return request.reason
    if slot_capacity is not None and len(request.raw) > slot_capacity:
        return "oversized"
    payload = HANDLERS[handler](request.payload)
    if payload is None:
        return "bad_payload"
    if schema == "v1":
        answer = b"%b%04d|%b" % (request.raw[:10], len(payload), payload)
    elif schema == "v2":
        answer = V2_HEADER.pack(request.id, len(payload)) + payload
    else:
        answer = payload
    if slot_capacity is not None and len(answer) > slot_capacity:
        return "reply_too_big"
    return answer


def rot1(payload: bytes) -> bytes:
    """a→b … z→a, A→B … Z→A, every other byte unchanged."""
    return payload.translate(_ROTATED)


def fizzbuzz(payload: bytes) -> bytes | None:
    """Fizz, Buzz, FizzBuzz or the number as it came; None unless it is 1 to 18 decimal digits."""
    if not payload.isdigit() or len(payload) > FIZZBUZZ_DIGITS_MAX:
        return None
    number = int(payload)
    return (b"Fizz" * (number % 3 == 0) + b"Buzz" * (number % 5 == 0)) or payload


def spin(payload: bytes) -> bytes:
    """The payload unchanged, after a known time."""
    return payload


HANDLERS: dict[str, Callable[[bytes], bytes | None]] = {
    "rot1": rot1,
    "fizzbuzz": fizzbuzz,
    "spin": spin,
}


def _frame_v1(datagram: bytes) -> list[Request]:
    requests = []
    at, size = 0, len(datagram)
    while header := _v1_header(datagram, at):
        begin = at + V1_HEADER_BYTES
        end = begin + int(header[2])
        if end > size:
            break
        requests.append(Request(int(header[1]), datagram[begin:end], datagram[at:end], None))
        at = end
    if at < size or not requests:
        requests.append(_malformed(datagram[at:], _v1_reason))
    return requests


def _frame_v2(datagram: bytes) -> list[Request]:
    requests = []
    at, size = 0, len(datagram)
    while size - at >= V2_HEADER.size:
        request, length = V2_HEADER.unpack_from(datagram, at)
        begin = at + V2_HEADER.size
        end = begin + length
        if length > V2_LENGTH_MAX or end > size:
            break
        requests.append(Request(request, datagram[begin:end], datagram[at:end], None))
        at = end
    if at < size or not requests:
        requests.append(_malformed(datagram[at:], _v2_reason))
    return requests


def _frame_datagram(datagram: bytes) -> list[Request]:
    return [Request(xxh3_64_intdigest(datagram), datagram, datagram, None)]


_FRAMES = {"v1": _frame_v1, "v2": _frame_v2, "datagram": _frame_datagram}


_v1_form = "|dddddddd|dddd|"


def _needed_v1(data: bytes, at: int) -> tuple[int, bool] | None:
    """Bytes of the request at `at` and whether it can be one; None: its header is not whole."""
    header = data[at : at + V1_HEADER_BYTES]
    for form, byte in zip(_v1_form, header, strict=False):
        if byte != ord("|") if form == "|" else not ord("0") <= byte <= ord("9"):
            return 1, False
    whole = len(header) == V1_HEADER_BYTES
    return (V1_HEADER_BYTES + int(header[10:14]), True) if whole else None


def _needed_v2(data: bytes, at: int) -> tuple[int, bool] | None:
    if len(data) - at < V2_HEADER.size:
        return None
    length = V2_HEADER.unpack_from(data, at)[1]
    return (V2_HEADER.size + length, True) if length <= V2_LENGTH_MAX else (1, False)


_fix_begin = re.compile(rb"8=[^\x01]{1,16}\x019=(\d{1,6})\x01").match


def _needed_fix(data: bytes, at: int) -> tuple[int, bool] | None:
    header = _fix_begin(data, at)
    if header:
        end = header.end() + int(header[1])
        if len(data) < end + 7:
            return None
        total = sum(data[at:end]) & 0xFF
        if data[end : end + 7] == b"10=%03d\x01" % total:
            return end + 7 - at, True
    elif len(data) - at < 27 and data[at : at + 2] == b"8="[: len(data) - at]:
        return None
    begin = data.find(b"8=", at + 1)
    if begin < 0:
        begin = len(data) - (data[-1:] == b"8" and len(data) - 1 > at)
    return begin - at, False


_NEEDED = {"v1": _needed_v1, "v2": _needed_v2, "fix": _needed_fix}


def _malformed(raw: bytes, reason: Callable[[bytes], str]) -> Request:
    return Request(xxh3_64_intdigest(raw), b"", raw, reason(raw) if raw else "empty")


def _v1_reason(raw: bytes) -> str:
    for place, byte in enumerate(raw[:V1_HEADER_BYTES]):
        if place in _v1_bars:
            if byte != ord("|"):
                return "bad_header"
        elif not ord("0") <= byte <= ord("9"):
            return "bad_digit"
    return "truncated"


def _v2_reason(raw: bytes) -> str:
    if len(raw) >= V2_HEADER.size and V2_HEADER.unpack_from(raw)[1] > V2_LENGTH_MAX:
        return "bad_length"
    return "truncated"
