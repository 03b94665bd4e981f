# SPDX-License-Identifier: Apache-2.0
"""What must be known to judge whether two runs may be compared; written to manifest.json."""

import json
import os
import platform
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA = 1
PART = "manifest.json.part"
RESERVED = 64 << 10  # bytes; more than any manifest takes
NT_GNU_BUILD_ID = 3
PT_NOTE = 4

_SYSTEM = "/sys/devices/system"

# Of the plan of a prepared capture: what it was and what was done to it.
_CAPTURE_KEYS = (
    "capture",
    "sha256",
    "parameters",
    "format",
    "links",
    "packets",
    "offered",
    "expected",
    "rejected",
    "ambiguous",
    "largest",
    "duration_ns",
    "rate",
    "warmup",
    "endpoints",
    "flows",
    "changes",
    "excluded",
    "warnings",
)


def build(root: Path, programs: Path) -> dict[str, Any]:
    """Commit and dirtiness of the tree, build-id of each binary, and how they were compiled."""
    binaries = sorted(path for path in programs.iterdir() if _is_elf(path))
    return {
        "git": git(root),
        "builds": {path.name: {"build_id": build_id(path)} for path in binaries},
        "flags": _read_json(programs / "flags.json"),
    }


def git(root: Path) -> dict[str, Any] | None:
    """{"commit", "dirty"}; None where the tree is not a repository. A new one has commit None."""

    def ask(*words: str) -> str | None:
        command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *words]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    status = ask("status", "--porcelain")
    if status is None:
        return None
    return {"commit": ask("rev-parse", "--verify", "HEAD"), "dirty": status != ""}


def build_id(path: Path) -> str | None:
    """The build-id of a 64-bit little-endian ELF file, in hex; None where it has none."""
    data = path.read_bytes()
    if len(data) < 64 or data[:6] != b"\x7fELF\x02\x01":
        return None
    (headers,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for at in range(headers, headers + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == PT_NOTE:
            for name, note, value in _notes(data[offset : offset + length]):
                if name == b"GNU\0" and note == NT_GNU_BUILD_ID:
                    return value.hex()
    return None


def _notes(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """(name, type, value) of each note of a segment; name and value are padded to 4 bytes."""
    at = 0
    while at + 12 <= len(data):
        name_bytes, value_bytes, kind = struct.unpack_from("<III", data, at)
        value_at = at + 12 + (name_bytes + 3) // 4 * 4
        yield data[at + 12 : at + 12 + name_bytes], kind, data[value_at : value_at + value_bytes]
        at = value_at + (value_bytes + 3) // 4 * 4


def host() -> dict[str, Any]:
    """The machine: what it is and what of its settings moves latencies."""
    uname = platform.uname()
    cpuinfo = _read("/proc/cpuinfo") or ""
    return {
        "host": {
            "name": uname.node,
            "cpus": os.cpu_count(),
            "cpus_allowed": sorted(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "hypervisor": " hypervisor" in cpuinfo,
            "clocksource": _read(f"{_SYSTEM}/clocksource/clocksource0/current_clocksource"),
            "governor": _read(f"{_SYSTEM}/cpu/cpu0/cpufreq/scaling_governor"),
            "smt": _read(f"{_SYSTEM}/cpu/smt/control"),
            "microcode": _cpuinfo(cpuinfo, "microcode"),
            "command_line": _read("/proc/cmdline"),
        },
        "kernel": f"{uname.system} {uname.release} {uname.version} {uname.machine}",
        "cpu": _cpuinfo(cpuinfo, "model name") or uname.machine,
    }


def capture(plan: dict[str, Any]) -> dict[str, Any]:
    """What a run remembers of the plan of its capture."""
    return {key: plan[key] for key in _CAPTURE_KEYS if key in plan}


def reserve(run_directory: Path) -> None:
    """Keeps room for manifest.json: it shall be written even where the disk is full by then."""
    (run_directory / PART).write_bytes(bytes(RESERVED))


def write(run_directory: Path, facts: dict[str, Any]) -> None:
    """Writes manifest.json, whole or not at all."""
    fresh = run_directory / PART
    with fresh.open("r+b" if fresh.exists() else "wb") as file:
        file.write(json.dumps({"schema": SCHEMA, **facts}, indent=1).encode() + b"\n")
        file.truncate()
    fresh.replace(run_directory / "manifest.json")


def _is_elf(path: Path) -> bool:
    if not path.is_file() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _cpuinfo(text: str, key: str) -> str | None:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None
