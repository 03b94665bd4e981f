# SPDX-License-Identifier: Apache-2.0
"""The schemas side by side: a run of the lab for each, a table, and schemas.svg."""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich import box
from rich.table import Table
from rich.text import Text

from ticklab import prepare
from ticklab.child import LabError
from ticklab.terminal import console_for

LAB = Path(__file__).resolve().parents[1] / "lab.py"
SCHEMAS = {"v1": "text", "v2": "binary", "v3": "protobuf", "v4": "Cap'n Proto"}
PAYLOAD_MAX = 9999  # of v1, whose length has four digits
SPANS = {"parse": "worker_got..worker_parsed", "serialise": "worker_done..worker_put"}


@dataclass(frozen=True)
class Options:
    """The command line; see harness/schemas.py."""

    config: Path
    overrides: tuple[str, ...] = ()
    payloads: tuple[int, ...] = (8, 512)
    requests: int = 20_000
    out: Path | None = None
    as_json: bool = False


def main(options: Options) -> int:
    """Runs them all and tells; the exit status."""
    try:
        result = _measure(options)
    except LabError as error:
        if str(error):
            print(f"tickline: {str(error).removeprefix('tickline: ')}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"tickline: {error.filename}: {error.strerror}; see --out", file=sys.stderr)
        return 4
    directory = Path(result["directory"])
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (directory / "schemas.json").write_text(text)
    (directory / "schemas.svg").write_text(svg(result))
    if options.as_json:
        sys.stdout.write(text)
    else:
        show(result)
        print(f"picture: {directory / 'schemas.svg'}")
    return int(not all(row["balanced"] for row in result["rows"]))


def _measure(options: Options) -> dict[str, Any]:
    name = prepare.effective(options.config, options.overrides).text("pipeline.name")
    name = name or options.config.stem
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    directory = options.out or Path("runs") / f"schemas-{name}-{stamp}"
    directory.mkdir(parents=True, exist_ok=options.out is not None)
    rows = []
    for payload in options.payloads:
        for schema in SCHEMAS:
            print(f"schemas: {schema}, {payload} bytes", file=sys.stderr)
            rows.append(_row(options, directory, schema, payload))
    return {"schema": 1, "name": name, "directory": str(directory), "rows": rows}


def _row(options: Options, directory: Path, schema: str, payload: int) -> dict[str, Any]:
    keys = {
        "pipeline.schema": schema,
        "replay.capture": "generated",
        "replay.payload": payload,
        "replay.requests": options.requests,
    }
    sets = [*options.overrides, *(f"{key}={value}" for key, value in keys.items())]
    name = f"{schema}-{payload}"
    command = [sys.executable, str(LAB), str(options.config), *prepare.flags(sets, [])]
    command += ["--runs", str(directory), "--name", name]
    log = directory / f"{name}.log"
    with log.open("wb") as stderr:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=False)
    lines = done.stdout.decode(errors="replace").splitlines()
    runs = [line for line in lines if line.startswith("run directory: ")]
    if done.returncode not in (0, 1) or not runs:
        told = log.read_text(errors="replace").strip().splitlines()
        raise LabError(told[-1] if told else f"{log}: no reason given", done.returncode or 4)
    run = Path(runs[-1].removeprefix("run directory: "))
    summary = json.loads((run / "summary.json").read_text())
    largest = json.loads((run / "manifest.json").read_text())["capture"]["largest"]
    row = {"schema": schema, "payload": payload, "run": str(run), "balanced": summary["balanced"]}
    for figure, span in SPANS.items():
        found = summary["latency_ns"][span]
        row[figure] = {name: found[name] for name in ("p50", "p90", "p99") if name in found}
    row["size"] = largest["request_bytes"]
    return row


# ---- terminal ------------------------------------------------------------------------------------


