# SPDX-License-Identifier: Apache-2.0
"""What is told of the process starts of a session: a row a benchmark, and Google Benchmark's JSON.

An entry is what a program prints of one start. A figure of a benchmark is the median over its
starts, and its spread goes from the least to the most of them: starts, not loops.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ticklab.bench import relations
from ticklab.bench.judge import FLOOR_NS

Entry = dict[str, Any]

_REGIMES = {"consumer keeps up": "keeps up", "consumer lags": "lags"}
_COUNTS = ("repetition_index", "repetitions", "threads", "iterations", "family_index", "page_bytes")


@dataclass(frozen=True)
class Row:
    """A benchmark as a table tells it; times in ns. None where there is nothing to tell."""

    name: str
    peer: str | None  # whose it is, where it stands beside one of ours
    starts: int
    why: str  # it did not run, or not always
    ns: float | None = None
    low: float | None = None
    high: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    max: float | None = None
    n: int = 0  # samples or operations behind a start
    rate: float | None = None  # items a second
    regime: str = ""
    note: str = ""
    limit: str | None = None
    limit_ns: float | None = None  # its factor is in it
    of_limit: float | None = None  # ns / limit_ns; None where that is below FLOOR_NS
    best_peer: str | None = None
    of_peer: float | None = None  # how many times faster ours is than the best peer, or in a peer's
    # row than that one; None where either is below FLOOR_NS


class Results:
    """The entries of one side of a session."""

    def __init__(self, entries: Sequence[Entry], order: Sequence[str] = ()) -> None:
        """`order`: of the names, where the entries stand in another one."""
        self.by_name: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.get("run_type") == "iteration":
                self.by_name.setdefault(entry["name"], []).append(entry)
        known = [name for name in order if name in self.by_name]
        self.names = relations.in_order(list(dict.fromkeys([*known, *self.by_name])))

    def starts(self, name: str) -> list[Entry]:
        """Those that came to a figure."""
        return [one for one in self.by_name.get(name, []) if "real_time" in one]

    def values(self, name: str, field: str = "real_time") -> list[float]:
        """A field of each start that has it."""
        return [float(one[field]) for one in self.starts(name) if field in one]

    def median(self, name: str, field: str = "real_time") -> float | None:
        values = self.values(name, field)
        return statistics.median(values) if values else None

    def why(self, name: str) -> str:
        """Why a benchmark, or some of its starts, has no figure; empty where all have."""
        bad = [one for one in self.by_name[name] if "real_time" not in one]
        if not bad:
            return ""
        told = bad[-1].get("error_message", "no figure")
        all_bad = len(bad) == len(self.by_name[name])
        return told if all_bad else f"{len(bad)} of {len(self.by_name[name])} starts: {told}"

    def owner(self, name: str) -> str:
        """What a benchmark is told with: itself, or for a peer's that of ours."""
        return relations.owner(name, self.by_name)

    def peers(self, name: str) -> list[str]:
        return [other for other in self.names if other != name and self.owner(other) == name]

    def rows(self) -> list[Row]:
        """One for each benchmark, peers behind what they stand beside."""
        return [self._row(name) for name in self.names]

    def _row(self, name: str) -> Row:
        starts = self.starts(name)
        own = self.owner(name)
        row = {
            "name": name,
            "peer": relations.peer(name, own) if own != name else None,
            "starts": len(starts),
            "why": self.why(name),
        }
        if not starts:
            return Row(**row)
        times, ns = self.values(name), self.median(name)
        regimes = statistics.multimode(_REGIMES.get(r, r) for r in self._texts(name, "regime"))
        row |= {
            "ns": ns,
            "low": min(times),
            "high": max(times),
            "rate": self.median(name, "items_per_second"),
            "p99": self.median(name, "p99"),
            "p99_9": self.median(name, "p99_9"),
            "max": self.median(name, "max"),
            "n": int(self.median(name, "iterations") or 0),
            "regime": regimes[0] if regimes else "",
            "note": next(iter(self._texts(name, "label")), ""),
        }
        if told := relations.limit_of(name):
            limit, factor = told
            if (bare := self.median(limit)) is not None:
                row |= {"limit": limit, "limit_ns": bare * factor}
                row["of_limit"] = ns / bare / factor if bare >= FLOOR_NS else None
        if best := self._best_peer(name):
            row["best_peer"] = relations.peer(best, name)
            row["of_peer"] = self._told(name, best)
        elif relations.beside(name) == own and self.median(own) is not None:
            row["of_peer"] = self._told(own, name)
        return Row(**row)

    def _texts(self, name: str, field: str) -> list[str]:
        return [one[field] for one in self.starts(name) if one.get(field)]

    def _best_peer(self, name: str) -> str | None:
        """The fastest of the peers that do the very same, not a variant of it."""
        same = [other for other in self.peers(name) if relations.beside(other) == name]
        ran = [other for other in same if self.median(other) is not None]
        return min(ran, key=lambda other: self._ahead(name, other), default=None)

    def _ahead(self, name: str, other: str) -> float:
        """How many times faster `name` is, by items a second where both have them."""
        rate, its_rate = (self.median(one, "items_per_second") for one in (name, other))
        if rate and its_rate:
            return rate / its_rate
        ns, its = (max(self.median(one) or 0.0, FLOOR_NS) for one in (name, other))
        return its / ns

    def _told(self, name: str, other: str) -> float | None:
        """The same, where neither costs next to nothing."""
        least = min(self.median(one) or 0.0 for one in (name, other))
        return self._ahead(name, other) if least >= FLOOR_NS else None


def google(context: Entry, results: Results) -> Entry:
    """Google Benchmark's JSON: each start an iteration, and behind them their aggregates."""
    benchmarks: list[Entry] = []
    for family, name in enumerate(results.names):
        starts = [
            one | {"family_index": family, "per_family_instance_index": 0}
            for one in results.by_name[name]
        ]
        benchmarks += starts + _aggregates([one for one in starts if "real_time" in one])
    return {"context": context, "benchmarks": benchmarks}


def _aggregates(starts: list[Entry]) -> list[Entry]:
    """mean and median, of several starts also stddev and cv, of every figure that all have."""
    if not starts:
        return []
    fields = [
        field
        for field, value in starts[0].items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and field not in (*_COUNTS, "per_family_instance_index")
        and all(field in one for one in starts)
    ]
    columns = {field: [float(one[field]) for one in starts] for field in fields}
    found = {
        "mean": {field: statistics.fmean(values) for field, values in columns.items()},
        "median": {field: statistics.median(values) for field, values in columns.items()},
    }
    if len(starts) > 1:
        found["stddev"] = {field: statistics.stdev(values) for field, values in columns.items()}
        found["cv"] = {
            field: found["stddev"][field] / mean if (mean := found["mean"][field]) else 0.0
            for field in fields
        }
    first = starts[0]
    return [
        {
            "name": f"{first['name']}_{aggregate}",
            "family_index": first["family_index"],
            "per_family_instance_index": 0,
            "run_name": first["name"],
            "run_type": "aggregate",
            "repetitions": len(starts),
            "threads": first.get("threads", 1),
            "aggregate_name": aggregate,
            "aggregate_unit": "percentage" if aggregate == "cv" else "time",
            "iterations": len(starts),
            "time_unit": first.get("time_unit", "ns"),
            **figures,
        }
        for aggregate, figures in found.items()
    ]
