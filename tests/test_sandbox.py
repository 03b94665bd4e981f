# SPDX-License-Identifier: Apache-2.0
"""Least privilege in whole runs: what a stage may still do, what happens when it does more, and
whose files are left."""

import json
import os
import pwd
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BUILD, ISOLATED, ROOT, Lab, Outcome
from test_runs import assert_exact, live_run, status_field

TICKLINE = BUILD / "tickline"
NOBODY = pwd.getpwnam("nobody").pw_uid
NO_CAPABILITIES = "0" * 16
IN_USER_NAMESPACE = ["unshare", "--user", "--map-root-user"]
OWN = ["--set", f"pipeline.name=sandbox-{os.getpid()}"]

pytestmark = [
    pytest.mark.skipif(not TICKLINE.exists(), reason="needs build/tickline: make"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a right to give up"),
]


def assert_belongs_to_us(directory: Path) -> None:
    paths = [directory, *directory.rglob("*")]
    others = [str(path) for path in paths if path.lstat().st_uid != os.geteuid()]
    assert others == []


def assert_powerless(pid: int, uid: int = NOBODY) -> None:
    assert status_field(pid, "Seccomp") == "2"
    assert status_field(pid, "NoNewPrivs") == "1"
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert status_field(pid, f"Cap{kind}") == NO_CAPABILITIES, kind
    assert status_field(pid, "Uid").split() == [str(uid)] * 4
    if uid:
        assert status_field(pid, "Groups") == ""


class Alone:
    """`tickline run` without a lab: sends it requests and takes the replies."""

    def __init__(self, run_directory: Path, *words: str, before: tuple[str, ...] = ()) -> None:
        self.directory = run_directory
        self.replies = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.replies.bind(("127.0.0.1", 0))
        self.replies.settimeout(5)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [*before, TICKLINE, "run", ISOLATED, "--json", "--run-dir", run_directory, *OWN,
             "--set", f"rx.bind=127.0.0.1:{self.port}",
             "--set", f"tx.to=127.0.0.1:{self.replies.getsockname()[1]}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def event(self) -> dict[str, Any]:
        assert select.select([self.process.stdout], [], [], 30)[0]
        return json.loads(self.process.stdout.readline())

    def ready(self) -> dict[str, Any]:
        event = self.event()
        assert event["event"] == "ready", event
        return event

    def ask(self, count: int = 100) -> None:
        """Requests, and each is answered."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(count):
                sender.sendto(b"|%08d|0003|abc" % number, ("127.0.0.1", self.port))
                assert self.replies.recv(100) == b"|%08d|0003|bcd" % number

    def end(self) -> tuple[int, str]:
        """Drains; exit status and stderr."""
        _, stderr = self.process.communicate(timeout=30)  # closes stdin: drain
        return self.process.returncode, stderr

    def close(self) -> None:
        self.replies.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., Alone]]:
    started: list[Alone] = []

    def start(*words: str, before: tuple[str, ...] = ()) -> Alone:
        started.append(Alone(tmp_path / f"run{len(started)}", *words, before=before))
        return started[-1]

    yield start
    for run in started:
        run.close()


# ---- what is left to a stage ---------------------------------------------------------------------


def test_stages_of_the_lab_have_no_right_left(lab: Lab) -> None:
    process = lab.start("--name", "powerless", isolate__sandbox="need", replay__requests=60_000)
    run = live_run(lab)
    for stage in run["stages"]:
        assert_powerless(stage["pid"])
    outcome = lab.finish(process)
    assert_exact(outcome, 60_000)
    assert_belongs_to_us(outcome.directory)
    obtained = outcome.manifest["obtained"]
    for stage in ("rx", "worker0", "tx", "tracer"):
        assert obtained[f"{stage} isolate.user"] == {
            "asked": "nobody", "obtained": "nobody", "why": "",
        }  # fmt: skip
        assert obtained[f"{stage} isolate.sandbox"] == {
            "asked": "need", "obtained": "yes", "why": "",
        }  # fmt: skip


def test_nor_have_those_of_the_pipeline_alone(alone: Callable[..., Alone]) -> None:
    run = alone("--set", "isolate.user=daemon")
    daemon = pwd.getpwnam("daemon").pw_uid
    for pid in run.ready()["pids"].values():
        assert_powerless(pid, daemon)
    assert (run.directory / "trace").stat().st_uid == daemon
    assert (run.directory / "wire").stat().st_uid == 0
    run.ask()
    status, stderr = run.end()
    assert status == 0, stderr
    assert_belongs_to_us(run.directory)


def test_sandbox_no_leaves_everything_as_it_was(alone: Callable[..., Alone]) -> None:
    run = alone("--set", "isolate.sandbox=no")
    ready = run.ready()
    for pid in ready["pids"].values():
        assert status_field(pid, "Seccomp") == "0"
        assert status_field(pid, "Uid").split()[0] == "0"
    assert not [name for name in ready["obtained"] if "isolate.sandbox" in name]
    run.ask()
    assert run.end()[0] == 0


WAYS = {
    "io_uring, park, 4 workers": {
        "rx__io": "uring", "tx__io": "uring", "sched__wait": "park", "worker__count": 4,
    },
    "plain, yield, by key": {
        "rx__io": "plain", "tx__io": "plain", "worker__count": 2, "worker__dispatch": "key",
    },
    "datagrams": {"pipeline__schema": "datagram", "memory__pages": "4k", "memory__lock": "no"},
    "bounded": {"trace__max_bytes": "16MiB", "trace__lane": "1MiB"},
    "snapshots": {
        "trace__keep": "last 1s", "trace__snapshot_over": "1us", "trace__snapshots": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_running_keeps_within_its_table(lab: Lab, way: str) -> None:
    before = os.umask(0o077)  # folders that only their owner may enter
    try:
        outcome = lab.run(isolate__sandbox="need", replay__requests=40_000, **WAYS[way])
    finally:
        os.umask(before)
    assert_exact(outcome, 40_000)
    assert_belongs_to_us(outcome.directory)
    assert (outcome.directory / "wire" / "ingress.bin").stat().st_size > 0
    assert not (outcome.directory / "wire" / "ingress").exists()
    snapshots = list((outcome.directory / "snapshots").glob("*/metadata"))
    assert bool(snapshots) == (way == "snapshots")


@pytest.mark.parametrize("wait", ["yield", "park"])
def test_stopped_and_continued(alone: Callable[..., Alone], wait: str) -> None:
    run = alone("--set", f"sched.wait={wait}")
    pids = run.ready()["pids"].values()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(0.2)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    run.ask()
    assert run.end()[0] == 0


# ---- a call outside the table --------------------------------------------------------------------

SHIM = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
extern char *program_invocation_short_name;
/* The program $TICKLINE_TEST_STAGE does what its table does not hold, at its 1000th turn. */
int sched_yield(void)
{
    static int turns;
    const char *stage = getenv("TICKLINE_TEST_STAGE");
    if (stage && strcmp(program_invocation_short_name, stage) == 0 && ++turns == 1000)
        syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
    return (int)syscall(SYS_sched_yield);
}
"""


@pytest.mark.parametrize("stage", ["rx", "worker", "tx"])
def test_a_call_outside_its_table_ends_a_stage_and_is_named(
    alone: Callable[..., Alone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    shim = tmp_path / "shim.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-xc", "-o", shim, "-"], input=SHIM, text=True, check=True
    )
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    monkeypatch.setenv("TICKLINE_TEST_STAGE", stage)
    run = alone("--set", "sched.wait=yield")
    monkeypatch.undo()
    run.process.wait(timeout=30)  # nobody has told it to end
    _, stderr = run.end()
    name = "worker0" if stage == "worker" else stage
    said = rf"{name}: system call openat \(\d+\) is not in {stage}'s table\n"
    told = [line for line in stderr.splitlines(keepends=True) if line.startswith("tickline: ")]
    assert len(told) == 1
    assert re.fullmatch(f"tickline: stage failed: {said}", told[0])
    assert run.process.returncode == 1
    assert re.fullmatch(said, (run.directory / "log" / f"{name}.log").read_text())
    assert_belongs_to_us(run.directory)


# ---- what cannot be had --------------------------------------------------------------------------


def needs_user_namespaces() -> None:
    if subprocess.run([*IN_USER_NAMESPACE, "true"], check=False).returncode != 0:
        pytest.skip("needs user namespaces")


def test_a_user_namespace_has_nobody_to_become(alone: Callable[..., Alone]) -> None:
    needs_user_namespaces()
    run = alone(before=tuple(IN_USER_NAMESPACE))
    ready = run.ready()
    for name, pid in ready["pids"].items():
        assert_powerless(pid, 0)
        note = ready["obtained"][f"{name} isolate.user"]
        assert (note["asked"], note["obtained"]) == ("nobody", "uid 0")
        assert note["why"]
        assert ready["obtained"][f"{name} isolate.sandbox"]["obtained"] == "yes"
    run.ask()
    status, stderr = run.end()
    assert status == 0, stderr


def test_what_is_needed_there_and_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    needs_user_namespaces()
    done = subprocess.run(
        [*IN_USER_NAMESPACE, TICKLINE, "run", ISOLATED, "--run-dir", tmp_path / "run", *OWN,
         "--set", "isolate.sandbox=need"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr == (
        "tickline: sandbox: calls filtered, no capabilities; cannot become nobody; "
        "mend: run it as root (sudo)\n"
    )
    check = [*IN_USER_NAMESPACE, TICKLINE, "check", ISOLATED, "--json"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["sandbox"]["verdict"] == "warn"


@pytest.mark.parametrize("user", ["nosuchuser", "root", "0"])
def test_a_user_that_cannot_be(tmp_path: Path, user: str) -> None:
    config = tmp_path / "own.ini"
    config.write_text(f"[isolate]\n# whom\nuser = {user}\n")
    for command in ("check", "run"):
        done = subprocess.run(
            [TICKLINE, command, config], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"tickline: {config}:3: isolate.user = {user}: ")
        assert done.stderr.endswith("try nobody\n")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [config]


# ---- whose files are left ------------------------------------------------------------------------

BOUNDED = {"trace__keep": "last 1s", "trace__snapshot_over": "1us"}


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_gives_everything_back(lab: Lab, times: int) -> None:
    process = lab.start("--name", "given-back", replay__requests=100_000, **BOUNDED)
    directory = Path(live_run(lab)["run_directory"])
    time.sleep(1)
    assert (directory / "trace").stat().st_uid == NOBODY
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    outcome: Outcome = lab.finish(process, 30)
    assert outcome.status == 130, outcome.stderr
    assert_belongs_to_us(directory)


@pytest.fixture
def elsewhere() -> Iterator[list[str]]:
    """What goes before a command that is to see run files of its own: `clean` takes all of them."""
    mounts = "mount -t tmpfs tmpfs /run/tickline && echo && exec sleep 300"
    Path("/run/tickline").mkdir(mode=0o700, exist_ok=True)
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mounts], stdout=subprocess.PIPE, text=True
    )
    holder.stdout.readline()
    yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", f"--wd={ROOT}"]
    holder.kill()
    holder.communicate()


def test_a_killed_launcher_leaves_a_run_that_clean_gives_back(
    alone: Callable[..., Alone], elsewhere: list[str]
) -> None:
    run = alone("--set", "trace.keep=last 1s", before=tuple(elsewhere))
    pids = run.ready()["pids"]
    run.ask()
    run.process.kill()
    run.process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids.values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (run.directory / "trace").stat().st_uid == NOBODY
    assert (run.directory / "wire" / "ingress" / "ingress.bin").stat().st_size > 0
    done = subprocess.run(
        [*elsewhere, TICKLINE, "clean"], capture_output=True, text=True, check=True
    )
    assert f"sandbox-{os.getpid()}" in done.stdout
    assert_belongs_to_us(run.directory)
    assert (run.directory / "wire" / "ingress.bin").stat().st_size > 0  # in its place
    assert not (run.directory / "wire" / "ingress").exists()


# ---- the status socket ---------------------------------------------------------------------------

ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
    asking.settimeout(5)
    asking.connect(sys.argv[1])
    message, descriptors, _, _ = socket.recv_fds(asking, 1024, 4)
    print(len(message), len(descriptors))
"""


def test_the_status_socket_answers_its_owner_only(alone: Callable[..., Alone]) -> None:
    run = alone()
    run.ready()
    path = Path(f"/run/tickline/sandbox-{os.getpid()}.{run.process.pid}.sock")
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    reach = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]

    def ask(*before: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, "/usr/bin/python3", "-c", ASK, path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    size, descriptors = map(int, ask().stdout.split())
    assert size > 0
    assert descriptors == 1
    assert "PermissionError" in ask(*nobody).stderr  # its folder is closed, too
    told = ask(*nobody, *reach)
    assert told.stdout.split() == ["0", "0"], told.stderr  # reached, and told nothing
    assert run.end()[0] == 0
