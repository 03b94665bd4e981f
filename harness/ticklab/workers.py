# SPDX-License-Identifier: Apache-2.0
"""What each worker did, and whether one of them is slower than its peers.

Two requests of a run are no two samples: what slows one slows its neighbours. So the run is cut
into blocks, stretches of consecutive requests, and in each of them a worker is compared with its
peers there; what all suffer together is on both sides. The effect is the probability that a request
of this worker takes longer than one of theirs (one half: alike). It goes by ranks alone, so a tail
counts as often as it comes, and not as long as it lasts. Beside it stands the tail: the share of
its requests beyond the 99th percentile of theirs.

The figure told is the median over blocks. Its interval ends at order statistics of the blocks: it
holds whatever their distribution, and for all comparisons of a run together (ALPHA).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ticklab import spans as spans_
from ticklab.run import Run
from ticklab.stats import describe, tenths

ALPHA = 0.01
BLOCKS_MAX = 48
PER_BLOCK = 150  # requests for each worker that a block should hold
BLOCKS_MIN, SIDE_MIN = 12, 20  # blocks that tell anything; requests a side in each of them
TAIL_SIDE = 200  # requests of the peers below which a block has no 99th percentile
# What counts: an effect of this size, and with it the distance of the medians below.
SUPERIORITY = 0.64  # Cliff's delta 0.28, between a small and a medium effect
TAIL, TAIL_LOW = 0.05, 0.02  # five times as many as were to be expected, and surely twice
TAIL_NS = 1_000.0  # between the p99

_SPANS = {
    "service_ns": ("worker_got", "worker_put"),
    "handler_ns": ("worker_parsed", "worker_done"),
    "wait_ns": ("rx_put", "worker_got"),
}


class Measure(NamedTuple):
    """What workers are compared by: a span, how far medians must be apart (share, ns), a verb."""

    key: str
    share: float
    floor_ns: float
    says: str


_MEASURES = {
    "service": Measure("service_ns", 0.10, 50.0, "is slower than its peers"),
    "wait": Measure("wait_ns", 0.25, 1_000.0, "lets requests wait for it longer"),
}


@dataclass(frozen=True)
class Effect:
    """One worker beside its peers; over `blocks`."""

    value: float
    low: float
    high: float
    blocks: int

    def told(self) -> dict:
        figures = {"p": self.value, "low": self.low, "high": self.high}
        return {name: round(figure, 4) for name, figure in figures.items()} | {
            "blocks": self.blocks
        }


def workers_of(
    run: Run, table: spans_.Requests | None, missing: dict[str, int], tick_ns: float, regimes: dict
) -> tuple[dict, list[str]]:
    """`workers` of the summary, and a line for each worker that differs where it matters.

    `table` is the request table, None where the run has no trace; `tick_ns` the length of a tick,
    `missing` the records that each lane lacks, `regimes` the stages' shares of time.
    """
    count = len(run.counter("end", "to_worker"))
    names = [f"worker{i}" for i in range(count)]
    requests = [run.measured("to_worker", i, "consumed") for i in range(count)]
    told = {name: _counted(run, i, requests, regimes) for i, name in enumerate(names)}
    if table is None or not len(table.number):
        return told, []
    whose = _whose(run, table, names)
    for key, (begin, end) in _SPANS.items():
        ticks, there = _span(table, begin, end)
        for i, name in enumerate(names):
            mine = ticks[there & (whose == i)]
            told[name][key] = describe(mine, len(mine) + missing.get(name, 0), tick_ns)
    return told, _compare(run, table, whose, told, tick_ns) if count > 1 else []


def _counted(run: Run, i: int, requests: list[int], regimes: dict) -> dict:
    name = f"worker{i}"
    entry = {
        "requests": requests[i],
        "share": round(requests[i] / max(sum(requests), 1), 6),
        "dropped": run.measured("rx", "dropped", i),
        "restarts": sum(restart["stage"] == name for restart in run.restarts),
    }
    return entry | ({"busy": regimes[name]["work"]} if name in regimes else {})


def _whose(run: Run, table: spans_.Requests, names: list[str]) -> np.ndarray:
    """By row of the table, the worker that had the request; -1: not known."""
    whose = np.full(len(table.number), -1, np.int8)
    point = table.points["worker_got"].id if "worker_got" in table.points else -1
    for i, name in enumerate(names):
        if (lane := run.trace.lanes.get(name)) is None:
            continue
        number = lane.request[lane.point == point]
        row = np.searchsorted(table.number, number)
        here = row < len(table.number)
        row, number = row[here], number[here]
        whose[row[table.number[row] == number]] = i
    return whose


def _span(table: spans_.Requests, begin: str, end: str) -> tuple[np.ndarray, np.ndarray]:
    """Ticks from one point to another, by row, and which rows have both."""
    first, last = (table.ticks.get(name) for name in (begin, end))
    if first is None or last is None:
        return np.zeros(len(table.number), np.int64), np.zeros(len(table.number), bool)
    return last - first, (first != 0) & (last != 0)


def _compare(run: Run, table: spans_.Requests, whose: np.ndarray, told: dict, tick: float) -> list:
    """Puts `against_peers` into what is told of each worker; the lines that matter."""
    lines: dict[str, list[str]] = {}
    comparisons = 2 * len(_MEASURES) * len(told)
    for title, measure in _MEASURES.items():
        ticks, there = _span(table, *_SPANS[measure.key])
        rows = np.flatnonzero(there & (whose >= 0))
        ticks, owner = ticks[rows], whose[rows]
        slower, beyond = _blocks(ticks, owner, len(told))
        for i, (name, entry) in enumerate(told.items()):
            effect = _effect([block[i] for block in slower], comparisons)
            if effect is None:
                continue
            tail = _effect([block[i] for block in beyond], comparisons)
            found = {"slower": effect.told()} | ({"beyond_p99": tail.told()} if tail else {})
            for side, mine in (("p50", owner == i), ("peers_p50", owner != i)):
                found[side] = tenths(np.median(ticks[mine]) * tick)
            entry.setdefault("against_peers", {})[title] = found
            # Whose turn comes first decides the wait of those who share a CPU, its tail above all.
            turns = _turns(run, name) if title == "wait" else 1
            apart = found["p50"] - found["peers_p50"]
            least = max(measure.share * found["peers_p50"], measure.floor_ns * turns)
            if _counts(effect) and apart >= least:
                line = f"{measure.says}: {title} {_slower_line(found, effect)}"
            elif (
                tail
                and _counts_tail(tail)
                and turns == 1
                and _tail_apart(entry, told, measure) >= TAIL_NS
            ):
                line = f"has a longer tail of {title}: {_tail_line(tail)}"
            else:
                continue
            lines.setdefault(name, []).append(line)
    return [
        f"{name} serves {told[name]['share']:.0%} of requests and {'; and '.join(parts)}"
        for name, parts in lines.items()
    ]


def _counts(effect: Effect) -> bool:
    return effect.value >= SUPERIORITY and effect.low > 0.5


def _counts_tail(tail: Effect) -> bool:
    return tail.value >= TAIL and tail.low > TAIL_LOW


def _slower_line(found: dict, effect: Effect) -> str:
    often = f"{effect.value:.0%} of the time [{effect.low:.0%}, {effect.high:.0%}]"
    medians = f"p50 {_us(found['p50'])} µs against {_us(found['peers_p50'])}"
    return f"{medians}, longer than one of theirs {often}"


def _tail_line(tail: Effect) -> str:
    return f"{tail.value:.1%} [{tail.low:.1%}, {tail.high:.1%}] beyond the p99 of its peers"


def _turns(run: Run, name: str) -> int:
    """How many stages take turns on the worker's CPU."""
    placed = {stage: end.get("cpu") for stage, (end, _) in run.stages().items()}
    return max(sum(cpu == placed.get(name) for cpu in placed.values()), 1)


