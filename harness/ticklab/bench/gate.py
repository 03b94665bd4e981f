# SPDX-License-Identifier: Apache-2.0
"""The deterministic gate: instructions a request takes on the hot path, counted by callgrind.

build/bench/instructions runs the pipeline in one process, from memory to memory and without
polling, so nothing but its own work is counted. It is run for two numbers of requests; the
difference of the counts, divided by that of the requests, is free of what a start costs.

The count depends on the compiler, on libc, and on which of libc's variants of memcpy and the like
the loader picks for this CPU. A baseline is therefore kept for each such key, in
tests/bench/instructions.json. What the loader picks is a function of the CPU features that it
takes for usable: `ld.so --list-diagnostics` prints those, and a digest of them is the key. It is
asked under valgrind, because valgrind's CPU is another one than the host's (it has no AVX-512), and
most hosts are alike in there.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.text import Text

from ticklab.bench import starts
from ticklab.bench.starts import GATE, PROGRAMS, ROOT
from ticklab.bench.table import new_table
from ticklab.child import LabError
from ticklab.progress import say
from ticklab.terminal import console_for

BASELINES = ROOT / "tests" / "bench" / "instructions.json"
REQUESTS = (20_000, 60_000)
TOLERANCE = 0.02
TIMEOUT_S = 300
# Of the diagnostics: features the loader may use, its preferences among variants, and the sizes at
# which a variant changes its way. What the CPU merely has, and its caches, choose nothing.
_DISPATCH = re.compile(r"cpu_features\..*(\.active\[|preferred|isa|hwcap|midr|_threshold)")


@dataclass(frozen=True)
class Options:
    """The command line; see harness/bench.py."""

    filters: tuple[str, ...] = ()
    json: str | None = None
    record: bool = False
    only_list: bool = False
    programs: Path | None = None
    baselines: Path = BASELINES


def main(options: Options) -> int:
    """Counts and judges; the exit status."""
    if not options.programs:
        starts.build()
    program = (options.programs or ROOT / PROGRAMS).resolve() / GATE
    names = _names(program, options.filters)
    if options.only_list:
        print("\n".join(names))
        return 0
    if not shutil.which("valgrind"):
        raise LabError("valgrind: no such program; apt-get install valgrind")
    key = dispatch_key(program.parent)
    counted = {}
    for name in names:
        say(f"{name}: {REQUESTS[0]:,} and {REQUESTS[1]:,} requests under callgrind", "bench")
        counted[name] = instructions(program, name)
    kept = _load(options.baselines)
    found = judge(counted, kept.get(key), whole=not options.filters)
    found |= {"key": key, "tolerance": TOLERANCE}
    if options.record:
        kept[key] = {**kept.get(key, {}), **counted} if options.filters else counted
        _save(options.baselines, kept)
        found["recorded"] = str(options.baselines)
    return _tell(options, found)


def judge(
    counted: dict[str, float], baseline: dict[str, float] | None, whole: bool = True
) -> dict[str, Any]:
    """Each count beside its baseline, and the exit status: 1 where one takes more, beyond the
    tolerance. What has no baseline is not judged. `whole`: no configuration was left out."""
    benchmarks = []
    for name, count in counted.items():
        one: dict[str, Any] = {"name": name, "instructions_per_request": count}
        before = (baseline or {}).get(name)
        if before is None:
            one["verdict"] = "no baseline"
        else:
            one |= {"baseline": before, "ratio": count / before}
            one["verdict"] = (
                "more"
                if one["ratio"] > 1 + TOLERANCE
                else "fewer"
                if one["ratio"] < 1 - TOLERANCE
                else "fine"
            )
        benchmarks.append(one)
    return {
        "known": baseline is not None,
        "benchmarks": benchmarks,
        "gone": [name for name in baseline or {} if whole and name not in counted],
        "exit": int(any(one["verdict"] == "more" for one in benchmarks)),
    }


# ---- counting ----


def instructions(program: Path, name: str) -> float:
    """Instructions a request of one configuration takes."""
    few, many = (_count(program, name, requests) for requests in REQUESTS)
    return round((many - few) / (REQUESTS[1] - REQUESTS[0]), 2)


def _count(program: Path, name: str, requests: int) -> int:
    """All instructions of one run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        done = _run([*tool, str(program), "--filter", name, "--requests", str(requests)])
        told = out.read_text(errors="replace") if out.exists() else ""
    # Both hold all events, as long as nothing is dumped in between.
    total = re.search(r"^(?:totals|summary): (\d+)", told, re.MULTILINE)
    if done.returncode or not total:
        words = [w for w in done.stderr.splitlines() if not w.startswith("==")] or ["no count"]
        raise LabError(f"{name}: exit status {done.returncode} under valgrind: {words[-1]}")
    return int(total[1])


