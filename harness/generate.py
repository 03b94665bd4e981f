#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a capture of requests: the same options and seed give the same file, byte for byte."""

import dataclasses
import json
import sys

import _venv  # noqa: F401
from ticklab import arguments, generate, reference

HELP = {
    "schema": f"{', '.join(reference.SCHEMAS)}",
    "handler": "what the payloads are for: rot1 (letters or bytes) or fizzbuzz (digits)",
    "count": "requests, malformed ones included",
    "rate": "requests a second on average",
    "arrivals": f"{', '.join(generate.ARRIVALS)}",
    "on_ns": "how long each busy period of onoff is",
    "peak": "rate in the busy periods of onoff, times the average",
    "payload": "bytes of a request without its header: 8 (always), 8-64 (any of these), exp:32 (on "
    "average), 8:90,256:9,1024:1 (with weights)",
    "per_datagram": "requests in a datagram",
    "errors": "share of malformed requests, 0 to 1",
    "error_kinds": "of malformed request, each in its turn: all, reasons (truncated, bad_digit …) "
    "or names of kinds, separated by commas",
    "seed": "of all chance",
    "flows": "source ports",
    "flow_skew": "how uneven the flows are: the k-th sends 1/k^SKEW of the first",
    "source": "IPv4 address",
    "destination": "IPv4 address; auto: the lab's, of iex a multicast group",
    "port": "destination port",
}


def main() -> int:
    parser = arguments.Parser(prog="harness/generate.py", description=__doc__)
    parser.add_argument("out", metavar="OUT.pcap")
    for field in dataclasses.fields(generate.Options):
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=str if field.name == "payload" else field.type,
            default=field.default,
            help=f"{HELP[field.name]} (default %(default)s)",
        )
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    options = vars(parser.parse_args())
    out, as_json = options.pop("out"), options.pop("json")
    try:
        made = generate.generate(out, generate.Options(**options))
    except generate.GenerateError as error:
        print(f"tickline: {error}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps(made, indent=1))
    else:
        print(
            f"{made['path']}: {made['requests']:,} requests ({made['malformed']:,} malformed) in"
            f" {made['datagrams']:,} datagrams, {made['duration_ns'] / 1e9:.3f} s,"
            f" {made['bytes']:,} B, sha256 {made['sha256']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
