# SPDX-License-Identifier: Apache-2.0
"""How long the handler `spin` takes over each request, by the formula at the top of its source.

Ground truth for whatever analyses a run: what of `worker_parsed..worker_done` exceeds the planned
time was taken by somebody else.
"""

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(x: np.ndarray) -> np.ndarray:
    """A step of SplitMix64; u64."""
    with np.errstate(over="ignore"):
        x = x + _STEP
        x = (x ^ (x >> np.uint64(30))) * _FACTORS[0]
        x = (x ^ (x >> np.uint64(27))) * _FACTORS[1]
    return x ^ (x >> np.uint64(31))


def planned_ns(
    ids: np.ndarray,
    time_ns: int,
    distribution: str = "constant",
    slow_ns: int = 200_000,
    slow_share: float = 0.01,
    seed: int = 1,
) -> np.ndarray:
    """The planned time of requests with these wire ids; f64, whole ns."""
    ids = np.asarray(ids, np.uint64)
    if distribution == "constant":
        return np.full(len(ids), float(time_ns))
    with np.errstate(over="ignore"):
        x = mix(mix(np.array([seed], np.uint64)) + ids)
    u = (x >> np.uint64(11)) * 2.0**-53
    if distribution == "bimodal":
        return np.where(u < slow_share, float(slow_ns), float(time_ns))
    return np.floor(-np.log(1 - u) * time_ns + 0.5)
