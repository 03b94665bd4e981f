#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks, a process start a repetition, all in turns; beside limits, peers, baseline.

With --instructions it counts instead: instructions a request on the hot path, which no noise
reaches.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import _venv  # noqa: F401
from ticklab import arguments
from ticklab.bench import gate, judge, session, starts
from ticklab.child import LabError

EPILOG = """\
examples:
  harness/bench.py --quick                        every headline once, in under a minute
  harness/bench.py                                all benchmarks, 9 process starts each
  harness/bench.py --filter 'ring/*' --filter 'peer/*/ring/*' --filter limit/pingpong
  harness/bench.py --quick --repetitions 9 --save-baseline before
  harness/bench.py --quick --baseline before      old and new programs in turns, with verdicts
  harness/bench.py --instructions                 the gate; --record keeps what it counts

A repetition is a process start; rounds go round all benchmarks, in another order each. The table
shows medians over starts, how far these lie apart, and the ratios to the machine's limit and to the
best peer, of the same session. Peers take part once `make bench-peers` has built them. It leaves
bench.json (Google Benchmark's format) and bench.html (distributions) in runs/bench-TIME; the page's
path is the last line. Ctrl-C ends the session early and tells what was measured.

A baseline lies in .cache/bench/NAME; a NAME with a slash is a folder. Its programs run in turns
with those of the tree, A B and B A; where only results are left, these are compared, which says
less.

verdicts beside a baseline:
  slower, faster  different beyond chance among all benchmarks compared (Mann-Whitney over process
                  starts, Holm's correction at 5 %), and by an effect that counts
  no difference   the 95 % interval of the ratio holds no effect that counts
  inconclusive    neither; without --repetitions it is started as often again and judged once more

--instructions judges within 2 %, where counts are recorded in tests/bench/instructions.json for
this compiler, libc and CPU. It needs valgrind; verdicts need scipy and the page's pictures
matplotlib: harness/setup.sh valgrind requirements-bench.txt

exit status: 0 fine, 1 slower than the baseline or more instructions than recorded, or a benchmark
that crashed or hung, 2 usage, 3 inconclusive, 4 the host cannot do what was demanded, 128 + n
ended by signal n
"""


def main() -> int:
    parser = arguments.Parser(
        prog="harness/bench.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--filter",
        action="append",
        default=[],
        metavar="GLOB",
        help="only the benchmarks whose name matches; may be given several times",
    )
    add(
        "--quick",
        action="store_true",
        help="a tenth of the work, once; without --filter the headlines alone",
    )
    add(
        "--repetitions",
        type=_positive,
        metavar="N",
        help="process starts of each (9; --quick without --baseline: 1)",
    )
    add("--cpus", type=_pair, metavar="A,B", help="the pair to measure on (the first two allowed)")
    add("--json", metavar="FILE", help="where the JSON goes; - is stdout, instead of the table")
    add("--html", type=Path, metavar="FILE", help="where the page goes")
    add("--save-baseline", type=_name, metavar="NAME", help="keeps results and programs")
    add("--baseline", type=_name, metavar="NAME", help="compares with them, both in turns")
    add(
        "--effect",
        type=_percent,
        default=judge.EFFECT,
        metavar="PERCENT",
        help=f"the smallest difference that counts ({judge.EFFECT:.0%}%)",
    )
    add(
        "--timeout",
        type=_positive,
        metavar="SECONDS",
        help="ends a start that takes longer (130; --quick: 30)",
    )
    add("--programs", type=Path, metavar="DIR", help="instead of build/bench; builds nothing")
    add("--list", action="store_true", help="prints the names and ends")
    add("--instructions", action="store_true", help="counts instructions a request by callgrind")
    add("--record", action="store_true", help="with --instructions: keeps the counts as baseline")
    given = parser.parse_args()
    if given.record and not given.instructions:
        parser.error("--record: expected --instructions with it")
    if given.programs and not given.programs.is_dir():
        parser.error(f"--programs {given.programs}: expected a folder")
    try:
        return _gate(given) if given.instructions else _bench(given)
    except KeyboardInterrupt:  # while it builds or draws; Session takes those between
        return 130
    except LabError as error:
        print(f"tickline: {error}", file=sys.stderr)
        return error.status


def _bench(given: argparse.Namespace) -> int:
    limit_s = given.timeout or (30 if given.quick else 130)
    options = session.Options(
        how=starts.How(given.quick, given.cpus, float(limit_s)),
        filters=tuple(given.filter),
        repetitions=given.repetitions,
        json=given.json,
        html=given.html,
        save=given.save_baseline,
        baseline=given.baseline,
        effect=given.effect,
        programs=given.programs,
    )
    return session.list_names(options) if given.list else session.main(options)


def _gate(given: argparse.Namespace) -> int:
    return gate.main(
        gate.Options(
            filters=tuple(given.filter),
            json=given.json,
            record=given.record,
            only_list=given.list,
            programs=given.programs,
        )
    )


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1 to 9999")
    return int(text)


def _percent(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%?", text)
    if not found or not 0 < float(found[1]) <= 100:
        raise argparse.ArgumentTypeError(f"{text}: expected a percentage such as 2%")
    return float(found[1]) / 100


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w./-]*\w", text):
        raise argparse.ArgumentTypeError(f"{text}: expected a name such as before, or a folder")
    return text


def _pair(text: str) -> str:
    allowed = sorted(os.sched_getaffinity(0))
    found = re.fullmatch(r"(\d+),(\d+)", text)
    if not found or not {int(found[1]), int(found[2])} <= set(allowed):
        these = ", ".join(map(str, allowed))
        raise argparse.ArgumentTypeError(f"{text}: expected two of the CPUs allowed here: {these}")
    return text


if __name__ == "__main__":
    sys.exit(main())
