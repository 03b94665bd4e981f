# SPDX-License-Identifier: Apache-2.0
"""A picture of a benchmark's distribution, by matplotlib, as SVG to stand in a page.

Left: quantile curves. The axis is -log10(1 - p), so that every further nine of a percentile takes
the same room; each start is a thin line, their median a thick one. Right: how far the figures of
the starts lie apart, each series around its own median.

Colours are those of the page, by CSS: matplotlib draws in stand-ins, which are replaced.
"""

import io
import logging
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from ticklab.bench.judge import FLOOR_NS
from ticklab.bench.table import time

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

_TEXT, _GRID = "#010101", "#010102"
_STANDINS = {_TEXT: "currentColor", _GRID: "var(--grid)"}
# Of the series: ours, the baseline, the limit, peers.
COLOURS = ("ours", "baseline", "limit", "peer0", "peer1", "peer2", "peer3", "peer4", "peer5")
_STANDINS |= {f"#0102{at:02x}": f"var(--{name})" for at, name in enumerate(COLOURS)}
_STANDIN = {name: f"#0102{at:02x}" for at, name in enumerate(COLOURS)}

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _TEXT,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "xtick.labelcolor": _TEXT,
    "ytick.color": _GRID,
    "ytick.labelcolor": _TEXT,
    "legend.frameon": False,
}
_MAX_AT = 4.6  # where the largest sample stands: its 1 - p is 0
_LEAST_NS = 0.01  # what costs next to nothing may be measured as less than nothing
_PERCENTILES = (0, 0.5, 0.9, 0.99, 0.999, 0.9999)


@dataclass(frozen=True)
class Series:
    """One program's starts of a benchmark; times in ns."""

    label: str
    colour: str  # one of COLOURS
    figures: Sequence[float]  # of each start
    quantiles: Sequence[Sequence[float]] = field(default=())  # of each start


def svg(
    name: str, at: Sequence[float], series: Sequence[Series], limit: tuple[str, float] | None
) -> str:
    """The picture; `at` are the shares of the quantiles, `limit` a label and its ns."""
    curves = any(one.quantiles for one in series)
    spread = any(len(one.figures) > 1 for one in series)
    rows = len(series)
    height = 3.1 if curves else 0.9 + 0.32 * rows
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(10, height))
        left = right = None
        if curves and spread:
            left = figure.add_axes((0.065, 0.145, 0.53, 0.80))
            right = figure.add_axes((0.705, 0.145, 0.265, 0.80))
        elif curves:
            left = figure.add_axes((0.065, 0.145, 0.90, 0.80))
        else:
            right = figure.add_axes((0.12, 0.45 / height, 0.6, (height - 0.5) / height))
        if left:
            _curves(left, at, series, limit)
        if right:
            _strip(right, series)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), name)


def _stretched(share: float) -> float:
    return _MAX_AT if share >= 1 else -math.log10(1 - share)


def _curves(
    axes: Axes, at: Sequence[float], series: Sequence[Series], limit: tuple[str, float] | None
) -> None:
    x = [_stretched(share) for share in at]
    if limit:
        label, ns = limit
        colour = _STANDIN["limit"]
        axes.axhline(ns, color=colour, linewidth=1.3, dashes=(5, 3), label=f"{label}  {time(ns)}")
    for above, one in enumerate(reversed(series)):  # ours on top
        if not one.quantiles:
            continue
        colour = _STANDIN[one.colour]
        starts = [[max(ns, _LEAST_NS) for ns in start] for start in one.quantiles]
        for start in starts:
            axes.plot(x, start, color=colour, linewidth=0.7, alpha=0.35)
        middle = [statistics.median(each) for each in zip(*starts, strict=True)]
        label = f"{one.label}  {time(statistics.median(one.figures))}"
        axes.plot(x, middle, color=colour, linewidth=2.2, label=label, zorder=3 + above)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(FixedLocator(ticks(low, high)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda ns, _: time(ns))
    axes.set_xlim(0, _MAX_AT)
    axes.set_xticks([*map(_stretched, _PERCENTILES), _MAX_AT])
    axes.set_xticklabels(["min", *(f"p{100 * p:.6g}" for p in _PERCENTILES[1:]), "max"])
    axes.grid(True)
    axes.tick_params(length=0)
    lines, labels = (each[::-1] for each in axes.get_legend_handles_labels())
    axes.legend(lines, labels, loc="upper left", handlelength=1.4, labelspacing=0.35)


def ticks(low: float, high: float) -> list[float]:
    """Round figures between, about five to ten of them, on a logarithmic axis."""
    decades = math.log10(high / low)
    digits: Sequence[float]
    if decades > 4:
        digits = (1,)
    elif decades > 1.2:
        digits = (1, 2, 5) if decades <= 2.5 else (1, 3)
    elif decades > 0.4:
        digits = (1, 1.5, 2, 3, 4, 5, 7)
    else:
        step = 10 ** math.floor(math.log10((high - low) / 3))
        step *= 5 if (high - low) / step > 20 else 2 if (high - low) / step > 8 else 1
        return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [t for power in powers for d in digits if low <= (t := d * 10.0**power) <= high]


def _strip(axes: Axes, series: Sequence[Series]) -> None:
    """A row for each series: a dot a start, a box from quartile to quartile."""
    for row, one in enumerate(reversed(series)):
        middle = statistics.median(one.figures)
        away = [(ns / middle - 1) * 100 for ns in one.figures] if middle >= FLOOR_NS else []
        colour = _STANDIN[one.colour]
        if len(away) > 2:
            first, _, third = statistics.quantiles(away, n=4, method="inclusive")
            axes.barh(row, third - first, left=first, height=0.5, color=colour, alpha=0.25)
        axes.plot([0, 0], [row - 0.3, row + 0.3], color=colour, linewidth=2)
        axes.plot(away, [row] * len(away), "o", color=colour, markersize=4.5, alpha=0.6)
    axes.set_yticks(range(len(series)), [one.label for one in reversed(series)])
    axes.set_ylim(-0.6, len(series) - 0.4)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -1.0), max(high, 1.0))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:+.3g} %" if share else "0")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(True, axis="x")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _inline(text: str, name: str) -> str:
    """Without what only a file needs; colours and font of the page; ids of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for stand_in, colour in _STANDINS.items():
        text = text.replace(stand_in, colour)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", text)
    key = re.sub(r"\W", "-", name)
    text = re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', f"{key}-", text)
    head = re.match(r"<svg[^>]*>", text)
    assert head
    opened = re.sub(r' (?:width|height)="[^"]*"', "", head[0])
    return f'{opened[:-1]} role="img">' + text[head.end() :]


def fields(entries: Sequence[dict[str, Any]]) -> list[list[float]]:
    """The quantiles of each start that has them."""
    return [entry["quantiles"] for entry in entries if entry.get("quantiles")]
