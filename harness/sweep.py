#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the lab at rising rates: where latency bends, what is lost, what a promised p99 allows.

A capture is generated for each rate; a given one is replayed at that rate, evenly spaced.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _venv  # noqa: F401
from ticklab import arguments, sweep, units

EPILOG = """\
examples:
  harness/sweep.py configs/isolated.ini --rates 1k..200k
  harness/sweep.py configs/isolated.ini --rates 5k..80k --p99 100us --set replay.arrivals=poisson
  harness/sweep.py configs/isolated.ini --rates 1k..50k --capture my.pcap --order random

It leaves a run directory for each rate, sweep.json and sweep.svg in runs/sweep-NAME-TIME. The knee
is the highest rate whose p99 is within 3 times that of low rates with nothing dropped; saturation
is what comes out at most. Ctrl-C ends the run under way and keeps those before.

exit status: 0 fine, 1 an account does not balance, 2 usage or configuration, 3 no rate was slow
enough to judge, 4 the host cannot do what was demanded, 128 + n ended by signal n
"""


def main() -> int:
    parser = arguments.Parser(
        prog="harness/sweep.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="an INI file such as configs/isolated.ini")
    parser.add_argument(
        "--rates", type=_of(units.span), required=True, metavar="LOW..HIGH", help="1k..200k"
    )
    parser.add_argument(
        "--points", type=int, default=12, metavar="N", help="rates, in geometric steps (12)"
    )
    parser.add_argument(
        "--p99", type=_of(units.time_ns), metavar="TIME", help="asks for the highest rate within"
    )
    parser.add_argument(
        "--knee",
        type=float,
        default=3.0,
        metavar="K",
        help="p99 of the knee, times that of low rates (3)",
    )
    parser.add_argument(
        "--requests",
        type=_of(units.count),
        metavar="N",
        help="generated for each rate (20k); p99.9 needs 10k",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="fewer requests at rates where they would take longer (10), but at least 1,000",
    )
    parser.add_argument("--order", choices=sweep.ORDERS, default="up", help="of the rates (up)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="overrides the file; may be given several times",
    )
    parser.add_argument("--capture", metavar="FILE", help="pcap or pcapng to replay")
    parser.add_argument("--out", type=Path, metavar="DIR", help="instead of runs/sweep-NAME-TIME")
    parser.add_argument("--json", action="store_true", help="print sweep.json instead of a table")
    given = parser.parse_args()
    for name, right, expected in (
        ("points", 2 <= given.points <= 100, "2 to 100"),
        ("knee", given.knee > 1, "more than 1"),
        ("seconds", given.seconds > 0, "more than 0"),
        ("requests", (given.requests or 1000) >= 1000, "at least 1,000, or there is no p99"),
        (
            "requests",
            not (given.requests and given.capture),
            "none with --capture, which goes whole",
        ),
    ):
        if not right:
            parser.error(f"--{name} {getattr(given, name):g}: expected {expected}")
    arguments.as_root()
    return sweep.main(
        sweep.Options(
            config=given.config,
            overrides=tuple(given.set),
            rates=given.rates,
            points=given.points,
            requests=int(given.requests or 20_000),
            seconds=given.seconds,
            factor=given.knee,
            p99_ns=given.p99,
            capture=given.capture,
            order=given.order,
            out=given.out,
            as_json=given.json,
        )
    )


def _of(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of argparse that says what was expected."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


if __name__ == "__main__":
    sys.exit(main())
