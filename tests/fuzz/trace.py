# SPDX-License-Identifier: Apache-2.0
"""A trace directory: metadata, a zero byte, then a stream file.

The stream is a sequence of packets, each 88 bytes of header (the rest of its page is added here,
it holds nothing) and what its length says; so a small input is a whole file.
"""

import target

with target.instrumented():
    from ticklab import ctf

_folder = target.folder()
_HEADER_BYTES = 88


def stream(data: bytes) -> bytes:
    """The packets of `data` with whole pages in front; a rest that is none stays as it is."""
    out, at = bytearray(), 0
    while len(data) - at >= _HEADER_BYTES:
        content = int.from_bytes(data[at + 40 : at + 48], "little") // 8 - ctf.PAGE_BYTES
        size = int.from_bytes(data[at + 48 : at + 56], "little") // 8 - ctf.PAGE_BYTES
        begin = at + _HEADER_BYTES
        end = begin + min(max(content, 0), len(data))
        out += data[at:begin] + bytes(ctf.PAGE_BYTES - _HEADER_BYTES) + data[begin:end]
        out += bytes(min(max(size - content, 0), 1 << 20))
        at = end
    return bytes(out + data[at:])


def check(data: bytes) -> None:
    """Nothing but TraceError; what is read can be used."""
    metadata, _, packets = data.partition(b"\0")
    (_folder / "metadata").write_bytes(metadata)
    (_folder / "rx").write_bytes(stream(packets))
    try:
        trace = ctf.Trace(_folder)
    except ctf.TraceError as error:
        target.one_line(error)
        return
    for lane in trace.lanes.values():
        target.require(len(lane.table()) == len(lane), "a row each record")
        whole = sum(part.stop - part.start for _, part in lane.generations())
        target.require(whole == len(lane), "each record has its generation")


target.run(check)
