# SPDX-License-Identifier: Apache-2.0
"""The lab at several values of one key, a run each, and what a span took at each of them.

A span of work between two stamps is measured in every request, so its percentiles show what the key
does to the code in between and to nothing else: with the handler `cachewalk` and its size varied
the caches one after the other; with `alloc` and the payload, the step at its threshold.
"""

import json
import math
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ticklab import child, prepare
from ticklab.child import LabError
from ticklab.svg import caption, stroke, ticks

LAB = Path(__file__).resolve().parents[1] / "lab.py"
PERCENTILES = ("p50", "p90", "p99")
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "k": 1000}
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Options:
    """The command line; see harness/vary.py."""

    config: Path
    overrides: tuple[str, ...]
    key: str
    values: tuple[str, ...]
    span: str
    per: float = 1.0
    out: Path | None = None
    as_json: bool = False


def number_of(value: str) -> float | None:
    """`16KiB` → 16384.0; None for what is no number."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]*)", value)
    return float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else None


def size_text(size: float) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.4g}{unit}"
    return f"{size:.4g}"


def values_of(given: str) -> tuple[str, ...]:
    """`8,16` → ("8", "16"); `16KiB..64KiB` → ("16KiB", "32KiB", "64KiB"). Raises ValueError."""
    first, dots, last = given.partition("..")
    if not dots:
        return tuple(value.strip() for value in given.split(","))
    low, high = number_of(first.strip()), number_of(last.strip())
    if not low or not high or low > high:
        raise ValueError(f"{given}: expected 8,16,64, or two sizes, the lower first: 16KiB..1GiB")
    return tuple(size_text(low * 2**k) for k in range(int(math.log2(high / low) + 1e-9) + 1))


def caches() -> list[tuple[str, int]]:
    """(L1, bytes) … of this machine's CPU 0, those that hold data."""
    found = {}
    for cache in sorted(_CACHES.glob("index*")):
        if (cache / "type").read_text().strip() != "Instruction":
            size = (cache / "size").read_text().strip().removesuffix("K")
            found["L" + (cache / "level").read_text().strip()] = int(size) << 10
    return sorted(found.items())


class Vary:
    """Settled by the constructor, done by run(). Raises LabError."""

    def __init__(self, options: Options) -> None:
        self.options = options
        for value in options.values:  # a value that cannot be is told before the first run
            config = prepare.effective(options.config, self._sets(value))
        name = config.text("pipeline.name") or options.config.stem
        self.directory = options.out or Path(f"runs/vary-{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        self.result: dict[str, Any] = {
            "schema": 1,
            "name": name,
            "key": options.key,
            "span": options.span,
            "per": options.per,
            "overrides": list(options.overrides),
            "caches": dict(caches()),
            "points": [],
        }
        self.lab: subprocess.Popen[bytes] | None = None
        self.signal = 0

    def _sets(self, value: str) -> list[str]:
        return [*self.options.overrides, f"{self.options.key}={value}"]

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)
        self.directory.mkdir(parents=True, exist_ok=self.options.out is not None)
        status = 0
        for number, value in enumerate(self.options.values, 1):
            said = f"vary: {number} of {len(self.options.values)}: {self.options.key} = {value}"
            print(said, file=sys.stderr, flush=True)
            ended, run = self._measure(value)
            if self.signal:
                return 128 + self.signal
            if run is None or ended not in (0, 1):
                return ended or 4
            status = max(status, ended)
            self._take_point(value, run)
            self._write()
        return status

    def _measure(self, value: str) -> tuple[int, Path | None]:
        command = [sys.executable, str(LAB), str(self.options.config)]
        command += prepare.flags(self._sets(value), [])
        name = re.sub(r"[^0-9A-Za-z._-]", "-", value)
        command += ["--runs", str(self.directory), "--name", name]
        log = self.directory / f"{name}.log"
        with log.open("wb") as stderr:
            self.lab = child.spawn(command, death="TERM", stderr=stderr)
        assert self.lab.stdout is not None
        printed = self.lab.stdout.read().decode(errors="replace")
        status = child.shell_status(self.lab.wait())
        where = printed.rpartition("run directory: ")[2].strip()
        if status not in (0, 1) and not self.signal:
            told = log.read_text(errors="replace").strip().splitlines()
            print(told[-1] if told else f"{log}: no reason given", file=sys.stderr)
        return status, Path(where) if "run directory: " in printed else None

    def _take_point(self, value: str, run: Path) -> None:
        latency = json.loads((run / "summary.json").read_text())["latency_ns"]
        if self.options.span not in latency:
            known = ", ".join(name for name in latency if ".." in name)
            raise LabError(f"--span {self.options.span}: no such span; expected one of {known}", 2)
        entry = latency[self.options.span]
        figures = {name: entry[name] / self.options.per for name in PERCENTILES if name in entry}
        point = {"value": value, "number": number_of(value), "count": entry["count"], **figures}
        self.result["points"].append(point)

    def _take(self, number: int, _frame: object) -> None:
        self.signal = number
        if self.lab:
            self.lab.send_signal(signal.SIGINT)

    def _write(self) -> None:
        (self.directory / "vary.json").write_text(json.dumps(self.result, indent=1) + "\n")
        (self.directory / "vary.svg").write_text(svg(self.result))