def show(result: dict[str, Any]) -> None:
    """Prints a table."""
    console = console_for(sys.stdout)
    console.print(Text(f"{result['name']}: schemas side by side", "bold"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("payload", justify="right")
    table.add_column("schema")
    for figure in SPANS:
        for name in ("p50", "p99"):
            table.add_column(f"{figure} {name}, ns", justify="right")
    table.add_column("on the wire, bytes", justify="right")
    before = None
    for row in result["rows"]:
        if before not in (None, row["payload"]):
            table.add_row()
        table.add_row(
            "" if before == row["payload"] else f"{row['payload']:,}",
            f"{row['schema']} {SCHEMAS[row['schema']]}",
            *(_ns(row[figure].get(name)) for figure in SPANS for name in ("p50", "p99")),
            f"{row['size']:,}",
        )
        before = row["payload"]
    console.print(table)
    for row in result["rows"]:
        if not row["balanced"]:
            console.print(Text(f"{row['run']}: the account does not balance", "red"))


def _ns(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:,.0f}"


# ---- SVG -----------------------------------------------------------------------------------------

_PANEL, _GAP, _LEFT, _TOP = 230, 26, 112, 74
_BAR, _ROW, _GROUP = 15, 21, 30
# Of each schema; they differ also for the colour-blind.
_COLOURS = {"v1": "#999999", "v2": "#0072b2", "v3": "#d55e00", "v4": "#009e73"}
_PANELS = {"parse": "parse, ns", "serialise": "serialise, ns", "size": "on the wire, bytes"}


def svg(result: dict[str, Any]) -> str:
    """A panel for each figure, a group of bars for each payload; p50, and a line up to p90."""
    payloads = sorted({row["payload"] for row in result["rows"]})
    height = _TOP + len(payloads) * (len(SCHEMAS) * _ROW + _GROUP) + 26
    width = _LEFT + len(_PANELS) * (_PANEL + _GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(14, 24, f"{result['name']}: what a schema costs", "start", 15),
    ]
    for number, (figure, title) in enumerate(_PANELS.items()):
        left = _LEFT + number * (_PANEL + _GAP)
        out.append(_text(left, _TOP - 20, title, "start", 13))
        out.append(
            f'<line x1="{left}" y1="{_TOP - 8}" x2="{left}" y2="{height - 26}" stroke="#bbb"/>'
        )
        out += _panel(result["rows"], payloads, figure, left)
    for group, payload in enumerate(payloads):
        top = _top(group)
        out.append(_text(_LEFT - 8, top - 6, f"{payload:,} bytes", "end", 12, "#777"))
        for place, schema in enumerate(SCHEMAS):
            y = top + place * _ROW + _BAR - 3
            out.append(_text(_LEFT - 8, y, f"{schema} {SCHEMAS[schema]}", "end", 12))
    out.append(
        _text(
            _LEFT, height - 8, "bars: p50, lines: up to p90; pale: the payload", "start", 11, "#777"
        )
    )
    return "\n".join([*out, "</svg>"]) + "\n"


def _top(group: int) -> int:
    return _TOP + group * (len(SCHEMAS) * _ROW + _GROUP) + 14


def _panel(rows: list[dict], payloads: list[int], figure: str, left: int) -> list[str]:
    """The bars of a figure; all of them on one scale from 0."""
    out = []
    ends = {id(row): _ends(row[figure]) for row in rows}
    scale = (_PANEL - 52) / max(most for _, most in ends.values())
    for row in rows:
        place = list(SCHEMAS).index(row["schema"])
        y = _top(payloads.index(row["payload"])) + place * _ROW
        bar, most = ends[id(row)]
        colour, middle = _COLOURS[row["schema"]], y + _BAR / 2
        payload = min(row["payload"], bar) if figure == "size" else 0
        for begin, end, opacity in ((0, payload, 0.3), (payload, bar, 1)):
            out.append(
                f'<rect x="{left + begin * scale:.1f}" y="{y}" height="{_BAR}" '
                f'width="{(end - begin) * scale:.1f}" fill="{colour}" opacity="{opacity}"/>'
            )
        if most > bar:
            out.append(
                f'<line x1="{left + bar * scale:.1f}" y1="{middle}" '
                f'x2="{left + most * scale:.1f}" y2="{middle}" stroke="{colour}"/>'
            )
        out.append(_text(left + most * scale + 5, y + _BAR - 3, f"{bar:,.0f}", "start", 12))
    return out


def _ends(figure: float | dict[str, float]) -> tuple[float, float]:
    if isinstance(figure, dict):
        return figure["p50"], figure.get("p90", figure["p50"])
    return figure, figure


def _text(x: float, y: float, text: str, anchor: str, size: int, colour: str = "#000") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
