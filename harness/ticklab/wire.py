# SPDX-License-Identifier: Apache-2.0
"""Which record of one wire table is which of another: by id, and by occurrence of that id.

The k-th time an id was offered, received or answered is the k-th of each. Where one of several
requests of one id was lost, a later one is taken for it; how many were lost stays right.
"""

from functools import cached_property

import numpy as np

from ticklab.run import ANY_REPLY, LINK_BROKEN, NOT_DONE, STATUS_OK, Run


def match(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """For each id in `right` the position in `left` of the same occurrence of it, or -1; int64.

    Both uint64, shapes (left,) and (right,).
    """
    if np.array_equal(left, right):
        return np.arange(len(right))
    by_left, by_right = np.argsort(left, kind="stable"), np.argsort(right, kind="stable")
    left, right = left[by_left], right[by_right]
    place = np.arange(len(right))
    new = np.ones(len(right), bool)
    new[1:] = right[1:] != right[:-1]
    occurrence = place - np.maximum.accumulate(np.where(new, place, 0))
    at = np.searchsorted(left, right) + occurrence
    there = at < len(left)
    there[there] = left[at[there]] == right[there]
    found = np.full(len(right), -1)
    found[by_right[there]] = by_left[at[there]]
    return found


def missing(matched: np.ndarray, count: int) -> np.ndarray:
    """Positions from 0 to `count` that `matched`, an answer of match(), never names; ascending."""
    absent = np.ones(count, bool)
    absent[matched[matched >= 0]] = False
    return np.flatnonzero(absent)


class Wire:
    """The wire tables of a run, matched. None where a table is missing."""

    def __init__(self, run: Run):
        self.run = run

    @cached_property
    def offered_of_ingress(self) -> np.ndarray | None:
        """For each received request its position in `offered`, or -1; shape of `ingress`."""
        offered, ingress = self.run.offered, self.run.ingress
        return None if offered is None or ingress is None else match(offered["id"], ingress["id"])

    @cached_property
    def never_received(self) -> np.ndarray | None:
        """Positions in `offered` that no received request has."""
        matched = self.offered_of_ingress
        return None if matched is None else missing(matched, len(self.run.offered))

    @cached_property
    def answers(self) -> np.ndarray | None:
        """DELIVERED, the right replies alone."""
        delivered = self.run.delivered
        return None if delivered is None else delivered[delivered["status"] == STATUS_OK]

    @cached_property
    def wire_to_wire(self) -> np.ndarray | None:
        """Kernel to kernel, ns, int64, one a request that has both stamps."""
        ingress, answers = self.run.ingress, self.answers
        if ingress is None or answers is None:
            return None
        matched = match(ingress["id"], answers["id"])
        answers = answers[matched >= 0]
        sent = ingress["kernel_ns"][matched[matched >= 0]]
        both = (sent != 0) & (answers["kernel_ns"] != 0)
        return answers["kernel_ns"][both].astype(np.int64) - sent[both].astype(np.int64)

    @cached_property
    def gone(self) -> np.ndarray | None:
        """Which of the offered requests stood on a connection that was reset, by whomever; bool.

        None unless the client played over TCP.
        """
        requests, connections = self.run.requests, self.run.connections
        if requests is None or connections is None or self.run.config("rx.source") != "tcp":
            return None
        reset = (connections["resets"] > 0) | (connections["state"] == LINK_BROKEN)
        return reset[requests["connection"]]

    @cached_property
    def gone_unanswered(self) -> int:
        """Requests that were received, were to be answered, were not, and stood on such a one."""
        offered, expected, answers = self.run.offered, self.run.expected, self.answers
        received, gone = self.offered_of_ingress, self.gone
        if gone is None or received is None or expected is None or answers is None:
            return 0
        unanswered = missing(match(expected["id"], answers["id"]), len(expected))
        asked = match(offered["id"], expected["id"])[unanswered]
        asked = asked[asked >= 0]
        came = np.zeros(len(offered), bool)
        came[received[received >= 0]] = True
        return int((gone[asked] & came[asked]).sum())

    @cached_property
    def from_planned(self) -> np.ndarray | None:
        """From the planned time of each request to its reply at the lab, ns, int64.

        None where nothing says when the replay began to the nanosecond, or nothing was planned.
        """
        offered, answers = self.run.offered, self.answers
        replay = self.run.manifest.get("replay") or {}
        if self.run.sent is None or offered is None or answers is None:
            return None
        if replay.get("speed") == "top" or "begun_ns" not in replay:
            return None
        matched = match(offered["id"], answers["id"])
        known = (matched >= 0) & (answers["kernel_ns"] != 0)
        planned = offered["planned_ns"][matched[known]] + replay["begun_ns"]
        return answers["kernel_ns"][known].astype(np.int64) - planned

    @cached_property
    def operations_late_ns(self) -> np.ndarray | None:
        """How far behind its plan the client did each operation that it did, ns, int64."""
        sent = self.run.sent
        if sent is None:
            return None
        done = sent[sent["done_ns"] != NOT_DONE]
        return done["done_ns"] - done["planned_ns"]

    def first_unanswered(self) -> int | None:
        """Position in `offered` of the first request that was to be answered and was not.

        Of a handler with a memory nobody knows here which those are.
        """
        expected, offered, answers = self.run.expected, self.run.offered, self.answers
        if expected is None or offered is None or answers is None:
            return None
        unanswered = missing(match(expected["id"], answers["id"]), len(expected))
        unanswered = unanswered[expected["reply_hash"][unanswered] != ANY_REPLY]
        asked = match(offered["id"], expected["id"])[unanswered]
        return int(asked[asked >= 0].min(initial=len(offered))) if (asked >= 0).any() else None

    def lateness_ns(self) -> np.ndarray | None:
        """How far behind its plan each request reached the socket, ns, int64; the earliest is 0."""
        offered, ingress, matched = self.run.offered, self.run.ingress, self.offered_of_ingress
        if matched is None:
            return None
        stamped = (matched >= 0) & (ingress["kernel_ns"] != 0)
        planned = offered["planned_ns"][matched[stamped]]
        late = ingress["kernel_ns"][stamped].astype(np.int64) - planned
        return late - late.min() if len(late) else late
