#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills stages of a running pipeline at random moments and checks that every guarantee holds.

  tests/chaos.py --kills 100 --seed 1
  tests/chaos.py --kills 20 --victim tx --set tx.io=uring
  tests/chaos.py --kills 100 --handler book
  tests/chaos.py --kills 100 --config configs/gateway.ini --set tx.sink=tcp

Replays generated requests through the lab, run after run, and sends SIGKILL to a victim every 50 to
250 ms, also to one that has only just been started. After each run:

  account   balances; nothing duplicated, corrupted or unknown; rx lost nothing
  worker    every request taken from its ring is in the next one, once
  tx        repeats are listed by number, at most one a kill (tx.io = uring: a window of them)
  restarts  every kill is noted with its successor's generation
  book      each reply is what the reference says, after every request before it
  TCP       every request is answered, once, in the order of its connection; no connection is lost;
            no reply later than half a second, beyond what others have kept the CPU from rx
  trace     babeltrace2 reads it; at most two requests a kill lack a stamp
  tcpdump   in every fifth run, at the sink's interface: as many replies as were transmitted

Exit status 0: every guarantee held; 1: one did not (its run directory is kept and named). The last
line is JSON: kills by victim, restarts, requests, repeated replies, failures; over TCP also how
long after its planned time the latest reply came.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / os.environ.get("TICKLINE_BUILD", "build")
ISOLATED = ROOT / "configs" / "isolated.ini"
STAGES = ("rx", "worker", "tx", "tracer")
KILLS_A_RUN = 25
KILL_EVERY_S = (0.05, 0.25)
RATE = 20_000
WINDOW = 256  # replies that io_uring may have under way
# Handlers, and what they need.
HANDLERS = {
    "rot1": (),
    "book": ("worker.handler=book", "pipeline.schema=v2", "replay.payload=24"),
}
LATE_S = 0.5
SILENT_S = 0.05  # an rx that lives says something every 20 ms, parked or not
BUDGET = ("supervise.max_restarts=64", "supervise.window=10ms")  # more than one can spend


@dataclass
class Tally:
    """What a campaign did, and what did not hold."""

    kills: Counter = field(default_factory=Counter)
    restarts: int = 0
    runs: int = 0
    requests: int = 0
    repeated: int = 0
    listed: int = 0
    dumped: int = 0
    latest_ms: int = 0  # of replies, after the planned time; 0: not known
    failures: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        latest = {"latest_ms": self.latest_ms} if self.latest_ms else {}
        return {
            "runs": self.runs,
            "kills": dict(sorted(self.kills.items())),
            "restarts": self.restarts,
            "requests": self.requests,
            "repeated": self.repeated,
            "repeats_in_doubt": self.listed,
            "tcpdump_runs": self.dumped,
            **latest,
            "failures": self.failures,
        }


def main() -> int:
    options = _options()
    tally = Tally()
    rng = random.Random(options.seed)
    runs = Path(tempfile.mkdtemp(prefix="tickline-chaos-"))
    while sum(tally.kills.values()) < options.kills and len(tally.failures) < 5:
        left = options.kills - sum(tally.kills.values())
        dump = shutil.which("tcpdump") is not None and tally.runs % 5 == 4
        one_run(options, rng, runs, min(left, KILLS_A_RUN), tally, dump)
        print(f"chaos: {sum(tally.kills.values())} of {options.kills} kills", file=sys.stderr)
    if tally.failures:
        print(f"chaos: the run directories are kept in {runs}", file=sys.stderr)
    else:
        shutil.rmtree(runs)
    print(json.dumps(tally.told()))
    return 1 if tally.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ISOLATED, help="default: isolated.ini")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--victim", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--handler", choices=HANDLERS, default="rot1")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets")
    options = parser.parse_args()
    options.sets = [*HANDLERS[options.handler], *options.sets]
    return options


# ---- a run ---------------------------------------------------------------------------------------