def main(options: Options) -> int:
    """Varies and tells; the exit status."""
    try:
        vary = Vary(options)
        status = vary.run()
    except LabError as error:
        if str(error):
            print(f"tickline: {str(error).removeprefix('tickline: ')}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"tickline: {error.filename}: {error.strerror}; see --out", file=sys.stderr)
        return 4
    if options.as_json:
        print(json.dumps(vary.result, indent=1))
    else:
        show(vary.result)
        print(f"vary directory: {vary.directory}")
    return status


def show(result: dict[str, Any]) -> None:
    """A line for each value, ns."""
    per = f" / {result['per']:g}" if result["per"] != 1 else ""
    print(f"{result['name']}: {result['span']}{per}, ns")
    print(f"{result['key']:>24}{'n':>10}" + "".join(f"{name:>11}" for name in PERCENTILES))
    for point in result["points"]:
        figures = "".join(
            f"{point[name]:11,.2f}" if name in point else " " * 11 for name in PERCENTILES
        )
        print(f"{point['value']:>24}{point['count']:10,}{figures}")
    for name, size in result["caches"].items():
        print(f"{name} {size_text(size)}", end="  ")
    print()


# ---- SVG -----------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 440, 70, 70, 40, 60
_COLOURS = {"p50": "#0072b2", "p90": "#56b4e9", "p99": "#d55e00"}


def svg(result: dict[str, Any]) -> str:
    """The percentiles over the values: logarithmic where they are numbers, else one by one."""
    points = result["points"]
    numbers = [point["number"] for point in points]
    log = len(points) > 1 and all(numbers) and numbers == sorted(numbers)
    at = [math.log2(number) for number in numbers] if log else list(range(len(points)))
    low, high = min(at) - 0.3, max(at) + 0.3
    found = [max(point[name], 0.1) for point in points for name in PERCENTILES if name in point]
    y0, y1 = min(found) / 1.3, max(found) * 1.3

    def x(place: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (place - low) / (high - low)

    def y(ns: float) -> float:
        room = _HEIGHT - _TOP - _BOTTOM
        return _HEIGHT - _BOTTOM - room * math.log(max(ns, 0.1) / y0) / math.log(y1 / y0)

    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    per = f" / {result['per']:g}" if result["per"] != 1 else ""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        caption(_LEFT, 20, f"{result['name']}: {result['span']}{per}", "start", "#000", 14),
        caption((_LEFT + right) / 2, _HEIGHT - 10, result["key"]),
        caption(_LEFT - 6, _TOP - 8, "ns", "end"),
    ]
    for ns in ticks(y0, y1):
        out.append(stroke(_LEFT, y(ns), right, y(ns), "#e5e5e5"))
        out.append(caption(_LEFT - 6, y(ns) + 4, f"{ns:,.10g}", "end"))
    skip = 1 + len(points) // 12
    for place, point in list(zip(at, points, strict=True))[::skip]:
        out.append(stroke(x(place), _TOP, x(place), bottom, "#f0f0f0"))
        out.append(caption(x(place), bottom + 18, point["value"]))
    for name, size in result["caches"].items() if log and points[0]["value"][-1] == "B" else ():
        if low < math.log2(size) < high:
            place = x(math.log2(size))
            out.append(stroke(place, _TOP, place, bottom, "#009e73", "5 3"))
            label = f"{name} {size_text(size)}"
            out.append(caption(place - 4, _TOP + 12, label, "end", "#009e73"))
    for name, colour in _COLOURS.items():
        known = [
            (x(p), y(point[name])) for p, point in zip(at, points, strict=True) if name in point
        ]
        if not known:
            continue
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in known)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in known]
        out.append(caption(known[-1][0] + 8, known[-1][1] + 4, name, "start", colour))
    return "\n".join([*out, "</svg>"]) + "\n"
