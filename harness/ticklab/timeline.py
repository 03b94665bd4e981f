# SPDX-License-Identifier: Apache-2.0
"""Requests of a run as a Chrome trace, for ui.perfetto.dev and chrome://tracing.

    process   slices (X)                     beside them
    wire      where something is shown       through, wire_to_wire, kernel..rx_got (b/e)
    rx        its work                       what it dropped, its own events (i)
    workerN   its work                       waits in ring to_worker.N (b/e), its depth (C)
    tx        its work                       waits in rings to_tx.N (b/e), their depths (C)

Requests asked for have everything: slices, waits, and a flow (s, t, f) through the processes. Of
other requests the windows around those show the work alone, in grey: it is what they waited for.

`ts` and `dur` are µs with the digits of a ns, from time zero: the first stamp of the measured
phase. The same run and the same question give the same bytes.
"""

import heapq
import json
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ticklab import spans as spans_
from ticklab.clock import Clock, clock_of
from ticklab.ctf import Trace
from ticklab.run import Run
from ticklab.stats import tenths
from ticklab.wire import Wire, match

EVENTS_MAX = 200_000
AROUND_NS = 1_000_000
WIRE = "wire"
_NS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 1_000_000, "s": 1_000_000_000}
_NAMED = 20  # occurrences of a wire id that are named
# Of the bound, so much at most for the requests asked for; the rest shows what went on meanwhile.
_FOCUS_SHARE = Fraction(3, 4)
_BESIDE = 2 + 2 + 3  # events of a request beside its spans: through, wire_to_wire, a flow


class TimelineError(Exception):
    """What was asked for is not there; the message is one line."""


@dataclass(frozen=True)
class Facts:
    """A run as the timeline needs it.

    `table` has the requests of the measured phase; by its row: `worker` (-1: seen by none),
    `wire_id`, and `first` and `last`, ticks of the earliest and the latest stamp. `zero` is time
    zero in ticks. `whole`: no record is missing.
    """

    run: Run
    trace: Trace
    clock: Clock
    table: spans_.Requests
    worker: np.ndarray
    wire_id: np.ndarray
    first: np.ndarray
    last: np.ndarray
    zero: int
    whole: bool

    @property
    def sample(self) -> int:
        return int(self.run.config("trace.sample", "1"))

    def ns(self, ticks):
        """Whole ns since time zero: an int of an int, int64 of an array."""
        after = self.clock.ns(ticks - self.zero)
        return round(after) if isinstance(after, float) else np.rint(after).astype(np.int64)

    def processes(self) -> list[str]:
        """In pipeline order; `pid` is the place here, from 1."""
        return [WIRE, *sorted(self.trace.lanes, key=_place)]


@dataclass(frozen=True)
class Selection:
    """What to show: `focus`, rows of the table, the most important first, and `windows`.

    `kind` is worst, around or between; with `between` the focus is all there is in the windows, in
    order of time. `windows` is int64, shape (windows, 2), first and last tick of each, ascending
    and apart. `shows` says it in words, `notes` what a person should know besides.
    """

    kind: str
    focus: np.ndarray
    windows: np.ndarray
    shows: str
    notes: list[str] = field(default_factory=list)


class _Piece(NamedTuple):
    """One span of many requests: `row` of the table, `begin` and `end` in ticks, shape (n,)."""

    name: str
    kind: str
    stage: str
    row: np.ndarray
    begin: np.ndarray
    end: np.ndarray


