# SPDX-License-Identifier: Apache-2.0
"""A sweep as a person reads it: a table with a small picture on the terminal, and sweep.svg.

The SVG is written here: six lines over two logarithmic axes do not need a plotting library, which
would double what a first start installs.
"""

import math
import sys
from typing import Any, TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from ticklab.svg import caption, stroke, ticks
from ticklab.sweep import FIT_ERROR_MAX, is_saturated
from ticklab.terminal import console_for, us

_MARKS = {"max": "·", "p99": "●", "p50": "○"}  # where two meet the later one shows
_COLUMNS = 24
PLAYER = 0.9  # slower than this share of what was asked: told

# ---- terminal ------------------------------------------------------------------------------------


def show(result: dict[str, Any], stream: TextIO | None = None) -> None:
    """Prints the contents of a sweep.json."""
    console = console_for(stream or sys.stdout)
    points = sorted(result["points"], key=lambda point: point["asked"])
    console.print(Text(f"{result['name']}: wire_to_wire at {len(points)} rates, µs", "bold"))
    if any(point["degraded"] for point in points):
        console.print(Text("  degraded: see the summary of any of the runs", "yellow"))
    console.print()
    wide = console.width >= 110
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    names = ("p50", "p90", "p99", "p99_9", "max") if wide else ("p50", "p99", "max")
    for title in ("asked/s", "offered/s", "delivered", "dropped", *names, "busy"):
        table.add_column(title.replace("_", "."), justify="right", no_wrap=True)
    low, high = _bounds(points, ("p50", "max"))
    table.add_column("○ p50  ● p99  · max", no_wrap=True)
    knee = result["knee"].get("rate")
    for point in points:
        share = point.get("delivered_share")
        table.add_row(
            f"{point['asked']:,.0f}",
            f"{point['offered']:,.0f}",
            "-" if share is None else f"{math.floor(share * 1e4) / 100:.4g}%",
            f"{sum(point['dropped'].values()):,}",
            *(_short(point[name]) if name in point else "-" for name in names),
            f"{point['busy']:.0%}" if "busy" in point else "-",
            Text(_line(point, low, high), "bold green" if point["offered"] == knee else ""),
            style="red" if is_saturated(point) else "",
        )
    console.print(table)
    console.print()
    told = Table.grid(padding=(0, 2))
    for name, text in _sentences(result):
        told.add_row(Text(name, "bold"), text)
    console.print(told)


def _short(ns: float) -> str:
    """Microseconds in at most nine places."""
    return us(ns) if ns < 1e5 else f"{ns / 1000:,.0f}"


def _line(point: dict[str, Any], low: float, high: float) -> str:
    line = [" "] * _COLUMNS
    for name, mark in _MARKS.items():
        if name in point:
            share = math.log(point[name] / low) / math.log(high / low)
            line[round(share * (_COLUMNS - 1))] = mark
    return "".join(line)


