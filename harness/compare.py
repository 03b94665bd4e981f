#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts two runs side by side: times, how they were made, and requests whose replies differ."""

import _venv  # noqa: F401, I001 - moves to the repository's .venv before anything else is imported

import sys

from ticklab import arguments
from ticklab.compare import compare
from ticklab.ctf import TraceError
from ticklab.run import Run, RunError
from ticklab.summary import to_json
from ticklab.terminal import show_comparison


def main() -> int:
    arguments.end_with_reader()
    parser = arguments.Parser(
        description=__doc__,
        epilog="exit status: 1 replies differ, 2 not runs that can be read, 3 no verdict (one run "
        "a side never gives one)",
    )
    parser.add_argument("a", metavar="A", help="a run directory")
    parser.add_argument("b", metavar="B", help="the run to compare with it")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    options = parser.parse_args()
    try:
        comparison = compare(Run(options.a), Run(options.b))
    except (RunError, TraceError, OSError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    if options.json:
        sys.stdout.write(to_json(comparison))
    else:
        show_comparison(comparison)
    return comparison["exit"]


if __name__ == "__main__":
    sys.exit(main())
