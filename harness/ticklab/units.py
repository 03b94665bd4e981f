# SPDX-License-Identifier: Apache-2.0
"""Numbers with units as a person types them; the same units as in a configuration."""

import re

_COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_TIME_NS = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}


def count(text: str) -> float:
    """`20k` → 20000.0. Raises ValueError, here and below."""
    return _number(text, _COUNT, "a number such as 500, 20k or 1.5M")


def time_ns(text: str) -> float:
    """`50us` → 50000.0."""
    return _number(text, _TIME_NS, "a time such as 500ns, 50us or 2ms")


def span(text: str) -> tuple[float, float]:
    """`1k..200k` → (1000.0, 200000.0), the first not above the second."""
    first, dots, last = text.partition("..")
    least, most = count(first), count(last) if dots else count(first)
    if not 0 < least <= most:
        raise ValueError(f"{text}: expected two numbers above 0, the lower first, as in 1k..200k")
    return least, most


def _number(text: str, units: dict[str, float], expected: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-zµA-Z]*)", text.strip())
    if not found or found[2] not in units:
        raise ValueError(f"{text}: expected {expected}")
    return float(found[1]) * units[found[2]]
