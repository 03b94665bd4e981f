# SPDX-License-Identifier: Apache-2.0
"""What happens to a pipeline that runs: disks, memory, processes that stand still or vanish.

Each fault: requests are served on, nothing is lost silently, one clear line, the account balances,
the right exit status, and nothing is left behind.
"""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ISOLATED, ROOT, Lab, Outcome
from test_runs import babeltrace, live_run, needs

TICKLINE = ROOT / "build" / "tickline"
SMALL_LANES = {"trace__lane": "128KiB", "memory__pages": "4k", "replay__warmup": 0}
BEGUN_S = 0.8  # without a warm-up the replay is under way by then


def pid_of(lab: Lab, stage: str) -> int:
    return next(s["pid"] for s in live_run(lab)["stages"] if s["name"] == stage)


def lines_of(outcome: Outcome, part: str) -> list[str]:
    return [line for line in outcome.stderr.splitlines() if part in line]


def assert_served(outcome: Outcome, requests: int) -> dict[str, Any]:
    """Every request is answered and the account balances; the summary."""
    summary = outcome.summary
    assert summary["balanced"], summary["unbalanced"]
    account = summary["account"]["requests"]
    assert account["offered"] == account["delivered"] == requests, account
    return summary


# ---- the disk ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(lab: Lab) -> Iterator[Path]:
    """A file system of 64 MiB where the runs go."""
    lab.runs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(lab.runs)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs mount(2)")
    try:
        yield lab.runs
    finally:
        lab.end()
        subprocess.run(["umount", "--lazy", lab.runs], check=True)


