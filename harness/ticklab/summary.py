# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself: `summary.json` and `latency.hgrm`, derived from its raw files alone.

The same raw files give the same bytes: nothing of the clock, the machine or the path goes in.
"""

import json
from pathlib import Path

import numpy as np

from ticklab import spans as spans_
from ticklab.account import Account, account_of
from ticklab.clock import Clock, clock_of, steps_of
from ticklab.counters import counters_of
from ticklab.run import Run
from ticklab.stats import describe, hgrm, histogram, tenths
from ticklab.wire import Wire
from ticklab.workers import workers_of

REGIMES = ("work", "idle", "blocked", "housekeeping")
LATE_NS = 1_000_000
_SHARES = 1_000_000  # shares are written with six decimals


def summarise(run_dir: str | Path | Run) -> dict:
    """The contents of summary.json (times in ns; what is unknown is absent).

    Raises RunError or TraceError for a directory that is no run, or a damaged one.
    """
    return _derive(run_dir)[0]


def write(run_dir: str | Path | Run) -> dict:
    """Writes summary.json and latency.hgrm into the run; the summary. May raise OSError as well."""
    summary, distribution = _derive(run_dir)
    path = run_dir.path if isinstance(run_dir, Run) else Path(run_dir)
    (path / "summary.json").write_text(to_json(summary))
    (path / "latency.hgrm").write_text(distribution)
    return summary


def to_json(result: dict) -> str:
    return json.dumps(result, indent=1, ensure_ascii=False) + "\n"


def _derive(run_dir: str | Path | Run) -> tuple[dict, str]:
    run = run_dir if isinstance(run_dir, Run) else Run(run_dir)
    wire, clock = Wire(run), clock_of(run)
    account = account_of(run, wire)
    missing = _missing_records(run)
    table = _table(run, clock)
    latency, pictures, negative, distribution = _latency(run, wire, clock, account, missing, table)
    regimes = _regimes(run)
    workers, imbalance = workers_of(run, table, missing, clock.ns(1), regimes)
    incomplete = _incomplete(run, latency, missing)
    degraded = run.manifest.get("degraded") or []
    summary = {
        "schema": 1,
        "name": run.name,
        "degraded": bool(degraded),
        "degraded_because": degraded,
        "complete": not incomplete,
        "incomplete_because": incomplete,
        "load": _load(run),
        "account": account.ledgers,
        "balanced": not account.unbalanced,
        "unbalanced": account.unbalanced,
        "replies": _replies(run),
        "first_loss": _first_loss(run, wire, account),
        "latency_ns": latency,
        "histogram_ns": pictures,
        "regimes": regimes,
        "workers": workers,
        "imbalance": imbalance,
        "noise": _noise(run, clock),
        "counters": counters_of(run),
        "trace": _trace(run, missing, negative),
        "restarts": _restarts(run),
        "feed": _feed(run, wire),
        "tap": _tap(run),
        "rotation": run.counters.get("rotation"),
        "replay": _replay(run, wire),
        "clock": _clock(run, clock),
    }
    if not summary["restarts"]:
        del summary["restarts"]
    return {name: part for name, part in summary.items() if part is not None}, distribution


def _load(run: Run) -> dict:
    """How many requests came, from the first to the last of the measured phase, and how fast."""
    ingress = run.ingress
    load: dict = {"requests": run.measured("rx", "issued")}
    stamps = ingress["kernel_ns"][ingress["kernel_ns"] != 0] if ingress is not None else ()
    if len(stamps) > 1 and (took := int(stamps.max()) - int(stamps.min())):
        load["duration_ns"] = took
        load["requests_per_s"] = tenths((len(stamps) - 1) * 1e9 / took)
    return load


def _table(run: Run, clock: Clock) -> spans_.Requests | None:
    """The request table of the measured phase; None without a trace."""
    if run.trace is None or not run.trace.records:
        return None
    points = spans_.points_of(run.manifest.get("points", []))
    return spans_.requests_of(run.trace, points, clock, run.measured_from)


def _replies(run: Run) -> dict | None:
    """Of a handler whose replies the sink cannot judge: who did so, or that nobody did."""
    expected, delivered = run.expected, run.delivered
    if expected is None or delivered is None or not (expected["reply_hash"] == 0).any():
        return None
    told = run.judged or {"why": "there is no reference for this handler (replay.reference)"}
    return told if "judged" in told else {"unchecked": len(delivered), "why": told["why"]}


def _latency(
    run: Run,
    wire: Wire,
    clock: Clock,
    account: Account,
    missing: dict[str, int],
    table: spans_.Requests | None,
) -> tuple[dict, dict, dict, str]:
    """`latency_ns`, `histogram_ns`, negative spans by name, and the .hgrm of the whole way."""
    latency, pictures, negative, distribution = {}, {}, {}, ""
    transmitted = account.ledgers["requests"]["transmitted"]
    tick = clock.ns(1)
    whole = wire.wire_to_wire
    if whole is not None:
        latency["wire_to_wire"] = describe(whole, transmitted)
        pictures["wire_to_wire"] = histogram(whole)
        distribution = hgrm(whole)
        if below := int((whole < 0).sum()):
            negative["wire_to_wire"] = below
    planned = wire.from_planned
    if planned is not None:
        latency["from_planned"] = describe(planned, transmitted)
    if table is not None:
        spans = spans_.spans_of(table)
        _, through = table.through()
        sampled = int(run.config("trace.sample", "1")) > 1
        lost = sum(missing.values())
        due = len(through) + lost if sampled else transmitted
        latency["through"] = describe(through, due, tick)
        waits, works = spans_.waits_and_works(table, spans)
        latency["waits"] = describe(waits, due, tick)
        latency["works"] = describe(works, due, tick)
        for name, span in spans.items():
            # Each record that is missing may have been one end of a span of its lane.
            gone = sum(n for lane, n in missing.items() if lane.rstrip("0123456789") in span.stages)
            entry = describe(span.ticks, len(span.ticks) + gone, tick)
            latency[name] = {"kind": span.kind, **entry}
            if below := int((span.ticks < 0).sum()):
                negative[name] = below
        pictures["through"] = histogram(through, tick)
        distribution = distribution or hgrm(through, tick)
    return latency, pictures, negative, distribution


def _missing_records(run: Run) -> dict[str, int]:
    """How many records each lane's trace should hold and does not; lanes that lack any."""
    missing = {}
    for name, lane in run.counter("end", "lanes").items():
        gone = run.measured("lanes", name, "discarded")
        if run.trace is not None and name in run.trace.lanes:
            gone += max(lane["records"] - len(run.trace.lanes[name]), 0)
        elif name != "ingress":
            gone += lane["records"]
        elif run.ingress is not None and not run.bounded:
            gone = max(gone, run.measured("rx", "issued") - len(run.ingress))
        if gone:
            missing[name] = gone
    return missing


