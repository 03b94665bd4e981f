#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Says what a capture holds and what a replay of it would offer, or prepares it for a replay."""

import json
import sys

import _venv  # noqa: F401
from ticklab import arguments, capture, reference
from ticklab.prepare import CAPTURES


def main() -> int:
    arguments.end_with_reader()
    parser = arguments.Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="what it holds, what would be changed and left out")
    prepare = commands.add_parser("prepare", help="write the copy to replay into the cache")
    for command in (info, prepare):
        command.add_argument("file", help="pcap or pcapng, plain or gzip")
        command.add_argument("--schema", choices=reference.SCHEMAS, default="v1")
        command.add_argument("--handler", choices=tuple(reference.HANDLERS), default="rot1")
        command.add_argument("--json", action="store_true", help="print the plan as JSON")
    prepare.add_argument("--slot", type=int, metavar="BYTES", help="what a ring slot holds")
    prepare.add_argument("--warmup", type=int, default=0, metavar="REQUESTS")
    prepare.add_argument("--cache", default=str(CAPTURES), metavar="DIR")
    options = parser.parse_args()
    try:
        if options.command == "info":
            plan = capture.check(options.file, schema=options.schema, handler=options.handler)
        else:
            prepared = capture.prepare(
                options.file,
                schema=options.schema,
                handler=options.handler,
                slot_capacity=options.slot,
                warmup=options.warmup,
                cache_dir=options.cache,
            )
            plan = prepared.plan | {"directory": str(prepared.directory)}
    except capture.CaptureError as error:
        print(f"tickline: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(plan, indent=1))
    else:
        capture.show(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
