# SPDX-License-Identifier: Apache-2.0
"""What a stranger gets wrong: one line that says what, where and how to mend it; the right exit
status; nothing left behind."""

import json
import os
import re
import shutil
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
from conftest import ISOLATED, ROOT

BUILD = ROOT / "build"
TICKLINE = BUILD / "tickline"
MARK = f"TICKLINE_TEST={uuid.uuid4()}"
OWN = ["--set", f"pipeline.name=mistake-{os.getpid()}"]  # nobody else's run has this name
USAGE, HOST = 2, 4
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# What a line that helps has in it: what was expected, or what to do.
REMEDY = re.compile(
    r"expected|try|did you mean|remove|see |choose|mend|make|apt-get|write |rename|for example"
)

pytestmark = pytest.mark.skipif(not TICKLINE.exists(), reason="needs build/tickline: make")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, namespaces")


def marked(pid: str) -> bool:
    """Was this process started, at whatever remove, by a test of this file?"""
    try:
        return MARK.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def leftovers() -> set[str]:
    """Processes (they hold the namespaces), shared memory, run files, links."""
    found = {f"process {p.name}" for p in Path("/proc").glob("[0-9]*") if marked(p.name)}
    for folder in (Path("/dev/shm"), Path("/run/tickline")):
        for path in folder.glob("tickline*" if folder.name == "shm" else "*"):
            pid = re.search(r"\.(\d+)(\.json|\.sock)?$", path.name)
            others = pid and Path(f"/proc/{pid[1]}").exists() and not marked(pid[1])
            if not others:
                found.add(str(path))
    return found | {f"link {name}" for name in os.listdir("/sys/class/net")}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = leftovers()
    yield
    deadline = time.monotonic() + 5
    while leftovers() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leftovers() - before == set()


def environment(**changes: str) -> dict[str, str]:
    name, _, value = MARK.partition("=")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return {**os.environ, "PATH": path, name: value, **changes}


