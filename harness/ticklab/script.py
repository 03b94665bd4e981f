# SPDX-License-Identifier: Apache-2.0
"""Makes the script that build/client plays: the requests of a capture as writes on connections.

Each sender of a UDP capture becomes a connection, and so does each direction of a captured TCP
connection. A prepared script is a directory in the cache, as a prepared capture is (capture.py):

    script.bin     what to do when; its form stands in harness/client_script.h
    offered.bin    {u64 id; i64 planned_ns}, a request each, in order, at 1x
    requests.bin   {u32 connection, operation; u64 end}, the same requests: the write that completes
                   it, and how many bytes its connection has written by then
    expected.bin   {u64 id; u64 reply_hash}, an expected reply each, in order
    flows.bin      {u32 connection}, the same replies
    plan.json      what the capture holds and what of it is left out

The warm-up is the beginning of the script, sent once before and again in the replay; each of its
connections ends it with a whole request. A request's planned time is that of the write that
completes it.

How the requests of a connection are cut into writes:

    segments  as captured: by TCP segments, or by datagrams
    none      a write a request
    random    as many writes as requests, cut at random bytes; a write is due when the last of the
              requests in it is

In a stream a request that is malformed ends its connection, or shifts what is behind it; so those
of a capture are left out, and the plan says how many.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

from ticklab import capture, reference, streams
from ticklab.capture import EXPECTED, OFFERED, CaptureError
from ticklab.run import ANY_REPLY, CONNECTIONS, REQUESTS

OPERATION = np.dtype(
    [
        ("planned_ns", "<i8"),
        ("at", "<u8"),
        ("connection", "<u4"),
        ("length", "<u4"),
        ("kind", "<u4"),
        ("unused", "<u4"),
    ]
)
DATA, OPEN, CLOSE, RESET = range(4)
CONNECTIONS_MAX = 4096  # sockets of datagrams
CUTS = ("segments", "none", "random")
CHURN_NS = 1_000_000  # how long a connection of the churn is open
HEADER = struct.Struct("<8sIIQQ")


@dataclass(frozen=True)
class Options:
    """What is made of a capture.

    datagrams: each write is one, of a socket a connection. cuts: see above. churn: so many requests
    get a connection of their own that is opened for it, closed and reset by turns. connections:
    most that may be open at once. slot_capacity, warmup: as for capture.prepare().
    """

    schema: str
    handler: str
    datagrams: bool = False
    cuts: str = "segments"
    churn: int = 0
    seed: int = 1
    connections: int = 1024
    slot_capacity: int | None = None
    warmup: int = 0


@dataclass
class Flow:
    """The requests of one connection, in order."""

    port: int
    raw: list[bytes] = field(default_factory=list)
    request: list[reference.Request] = field(default_factory=list)
    stamp_ns: list[int] = field(default_factory=list)
    segment: list[int] = field(default_factory=list)  # which write completes it, as captured
    # Where writes end and when, where requests were cut by them; else `segment` says it.
    pieces: list[tuple[int, int]] | None = None
    opened_ns: int | None = None  # None: before the replay
    closed_ns: int | None = None
    closed: int = CLOSE

    def add(self, request: reference.Request, stamp_ns: int, segment: int) -> None:
        self.raw.append(request.raw)
        self.request.append(request)
        self.stamp_ns.append(stamp_ns)
        self.segment.append(segment)


@dataclass
class Script:
    """A prepared script: its directory and its plan."""

    directory: Path
    plan: dict

    @property
    def path(self) -> Path:
        return self.directory / "script.bin"

    @property
    def expected(self) -> Path:
        return self.directory / "expected.bin"

    @property
    def flows(self) -> Path:
        return self.directory / "flows.bin"

    def operations(self) -> np.ndarray:
        """OPERATION, shape (operations,)."""
        with self.path.open("rb") as file:
            _, count, connections, _, _ = HEADER.unpack(file.read(HEADER.size))
            file.seek((connections + 1) // 2 * 8, 1)
            return np.fromfile(file, OPERATION, count)

    def requests(self) -> np.ndarray:
        """REQUESTS, shape (requests,)."""
        return np.fromfile(self.directory / "requests.bin", REQUESTS)

    def written(self, wire: Path) -> np.ndarray:
        """Which requests the client has written wholly, by wire/connections.bin; bool."""
        requests = self.requests()
        connections = np.fromfile(wire / "connections.bin", CONNECTIONS)
        return connections["written"][requests["connection"]] >= requests["end"]

    def planned_at(self, speed: str) -> np.ndarray:
        """When each operation is due at `speed`, ns from the begin; i64. As the client has it."""
        operations, factor = self.operations(), capture.speed_factor(speed)
        if speed.endswith("pps"):
            data = operations["kind"] == DATA
            return np.rint((np.cumsum(data) - data) * 1e9 / float(speed[:-3])).astype(np.int64)
        if factor is None:
            return np.zeros(len(operations), np.int64)
        return np.rint(operations["planned_ns"] / factor).astype(np.int64)

    def offered_at(self, speed: str = "1x") -> np.ndarray:
        """OFFERED, shape (requests,); planned_ns at `speed`."""
        offered = np.fromfile(self.directory / "offered.bin", OFFERED)
        offered["planned_ns"] = self.planned_at(speed)[self.requests()["operation"]]
        return offered


def prepare(path: str | Path, options: Options, cache_dir: str | Path) -> Script:
    """The script of the capture at `path`, from the cache where it is there. Raises CaptureError.

    Options that say nothing about this capture are its caller's to check.
    """
    code = capture.code_of(__file__, capture.__file__, streams.__file__)
    parameters = {"script": True, **vars(options)}

    def make(sha256: str, directory: Path) -> dict:
        return _make(Path(path), sha256, options, directory)

    return Script(*capture.cached(path, cache_dir, parameters, code, make))


def _make(path: Path, sha256: str, options: Options, directory: Path) -> dict:
    frames = capture._read(path)
    excluded: Counter[str] = Counter()
    flows, ends = _flows(path, frames, options, excluded)
    flows = [flow for flow in flows if flow.raw]
    if not flows:
        raise CaptureError(
            f"{path}: no request of {options.schema} in it (packets: {len(frames.start):,}):"
            " expected UDP datagrams or TCP connections that hold some"
        )
    flows, warm = _churn(flows, options)
    at_once = _at_once(flows)
    if at_once > options.connections:
        raise CaptureError(
            f"{path}: {at_once:,} connections at once: expected at most rx.connections ="
            f" {options.connections:,}; raise it (to 1,024), or replay less of the capture"
        )
    table = _table(flows, options, warm)
    answers = _answers(table, options)
    _write(directory, flows, table, answers)
    warnings = list(frames.warnings)
    for what, count in excluded.items():
        warnings.append(f"{count:,} {what}: left out, as a stream would not go on behind them")
    first = table.operations["planned_ns"][0] if len(table.operations) else 0
    duration_ns = int(table.operations["planned_ns"][-1] - first)
    return {
        "schema": 1,
        "capture": str(path),
        "sha256": sha256,
        "parameters": vars(options),
        "format": frames.format,
        "links": frames.links(),
        "packets": len(frames.start),
        "offered": {
            "operations": len(table.operations),
            "writes": int((table.operations["kind"] == DATA).sum()),
            "requests": len(table.id),
        },
        "ambiguous": capture._ambiguous(answers.expected, "v1"),
        "expected": len(answers.expected),
        "rejected": answers.rejected,
        "largest": {
            "request_bytes": max(max(map(len, flow.raw)) for flow in flows),
            "reply_bytes": answers.largest,
        },
        "duration_ns": duration_ns,
        "silence_ns": int(np.diff(table.operations["planned_ns"]).max(initial=0)),
        "rate": len(table.id) * 1e9 / duration_ns if duration_ns else 0.0,
        "warmup": {"operations": table.warm, "requests": warm},
        "endpoints": [
            {"address": str(capture.DESTINATION), "port": port, "connections": count}
            for port, count in ends.most_common()
        ],
        "flows": len(flows),
        "at_once": at_once,
        "excluded": dict(excluded),
        "warnings": warnings,
        "files": {file.name: file.stat().st_size for file in sorted(directory.iterdir())},
    }


# ---- what a capture holds -----------------------------------------------------------------------


def _flows(
    path: Path, frames, options: Options, excluded: Counter[str]
) -> tuple[list[Flow], Counter[int]]:
    """The connections of a capture, and how many were made to each port."""
    if not options.datagrams:
        flows = list(_captured(frames, options.schema, excluded))
        if flows:
            return flows, Counter(flow.port for flow in flows)
    datagrams = capture._dissect(path, frames)
    flows = list(_senders(frames, datagrams, options, excluded))
    return flows, Counter(flow.port for flow in flows)


def _senders(frames, datagrams, options: Options, excluded: Counter[str]) -> Iterator[Flow]:
    """A connection for each sender and receiver of datagrams."""
    keys = np.hstack((datagrams.source, datagrams.destination, datagrams.ports))
    _, first, flow_of = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # flows in order of their first datagram
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ports = np.ascontiguousarray(datagrams.ports[first[order], 2:]).view(">u2").ravel()
    flows = [Flow(int(port)) for port in ports]
    begin = datagrams.ip_at + datagrams.udp_at + 8
    end = begin + datagrams.udp_bytes - 8
    rows = zip(
        begin.tolist(),
        end.tolist(),
        place[flow_of.ravel()].tolist(),
        datagrams.stamp_ns.tolist(),
        strict=True,
    )
    for number, (a, b, flow, stamp_ns) in enumerate(rows):
        for request in reference.frame(options.schema, frames.data[a:b]):
            if request.reason is None or options.datagrams:
                flows[flow].add(request, stamp_ns, number)
            else:
                excluded["malformed requests"] += 1
    yield from flows


def _captured(frames, schema: str, excluded: Counter[str]) -> Iterator[Flow]:
    """A connection for each direction of the TCP connections in a capture, all to the port of
    the one that was connected to."""
    reassembly, last = streams.Reassembly(), None
    for last in streams.segments(frames):
        reassembly.take(last)
    begin = int(frames.stamp_ns.min())
    connections = streams.pair(reassembly.finish(last))
    first_sides = [pair.sides[0] for pair in connections]
    known = Counter(end.port for side in first_sides for end in (side.source, side.destination))
    for connection in connections:
        side = connection.sides[0]
        port = side.destination.port
        if not side.whole and known[side.source.port] > known[port]:
            port = side.source.port  # who spoke first was the one that many talked to
        for side in connection.sides:
            flow = Flow(port)
            for found in streams.requests(side, schema):
                if found.request.reason is None:
                    flow.add(found.request, found.stamp_ns, found.frame)
                else:
                    excluded["malformed requests"] += 1
            size = sum(map(len, flow.raw))
            if size != len(side.data):
                excluded["bytes that belong to no request"] += len(side.data) - size
            else:
                flow.pieces = [(piece.end, piece.stamp_ns) for piece in side.pieces]
            if side.whole and connection.opened_ns > begin:
                flow.opened_ns = connection.opened_ns
            if side.end in ("fin", "rst"):
                flow.closed_ns = side.closed_ns
                flow.closed = CLOSE if side.end == "fin" else RESET
            yield flow


def _churn(flows: list[Flow], options: Options) -> tuple[list[Flow], int]:
    """Gives requests evenly picked behind the warm-up connections of their own; all flows, and
    the requests of the warm-up."""
    total = sum(len(flow.raw) for flow in flows)
    warm = min(options.warmup, total)
    if not options.churn:
        return flows, warm
    stamps = np.array([stamp for flow in flows for stamp in flow.stamp_ns])
    flow_of = np.repeat(np.arange(len(flows)), [len(flow.raw) for flow in flows])
    within = np.concatenate([np.arange(len(flow.raw)) for flow in flows])
    order = np.argsort(stamps, kind="stable")[warm:]
    if options.churn > len(order):
        raise CaptureError(
            f"replay.churn = {options.churn}: expected at most {len(order)}, the requests behind"
            " the warm-up"
        )
    picked = order[(np.arange(options.churn) * 2 + 1) * len(order) // (2 * options.churn)]
    made, gone = [], [set() for _ in flows]
    for number, index in enumerate(picked.tolist()):
        flow, k = flows[flow_of[index]], int(within[index])
        short = Flow(flow.port, opened_ns=flow.stamp_ns[k], closed=(RESET, CLOSE)[number % 2])
        short.add(flow.request[k], flow.stamp_ns[k], flow.segment[k])
        short.closed_ns = flow.stamp_ns[k] + CHURN_NS
        gone[flow_of[index]].add(k)
        made.append(short)
    for flow, without in zip(flows, gone, strict=True):
        kept = [k for k in range(len(flow.raw)) if k not in without]
        for name in ("raw", "request", "stamp_ns", "segment"):
            column = getattr(flow, name)
            setattr(flow, name, [column[k] for k in kept])
        if without:
            flow.pieces = None
    return [flow for flow in flows if flow.raw] + made, warm


def _at_once(flows: list[Flow]) -> int:
    """The most connections that are open at one moment, as planned."""
    least = min(flow.stamp_ns[0] for flow in flows)
    opened = sorted(least if flow.opened_ns is None else flow.opened_ns for flow in flows)
    closed = sorted(flow.closed_ns for flow in flows if flow.closed_ns is not None)
    ended = np.searchsorted(closed, opened, side="left")
    return int((np.arange(1, len(flows) + 1) - ended).max())


# ---- the script ---------------------------------------------------------------------------------


@dataclass
class _Table:
    operations: np.ndarray  # OPERATION
    data: bytes
    id: np.ndarray  # u64, a request each, in order of what completes them
    planned_ns: np.ndarray  # i64
    where: np.ndarray  # REQUESTS
    asked: list[reference.Request]
    warm: int  # operations of the warm-up


def _table(flows: list[Flow], options: Options, warm: int) -> _Table:
    """Operations in order of their times, and the requests in order of theirs."""
    stamps = np.array([stamp for flow in flows for stamp in flow.stamp_ns], np.int64)
    is_warm = np.zeros(len(stamps), bool)
    is_warm[np.argsort(stamps, kind="stable")[:warm]] = True
    chance = np.random.PCG64(options.seed)
    rows: list[np.ndarray] = []
    data: list[bytes] = []
    ends: list[np.ndarray] = []  # of each request in its connection
    done: list[np.ndarray] = []  # the row that completes it, before rows are sorted
    at = count = first = 0
    for number, flow in enumerate(flows):
        size = np.array([len(raw) for raw in flow.raw], np.int64)
        end = np.cumsum(size)
        stamp = np.array(flow.stamp_ns, np.int64)
        of_warm = int(is_warm[first : first + len(size)].sum())
        first += len(size)
        if options.datagrams:
            cut, due, completes = _datagrams(flow, end, stamp)
        else:
            cut, due = _cut(flow, options.cuts, end, stamp, of_warm, chance)
            completes = np.searchsorted(cut, end)
        opens = flow.opened_ns is not None
        made = np.zeros(len(cut) + opens + (flow.closed_ns is not None), OPERATION)
        writes = made[opens : opens + len(cut)]
        writes["planned_ns"], writes["kind"] = due, DATA
        writes["length"] = np.diff(cut, prepend=0)
        writes["at"] = at + cut - writes["length"]
        made["connection"] = number
        # Among the operations of a time, those of the warm-up come first.
        writes["unused"] = cut > (end[of_warm - 1] if of_warm else 0)
        if opens:
            made[0] = (min(flow.opened_ns, due[0]), at, number, 0, OPEN, writes["unused"][0])
        if flow.closed_ns is not None:
            made[-1] = (max(flow.closed_ns, due[-1]), at, number, 0, flow.closed, 1)
        rows.append(made)
        data += flow.raw
        ends.append(end)
        done.append(count + opens + completes)
        count += len(made)
        at += int(end[-1])
    operations = np.concatenate(rows)
    order = np.lexsort((operations["planned_ns"], operations["unused"]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    operations = operations[order]
    warm_operations = int((operations["unused"] == 0).sum())
    operations["unused"] = 0
    planned = np.maximum.accumulate(operations["planned_ns"])
    operations["planned_ns"] = planned - (planned[0] if len(planned) else 0)

    completing = place[np.concatenate(done)]
    by_time = np.argsort(completing, kind="stable")
    requests = [request for flow in flows for request in flow.request]
    where = np.empty(len(requests), REQUESTS)
    where["connection"] = np.repeat(np.arange(len(flows)), [len(flow.raw) for flow in flows])
    where["operation"] = completing
    where["end"] = np.concatenate(ends)
    where = where[by_time]
    return _Table(
        operations=operations,
        data=b"".join(data),
        id=np.array([requests[k].id for k in by_time.tolist()], np.uint64),
        planned_ns=operations["planned_ns"][where["operation"]],
        where=where,
        asked=[requests[k] for k in by_time.tolist()],
        warm=warm_operations,
    )


def _datagrams(
    flow: Flow, end: np.ndarray, stamp: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the datagrams of a flow end, when each is due, and which of them each request is in."""
    last = np.diff(np.array(flow.segment), append=-1) != 0
    return end[last], stamp[last], np.cumsum(last) - last


