# SPDX-License-Identifier: Apache-2.0
"""Which benchmark is told beside which: limits of the machine, peers, and what a quick run takes.

All of it stands in the tables of this file; a name is `family/what/…`, a peer's is `peer/`, its own
name, and the name of ours that it stands beside.
"""

import re
from collections.abc import Container
from fnmatch import fnmatchcase

FAMILIES = ("limit", "ring", "stamp", "hop", "codec", "handler", "drain", "pipeline", "e2e")
"""In the order they are printed; others follow."""

# A name, the limit beside it, and how many times that limit is the least it can cost. The first
# that matches.
_LIMITS = (
    (r"ring/rtt/.*/one", "limit/yield", 2.0),  # there and back on one CPU: two switches
    (r"ring/rtt/.*", "limit/pingpong", 1.0),
    (r"stamp/(?:tight|sustained|work100)(?:/.*)?", "limit/rdtsc_store", 1.0),
    (r"hop/spin/two(?:/.*)?", "ring/rtt/64", 0.5),  # one way
    (r"hop/yield/one(?:/.*)?", "limit/yield", 1.0),
    (r"e2e/udp/([^/]+)(?:/.*)?", r"limit/forwarder/\1", 1.0),
    (r"e2e/tcp/reply/([^/]+)", r"limit/echo/\1", 1.0),
    (r"e2e/tcp/([^/]+)", r"limit/relay/\1", 1.0),
)

# What a quick run takes, where no filter asks for more: all names of the same depth that match.
_HEADLINES = (
    "limit/*",
    "ring/rtt/8",
    "ring/rtt/64",
    "ring/rtt/64/d16",
    "ring/throughput/64/single",
    "ring/throughput/64/burst32",
    "stamp/tight",
    "stamp/work100",
    "stamp/sustained",
    "stamp/off",
    "stamp/sampled100",
    "hop/*/*",
    "codec/*/*",
    "handler/*/*",
    "drain/*",
    "pipeline/memory",
    "pipeline/memory/stamps",
    "limit/forwarder/*",
    "e2e/udp/*",
    "limit/relay/*",
    "limit/echo/*",
    "e2e/tcp/*",
    "e2e/tcp/reply/*",
)


def limit_of(name: str) -> tuple[str, float] | None:
    """(limit's name, factor): the figure of `name` is at best factor times that of the limit."""
    own = beside(name) or name
    for pattern, limit, factor in _LIMITS:
        if found := re.fullmatch(pattern, own):
            return found.expand(limit), factor
    return None


def beside(name: str) -> str | None:
    """Of a peer's name what follows its own; None for ours."""
    parts = name.split("/", 2)
    return parts[2] if parts[0] == "peer" and len(parts) == 3 else None


def owner(name: str, names: Container[str]) -> str:
    """Which of `names` a benchmark is told with: ours by itself, a peer's with that of ours, or
    with what it is a variant of; by itself where there is none."""
    own = beside(name) or name
    while own not in names and "/" in own:
        own = own.rpartition("/")[0]
    return own if own in names else name


def peer(name: str, of: str) -> str:
    """Whose a peer's benchmark is, and which variant of that of ours."""
    who, variant = name.split("/")[1], (beside(name) or "").removeprefix(of).strip("/")
    return f"{who} {variant}".strip()


def headlines(names: list[str]) -> list[str]:
    """What a quick run takes of these, in their order; a peer's where it takes ours."""
    ours = dict.fromkeys(beside(name) or name for name in names)
    wanted = {name for name in ours for pattern in _HEADLINES if _matches(name, pattern)}
    return [name for name in names if (beside(name) or name) in wanted]


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def in_order(names: list[str]) -> list[str]:
    """By family; within one as the programs list them, each followed by its peers."""
    owners = {name: owner(name, names) for name in names}
    order = {own: at for at, own in enumerate(dict.fromkeys(owners.values()))}

    def place(name: str) -> tuple[int, int, bool]:
        family = (beside(name) or name).split("/")[0]
        at = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
        return at, order[owners[name]], owners[name] != name

    return sorted(names, key=place)
