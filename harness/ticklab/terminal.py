# SPDX-License-Identifier: Apache-2.0
"""A summary and a comparison as a person reads them, in 80 to 120 columns.

Colour only on a terminal, and not where NO_COLOR is set; everything is said without it too.
"""

import math
import os
import shutil
import sys
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ticklab.stats import BOUNDS, bin_end

COLUMNS_MIN, COLUMNS_MAX = 80, 120
_TITLES = {
    "p50": "p50",
    "p90": "p90",
    "p99": "p99",
    "p99_9": "p99.9",
    "p99_99": "p99.99",
    "max": "max",
}
_WIDE, _NARROW = tuple(_TITLES), ("p50", "p99", "p99_9", "max")
_WIDE_FROM = 104
_STYLES = {"wait": "yellow", "work": "cyan", "mixed": "magenta"}
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_RESTARTS = 5  # told one by one
_PICTURE_ROWS, _PICTURE_COLUMNS, _PICTURE_OCTAVES = 3, 76, 3


def console_for(stream: TextIO) -> Console:
    """A console of 80 to 120 columns; no escape codes unless `stream` is a terminal that may."""
    colour = stream.isatty() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((COLUMNS_MAX, 24)).columns
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    return Console(
        file=stream,
        width=min(max(width, COLUMNS_MIN), COLUMNS_MAX),
        color_system="auto" if colour else None,
        force_terminal=colour,
        highlight=False,
        emoji=False,
        markup=False,
    )


def us(ns: float) -> str:
    """Microseconds, with the ns where they matter."""
    figure = ns / 1000
    return (
        f"{figure:,.3f}"
        if abs(figure) < 10
        else f"{figure:,.2f}"
        if abs(figure) < 1e4
        else f"{figure:,.0f}"
    )


def show_summary(summary: dict, stream: TextIO | None = None) -> None:
    """Prints the contents of a summary.json."""
    console = console_for(stream or sys.stdout)
    _headline(console, summary)
    _ledgers(console, summary)
    _spans(console, summary["latency_ns"])
    for name, bins in summary["histogram_ns"].items():
        _picture(console, name, bins)
    _stages(console, summary)
    _workers(console, summary)
    _counters(console, summary)
    _facts(console, summary)


def _headline(console: Console, summary: dict) -> None:
    load, line = summary["load"], Text()
    line.append(summary["name"], "bold")
    line.append(f"  {load['requests']:,} requests")
    if "requests_per_s" in load:
        line.append(f" at {load['requests_per_s']:,.0f}/s for {load['duration_ns'] / 1e9:,.2f} s")
    if summary["balanced"]:
        line.append("  ✓ the account balances", "green")
    else:
        line.append("  ✗ the account does not balance", "bold red")
    console.print(line)
    for failing in summary["unbalanced"]:
        console.print(Text(f"  ✗ {failing}", "red"))
    for name, reasons in (("degraded", "degraded_because"), ("incomplete", "incomplete_because")):
        for reason in summary[reasons]:
            console.print(Text(f"  {name}: {reason}", "yellow"))
    for line in _restarts(summary.get("restarts", [])):
        console.print(Text(f"  {line}", "yellow"))
    replies = summary.get("replies", {})
    if "unchecked" in replies:
        said = f"{replies['unchecked']:,} replies are unchecked: {replies['why']}"
        console.print(Text(f"  {said}", "yellow"))
    if "first_wrong" in replies:
        said = f"the first wrong reply is that to request {replies['first_wrong']['request']}"
        console.print(Text(f"  {said}", "red"))
    if suspect := summary["account"]["requests"].get("suspect"):
        said = f"{suspect:,} requests are suspect: the handler's state died with its worker"
        console.print(Text(f"  {said}", "yellow"))
    if "first_loss" in summary:
        console.print(Text(f"  {_loss(summary['first_loss'])}", "yellow"))
    console.print()


