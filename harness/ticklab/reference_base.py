# SPDX-License-Identifier: Apache-2.0
"""What the references of all schemas share: the form of a request."""

from collections.abc import Callable
from typing import NamedTuple

from xxhash import xxh3_64_intdigest


class Request(NamedTuple):
    """One request as it stands in a datagram or a stream.

    `id` is the wire id, `raw` all bytes of the request as a ring slot would hold them, `payload`
    what the handler gets. `reason` is None, or why the parser refuses it; a malformed request has
    an empty payload. `framed`: its end can be told; where not, it takes all bytes that are left.
    """

    id: int
    payload: bytes
    raw: bytes
    reason: str | None
    framed: bool = True


def malformed(raw: bytes, reason: Callable[[bytes], str]) -> Request:
    """Bytes that do not frame, and why not."""
    return Request(xxh3_64_intdigest(raw), b"", raw, reason(raw) if raw else "empty", False)


def walk(datagram: bytes, first: Callable[[bytes], Request]) -> list[Request]:
    """The requests of a datagram by a function that takes the first off: at least one."""
    requests = [first(datagram)]
    at = len(requests[0].raw)
    while at < len(datagram):
        requests.append(first(datagram[at:]))
        at += len(requests[-1].raw)
    return requests


def walk_stream(
    data: bytes,
    measure: Callable[[bytes], tuple[int, str | None]],
    most: int,
    first: Callable[[bytes], Request],
) -> tuple[list[Request], bytes]:
    """The requests of a stream whose forms say their size first, and what may become one.

    `measure` says of bytes the size of their first request, or why there is none; `most` bytes are
    enough for it. Behind a fault a stream does not go on.
    """
    requests: list[Request] = []
    at = 0
    while at < len(data):
        size, fault = measure(data[at : at + most])
        if fault == "truncated" or (not fault and at + size > len(data)):
            break
        requests.append(first(data[at : at + size]))
        at += size
        if fault:
            break
    return requests, data[at:]
