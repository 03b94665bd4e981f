#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A pipeline that is up for long, with a kill every ten seconds, and what must not grow.

  tests/soak.py --minutes 30
  tests/soak.py --minutes 2 --every 3

One replay of 20,000 requests a second with a bounded trace (trace.keep = last 10s). Once a second
it looks at each process, at its private memory and descriptors, and at the run directory. The
second half must not need more than the first (by more than a twentieth and a little), whatever was
killed meanwhile. At its end the checks of tests/chaos.py.

Exit status 0: flat, and every guarantee held; 1: not. The last line is JSON.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import chaos

ROOT = chaos.ROOT
NAME = f"soak-{os.getpid()}"
SLACK = {"anonymous_kb": 512, "descriptors": 2, "run_mb": 24}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=10, help="seconds from kill to kill")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    runs = Path(tempfile.mkdtemp(prefix="tickline-soak-"))
    seconds = options.minutes * 60
    sets = ["trace.keep=last 10s", "trace.lane=1MiB", "replay.arrivals=fixed"]
    sets += [f"replay.requests={round(seconds * chaos.RATE)}"]
    lab = chaos.start_lab(NAME, runs, sets)
    samples, killed = _watch(lab, options, runs)
    stdout, stderr = lab.communicate(timeout=600)
    run = Path(stdout.strip().rpartition("run directory: ")[2])
    tally = chaos.Tally(kills=killed)
    if lab.returncode != 0:
        tally.failures.append((stderr.strip().splitlines() or ["no message"])[-1])
    tally.failures += list(chaos.check(run, killed, sets, tally))
    tally.failures += _grown(samples)
    print(json.dumps({"samples": len(next(iter(samples.values()), []))} | tally.told()))
    if tally.failures:
        print(f"soak: kept: {run}", file=sys.stderr)
        return 1
    shutil.rmtree(runs)
    return 0


Series = dict[tuple[str, str], list[int]]  # (process, figure) → one value a sample


def _watch(
    lab: subprocess.Popen[str], options: argparse.Namespace, runs: Path
) -> tuple[Series, Counter]:
    """Samples and kills until the replay has ended."""
    samples: Series = defaultdict(list)
    killed: Counter = Counter()
    rng = random.Random(options.seed)
    if not chaos.wait_until_up(lab, NAME):
        return samples, killed
    last_kill = time.monotonic()
    while lab.poll() is None:
        time.sleep(1)
        if time.monotonic() - last_kill >= options.every:
            last_kill = time.monotonic()
            victim = rng.choice(chaos.STAGES)
            killed[victim] += chaos.kill(NAME, victim, rng)
            continue  # a successor that is only just starting says nothing
        _sample(samples, runs)
        print(f"\rsoak: {killed.total()} kills", end="", file=sys.stderr)
    print(file=sys.stderr)
    return samples, killed


def _sample(samples: Series, runs: Path) -> None:
    stages = chaos.stages_of(NAME)
    if not stages or any(stage["state"] != "running" for stage in stages.values()):
        return
    try:
        pids = {name: stage["pid"] for name, stage in stages.items()}
        pids["tickline"] = _parent(pids["rx"])
        for name, pid in pids.items():
            anonymous = _field(pid, "RssAnon")
            samples[name, "anonymous_kb"].append(anonymous)
            samples[name, "descriptors"].append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        # What a replay keeps of each request grows with it; trace and logs must not.
        kept = [path for path in runs.glob("*/[tl]*/*") if path.is_file()]
        samples["trace", "run_mb"].append(sum(path.stat().st_size for path in kept) >> 20)
    except FileNotFoundError:  # a process or a chunk that went while we looked
        return


def _parent(pid: int) -> int:
    return _field(pid, "PPid")


def _field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise FileNotFoundError(pid)


def _grown(samples: Series) -> list[str]:
    """What the second half of the time needed more of than the first."""
    grown = []
    for (name, figure), values in samples.items():
        half = len(values) // 2
        if half < 5:
            return ["too short: fewer than ten samples"]
        before, after = max(values[:half]), max(values[half:])
        if after > before * 1.05 + SLACK[figure]:
            grown.append(f"{name} {figure}: {before} in the first half, {after} in the second")
    return grown or ([] if samples else ["the pipeline did not come up"])


if __name__ == "__main__":
    sys.exit(main())