def _restarts(restarts: list[dict]) -> list[str]:
    """A line for each of the first restarts, and one for the others."""
    lines = []
    for restart in restarts[:_RESTARTS]:
        gone, waiting = restart.get("gone_ns"), restart["waiting"]
        back = f"gone for {gone / 1e6:,.1f} ms" if gone is not None else "not back"
        which = f"{restart['first_waiting']} to {restart['last_waiting']}" if waiting else ""
        waited = f"; requests {which} waited" if waiting else ""
        lines.append(f"{restart['stage']} was {restart['cause']}: {back}{waited}")
    if len(restarts) > _RESTARTS:
        lines.append(f"and {len(restarts) - _RESTARTS} restarts more; see summary.json")
    return lines


def _loss(loss: dict) -> str:
    lines = (
        ", ".join(f"{name} {count:,}" for name, count in loss["lines"].items())
        or "no line names it"
    )
    after = f" (planned at {loss['planned_ns'] / 1e9:.6f} s)" if loss["planned_ns"] else ""
    where = "received, not answered" if loss["received"] else "never received"
    which = f"first loss: request {loss['position']:,} of those offered{after}"
    return f"{which}, {where}; losses there: {lines}"


def _ledgers(console: Console, summary: dict) -> None:
    requests = summary["account"]["requests"]
    dropped, flight = requests["dropped"], requests["in_flight"]
    rejected = {reason: count for reason, count in requests["rejected"].items() if count}
    told = (
        f" ({', '.join(f'{reason} {n:,}' for reason, n in rejected.items())})" if rejected else ""
    )
    lines = [
        *_carriers(summary["account"]),
        (
            "requests",
            [("offered", requests.get("offered"))],
            [
                ("received", requests["received"]),
                ("lost_with_datagrams", requests.get("lost_with_datagrams")),
                ("lost_with_connections", requests.get("lost_with_connections")),
            ],
            "",
        ),
        (
            "",
            [("received", requests["received"])],
            [
                ("processed", requests["processed"]),
                ("rejected", sum(rejected.values())),
                ("dropped.ring", dropped["ring"]),
                ("lost.rx", requests["lost"]["rx"]),
                ("in_flight.to_worker", flight["to_worker"]),
            ],
            told,
        ),
        (
            "",
            [("processed", requests["processed"])],
            [
                ("transmitted", requests["transmitted"]),
                ("filtered", requests["filtered"]),
                ("dropped.tx", dropped["tx"]),
                ("in_flight.to_tx", flight["to_tx"]),
            ],
            "",
        ),
        (
            "",
            [("transmitted", requests["transmitted"]), ("repeated", requests["repeated"])],
            [
                ("delivered", requests.get("delivered")),
                ("dropped.sink", dropped.get("sink")),
                ("dropped.connection", dropped.get("connection")),
            ],
            "".join(
                f"; {w} {requests[w]:,}"
                for w in ("duplicated", "corrupted", "unknown", "misordered")
                if w in requests and (w != "misordered" or requests[w])
            ),
        ),
    ]
    failing = {line.split(":")[0] for line in summary["unbalanced"]}
    table = Table.grid(padding=(0, 1))
    ledger = ""
    for title, left, right, rest in lines:
        ledger = title or ledger
        bad = f"{ledger}.{left[0][0]}" in failing
        sides = []
        for side in (left, right):
            known = [(name, count) for name, count in side if count is not None]
            sides.append(" + ".join(f"{name} {count:,}" for name, count in known))
        equation = (" ≠ " if bad else " = ").join(filter(None, sides)) + rest
        table.add_row(Text(title, "bold"), Text(equation, "red" if bad else ""))
    console.print(table)
    console.print()


def _carriers(account: dict) -> list[tuple]:
    """The line of what carried the requests, as _ledgers() has lines: datagrams or connections."""
    if "datagrams" in account:
        datagrams = account["datagrams"]
        right = [(f"dropped.{where}", count) for where, count in datagrams["dropped"].items()]
        right.insert(0, ("received", datagrams["received"]))
        return [("datagrams", [("sent", datagrams.get("sent"))], right, "")]
    connections = dict(account.get("connections", {}))
    left = [("connected", connections.pop("connected", None))]
    right = [(name, connections.pop(name, None)) for name in ("opened", "refused", "lost")]
    rest = "".join(f"; {name} {count:,}" for name, count in connections.items() if count)
    return [("connections", left, right, rest)] if right[0][1] is not None else []


