#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the lab at several values of one key: what each value does to a span."""

import argparse
import sys
from pathlib import Path

import _venv  # noqa: F401
from ticklab import arguments, vary

EPILOG = """\
examples:
  harness/vary.py configs/isolated.ini --key handler.cachewalk.size --values 16KiB..1GiB \\
    --per 5000 --set worker.handler=cachewalk --set handler.cachewalk.steps=5000 \\
    --set replay.requests=400 --set replay.warmup=40 --set replay.rate=160 \\
    --set replay.arrivals=fixed
  harness/vary.py configs/isolated.ini --key replay.payload --values 8,15,16,24,64 \\
    --set worker.handler=alloc --set pipeline.schema=v2

It leaves a run directory for each value, vary.json and vary.svg in runs/vary-NAME-TIME. LOW..HIGH
doubles from one to the other. Where the key is a size, the picture has the caches of this machine.

exit status: 0 fine, 1 an account does not balance, 2 usage or configuration, 4 the host cannot do
what was demanded, 128 + n ended by signal n
"""


def main() -> int:
    parser = arguments.Parser(
        prog="harness/vary.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="an INI file such as configs/isolated.ini")
    parser.add_argument("--key", required=True, metavar="SECTION.KEY", help="what is varied")
    parser.add_argument(
        "--values", required=True, metavar="LIST", help="8,16,64 or 16KiB..1GiB, which doubles"
    )
    parser.add_argument(
        "--span", default="worker_parsed..worker_done", help="(worker_parsed..worker_done)"
    )
    parser.add_argument(
        "--per", type=float, default=1.0, metavar="N", help="divides times, such as by steps (1)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="overrides the file; may be given several times",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="instead of runs/vary-NAME-TIME")
    parser.add_argument("--json", action="store_true", help="print vary.json instead of a table")
    given = parser.parse_args()
    try:
        values = vary.values_of(given.values)
    except ValueError as error:
        parser.error(f"--values {error}")
    if given.per <= 0:
        parser.error(f"--per {given.per:g}: expected more than 0")
    arguments.as_root()
    return vary.main(
        vary.Options(
            config=given.config,
            overrides=tuple(given.set),
            key=given.key,
            values=values,
            span=given.span,
            per=given.per,
            out=given.out,
            as_json=given.json,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
