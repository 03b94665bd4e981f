# SPDX-License-Identifier: Apache-2.0
"""What the host does to a run: its clock, its network, refusals, a set-up that is cut short."""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ISOLATED, ROOT, Lab
from test_faults import BEGUN_S, assert_served, cgroup, join, lines_of, pipeline, refused
from test_runs import babeltrace, live_run, needs

from ticklab import ctf

# ---- the clock -----------------------------------------------------------------------------------

ADJ_TICK, TICK_AT, TICK_US = 0x4000, 88, 10_000  # of adjtimex(2) on 64-bit machines
STEP_S = 0.1


def set_tick(tick_us: int) -> None:
    """How far REALTIME goes in each 1/100 s: 10,100 us make it 1 % too fast."""
    timex = ctypes.create_string_buffer(256)
    struct.pack_into("I", timex, 0, ADJ_TICK)
    struct.pack_into("l", timex, TICK_AT, tick_us)
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def set_clock(by_s: float) -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME) + by_s)


@pytest.fixture
def clock() -> Iterator[None]:
    """The clock may be set; whatever happens, it is right again afterwards."""
    off = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    try:
        set_tick(TICK_US)
        set_clock(0)
    except OSError as error:
        pytest.skip(f"needs to set the clock: {error}")
    yield
    set_tick(TICK_US)
    now = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if abs(now - off) > STEP_S / 1000:
        set_clock(off - now)


def test_the_clock_is_set_and_slewed(lab: Lab, clock: None) -> None:
    process = lab.start("--name", "clock", replay__requests=60_000, replay__warmup=0)
    live_run(lab)
    time.sleep(BEGUN_S)
    set_clock(STEP_S)
    time.sleep(0.2)
    set_clock(-STEP_S)
    time.sleep(0.2)
    for tick_us in (TICK_US + 100, TICK_US - 100, TICK_US):
        set_tick(tick_us)
        time.sleep(0.2)
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    summary = assert_served(outcome, 60_000)
    steps = summary["clock"]["steps_ns"]
    assert [round(step / 1e9, 2) for step in steps] == [STEP_S, -STEP_S]
    said = [why for why in summary["incomplete_because"] if "the clock was set by" in why]
    assert len(said) == 2
    assert said[0].startswith("the clock was set by +")
    assert "the clock was set by +" in outcome.stdout
    # The slew is in the trace as well: 100 us in each pair's 10 ms.
    trace = ctf.Trace(outcome.directory / "trace")
    bend = next(event for event, name in trace.metadata.events.items() if name == "clock_bend")
    lane = trace.lanes["rx"]
    bent = lane.value[lane.point[lane.wide] == bend].astype("int64")
    assert ((bent > 50_000) & (bent < 1_000_000)).sum() >= 5
    assert ((bent < -50_000) & (bent > -1_000_000)).sum() >= 5
    # A reply on its way when the clock was set back came before its request was sent.
    whole = summary["latency_ns"]["wire_to_wire"]
    if whole["min"] < 0:
        assert summary["trace"]["negative"]["wire_to_wire"] > 0


# ---- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["rx0", "tx0"])
def test_an_interface_goes_down_and_up(lab: Lab, interface: str) -> None:
    """What is lost meanwhile is on a line of the account."""
    process = lab.start("--name", "link", replay__requests=40_000, replay__warmup=0)
    rx = live_run(lab)["stages"][0]["pid"]
    time.sleep(BEGUN_S)
    for state in ("down", "up"):
        subprocess.run(
            ["nsenter", f"--net=/proc/{rx}/ns/net", "ip", "link", "set", interface, state],
            check=True,
        )
        time.sleep(0.2)
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    summary = outcome.summary
    assert summary["balanced"], summary["unbalanced"]
    requests = summary["account"]["requests"]
    assert requests["offered"] == 40_000
    if interface == "tx0":  # sends are refused while it is down, and then go to a forgotten address
        assert requests["dropped"]["tx"] > 0
        assert requests["dropped"]["sink"] > 0
        assert requests["received"] == 40_000
    else:  # what the player cannot send meanwhile it sends later
        assert requests["received"] + requests["lost_with_datagrams"] == 40_000
        assert requests["delivered"] == requests["received"]


# ---- what is refused -----------------------------------------------------------------------------

