# SPDX-License-Identifier: Apache-2.0
"""What is said of many times: nearest-rank percentiles, a histogram, an .hgrm file.

Every record counts; none is left out for being far away.
"""

import math
from fractions import Fraction

import numpy as np

# Name, and the share below it as a fraction of whole numbers, so that a rank is exact.
PERCENTILES = {
    "p50": (50, 100),
    "p90": (90, 100),
    "p99": (99, 100),
    "p99_9": (999, 1000),
    "p99_99": (9999, 10000),
}
# Missing records may all lie above: from here up a percentile is only known to be no less.
BOUNDS = ("p99", "p99_9", "p99_99", "max")
BEYOND_MIN = 10


def rank(share: tuple[int, int], count: int) -> int:
    """1-based rank of a percentile among `count`: the lowest with that share at or below it."""
    return max(1, -(-share[0] * count // share[1]))


def describe(values: np.ndarray, of: int, scale: float = 1.0) -> dict:
    """An entry of `latency_ns`: `values` (integers, in any order) times `scale` are ns.

    `of` is how many records there should be, at least. A percentile with fewer than ten records
    beyond it is absent, and with no records at all everything is but the counts.
    """
    count = len(values)
    entry = {"count": count, "of": max(of, count)}
    if not count:
        return entry
    ranks = {name: rank(share, count) for name, share in PERCENTILES.items()}
    ranks = {name: at for name, at in ranks.items() if count - at >= BEYOND_MIN}
    ordered = np.partition(values, sorted({0, count - 1, *(at - 1 for at in ranks.values())}))
    entry["min"] = tenths(ordered[0] * scale)
    for name, at in ranks.items():
        entry[name] = tenths(ordered[at - 1] * scale)
    entry["max"] = tenths(ordered[-1] * scale)
    entry["mean"] = tenths(int(values.sum()) * scale / count)
    return entry


def tenths(ns: float) -> float:
    """Rounded to 0.1; never -0.0."""
    return round(float(ns), 1) + 0.0


def histogram(values: np.ndarray, scale: float = 1.0) -> list[list[int]]:
    """[[low_ns, count], …] of the bins that are not empty.

    Eight bins an octave, below 16 ns one a ns; the first takes whatever is less than 1 ns.
    """
    whole = np.maximum(np.floor(values * scale), 0).astype(np.int64)
    shift = np.maximum(np.frexp(whole)[1].astype(np.int64) - 4, 0)
    counts = np.bincount((shift << 4) + (whole >> shift))
    return [
        [(code & 15) << (code >> 4), int(counts[code])] for code in np.flatnonzero(counts).tolist()
    ]


def bin_end(low: int) -> int:
    """Where the bin of histogram() that begins at `low` ends."""
    return low + (1 << max(low.bit_length() - 4, 0))


def hgrm(values: np.ndarray, scale: float = 1.0) -> str:
    """`values` times `scale` (ns) as HdrHistogram prints percentiles, five steps a half-distance.

    Columns: value in ns, percentile as a fraction, records up to it, 1/(1-percentile). Values are
    as recorded, in no buckets.
    """
    ordered = np.sort(values)
    count = len(ordered)
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>16}", ""]
    for beyond in _hgrm_steps(count):
        value = ordered[max(count - math.floor(count * beyond), 1) - 1]
        total = int(np.searchsorted(ordered, value, "right"))
        row = f"{value * scale:12.3f} {float(1 - beyond):14.12f} {total:10d}"
        lines.append(f"{row} {float(1 / beyond):16.2f}" if beyond else row)
    mean, deviation, largest = (
        (ordered.mean() * scale, ordered.std() * scale, ordered[-1] * scale) if count else (0, 0, 0)
    )
    lines.append(f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]")
    lines.append(f"#[Max     = {largest:12.3f}, Total count    = {count:12d}]")
    return "\n".join(lines) + "\n"


def _hgrm_steps(count: int) -> list[Fraction]:
    """Shares beyond each step: five steps a half, until less than a record is left; then 0."""
    steps, distance = [], Fraction(1)
    while count * distance >= 1:
        steps += [distance * (10 - step) / 10 for step in range(5)]
        distance /= 2
    return [*(beyond for beyond in steps if count * beyond >= 1), Fraction(0)] if count else []
