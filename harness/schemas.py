#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the lab once for each schema and payload: what does it cost to parse, to serialise, to send?

The same requests each time, as v1 text, v2 binary, v3 protobuf and v4 Cap'n Proto.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import _venv  # noqa: F401
from ticklab import arguments, schemas

EPILOG = """\
examples:
  harness/schemas.py configs/isolated.ini
  harness/schemas.py configs/isolated.ini --payloads 8,64,512,4096 --set worker.handler=fizzbuzz

It leaves a run directory for each, schemas.json and schemas.svg in runs/schemas-NAME-TIME. Parsing
is the span worker_got..worker_parsed; serialising is worker_done..worker_put, the publish included,
which is the same for all.

exit status: 0 fine, 1 an account does not balance, 2 usage or configuration, 4 the host cannot do
what was demanded, 128 + n ended by signal n
"""


def main() -> int:
    parser = arguments.Parser(
        prog="harness/schemas.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="an INI file such as configs/isolated.ini")
    parser.add_argument(
        "--payloads", default="8,512", metavar="BYTES,…", help="bytes of a payload (8,512)"
    )
    parser.add_argument(
        "--requests", type=int, default=20_000, metavar="N", help="of each run (20000)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="overrides the file; may be given several times",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="instead of runs/schemas-NAME-TIME")
    parser.add_argument("--json", action="store_true", help="print schemas.json instead of a table")
    given = parser.parse_args()
    words = given.payloads.split(",")
    if not all(word.isdigit() and int(word) <= schemas.PAYLOAD_MAX for word in words):
        most = f"{schemas.PAYLOAD_MAX:,}"
        parser.error(f"--payloads {given.payloads}: expected bytes up to {most}, such as 8,512")
    if given.requests < 1000:
        parser.error(f"--requests {given.requests}: expected at least 1,000, or there is no p99")
    _as_root()
    return schemas.main(
        schemas.Options(
            config=given.config,
            overrides=tuple(given.set),
            payloads=tuple(sorted(set(map(int, words)))),
            requests=given.requests,
            out=given.out,
            as_json=given.json,
        )
    )


def _as_root() -> None:
    """Without root, a user namespace of one's own gives a network too, as in launch.sh."""
    if os.geteuid() == 0:
        return
    namespace = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*namespace, "true"], check=False).returncode != 0:
        print("tickline: no user namespaces here; run it as root", file=sys.stderr)
        sys.exit(4)
    os.execvp(namespace[0], [*namespace, sys.executable, *sys.argv])


if __name__ == "__main__":
    sys.exit(main())