def attempt(*command: object, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """stderr without preflight, progress, and what killed runs of others have left behind."""
    lines = done.stderr.splitlines()
    ours = [line for line in lines if not line.startswith(("lab: ", "  ", "setup: "))]
    return [line for line in ours if "was killed and has left" not in line]


def assert_refused(
    done: subprocess.CompletedProcess[str], status: int, *parts: object, remedy: bool = True
) -> None:
    """One line with these parts in it and a remedy, and this exit status."""
    lines = told(done)
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert str(part) in lines[0]
    assert not remedy or REMEDY.search(lines[0]), lines[0]
    assert done.returncode == status, lines[0]


def lab(*arguments: object) -> list[object]:
    return [sys.executable, ROOT / "harness" / "lab.py", *arguments]


def small(tmp_path: Path, *arguments: object) -> list[object]:
    """A lab run that would take no time if it were not refused."""
    sets = ["--set", "replay.requests=500", "--set", "replay.warmup=0"]
    return lab(ISOLATED, *sets, *OWN, "--runs", tmp_path / "runs", *arguments)


def pipeline(tmp_path: Path, *arguments: object, bind: str = "127.0.0.1:47001") -> list[object]:
    """`tickline run` by itself."""
    ends = ["--set", f"rx.bind={bind}", "--set", "tx.to=127.0.0.1:47002"]
    return [TICKLINE, "run", ISOLATED, *ends, *OWN, "--run-dir", tmp_path / "run", *arguments]


# ---- what is written in a configuration ----------------------------------------------------------

# text, line, what the message says beside `x.ini:LINE:`
WRONG_TEXT = {
    "unknown section": ("[pipline]\n", 1, ["[pipline]", "did you mean [pipeline]?"]),
    "unknown key": ("[ring]\ndepht = 4\n", 2, ["depht", "[ring]", "did you mean depth?"]),
    "key of another section": ("[tx]\nbind = auto\n", 2, ["did you mean bind in [rx]?"]),
    "unknown handler's section": ("[handler.rot2]\na = 1\n", 1, ["[handler.rot2]", "rot1"]),
    "key twice": ("[ring]\ndepth = 4\ndepth = 8\n", 3, ["ring.depth", "first in line 2", "remove"]),
    "key before any section": ("depth = 4\n", 1, ["depth", "did you mean depth in [ring]?"]),
    "no power of two": ("[ring]\ndepth = 1000\n", 2, ["ring.depth = 1000", "try 1024"]),
    "out of range": ("[worker]\ncount = 17\n", 2, ["worker.count = 17", "from 1 to 16"]),
    "negative": ("[worker]\ncount = -1\n", 2, ["worker.count = -1", "from 1 to 16"]),
    "not a number": ("[worker]\ncount = two\n", 2, ["worker.count = two", "expected a number"]),
    "bad unit of size": ("[trace]\nlane = 8MB\n", 2, ["trace.lane = 8MB", "try 8MiB"]),
    "bad unit of time": ("[sched]\npark_after = 9 parsec\n", 2, ["expected never, or a time"]),
    "bad rate": ("[replay]\nrate = 10kk\n", 2, ["replay.rate = 10kk", "expected a rate a second"]),
    "share above one": ("[replay]\nerrors = 200%\n", 2, ["expected a share from 0 to 1"]),
    "unknown word": ("[worker]\nhandler = rot2\n", 2, ["worker.handler = rot2", "try rot1"]),
    "unknown schema": ("[pipeline]\nschema = xml\n", 2, ["pipeline.schema = xml", "expected v1"]),
    "empty value": ("[ring]\ndepth =\n", 2, ["ring.depth", "expected a power of two"]),
    "empty path": ("[replay]\ncapture =\n", 2, ["replay.capture", "try generated"]),
    "no equals sign": ("[ring]\ndepth\n", 2, ["depth", "expected key = value"]),
    "no closing bracket": ("[ring\ndepth = 4\n", 1, ["[ring", "expected [section]"]),
    "address without a port": ("[rx]\nbind = 0.0.0.0\n", 2, ["ADDRESS:PORT", "0.0.0.0:9000"]),
    "name instead of an address": ("[rx]\nbind = localhost:9\n", 2, ["numeric", "0.0.0.0:9000"]),
    "port too large": ("[tx]\nto = 127.0.0.1:70000\n", 2, ["tx.to", "127.0.0.1:70000"]),
    "name of a path": ("[pipeline]\nname = a/b\n", 2, ["pipeline.name = a/b", "letters"]),
    "speed in words": ("[replay]\nspeed = fast\n", 2, ["replay.speed = fast", "try 1x"]),
    "CPU range backward": ("[worker]\ncpu = 3-1\n", 2, ["worker.cpu = 3-1", "expected"]),
    "CPUs and workers": ("[worker]\ncount = 3\ncpu = 0,1\n", 3, ["2 CPUs", "worker.count = 3"]),
    "burst above buffers": ("[rx]\nburst = 200\nrecv_buffers = 64\n", 2, ["rx.burst", "try 64"]),
    "payload above schema": ("[replay]\npayload = 20000\n", 2, ["at most 9999", "try 9999"]),
    "binary": ("[ring]\ndepth\0 = 4\n", 2, ["the byte 0x00", "is this an INI file?"]),
}


@pytest.mark.parametrize("name", WRONG_TEXT)
def test_what_is_written_in_a_configuration(tmp_path: Path, name: str) -> None:
    text, line, parts = WRONG_TEXT[name]
    ini = tmp_path / "x.ini"
    ini.write_text(text)
    assert_refused(attempt(TICKLINE, "config", ini), USAGE, f"{ini}:{line}: ", *parts)


@pytest.mark.parametrize("name", ["unknown section", "no power of two"])
def test_the_lab_passes_the_line_on_and_makes_nothing(tmp_path: Path, name: str) -> None:
    text, line, parts = WRONG_TEXT[name]
    ini = tmp_path / "x.ini"
    ini.write_text(text)
    done = attempt(*lab(ini, "--runs", tmp_path / "runs"))
    assert_refused(done, USAGE, f"{ini}:{line}: ", *parts)
    assert not (tmp_path / "runs").exists()


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    assert_refused(attempt(TICKLINE, "config", tmp_path / "none.ini"), USAGE, "none.ini: No such")
    assert_refused(attempt(TICKLINE, "config", tmp_path), USAGE, tmp_path, "Is a directory")
    program = BUILD / "worker"
    assert_refused(attempt(TICKLINE, "config", program), USAGE, f"{program}:1: ", "an INI file?")
    junk = tmp_path / "junk.ini"
    junk.write_bytes(bytes(range(256)) * 20)
    assert_refused(attempt(TICKLINE, "config", junk), USAGE, "junk.ini:1: ", "an INI file?")
    huge = tmp_path / "huge.ini"
    huge.write_bytes(b"; " + b"x" * (2 << 20))
    assert_refused(attempt(TICKLINE, "config", huge), USAGE, "huge.ini: ")


@as_root
def test_a_configuration_that_may_not_be_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ini"
    secret.write_text("")
    secret.chmod(0)
    if attempt(*NOBODY, TICKLINE, "points").returncode != 0:
        pytest.skip("needs a build that others may execute")
    done = attempt(*NOBODY, TICKLINE, "config", secret)
    assert_refused(done, USAGE, "secret.ini: Permission denied")


# ---- what is typed -------------------------------------------------------------------------------

WRONG_WORDS = {
    "no command": ([], ["which command"]),
    "unknown command": (["start"], ["start: no such command", "check, config, run"]),
    "no configuration": (["check"], ["which configuration?", "configs/isolated.ini"]),
    "two configurations": (["check", ISOLATED, ISOLATED], ["one argument too many"]),
    "unknown option": (["check", ISOLATED, "--cpu"], ["--cpu: no such option"]),
    "unknown letter": (["check", ISOLATED, "-v"], ["-v: no such option"]),
    "option without a value": (["check", ISOLATED, "--set"], ["--set: expected a value"]),
    "--set without =": (["check", ISOLATED, "--set", "ring.depth"], ["expected section.key=value"]),
    "--set without section": (["check", ISOLATED, "--set", "depth=4"], ["section.key=value"]),
    "--set of an unknown key": (["check", ISOLATED, "--set", "ring.dept=4"], ["mean depth?"]),
    "--set of an unknown section": (["check", ISOLATED, "--set", "rng.depth=4"], ["mean [ring]?"]),
    "--set of a wrong value": (["check", ISOLATED, "--set", "ring.depth=3"], ["command line: "]),
    "a word too many": (["clean", "all"], ["all: clean takes no argument"]),
    "no such CPU": (["check", ISOLATED, "--set", "rx.cpu=1000"], ["CPU 1000", "expected CPUs of"]),
}


@pytest.mark.parametrize("name", WRONG_WORDS)
def test_what_is_typed(name: str) -> None:
    words, parts = WRONG_WORDS[name]
    assert_refused(attempt(TICKLINE, *words), USAGE, *parts)


def test_a_cpu_that_is_not_allowed() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("needs two CPUs")
    one, other = allowed[:2]
    done = attempt("taskset", "-c", one, TICKLINE, "check", ISOLATED, "--set", f"rx.cpu={other}")
    assert_refused(done, USAGE, f"CPU {other} is not allowed", f"expected CPUs of {one}")


def test_more_cpus_demanded_than_there_are() -> None:
    one = min(os.sched_getaffinity(0))
    done = attempt(
        "taskset", "-c", one, TICKLINE, "check", ISOLATED, "--set", "isolate.own_cpu=need"
    )
    assert_refused(done, HOST, "isolate.own_cpu = need", "expected 4 CPUs", "1 allowed")


WRONG_TOOLS = {
    "lab without a configuration": (["lab.py"], "required: config"),
    "lab with two": (["lab.py", ISOLATED, ISOLATED], "unrecognized arguments"),
    "lab with an unknown option": (["lab.py", ISOLATED, "--fast"], "--fast"),
    "lab with an option that lacks its value": (["lab.py", ISOLATED, "--capture"], "--capture"),
    "lab with --set without =": (["lab.py", ISOLATED, "--set", "ring.depth"], "section.key=value"),
    "lab with an odd speed": (["lab.py", ISOLATED, "--speed", "fast"], "replay.speed = fast"),
    "lab with an odd name": (["lab.py", ISOLATED, "--name", "a/b"], "pipeline.name = a/b"),
    "summary of nothing": (["summary.py"], "required: RUN"),
    "summary of no run": (["summary.py", "/etc"], "/etc: not a run directory"),
    "summary of what is not there": (["summary.py", "runs/none"], "runs/none: not a run directory"),
    "compare with one run": (["compare.py", "runs/none"], "required: "),
    "compare with what is not there": (["compare.py", "/etc", "/none"], "not a run directory"),
    "capture without a command": (["capture.py"], "required: command"),
    "capture without a file": (["capture.py", "info"], "required: file"),
    "capture of an odd schema": (["capture.py", "info", "x", "--schema", "xml"], "xml"),
}


@pytest.mark.parametrize("name", WRONG_TOOLS)
def test_what_is_typed_to_the_harness(name: str) -> None:
    (tool, *words), part = WRONG_TOOLS[name]
    done = attempt(sys.executable, ROOT / "harness" / tool, *words)
    assert_refused(done, USAGE, part)


def test_launch_without_a_word() -> None:
    done = attempt(ROOT / "launch.sh")
    assert_refused(done, USAGE, "usage: ./launch.sh CONFIG", remedy=False)


@pytest.mark.parametrize("stage", ["rx", "worker", "tx", "tracer"])
@pytest.mark.parametrize("words", [[], ["--help"], ["configs/isolated.ini"]])
def test_a_stage_started_by_hand(stage: str, words: list[str]) -> None:
    done = attempt(BUILD / stage, *words)
    assert_refused(done, USAGE, f"{stage}: a stage of the pipeline", "tickline run CONFIG")


@pytest.mark.parametrize("words", [[], ["--listen", "here"], ["--bogus"], ["--cpu"]])
def test_the_sink_started_by_hand(words: list[str]) -> None:
    assert_refused(attempt(BUILD / "sink", *words), USAGE, "sink: ", "sink --help")


# ---- sockets, names, places ----------------------------------------------------------------------


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{holder.getsockname()[1]}"
        done = attempt(*pipeline(tmp_path, bind=bind))
    assert_refused(done, USAGE, f"rx.bind = {bind}: Address already in use", "ss -lunp")


def test_an_address_of_another_host(tmp_path: Path) -> None:
    done = attempt(*pipeline(tmp_path, bind="203.0.113.77:47001"))
    assert_refused(done, USAGE, "rx.bind = 203.0.113.77:47001", "an address of this host")


def test_no_address_at_all(tmp_path: Path) -> None:
    done = attempt(TICKLINE, "run", ISOLATED, *OWN, "--run-dir", tmp_path / "run")
    assert_refused(done, USAGE, " = auto", "ADDRESS:PORT")


def test_a_stage_that_is_not_there_in_the_order(tmp_path: Path) -> None:
    done = attempt(*pipeline(tmp_path, "--start-order", "rx,worker7"))
    assert_refused(done, USAGE, "--start-order: worker7", "expected each of the stages once")


def test_run_directories_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, file / "below", "/proc/none"):
        done = attempt(*lab(ISOLATED, "--set", "replay.requests=500", "--runs", place))
        assert_refused(done, USAGE, place, "choose one by --runs")
        done = attempt(*pipeline(tmp_path, "--run-dir", Path(place) / "run"))
        assert_refused(done, USAGE, place, "choose another by --run-dir")


