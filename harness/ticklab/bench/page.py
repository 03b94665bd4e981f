# SPDX-License-Identifier: Apache-2.0
"""Results of benchmarks as one HTML file that needs nothing else: tables and distributions."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from html import escape
from typing import Any

from ticklab.bench import relations, table
from ticklab.bench.results import Results, Row

_COLUMNS = ("name", "ns", "spread", "p99", "p99_9", "max", "n", "rate", "regime", "limit", "peer")
_LEFT = ("name", "regime")
NO_PICTURES = (
    "No pictures: Python's matplotlib is missing; run harness/setup.sh requirements-bench.txt, "
    "or as root: apt-get install python3-matplotlib."
)

_CSS = """
:root { color-scheme: light dark; --back: #fff; --text: #1c2430; --soft: #5d6878; --grid: #dfe3e8;
  --ours: #1f6fd6; --baseline: #8a63d2; --limit: #6b7280; --peer0: #d9730d; --peer1: #17936f;
  --peer2: #c2408f; --peer3: #a07c00; --peer4: #4b9ac2; --peer5: #b04a3a;
  --bad: #c02626; --good: #16803c; --unsure: #96690b; }
@media (prefers-color-scheme: dark) { :root { --back: #14181f; --text: #e3e8ee; --soft: #98a3b3;
  --grid: #323a46; --ours: #5ea2f5; --baseline: #b497f0; --limit: #9aa3b0; --peer0: #f2994a;
  --peer1: #3fbf95; --peer2: #e57abf; --peer3: #d6b13a; --peer4: #7cc3e8; --peer5: #e08070;
  --bad: #ff7b7b; --good: #5fd08a; --unsure: #e0b050; } }
body { margin: 0 auto; max-width: 78rem; padding: 2rem 1.5rem 4rem; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font: 600 1rem ui-monospace, "DejaVu Sans Mono", monospace; margin: 1.8rem 0 0; }
p { margin: .3rem 0; } .soft { color: var(--soft); } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums;
  white-space: nowrap; width: 100%; }
th { color: var(--soft); font-weight: 500; } th, td { padding: .2rem .45rem; text-align: right; }
th { border-bottom: 1px solid var(--grid); } .l { text-align: left; }
tr.family td { border-top: 1px solid var(--grid); } tr.peer td { color: var(--soft); }
td.name { font-family: ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre; }
td.why { color: var(--unsure); white-space: normal; } a { color: inherit; }
.slower { color: var(--bad); font-weight: 600; } .faster { color: var(--good); font-weight: 600; }
.inconclusive, .warn { color: var(--unsure); } svg { width: 100%; height: auto; display: block; }
"""

_READING = """
<p class="soft">Left: the time that a share of all samples stays within; every further nine of a
percentile takes the same room, and time is logarithmic. A thin line is one process start, the
thick line their median. Right: a dot is the figure of one start, in percent of the median of all;
the box holds the middle half.</p>
"""


def html(told: dict[str, Any], results: Results, before: Results | None = None) -> str:
    """The page of what google() and a comparison give; `before` is the baseline's side."""
    context, rows = told["context"], results.rows()
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>tickline benchmarks, {escape(context['date'][:10])}</title>",
        f"<style>{_CSS}</style></head><body>",
        "<h1>tickline benchmarks</h1>",
        f"<p>{escape(table.headline(context, rows))}</p>",
        f'<p class="soft">{escape(_circumstances(context))}</p>',
    ]
    if comparison := told.get("comparison"):
        parts += _comparison(comparison)
    pictures = _pictures(told, results, before)
    parts += ["<h2>Results</h2>", _table(rows, pictures or {}), _footer(rows)]
    parts.append("<h2>Distributions</h2>")
    if pictures is None:
        parts.append(f'<p class="warn">{NO_PICTURES}</p>')
    else:
        parts.append(_READING)
        by_name = {row.name: row for row in rows}
        for name, picture in pictures.items():
            parts.append(f'<h3 id="{_anchor(name)}">{escape(name)}</h3>')
            parts.append(f'<p class="soft">{escape(_caption(by_name.get(name)))}</p>{picture}')
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _circumstances(context: dict[str, Any]) -> str:
    git = context.get("git") or {}
    told = [context["date"].replace("T", " ").replace("+00:00", " UTC")]
    if commit := git.get("commit"):
        told.append(f"commit {commit[:12]}" + (" with changes" if git.get("dirty") else ""))
    if mhz := context.get("mhz_per_cpu"):
        told.append(f"TSC {mhz:,} MHz")
    told.append("times in ns, medians over process starts")
    if context.get("interrupted"):
        told.append("ended early")
    return "; ".join(told)


# ---- tables ----


def _table(rows: Sequence[Row], pictures: dict[str, str]) -> str:
    columns = [name for name in _COLUMNS if any(table.cells(row)[name] for row in rows)]
    out = ['<div class="wide"><table><tr>']
    out += [f"<th{_class(name)}>{escape(table.TITLES[name])}</th>" for name in columns]
    family = None
    for row in rows:
        first = table.family(row) != family
        family = table.family(row)
        kind = "peer" if row.peer else "family" if first else ""
        out.append(f'</tr>\n<tr class="{kind}">')
        told = table.cells(row)
        name = escape(told["name"])
        if row.name in pictures:
            name = f'<a href="#{_anchor(row.name)}">{name}</a>'
        out.append(f'<td class="l name">{name}</td>')
        if row.starts == 0:
            out.append(f'<td class="l why" colspan="{len(columns) - 1}">{escape(row.why)}</td>')
            continue
        for column in columns[1:]:
            hint = f' title="{escape(_limit(row))}"' if column == "limit" and row.limit else ""
            out.append(f"<td{_class(column)}{hint}>{escape(told[column])}</td>")
    return "".join([*out, "</tr></table></div>"])


def _class(column: str) -> str:
    return ' class="l"' if column in _LEFT else ""


def _limit(row: Row) -> str:
    return f"{row.limit}: {table.time(row.limit_ns or 0)}"


def _footer(rows: Sequence[Row]) -> str:
    told = ["spread: from the least to the most of the starts, in percent of their median"]
    if limits := table.limits(rows):
        text = ", ".join(f"{name} {table.time(ns)}" for name, ns in limits.items())
        told.append(f"/ limit: times {text}")
    if any(row.best_peer for row in rows):
        told.append(table.AHEAD)
    out = [f'<p class="soft">{escape(line)}</p>' for line in told]
    for row in rows:
        if row.why and row.starts:
            out.append(f'<p class="warn">{escape(row.name)}: {escape(row.why)}</p>')
        elif row.note:
            out.append(f'<p class="soft">{escape(row.name)}: {escape(row.note)}</p>')
    return "".join(out)


def _comparison(found: dict[str, Any]) -> list[str]:
    out = [
        f"<h2>Beside the baseline {escape(found['baseline'])}</h2>",
        f"<p><b>{escape(table.verdict(found))}</b></p>",
        *(f'<p class="warn">{escape(note)}</p>' for note in found["notes"]),
        '<div class="wide"><table><tr><th class="l">benchmark</th><th>baseline ns</th>',
        '<th>now ns</th><th>now / baseline</th><th>95 % interval</th><th class="l">verdict</th>',
    ]
    for one in found["benchmarks"]:
        kind = one["verdict"].replace(" ", "-")
        out.append(
            f'</tr>\n<tr><td class="l name">{escape(one["name"])}</td>'
            f"<td>{table.number(one['baseline_ns'])}</td>"
            f"<td>{table.number(one['now_ns'])}</td>"
            f"<td>{table.ratio(one)}</td><td>{table.interval(one)}</td>"
            f'<td class="l {kind}">{one["verdict"]}</td>'
        )
    return [*out, "</tr></table></div>", f'<p class="soft">{table.meaning(found)}</p>']


# ---- pictures ----


def _pictures(
    told: dict[str, Any], results: Results, before: Results | None
) -> dict[str, str] | None:
    """A picture for each benchmark that has figures; None where nothing can draw."""
    try:
        from ticklab.bench import plot
    except ImportError:
        return None
    at = told["context"].get("quantiles") or []
    wanted = {}
    rows = {row.name: row for row in results.rows()}
    for name in dict.fromkeys(map(results.owner, results.names)):
        series = _series(plot, name, results, before)
        if any(one.quantiles or len(one.figures) > 1 for one in series):
            row = rows.get(name)
            limit = (row.limit, row.limit_ns) if row and row.limit else None
            wanted[name] = (name, at, series, limit)
    # Drawing takes longer than measuring does in a quick run.
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(plot.svg, *zip(*wanted.values(), strict=True)) if wanted else []
        return dict(zip(wanted, drawn, strict=True))


def _series(plot: Any, name: str, results: Results, before: Results | None) -> list[Any]:
    """Ours, the baseline's, and the peers', as far as they have figures."""
    sides = [("tickline", "ours", name, results)]
    if before:
        sides.append(("baseline", "baseline", name, before))
    for number, other in enumerate(results.peers(name)):
        sides.append((relations.peer(other, name), f"peer{number % 6}", other, results))
    if relations.beside(name):  # its counterpart did not run
        sides[0] = (relations.peer(name, ""), "peer0", name, results)
    if name.startswith("limit/"):
        sides[0] = ("limit", "limit", name, results)
    return [
        plot.Series(label, colour, side.values(its), plot.fields(side.starts(its)))
        for label, colour, its, side in sides
        if side.starts(its)
    ]


def _caption(row: Row | None) -> str:
    if not row or row.ns is None:
        return ""
    told = [table.time(row.ns)]
    if row.rate:
        told.append(table.rate(row.rate))
    if row.of_limit is not None:
        told.append(f"{row.of_limit:.2f} times {_limit(row)}")
    if row.of_peer is not None and row.best_peer:
        told.append(f"{row.of_peer:.2f} times faster than {row.best_peer}")
    if row.regime:
        told.append(f"the consumer {row.regime}")
    return ", ".join(told)


def _anchor(name: str) -> str:
    return f"picture-{name.replace('/', '-')}"
