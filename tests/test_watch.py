# SPDX-License-Identifier: Apache-2.0
"""`tickline status --watch` on a terminal of 80 by 24, and without one, beside a run of the lab."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest
from conftest import BUILD, Lab

TICKLINE = BUILD / "tickline"
COLUMNS, ROWS = 80, 24
RUN_FILES = Path("/run/tickline")
SPAN = re.compile(
    r"^(?P<name>\w+\.\.\w+|through) +(?:wait|work)? +(?P<n>[\d,]+) +(?P<p50>[\d.,]+) "
)
COLOUR = re.compile(rb"\x1b\[(\d+;)*3[0-7]m")
# A stamp more or less is 10 ns; below this a factor says nothing.
FLOOR_US = 0.05


class Terminal:
    """A watcher on a terminal of its own, which it controls."""

    def __init__(self, name: str, **environment: str) -> None:
        self.master, self.slave = pty.openpty()
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(ROWS, COLUMNS)
        self.before = termios.tcgetattr(self.slave)
        # No repeated characters (rep) in this one's output: the emulator does not know them.
        terminal = {"TERM": "screen", "LC_ALL": "C.UTF-8", **environment}
        self.process = subprocess.Popen(
            [TICKLINE, "status", "--watch", name],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, **terminal},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def _feed(self, timeout_s: float) -> bool:
        if not select.select([self.master], [], [], timeout_s)[0]:
            return False
        data = os.read(self.master, 65536)
        self.raw += data
        self.stream.feed(data)
        return True

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def until(self, seen: Callable[[list[str]], bool], timeout_s: float = 10) -> list[str]:
        """The whole screen once that is to be seen on it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            # A screen is written in one go: what is there after a pause is all of it.
            if not self._feed(0.1) and seen(self.lines):
                return self.lines
        raise AssertionError("\n".join(self.lines))

    def end(self, status: int) -> None:
        """It ends by itself with this status, and leaves the terminal as it was."""
        assert self.process.wait(5) == status, self.raw[-500:]
        while self._feed(0.1):
            pass
        assert termios.tcgetattr(self.slave) == self.before
        assert self.raw.count(b"\x1b[?1049h") == self.raw.count(b"\x1b[?1049l") == 1
        assert not self.screen.cursor.hidden
        os.close(self.master)
        os.close(self.slave)


def seen_run(name: str) -> dict | None:
    done = subprocess.run([TICKLINE, "status", "--json"], capture_output=True, text=True)
    runs = [run for run in json.loads(done.stdout) if run["name"] == name and "stages" in run]
    return runs[0] if runs and all(s["state"] == "running" for s in runs[0]["stages"]) else None


def wait_for_run(name: str, process: subprocess.Popen[str]) -> dict:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if run := seen_run(name):
            return run
        time.sleep(0.1)
    raise AssertionError(process.communicate(timeout=10))


def number(text: str) -> float:
    return float(text.replace(",", ""))


def spans_of(lines: list[str]) -> dict[str, tuple[int, float]]:
    """Name: n and p50 in µs, of the spans that have one."""
    found = filter(None, map(SPAN.match, lines))
    return {m["name"]: (int(number(m["n"])), number(m["p50"])) for m in found}


def rate_of(lines: list[str]) -> float:
    found = re.search(r"^received +([\d,]+)/s", "\n".join(lines), re.MULTILINE)
    return number(found[1]) if found else 0


def busy(lines: list[str]) -> bool:
    return rate_of(lines) > 1000 and spans_of(lines).get("through", (0, 0))[0] > 1000


def assert_whole(lines: list[str]) -> None:
    """Everything that it is to show stands on this screen."""
    assert len(lines) <= ROWS
    assert max(map(len, lines)) <= COLUMNS
    text = "\n".join(lines)
    for word in ("rx", "worker0", "tx", "tracer"):
        assert re.search(rf"^{word} +\d+ +running +1 .*%", text, re.MULTILINE), text
    for word in ("completed", "dropped.ring", "dropped.socket", "trace discards", "restarts 0"):
        assert word in text
    assert "not seen" not in text
    assert re.search(r"^to_worker\.0 +[\d,]+/1,024 .*%$", text, re.MULTILINE)
    assert re.search(r"^to_tx\.0 +[\d,]+/1,024 .*%$", text, re.MULTILINE)
    assert re.search(r"^noise  cpu \d+: [\d,]+ gaps", text, re.MULTILINE)
    assert len(spans_of(lines)) == 10, text


