# SPDX-License-Identifier: Apache-2.0
"""What the handler `counter` must answer: tickline asks it after a run, in the worker's order."""

from collections import Counter


class Reference:
    def __init__(self, keys: dict[str, str]) -> None:
        """`keys` are those written in [handler.counter]."""
        self.mark = keys.get("mark", "#")
        self.flows = int(keys.get("flows", 65536))
        self.seen: Counter[int] = Counter()

    def reply(self, payload: bytes, flow: int) -> bytes | str:
        """The reply's payload, or the reason why there is none."""
        if flow >= self.flows:
            return "full"
        self.seen[flow] += 1
        return b"%b%d %b" % (self.mark.encode(), self.seen[flow], payload)
