# SPDX-License-Identifier: Apache-2.0
"""IEX-TP segments with TOPS 1.6 and DEEP 1.0 messages from their specifications, for reference.py.

    version u8 = 1, reserved u8, protocol u16, channel u32, session u32, payload bytes u16,
    messages u16, stream offset u64, first sequence number u64, send time u64;
    then each message: bytes u16, type u8 and what belongs to it             (little-endian)

A datagram is a segment, and a message a request: its raw form is a segment of that message alone. A
segment of none (a heartbeat) holds no request; one whose messages do not fill its payload is one
malformed request. What a datagram has behind the payload is nobody's.
"""

import struct

from ticklab.reference_base import Request, malformed

HEADER = struct.Struct("<BBHIIHHQQQ")
PROTOCOLS = {"TOPS 1.6": 0x8003, "DEEP 1.0": 0x8004}
# Bytes of a message by its type; more may follow, and other types have any.
TYPE_BYTES = {
    "S": 10,  # system event
    "D": 31,  # security directory
    "H": 22,  # trading status
    "O": 18,  # operational halt status
    "P": 19,  # short sale price test status
    "E": 18,  # security event
    "Q": 42,  # quote update
    "8": 30,  # price level update, buy
    "5": 30,  # price level update, sell
    "T": 38,  # trade report
    "X": 26,  # official price
    "B": 38,  # trade break
    "A": 80,  # auction information
}


def frame(datagram: bytes) -> list[Request]:
    """The messages of a segment."""
    if reason(datagram) is not None:
        return [malformed(datagram, lambda raw: str(reason(raw)))]
    fields = list(HEADER.unpack_from(datagram))
    requests = []
    at = HEADER.size
    for index in range(fields[6]):
        end = at + 2 + int.from_bytes(datagram[at : at + 2], "little")
        head = HEADER.pack(
            *fields[:5], end - at, 1, fields[7] + at - HEADER.size, fields[8] + index, fields[9]
        )
        requests.append(_request(fields[8] + index, head + datagram[at:end]))
        at = end
    return requests


def answer(request: Request, payload: bytes) -> bytes:
    """The reply with this payload."""
    fields = HEADER.unpack_from(request.raw)
    head = HEADER.pack(*fields[:5], len(payload) + 2, *fields[6:])
    return head + len(payload).to_bytes(2, "little") + payload


def reason(segment: bytes) -> str | None:
    """Why a segment is not whole."""
    if len(segment) < HEADER.size:
        return "truncated" if segment else "empty"
    version, _, protocol, _, _, payload, count, *_ = HEADER.unpack_from(segment)
    rest = segment[HEADER.size :]
    if version != 1 or protocol not in PROTOCOLS.values():
        return "bad_header"
    if payload > len(rest):
        return "truncated"
    rest = rest[:payload]
    for _ in range(count):
        size = int.from_bytes(rest[:2], "little")
        if len(rest) < 2 + size:
            return "wrong_length"
        rest = rest[2 + size :]
    return "wrong_length" if rest else None


def _request(sequence: int, raw: bytes) -> Request:
    message = raw[HEADER.size + 2 :]
    if not message or len(message) < TYPE_BYTES.get(chr(message[0]), 0):
        return Request(sequence, b"", raw, "wrong_length")
    return Request(sequence, message, raw, None)
