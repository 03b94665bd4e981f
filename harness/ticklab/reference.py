# SPDX-License-Identifier: Apache-2.0
"""What a right answer is: framing, wire ids, handlers and replies, written from the rules alone.

Shares no code with the stages, so that an error in either shows as a difference between the two.

A datagram is walked from its start. While a well-framed request stands at the position it is one
request; if bytes remain that do not frame, all of them together are one malformed request. An empty
datagram is one malformed request (but for `datagram`), so every datagram holds at least one (but
for a heartbeat of `iex`).

    v1        |00000001|0008|abcdefgh      id 8 digits, length 4 digits, payload
    v2        u64 id, u32 length           big-endian, then the payload
    v3        length, protobuf             reference_v3.py
    v4        Cap'n Proto                  reference_v4.py
    fix       8=FIX.4.1|9=8|payload|10=…|  reference_fix.py
    iex       a segment of messages        reference_iex.py; one of no message is no request
    datagram  the whole datagram, any bytes, none as well

The wire id is the id field of a well-framed v1, v2, v3 or v4 request, the sequence number of a
message of `iex`, and XXH3_64bits (seed 0) of the bytes of any other: malformed ones, those of v3
and v4 whose id cannot be read, and every `fix` or `datagram` request.

In a stream (TCP) what cannot be the beginning of a request any more is malformed: of v1 to v4 the
bytes that show it, and the rest of the stream is lost; of `fix` all up to the next message.
"""

import re
import struct
from collections.abc import Callable

from xxhash import xxh3_64_intdigest

from ticklab import reference_fix, reference_iex, reference_v3, reference_v4
from ticklab.reference_base import Request, malformed

SCHEMAS = ("v1", "v2", "v3", "v4", "fix", "iex", "datagram")
STREAMS = ("v1", "v2", "v3", "v4", "fix")  # of those, which a stream of bytes can hold
RESYNCS = ("fix",)  # where a stream goes on behind what is malformed
REASONS = (
    "empty",
    "truncated",
    "bad_header",
    "bad_digit",
    "bad_length",
    "oversized",
    "bad_payload",
    "reply_too_big",
    "wrong_length",
    "bad_checksum",
    "bad_encoding",
    "full",
    "poison",
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


def frame(schema: str, datagram: bytes) -> list[Request]:
    """The requests of one UDP payload, in order; at least one but for a heartbeat of `iex`."""
    return _FRAMES[schema](datagram)


def frame_stream(schema: str, data: bytes) -> tuple[list[Request], bytes]:
    """The requests of the first bytes of a stream, in order, and the bytes that are none yet.

    Where the last request is not `framed` and the schema does not resynchronise (RESYNCS), the
    connection is broken there and the rest is lost.
    """
    return _STREAMS[schema](data)


def reply(
    schema: str,
    handler: "str | Callable[[bytes], bytes | str | None]",
    request: Request,
    slot_capacity: int | None = None,
) -> bytes | str | None:
    """The whole reply to `request` as bytes, or the reason (str) why there is none.

    None: it depends on more than the request (see ticklab/judge.py).

    `slot_capacity` is how many bytes of a request or reply a ring slot holds; None: no limit.
    """
    if slot_capacity is not None and len(request.raw) > slot_capacity:
        # The parser sees as much of a malformed one as fits.
        seen = request.raw[:slot_capacity]
        return "oversized" if request.framed else str(frame(schema, seen)[0].reason)
    if request.reason is not None:
        return request.reason
    function = HANDLERS[handler] if isinstance(handler, str) else handler
    if function is None:
        return None
    payload = function(request.payload)
    if payload is None or isinstance(payload, str):
        return payload or "bad_payload"
    answer = _ANSWERS[schema](request, payload)
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
    """The payload unchanged; what it takes is another matter."""
    return payload


# None: the payload alone does not say; `other` stands for a shared object of somebody's own.
HANDLERS: dict[str, Callable[[bytes], bytes | None] | None] = {
    "rot1": rot1,
    "fizzbuzz": fizzbuzz,
    "spin": spin,
    "cachewalk": spin,
    "alloc": spin,
    "book": None,
    "other": None,
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
        requests.append(malformed(datagram[at:], _v1_reason))
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
        requests.append(malformed(datagram[at:], _v2_reason))
    return requests


def _frame_datagram(datagram: bytes) -> list[Request]:
    return [Request(xxh3_64_intdigest(datagram), datagram, datagram, None)]


def _answer_v1(request: Request, payload: bytes) -> bytes:
    return b"%b%04d|%b" % (request.raw[:10], len(payload), payload)


def _answer_v2(request: Request, payload: bytes) -> bytes:
    return V2_HEADER.pack(request.id, len(payload)) + payload


def _stream_v1(data: bytes) -> tuple[list[Request], bytes]:
    requests = []
    at = 0
    while header := _v1_header(data, at):
        end = at + V1_HEADER_BYTES + int(header[2])
        if end > len(data):
            return requests, data[at:]
        requests.append(
            Request(int(header[1]), data[at + V1_HEADER_BYTES : end], data[at:end], None)
        )
        at = end
    for end in range(at + 1, min(len(data), at + V1_HEADER_BYTES) + 1):
        if _v1_reason(data[at:end]) != "truncated":
            requests.append(malformed(data[at:end], _v1_reason))
            return requests, data[end:]
    return requests, data[at:]


def _stream_v2(data: bytes) -> tuple[list[Request], bytes]:
    requests = []
    at = 0
    while len(data) - at >= V2_HEADER.size:
        begin = at + V2_HEADER.size
        if _v2_reason(data[at:begin]) == "bad_length":
            requests.append(malformed(data[at:begin], _v2_reason))
            return requests, data[begin:]
        end = begin + V2_HEADER.unpack_from(data, at)[1]
        if end > len(data):
            break
        requests += _frame_v2(data[at:end])
        at = end
    return requests, data[at:]


_FRAMES = {
    "v1": _frame_v1,
    "v2": _frame_v2,
    "v3": reference_v3.frame,
    "v4": reference_v4.frame,
    "fix": reference_fix.frame,
    "iex": reference_iex.frame,
    "datagram": _frame_datagram,
}
_STREAMS = {
    "v1": _stream_v1,
    "v2": _stream_v2,
    "v3": reference_v3.stream,
    "v4": reference_v4.stream,
    "fix": reference_fix.stream,
}
_ANSWERS = {
    "v1": _answer_v1,
    "v2": _answer_v2,
    "v3": reference_v3.answer,
    "v4": reference_v4.answer,
    "fix": reference_fix.answer,
    "iex": reference_iex.answer,
    "datagram": lambda request, payload: payload,
}


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