def read(run: Run) -> Facts:
    """Raises TimelineError where no request of the measured phase left a stamp."""
    trace = run.trace
    if trace is None or not trace.records:
        raise TimelineError(f"{run.path}: no trace to draw; was it made with trace.stamps = off?")
    clock, points = clock_of(run), spans_.points_of(run.manifest.get("points", []))
    table = spans_.requests_of(trace, points, clock, run.measured_from)
    stamps = np.stack(list(table.ticks.values()))
    last = stamps.max(axis=0)
    stamps[stamps == 0] = np.iinfo(np.int64).max
    first = stamps.min(axis=0)
    if not last.any():
        raise TimelineError(f"{run.path}: no request of the measured phase is in the trace")
    return Facts(
        run=run,
        trace=trace,
        clock=clock,
        table=table,
        worker=_workers(trace, table),
        wire_id=_wire_ids(trace, table),
        first=first,
        last=last,
        zero=int(first.min()),
        whole=not any(lane.discarded or lane.lost_packets for lane in trace.lanes.values()),
    )


# ---- what to show


def worst(facts: Facts, count: int) -> Selection:
    """The `count` requests with the largest `through`; of equal ones the earlier."""
    if count < 1:
        raise TimelineError(f"--worst {count}: expected at least 1")
    rows, through = facts.table.through()
    if not len(rows):
        raise TimelineError(f"{facts.run.path}: no request of the trace is complete; try --from 0")
    order = np.argsort(-through, kind="stable")[:count]
    us = facts.clock.ns(through[order[[0, -1]]]) / 1000
    shows = (
        f"the {len(order):,} worst of {len(rows):,} requests, through {us[0]:,.1f} to "
        f"{us[1]:,.1f} µs"
    )
    focus = rows[order]
    return Selection("worst", focus, _merged(facts.first[focus], facts.last[focus]), shows)


def around(facts: Facts, which: str) -> Selection:
    """The request of a wire id (decimal or 0x…) or `#NUMBER`, and AROUND_NS on either side."""
    row, notes = _find(facts, which)
    beside = round(AROUND_NS * facts.clock.tsc_hz / 1e9)
    window = np.array([[max(facts.first[row] - beside, facts.zero), facts.last[row] + beside]])
    ends = [f"{ns / 1e6:.6f}ms" for ns in facts.ns(window[0]).tolist()]
    shows = f"request #{facts.table.number[row]}; this window: --from {ends[0]} --to {ends[1]}"
    return Selection("around", np.array([row]), window, shows, notes)


def between(facts: Facts, since: str | None, until: str | None) -> Selection:
    """All requests under way between two times such as `1.5ms`; None: the start, the end."""
    length = facts.ns(int(facts.last.max()))
    begin = 0 if since is None else min(_time_ns("--from", since), length + 1)
    end = length if until is None else min(_time_ns("--to", until), length)
    window = np.array([[facts.zero + round(ns * facts.clock.tsc_hz / 1e9) for ns in (begin, end)]])
    inside = (facts.first <= window[0, 1]) & (facts.last >= window[0, 0]) & (facts.last != 0)
    rows = np.flatnonzero(inside)
    if begin > end or not len(rows):
        raise TimelineError(
            f"no request between {since or 'the start'} and {until or 'the end'}: the run's "
            f"requests span 0s to {length / 1e9:.6f}s"
        )
    rows = rows[np.argsort(facts.first[rows], kind="stable")]
    shows = f"{len(rows):,} requests between {begin / 1e6:.6f} and {end / 1e6:.6f} ms"
    return Selection("between", rows, window, shows)


