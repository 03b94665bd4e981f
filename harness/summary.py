#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rebuilds summary.json and latency.hgrm of a run from its raw files, and prints the summary."""

import _venv  # noqa: F401, I001 - moves to the repository's .venv before anything else is imported

import sys

from ticklab import arguments
from ticklab.ctf import TraceError
from ticklab.run import RunError
from ticklab.summary import to_json, write
from ticklab.terminal import show_summary


def main() -> int:
    arguments.end_with_reader()
    parser = arguments.Parser(
        description=__doc__,
        epilog="exit status: 0 fine, 1 the account does not balance, 2 not a run that can be read",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory, runs/NAME-TIME")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    options = parser.parse_args()
    try:
        summary = write(options.run)
    except (RunError, TraceError, OSError) as error:
        print(f"summary.py: {error}", file=sys.stderr)
        return 2
    if options.json:
        sys.stdout.write(to_json(summary))
    else:
        show_summary(summary)
    for line in summary["unbalanced"]:
        print(f"summary.py: {options.run}: the account does not balance: {line}", file=sys.stderr)
    return 0 if summary["balanced"] else 1


if __name__ == "__main__":
    sys.exit(main())
