# SPDX-License-Identifier: Apache-2.0
"""Everything is killed at once; what had been stamped is on disk after `tickline salvage`.

TICKLINE_KILLS=200 kills so many runs of the pipeline instead of a few.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import BUILD, ISOLATED, ROOT, Lab
from test_runs import babeltrace, live_run

from ticklab.ctf import PAGE_BYTES, UNIT, WIDE, Trace, read_lane
from ticklab.run import INGRESS

TICKLINE = BUILD / "tickline"
KILLS = int(os.environ.get("TICKLINE_KILLS", "6"))
SMALL = ("trace.lane=128KiB",)
SUBBUFFERS = 16

pytestmark = pytest.mark.skipif(not TICKLINE.exists(), reason="needs build/tickline: make")


def tickline(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(TICKLINE), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def left_behind(name: str) -> list[str]:
    """What of runs of this name is left in memory and among the run files."""
    folders = [Path("/dev/shm"), Path("/run/tickline"), Path(f"/tmp/tickline-{os.getuid()}")]
    return [str(p) for folder in folders if folder.is_dir() for p in folder.glob(f"*{name}*")]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for _ in range(count)
        ]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Pipeline:
    """`tickline run` on loopback under load, in a process group of its own."""

    def __init__(self, directory: Path, name: str, *sets: str) -> None:
        self.directory, self.name, self.sets = directory, name, sets
        self.port, sink = free_ports(2)
        words = ["pipeline.name=" + name, f"rx.bind=127.0.0.1:{self.port}"]
        words += [f"tx.to=127.0.0.1:{sink}", *sets]
        command = [str(TICKLINE), "run", str(ISOLATED), "--json", "--run-dir", str(directory)]
        command += [word for value in words for word in ("--set", value)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.arena = Path(f"/dev/shm/tickline-{name}.{self.process.pid}")
        line = self.process.stdout.readline()
        assert b'"event":"ready"' in line, line
        self._sending = True
        self._sender = threading.Thread(target=self._send)
        self._sender.start()

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            number = 0
            while self._sending:
                for _ in range(16):
                    number += 1
                    with contextlib.suppress(ConnectionRefusedError):
                        out.sendto(b"|%08d|0008|abcdefgh" % number, ("127.0.0.1", self.port))
                time.sleep(0.0005)

    def kill(self) -> None:
        """Launcher and stages, by one signal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        self._sending = False
        self._sender.join()
        self.process.stdin.close()
        self.process.stdout.close()
        for _ in range(200):  # the stages are nobody's children: until the last of them is gone
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)


@pytest.fixture
def name() -> Iterator[str]:
    made = f"salvage-{os.getpid()}-{random.randrange(1 << 30):x}"
    yield made
    for path in left_behind(made):
        Path(path).unlink()


# ---- a second opinion: the arena as it was left, read here