def running(process: subprocess.Popen[str]) -> None:
    """Waits until `tickline run` says that it runs."""
    for line in process.stderr:
        if line.startswith("running;"):
            return
    raise AssertionError("it does not run")


def start(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )


def test_a_name_that_is_up_already(tmp_path: Path) -> None:
    name = f"taken-{os.getpid()}"
    first = start(*pipeline(tmp_path, "--set", f"pipeline.name={name}"))
    try:
        running(first)
        second = pipeline(
            tmp_path / "second", "--set", f"pipeline.name={name}", bind="127.0.0.1:47003"
        )
        (tmp_path / "second").mkdir()
        done = attempt(*second)
        assert_refused(done, USAGE, f"{name} is already up", first.pid, tmp_path, "--name")
        if os.geteuid() == 0:
            done = attempt(*small(tmp_path, "--name", name))
            assert_refused(done, USAGE, f"{name} is already up", "--name")
    finally:
        first.send_signal(signal.SIGTERM)
        first.wait(20)


def test_a_run_that_was_killed_is_named_and_in_nobodys_way(tmp_path: Path) -> None:
    name = f"killed-{os.getpid()}"
    first = start(*pipeline(tmp_path, "--set", f"pipeline.name={name}"))
    running(first)
    first.kill()
    first.wait(20)
    try:
        assert Path(f"/dev/shm/tickline-{name}.{first.pid}").exists()
        status = attempt(TICKLINE, "status").stdout
        assert name in status
        assert "tickline clean" in status
        if os.geteuid() == 0:
            done = attempt(*small(tmp_path, "--name", name))
            assert done.returncode == 0, done.stderr
            named = [line for line in done.stderr.splitlines() if f"run {name}" in line]
            assert len(named) == 1
            assert "`tickline salvage` saves its trace, `tickline clean` removes it" in named[0]
    finally:
        attempt(TICKLINE, "clean")