def one_run(
    options: argparse.Namespace,
    rng: random.Random,
    runs: Path,
    kills: int,
    tally: Tally,
    dump: bool,
) -> None:
    """One replay with so many kills in it, and its checks."""
    name = f"chaos-{os.getpid()}"
    config = _effective(options.config, options.sets)
    tcp = config["rx.source"] == "tcp"
    dump = dump and config["tx.sink"] == "udp"
    seconds = kills * KILL_EVERY_S[1] + 1  # more than it takes: what is left is served in peace
    sets = [f"replay.requests={round(seconds * RATE)}", *options.sets]
    lab = start_lab(name, runs, sets, options.config)
    killed: Counter = Counter()
    with contextlib.ExitStack() as stack:
        if wait_until_up(lab, name) and (not tcp or wait_until_played(lab, runs)):
            counted = stack.enter_context(_tcpdump(lab, runs)) if dump else None
            while killed.total() < kills and lab.poll() is None:
                time.sleep(rng.uniform(*KILL_EVERY_S))
                victim = options.victim if options.victim != "all" else rng.choice(STAGES)
                if kill(name, victim, rng):
                    killed[victim] += 1
        stdout, stderr = lab.communicate(timeout=300)
    tally.runs += 1
    tally.kills += killed
    where = stdout.strip().rpartition("run directory: ")[2]
    if lab.returncode != 0 or not where:
        told = (stderr.strip().splitlines() or ["no message"])[-1]
        tally.failures.append(f"run {tally.runs}: exit status {lab.returncode}: {told} ({where})")
        if lab.returncode == 4 or not where:
            return
    run = Path(where)
    failures = [*check(run, killed, options.sets, tally)]
    failures += _check_tcp(run) if tcp else []
    if dump and not failures:
        failures += _check_dump(run, counted, tally)
    tally.failures += [f"{run}: {failure}" for failure in failures]
    if not failures and lab.returncode == 0:
        shutil.rmtree(run)


def _effective(config: Path, sets: list[str]) -> dict[str, str]:
    """The values of a configuration, by key."""
    command = [BUILD / "tickline", "config", config, "--json"]
    for setting in sets:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, check=True)
    return {key: entry["value"] for key, entry in json.loads(done.stdout).items()}


def start_lab(
    name: str, runs: Path, sets: list[str], config: Path = ISOLATED
) -> subprocess.Popen[str]:
    """A replay at RATE, with a budget of restarts that nobody can spend."""
    command = [sys.executable, str(ROOT / "harness" / "lab.py"), str(config)]
    command += ["--name", name, "--runs", str(runs)]
    for setting in (*BUDGET, f"replay.rate={RATE}", *sets):
        command += ["--set", setting]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stages_of(name: str) -> dict[str, dict[str, Any]]:
    """The stages of a run by name, as `tickline status` sees them; none: it is not up."""
    done = subprocess.run(
        [BUILD / "tickline", "status", "--json"], capture_output=True, check=False
    )
    runs = [run for run in json.loads(done.stdout or b"[]") if run["name"] == name]
    return {stage["name"]: stage for run in runs for stage in run.get("stages", [])}


def wait_until_up(lab: subprocess.Popen[str], name: str) -> bool:
    while lab.poll() is None:
        stages = stages_of(name).values()
        if stages and all(stage["state"] == "running" for stage in stages):
            return True
        time.sleep(0.02)
    return False


def wait_until_played(lab: subprocess.Popen[str], runs: Path) -> bool:
    """Until its connections are open: one that rx is killed while it accepts may be lost."""
    while lab.poll() is None:
        offered = runs.glob("*/wire/offered.bin")
        newest = max(offered, key=lambda path: path.stat().st_ctime_ns, default=None)
        if newest and newest.stat().st_size and not (newest.parents[1] / "summary.json").exists():
            return True
        time.sleep(0.02)
    return False


def kill(name: str, victim: str, rng: random.Random) -> bool:
    """SIGKILL to one process of that kind; False where there was none at this moment."""
    pids = [
        stage["pid"]
        for stage in stages_of(name).values()
        if stage["name"].rstrip("0123456789") == victim
        and stage["state"] not in ("done", "dead", "absent")
    ]
    if not pids:
        return False
    pid = rng.choice(pids)
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if Path(os.readlink(f"/proc/{pid}/exe")).parent != BUILD.resolve():
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(process)