def _incomplete(run: Run, latency: dict, missing: dict[str, int]) -> list[str]:
    """Why records are missing; empty: none are."""
    why = [f"{count} records missing in lane {lane}" for lane, count in missing.items()]
    if run.trace is not None:
        for name, lane in run.trace.lanes.items():
            if lane.lost_packets:
                why.append(f"{lane.lost_packets} packets missing in lane {name}")
    for name in ("wire_to_wire", "through"):
        entry = latency.get(name)
        if entry and entry["count"] < entry["of"]:
            why.append(f"{name} of {entry['count']} requests, {entry['of']} were sent")
    why += [
        f"the clock was set by {step / 1e6:+,.1f} ms: what was under way then is off by as much in "
        "wire_to_wire"
        for step in steps_of(run).tolist()
    ]
    if not run.counters.get("complete", True):
        why.append(run.counters.get("reason", "the pipeline did not drain"))
    if run.manifest.get("interrupted"):
        why.append("interrupted")
    return why


def _first_loss(run: Run, wire: Wire, account: Account) -> dict | None:
    """The first request, in capture order, that lacks its answer, and where it may have gone.

    `lines` are the account's losses on its half of the way, before or after rx had it.
    """
    if wire.never_received is None:
        return None
    nowhere = len(run.offered)
    # Without a loss, who is missing in ingress.bin was received all the same.
    requests = account.ledgers["requests"]
    lost = requests.get("lost_with_datagrams", requests.get("lost_with_connections"))
    before = int(wire.never_received[0]) if lost and len(wire.never_received) else nowhere
    # Where the sink could not write all that it took, an answer that is not there says nothing.
    told = account.ledgers["requests"].get("delivered")
    whole = run.delivered is None or told is None or len(run.delivered) >= told
    unanswered = wire.first_unanswered() if whole else None
    after = nowhere if unanswered is None else unanswered
    first = min(before, after)
    if first == nowhere:
        return None
    if before <= after:
        datagrams = account.ledgers.get("datagrams", {"dropped": {}})
        lines = {f"datagrams.dropped.{name}": count for name, count in datagrams["dropped"].items()}
        lines["requests.lost_with_connections"] = requests.get("lost_with_connections", 0)
        replay = run.manifest.get("replay", {})
        lines["replay.not_sent"] = replay.get("planned", 0) - replay.get("sent", 0)
    else:
        lines = {f"requests.dropped.{name}": count for name, count in requests["dropped"].items()}
        lines["requests.lost.rx"] = requests["lost"]["rx"]
        lines["requests.rejected"] = sum(requests["rejected"].values())
        lines |= {f"requests.in_flight.{ring}": n for ring, n in requests["in_flight"].items()}
    return {
        "position": first,
        "id": int(run.offered["id"][first]),
        "planned_ns": int(run.offered["planned_ns"][first]),
        "received": after < before,
        "lines": {name: count for name, count in lines.items() if count},
    }