def _tail_apart(entry: dict, told: dict, measure: Measure) -> float:
    """Its p99 less the highest of its peers', in ns."""
    known = [other[measure.key].get("p99") for other in told.values() if other is not entry]
    mine, others = entry[measure.key].get("p99"), [p99 for p99 in known if p99 is not None]
    return mine - max(others) if mine is not None and others else 0.0


def _blocks(ticks: np.ndarray, whose: np.ndarray, count: int) -> tuple[list, list]:
    """Of each block, by worker: how likely it is slower, and its share beyond its peers' p99; NaN
    where the block has too few of either side."""
    blocks = min(BLOCKS_MAX, len(ticks) // (PER_BLOCK * count))
    slower, beyond = [], []
    for at in np.array_split(np.arange(len(ticks)), max(blocks, 1)) if blocks else ():
        begin, end = int(at[0]), int(at[-1]) + 1
        order = np.argsort(ticks[begin:end], kind="stable")
        values, owner = ticks[begin:end][order], whose[begin:end][order]
        slower.append(_slower(values, owner, count))
        beyond.append(_beyond(values, owner, count))
    return slower, beyond


def _slower(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """P(a request of the worker takes longer than one of its peers) + P(as long) / 2, by worker."""
    first = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    width = np.diff(np.append(first, len(values)))
    rank = np.repeat(first + (width + 1) / 2, width)  # ties share the middle one
    mine = np.bincount(owner, minlength=count).astype(float)
    total = np.bincount(owner, weights=rank, minlength=count)
    peers = len(values) - mine
    with np.errstate(invalid="ignore", divide="ignore"):
        likely = (total - mine * (mine + 1) / 2) / (mine * peers)
    return np.where((mine >= SIDE_MIN) & (peers >= SIDE_MIN), likely, np.nan)


def _beyond(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Share of each worker's requests that took longer than the 99th percentile of its peers."""
    beyond = np.full(count, np.nan)
    for i in range(count):
        mine = owner == i
        own, peers = values[mine], values[~mine]
        if len(own) >= SIDE_MIN and len(peers) >= TAIL_SIDE:
            edge = peers[-(-99 * len(peers) // 100) - 1]
            beyond[i] = (len(own) - np.searchsorted(own, edge, "right")) / len(own)
    return beyond


def _effect(values: list, comparisons: int) -> Effect | None:
    """The median of the blocks that have a value, and its interval; None: too few of them."""
    known = np.sort([value for value in values if not math.isnan(value)])
    out = _left_out(len(known), ALPHA / comparisons)
    if len(known) < BLOCKS_MIN or out < 0:
        return None
    return Effect(float(np.median(known)), float(known[out]), float(known[-1 - out]), len(known))


def _left_out(count: int, alpha: float) -> int:
    """How many of `count` ordered samples lie outside of the median's interval at each end.

    -1: not even all of them make such an interval.
    """
    below, out = 0.0, -1
    for k in range(count // 2):
        below += math.comb(count, k) / 2**count
        if 2 * below > alpha:
            break
        out = k
    return out


def _us(ns: float) -> str:
    return f"{ns / 1000:.3g}" if ns < 1e6 else f"{ns / 1000:,.0f}"