@contextlib.contextmanager
def _tcpdump(lab: subprocess.Popen[str], folder: Path) -> Iterator[Path]:
    """What arrives at the sink's interface while the lab is up, as a capture."""
    pcap = folder / "sink.pcap"
    sink = next(pid for pid in _children(lab.pid) if _program(pid) == "sink")
    dump = subprocess.Popen(
        ["nsenter", f"--net=/proc/{sink}/ns/net", "tcpdump", "-i", "sink0", "-Q", "in", "-w",
         str(pcap), "-B", "65536", "--immediate-mode", "-s", "128", "-Z", "root", "udp"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield pcap
        lab.wait(300)
    finally:
        dump.send_signal(signal.SIGINT)
        dump.wait(30)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _program(pid: int) -> str:
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:
        return ""


# ---- its checks ----------------------------------------------------------------------------------


def check(run: Path, killed: Counter, sets: list[str], tally: Tally) -> Iterator[str]:
    """What does not hold, a line each."""
    summary = json.loads((run / "summary.json").read_text())
    counters = json.loads((run / "counters.json").read_text())
    requests = summary["account"]["requests"]
    restarts = counters["restarts"]
    yield from summary["unbalanced"]
    for what in ("duplicated", "corrupted", "unknown"):
        if requests[what]:
            yield f"{what}: {requests[what]}: expected 0"
    replies = summary.get("replies", {})
    judged = replies.get("judged", requests["delivered"])
    if "unchecked" in replies or judged != requests["delivered"]:
        yield f"{requests['delivered']} replies, and of these were judged: {replies}"
    if requests["lost"]["rx"] or any(requests["in_flight"].values()):
        yield f"lost or left: {requests['lost']}, {requests['in_flight']}"
    end = counters["end"]
    taken = sum(ring["consumed"] for ring in end["to_worker"])
    put = sum(ring["published"] for ring in end["to_tx"])
    if taken != put:
        yield f"workers took {taken} requests and put {put}"
    bound = killed["tx"] * (WINDOW if "tx.io=uring" in sets else 1)
    if counters["end"].get("replies"):
        bound = 0  # the kernel knows how much of a connection's bytes it has taken
    if not requests["repeated"] <= len(set(end["repeated"])) <= bound:
        yield f"repeated {requests['repeated']} of {len(end['repeated'])} listed; {bound} allowed"
    # The last kill may have hit a process that had done its work.
    if not killed.total() - 1 <= len(restarts) <= killed.total():
        yield f"{killed.total()} kills, {len(restarts)} restarts"
    generations = {name: stage["generation"] for name, stage in end["stages"].items()}
    if sum(generations.values()) != len(generations) + len(restarts):
        yield f"generations {generations} after {len(restarts)} restarts"
    through = summary["latency_ns"]["through"]
    whole = not any(setting.startswith(("trace.keep", "trace.sample")) for setting in sets)
    lacking = through["of"] - through["count"] if whole else 0
    if lacking > 2 * killed.total() or summary["trace"]["discarded"]:
        yield f"{through['count']} of {through['of']} requests have all stamps"
    command = ["babeltrace2", "--clock-seconds", run / "trace"]
    read = subprocess.run(command, capture_output=True, check=False)
    if read.returncode or read.stdout.count(b"\n") != summary["trace"]["records"]:
        yield f"babeltrace2: exit status {read.returncode}, {read.stdout.count(10)} events"
    latest = summary["latency_ns"].get("from_planned", {}).get("max", 0) / 1e9
    silent = _silent_s(read.stdout) if latest > LATE_S else 0
    # What a sanitizer makes slow is no stall.
    if latest > LATE_S + 2 * silent and "TICKLINE_BUILD" not in os.environ:
        yield f"a reply came {latest:.3f} s late, and rx had no turn for {silent:.3f} s"
    tally.latest_ms = max(tally.latest_ms, round(latest * 1000))
    tally.restarts += len(restarts)
    tally.requests += requests["received"]
    tally.repeated += requests["repeated"]
    tally.listed += len(end["repeated"])


def _silent_s(events: bytes) -> float:
    """How long in all rx had nothing to say though it would have, had it had a turn."""
    said = (b" rx_got: ", b" clock: ", b" parked: ")
    at = [float(line[1:21]) for line in events.splitlines() if any(name in line for name in said)]
    gaps = (after - before for before, after in itertools.pairwise(at))
    return sum(gap for gap in gaps if gap > SILENT_S)


def _check_tcp(run: Path) -> Iterator[str]:
    """Every request answered, none out of order, all connections what they were."""
    summary = json.loads((run / "summary.json").read_text())
    requests = summary["account"]["requests"]
    if requests["delivered"] != requests["offered"] or requests["misordered"]:
        yield f"of {requests['offered']} offered: {requests}"
    connections = json.loads((run / "counters.json").read_text())["end"]["connections"]
    kept = {name: count for name, count in connections.items() if count}
    if kept.keys() != {"opened", "open"} or kept["opened"] != kept["open"]:
        yield f"connections: {kept}: expected all that were opened, and they to be open"


def _check_dump(run: Path, pcap: Path | None, tally: Tally) -> Iterator[str]:
    """The replies on the sink's wire are those that tx says it has sent, warm-up included."""
    assert pcap
    import dpkt

    with pcap.open("rb") as file:
        seen = sum(1 for _ in dpkt.pcap.Reader(file))
    counters = json.loads((run / "counters.json").read_text())
    requests = json.loads((run / "summary.json").read_text())["account"]["requests"]
    sent = requests["transmitted"] + requests["repeated"]
    warm_up = counters.get("mark", {}).get("outcomes", {}).get("transmitted", 0)
    tally.dumped += 1
    # It is started while the warm-up may be under way already.
    if not sent <= seen <= sent + warm_up + len(counters["end"]["repeated"]):
        yield f"tcpdump saw {seen} replies; transmitted and repeated {sent}, warm-up {warm_up}"


if __name__ == "__main__":
    sys.exit(main())
