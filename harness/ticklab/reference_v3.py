# SPDX-License-Identifier: Apache-2.0
"""v3, protobuf by its encoding rules, for reference.py.

    message Request { fixed64 id = 1; bytes payload = 2; }      behind its length, a varint

Fields come in any order, the last of each counts, others are passed over; a field that is not there
has its default (0, empty), and one that has it is not written.
"""

from xxhash import xxh3_64_intdigest

from ticklab.reference_base import Request, malformed, walk, walk_stream

LENGTH_BYTES_MAX = 3
LENGTH_MAX = 65535
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def frame(datagram: bytes) -> list[Request]:
    """The messages of a datagram."""
    return walk(datagram, _first)


def stream(data: bytes) -> tuple[list[Request], bytes]:
    """The messages of a stream, and what may become one."""
    return walk_stream(data, _measure, LENGTH_BYTES_MAX, _first)


def answer(request: Request, payload: bytes) -> bytes:
    """The reply with this payload."""
    return encode(request.id, payload)


def encode(number: int, payload: bytes) -> bytes:
    """A message as protobuf's own writers make it, with its length."""
    message = b"\x09" + number.to_bytes(8, "little") if number else b""
    if payload:
        message += b"\x12" + varint(len(payload)) + payload
    return varint(len(message)) + message


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def _measure(data: bytes) -> tuple[int, str | None]:
    """Bytes of the message with its length; or those that show what is wrong with the length."""
    length = 0
    for place, byte in enumerate(data[:LENGTH_BYTES_MAX]):
        length |= (byte & 127) << 7 * place
        if byte < 128:
            return (place + 1, "bad_length") if length > LENGTH_MAX else (place + 1 + length, None)
    return (LENGTH_BYTES_MAX, "bad_length") if len(data) >= LENGTH_BYTES_MAX else (0, "truncated")


def _first(data: bytes) -> Request:
    size, fault = _measure(data)
    if not fault and size > len(data):
        fault = "truncated"
    if fault:
        return malformed(data, lambda _: str(fault))
    raw = data[:size]
    try:
        number, payload = _fields(raw[len(raw) - _message_bytes(raw) :])
    except (ValueError, IndexError):
        return Request(xxh3_64_intdigest(raw), b"", raw, "bad_encoding")
    return Request(number, payload, raw, None)


def _message_bytes(raw: bytes) -> int:
    """Bytes behind the length."""
    head = next(place for place, byte in enumerate(raw) if byte < 128) + 1
    return len(raw) - head


def _fields(message: bytes) -> tuple[int, bytes]:
    """Id and payload; ValueError or IndexError where it cannot be read."""
    number, payload, at = 0, b"", 0
    while at < len(message):
        if message[at] < 8:
            raise ValueError("field 0")
        tag, at = _take_varint(message, at, 5)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = None, _take_varint(message, at, 10)[1]
        elif kind == _BYTES:
            length, at = _take_varint(message, at, 5)
            value, at = message[at : at + length], at + length
        elif kind in (_FIXED64, _FIXED32):
            width = 8 if kind == _FIXED64 else 4
            value, at = message[at : at + width], at + width
        else:
            raise ValueError("a type that there is not")
        if at > len(message):
            raise ValueError("beyond the end")
        if field == 1:
            if kind != _FIXED64:
                raise ValueError("another type")
            number = int.from_bytes(value, "little")
        elif field == 2:
            if kind != _BYTES:
                raise ValueError("another type")
            payload = value
    return number, payload


def _take_varint(data: bytes, at: int, most: int) -> tuple[int, int]:
    """A varint of at most so many bytes, and where it ends."""
    number = 0
    for place in range(most):
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise ValueError("a varint without an end")