def arena_lanes(arena: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Name, kind, offset and bytes of each lane, from the directory in the second page."""
    (count,) = struct.unpack_from("<I", arena, PAGE_BYTES)
    for i in range(count):
        entry = struct.unpack_from("<16sIIQQ", arena, PAGE_BYTES + 8 + 40 * i)
        yield entry[0].rstrip(b"\0").decode(), entry[1], entry[3], entry[4]


def committed(units: np.ndarray, begin: int) -> list[tuple[int, int, int]]:
    """Stamps of an unsealed sub-buffer: as long as the time rises and the words can be a record."""
    found, at, last = [], 0, begin
    now = 1 << 58  # years of ticks; a REALTIME of an older lap, which is no stamp, is beyond
    while at < len(units):
        tsc, point, _, request = units[at].tolist()
        wide = bool(point & WIDE)
        if not last <= tsc < now or (point & ~WIDE) >= 0x400 or (wide and at + 1 == len(units)):
            break
        found.append((tsc, point, request))
        last = tsc
        at += 1 + wide
    return found


def shadow(arena: bytes, offset: int, size: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Which sub-buffers of a trace lane are not on disk yet begins where, and their stamps."""
    sealed, opened = struct.unpack_from("<QQ", arena, offset)
    (drained,) = struct.unpack_from("<Q", arena, offset + 128)
    subbuffer = (size - PAGE_BYTES) // SUBBUFFERS
    stamps = []
    for number in range(drained, opened):
        at = offset + PAGE_BYTES + number % SUBBUFFERS * subbuffer
        begin, _, content = struct.unpack_from("<QQQ", arena, at)
        room = content if number < sealed else subbuffer - PAGE_BYTES
        units = np.frombuffer(arena, UNIT, room // 16, at + PAGE_BYTES)
        stamps += committed(units, begin)
    return drained, stamps


def check_against_shadow(directory: Path, arena: bytes) -> int:
    """Every stamp that stood in the arena ends its lane, none is behind; how many they were."""
    trace = Trace(directory / "trace")
    total = 0
    for lane, kind, offset, size in arena_lanes(arena):
        if kind != 1:
            continue
        drained, stamps = shadow(arena, offset, size)
        units = trace.lanes[lane].units
        end = units[len(units) - len(stamps) :]
        assert [(t, p, r) for t, p, _, r in end.tolist()] == stamps, lane
        # What was on disk before are the packets 1 to `drained`.
        first = trace.lanes[lane].packets[:, 0]
        filled = np.diff(first, append=len(units)) > 0
        assert (filled & (first < len(units) - len(stamps))).sum() <= drained
        assert trace.lanes[lane].lost_packets == 0
        total += len(stamps)
    return total


def check_counts(report: dict, arena: bytes) -> None:
    """The owners' own counts, kept only by programs with crash points (`make crash`)."""
    for lane, kind, offset, _ in arena_lanes(arena):
        (stood,) = struct.unpack_from("<Q", arena, offset + 40)
        if BUILD.name == "build-crash" and kind == 1:
            # Of the last stamp the count may be missing, for it comes after it.
            assert report["lanes"][lane]["records"] - stood in (0, 1), lane


def check_salvaged(pipeline: Pipeline, arena: bytes) -> None:
    directory = pipeline.directory
    check_against_shadow(directory, arena)
    events, discarded = babeltrace(directory / "trace")
    report = json.loads((directory / "salvage.json").read_text())
    streams = {k: v for k, v in report["lanes"].items() if k != "ingress"}
    assert events == report["records"] == sum(lane["records"] for lane in streams.values())
    assert discarded == sum(lane["discarded"] for lane in streams.values())
    assert all(lane["torn"] in (0, 1) for lane in report["lanes"].values())
    if not any(value.startswith("trace.max_bytes") for value in pipeline.sets):
        check_counts(report, arena)
    ingress = np.fromfile(directory / "wire" / "ingress.bin", INGRESS)
    assert len(ingress) == report["lanes"]["ingress"]["records"]
    lane = Trace(directory / "trace").lanes["rx"]
    if not pipeline.sets:
        # rx stamps a request, then writes it down: of the last one the second may be missing.
        assert len(lane.request[lane.point == WIDE]) - len(ingress) in (0, 1)
    assert not left_behind(pipeline.name)


# ---- whole runs


@pytest.mark.parametrize("kill", range(KILLS))
def test_every_stamp_is_on_disk_after_a_kill_of_everything(
    tmp_path: Path, name: str, kill: int
) -> None:
    choices = random.Random(kill)
    sets = choices.choice([(), SMALL, (*SMALL, "trace.max_bytes=16MiB"), ("worker.count=2",)])
    pipeline = Pipeline(tmp_path / "run", name, *sets)
    time.sleep(choices.uniform(0, 0.8))
    pipeline.kill()
    arena = pipeline.arena.read_bytes()
    done = tickline("salvage", name)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    said = (
        r"salvaged (.*): [\d,]+ stamps( up to \d\d:\d\d:\d\d\.\d{6})?; look at it: babeltrace2 (.*)"
    )
    found = re.fullmatch(said, last)
    assert found, last
    assert found[3] == f"{found[1]}/trace" == f"{pipeline.directory}/trace"
    check_salvaged(pipeline, arena)


def test_a_salvage_that_is_killed_is_ended_by_the_next(tmp_path: Path, name: str) -> None:
    for moment_ms in (0, 2, 5, 10, 20, 40):
        pipeline = Pipeline(tmp_path / f"run{moment_ms}", name)
        time.sleep(0.3)
        pipeline.kill()
        arena = pipeline.arena.read_bytes()
        first = subprocess.Popen(
            [TICKLINE, "salvage", name], stdout=subprocess.PIPE, start_new_session=True
        )
        time.sleep(moment_ms / 1000)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        done = tickline("salvage", name if left_behind(name) else pipeline.directory)
        assert done.returncode == 0, done.stderr
        check_salvaged(pipeline, arena)


def test_a_third_time_changes_nothing(tmp_path: Path, name: str) -> None:
    pipeline = Pipeline(tmp_path / "run", name, *SMALL, "trace.max_bytes=16MiB")
    time.sleep(0.6)
    pipeline.kill()

    def contents() -> dict[str, str]:
        files = [path for path in sorted(pipeline.directory.rglob("*")) if path.is_file()]
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert tickline("salvage", name).returncode == 0
    after = contents()
    for _ in range(2):
        assert tickline("salvage", pipeline.directory).returncode == 0
        assert contents() == after


def test_a_live_run_is_refused(tmp_path: Path, name: str) -> None:
    pipeline = Pipeline(tmp_path / "run", name)
    try:
        for which in (name, pipeline.directory):
            done = tickline("salvage", which)
            assert done.returncode == 2
            assert f"this run is up (pid {pipeline.process.pid})" in done.stderr
            assert done.stderr.count("\n") == 1
        # Its launcher alone is killed: as long as a stage is stopped, the run still lives.
        stages = [s["pid"] for run in json.loads(tickline("status", "--json").stdout)
                  if run["name"] == name for s in run["stages"]]  # fmt: skip
        os.kill(stages[0], signal.SIGSTOP)
        os.kill(pipeline.process.pid, signal.SIGKILL)
        pipeline.process.wait(20)
        done = tickline("salvage", name)
        assert done.returncode == 2
        assert "still live" in done.stderr
        assert pipeline.arena.exists()
    finally:
        pipeline.kill()
    assert tickline("salvage", name).returncode == 0
    assert not left_behind(name)


def test_a_lab_that_was_killed(lab: Lab, name: str) -> None:
    process = lab.start("--name", name, replay__requests=100_000)
    run = live_run(lab)
    time.sleep(1)
    pids = [run["pid"], *(stage["pid"] for stage in run["stages"]), process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    time.sleep(0.5)
    arena = Path(f"/dev/shm/tickline-{name}.{run['pid']}").read_bytes()
    done = tickline("salvage", name, "--json")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    directory = Path(run["run_directory"])
    assert report["run"] == str(directory)
    check_against_shadow(directory, arena)
    assert babeltrace(directory / "trace")[0] == report["records"] > 10_000
    timeline = subprocess.run(
        [ROOT / "harness" / "timeline.py", directory, "--worst", "5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert timeline.returncode == 0, timeline.stderr
    assert "the run was killed and salvaged" in timeline.stderr
    assert len(json.loads((directory / "timeline.json").read_text())["traceEvents"]) > 20
    summary = subprocess.run(
        [ROOT / "harness" / "summary.py", directory], capture_output=True, text=True, check=False
    )
    assert summary.returncode == 2
    assert summary.stderr.count("\n") == 1


def test_clean_says_what_is_lost(tmp_path: Path, name: str) -> None:
    pipeline = Pipeline(tmp_path / "run", name)
    pipeline.kill()
    assert "`tickline salvage` saves its trace" in tickline("status").stdout
    done = tickline("clean")
    (line,) = [line for line in done.stdout.splitlines() if name in line]
    assert line.endswith("its last stamps are lost, as it was not salvaged")
    assert not left_behind(name)


def test_a_full_disk_keeps_the_arena(tmp_path: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", small], check=True)
    try:
        pipeline = Pipeline(small / "run", name)
        time.sleep(0.5)
        pipeline.kill()
        arena = pipeline.arena.read_bytes()
        (small / "filler").write_bytes(b"")
        with contextlib.suppress(OSError), (small / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(PAGE_BYTES))
                filler.flush()
        done = tickline("salvage", name)
        assert done.returncode == 4, done.stderr
        assert "make room" in done.stderr
        assert done.stderr.count("\n") == 1
        assert pipeline.arena.exists()
        (small / "filler").unlink()
        assert tickline("salvage", name).returncode == 0
        check_salvaged(pipeline, arena)
    finally:
        subprocess.run(["umount", small], check=True)


# ---- run directories without an arena


@pytest.fixture(scope="module")
def salvaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with small packets, whole."""
    name = f"salvage-{os.getpid()}-files"
    pipeline = Pipeline(tmp_path_factory.mktemp("whole") / "run", name, *SMALL)
    time.sleep(0.5)
    pipeline.kill()
    assert tickline("salvage", name).returncode == 0
    return pipeline.directory


def test_a_stream_cut_at_any_byte_is_read(salvaged: Path, tmp_path: Path) -> None:
    """As many copies of it as it has bytes, as so many snapshots of one run."""
    whole = (salvaged / "trace" / "tx").read_bytes()
    packets = 2
    whole = whole[: PAGE_BYTES + packets * 2 * PAGE_BYTES]
    uuid = Trace(salvaged / "trace").metadata.uuid
    records = [0, *np.cumsum(_records(whole))]
    step = 2048
    read: dict[bytes, int] = {}
    for first in range(0, len(whole) + 1, step):
        run = tmp_path / "run"
        shutil.copytree(salvaged, run)
        sizes = range(first, min(first + step, len(whole) + 1))
        for size in sizes:
            folder = run / "snapshots" / f"{size:06}"
            folder.mkdir(parents=True)
            (folder / "tx").write_bytes(whole[:size])
        done = tickline("salvage", run)
        assert done.returncode == 0, done.stderr
        for size in sizes:
            path = run / "snapshots" / f"{size:06}" / "tx"
            content = path.read_bytes()
            if content not in read:
                read[content] = len(read_lane(path, uuid))
            fits = sum(end <= size for end in _ends(whole))
            assert read[content] == records[fits], size
        shutil.rmtree(run)
    assert len(read) >= packets + 1


def _ends(stream: bytes) -> list[int]:
    """Where the events of each packet but the first end."""
    ends = []
    at = PAGE_BYTES
    while at < len(stream):
        (content,) = struct.unpack_from("<Q", stream, at + 40)
        ends.append(at + content // 8)
        at += 2 * PAGE_BYTES
    return ends


def _records(stream: bytes) -> list[int]:
    counts = []
    for i, end in enumerate(_ends(stream)):
        begin = PAGE_BYTES * (2 + 2 * i)
        units = np.frombuffer(stream[begin:end], UNIT)
        assert not (units["point"] & WIDE).any()  # tx stamps no wide ones under load
        counts.append(len(units))
    return counts


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_run_directory_is_read(salvaged: Path, tmp_path: Path, seed: int) -> None:
    """From another machine: no arena, holes and cuts in every file, metadata sometimes lost."""
    choices = random.Random(seed)
    run = tmp_path / "run"
    shutil.copytree(salvaged, run)
    whole = Trace(run / "trace")
    paths = [p for p in (run / "trace").iterdir() if p.name != "metadata"]
    for path in [*paths, run / "wire" / "ingress.bin"]:
        with path.open("r+b") as file:
            size = path.stat().st_size
            for _ in range(choices.randrange(3)):
                file.seek(choices.randrange(size))
                file.write(bytes(choices.randrange(1, 40_000)))
            file.truncate(choices.randrange(size // 2, size))
    if seed % 2:
        (run / "trace" / "metadata").unlink()
    (run / "trace" / "metadata.new").write_text("/* CTF 1.8 */ half")
    done = tickline("salvage", run)
    assert done.returncode == 0, done.stderr
    trace = Trace(run / "trace")
    events, _ = babeltrace(run / "trace")
    assert events == trace.records
    for lane in trace.lanes.values():
        assert set(lane.tsc.tolist()) <= set(whole.lanes[lane.name].tsc.tolist())
        if len(lane) < len(whole.lanes[lane.name]):
            assert f"trace/{lane.name}: " in done.stdout
    tsc = int(whole.lanes["rx"].tsc[0])
    at_ns = [t.offset_ns + tsc * 10**9 // t.tsc_hz for t in (trace.metadata, whole.metadata)]
    assert abs(at_ns[0] - at_ns[1]) < 1_000_000
    requests = np.fromfile(run / "wire" / "ingress.bin", INGRESS)["request"].astype(np.int64)
    assert np.all(np.diff(requests) > 0)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for which in (tmp_path / "none", tmp_path, "nobody"):
        done = tickline("salvage", which)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert str(which) in done.stderr