def dispatch_key(build: Path) -> str:
    """`compiler; libc; CPU dispatch` of what lies in this folder, here."""
    try:
        compiler = json.loads((build.parent / "flags.json").read_text())["cc"]
    except (OSError, ValueError, KeyError):
        compiler = "unknown compiler"
    libc = os.confstr("CS_GNU_LIBC_VERSION") or "unknown libc"
    return f"{compiler}; {libc}; {os.uname().machine} {_dispatch()}"


def _dispatch() -> str:
    """A digest of what decides between variants of libc's functions; `unknown` without it."""
    loader = next(iter(sorted(Path("/lib64").glob("ld-linux-*.so.*"))), None)
    loader = loader or next(iter(sorted(Path("/lib").glob("ld-linux-*.so.*"))), None)
    if not loader:
        return "unknown"
    done = _run(["valgrind", "-q", "--tool=none", str(loader), "--list-diagnostics"])
    lines = [line for line in done.stdout.splitlines() if _DISPATCH.search(line)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12] if lines else "unknown"


def _names(program: Path, filters: tuple[str, ...]) -> list[str]:
    if not os.access(program, os.X_OK):
        raise LabError(f"{program}: no such program; make benches")
    listed = _run([str(program), "--list"])
    names = listed.stdout.split()
    if listed.returncode or not names:
        raise LabError(f"{program} --list: exit status {listed.returncode}, no configurations")
    for pattern in filters:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise LabError(f"--filter {pattern}: no such configuration; see --list", 2)
    wanted = filters or ("*",)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in wanted)]


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)}: no end within {TIMEOUT_S} s") from None


# ---- baselines ----


def _load(path: Path) -> dict[str, dict[str, float]]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LabError(f"{path}: {error}; expected JSON as --record writes it", 2) from None


def _save(path: Path, kept: dict[str, dict[str, float]]) -> None:
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


# ---- telling ----


def _tell(options: Options, found: dict[str, Any]) -> int:
    if options.json:
        text = json.dumps(found, indent=1) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
            return _status(options, found)
        Path(options.json).write_text(text)
    console = console_for(sys.stdout)
    console.print(Text(f"instructions a request, for {found['key']}", "bold"))
    table = new_table()
    table.add_column("configuration")
    for title in ("instructions", "recorded", "ratio"):
        table.add_column(title, justify="right")
    table.add_column("")
    styles = {"more": "bold red", "fewer": "green", "no baseline": "yellow"}
    for one in found["benchmarks"]:
        table.add_row(
            one["name"],
            f"{one['instructions_per_request']:,.1f}",
            f"{one['baseline']:,.1f}" if "baseline" in one else "",
            f"{one['ratio']:.4f}" if "ratio" in one else "",
            Text(one["verdict"], styles.get(one["verdict"], "")),
        )
    console.print(table)
    for name in found["gone"]:
        console.print(Text(f"{name}: recorded, but no longer there", "yellow"))
    console.print(_advice(found))
    return _status(options, found)


def _advice(found: dict[str, Any]) -> str:
    verdicts = {one["verdict"] for one in found["benchmarks"]}
    command = "harness/bench.py --instructions --record"
    if recorded := found.get("recorded"):
        return f"recorded in {recorded}"
    if not found["known"]:
        return f"nothing is recorded for this compiler, libc and CPU; not judged. {command}"
    if "more" in verdicts:
        return f"more than {TOLERANCE:.0%} above what is recorded; if it is meant: {command}"
    if verdicts & {"fewer", "no baseline"}:
        return f"to hold on to it: {command}"
    return f"within {TOLERANCE:.0%} of what is recorded"


def _status(options: Options, found: dict[str, Any]) -> int:
    return 0 if options.record else found["exit"]
