#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the lab: network, pipeline, replay, account. Leaves a run directory and prints a summary."""

import argparse
import sys
from pathlib import Path

import _venv  # noqa: F401
from ticklab import arguments, lab, prepare

EPILOG = """\
examples:
  ./launch.sh configs/isolated.ini
  ./launch.sh configs/isolated.ini --capture my.pcap --speed 10x
  ./launch.sh configs/isolated.ini --set worker.count=2 --set replay.rate=50k --name two-workers
  ./launch.sh configs/isolated.ini --serve

exit status: 0 fine, 1 the account does not balance, 2 usage or configuration, 4 the host cannot do
what was demanded, 128 + n ended by signal n
"""


def main() -> int:
    parser = arguments.Parser(
        prog="launch.sh" if prepare.IN_SOURCES else "tickline-lab",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="an INI file such as configs/isolated.ini")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="overrides the file; may be given several times",
    )
    parser.add_argument("--capture", metavar="FILE", help="pcap or pcapng to replay")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--speed", metavar="SPEED", help="1x, 10x …, or top")
    speed.add_argument(
        "--pps",
        metavar="N",
        help="so many packets a second, evenly, instead of the capture's times",
    )
    parser.add_argument("--name", metavar="NAME", help="of the run and its directory")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs go (./runs)"
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="pipeline up until Ctrl-C, for a client or player of one's own",
    )
    parser.add_argument(
        "--start-order", metavar="NAMES", help="such as rx,worker0,tx; consumers first without it"
    )
    given = parser.parse_args()
    short = {
        "replay.capture": given.capture,
        "replay.speed": f"{given.pps.removesuffix('pps')}pps" if given.pps else given.speed,
        "pipeline.name": given.name,
    }
    overrides = given.set + [f"{key}={value}" for key, value in short.items() if value is not None]
    return lab.main(
        lab.Options(given.config, tuple(overrides), given.runs, given.serve, given.start_order)
    )


if __name__ == "__main__":
    sys.exit(main())
