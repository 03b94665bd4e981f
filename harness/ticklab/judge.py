# SPDX-License-Identifier: Apache-2.0
"""Are the replies of a handler with a memory right? Asked after the run, when their order is known.

What such a handler answers depends on all requests before, so nothing can be told the sink in
advance: it matches ids, and keeps a hash of each reply. Which requests a worker took, and in which
order, its own stamps say (`worker_got`); a reference is fed with the same, and its replies' hashes
are compared with those that came.

A reference is a class `Reference` of a Python module: made with the keys of [handler.NAME], a fresh
one for each worker; `reply(payload, flow)` gives the reply's payload, or the reason as text
(`filtered`, `bad_payload`, …) why there is none.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from ticklab import reference
from ticklab.run import Run

BUILT_IN = {"book": Path(__file__).parent / "reference_book.py"}
POINT = "worker_got"
NO_ID = ("fix", "datagram")


class JudgeError(Exception):
    """A reference that cannot be used; the message is one line."""


def reference_of(handler: str, chosen: str) -> Path | None:
    """The module for a handler by `replay.reference`: auto, none or a path. None: there is none."""
    if chosen == "auto":
        return BUILT_IN.get(handler)
    return None if chosen == "none" else Path(chosen)


def load(path: Path) -> Any:
    """The class `Reference` of a module."""
    try:
        spec = importlib.util.spec_from_file_location("tickline_reference", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Reference
    except Exception as error:  # whatever somebody's module may do
        raise JudgeError(
            f"{path}: {type(error).__name__}: {error}; expected a Python module with a class "
            "Reference"
        ) from None


def judge(run: Run, module: Path, requests: dict[int, list[reference.Request]]) -> dict[str, Any]:
    """{"judged", "wrong", "first_wrong"}, or {"why"} where it cannot be told; by the run's files.

    `requests`: those of the capture by wire id.
    """
    if (schema := run.config("pipeline.schema")) in NO_ID:
        return {"why": f"replies of {schema} do not say which request they answer"}
    if any(len({request.raw for request in alike}) > 1 for alike in requests.values()):
        return {"why": "requests of the same id differ"}
    if int(run.config("trace.sample", "1")) != 1 or run.bounded or run.trace is None:
        return {"why": "not every request is stamped"}
    if run.at_end("lanes", "*", "discarded"):
        return {"why": "stamps were discarded"}
    section = f"handler.{run.manifest['handler']['name']}."
    keys = {
        key.removeprefix(section): entry["value"]
        for key, entry in run.manifest["config"].items()
        if key.startswith(section)
    }
    point = next(p["id"] for p in run.manifest["points"] if p["name"] == POINT)
    ingress = {int(row["request"]): row for row in run.received}
    came = {int(row["id"]): int(row["reply_hash"]) for row in run.delivered}
    made, told = load(module), {"judged": 0, "wrong": 0}
    for name, lane in sorted(run.trace.lanes.items()):
        if not name.startswith("worker"):
            continue
        judge_one = made(keys)
        for number in np.unique(lane.request[lane.point == point]).tolist():
            if number not in ingress:
                return {"why": "ingress.bin lacks requests"}
            row = ingress[number]
            wire_id = int(row["id"])
            answer = _answer(run, judge_one, requests[wire_id][0], int(row["flow"]))
            if number < run.measured_from or isinstance(answer, str) or wire_id not in came:
                continue
            told["judged"] += 1
            if came[wire_id] != xxh3_64_intdigest(answer):
                told["wrong"] += 1
                told.setdefault("first_wrong", {"request": number, "id": wire_id})
    return told


def _answer(run: Run, judge_one: Any, request: reference.Request, flow: int) -> bytes | str:
    """The whole reply as the reference has it; its mistakes are told as its own."""

    def reply(payload: bytes) -> bytes | str:
        try:
            return judge_one.reply(payload, flow)
        except Exception as error:
            raise JudgeError(
                f"reply({payload!r}, {flow}): {type(error).__name__}: {error}"
            ) from None

    answer = reference.reply(run.config("pipeline.schema"), reply, request)
    assert answer is not None
    return answer