def fill(folder: Path) -> Path:
    """Takes all the room that is left, as somebody else's file."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return ballast


def run_on_a_full_disk(lab: Lab, disk: Path, room_comes_back: bool) -> Outcome:
    process = lab.start("--name", "full", replay__requests=40_000, **SMALL_LANES)
    live_run(lab)
    time.sleep(BEGUN_S)
    ballast = fill(disk)
    time.sleep(0.5)
    if room_comes_back:
        ballast.unlink()
    return lab.finish(process)


def assert_told_of_a_full_disk(outcome: Outcome) -> None:
    assert lines_of(outcome, "stamps are discarded until") == [
        "lab: tracer: cannot write the trace: No space left on device; stamps are discarded until "
        f"there is room in {outcome.directory}"
    ]


def test_a_disk_that_is_full_for_a_while(lab: Lab, small_disk: Path) -> None:
    outcome = run_on_a_full_disk(lab, small_disk, room_comes_back=True)
    assert outcome.status == 0, outcome.stderr
    assert_told_of_a_full_disk(outcome)
    again = lines_of(outcome, "writes the trace again")
    assert len(again) == 1
    assert int(re.search(r"again; (\d+) stamps were discarded$", again[0])[1]) > 0
    summary = assert_served(outcome, 40_000)
    assert not summary["complete"]
    assert summary["trace"]["discarded"] > 0
    assert summary["trace"]["missing"]["ingress"] > 0
    events, discarded = babeltrace(outcome.directory / "trace")
    assert events == summary["trace"]["records"]
    assert discarded == summary["trace"]["discarded"]


def test_a_disk_that_is_still_full_at_the_end(lab: Lab, small_disk: Path) -> None:
    outcome = run_on_a_full_disk(lab, small_disk, room_comes_back=False)
    assert outcome.status == 4, outcome.stderr
    assert_told_of_a_full_disk(outcome)
    assert [line for line in outcome.stderr.splitlines() if line.startswith("tickline: ")] == [
        "tickline: stage failed: tracer: cannot write the trace: No space left on device; make "
        "room for the run directory"
    ]
    assert "the account balances" in outcome.stdout
    summary = assert_served(outcome, 40_000)
    assert not summary["complete"]
    # Cut to whole packets, and nothing is left of what was tried.
    assert babeltrace(outcome.directory / "trace")[0] == summary["trace"]["records"] > 0
    assert (outcome.directory / "wire" / "ingress.bin").stat().st_size % 32 == 0
    names = {path.name for path in outcome.directory.rglob("*")}
    assert not names & {"metadata.new", "counters.json.new", "manifest.json.part"}


def test_a_bounded_trace_makes_its_own_room(lab: Lab, small_disk: Path) -> None:
    """Chunks that cannot be opened are opened later, and what is trimmed makes room."""
    process = lab.start(
        "--name", "bounded", replay__requests=40_000, trace__keep="last 1s", **SMALL_LANES
    )
    live_run(lab)
    time.sleep(BEGUN_S)
    fill(small_disk)
    time.sleep(0.5)
    (small_disk / "ballast").unlink()
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    assert_served(outcome, 40_000)
    babeltrace(outcome.directory / "trace")


def test_a_slow_disk(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "slow_disk.so"
    source = ROOT / "tests" / "slow_disk.c"
    subprocess.run([needs("cc"), "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("TICKLINE_SLOW_WRITES", "13")  # of 0.4 s; a turn takes four
    outcome = lab.run("--name", "slow", replay__requests=60_000, **SMALL_LANES)
    assert outcome.status == 0, outcome.stderr
    summary = assert_served(outcome, 60_000)
    assert not summary["complete"]
    assert summary["trace"]["discarded"] > 0
    told = lines_of(outcome, "tracer has not moved")
    assert len(told) == 1
    assert re.fullmatch(
        r"lab: tracer has not moved for 1\.\d s \(sleeping\); it is left alone", told[0]
    )
    events, discarded = babeltrace(outcome.directory / "trace")
    assert (events, discarded) == (summary["trace"]["records"], summary["trace"]["discarded"])


# ---- memory --------------------------------------------------------------------------------------


@contextlib.contextmanager
def cgroup(controller: str, name: str, **limits: int | str) -> Iterator[Path]:
    """A control group with these limits (names of version 1), gone afterwards; else a skip."""
    folder = Path(f"/sys/fs/cgroup/{controller}/tickline-{name}-{os.getpid()}")
    if not (folder.parent / "cgroup.procs").exists():
        pytest.skip(f"needs the {controller} controller of cgroups, version 1, to write to")
    try:
        folder.mkdir()
        for file, value in limits.items():
            (folder / file.replace("__", ".")).write_text(str(value))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"needs a {controller} cgroup: {error}")
    try:
        yield folder
    finally:
        deadline = time.monotonic() + 10
        while folder.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                folder.rmdir()
            time.sleep(0.02)


def join(folder: Path) -> list[str]:
    """What to put before a command for it to run in that control group."""
    return ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "-"]


def pipeline(tmp_path: Path, *words: str, name: str) -> list[str]:
    """`tickline run` by itself, with lanes of 1 MiB."""
    command = [str(TICKLINE), "run", str(ISOLATED), "--run-dir", str(tmp_path / "run"), *words]
    sets = ["rx.bind=127.0.0.1:47101", "tx.to=127.0.0.1:47102", "trace.lane=1MiB"]
    for value in (*sets, f"pipeline.name={name}-{os.getpid()}"):
        command += ["--set", value]
    return command


def refused(command: list[str], **options: Any) -> str:
    """The one line of a run that cannot be, exit status 4; nothing is left of it."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    lines = [line for line in done.stderr.splitlines() if "was killed and has left" not in line]
    assert done.returncode == 4, done
    assert len(lines) == 1, done.stderr
    name = next(w for w in command if w.startswith("pipeline.name=")).partition("=")[2]
    assert not list(Path("/dev/shm").glob(f"tickline-{name}.*"))
    assert not list(Path("/run/tickline").glob(f"{name}.*"))
    return lines[0]


def test_a_memory_limit_below_the_rings(tmp_path: Path) -> None:
    with cgroup("memory", "small", memory__limit_in_bytes="4M") as folder:
        line = refused([*join(folder), *pipeline(tmp_path, name="cgroup")])
    assert re.fullmatch(
        r"tickline: memory: .* MiB for rings and lanes, .* free in this container; .*"
        r"trace\.lane=1MiB, or more memory \(docker run --memory\)", line
    )  # fmt: skip


def test_an_address_space_below_the_rings(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (40 << 20, 40 << 20))

    line = refused(pipeline(tmp_path, "--set", "ring.depth=65536", name="space"), preexec_fn=limit)
    assert "no memory for 65536 slots" in line
    assert "make ring.depth smaller" in line


