# SPDX-License-Identifier: Apache-2.0
"""Results of benchmarks as a person reads them: figures as text, and the tables of a terminal."""

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from ticklab.bench import judge, relations
from ticklab.bench.results import Row
from ticklab.terminal import console_for

_WIDE_FROM = 104
_WIDE = ("ns", "spread", "p99", "p99_9", "rate", "regime", "limit", "peer")
_TIMES = {0.5: "half of ", 1.0: "", 2.0: "twice "}
_NARROW = ("ns", "rate", "limit", "peer")
TITLES = {
    "name": "benchmark",
    "ns": "ns",
    "spread": "spread %",
    "p99": "p99",
    "p99_9": "p99.9",
    "max": "max",
    "n": "n",
    "rate": "rate",
    "regime": "consumer",
    "limit": "/ limit",
    "peer": "ahead of",
}
AHEAD = "ahead of: how many times faster ours is than the best peer; in a peer's row, than that one"
NO_RATIO = "-"  # to what costs next to nothing
STYLES = {
    judge.SLOWER: "bold red",
    judge.FASTER: "bold green",
    judge.SAME: "",
    judge.UNKNOWN: "yellow",
}


def number(value: float) -> str:
    """Three digits that count, or all before the point."""
    size = abs(value)
    return f"{value:,.{3 if size < 1 else 2 if size < 10 else 1 if size < 1000 else 0}f}"