# ---- the host ------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH of its own with all that the lab starts, from which a test can take one away."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ip", "nsenter", "setpriv", "taskset", "unshare", "cat", "sh", "env", "tcpreplay"):
        found = shutil.which(name, path=environment()["PATH"])
        if not found:
            pytest.skip(f"needs {name}")
        (folder / name).symlink_to(found)
    return folder


@as_root
@pytest.mark.parametrize(
    ("program", "package"),
    [("tcpreplay", "tcpreplay"), ("ip", "iproute2"), ("setpriv", "util-linux")],
)
def test_a_program_that_is_missing(
    tmp_path: Path, programs: Path, program: str, package: str
) -> None:
    (programs / program).unlink()
    done = attempt(*small(tmp_path), PATH=str(programs))
    assert_refused(done, HOST, f"{program}: no such program", f"apt-get install {package}")
    assert not (tmp_path / "runs").exists()


@as_root
def test_tcpdump_is_not_needed(tmp_path: Path, programs: Path) -> None:
    done = attempt(*small(tmp_path), PATH=str(programs))
    assert done.returncode == 0, done.stderr


def test_nothing_is_built(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "harness", tmp_path / "harness")
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = attempt(sys.executable, tmp_path / "harness" / "lab.py", ISOLATED)
    assert_refused(done, HOST, f"{tmp_path}/build/tickline: no such program", "make")