def _find(facts: Facts, which: str) -> tuple[int, list[str]]:
    """Row of the request `which` names; what is to be said where it names several."""
    number, run = facts.table.number, facts.run
    wanted = re.fullmatch(r"(#?)(0[xX][0-9a-fA-F]+|\d+)", which.strip())
    if not wanted or (value := int(wanted[2], 0 if wanted[2][:2] in ("0x", "0X") else 10)) >> 64:
        raise TimelineError(
            f"--around {which}: expected a wire id (decimal or 0x…) or '#' and a request number"
        )
    if wanted[1]:
        row = int(np.searchsorted(number, np.uint64(value)))
        if row < len(number) and int(number[row]) == value and facts.last[row]:
            return row, []
        if value < run.measured_from:
            why = f"it is of the warm-up, the measured phase begins at #{run.measured_from}"
        else:
            why = f"the trace holds #{number[0]} to #{number[-1]}" + _sampled(facts)
        raise TimelineError(f"--around {which}: {run.path} has no such request: {why}")
    rows = np.flatnonzero((facts.wire_id == value) & (facts.table.ticks["rx_got"] != 0))
    if not len(rows):
        ingress = run.ingress
        known = [] if ingress is None else ingress["request"][ingress["id"] == value].tolist()
        why = f"; received as #{known[0]}, which left no record" if known else ""
        raise TimelineError(
            f"--around {which}: no request with this wire id in the trace of {run.path}{why}"
            + (_sampled(facts) if known else "")
        )
    notes = []
    if len(rows) > 1:
        named = ", ".join(f"#{n}" for n in number[rows[:_NAMED]].tolist())
        more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
        notes = [
            f"wire id {which} was received {len(rows):,} times: {named}{more}; this is the first"
        ]
    return int(rows[0]), notes


def _sampled(facts: Facts) -> str:
    return f" (trace.sample = {facts.sample}: one in so many)" if facts.sample > 1 else ""


def _time_ns(option: str, text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s)", text.strip())
    if text.strip() == "0":
        return 0
    if not found:
        raise TimelineError(f"{option} {text}: expected a time such as 1.5ms, 2s, 300us or 40ns")
    return round(Fraction(found[1]) * _NS[found[2]])


# ---- the whole