def time(ns: float) -> str:
    """With the unit that suits it."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.3g} {unit}" if ns < 1000 * scale else f"{ns / scale:,.0f} {unit}"
    return f"{ns:.3g} ns"


def rate(per_second: float) -> str:
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if per_second >= scale:
            return f"{number(per_second / scale)} {unit}/s"
    return f"{number(per_second)} /s"


def spread(row: Row) -> str:
    """From the least to the most of the starts, in percent of the median."""
    if row.starts < 2 or row.ns is None or row.low is None or row.high is None:
        return ""
    if row.ns < judge.FLOOR_NS:
        return NO_RATIO
    low, high = ((end / row.ns - 1) * 100 for end in (row.low, row.high))
    return " ".join(f"{end:+.1f}" if abs(end) < 9.95 else f"{end:+,.0f}" for end in (low, high))


def cells(row: Row) -> dict[str, str]:
    """Every figure of a row as text; empty where there is none."""
    figures = {name: getattr(row, name) for name in ("ns", "p99", "p99_9", "max")}
    told = {name: "" if value is None else number(value) for name, value in figures.items()}
    return told | {
        "name": f"  {row.peer}" if row.peer else row.name,
        "n": f"{row.n:,}" if row.n else "",
        "spread": spread(row),
        "rate": rate(row.rate) if row.rate else "",
        "regime": row.regime,
        "limit": _ratio(row.of_limit) if row.limit else "",
        "peer": _peer(row),
    }


def _peer(row: Row) -> str:
    if row.best_peer:
        return f"{_ratio(row.of_peer)} {row.best_peer}"
    return "" if row.of_peer is None else _ratio(row.of_peer)


def _ratio(value: float | None) -> str:
    return NO_RATIO if value is None else f"{value:.2f}"


def limits(rows: Sequence[Row]) -> dict[str, float]:
    """What stands behind the column of ratios: a limit as a person names it, and its ns."""
    found = {}
    for row in rows:
        if row.limit and row.limit_ns is not None:
            bare = next((other.ns for other in rows if other.name == row.limit), None)
            times = row.limit_ns / bare if bare else 1.0
            name = _TIMES.get(times, f"{times:g} times ") + row.limit
            found[name] = row.limit_ns
    return found


def headline(context: dict[str, Any], rows: Sequence[Row]) -> str:
    """One line: what was run, on what."""
    starts = sorted({row.starts for row in rows if row.starts}) or [0]
    times = f"{starts[0]} to {starts[-1]}" if len(starts) > 1 else f"{starts[0]}"
    cpus = " and ".join(map(str, context.get("cpus", [])))
    text = f"{len(rows)} benchmark{'s' * (len(rows) > 1)}, "
    text += f"{times} process start{'s' * (starts[-1] > 1)} each"
    text += f" on CPUs {cpus}" if cpus else ""
    text += f" of {context['cpu']}" if context.get("cpu") else ""
    text += f", Linux {context['kernel']}" if context.get("kernel") else ""
    return text + (", a tenth of the work (--quick)" if context.get("quick") else "")


def show(rows: Sequence[Row], context: dict[str, Any], stream: TextIO | None = None) -> None:
    """Prints the table of results."""
    console = console_for(stream or sys.stdout)
    console.print(Text(headline(context, rows), "bold"))
    console.print()
    names = _WIDE if console.width >= _WIDE_FROM else _NARROW
    table = new_table()
    table.add_column("benchmark", overflow="fold")
    for name in names:
        left = name in ("regime",)
        table.add_column(TITLES[name], justify="left" if left else "right", no_wrap=True)
    for at, row in enumerate(rows):
        told = cells(row)
        table.add_row(
            Text(told["name"], "dim" if row.peer else "cyan"),
            *(told[name] for name in names),
            end_section=at + 1 < len(rows) and family(row) != family(rows[at + 1]),
        )
    console.print(table)
    for row in rows:
        if row.why:
            console.print(Text(f"{row.name}: {row.why}", "yellow"))
        elif row.note:
            console.print(Text(f"{row.name}: {row.note}", "dim"))
    if told := limits(rows):
        text = ", ".join(f"{name} {time(ns)}" for name, ns in told.items())
        console.print(Text(f"/ limit: times {text}"))
    if any(row.best_peer for row in rows):
        console.print(Text(AHEAD))


def show_comparison(found: dict[str, Any], stream: TextIO | None = None) -> None:
    """Prints what judge.judge() returns, with `baseline` and `interleaved`."""
    console = console_for(stream or sys.stdout)
    console.print()
    console.print(Text(f"beside the baseline {found['baseline']}", "bold"))
    for note in found["notes"]:
        console.print(Text(f"  {note}", "yellow"))
    console.print()
    table = new_table()
    table.add_column("benchmark", overflow="fold")
    for title in ("baseline ns", "now ns", "now / baseline", "95 % interval", "verdict"):
        left = title == "verdict"
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    for one in found["benchmarks"]:
        table.add_row(
            Text(one["name"], "cyan"),
            number(one["baseline_ns"]),
            number(one["now_ns"]),
            ratio(one),
            interval(one),
            Text(one["verdict"], STYLES[one["verdict"]]),
        )
    console.print(table)
    console.print(Text(meaning(found)))
    console.print(Text(verdict(found), "bold"))


def ratio(one: dict[str, Any]) -> str:
    """Of a verdict, now / baseline."""
    return f"{one['ratio']:.3f}" if one["baseline_ns"] > judge.FLOOR_NS else NO_RATIO


def interval(one: dict[str, Any]) -> str:
    if one["low"] is None:
        return ""
    told = f"{one['low']:.3f} .. {one['high']:.3f}"
    return told if one["baseline_ns"] > judge.FLOOR_NS else NO_RATIO


def meaning(found: dict[str, Any]) -> str:
    """What the verdicts of a comparison say, in a sentence."""
    return (
        f"slower, faster: by {found['effect'] * 100:.3g} % or more, and beyond chance among all"
        f" {len(found['benchmarks'])} ({found['test']});"
        " no difference: the interval holds no such effect"
    )


def verdict(found: dict[str, Any]) -> str:
    """The comparison in one line."""
    counts = dict.fromkeys(STYLES, 0)
    for one in found["benchmarks"]:
        counts[one["verdict"]] += 1
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none alike"


def new_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def family(row: Row) -> str:
    """The first part of a name, of a peer's too."""
    return (relations.beside(row.name) or row.name).split("/")[0]
