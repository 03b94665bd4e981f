# SPDX-License-Identifier: Apache-2.0
"""build/client as the lab's player: the requests of a script on real connections. Where replies
come back on them (tx.sink = reply) it is the lab's sink as well.

It is used wherever tcpreplay cannot be: a connection has to be made by somebody, and a reply to a
datagram has to find its sender.
"""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ticklab import capture
from ticklab.child import LabError, Talker
from ticklab.prepare import Config, address_of

POLL_S = 0.02
ANSWER_S = 15.0  # connections may take ten to open
STALL_S = 30.0  # without a single operation done: it will never end


def destination(config: Config, plan: dict[str, Any]) -> str:
    """Where it connects, as its option --to has it; without a port: to those of the script."""
    address, port = capture.DESTINATION, None
    if not config.auto("rx.bind"):
        ends = config.text("rx.bind").split(",")
        bound = address_of(ends[0])
        if not bound.is_unspecified:
            address = bound
        ports = [int(end.rpartition(":")[2]) for end in ends]
        if not {end["port"] for end in plan["endpoints"]} <= set(ports):
            port = ports[0]
    if config.text("lab.network") == "none" and address == capture.DESTINATION:
        address = ipaddress.ip_address("127.0.0.1")
    host = f"[{address}]" if address.version == 6 else str(address)
    return host if port is None else f"{host}:{port}"


@dataclass(frozen=True)
class Report:
    """What the client did."""

    operations: int
    settled: int  # done, or never to be, as the connection was gone
    sent: int  # writes
    begun_ns: int  # REALTIME, of the planned time 0
    took_ns: int
    complete: bool  # False when it was stopped


def play(
    talker: Talker, count: int, speed: str, watch: Callable[[int], bool], silence_s: float
) -> Report:
    """Plays the first operations of the script and returns when that has ended.

    Parameters
    ----------
    watch : called every 20 ms with the number of writes done; False stops the playing.
    silence_s : the longest time between two operations, as planned.
    """
    talker.say(f"play 0 {count} {speed}")
    moved, before, halted = time.monotonic(), -1, False
    while not (told := talker.taken("played")):
        stats = talker.ask("stats", "stats", ANSWER_S)
        if stats["settled"] != before:
            moved, before = time.monotonic(), stats["settled"]
        elif time.monotonic() - moved > STALL_S + silence_s:
            raise LabError(
                f"client: {before:,} of {count:,} operations are done, and none more for"
                f" {STALL_S:g} s: the pipeline takes no more"
            )
        if not watch(stats["sent"]) and not halted:
            talker.say("halt")
            halted = True
        time.sleep(POLL_S)
    played = told[-1]
    watch(played["sent"])
    return Report(
        operations=played["operations"],
        settled=played["settled"],
        sent=played["sent"],
        begun_ns=played["begun_ns"],
        took_ns=played["took_ns"],
        complete=played["settled"] == played["operations"],
    )