# A filter that answers io_uring_setup(2) with EPERM, as those of containers do.
NO_URING = """
import ctypes, os, struct, sys
code = ((0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000))
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(filter))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
if libc.prctl(22, 2, program, 0, 0) != 0:
    sys.exit("no seccomp here")
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_no_io_uring(tmp_path: Path) -> None:
    """Two sockets would have it; plain calls do as well, and the reason is noted."""
    filtered = [sys.executable, "-c", NO_URING]
    if subprocess.run([*filtered, "true"], check=False).returncode != 0:
        pytest.skip("needs seccomp")
    two = "rx.bind=127.0.0.1:47101,127.0.0.1:47103"
    command = [*filtered, *pipeline(tmp_path, "--json", name="plain"), "--set", two]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as launcher:
        ready = json.loads(launcher.stdout.readline())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for number in range(1, 101):
                port = 47101 if number % 2 else 47103
                client.sendto(b"|%08d|0008|abcdefgh" % number, ("127.0.0.1", port))
        time.sleep(0.2)
        launcher.stdin.close()
        events = [json.loads(line) for line in launcher.stdout]
    assert launcher.returncode == 0, events
    note = ready["obtained"]["rx rx.io"]
    assert (note["asked"], note["obtained"]) == ("auto", "plain")
    assert note["why"].startswith("io_uring is refused here")
    end = json.loads((tmp_path / "run" / "counters.json").read_text())["end"]
    assert end["outcomes"]["transmitted"] == 100
    uring = pipeline(tmp_path, "--set", "rx.io=uring", name="uring")
    line = refused([*filtered, *uring])
    assert "io_uring" in line


def test_no_locked_memory(lab: Lab) -> None:
    """Root without the right to lock, and a limit of 0."""
    drop = [needs("setpriv"), "--bounding-set=-ipc_lock", needs("prlimit"), "--memlock=0:0"]
    command = lab.command("--name", "unlocked", replay__requests=5000, replay__warmup=0)
    process = subprocess.Popen(
        [*drop, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    lab.started.append(process)
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    assert_served(outcome, 5000)
    for stage in ("rx", "worker0", "tx", "tracer"):
        note = outcome.manifest["obtained"][f"{stage} memory.lock"]
        assert (note["asked"], note["obtained"]) == ("want", "no")
        assert note["why"]


def test_a_quota_of_cpu_time(lab: Lab) -> None:
    """A fifth of a CPU for all of it: slow, with gaps of up to 80 ms, and right."""
    with cgroup("cpu", "quota", cpu__cfs_period_us=100_000, cpu__cfs_quota_us=20_000) as folder:
        command = lab.command(
            "--name", "quota", replay__requests=2000, replay__rate=2000, replay__warmup=0
        )
        process = subprocess.Popen(
            [*join(folder), *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        lab.started.append(process)
        outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    assert outcome.summary["balanced"], outcome.summary["unbalanced"]
    assert len(lines_of(outcome, "CPU quota: 0.20 CPUs of time")) == 1


# ---- a set-up that is cut short ------------------------------------------------------------------

MARK = f"TICKLINE_TEST={uuid.uuid4()}"
NAME = f"cut-{os.getpid()}"
MOMENTS = 20
LAST_S = 1.5


def processes() -> list[int]:
    """Those started here, at whatever remove; they hold the namespaces, too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if MARK.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def files() -> list[Path]:
    return [*Path("/dev/shm").glob(f"*{NAME}*"), *Path("/run/tickline").glob(f"{NAME}*")]


def settings() -> dict[str, str]:
    """What a set-up could have changed of the host: its sysctls, interfaces, named namespaces."""
    read = {}
    for folder in ("net", "vm", "kernel/sched_rt_runtime_us", "kernel/io_uring_disabled"):
        top = Path("/proc/sys") / folder
        for path in top.rglob("*") if top.is_dir() else (top,):
            with contextlib.suppress(OSError):
                if path.is_file() and path.name not in ("stat_refresh", "drop_caches"):
                    read[str(path)] = path.read_text()
    read["interfaces"] = " ".join(sorted(os.listdir("/sys/class/net")))
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return read | {"namespaces": done.stdout}


def start_and_cut(lab: Lab, moment_s: float, how: str) -> None:
    name, _, value = MARK.partition("=")
    words = ["--name", NAME, "--set", "replay.requests=2000", "--runs", str(lab.runs)]
    process = subprocess.Popen(
        [ROOT / "launch.sh", ISOLATED, *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
        env=os.environ | {name: value}, start_new_session=True,
    )  # fmt: skip
    time.sleep(moment_s)
    if how == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
    process.wait(30)
    deadline = time.monotonic() + 10
    while processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not processes(), (moment_s, how)


def test_a_set_up_that_is_cut_short(lab: Lab) -> None:
    """At 20 moments of the start, in three ways; nothing is left, and the next launch works."""
    before = settings()
    order = random.Random(11)
    for moment in range(MOMENTS):
        how = ("alone", "group", "interrupt")[moment % 3]
        start_and_cut(lab, (moment + order.random()) * LAST_S / MOMENTS, how)
        assert not files(), (moment, how)
    assert settings() == before
    outcome = lab.run("--name", NAME, replay__requests=2000)
    assert outcome.status == 0, outcome.stderr
    assert not lines_of(outcome, NAME + " (pid")
    assert_served(outcome, 2000)
    babeltrace(outcome.directory / "trace")
