# SPDX-License-Identifier: Apache-2.0
"""From the kernel's clock to ticks of the time-stamp counter, and from ticks to nanoseconds.

The kernel stamps what it receives by CLOCK_REALTIME, the stages stamp by the counter. rx reads both
together a hundred times a second; between two such pairs the one clock is a straight line of the
other. Nanoseconds since 1970 have more digits than a float: a base is taken off first, always.
"""

import numpy as np

from ticklab.run import Run

# Pairs from which the slope beyond the first and the last pair is taken.
_END_PAIRS = 10
STEP_NS = 1_000_000


class Clock:
    """Pairs of `tsc` (ticks) and `realtime` (ns), both shape (pairs,), at least one; integer.

    Pairs whose reading took far longer than usual (`bracket`, ns) say little and are left out.
    """

    def __init__(self, tsc, realtime, tsc_hz: float, bracket=None):
        tsc, realtime = np.asarray(tsc).astype(np.int64), np.asarray(realtime).astype(np.int64)
        if bracket is not None and len(tsc) > 2:
            narrow = np.asarray(bracket) <= 4 * max(np.median(bracket), 25)
            tsc, realtime = tsc[narrow], realtime[narrow]
        self.tsc, self.realtime, self.tsc_hz = tsc, realtime, tsc_hz
        usual = tsc_hz / 1e9
        ends = min(len(tsc) - 1, _END_PAIRS)
        between = _slope(np.diff(tsc), np.diff(realtime), usual)
        head = _slope(tsc[ends] - tsc[0], realtime[ends] - realtime[0], usual)
        tail = _slope(tsc[-1] - tsc[-1 - ends], realtime[-1] - realtime[-1 - ends], usual)
        # Slope of the stretch that ends at pair i; one more beyond the last.
        self._slope = np.concatenate((np.ravel(head), between, np.ravel(tail)))

    def ticks(self, realtime_ns: np.ndarray, near: np.ndarray) -> np.ndarray:
        """The counter at the time `realtime_ns`, rounded once to whole ticks; int64, same shape.

        `near` is the counter some time later. It finds the stretch where REALTIME was set back and
        a time of day occurs twice.
        """
        at = np.asarray(realtime_ns).astype(np.int64)
        if (np.diff(self.realtime) > 0).all():
            stretch = np.searchsorted(self.realtime, at, "right")
        else:
            stretch = np.searchsorted(self.tsc, np.asarray(near).astype(np.int64), "right")
        pair = np.maximum(stretch - 1, 0)
        ahead = (at - self.realtime[pair]).astype(np.float64)
        return self.tsc[pair] + np.rint(ahead * self._slope[stretch]).astype(np.int64)

    def ns(self, ticks: np.ndarray | float) -> np.ndarray | float:
        """A length of time; float64."""
        return ticks * (1e9 / self.tsc_hz)

    @property
    def error_ns(self) -> float | None:
        """How far a pair lies from the line between its neighbours, p99; None if there are two."""
        if len(self.tsc) < 3:
            return None
        tsc, realtime = np.diff(self.tsc), np.diff(self.realtime)
        share = tsc[:-1] / (tsc[:-1] + tsc[1:])
        off = np.abs(realtime[:-1] - share * (realtime[:-1] + realtime[1:]))
        return float(np.sort(off)[-(len(off) // 100) - 1])


def clock_of(run: Run) -> Clock:
    """The clock of a run: by the pairs in its trace, or in its counters where there are none."""
    trace = run.trace
    lane = trace.lanes.get("rx") if trace else None
    if lane is not None:
        ids = [event for event, name in trace.metadata.events.items() if name == "clock"]
        pairs = np.isin(lane.point[lane.wide], ids)
        at = lane.wide[pairs]
        if len(at):
            return Clock(lane.tsc[at], lane.extra[pairs], run.tsc_hz, lane.argument[at])
    snapshots = [run.counters[name] for name in ("mark", "end") if name in run.counters]
    return Clock(
        [snapshot["tsc"] for snapshot in snapshots],
        [snapshot["realtime_ns"] for snapshot in snapshots],
        run.tsc_hz,
    )


def steps_of(run: Run) -> np.ndarray:
    """What somebody set REALTIME forward or back by in the measured phase, ns each; int64.

    Less than STEP_NS from one pair to the next is a slew, which the pairs follow.
    """
    trace = run.trace
    lane = trace.lanes.get("rx") if trace else None
    if lane is None:
        return np.zeros(0, np.int64)
    ids = [event for event, name in trace.metadata.events.items() if name == "clock_bend"]
    bends = np.isin(lane.point[lane.wide], ids)
    bends &= lane.tsc[lane.wide] >= run.counters.get("mark", {}).get("tsc", 0)
    bent = lane.value[bends].astype(np.int64)
    return bent[np.abs(bent) >= STEP_NS]


def _slope(ticks: np.ndarray, ns: np.ndarray, usual: float) -> np.ndarray:
    """Ticks a ns; `usual` where no time went by, or it went backward."""
    forward = (ns > 0) & (ticks > 0)
    return np.where(forward, ticks / np.where(forward, ns, 1), usual)