def timeline(facts: Facts, selection: Selection, bound: int = EVENTS_MAX) -> dict:
    """The Chrome trace of a selection: at most `bound` events, and the names of processes.

    Requests asked for come first, then what is seen of the stages and rings meanwhile, then other
    requests' work. `otherData.left_out` has a line for each of them that did not fit.
    """
    left_out: list[str] = []
    selection, pieces, room = _fit(facts, selection, bound, left_out)
    build = _Builder(facts, selection)
    for what, events in (
        ("losses of requests", build.losses()),
        ("events of the stages", build.own_events()),
        ("steps of rings' depths", build.depths(left_out)),
    ):
        taken = events[: room if selection.kind == "between" else room // 2]
        if len(taken) < len(events):
            left_out.append(
                f"left out: the last {len(events) - len(taken):,} of {len(events):,} {what}"
            )
        build.events += taken
        room -= len(taken)
    context, slices = _context(facts, selection, room, left_out)
    build.shown()
    build.whole_ways()
    build.slices(pieces, context)
    build.waits(pieces)
    build.flows()
    said = facts.run.manifest
    other = {
        "run": facts.run.name,
        "shows": selection.shows,
        "time_zero": _zero(facts),
        "tsc_hz": facts.clock.tsc_hz,
        "requests": len(selection.focus),
        "context_slices": slices,
        "negative_spans": build.negative,
        "left_out": left_out,
        "degraded": said.get("degraded") or [],
        "schema": facts.run.config("pipeline.schema"),
        "handler": facts.run.config("worker.handler"),
        "capture_sha256": said.get("capture", {}).get("sha256"),
        "host": said.get("host", {}).get("name"),
        "cpu": said.get("cpu"),
        "kernel": said.get("kernel"),
        "commit": said.get("git", {}).get("commit"),
    }
    return {
        "traceEvents": build.finished(),
        "displayTimeUnit": "ns",
        "otherData": {name: fact for name, fact in other.items() if fact is not None},
    }


def to_json(document: dict) -> str:
    """An event a line."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
    events = ",\n".join(map(encode, document["traceEvents"]))
    return (
        f'{{"traceEvents":[\n{events}\n],\n"displayTimeUnit":{encode(document["displayTimeUnit"])},'
        f'\n"otherData":{encode(document["otherData"])}}}\n'
    )


def _zero(facts: Facts) -> dict:
    row = int(np.flatnonzero(facts.first == facts.zero)[0])
    point = next(name for name, ticks in facts.table.ticks.items() if ticks[row] == facts.zero)
    return {"tsc": facts.zero, "point": point, "request": int(facts.table.number[row])}


def _fit(facts: Facts, selection: Selection, bound: int, left_out: list[str]):
    """The selection cut to `bound`, the spans of its requests, and how many events are left."""
    focus, windows = selection.focus, selection.windows
    pieces = _pieces(facts, focus)
    cost = np.full(len(facts.first), _BESIDE, np.int64)
    for piece in pieces:
        cost[piece.row] += 1 if piece.kind == "work" else 2
    total = np.cumsum(cost[focus])
    kept = max(int(np.searchsorted(total, int(bound * _FOCUS_SHARE), "right")), 1)
    if kept < len(focus):
        line = f"left out: {len(focus) - kept:,} of the {len(focus):,} requests asked for"
        if selection.kind == "between":
            cut = facts.first[focus[kept]]
            windows = np.array([[windows[0, 0], cut]])
            line += f", from {facts.ns(int(cut)) / 1e6:.6f} ms on"
        else:
            windows = _merged(facts.first[focus[:kept]], facts.last[focus[:kept]])
        left_out.append(f"{line}; the bound is {bound:,} events")
        focus = focus[:kept]
        pieces = _pieces(facts, focus)
    return (
        replace(selection, focus=focus, windows=windows),
        pieces,
        max(bound - int(total[kept - 1]) - len(windows), 0),
    )


def _context(facts: Facts, selection: Selection, room: int, left_out: list[str]):
    """Work of other requests within the windows, near the most important first; how many slices."""
    focus, windows = selection.focus, selection.windows
    if selection.kind == "between":
        return [], 0
    rank = np.full(len(windows), len(focus))
    np.minimum.at(rank, _window(windows, facts.first[focus])[0], np.arange(len(focus)))
    nearest, inside = _window(windows, facts.first, facts.last)
    inside &= facts.last != 0
    inside[focus] = False
    rows = np.flatnonzero(inside)
    rank = rank[nearest[rows]]
    rows = rows[np.lexsort((np.abs(facts.first[rows] - facts.first[focus[rank]]), rank))]
    pieces = []
    cost = np.zeros(len(facts.first), np.int64)
    for piece in _pieces(facts, rows):
        there = _window(windows, piece.begin, piece.end)[1]
        if piece.kind == "work" and there.any():
            parts = (piece.row[there], piece.begin[there], piece.end[there])
            pieces.append(_Piece(piece.name, piece.kind, piece.stage, *parts))
            cost[parts[0]] += 1
    total = np.cumsum(cost[rows])
    kept = int(np.searchsorted(total, room, "right"))
    slices = int(total[kept - 1]) if kept else 0
    if kept < len(rows):
        left_out.append(
            f"left out: {int(total[-1]) - slices:,} of {int(total[-1]):,} works of other requests, "
            "those farthest from the worst"
        )
        mine = np.zeros(len(facts.first), bool)
        mine[rows[:kept]] = True
        pieces = [
            piece._replace(row=piece.row[m], begin=piece.begin[m], end=piece.end[m])
            for piece in pieces
            for m in [mine[piece.row]]
        ]
    return pieces, slices


def _pieces(facts: Facts, rows: np.ndarray) -> list[_Piece]:
    """The spans of some requests, in request order."""
    table = facts.table
    ticks = {name: column[rows] for name, column in table.ticks.items()}
    some = spans_.Requests(table.number[rows], ticks, table.points)
    pieces = []
    for name, span in spans_.spans_of(some).items():
        begin, end = name.split("..")
        stage = WIRE if begin == spans_.KERNEL else table.points[end].stage
        at = span.rows
        pieces.append(_Piece(name, span.kind, stage, rows[at], ticks[begin][at], ticks[end][at]))
    return pieces


def _depths(facts: Facts, windows: np.ndarray) -> list[tuple[int, str, str, int]]:
    """(ns, process, ring, requests in it) where that changes within the windows, in order of time.

    Requests that entered before a window count in it. One that never left its ring counts to the
    end, if it is known which ring that was; but where records are missing, only those whose two
    stamps are there count.
    """
    ticks, steps, names = facts.table.ticks, [], facts.processes()
    workers = [name for name in names if name.startswith("worker")]
    for lane in workers:
        index = int(lane.removeprefix("worker"))
        mine = facts.worker == index
        if len(workers) == 1:
            mine |= facts.worker == -1  # put, and never got
        for ring, process, put, got in (
            (f"to_worker.{index}", lane, "rx_put", "worker_got"),
            (f"to_tx.{index}", "tx", "worker_put", "tx_got"),
        ):
            if process in names and put in ticks and got in ticks:
                changes = _ring_steps(facts, ticks[put][mine], ticks[got][mine], windows)
                steps += [(ns, process, ring, depth) for ns, depth in changes]
    return sorted(steps, key=lambda step: step[0])


def _ring_steps(facts: Facts, into: np.ndarray, out: np.ndarray, windows: np.ndarray):
    """[(ns, depth), …] of one ring: at the beginning of each window and at each change in it."""
    through = (into != 0) & (out >= into)
    stays = (into != 0) & (out == 0) & facts.whole
    at = np.concatenate((into[through], into[stays], out[through]))
    change = np.ones(len(at), np.int64)
    change[len(at) - int(through.sum()) :] = -1
    order = np.lexsort((-change, at))
    at, depth = at[order], np.cumsum(change[order])
    before = np.searchsorted(at, windows[:, 0], "right") - 1
    opening = np.where(before >= 0, depth[before], 0) if len(depth) else np.zeros(len(windows), int)
    inside = np.flatnonzero(_window(windows, at)[1] & ~np.isin(at, windows[:, 0]))
    when = np.concatenate((windows[:, 0], at[inside]))
    order = np.argsort(when, kind="stable")
    ns, depth = facts.ns(when[order]), np.concatenate((opening, depth[inside]))[order]
    final = np.append(np.diff(ns) != 0, True)  # of several changes in one ns the last counts
    return list(zip(ns[final].tolist(), depth[final].tolist(), strict=True))


class _Builder:
    """Makes the events; times go in as ticks or as ns since time zero."""

    def __init__(self, facts: Facts, selection: Selection):
        self.facts, self.selection = facts, selection
        self.names = facts.processes()
        self.pid = {name: i + 1 for i, name in enumerate(self.names)}
        self.tracks = dict.fromkeys(self.pid.values(), 1)
        self.events: list[tuple[int, dict]] = []
        self.steps: dict[int, dict[str, tuple[int, int, int]]] = {}  # row → process → first slice
        self.negative = 0

    def finished(self) -> list[dict]:
        """Names of processes and tracks, then all events in order of time."""
        stages = self.facts.run.counters.get("end", {}).get("stages", {})
        named = []

        def name(kind: str, pid: int, tid: int, **args: object) -> None:
            named.append({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args})

        for process, pid in self.pid.items():
            name("process_name", pid, 0, name=process)
            name("process_sort_index", pid, 0, sort_index=pid)
            if process in stages:
                name("process_labels", pid, 0, labels=f"CPU {stages[process]['cpu']}")
            for tid in range(self.tracks[pid]):
                title = "shown" if process == WIRE else process + (f" +{tid}" if tid else "")
                name("thread_name", pid, tid, name=title)
                name("thread_sort_index", pid, tid, sort_index=tid)
        self.events.sort(key=lambda event: event[0])
        return named + [event for _, event in self.events]

    def shown(self) -> None:
        """Slices where something is shown: between them nothing is known, also of the depths."""
        for begin, end in self.facts.ns(self.selection.windows).tolist():
            self._add(begin, "X", "window", "window", WIRE, dur=(end - begin) / 1000)

    def whole_ways(self) -> None:
        """through and wire_to_wire of the requests asked for."""
        facts, focus = self.facts, self.selection.focus
        first, last = (facts.table.ticks[name][focus] for name in spans_.THROUGH)
        for i in np.flatnonzero((first != 0) & (last != 0)).tolist():
            rank = {"rank": i + 1} if self.selection.kind == "worst" else {}
            begin, end = int(first[i]), int(last[i])
            self._between("request", "through", WIRE, int(focus[i]), begin, end, **rank)
        for row, begin, end, ns in _wire_to_wire(facts, focus):
            self._between("wire", "wire_to_wire", WIRE, row, begin, end, ns=ns)

    def slices(self, pieces: list[_Piece], context: list[_Piece]) -> None:
        """Works, on their stage's track; what overlaps there goes to one beside it.

        Sends that are under way together do: their works end with the kernel's report.
        """
        work: dict[str, list[tuple[int, int, int, str, bool]]] = {}
        for other, of in ((False, pieces), (True, context)):
            for piece in of:
                if piece.kind != "work":
                    continue
                columns = (piece.begin.tolist(), piece.end.tolist(), piece.row.tolist())
                for begin, end, row in zip(*columns, strict=True):
                    process = self._process(piece.stage, row)
                    if end < begin:
                        self._backward(piece.name, process, row, begin, end)
                    else:
                        slices = work.setdefault(process, [])
                        slices.append((begin, end, row, piece.name, other))
        for process, slices in work.items():
            slices.sort()
            track, count = _tracks(slices)
            self.tracks[self.pid[process]] = count
            for (begin, end, row, name, other), tid in zip(slices, track, strict=True):
                ns = self.facts.ns(begin)
                dur = (self.facts.ns(end) - ns) / 1000
                grey = {"cname": "grey"} if other else {}
                args = {**self._args(row, name, end - begin), "tsc": begin}
                category = "context" if other else "work"
                self._add(ns, "X", category, name, process, tid, dur=dur, **grey, args=args)
                if not other:
                    self.steps.setdefault(row, {}).setdefault(process, (begin, ns, tid))

    def waits(self, pieces: list[_Piece]) -> None:
        """Waits of the requests asked for, and spans in which records are missing."""
        for piece in pieces:
            if piece.kind == "work":
                continue
            columns = (piece.row.tolist(), piece.begin.tolist(), piece.end.tolist())
            for row, begin, end in zip(*columns, strict=True):
                process = self._process(piece.stage, row)
                self._between(piece.kind, piece.name, process, row, begin, end)

    def flows(self) -> None:
        """From a request's first slice in each process to that in the next."""
        for row in self.selection.focus.tolist():
            steps = sorted(
                (begin, self.pid[process], ns, tid, process)
                for process, (begin, ns, tid) in self.steps.get(row, {}).items()
            )
            for i, (_, _, ns, tid, process) in enumerate(steps):
                phase = "s" if i == 0 else "f" if i == len(steps) - 1 else "t"
                if len(steps) > 1:
                    more = {} if phase == "s" else {"bp": "e"}
                    number = int(self.facts.table.number[row])
                    self._add(ns, phase, "flow", "request", process, tid, id=number, **more)

    def losses(self) -> list[tuple[int, dict]]:
        """Where in the windows a request ended without its answer."""
        ticks, found = self.facts.table.ticks, []
        for last, missing, process, name, why in (
            ("rx_got", "rx_put", "rx", "dropped", "the ring was full"),
            ("tx_got", "tx_sent", "tx", "not sent", "rejected, filtered or dropped"),
            ("tx_sent", "tx_complete", "tx", "not completed", "the send failed"),
        ):
            if last not in ticks or missing not in ticks:
                continue
            why += "" if self.facts.whole else ", or the record is missing"
            rows = np.flatnonzero((ticks[last] != 0) & (ticks[missing] == 0))
            rows = rows[_window(self.selection.windows, ticks[last][rows])[1]]
            for row, ns in zip(rows.tolist(), self.facts.ns(ticks[last][rows]), strict=True):
                args = {**self._whose(row), "what": why}
                found.append((int(ns), self._event(int(ns), "i", "loss", name, process, args=args)))
        return sorted(found, key=lambda event: event[0])

    def own_events(self) -> list[tuple[int, dict]]:
        """What the stages stamped of themselves within the windows: rotation, parked and the like.

        Clock pairs are left out: they come a hundred times a second and say nothing by themselves.
        """
        facts, found = self.facts, []
        sentences = {p["name"]: p["sentence"] for p in facts.run.manifest.get("points", [])}
        for process in self.names[1:]:
            lane = facts.trace.lanes[process]
            for point, name in sorted(facts.trace.metadata.events.items()):
                if name in facts.table.points or name == "clock":
                    continue
                at = np.flatnonzero(lane.point == point)
                tsc = lane.tsc[at].astype(np.int64)
                at = at[_window(self.selection.windows, tsc)[1]]
                wide = np.searchsorted(lane.wide, at)
                for i, w in zip(at.tolist(), wide.tolist(), strict=True):
                    ns = facts.ns(int(lane.tsc[i]))
                    args = {"what": sentences.get(name, ""), "argument": int(lane.argument[i])}
                    if w < len(lane.wide) and lane.wide[w] == i:
                        # Both may be differences, which are signed.
                        args["value"] = int(lane.value[w].astype(np.int64))
                        args["extra"] = int(lane.extra[w].astype(np.int64))
                    found.append((ns, self._event(ns, "i", "event", name, process, args=args)))
        return sorted(found, key=lambda event: event[0])

    def depths(self, left_out: list[str]) -> list[tuple[int, dict]]:
        """Counters of the requests in each ring."""
        if self.facts.sample > 1:
            left_out.append(
                f"left out: depths of rings: the trace has one request in {self.facts.sample}"
            )
            return []
        if not self.facts.whole:
            left_out.append("depths of rings are at least as drawn: records are missing")
        return [
            (ns, self._event(ns, "C", "ring", ring, process, args={"requests": depth}))
            for ns, process, ring, depth in _depths(self.facts, self.selection.windows)
        ]

    def _add(self, ns: int, *event: object, **more: object) -> None:
        self.events.append((ns, self._event(ns, *event, **more)))

    def _event(self, ns: int, phase: str, category: str, name: str, process: str, tid=0, **more):
        event = {"ph": phase, "cat": category, "name": name, "pid": self.pid[process], "tid": tid}
        scope = {"s": "t"} if phase == "i" else {}
        return event | {"ts": ns / 1000} | scope | more

    def _between(self, category: str, name: str, process: str, row: int, begin, end, **more):
        """A pair b and e, from tick to tick; `more` goes over what is usual in its args."""
        if end < begin:
            self._backward(name, process, row, begin, end)
            return
        number = int(self.facts.table.number[row])
        args = self._args(row, name, end - begin) | more
        since, until = self.facts.ns(begin), self.facts.ns(end)
        self._add(since, "b", category, name, process, id=number, args=args)
        self._add(until, "e", category, name, process, id=number)

    def _backward(self, name: str, process: str, row: int, begin: int, end: int) -> None:
        """A span that ends before it begins has no slice; it is told, not mended."""
        self.negative += 1
        args = self._args(row, name, end - begin)
        self._add(self.facts.ns(end), "i", "negative", f"negative {name}", process, args=args)

    def _whose(self, row: int) -> dict:
        """A wire id has more digits than JavaScript's numbers, so it is text."""
        whose = {"request": int(self.facts.table.number[row])}
        whose["wire_id"] = str(self.facts.wire_id[row])
        if self.facts.worker[row] >= 0:
            whose["worker"] = int(self.facts.worker[row])
        return whose

    def _args(self, row: int, name: str, ticks: int) -> dict:
        """What stands at every span."""
        begin, _, end = name.partition("..")
        points = {"begin": begin, "end": end} if end else {}
        return {
            **self._whose(row),
            **points,
            "ticks": ticks,
            "ns": tenths(self.facts.clock.ns(ticks)),
        }

    def _process(self, stage: str, row: int) -> str:
        return f"worker{self.facts.worker[row]}" if stage == "worker" else stage


# ---- small parts


def _place(lane: str) -> tuple[int, int, str]:
    """Where a process stands in the pipeline."""
    stage = lane.rstrip("0123456789")
    order = ("rx", "worker", "tx")
    at = order.index(stage) if stage in order else len(order)
    return at, int(lane[len(stage) :] or 0), lane


def _workers(trace: Trace, table: spans_.Requests) -> np.ndarray:
    """By row the worker whose lane has the request, -1: none; int16."""
    worker = np.full(len(table.number), -1, np.int16)
    ids = [point.id for point in table.points.values() if point.stage == "worker"]
    for name, lane in trace.lanes.items():
        if name.startswith("worker"):
            request = lane.request[np.isin(lane.point, ids)]
            worker[_places(table.number, request)[0]] = int(name.removeprefix("worker"))
    return worker


def _wire_ids(trace: Trace, table: spans_.Requests) -> np.ndarray:
    """By row what rx read as the request's id; uint64, 0 where there is no record of it."""
    wire_id = np.zeros(len(table.number), np.uint64)
    lane, point = trace.lanes.get("rx"), table.points.get("rx_got")
    if lane is not None and point is not None:
        mine = lane.point[lane.wide] == point.id
        row, there = _places(table.number, lane.request[lane.wide[mine]])
        wire_id[row] = lane.extra[mine][there]
    return wire_id


def _places(numbers: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in `numbers`, ascending, those of `wanted` stand that do, and which those are."""
    at = np.searchsorted(numbers, wanted)
    there = at < len(numbers)
    there[there] = numbers[at[there]] == wanted[there]
    return at[there], there


def _merged(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Windows that touch become one; int64, shape (windows, 2), ascending."""
    order = np.argsort(first, kind="stable")
    first, reach = first[order], np.maximum.accumulate(last[order])
    new = np.append(True, first[1:] > reach[:-1])
    return np.column_stack((first[new], reach[np.append(new[1:], True)]))


def _window(windows: np.ndarray, begin: np.ndarray, end: np.ndarray | None = None):
    """For each stretch the first window that ends behind its begin, and whether they overlap."""
    at = np.minimum(np.searchsorted(windows[:, 1], begin), len(windows) - 1)
    end = begin if end is None else end
    return at, (windows[at, 0] <= end) & (windows[at, 1] >= begin)


def _tracks(slices: list[tuple]) -> tuple[list[int], int]:
    """For slices (begin, end, …), ascending, a track each so that none overlap, and how many."""
    free, busy, track = [], [], []
    for begin, end, *_ in slices:
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        tid = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, tid))
        track.append(tid)
    return track, max(track, default=0) + 1


def _wire_to_wire(facts: Facts, rows: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(row, first tick, last tick, ns) of those requests that have both stamps of the kernel."""
    ingress, answers = facts.run.ingress, Wire(facts.run).answers
    if ingress is None or answers is None:
        return []
    matched = match(answers["id"], ingress["id"])
    at, there = _places(ingress["request"], facts.table.number[rows])
    rows, answer = rows[there], matched[at]
    rows, at, answer = rows[answer >= 0], at[answer >= 0], answer[answer >= 0]
    came, left = ingress["kernel_ns"][at], answers["kernel_ns"][answer]
    both = (came != 0) & (left != 0)
    rows, came, left = rows[both], came[both], left[both]
    begin, end = (facts.clock.ticks(ns, facts.last[rows]) for ns in (came, left))
    ns = left.astype(np.int64) - came.astype(np.int64)
    return list(zip(rows.tolist(), begin.tolist(), end.tolist(), ns.tolist(), strict=True))
