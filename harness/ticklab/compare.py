# SPDX-License-Identifier: Apache-2.0
"""Two runs side by side: times, how they were made, and whether they gave the same replies.

One run a side says nothing about which is faster: two runs of the same binaries differ too, and by
how much is unknown. So there are figures here, and no verdict.
"""

import numpy as np

from ticklab.run import STATUS_UNKNOWN, Run
from ticklab.stats import BOUNDS, PERCENTILES, tenths
from ticklab.summary import summarise

DIFFERENT, INCONCLUSIVE = 1, 3
_FIRST = 10
_COMPARED = ("min", *PERCENTILES, "max", "mean")
# What of the manifest says how a run was made, beside the configuration.
_MADE = ("git", "builds", "flags", "placement", "obtained", "degraded", "host", "kernel", "cpu")


def compare(a: Run, b: Run) -> dict:
    """Everything about B beside A. `exit` is the status: 1 where replies differ, else 3."""
    first, second = summarise(a), summarise(b)
    replies = _replies(a, b)
    differing = replies.get("differing", 0)
    verdict = (
        f"{differing:,} requests got different replies: these two do not do the same work"
        if differing
        else "no verdict: one run a side does not tell a difference from chance; run each several "
        "times, in turns"
    )
    return {
        "schema": 1,
        "a": a.name,
        "b": b.name,
        "latency_ns": _latency(first["latency_ns"], second["latency_ns"]),
        "only_a": [name for name in first["latency_ns"] if name not in second["latency_ns"]],
        "only_b": [name for name in second["latency_ns"] if name not in first["latency_ns"]],
        "replies": replies,
        "differences": _differences(a, b),
        "balanced": {"a": first["balanced"], "b": second["balanced"]},
        "verdict": verdict,
        "exit": DIFFERENT if differing else INCONCLUSIVE,
    }


def _latency(a: dict, b: dict) -> dict:
    """Span → percentile → both figures, difference, ratio; `bound`: sides known to be no less."""
    table = {}
    for name in a:
        if name not in b:
            continue
        rows = {}
        for percentile in _COMPARED:
            if percentile not in a[name] or percentile not in b[name]:
                continue
            x, y = a[name][percentile], b[name][percentile]
            row = {"a": x, "b": y, "difference": tenths(y - x)}
            if x > 0:
                row["ratio"] = round(y / x, 4)
            sides = {"a": a[name], "b": b[name]}
            short = [side for side, entry in sides.items() if entry["count"] < entry["of"]]
            row["bound"] = short if percentile in BOUNDS else []
            rows[percentile] = row
        table[name] = rows
    return table


def _replies(a: Run, b: Run) -> dict:
    """Requests (by id) that were answered in both runs and not alike; losses are counted apart."""
    if a.delivered is None or b.delivered is None:
        return {"why": "a run without a sink of its own keeps none"}
    captures = [(run.manifest.get("capture") or {}).get("sha256") for run in (a, b)]
    if captures[0] != captures[1]:
        return {"why": "the runs replayed different captures"}
    one, other = _answers(a), _answers(b)
    in_one, in_other = np.isin(one["id"], other["id"]), np.isin(other["id"], one["id"])
    only_a, only_b = (len(np.unique(ids)) for ids in (one["id"][~in_one], other["id"][~in_other]))
    one, other = one[in_one], other[in_other]
    differing = np.empty(0, np.uint64)
    if not np.array_equal(one, other):
        # An id differs where each of the runs gave it a reply that the other did not.
        differing = np.intersect1d(np.setdiff1d(one, other)["id"], np.setdiff1d(other, one)["id"])
    return {
        "compared": len(np.unique(one["id"])),
        "differing": len(differing),
        "first": differing[:_FIRST].tolist(),
        "only_a": only_a,
        "only_b": only_b,
    }


def _answers(run: Run) -> np.ndarray:
    """The replies of a run as {id, reply_hash}, ascending."""
    delivered = run.delivered[run.delivered["status"] != STATUS_UNKNOWN]
    order = np.lexsort((delivered["reply_hash"], delivered["id"]))
    pairs = np.empty(len(order), [("id", "<u8"), ("reply_hash", "<u8")])
    pairs["id"], pairs["reply_hash"] = delivered["id"][order], delivered["reply_hash"][order]
    return pairs


def _differences(a: Run, b: Run) -> dict:
    """What differs in how the runs were made: name → [A's, B's], None where a run does not say."""
    made = [_made(run) for run in (a, b)]
    names = dict.fromkeys([*made[0], *made[1]])
    return {
        name: [side.get(name) for side in made]
        for name in names
        if made[0].get(name) != made[1].get(name)
    }


def _made(run: Run) -> dict:
    manifest = run.manifest
    told = {f"config.{key}": entry["value"] for key, entry in manifest.get("config", {}).items()}
    for name in _MADE:
        told |= _flat(name, manifest.get(name))
    replay = manifest.get("replay") or {}
    told |= {f"replay.{key}": replay[key] for key in ("speed", "player") if key in replay}
    if sha256 := (manifest.get("capture") or {}).get("sha256"):
        told["capture.sha256"] = sha256
    rotation = run.counters.get("rotation", {})
    told |= {f"rotation.{key}": rotation[key] for key in ("order", "right") if key in rotation}
    return told


def _flat(name: str, value) -> dict:
    if isinstance(value, dict):
        return {
            k: v for key, inner in value.items() for k, v in _flat(f"{name}.{key}", inner).items()
        }
    return {} if value is None else {name: value}
