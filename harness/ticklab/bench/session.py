# SPDX-License-Identifier: Apache-2.0
"""A session of benchmarks: what is run, what is kept of it, how it is told."""

import fnmatch
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ticklab import manifest
from ticklab.bench import baseline, judge, page, relations, starts, table
from ticklab.bench.baseline import Baseline, Keeper
from ticklab.bench.results import Results, google
from ticklab.bench.starts import ROOT, Case, Session, Side
from ticklab.child import LabError
from ticklab.progress import say

REPETITIONS = 9
WEAKER = (
    "weaker: its programs were not kept or do not run here, so these are its results of {date}, "
    "and the host may have changed since; --save-baseline keeps programs"
)


@dataclass(frozen=True)
class Options:
    """The command line; see harness/bench.py."""

    how: starts.How
    filters: tuple[str, ...] = ()
    repetitions: int | None = None
    json: str | None = None
    html: Path | None = None
    save: str | None = None
    baseline: str | None = None
    effect: float = judge.EFFECT
    programs: Path | None = None  # instead of building and running this tree's


def main(options: Options) -> int:
    """Runs and tells; the exit status."""
    benchmarks = Benchmarks(options)
    keeper = Keeper(options.save, benchmarks.side) if options.save else None
    try:
        benchmarks.run()
        status = benchmarks.tell()
        if keeper:
            benchmarks.keep(keeper)
        return status
    finally:
        if keeper:
            keeper.drop()


def list_names(options: Options) -> int:
    for case in _prepare(options)[1]:
        print(case.name)
    return 0


def _prepare(options: Options) -> tuple[Side, list[Case]]:
    """The programs, built, and the cases of them that are asked for, in order."""
    if options.programs:
        side = Side(Path.cwd(), options.programs.resolve())
    else:
        starts.build()
        side = Side(ROOT)
    found = {case.name: case for case in starts.cases(side)}
    if not found:
        raise LabError(f"{side.folder}: no benchmarks there; make benches", 2)
    wanted = list(found)
    if options.filters:
        for pattern in options.filters:
            if not fnmatch.filter(found, pattern):
                raise LabError(f"--filter {pattern}: no such benchmark; see --list", 2)
        wanted = [n for n in found if any(fnmatch.fnmatchcase(n, p) for p in options.filters)]
    elif options.how.quick:
        wanted = relations.headlines(wanted)
    return side, [found[name] for name in relations.in_order(wanted)]


