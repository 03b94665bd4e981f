# SPDX-License-Identifier: Apache-2.0
"""Benchmark programs: which cases they hold, one start of one case, and many starts in turns.

A repetition is a process start. Rounds go round all cases, in another order each, so that what
changes in the host during a session meets all of them alike.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ticklab import child
from ticklab.arguments import USAGE
from ticklab.child import LabError
from ticklab.progress import Progress, say

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path("build/bench")
GATE = "instructions"  # a program of that folder that is no benchmark: see gate.py
SEED = 1
LISTING_S, PATIENCE_S = 10.0, 2.0

Entry = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """A folder with programs. Two sides are started by the same relative path, each from its own
    root: the length of a program's path moves its stack, and with that its times."""

    root: Path
    programs: Path = PROGRAMS

    @property
    def folder(self) -> Path:
        return self.root / self.programs


@dataclass(frozen=True)
class Case:
    name: str
    program: str


@dataclass(frozen=True)
class How:
    """Options that every start gets."""

    quick: bool = False
    cpus: str | None = None
    limit_s: float = 130.0

    def arguments(self) -> list[str]:
        quick = ["--quick"] if self.quick else []
        return quick + (["--cpus", self.cpus] if self.cpus else [])


def build() -> None:
    """Makes the programs of this tree."""
    if not (ROOT / "Makefile").exists():
        raise LabError(f"{ROOT}: no source tree; benchmarks are built and run in one")
    made = subprocess.run(
        ["make", "-s", "-j", str(os.cpu_count()), "-C", str(ROOT), "benches"],
        stdout=sys.stderr,
        check=False,
    )
    if made.returncode:
        raise LabError("the benchmarks do not build; see above, or `make benches`")


def cases(side: Side) -> list[Case]:
    """All cases of a side's programs. Beside these lie programs that some of them start, which
    know no --list (exit status 2); whatever else is wrong with a program is named."""
    if not side.folder.is_dir():
        raise LabError(f"{side.folder}: no such folder; make benches", 2)
    found: dict[str, Case] = {}
    for path in sorted(side.folder.iterdir()):
        if not path.is_file() or not os.access(path, os.X_OK) or path.name == GATE:
            continue
        done = None
        with suppress(subprocess.TimeoutExpired, OSError):
            done = subprocess.run(
                [path.resolve(), "--list"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LISTING_S,
                check=False,
            )
        names = done.stdout.split() if done and done.returncode == 0 else []
        if not names and (not done or done.returncode != USAGE):
            say(f"{path}: left out, it lists no benchmarks", "bench")
        elif taken := [name for name in names if name in found]:
            other = found[taken[0]].program
            say(f"{path}: left out, {other} has {taken[0]} already", "bench")
        else:
            found |= {name: Case(name, path.name) for name in names}
    return list(found.values())


@dataclass
class Session:
    """Rounds of process starts; what came of them is in `entries`, a list for each side."""

    sides: Sequence[Side]
    how: How
    entries: list[list[Entry]] = field(init=False)
    contexts: list[Entry] = field(init=False)
    failed: list[dict[str, str]] = field(init=False)  # name → how it ended badly
    hung: set[tuple[int, str]] = field(default_factory=set)
    interrupted: int = 0  # signal
    seconds: float = 0.0
    _running: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.entries = [[] for _ in self.sides]
        self.contexts = [{} for _ in self.sides]
        self.failed = [{} for _ in self.sides]

    def run(self, plan: Sequence[Sequence[Case]], repetitions: int, first: int = 0) -> None:
        """`plan` has a list of cases for each side; a case of several is started in turns of
        A B, B A, and so on. `first`: rounds that were before. Ends early at the first SIGINT or
        SIGTERM, with what there is."""
        rounds = list(_rounds(plan, range(first, first + repetitions)))
        begun = time.monotonic()
        with self._signals(), Progress("benchmarks", len(rounds), "starts", "bench") as progress:
            for done, (repetition, at, case) in enumerate(rounds):
                progress.update(done)
                entry = self._start(self.sides[at], case, at)
                if self.interrupted:
                    break
                entry |= {"repetitions": first + repetitions, "repetition_index": repetition}
                self.entries[at].append(entry)
            else:
                progress.close(len(rounds))
        self.seconds += time.monotonic() - begun

    def _start(self, side: Side, case: Case, at: int) -> Entry:
        """One process start of one case; its entry, whatever became of it."""
        if (at, case.name) in self.hung:  # it would take as long again
            return _failure(case.name, self.failed[at][case.name])
        argv = ["env", "-C", str(side.root), str(side.programs / case.program)]
        argv += ["--filter", case.name, "--repetitions", "1", "--json", "-", *self.how.arguments()]
        self._running = child.spawn(argv)
        try:
            out, err = self._running.communicate(timeout=self.how.limit_s)
            status = self._running.returncode
        except subprocess.TimeoutExpired:
            _end_group(self._running)
            out, err, status = b"", b"", None
        finally:
            self._running = None
        if self.interrupted:
            return {}
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(out)
            entry = next(one for one in told["benchmarks"] if one["name"] == case.name)
            self.contexts[at] = self.contexts[at] or told.get("context", {})
            return entry
        return self._ended_badly(case, at, status, err)

    def _ended_badly(self, case: Case, at: int, status: int | None, err: bytes) -> Entry:
        words = err.decode(errors="replace").strip().splitlines()
        if status is None:
            self.hung.add((at, case.name))
            why = f"no result within {self.how.limit_s:g} s; ended"
        elif status < 0:
            why = f"killed by {signal.Signals(-status).name}"
        else:
            why = words[-1] if words else f"no result; exit status {status}"
        if case.name not in self.failed[at]:
            say(f"{self.sides[at].folder / case.program}: {case.name}: {why}", "bench")
        self.failed[at][case.name] = why
        return _failure(case.name, why)

    def _take(self, number: int, _frame: object) -> None:
        """The first signal ends the start under way and with it the session, the second all."""
        if self.interrupted:
            child.kill_all()
            os._exit(128 + number)
        self.interrupted = number
        if self._running:
            _signal_group(self._running, signal.SIGTERM)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._take) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _rounds(
    plan: Sequence[Sequence[Case]], repetitions: Iterable[int]
) -> Iterator[tuple[int, int, Case]]:
    """(repetition, side, case) of every start, in order; the same order in every session."""
    names = list(dict.fromkeys(case.name for cases in plan for case in cases))
    by_name = [{case.name: case for case in cases} for cases in plan]
    for repetition in repetitions:
        random.Random(SEED + repetition).shuffle(names)
        for name in names:
            sides = range(len(plan))
            for at in sides if repetition % 2 == 0 else reversed(sides):
                if name in by_name[at]:
                    yield repetition, at, by_name[at][name]


def _failure(name: str, why: str) -> Entry:
    return {
        "name": name,
        "run_name": name,
        "run_type": "iteration",
        "error_occurred": True,
        "error_message": why,
    }


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a start and the processes it has begun: it leads a group of its own."""
    _signal_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=PATIENCE_S)
    _signal_group(process, signal.SIGKILL)
    process.communicate()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