def _columns(console: Console) -> tuple[str, ...]:
    return _WIDE if console.width >= _WIDE_FROM else _NARROW


def _spans(console: Console, latency: dict) -> None:
    names = _columns(console)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("µs", no_wrap=True)
    table.add_column("", no_wrap=True)
    for title in ("n", *(_TITLES[name] for name in names)):
        table.add_column(title, justify="right", no_wrap=True)
    whole = [name for name in ("from_planned", "wire_to_wire", "through") if name in latency]
    totals = [name for name in ("waits", "works") if name in latency]
    single = [name for name in latency if name not in (*whole, *totals)]
    for group in (whole, single, totals):
        for name in group:
            entry = latency[name]
            kind = entry.get("kind") or {"waits": "wait", "works": "work"}.get(name, "")
            style = _STYLES.get(kind, "bold")
            title = {"waits": "all waits", "works": "all works"}.get(name, name)
            table.add_row(
                Text(title, style),
                Text(kind, style),
                f"{entry['count']:,}",
                *(cell(entry, percentile) for percentile in names),
                end_section=name == group[-1],
            )
    console.print(table)
    if any(entry["count"] < entry["of"] for entry in latency.values()):
        console.print(Text("≥: records are missing; the figure is a bound", "yellow"))
    console.print()


def cell(entry: dict, percentile: str) -> str:
    """A figure of a latency entry as text: `≥` where it is but a bound, `-` where there is none."""
    if percentile not in entry:
        return "-"
    bound = "≥" if percentile in BOUNDS and entry["count"] < entry["of"] else ""
    return bound + us(entry[percentile])


def _picture(console: Console, name: str, bins: list[list[int]]) -> None:
    """A distribution over a logarithmic axis; so is the height, or the tail would not show."""
    if not bins:
        return
    width = _PICTURE_COLUMNS
    edges = [tuple(math.log2(max(edge, 1)) for edge in (low, bin_end(low))) for low, _ in bins]
    first, last = edges[0][0], edges[-1][1]
    spare = max(_PICTURE_OCTAVES - (last - first), 0) / 2
    first, last = first - spare, last + spare
    columns = [0] * width
    for (low, high), (_, count) in zip(edges, bins, strict=True):
        begin, end = (int((edge - first) / (last - first) * width) for edge in (low, high))
        for column in range(begin, min(max(end, begin + 1), width)):
            columns[column] = max(columns[column], count)
    most = math.log1p(max(columns))
    heights = [
        round(8 * _PICTURE_ROWS * math.log1p(count) / most) if count else 0 for count in columns
    ]
    heights = [
        max(height, 1) if count else 0 for height, count in zip(heights, columns, strict=True)
    ]
    console.print(Text(f"{name}, µs (both axes logarithmic)", "bold"))
    for row in reversed(range(_PICTURE_ROWS)):
        line = "".join(_EIGHTHS[min(max(height - 8 * row, 0), 8)] for height in heights)
        console.print(Text("  " + line.rstrip(), "blue"))
    console.print(Text("  " + _axis(first, last, width)))
    console.print()


def _axis(first: float, last: float, width: int) -> str:
    """Round figures where they belong below a picture, as many as there is room for."""
    axis, free = [" "] * width, 0
    for power in range(-3, 10):
        for digit in (1, 2, 5):
            figure = digit * 10.0**power
            at = int((math.log2(figure * 1000) - first) / (last - first) * width)
            label = f"╵{figure:,.10g}"
            if free <= at and at + len(label) <= width:
                axis[at : at + len(label)] = label
                free = at + len(label) + 1
    return "".join(axis).rstrip()


