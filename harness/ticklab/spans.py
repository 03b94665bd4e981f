# SPDX-License-Identifier: Apache-2.0
"""The request table: when each request passed each point, and the spans between.

Ticks are whole numbers, so the spans of a request add up to `kernel..tx_complete` exactly. A stamp
that lies before its predecessor gives a negative span; it stays one.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ticklab.clock import Clock
from ticklab.ctf import Lane, Trace

KERNEL = "kernel"
# The pipeline's own points in the order of a request. Any other stands behind worker_parsed, and
# among its like wherever its time says: a handler may take its steps in any order.
ORDER = (
    "rx_got",
    "rx_put",
    "worker_got",
    "worker_parsed",
    "worker_done",
    "worker_put",
    "tx_got",
    "tx_sent",
    "tx_complete",
)
THROUGH = (KERNEL, "tx_complete")
# With this point a stage is done with a request; a successor does not take it up again.
_LAST = ("rx_put", "worker_put", "tx_complete")


class Point(NamedTuple):
    """A point of the list: `span` is the kind (wait or work) of the span that ends there."""

    id: int
    name: str
    span: str
    stage: str


_KERNEL = Point(0, KERNEL, "wait", "rx")


@dataclass(frozen=True)
class Requests:
    """Ticks by request and point.

    `number`: uint64, shape (requests,), ascending; `ticks`: point name → int64, shape (requests,),
    0 where the request has no such record; in request order, `kernel` first. `points` has the same
    keys.
    """

    number: np.ndarray
    ticks: dict[str, np.ndarray]
    points: dict[str, Point]

    def through(self) -> tuple[np.ndarray, np.ndarray]:
        """Complete requests: their rows, and `kernel..tx_complete` in ticks."""
        first, last = (self.ticks[name] for name in THROUGH)
        rows = np.flatnonzero((first != 0) & (last != 0))
        return rows, last[rows] - first[rows]


class Span(NamedTuple):
    """`rows` of the request table that have the span, `ticks` its length in each, both shape (n,).

    `kind` is wait, work, or mixed where records between are missing and both kinds lie in it.
    `stages` are those of its two points.
    """

    kind: str
    stages: set[str]
    rows: np.ndarray
    ticks: np.ndarray


def points_of(listed: list[dict]) -> list[Point]:
    """The points a request passes, in request order, from the list of `tickline points --json`."""
    points = [
        Point(p["id"], p["name"], p["span"], p["stage"]) for p in listed if p["span"] != "none"
    ]
    own = {point.name: point for point in points}
    handler = [point for point in points if point.name not in ORDER]
    before = ORDER.index("worker_parsed") + 1
    fixed = [own.get(name) for name in ORDER]
    return [point for point in [*fixed[:before], *handler, *fixed[before:]] if point]


def requests_of(trace: Trace, points: list[Point], clock: Clock, measured_from: int) -> Requests:
    """The table of all requests from number `measured_from` that left a record."""
    lanes = [(lane, _points_there(lane, points)) for lane in trace.lanes.values()]
    number, row_of = _rows([lane for lane, there in lanes if there], points, measured_from)
    ticks = {KERNEL: np.zeros(len(number), np.int64)}
    ticks |= {point.name: np.zeros(len(number), np.int64) for point in points}
    for lane, there in lanes:
        if there:
            _fill(ticks, lane, there, row_of(lane), clock)
    return Requests(number, ticks, {KERNEL: _KERNEL} | {point.name: point for point in points})


def spans_of(requests: Requests) -> dict[str, Span]:
    """Every span `a..b` between neighbouring points that a request has, in request order."""
    names = list(requests.ticks)
    count = len(names) + 1
    here = np.zeros(len(requests.number), np.uint16)  # 1-based point last passed, 0: none yet
    since = np.zeros(len(requests.number), np.int64)
    found: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
    for which, ticks in _steps(requests, names):
        present = ticks != 0
        pair = here * np.uint16(count) + which
        for code in np.flatnonzero(np.bincount(pair[present])).tolist():
            if code >= count:
                rows = np.flatnonzero(present & (pair == code))
                found.setdefault(divmod(code, count), []).append((rows, ticks[rows] - since[rows]))
        here = np.where(present, which, here)
        since = np.where(present, ticks, since)
    spans = {}
    for a, b in sorted(found):
        rows, ticks = (np.concatenate(parts) for parts in zip(*found[a, b], strict=True))
        begin, end = (requests.points[names[i - 1]] for i in (a, b))
        passed = [requests.points[name].span for name in names[a : b - 1] if name in ORDER]
        kind = end.span if set(passed) <= {end.span} else "mixed"
        spans[f"{begin.name}..{end.name}"] = Span(kind, {begin.stage, end.stage}, rows, ticks)
    return spans


def waits_and_works(requests: Requests, spans: dict[str, Span]) -> tuple[np.ndarray, np.ndarray]:
    """Ticks a complete request waited in all, and was worked on; shape (requests,) each.

    Requests with a mixed span are left out.
    """
    total = {kind: np.zeros(len(requests.number), np.int64) for kind in ("wait", "work")}
    whole = np.zeros(len(requests.number), bool)
    whole[requests.through()[0]] = True
    for span in spans.values():
        if span.kind == "mixed":
            whole[span.rows] = False
        else:
            total[span.kind][span.rows] += span.ticks
    return total["wait"][whole], total["work"][whole]


def _points_there(lane: Lane, points: list[Point]) -> list[Point]:
    there = np.bincount(lane.point, minlength=1)
    return [point for point in points if point.id < len(there) and there[point.id]]


def _rows(lanes: list[Lane], points: list[Point], measured_from: int):
    """Request numbers of the rows, and a function: lane → row of each of its records, -1: none."""
    mine = np.array([point.id for point in points], np.uint16)
    newest = max((int(lane.request.max()) for lane in lanes), default=-1)
    span = newest + 1 - measured_from
    if span <= 2 * sum(map(len, lanes)):
        number = np.arange(measured_from, max(newest + 1, measured_from), dtype=np.uint64)

        def row_of(lane: Lane) -> np.ndarray:
            return np.maximum(lane.request.astype(np.int64) - measured_from, -1)

        return number, row_of

    # Sampled: few of the numbers have records.
    seen = [lane.request[np.isin(lane.point, mine)] for lane in lanes]
    number = np.unique(np.concatenate(seen))
    number = number[number >= measured_from]

    def row_of(lane: Lane) -> np.ndarray:
        row = np.searchsorted(number, lane.request)
        return np.where(lane.request >= measured_from, np.minimum(row, len(number) - 1), -1)

    return number, row_of


def _fill(ticks: dict, lane: Lane, points: list[Point], row: np.ndarray, clock: Clock) -> None:
    """Puts a lane's records into the table.

    After a restart two generations may have stamped the same request: what stands is the latest
    one that finished it, or the latest of all where none did; never a mixture of two.
    """
    generations = [part for part in lane.generations() if part[1].start < part[1].stop]
    if len(generations) == 1:
        _scatter(ticks, lane, points, row, slice(None), clock)
        return
    names = [point.name for point in points]
    names += [KERNEL] if "rx_got" in names else []
    last = [name for name in names if name in _LAST]
    done = np.zeros(len(ticks[KERNEL]), bool)
    for _, part in sorted(generations, key=lambda generation: generation[0]):
        mine = {name: np.zeros(len(done), np.int64) for name in names}
        _scatter(mine, lane, points, row, part, clock)
        stamped = np.any([column != 0 for column in mine.values()], axis=0)
        finished = np.any([mine[name] != 0 for name in last], axis=0) if last else stamped
        take = finished | (stamped & ~done)
        for name in names:
            ticks[name][take] = mine[name][take]
        done |= finished


def _scatter(ticks: dict, lane: Lane, points: list[Point], row, part: slice, clock: Clock) -> None:
    tsc, point, row = lane.tsc[part], lane.point[part], row[part]
    for this in points:
        at = np.flatnonzero(point == this.id)
        rows = row[at]
        if len(rows) and rows.min() < 0:
            at, rows = at[rows >= 0], rows[rows >= 0]
        ticks[this.name][rows] = tsc[at]
        if this.name == "rx_got":
            wide = np.searchsorted(lane.wide, at + (part.start or 0))
            value = lane.value[wide]
            kernel = clock.ticks(value, tsc[at])
            ticks[KERNEL][rows] = np.where(value != 0, kernel, 0)


def _steps(requests: Requests, names: list[str]):
    """Each step through the points: which (1-based) point it is for each request, and its ticks."""
    handler = [i for i, name in enumerate(names) if name not in ORDER and name != KERNEL]
    for i, name in enumerate(names):
        if i not in handler:
            yield np.full(len(requests.number), i + 1, np.uint16), requests.ticks[name]
        elif i == handler[0]:
            columns = np.stack([requests.ticks[names[j]] for j in handler])
            late = np.where(columns == 0, np.iinfo(np.int64).max, columns)
            order = np.argsort(late, axis=0, kind="stable")
            ids = np.array(handler, np.uint16) + 1
            for turn in order:
                yield ids[turn], np.take_along_axis(columns, turn[None], 0)[0]