def _cut(
    flow: Flow,
    cuts: str,
    end: np.ndarray,
    stamp: np.ndarray,
    warm: int,
    chance: np.random.PCG64,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the writes of a connection end, and when each is due; its warm-up's end is one."""
    if cuts == "none":
        where = end
    elif cuts == "segments":
        last = np.diff(np.array(flow.segment), append=-1) != 0
        where = end[last]
        if flow.pieces:
            where = np.array([piece for piece, _ in flow.pieces], np.int64)
    else:
        raw = chance.random_raw(len(end)) >> np.uint64(11)
        where = 1 + (raw * 2.0**-53 * (end[-1] - 1)).astype(np.int64)
    forced = [end[-1]] + ([end[warm - 1]] if warm else [])
    where = np.unique(np.concatenate((where, forced)))
    if cuts == "segments" and flow.pieces:
        places, times = np.array(flow.pieces, np.int64).T
        return where, times[np.searchsorted(places, where)]
    return where, stamp[np.searchsorted(end, where)]


@dataclass
class _Answers:
    expected: np.ndarray  # EXPECTED
    flow: np.ndarray  # u32, of each
    rejected: dict[str, int]
    largest: int  # bytes


def _answers(table: _Table, options: Options) -> _Answers:
    """The reply to every request, and who gets it."""
    schema, handler, capacity = options.schema, options.handler, options.slot_capacity
    rejected = dict.fromkeys(reference.REASONS, 0)
    rows: list[tuple[int, int]] = []
    flows: list[int] = []
    largest = 0
    for request, flow in zip(table.asked, table.where["connection"].tolist(), strict=True):
        answer = reference.reply(schema, handler, request, capacity)
        if isinstance(answer, str):
            rejected[answer] += 1
            continue
        flows.append(flow)
        if answer is None:
            rows.append((request.id, ANY_REPLY))
            largest = max(largest, capture.SLOT_CAPACITY)
            continue
        rows.append((request.id, xxh3_64_intdigest(answer)))
        largest = max(largest, len(answer))
    return _Answers(np.array(rows, EXPECTED), np.array(flows, "<u4"), rejected, largest)


def _write(directory: Path, flows: list[Flow], table: _Table, answers: _Answers) -> None:
    ports = np.zeros((len(flows) + 1) // 2 * 2, "<u4")
    ports[: len(flows)] = [flow.port for flow in flows]
    with (directory / "script.bin").open("wb") as file:
        sizes = (len(table.operations), len(flows), len(table.data), 0)
        file.write(HEADER.pack(b"ticklscr", *sizes))
        file.write(ports.tobytes() + table.operations.tobytes() + table.data)
    offered = np.empty(len(table.id), OFFERED)
    offered["id"], offered["planned_ns"] = table.id, table.planned_ns
    offered.tofile(directory / "offered.bin")
    table.where.tofile(directory / "requests.bin")
    answers.expected.tofile(directory / "expected.bin")
    answers.flow.tofile(directory / "flows.bin")
