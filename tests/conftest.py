# SPDX-License-Identifier: Apache-2.0
"""What tests of whole runs share: the harness on the path, one way to start the lab."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The programs under test: those of another build where the environment says so.
BUILD = ROOT / os.environ.get("TICKLINE_BUILD", "build")
ISOLATED = ROOT / "configs" / "isolated.ini"
sys.path.insert(0, str(ROOT / "harness"))


@dataclass
class Outcome:
    """A run of the lab that has ended."""

    status: int
    stdout: str
    stderr: str
    directory: Path | None

    @property
    def summary(self) -> dict[str, Any]:
        assert self.directory, self.stderr
        return json.loads((self.directory / "summary.json").read_text())

    @property
    def manifest(self) -> dict[str, Any]:
        assert self.directory, self.stderr
        return json.loads((self.directory / "manifest.json").read_text())


class Lab:
    """Starts harness/lab.py with a directory of its own for runs and captures' settings."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.started: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str, config: Path = ISOLATED, **values: Any) -> list[str]:
        """`values` are configuration keys, with `__` for the dot."""
        command = [sys.executable, str(ROOT / "harness" / "lab.py"), str(config), *arguments]
        if "--name" not in arguments:
            command += ["--name", f"test-{os.getpid()}"]
        for key, value in values.items():
            command += ["--set", f"{key.replace('__', '.')}={value}"]
        return [*command, "--runs", str(self.runs)]

    def start(self, *arguments: str, **values: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(*arguments, **values),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Ends what a test that failed has left up."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()

    def finish(self, process: subprocess.Popen[str], timeout_s: float = 120) -> Outcome:
        stdout, stderr = process.communicate(timeout=timeout_s)
        lines = [line for line in stdout.splitlines() if line.startswith("run directory: ")]
        directory = Path(lines[-1].removeprefix("run directory: ")) if lines else None
        return Outcome(process.returncode, stdout, stderr, directory)

    def run(self, *arguments: str, **values: Any) -> Outcome:
        return self.finish(self.start(*arguments, **values))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: the lab makes network namespaces")
    if not (BUILD / "tickline").exists():
        pytest.skip("needs build/tickline: make")
    made = Lab(tmp_path / "runs")
    yield made
    made.end()