def with_tmpfs(where: Path | str, options: str, *command: object) -> list[object]:
    """The command in a mount namespace where a tmpfs with these options lies on `where`."""
    mount = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "-", options, where, *command]


@as_root
@pytest.mark.parametrize("size", ["20k", "200k", "2m"])
def test_no_room_for_a_run(tmp_path: Path, size: str) -> None:
    """At the start, at what the lab writes, in the middle of the trace."""
    runs = tmp_path / "runs"
    runs.mkdir()
    command = lab(ISOLATED, *OWN, "--set", "replay.requests=20000", "--runs", runs)
    done = attempt(*with_tmpfs(runs, f"size={size}", *command))
    assert_refused(done, HOST, "No space left on device", "room")


@as_root
def test_runs_where_nothing_can_be_written(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    done = attempt(*with_tmpfs(runs, "ro", *lab(ISOLATED, "--runs", runs)))
    assert_refused(done, HOST, "Read-only file system", "choose one by --runs")
    done = attempt(*with_tmpfs(runs, "ro", *pipeline(tmp_path, "--run-dir", runs / "run")))
    assert_refused(done, HOST, "Read-only file system", "choose another by --run-dir")


@as_root
@pytest.mark.parametrize("options", ["size=1m", "size=4m,ro"])
def test_a_small_dev_shm(tmp_path: Path, options: str) -> None:
    done = attempt(*with_tmpfs("/dev/shm", options, *small(tmp_path)))
    assert_refused(done, HOST, "/dev/shm")
    done = attempt(*with_tmpfs("/dev/shm", options, *pipeline(tmp_path)))
    assert_refused(done, HOST, "/dev/shm")


def test_more_memory_than_there_is(tmp_path: Path) -> None:
    large = ["--set", "ring.depth=65536", "--set", "ring.slot=65664", "--set", "worker.count=16"]
    done = attempt(*pipeline(tmp_path, *large))
    assert_refused(done, HOST, "memory: ", "more memory")
    assert not (tmp_path / "run").exists()


@as_root
def test_pages_that_are_not_there(tmp_path: Path) -> None:
    free = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    if not free.exists() or int(free.read_text()) > 0:
        pytest.skip("needs a host without free 2 MiB pages")
    done = attempt(*small(tmp_path, "--set", "memory.pages=need-2m"))
    assert_refused(done, HOST, "huge pages: 0 of", "sysctl -w vm.nr_hugepages=")
    done = attempt(*pipeline(tmp_path, "--set", "memory.pages=need-2m"))
    assert_refused(done, HOST, "huge pages: 0 of", "sysctl -w vm.nr_hugepages=")


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    capture = tmp_path / "x.pcap"
    generate = ROOT / "harness" / "generate.py"
    assert attempt(sys.executable, generate, capture, "--count", "10").returncode == 0
    info = f"{sys.executable} {ROOT}/harness/capture.py info {capture}"
    done = attempt("bash", "-c", f"set -o pipefail; {info} | true")
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)


