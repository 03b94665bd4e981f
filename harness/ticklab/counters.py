# SPDX-License-Identifier: Apache-2.0
"""What stages counted of themselves: instructions and misses, or faults and switches.

A record `counters` (trace.counters = span) stands between the two stamps that it counts between.
"""

import re

import numpy as np

from ticklab.ctf import Lane
from ticklab.run import Run
from ticklab.stats import rank

POINT = "counters"
# By a record's argument: what its four numbers are.
SETS = (
    ("instructions", "cycles", "cache_misses", "branch_misses"),
    ("minor_faults", "major_faults", "voluntary_switches", "involuntary_switches"),
)
_READING = re.compile(r"(?:(.*); )?a reading takes (\d+) ns")


def counters_of(run: Run) -> dict | None:
    """`counters` of the summary; None where nobody was asked to count."""
    notes = {
        key.split()[0]: note
        for key, note in (run.manifest.get("obtained") or {}).items()
        if key.endswith(" trace.counters")
    }
    if not notes:
        return None
    told: dict = {
        name: _all(note[name] for note in notes.values()) for name in ("asked", "obtained")
    }
    readings = {stage: _READING.fullmatch(note["why"]) for stage, note in notes.items()}
    told["why"] = _all(found[1] or "" for found in readings.values() if found)
    told["reading_ns"] = {stage: int(found[2]) for stage, found in readings.items() if found}
    told["stages"] = {
        stage: {
            name: count - (mark or {}).get("counters", {}).get(name, 0)
            for name, count in end["counters"].items()
        }
        for stage, (end, mark) in run.stages().items()
        if "counters" in end
    }
    if spans := _spans(run):
        told["spans"] = spans
    return told


def _all(texts) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))


def _spans(run: Run) -> dict:
    """Span → how many requests it was counted for, and each counter over them."""
    if run.trace is None:
        return {}
    listed = run.manifest.get("points", [])
    counters = next((point["id"] for point in listed if point["name"] == POINT), None)
    names = {point["id"]: point["name"] for point in listed if point["span"] != "none"}
    if counters is None:
        return {}
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for lane in run.trace.lanes.values():
        _add(found, lane, counters, names, run.measured_from)
    return {span: _described(parts) for span, parts in found.items()}


def _add(found: dict, lane: Lane, counters: int, names: dict[int, str], first: int) -> None:
    at = np.flatnonzero(lane.point == counters)
    at = at[(at > 0) & (at + 1 < len(lane))]
    at = at[lane.request[at] >= first]
    if not len(at):
        return
    stamps = np.flatnonzero(np.isin(lane.point, np.array(list(names), np.uint16)))
    before = stamps[np.maximum(np.searchsorted(stamps, at) - 1, 0)]
    # Beside a record that found no room stands one of another request.
    same = (lane.request[before] == lane.request[at]) & (lane.request[at + 1] == lane.request[at])
    at, before = at[same & np.isin(at + 1, stamps)], before[same & np.isin(at + 1, stamps)]
    wide = np.searchsorted(lane.wide, at)
    words = (lane.value[wide], lane.extra[wide])
    low = np.uint64(0xFFFFFFFF)
    four = [part.astype(np.int64) for w in words for part in (w & low, w >> np.uint64(32))]
    ends = lane.point[before].astype(np.uint32) << 16 | lane.point[at + 1]
    for code in np.unique(ends).tolist():
        for which in np.unique(lane.argument[at[ends == code]]).tolist():
            rows = (ends == code) & (lane.argument[at] == which)
            parts = found.setdefault(f"{names[code >> 16]}..{names[code & 0xFFFF]}", {})
            for name, values in zip(SETS[which], four, strict=True):
                parts.setdefault(name, []).append(values[rows])


def _described(parts: dict[str, list[np.ndarray]]) -> dict:
    told: dict = {}
    for name, lanes in parts.items():
        values = np.sort(np.concatenate(lanes))
        told["requests"] = len(values)
        told[name] = {
            "sum": int(values.sum()),
            "mean": round(float(values.mean()), 3),
            "p50": int(values[rank((50, 100), len(values)) - 1]),
            "p99": int(values[rank((99, 100), len(values)) - 1]),
            "max": int(values[-1]),
        }
    return told
