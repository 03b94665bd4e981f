# SPDX-License-Identifier: Apache-2.0
"""Baselines: the results of a session under a name, and the programs that gave them.

    .cache/bench/NAME/bench.json     as the session left it
    .cache/bench/NAME/build/…        the programs, where they lie in a tree; also configs/

With the programs a later session can run both sides in turns; results alone were measured in other
hours, on a host that may have been another one since. A NAME with a slash is a folder anywhere.
"""

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticklab.bench import starts
from ticklab.bench.starts import PROGRAMS, ROOT, Case, Side
from ticklab.child import LabError
from ticklab.progress import say

FOLDER = ROOT / ".cache" / "bench"
# What benchmarks of whole pipelines start or read, beside the benchmark programs.
_NEEDED = ("build/[!.]*", "configs/*.ini")
_NEEDLESS = ("test_*", "*.log")
_PEER = "peer_*"  # other people's programs do not change with ours


@dataclass(frozen=True)
class Baseline:
    name: str
    results: dict[str, Any]
    side: Side | None  # None where its programs were not kept, or do not run here
    cases: Sequence[Case]  # of the side

    @property
    def quick(self) -> bool:
        return bool(self.results["context"].get("quick"))


def place(name: str) -> Path:
    return Path(name).resolve() if "/" in name else FOLDER / name


def load(name: str) -> Baseline:
    """Raises LabError where there is none."""
    path = place(name)
    try:
        results = json.loads((path / "bench.json").read_text())
        if not {"context", "benchmarks"} <= results.keys():
            raise ValueError
    except (OSError, ValueError, AttributeError):
        there = sorted(each.parent.name for each in FOLDER.glob("*/bench.json"))
        kept = f"there are: {', '.join(there)}" if there else f"keep one by --save-baseline {name}"
        raise LabError(f"--baseline {name}: none in {path}; {kept}", 2) from None
    side, cases = Side(path), []
    if side.folder.is_dir():
        cases = starts.cases(side)
    return Baseline(name, results, side if cases else None, cases)


class Keeper:
    """Keeps the programs as they are when a session begins, under the name once it has ended."""

    def __init__(self, name: str, side: Side) -> None:
        """Raises LabError where there is no room."""
        self.path = place(name)
        self.part = self.path.with_name(self.path.name + ".part")
        try:
            shutil.rmtree(self.part, ignore_errors=True)
            programs = self.part / PROGRAMS
            programs.mkdir(parents=True)
            for path in side.folder.iterdir():
                if path.is_file() and not path.match(_PEER) and path.name != starts.GATE:
                    shutil.copy2(path, programs)
            if side.root == ROOT:
                self._copy_needed()
        except OSError as error:
            raise LabError(f"--save-baseline {name}: {error.filename}: {error.strerror}") from None

    def _copy_needed(self) -> None:
        for pattern in _NEEDED:
            for path in ROOT.glob(pattern):
                if path.is_file() and not any(map(path.match, _NEEDLESS)):
                    to = self.part / path.relative_to(ROOT)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, to)

    def keep(self, results: str) -> None:
        """An older one of the same name goes."""
        (self.part / "bench.json").write_text(results)
        old = self.path.with_name(self.path.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(old)
        self.part.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)
        say(f"baseline kept in {self.path}", "bench")

    def drop(self) -> None:
        shutil.rmtree(self.part, ignore_errors=True)
