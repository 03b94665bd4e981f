# SPDX-License-Identifier: Apache-2.0
"""How far something is, on stderr: a bar on a terminal, else a line every two seconds."""

import sys
import time
from types import TracebackType

LINE_S = 2.0
BAR_S = 0.1


def say(text: str, tool: str = "lab") -> None:
    """A step of a tool, on stderr."""
    print(f"{tool}: {text}", file=sys.stderr, flush=True)


class Progress:
    """Counts up to `total` of a unit; a context manager. Nothing runs beside the caller.

    `planned_s`: how long it takes, where that is known; else what is left follows from the count.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str = "datagrams",
        tool: str = "lab",
        planned_s: float = 0.0,
    ) -> None:
        self._label, self._total, self._unit, self._tool = label, total, unit, tool
        self._planned_s = planned_s
        self._begun = time.monotonic()
        self._shown = self._begun
        self._bar = _bar(label, total, unit, tool) if sys.stderr.isatty() else None

    def update(self, done: int) -> None:
        now = time.monotonic()
        if self._bar and now - self._shown >= BAR_S:
            left = self._left(done, now - self._begun)
            self._bar.update(self._bar.task_ids[0], completed=done, left=left, refresh=True)
            self._shown = now
        elif not self._bar and now - self._shown >= LINE_S:
            text = f"{self._label}: {done:,} of {self._total:,} {self._unit}"
            say(text + self._left(done, now - self._begun), self._tool)
            self._shown = now

    def close(self, done: int) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, left="", refresh=True)

    def _left(self, done: int, elapsed: float) -> str:
        if not 0 < done < self._total:
            return ""
        left = self._planned_s - elapsed
        if left <= 0:
            left = elapsed * (self._total - done) / done
        return f", {left:,.0f} s left"

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()


def _bar(label: str, total: int, unit: str, tool: str):  # rich is imported only where it is shown
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn(f"{tool}: {{task.description}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "{task.fields[left]}"),
        console=Console(stderr=True),
        auto_refresh=False,
    )
    bar.add_task(label, total=total, left="")
    return bar