def _stages(console: Console, summary: dict) -> None:
    regimes, noise = (Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False) for _ in range(2))
    for title in ("stage", "work", "idle", "blocked", "housekeeping"):
        regimes.add_column(title, justify="left" if title == "stage" else "right")
    for stage, shares in summary["regimes"].items():
        regimes.add_row(stage, *(f"{share:.1%}" for share in shares.values()))
    for title in ("noise of cpu", "gaps", "share", "p99 µs", "max µs"):
        noise.add_column(title, justify="right")
    for cpu, seen in summary["noise"].items():
        figures = [us(seen[name]) if name in seen else "-" for name in ("p99", "max")]
        noise.add_row(cpu, f"{seen['gaps']:,}", f"{seen['share']:.3%}", *figures)
    for table in (regimes, noise):
        if table.row_count:
            console.print(table)
            console.print()


def _workers(console: Console, summary: dict) -> None:
    """A row each, where there are several, and a line for each that differs from its peers."""
    workers = summary["workers"]
    if len(workers) < 2:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("worker", no_wrap=True)
    spans = {"service": "service_ns", "handler": "handler_ns", "wait": "wait_ns"}
    figures = [(f"{title} {p}", key, p) for title, key in spans.items() for p in ("p50", "p99")]
    for title in ("share", "busy", *(title for title, *_ in figures), "dropped", "restarts"):
        table.add_column(title, justify="right")
    for name, entry in workers.items():
        busy = f"{entry['busy']:.1%}" if "busy" in entry else "-"
        shown = [cell(entry[key], p) if key in entry else "-" for _, key, p in figures]
        lost = (f"{entry[what]:,}" for what in ("dropped", "restarts"))
        table.add_row(name, f"{entry['share']:.1%}", busy, *shown, *lost)
    console.print(table)
    for line in summary["imbalance"]:
        console.print(Text(line, "yellow"))
    console.print()


def _counters(console: Console, summary: dict) -> None:
    """What each stage counted in all, and each span: what is rare in all, else by request."""
    if (counters := summary.get("counters")) is None:
        return
    rare = not any("instructions" in figures for figures in counters.get("spans", {}).values())
    spans = {
        span: {
            n: entry["sum" if rare else "mean"] for n, entry in figures.items() if n != "requests"
        }
        for span, figures in counters.get("spans", {}).items()
    }
    whole = "counted, in all"
    for what, rows in ((whole, counters["stages"]), (whole if rare else "a request", spans)):
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for title in (what, *(name.replace("_", " ") for name in names)):
            table.add_column(title, justify="left" if title == what else "right")
        for title, row in rows.items():
            table.add_row(title, *(f"{row[name]:,}" if name in row else "-" for name in names))
        console.print(table)
    why = f": {counters['why']}" if counters["why"] else ""
    console.print(
        Text(f"trace.counters asked {counters['asked']} obtained {counters['obtained']}{why}")
    )
    console.print()