def test_the_oom_killer_takes_a_stage(lab: Lab) -> None:
    """It is replaced like any that was killed."""
    process = lab.start("--name", "oom", replay__requests=40_000, replay__warmup=0)
    worker = pid_of(lab, "worker0")
    with cgroup("memory", "oom", memory__limit_in_bytes="32M") as folder:
        Path(f"/proc/{worker}/oom_score_adj").write_text("1000")
        (folder / "cgroup.procs").write_text(str(worker))
        eat = [*join(folder), "python3", "-c", "bytearray(96 << 20)"]
        eater = subprocess.run(eat, capture_output=True, check=False)
        outcome = lab.finish(process)
    if not lines_of(outcome, "worker0 was killed"):
        pytest.skip(f"the OOM killer took nobody: {eater}")
    assert outcome.status == 0, outcome.stderr
    summary = assert_served(outcome, 40_000)
    assert [(r["stage"], r["cause"]) for r in summary["restarts"]] == [
        ("worker0", "killed by signal 9 (Killed)")
    ]


def test_dev_shm_fills_up_while_a_run_is_up(lab: Lab, tmp_path: Path) -> None:
    """All that is needed was reserved: a full /dev/shm is no SIGBUS, and a successor needs none."""
    mount = 'mount -t tmpfs -o size=48m none /dev/shm && exec "$@"'
    private = ["unshare", "--mount", "sh", "-c", mount, "-"]
    command = lab.command(
        "--name", "shm", replay__requests=40_000, trace__lane="4MiB", replay__warmup=0
    )
    process = subprocess.Popen(
        [*private, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    lab.started.append(process)
    pids = [stage["pid"] for stage in live_run(lab)["stages"]]
    ballast = fill(Path(f"/proc/{pids[0]}/root/dev/shm"))
    assert ballast.stat().st_size > 1 << 20
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    summary = assert_served(outcome, 40_000)
    assert len(summary["restarts"]) == 4
    babeltrace(outcome.directory / "trace")


# ---- processes that stand still ------------------------------------------------------------------

STAGES = ("worker0", "tx", "tracer", "rx")
FAR_APART_S = 0.5


def stop(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def test_stages_and_the_launcher_that_stop_for_a_moment(lab: Lab) -> None:
    """100 ms are nothing to speak of, nor are 2 s of the launcher: it is in nobody's way."""
    process = lab.start("--name", "moment", replay__requests=20_000, replay__rate=5000)
    pids = {stage["name"]: stage["pid"] for stage in live_run(lab)["stages"]}
    launcher = int(Path(f"/proc/{pids['rx']}/stat").read_text().rpartition(") ")[2].split()[1])
    time.sleep(BEGUN_S)
    for stage in STAGES:
        stop(pids[stage], 0.1)
    stop(launcher, 2)
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    assert not lines_of(outcome, "(stopped)")
    summary = outcome.summary
    assert summary["balanced"], summary["unbalanced"]
    assert "restarts" not in summary
    requests = summary["account"]["requests"]
    assert requests["delivered"] + requests["dropped"]["ring"] == 20_000


def test_stages_that_stop_for_long(lab: Lab) -> None:
    """Each for 5 s, one after the other: told of once, left alone, and they go on."""
    process = lab.start(
        "--name", "long", replay__requests=14_000, replay__rate=2000, replay__warmup=0
    )
    pids = {stage["name"]: stage["pid"] for stage in live_run(lab)["stages"]}
    time.sleep(BEGUN_S)
    try:
        for stage in STAGES:
            os.kill(pids[stage], signal.SIGSTOP)
            time.sleep(FAR_APART_S)
        time.sleep(5 - len(STAGES) * FAR_APART_S)
    finally:
        for stage in STAGES:
            os.kill(pids[stage], signal.SIGCONT)
            time.sleep(FAR_APART_S)
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    for stage in STAGES:
        still, again = lines_of(outcome, f"lab: {stage} ")
        assert re.fullmatch(
            rf"lab: {stage} has not moved for 1\.\d s \(stopped\); it is left alone", still
        )
        assert re.fullmatch(rf"lab: {stage} moves again after [5-9]\.\d s", again)
    summary = outcome.summary
    assert summary["balanced"], summary["unbalanced"]
    assert "restarts" not in summary
    requests = summary["account"]["requests"]
    assert requests["offered"] == 14_000
    assert requests["dropped"]["ring"] > 0  # rx went on for a while when the worker stood still


def test_an_idle_pipeline_moves(tmp_path: Path) -> None:
    """Parked stages and the napping tracer tick at least every 20 ms; so nobody is told of."""
    command = pipeline(tmp_path, "--set", "sched.wait=park", name="idle")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as launcher:
        for line in launcher.stderr:
            if line.startswith("running;"):
                break
        time.sleep(2.5)
        launcher.send_signal(signal.SIGTERM)
        # A host that has no time for us is another thing.
        assert "(sleeping)" not in launcher.stderr.read()
    assert launcher.returncode == 128 + signal.SIGTERM
    stages = json.loads((tmp_path / "run" / "counters.json").read_text())["end"]["stages"]
    # Each parking is a turn: with naps of at most 20 ms there are so many of them at least.
    assert all(stage["parks"] > 2.5 / 0.04 for stage in stages.values()), stages


# ---- who is gone ---------------------------------------------------------------------------------


def test_the_launcher_alone_is_killed(lab: Lab) -> None:
    """Stages drain and end by themselves; `clean` removes what is left, arena and run file."""
    process = lab.start("--name", "orphans", replay__requests=60_000, replay__warmup=0)
    run = live_run(lab)
    stages = [stage["pid"] for stage in run["stages"]]
    time.sleep(BEGUN_S)
    os.kill(run["pid"], signal.SIGKILL)
    killed = time.monotonic()
    arena = Path(f"/dev/shm/tickline-orphans.{run['pid']}")
    try:
        while any(Path(f"/proc/{pid}").exists() for pid in stages):
            assert time.monotonic() - killed < 5, "a stage does not end"
            time.sleep(0.02)
        outcome = lab.finish(process)
        assert arena.exists()
        status = subprocess.run([TICKLINE, "status"], capture_output=True, text=True, check=True)
        assert "orphans" in status.stdout
        assert "tickline clean" in status.stdout
    finally:
        subprocess.run([TICKLINE, "clean"], capture_output=True, check=True)
    assert outcome.status == 128 + signal.SIGKILL
    assert lines_of(outcome, "tickline: ")[-1].startswith(
        "tickline: killed by signal 9; its log is"
    )
    assert not arena.exists()
    assert not list(Path("/run/tickline").glob(f"orphans.{run['pid']}.*"))


def test_the_sink_is_killed(lab: Lab) -> None:
    process = lab.start("--name", "sinkless", replay__requests=40_000, replay__warmup=0)
    run = live_run(lab)
    time.sleep(BEGUN_S)
    launcher = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    sink = next(p for p in launcher if os.readlink(f"/proc/{p}/exe").endswith("/sink"))
    os.kill(int(sink), signal.SIGKILL)
    outcome = lab.finish(process)
    assert outcome.status == 128 + signal.SIGKILL
    told = [line for line in outcome.stderr.splitlines() if line.startswith("tickline: ")]
    assert len(told) == 1
    assert told[0].startswith("tickline: sink: killed by signal 9; its log is ")
    # The pipeline was drained in order.
    counters = json.loads((Path(run["run_directory"]) / "counters.json").read_text())
    assert counters["complete"]
    end = counters["end"]
    assert end["rx"]["issued"] == end["to_tx"][0]["consumed"] > 0


def test_nobody_listens_where_replies_go(tmp_path: Path) -> None:
    """What is sent counts as transmitted: what the far end says of it is no error of ours."""
    with subprocess.Popen(
        [*pipeline(tmp_path, "--json", name="unheard")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as launcher:  # fmt: skip
        assert json.loads(launcher.stdout.readline())["event"] == "ready"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for number in range(1, 1001):
                client.sendto(b"|%08d|0008|abcdefgh" % number, ("127.0.0.1", 47101))
                if number % 100 == 0:
                    time.sleep(0.01)
        time.sleep(0.3)
        launcher.stdin.write("drain\n")
        launcher.stdin.flush()
        events = [json.loads(line) for line in launcher.stdout]
    assert launcher.returncode == 0, events
    outcomes = json.loads((tmp_path / "run" / "counters.json").read_text())["end"]["outcomes"]
    assert (outcomes["transmitted"], outcomes["dropped_tx"]) == (1000, 0)