def _sentences(result: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, what was found) of each figure; the docstring of sweep.py says what they mean."""
    knee, told = result["knee"], []
    if "low_p99" in knee:
        limit = f"p99 within {knee['factor']:g} times {us(knee['low_p99'])} µs and nothing dropped"
        told.append(("knee", _found(knee, limit)))
    if within := result.get("within"):
        limit = f"p99 within {us(within['p99_ns'])} µs and nothing dropped"
        told.append(("within p99", _found(within, limit)))
    saturation = result["saturation"]
    text = (
        f"observed {saturation['observed']:,.0f}/s"
        if "observed" in saturation
        else "not reached at these rates"
    )
    if "predicted" in saturation:
        text += (
            f"; the busiest CPU works {us(saturation['busy_ns'])} µs a request, which predicts "
            f"{saturation['predicted']:,.0f}/s"
        )
    if "idle_at" in saturation:
        text += (
            f"; but at {saturation['idle_at']:,.0f}/s that CPU worked only"
            f" {saturation['idle_busy']:.0%} of the time: something else was the limit, such as"
            " another process on it"
        )
    told.append(("saturation", text))
    told.append(("fit", _fit(result)))
    slow = [point for point in result["points"] if point["offered"] < PLAYER * point["asked"]]
    if slow:
        worst = max(slow, key=lambda point: point["asked"])
        text = f"sent {worst['offered']:,.0f}/s where {worst['asked']:,.0f}/s was asked"
        told.append(("player", f"{text}; figures stand at the rate that came"))
    return told


def _fit(result: dict[str, Any]) -> str:
    fit = result.get("fit")
    if not fit and result["arrivals"] != "poisson":
        return "none: it needs --set replay.arrivals=poisson"
    if not fit:
        return "none: too few rates below saturation, or too far below"
    if fit["error"] > FIT_ERROR_MAX:
        return f"none: these are no times of {fit['model']}, its best is off by {fit['error']:.0%}"
    return (
        f"{fit['model']} with S {us(fit['service_ns'])} µs and {us(fit['base_ns'])} µs without a"
        f" wait, off by {fit['error']:.1%} on average; saturates at {fit['saturation']:,.0f}/s"
    )


def _found(entry: dict[str, Any], limit: str) -> str:
    if "rate" not in entry:
        return f"no rate had {limit}; begin lower"
    text = f"{entry['rate']:,.0f}/s had {limit}"
    if "next" in entry:
        text += f"; {entry['next']:,.0f}/s had not ({entry['next_fails']})"
    else:
        text += "; no higher rate was measured"
    if below := entry.get("below"):
        text += f"; nor had, below it, {', '.join(f'{rate:,.0f}/s' for rate in below)}"
    return text


# ---- SVG -----------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 90, 40, 50
_LINES = {  # colours that differ also for the colour-blind
    "p50": "#0072b2",
    "p90": "#56b4e9",
    "p99": "#d55e00",
    "p99_9": "#cc79a7",
    "max": "#999999",
}


def svg(result: dict[str, Any]) -> str:
    """Latency over offered rate, both axes logarithmic; with knee, saturation and promised p99."""
    points = sorted(result["points"], key=lambda point: point["offered"])
    if not points:
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"/>\n'
    rates = [point["offered"] for point in points]
    saturation = result["saturation"]
    marks = [saturation[name] for name in ("observed", "predicted") if name in saturation]
    x0, x1 = _padded(min(rates), max(rates + [mark for mark in marks if mark < 2 * max(rates)]))
    y0, y1 = _padded(*_bounds(points, tuple(_LINES)))

    def x(rate: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(rate / x0) / math.log(x1 / x0)

    def y(ns: float) -> float:
        return (
            _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * math.log(ns / y0) / math.log(y1 / y0)
        )

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        caption(
            _LEFT, 20, f"{result['name']}: wire_to_wire over offered rate", "start", "#000", 14
        ),
    ]
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for rate in ticks(x0, x1):
        out.append(stroke(x(rate), _TOP, x(rate), bottom, "#e5e5e5"))
        out.append(caption(x(rate), bottom + 18, f"{rate:,.10g}"))
    for ns in ticks(y0, y1):
        out.append(stroke(_LEFT, y(ns), right, y(ns), "#e5e5e5"))
        out.append(caption(_LEFT - 6, y(ns) + 4, f"{ns / 1000:,.10g}", "end"))
    out.append(caption((_LEFT + right) / 2, _HEIGHT - 10, "requests offered a second"))
    out.append(caption(_LEFT - 6, _TOP - 8, "µs", "end"))

    uprights = [("knee", result["knee"].get("rate"), "#009e73")]
    uprights += [
        (f"{name} saturation", saturation.get(name), colour)
        for name, colour in (("observed", "#000"), ("predicted", "#777"))
    ]
    shown = [each for each in uprights if each[1] and x0 <= each[1] <= x1]
    for number, (name, rate, colour) in enumerate(shown):
        out.append(stroke(x(rate), _TOP, x(rate), bottom, colour, "5 3"))
        out.append(caption(x(rate) - 4, _TOP + 12 + 14 * number, name, "end", colour))
    limit = result.get("within", {}).get("p99_ns")
    if limit and y0 <= limit <= y1:
        out.append(stroke(_LEFT, y(limit), right, y(limit), "#d55e00", "2 3"))
    free = right + 1000.0
    for name, colour in sorted(_LINES.items(), key=lambda line: -points[-1].get(line[0], 0)):
        known = [point for point in points if name in point]
        if not known:
            continue
        path = " ".join(f"{x(p['offered']):.1f},{y(p[name]):.1f}" for p in known)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        out += [
            f'<circle cx="{x(p["offered"]):.1f}" cy="{y(p[name]):.1f}" r="3" '
            f'fill="{colour if not p["dropped"] else "#fff"}" stroke="{colour}"/>'
            for p in known
        ]
        place = y(known[-1][name]) + 4
        place = place if free > right else max(place, free + 14)  # labels one below the other
        free = place
        label = name.replace("_", ".")
        out.append(caption(x(known[-1]["offered"]) + 8, place, label, "start", colour))
    if any(point["dropped"] for point in points):
        out.append(caption(right, _TOP - 8, "hollow: requests were dropped", "end", "#777"))
    return "\n".join([*out, "</svg>"]) + "\n"


def _bounds(points: list[dict], names: tuple[str, ...]) -> tuple[float, float]:
    """The least and the most of these figures; never the same."""
    found = [max(point[name], 1.0) for point in points for name in names if name in point]
    low, high = min(found, default=1.0), max(found, default=10.0)
    return low, max(high, low * 1.01)


def _padded(low: float, high: float) -> tuple[float, float]:
    return low / 1.15, high * 1.15