# ---- captures ------------------------------------------------------------------------------------


def pcap(*frames: bytes, link: int = 1) -> bytes:
    records = (struct.pack("<IIII", 1, 0, len(data), len(data)) + data for data in frames)
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link) + b"".join(records)


TCP = bytes(12) + b"\x08\0" + bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]) + bytes(30)
WRONG_CAPTURES = {
    "empty": (b"", ["the file is empty", "record it again"]),
    "not a capture": (b"GIF89a" * 50, ["not a capture", "47 49 46 38", "pcap or pcapng"]),
    "cut in its header": (pcap()[:20], ["without a whole packet", "tcpdump"]),
    "no packet": (pcap(), ["without a whole packet", "tcpdump"]),
    "cut in its first packet": (pcap(TCP)[:50], ["without a whole packet", "tcpdump"]),
    "no UDP in it": (pcap(TCP, TCP), ["nothing in it can be replayed", "not_udp 2", "tcpdump"]),
    "a link of another kind": (pcap(b"hello", link=147), ["link type 147", "tcpdump"]),
}


@pytest.mark.parametrize("name", WRONG_CAPTURES)
def test_captures_that_cannot_be_replayed(tmp_path: Path, name: str) -> None:
    data, parts = WRONG_CAPTURES[name]
    file = tmp_path / "my.pcap"
    file.write_bytes(data)
    for command in (
        small(tmp_path, "--capture", file),
        [sys.executable, ROOT / "harness" / "capture.py", "info", file],
    ):
        assert_refused(attempt(*command), USAGE, f"{file}: ", *parts)
    assert not (tmp_path / "runs").exists()


def test_captures_that_cannot_be_read(tmp_path: Path) -> None:
    none = tmp_path / "none.pcap"
    assert_refused(attempt(*small(tmp_path, "--capture", none)), USAGE, f"{none}: No such file")
    done = attempt(*small(tmp_path, "--capture", tmp_path))
    assert_refused(done, USAGE, f"{tmp_path}: Is a directory")


@as_root
def test_a_capture_that_may_not_be_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.pcap"
    secret.write_bytes(pcap(TCP))
    secret.chmod(0)
    info = [*NOBODY, sys.executable, ROOT / "harness" / "capture.py"]
    if attempt(*info, "--help").returncode != 0:
        pytest.skip("needs a tree that others may read")
    assert_refused(attempt(*info, "info", secret), USAGE, "secret.pcap: Permission denied")


@as_root
def test_a_capture_cut_at_its_end_is_replayed_as_far_as_it_goes(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.pcap", tmp_path / "cut.pcap"
    generate = ROOT / "harness" / "generate.py"
    done = attempt(sys.executable, generate, whole, "--count", "100", "--json")
    assert done.returncode == 0, done.stderr
    cut.write_bytes(whole.read_bytes()[:-5])
    done = attempt(*small(tmp_path, "--capture", cut))
    assert done.returncode == 0, done.stderr
    assert any("cut.pcap" in line and "cut" in line for line in done.stderr.splitlines())
    directory = next((tmp_path / "runs").iterdir())
    account = json.loads((directory / "summary.json").read_text())["account"]["requests"]
    assert 0 < account["offered"] == account["delivered"] < 100