def _facts(console: Console, summary: dict) -> None:
    trace, clock = summary["trace"], summary["clock"]
    facts = {
        "trace": [
            f"{trace['records']:,} records",
            f"{trace['discarded']:,} discarded",
            f"{trace['negative_spans']:,} negative spans",
        ],
        "clock": [f"{clock['tsc_hz'] / 1e6:,.3f} MHz"],
    }
    if "stamp_cost_ns" in trace:
        facts["trace"].append(f"{trace['stamp_cost_ns']:.1f} ns a stamp")
    if "error_ns" in clock:
        facts["clock"].append(f"error {clock['error_ns']:,.0f} ns")
    if "error_ppm" in clock:
        facts["clock"].append(f"{clock['error_ppm']:.2f} ppm")
    if "skew_ns" in clock:
        facts["clock"].append(f"skew between CPUs {clock['skew_ns']:.0f} ns")
    if feed := summary.get("feed"):
        facts["feed"] = [
            f"{feed['messages']:,} messages of {feed['channels']:,} "
            + ("channel" if feed["channels"] == 1 else "channels"),
            *(f"{name} {feed[name]:,}" for name in ("gaps", "missing", "repeated", "resets")),
        ]
        if feed.get("at_ends"):
            facts["feed"].append(f"{feed['at_ends']:,} more lost at the ends")
    if tap := summary.get("tap"):
        facts["tap"] = [
            f"{tap['frames']:,} frames: {tap['segments']:,} of {tap['flows']:,} TCP flows, "
            f"{tap['datagrams']:,} UDP",
            *(f"{name} {tap[name]:,}" for name in ("other", "fragments", "bad_length")),
            *(f"{name} {tap[name]:,}" for name in ("out_of_order", "gaps", "evicted")),
            *(
                f"{name} {tap[f'{name}_bytes']:,} B"
                for name in ("retransmitted", "differing", "gap", "skipped")
            ),
        ]
    if rotation := summary.get("rotation"):
        state = "right" if rotation["right"] else "WRONG"
        facts["rotation"] = [
            f"{' → '.join(rotation['order'])}: {state}",
            f"{rotation['checked']:,} checks",
            f"{rotation['mended']:,} mended",
        ]
    if replay := summary.get("replay"):
        told = [str(replay[name]) for name in ("speed", "player") if name in replay]
        told += [f"{replay[name]:,} {name}" for name in ("planned", "sent") if name in replay]
        if late := replay.get("lateness_ns"):
            told.append(
                "late by " + ", ".join(f"{name} {us(ns)}" for name, ns in late.items()) + " µs"
            )
            if "later_than_1ms" in replay:
                told.append(f"{replay['later_than_1ms']:,} later than 1 ms")
        facts["replay"] = told
    table = Table.grid(padding=(0, 2))
    for name, told in facts.items():
        table.add_row(Text(name, "bold"), Text(", ".join(told)))
    console.print(table)


def show_comparison(comparison: dict, stream: TextIO | None = None) -> None:
    """Prints what compare() returns."""
    console = console_for(stream or sys.stdout)
    console.print(Text(f"A {comparison['a']}\nB {comparison['b']}", "bold"))
    console.print()
    replies = comparison["replies"]
    if replies.get("differing"):
        ids = ", ".join(map(str, replies["first"]))
        console.print(
            Text(f"✗ {replies['differing']:,} requests got DIFFERENT REPLIES: {ids} …", "bold red")
        )
    elif "compared" in replies:
        console.print(f"✓ {replies['compared']:,} requests answered in both, all alike")
    else:
        console.print(Text(f"replies not compared: {replies['why']}", "yellow"))
    if replies.get("only_a") or replies.get("only_b"):
        console.print(
            f"  answered in A alone: {replies['only_a']:,}; in B alone: {replies['only_b']:,}"
        )
    console.print()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("µs", "", "A", "B", "B - A", "B / A"):
        table.add_column(title, justify="left" if title in ("µs", "") else "right", no_wrap=True)
    for name, rows in comparison["latency_ns"].items():
        shown = [percentile for percentile in ("p50", "p99", "p99_9", "max") if percentile in rows]
        for percentile in shown:
            row = rows[percentile]
            bounds = ["≥" if row["bound"] and side in row["bound"] else "" for side in "ab"]
            table.add_row(
                name if percentile == shown[0] else "",
                _TITLES[percentile],
                bounds[0] + us(row["a"]),
                bounds[1] + us(row["b"]),
                f"{'+' if row['difference'] > 0 else ''}{us(row['difference'])}",
                f"{row['ratio']:.3f}" if "ratio" in row else "-",
                end_section=percentile == shown[-1],
            )
    console.print(table)
    console.print()
    if comparison["differences"]:
        other = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for title in ("differs", "A", "B"):
            other.add_column(title, overflow="fold")
        for name, (a, b) in comparison["differences"].items():
            other.add_row(*(Text("-" if side is None else str(side)) for side in (name, a, b)))
        console.print(other)
    else:
        console.print("the runs differ in nothing that was recorded about how they were made")
    console.print()
    console.print(Text(comparison["verdict"], "bold"))