def _regimes(run: Run) -> dict:
    """Shares of each stage's time in the measured phase; they add up to 1."""
    regimes = {}
    for name, (end, mark) in run.stages().items():
        before = mark["regimes_ticks"] if mark else {}
        ticks = [end["regimes_ticks"].get(regime, 0) - before.get(regime, 0) for regime in REGIMES]
        total = sum(ticks)
        if total <= 0:
            continue
        # What rounding leaves over goes to the largest.
        shares = [(_SHARES * part + total // 2) // total for part in ticks]
        shares[int(np.argmax(ticks))] += _SHARES - sum(shares)
        regimes[name] = {r: share / _SHARES for r, share in zip(REGIMES, shares, strict=True)}
    return regimes


def _noise(run: Run, clock: Clock) -> dict:
    """What the host took from each CPU: the gaps that the stages there saw while they waited.

    `share` is of the measured phase; `p99` is the lower end of its bin. `max` is exact where the
    longest gap fell into the measured phase, else the lower end of the highest bin.
    """
    cpus: dict[int, dict] = {}
    for end, mark in run.stages().values():
        gaps, before = end["gaps"], mark["gaps"] if mark else {}
        old = dict(map(tuple, before.get("histogram", [])))
        here = cpus.setdefault(end["cpu"], {"bins": {}, "ticks": 0, "max": 0.0})
        for low, count in gaps["histogram"]:
            if count > old.get(low, 0):
                here["bins"][low] = here["bins"].get(low, 0) + count - old.get(low, 0)
                here["max"] = max(here["max"], float(low))
        here["ticks"] += gaps["total_ticks"] - before.get("total_ticks", 0)
        if gaps["max_ticks"] > before.get("max_ticks", 0):
            here["max"] = max(here["max"], float(clock.ns(gaps["max_ticks"])))
    noise = {}
    for cpu, here in sorted(cpus.items()):
        lows = sorted(here["bins"])
        counts = np.array([here["bins"][low] for low in lows], np.int64)
        total = int(counts.sum())
        entry = {"gaps": total, "share": round(here["ticks"] / max(run.measured("tsc"), 1), 6)}
        if total:
            nearest = np.searchsorted(np.cumsum(counts), -(-99 * total // 100))
            entry |= {"p99": tenths(lows[nearest]), "max": tenths(here["max"])}
        noise[str(cpu)] = entry
    return noise


def _restarts(run: Run) -> list[dict]:
    """The stages that were replaced: for how long each was gone, and what waited for it.

    Gone is from the last tick of the old process (at most about 1 ms before its end) to the first
    turn of the new one; absent where there came none.
    """
    told = []
    for restart in run.restarts:
        entry = {name: restart[name] for name in ("stage", "generation", "cause", "waiting")}
        if restart["waiting"]:
            entry |= {"first_waiting": restart["first"], "last_waiting": restart["last"]}
        if restart["back"]:
            ticks = restart["back"] - restart["last_tick"]
            entry["gone_ns"] = tenths(ticks * 1e9 / run.tsc_hz)
        told.append(entry)
    return told


def _trace(run: Run, missing: dict[str, int], negative: dict[str, int]) -> dict:
    """The whole trace, warm-up included, as any reader of the files counts it."""
    lanes = run.trace.lanes.values() if run.trace else ()
    names = [name for name in run.counter("end", "lanes") if name != "ingress"]
    told = {
        "records": sum(map(len, lanes)),
        "discarded": sum(run.at_end("lanes", name, "discarded") for name in names),
        "missing": missing,
        "negative_spans": sum(negative.values()),
        "negative": negative,
    }
    if "stamp_cost_ns" in run.counters:
        told["stamp_cost_ns"] = run.counters["stamp_cost_ns"]
    return told


def _feed(run: Run, wire: Wire) -> dict | None:
    """What the sequence numbers of a feed told rx; None where there are none.

    No number tells of what was lost in front of the first message or behind the last: `at_ends`, by
    what was offered, where one feed came without a reset. With `missing` it is all that was lost.
    That the session begins anew behind the warm-up is the lab's doing and no reset; where its first
    message was lost then, it looks like one that goes on, and nobody can tell the ends.
    """
    feeds = run.counter("end").get("feed")
    if not feeds:
        return None
    told = {"channels": len(feeds)}
    for name in ("messages", "gaps", "missing", "repeated", "resets"):
        told[name] = run.measured("feed", "*", name)
    before = [] if run.serve else (run.counters.get("mark") or {}).get("feed", [])
    anew = [end["resets"] > mark["resets"] for mark, end in zip(before, feeds, strict=False)]
    told["resets"] -= sum(anew)
    began = all(
        new or mark["next"] == mark["began"] for new, mark in zip(anew, before, strict=True)
    )
    lost = wire.never_received
    if lost is not None and len(feeds) == 1 and not told["resets"] and began:
        ids = run.offered["id"][lost]
        told["at_ends"] = int(((ids < feeds[0]["began"]) | (ids >= feeds[0]["next"])).sum())
    return told


def _tap(run: Run) -> dict | None:
    """What a tap saw in the measured phase; None where there is none."""
    counts = run.counter("end").get("tap")
    return {name: run.measured("tap", name) for name in counts} if counts else None


def _replay(run: Run, wire: Wire) -> dict | None:
    replay = run.manifest.get("replay") or {}
    if run.serve or not replay:
        return None
    told = {name: replay[name] for name in ("speed", "player", "planned", "sent") if name in replay}
    late = None
    if replay.get("speed") != "top":  # what the client noted itself, else as rx received it
        late = wire.operations_late_ns if run.sent is not None else wire.lateness_ns()
    if late is not None and len(late):
        entry = describe(late, len(late))
        told["lateness_ns"] = {name: entry[name] for name in ("p50", "p99", "max") if name in entry}
        if wire.operations_late_ns is not None:
            told["later_than_1ms"] = int((late > LATE_NS).sum())
    return told


def _clock(run: Run, clock: Clock) -> dict:
    """What calibration said; `error_ns` as the pairs of this very run show it, where it has any."""
    told = {"tsc_hz": run.tsc_hz}
    known = run.counters.get("clock", {})
    told |= {key: known[key] for key in ("error_ppm", "error_ns", "skew_ns") if key in known}
    if len(steps := steps_of(run)):
        told["steps_ns"] = steps.tolist()
    if clock.error_ns is not None:
        told["error_ns"] = tenths(clock.error_ns)
    return told | {"pairs": len(clock.tsc)}
