# SPDX-License-Identifier: Apache-2.0
"""A capture of anybody's: pcap, pcapng, either by gzip. First byte: the schema it is read with."""

import target

with target.instrumented():
    from ticklab import capture, reference

_path = target.folder() / "capture"
capture.UNPACKED_BYTES_MAX = 1 << 20


def check(data: bytes) -> None:
    """Nothing but CaptureError; of what is read, everything is accounted for."""
    schema = reference.SCHEMAS[data[0] % len(reference.SCHEMAS)] if data else "v1"
    _path.write_bytes(data[1:])
    try:
        plan = capture.check(_path, schema=schema)
    except capture.CaptureError as error:
        target.one_line(error)
        return
    offered, excluded = plan["offered"], sum(plan["excluded"].values())
    answered = plan["expected"] + sum(plan["rejected"].values())
    target.require(plan["packets"] == offered["datagrams"] + excluded, "packets add up")
    target.require(offered["requests"] == answered, "requests add up")


target.run(check)