class Benchmarks:
    """A session: what it needs is settled by the constructor, everything else happens later."""

    def __init__(self, options: Options) -> None:
        """Raises LabError."""
        self.options = options
        self.side, self.cases = _prepare(options)
        self.baseline = baseline.load(options.baseline) if options.baseline else None
        if self.baseline:
            _same_amount(self.baseline, options.how.quick)
        once = options.how.quick and not self.baseline
        self.repetitions = options.repetitions or (1 if once else REPETITIONS)
        # Where nobody said how often, what is inconclusive is started as often again.
        self.looks = 2 if self.interleaved and not options.repetitions else 1
        sides = [self.side]
        if self.baseline and self.baseline.side:
            sides.append(self.baseline.side)
        self.session = Session(sides, options.how)

    @property
    def interleaved(self) -> bool:
        """Do both sides run?"""
        return bool(self.baseline and self.baseline.side)

    def run(self) -> None:
        """All rounds; Ctrl-C ends them early."""
        plan = self._plan([case.name for case in self.cases])
        self.session.run(plan, self.repetitions)
        if self.looks == 2 and not self.session.interrupted:
            first = self.comparison()
            unknown = judge.UNKNOWN
            again = [one["name"] for one in first["benchmarks"] if one["verdict"] == unknown]
            if again:
                say(f"once more what is inconclusive so far, {len(again)} benchmarks", "bench")
                self.session.run(self._plan(again), self.repetitions, self.repetitions)

    def _plan(self, names: Sequence[str]) -> list[list[Case]]:
        """The cases of each side. Peers are no matter of a baseline."""
        plan = [[case for case in self.cases if case.name in names]]
        if self.baseline and self.baseline.side:
            ours = {name for name in names if not relations.beside(name)}
            plan.append([case for case in self.baseline.cases if case.name in ours])
        return plan

    # ---- what came of it ----

    def results(self) -> Results:
        return Results(self.session.entries[0], [case.name for case in self.cases])

    def before(self) -> Results | None:
        """The baseline's, of this session where its programs took part."""
        if not self.baseline:
            return None
        kept = self.baseline.results["benchmarks"]
        return Results(self.session.entries[1] if self.interleaved else kept)

    def comparison(self) -> dict[str, Any]:
        """What judge.judge() finds, and what it could not be asked."""
        results, before = self.results(), self.before()
        assert self.baseline
        assert before
        ours = [name for name in results.names if not relations.beside(name)]
        both = [name for name in ours if results.starts(name) and before.starts(name)]
        found = judge.judge(
            {name: (before.values(name), results.values(name)) for name in both},
            self.options.effect,
            self.looks,
        )
        notes = found["notes"]
        if not self.interleaved:
            date = self.baseline.results["context"].get("date", "another day")
            notes.insert(0, WEAKER.format(date=date))
        for name in ours:
            if before.starts(name) and not results.starts(name):
                found["exit"] = found["exit"] or judge.INCONCLUSIVE
                notes.append(f"{name}: has a figure in the baseline and none now")
            elif name not in both:
                notes.append(f"{name}: not compared, the baseline has no figure")
        return {"baseline": self.baseline.name, "interleaved": self.interleaved, **found}

    def tell(self) -> int:
        """Writes the JSON and the page, prints the tables; the exit status."""
        results = self.results()
        told = google(self._context(), results)
        if self.baseline:
            told["comparison"] = self.comparison()
        self.text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
        written = self._write(told, results)
        to_stdout = self.options.json == "-"
        if to_stdout:
            sys.stdout.write(self.text)
        else:
            table.show(results.rows(), told["context"])
            if self.baseline:
                table.show_comparison(told["comparison"])
        if self.session.interrupted:
            name = signal.Signals(self.session.interrupted).name
            say(f"ended early by {name}; what was measured by then is told", "bench")
        count = sum(map(len, self.session.entries))
        say(f"{count} process starts in {self.session.seconds:.0f} s", "bench")
        print(f"page: {written}", file=sys.stderr if to_stdout else sys.stdout)
        return self._status(results, told.get("comparison"))

    def keep(self, keeper: Keeper) -> None:
        """The session under the name that it shall be a baseline by, where it is whole."""
        results = self.results()
        if self.session.interrupted or not any(map(results.starts, results.names)):
            say(f"--save-baseline {self.options.save}: not kept, nothing whole to keep", "bench")
        else:
            keeper.keep(self.text)

    def _status(self, results: Results, comparison: dict[str, Any] | None) -> int:
        """Worst first: ended early, one ended badly or is slower, none could run, no verdict."""
        if self.session.interrupted:
            return 128 + self.session.interrupted
        if self.session.failed[0] or (comparison and comparison["exit"] == judge.REGRESSION):
            return 1
        if not any(map(results.starts, results.names)):
            return 4
        return comparison["exit"] if comparison else 0

    def _context(self) -> dict[str, Any]:
        """Google Benchmark's, as the programs give it, and what was run."""
        host = manifest.host()
        context = dict(self.session.contexts[0])
        programs = {case.program for case in self.cases}
        return {
            "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S+00:00}",
            "kernel": os.uname().release,
            **context,
            "executable": "harness/bench.py",
            "cpu": host["cpu"],
            "host": host["host"],
            "load_avg": [round(load, 2) for load in os.getloadavg()],
            "quick": self.options.how.quick,
            "repetitions": self.repetitions,
            "order_seed": starts.SEED,
            "seconds": round(self.session.seconds, 1),
            "interrupted": bool(self.session.interrupted),
            "git": manifest.git(ROOT),
            "programs": {
                name: manifest.build_id(self.side.folder / name) for name in sorted(programs)
            },
        }

    def _write(self, told: dict[str, Any], results: Results) -> Path:
        """The JSON and the page, where they are asked for or in a folder of their own; the page."""
        options = self.options
        folder = Path("runs") / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        html = options.html or folder / "bench.html"
        try:
            if options.json != "-":
                path = Path(options.json) if options.json else folder / "bench.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.text)
            html.parent.mkdir(parents=True, exist_ok=True)
            html.write_text(page.html(told, results, self.before()))
        except OSError as error:
            raise LabError(f"{error.filename}: {error.strerror}; see --json and --html") from None
        return html


def _same_amount(kept: Baseline, quick: bool) -> None:
    """Kept results of a quick session say nothing about a whole one."""
    if not kept.side and kept.quick != quick:
        wrong = "of --quick; give that too" if kept.quick else "without --quick; leave it out"
        raise LabError(f"--baseline {kept.name}: its results are {wrong}", 2)
