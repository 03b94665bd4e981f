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
    """Counts up to `total` of a unit; a context manager. Nothing runs beside the caller."""

    def __init__(self, label: str, total: int, unit: str = "datagrams", tool: str = "lab") -> None:
        self._label, self._total, self._unit, self._tool = label, total, unit, tool
        self._begun = time.monotonic()
        self._shown = self._begun
        self._bar = _bar(label, total, unit, tool) if sys.stderr.isatty() else None

    def update(self, done: int) -> None:
        now = time.monotonic()
        if self._bar and now - self._shown >= BAR_S:
            self._bar.update(self._bar.task_ids[0], completed=done, refresh=True)
            self._shown = now
        elif not self._bar and now - self._shown >= LINE_S:
            say(self._line(done, now - self._begun), self._tool)
            self._shown = now

    def close(self, done: int) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, refresh=True)

    def _line(self, done: int, elapsed: float) -> str:
        text = f"{self._label}: {done:,} of {self._total:,} {self._unit}"
        if 0 < done < self._total:
            text += f", {elapsed * (self._total - done) / done:,.0f} s left"
        return text

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
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn(f"{tool}: {{task.description}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
    )
    bar.add_task(label, total=total)
    return bar
