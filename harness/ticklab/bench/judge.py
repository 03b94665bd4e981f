# SPDX-License-Identifier: Apache-2.0
"""Is a benchmark faster or slower than before? A verdict for each, over process starts.

The sample is the starts of each side: a loop's million samples share one start's addresses, pages
and run queue, and would find a difference between two starts of the same program. The ratio now /
baseline is Hodges' and Lehmann's estimate on logarithms (the median of all ratios of a start now
to one of the baseline); its interval has the same pairs, and the test is Mann's and Whitney's:
ranks alone, whose error does not depend on how starts are distributed. Holm's correction keeps
the chance that any of all benchmarks is called different by accident within ALPHA, shared by the
looks that are taken at a session.

What that costs, simulated: among 40 benchmarks of 9 starts a side, each with a spread of 2 %, a
slowdown of 10 % is always found; where the host interrupts a start in twenty, in 63 of 100
sessions and after a second look in 98; one in five, in 18 and 62. The others are inconclusive, no
pass. Yuen's trimmed t finds more at one look (86 and 19 trimmed by a fifth, 92 and 46 by a
quarter), but by a quarter it calls identical programs with two modes different in half of all
sessions, and trimmed by a fifth it rests on the distributions that were tried.

slower, faster  different from 1 after the correction, and by an effect that counts
no difference   the interval holds no effect that counts
inconclusive    neither: the starts spread too far, or are too few, to tell
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

ALPHA = 0.05
EFFECT = 0.02  # the smallest relative effect that counts
FLOOR_NS = 0.05  # nor does anything below this, a small part of a clock cycle
STARTS_MIN = 4  # with fewer a side no test can find a difference
SLOWER, FASTER, SAME, UNKNOWN = "slower", "faster", "no difference", "inconclusive"
MISSING = (
    "no verdicts: Python's scipy is missing; run harness/setup.sh requirements-bench.txt, or as "
    "root: apt-get install python3-scipy"
)

REGRESSION, INCONCLUSIVE = 1, 3  # exit statuses


@dataclass(frozen=True)
class Verdict:
    """Of one benchmark; `ratio` is now / baseline, above 1 is slower."""

    name: str
    verdict: str
    baseline_ns: float
    now_ns: float
    ratio: float
    low: float | None = None  # of the interval, as ratios
    high: float | None = None
    p: float | None = None  # as the test has it
    p_corrected: float | None = None  # by Holm, over all benchmarks and looks
    why: str = ""


def judge(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    effect: float = EFFECT,
    looks: int = 1,
) -> dict[str, Any]:
    """The verdicts of {name: (ns of the baseline's starts, ns of those now)}, and what they mean.

    `looks`: how often the session is judged in all, where what is inconclusive goes on.
    `exit`: 1 where one is slower, else 3 where one is inconclusive, else 0.
    """
    try:
        from scipy import stats
    except ImportError:
        stats = None
    floored = {
        name: tuple([max(ns, FLOOR_NS) for ns in side] for side in sides)
        for name, sides in pairs.items()
        if all(sides)
    }
    enough = {name: s for name, s in floored.items() if min(map(len, s)) >= STARTS_MIN}
    tested = {name: _p(stats, *sides) for name, sides in enough.items()} if stats else {}
    corrected = {name: min(1.0, looks * p) for name, p in holm(tested).items()}
    verdicts = []
    for name, (before, now) in floored.items():
        found = _Estimate.of(before, now)
        if name in tested:
            counts = max(effect, FLOOR_NS / statistics.median(before))
            verdict, why = _verdict(found, corrected[name], counts)
        else:
            verdict = UNKNOWN
            why = f"needs {STARTS_MIN} starts a side" if name not in enough else "needs scipy"
        verdicts.append(
            Verdict(
                name,
                verdict,
                statistics.median(before),
                statistics.median(now),
                found.ratio,
                found.low,
                found.high,
                tested.get(name),
                corrected.get(name),
                why,
            )
        )
    return {
        "effect": effect,
        "floor_ns": FLOOR_NS,
        "confidence": 1 - ALPHA,
        "test": "Mann-Whitney over process starts, Holm over benchmarks; Hodges-Lehmann ratio",
        "looks": looks,
        "notes": _notes(stats is not None, enough, looks),
        "benchmarks": [asdict(verdict) for verdict in verdicts],
        "exit": _status([verdict.verdict for verdict in verdicts]),
    }


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction."""
    corrected, most = {}, 0.0
    for at, name in enumerate(sorted(p, key=p.__getitem__)):
        most = max(most, min(1.0, (len(p) - at) * p[name]))
        corrected[name] = most
    return corrected


@dataclass(frozen=True)
class _Estimate:
    ratio: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, before: Sequence[float], now: Sequence[float]) -> "_Estimate":
        """Hodges and Lehmann; the interval leaves out as many pairs as the test allows."""
        pairs = itertools.product(now, before)
        shifts = sorted(math.log(after) - math.log(earlier) for after, earlier in pairs)
        a, b = len(before), len(now)
        z = statistics.NormalDist().inv_cdf(1 - ALPHA / 2)
        out = math.floor(a * b / 2 - 0.5 - z * math.sqrt(a * b * (a + b + 1) / 12))
        ratio = math.exp(statistics.median(shifts))
        if out < 0 or min(a, b) < STARTS_MIN:
            return cls(ratio, None, None)
        return cls(ratio, math.exp(shifts[out]), math.exp(shifts[-1 - out]))


def _p(stats: Any, before: Sequence[float], now: Sequence[float]) -> float:
    """Two-sided; exact where no two starts took the same time."""
    both = [*before, *now]
    if min(both) == max(both):
        return 1.0
    method = "exact" if len(set(both)) == len(both) else "asymptotic"
    return float(stats.mannwhitneyu(now, before, alternative="two-sided", method=method).pvalue)


def _verdict(found: _Estimate, p: float, counts: float) -> tuple[str, str]:
    if p < ALPHA and found.ratio > 1 + counts:
        return SLOWER, ""
    if p < ALPHA and found.ratio < 1 / (1 + counts):
        return FASTER, ""
    if found.low is None or found.high is None:
        return UNKNOWN, "too few starts"
    if 1 / (1 + counts) <= found.low and found.high <= 1 + counts:
        return SAME, ""
    return UNKNOWN, "the starts spread too far; give more --repetitions or a larger --effect"


def _notes(
    has_scipy: bool, enough: Mapping[str, Sequence[Sequence[float]]], looks: int
) -> list[str]:
    if not has_scipy:
        return [MISSING]
    most = max((math.comb(sum(map(len, s)), len(s[0])) for s in enough.values()), default=0)
    if enough and 2 / most * len(enough) * looks >= ALPHA:
        return [
            f"so few starts cannot tell one of {len(enough)} benchmarks from chance; "
            "give more --repetitions, or a --filter"
        ]
    return []


def _status(verdicts: Sequence[str]) -> int:
    if SLOWER in verdicts:
        return REGRESSION
    return INCONCLUSIVE if UNKNOWN in verdicts or not verdicts else 0