def assert_reads_only(pid: int, run: dict) -> None:
    """Shared memory mapped for reading alone, and no stage's CPU among its own."""
    shared = [
        line
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if "tickline-" in line and "/build/" not in line
    ]
    assert len(shared) >= 4  # cells, two rings, arena
    assert {line.split()[1] for line in shared} == {"r--s"}
    stages = {stage["cpu"] for stage in run["stages"] if stage["name"] != "tracer"}
    if os.sched_getaffinity(0) - stages:
        assert not os.sched_getaffinity(pid) & stages


def test_watch(lab: Lab) -> None:
    name = f"watch-{os.getpid()}"
    running = lab.start("--name", name, replay__requests=40_000, replay__rate=6000)
    run = wait_for_run(name, running)
    command = [TICKLINE, "status", "--watch", name]
    plain = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    screen, grey, third = Terminal(name), Terminal(name, NO_COLOR="1"), Terminal(name)

    assert_whole(screen.until(busy))
    assert "░" in "".join(screen.lines)
    assert COLOUR.search(screen.raw)
    assert_reads_only(screen.process.pid, run)
    screen.resize(12, 50)
    small = screen.until(lambda lines: any(line.startswith("received") for line in lines))
    assert max(map(len, small)) <= 50
    screen.resize(ROWS, COLUMNS)
    assert_whole(screen.until(busy))
    os.write(screen.master, b"xq")
    screen.end(0)

    grey.until(busy)
    assert not COLOUR.search(grey.raw)
    grey.process.send_signal(signal.SIGTERM)
    grey.end(128 + signal.SIGTERM)
    third.until(busy)
    os.write(third.master, b"\x03")  # Ctrl-C
    third.end(128 + signal.SIGINT)

    stdout, stderr = plain.communicate(timeout=60)
    outcome = lab.finish(running)
    assert outcome.status == 0, outcome.stderr
    assert plain.returncode == 0, stderr
    assert stderr.startswith(f"run {name} has ended: ")
    assert stdout.isascii()
    blocks = [block.splitlines() for block in re.split(r"(?m)^(?=tickline )", stdout) if block]
    assert len(blocks) > 4
    measured = [block for block in blocks if busy(block)]
    assert max(len(line) for block in blocks for line in block) <= COLUMNS
    for span in spans_of(screen.lines):
        live = statistics.median(spans_of(block)[span][1] for block in measured)
        whole = outcome.summary["latency_ns"][span]["p50"] / 1000
        assert live <= max(3 * whole, FLOOR_US), span
        assert live >= whole / 3 or whole < FLOOR_US, span


def test_a_killed_run_ends_it(lab: Lab) -> None:
    name = f"killed-{os.getpid()}"
    running = lab.start("--name", name, "--serve")
    pid = wait_for_run(name, running)["pid"]
    try:
        screen = Terminal(name)
        screen.until(lambda lines: any(line.startswith("through") for line in lines))
        os.kill(pid, signal.SIGKILL)
        screen.end(1)
        assert b"was killed; `tickline salvage` saves its trace" in screen.raw
        lab.finish(running)
    finally:
        for left in (*RUN_FILES.glob(f"{name}.{pid}.*"), Path(f"/dev/shm/tickline-{name}.{pid}")):
            with contextlib.suppress(FileNotFoundError):
                left.unlink()


@pytest.mark.parametrize("arguments", [("no-such-run",), ("--json",)])
def test_mistakes_are_one_line(arguments: tuple[str, ...]) -> None:
    if not TICKLINE.exists():
        pytest.skip("needs build/tickline: make")
    done = subprocess.run(
        [TICKLINE, "status", "--watch", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert not done.stdout
    assert re.fullmatch(r"tickline: .*\n", done.stderr)
