# SPDX-License-Identifier: Apache-2.0
"""Replays a prepared capture onto the wire with tcpreplay.

Its default timer is the one to use: `-T nano` and `-T select` send in bursts. The packets are
loaded before the first is sent, so that no disk is read in between.

tcpreplay (4.4) waits gap by gap, each from the moment it is done with the packet before: the cost
of sending adds to every gap and is never made up for. On a shared CPU that is 2 to 10 us a packet,
which makes 20,000 a second up to a fifth slower than asked for. So the warm-up measures the cost,
and the multiplier is such that gaps and sending together take the time planned; what is far more
than a packet costs was the host at other work, and is not believed. At a packet rate
(--pps) it counts from the first packet instead and catches up by itself.
"""

import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ticklab.child import LabError, end, spawn
from ticklab.network import Host, Network

POLL_S = 0.02
COST_MAX_NS = 50_000.0
HASTE_MAX = 50.0  # times the speed asked for, where sending alone takes as long as planned


@dataclass(frozen=True)
class Report:
    """What the player did."""

    sent: int  # datagrams that play0 counted: stopped, tcpreplay forgets the last one
    failed: int
    truncated: int
    retried: int  # sent again because the wire had no room
    took_ns: int  # from the first to the last; 0 where it does not say
    complete: bool  # False when it was stopped


def scale(speed: str) -> float | None:
    """`10x` as a factor; None for `top`; 1 for a packet rate, which knows no times of a capture."""
    if speed == "top":
        return None
    return 1.0 if packet_rate(speed) else float(speed.removesuffix("x"))


def packet_rate(speed: str) -> float | None:
    """`20000pps` as packets a second; None for any other speed."""
    return float(speed.removesuffix("pps")) if speed.endswith("pps") else None


def send_cost_ns(report: Report, span_ns: int, factor: float | None) -> float:
    """What a packet of a replay with this multiplier cost beyond its gap; 0 for `top`."""
    if factor is None or not report.sent or not report.took_ns:
        return 0.0
    return min(max(0.0, (report.took_ns - span_ns / factor) / report.sent), COST_MAX_NS)


def multiplier(factor: float | None, packets: int, span_ns: int, cost_ns: float) -> float | None:
    """What to tell tcpreplay for a replay to be `factor` times as fast; None for `top`."""
    if factor is None or span_ns <= 0:
        return factor
    planned_ns = span_ns / factor
    return span_ns / max(planned_ns - packets * cost_ns, planned_ns / HASTE_MAX)


def arguments(
    pcap: Path, factor: float | None, pps: float | None = None, interface: str = "play0"
) -> list[str]:
    """The player's command line; `play0` is in the client namespace."""
    pace = "--topspeed" if factor is None else f"--multiplier={factor:.6g}"
    if pps:
        pace = f"--pps={pps:.10g}"
    return ["tcpreplay", f"--intf1={interface}", "--preload-pcap", pace, str(pcap)]


def readdress(pcap: Path, mac: bytes, out: Path) -> Path:
    """A copy of a prepared capture whose frames are sent to another MAC address."""
    data = bytearray(pcap.read_bytes())
    at = 24
    while at < len(data):
        data[at + 16 : at + 22] = mac
        at += 16 + int.from_bytes(data[at + 8 : at + 12], "little")
    out.write_bytes(data)
    return out


def time_limit_s(packets: int, span_ns: int, factor: float | None) -> float:
    """How long a replay may take: what was planned with room for a slow machine, never for ever."""
    planned = span_ns / 1e9 / (factor or float("inf"))
    return 30 + 1.5 * planned + packets / 20_000


def replay(
    network: Network | Host,
    pcap: Path,
    factor: float | None,
    cpu: int,
    *,
    packets: int,
    span_ns: int,
    log: Path,
    watch: Callable[[int], bool],
    pps: float | None = None,
) -> Report:
    """Replays `pcap` once and returns when the player has ended; what it printed is in `log`.

    Parameters
    ----------
    factor : the multiplier; None: as fast as it goes.
    packets, span_ns : how many datagrams it holds, and the time from its first to its last.
    watch : called every 20 ms with the number of datagrams sent so far; False stops the player.
    pps : packets a second, evenly, instead of the capture's times.
    """
    limit = time_limit_s(packets, span_ns, factor)
    deadline = time.monotonic() + limit
    before = network.played()
    with log.open("wb") as output:
        child = spawn(
            arguments(pcap, factor, pps, network.player),
            namespace=network.client.pid,
            cpus=str(cpu),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    complete = True
    try:
        while child.poll() is None:
            if not watch(network.played() - before):
                complete = False
                break
            if time.monotonic() > deadline:
                raise LabError(
                    f"tcpreplay: not done after {limit:.0f} s; {packets} packets planned"
                )
            time.sleep(POLL_S)
    finally:
        status = end(child, first=signal.SIGINT)
    sent = min(network.played() - before, packets)  # others may use the host's interfaces
    watch(sent)
    printed = log.read_text(errors="replace")
    if complete and status != 0:
        raise LabError(f"{_why(printed)}; status {status} of tcpreplay while playing {pcap}")
    return parse_report(printed, sent, complete)


def parse_report(output: str, sent: int, complete: bool) -> Report:
    """The statistics that tcpreplay prints at its end; zeros where it printed none."""

    def number(label: str) -> int:
        found = re.search(rf"^\s*{re.escape(label)}:\s+(\d+)", output, re.MULTILINE)
        return int(found[1]) if found else 0

    rate = re.search(r"([\d.]+) pps$", output, re.MULTILINE)
    return Report(
        sent=sent,
        failed=number("Failed packets"),
        truncated=number("Truncated packets"),
        retried=number("Retried packets (ENOBUFS)") + number("Retried packets (EAGAIN)"),
        took_ns=round(sent / float(rate[1]) * 1e9) if rate and float(rate[1]) else 0,
        complete=complete,
    )


def _why(printed: str) -> str:
    """The last line of what tcpreplay said."""
    lines = printed.strip().splitlines()
    return lines[-1].strip() if lines else "it gave no reason"
