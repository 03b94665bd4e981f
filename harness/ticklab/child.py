# SPDX-License-Identifier: Apache-2.0
"""The lab's child processes: how they start, how one talks with them, how they end.

A child has a session of its own, so that a terminal's Ctrl-C reaches the lab alone, and dies with
the lab, even when that is killed. `setpriv` arms that, then becomes `nsenter` and `taskset` and at
last the program, all under one pid.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

# Debian's package of each program that may be missing.
PACKAGES = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "taskset": "util-linux",
    "tcpreplay": "tcpreplay",
    "unshare": "util-linux",
}


# Every child ever started, for kill_all().
_children: list[subprocess.Popen[bytes]] = []


class LabError(Exception):
    """One line for the person at the terminal, and the exit status that goes with it."""

    def __init__(self, message: str, status: int = 4) -> None:
        super().__init__(message)
        self.status = status


def missing(program: str) -> LabError:
    package = PACKAGES.get(program)
    remedy = f"apt-get install {package}" if package else "make"
    return LabError(f"{program}: no such program; {remedy}")


def no_room(where: object, error: OSError) -> LabError:
    """For a disk that is full, or a quota."""
    return LabError(f"{where}: {error.strerror}; make room there, or choose another by --runs")


def become_root() -> None:
    """Begins again in a user namespace of one's own: that gives a network too, with less isolation.

    Never returns; raises LabError where the host has no such namespaces.
    """
    enter = ["unshare", "--user", "--map-root-user"]
    if not shutil.which("unshare"):
        raise missing("unshare")
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode != 0:
        raise LabError("no user namespaces here; run it as root, or see `tickline check CONFIG`")
    os.execvp(enter[0], [*enter, sys.executable, *sys.orig_argv[1:]])


def spawn(
    argv: Sequence[str],
    *,
    namespace: int | None = None,
    cpus: str | None = None,
    death: str = "KILL",
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = subprocess.PIPE,
    stderr: int | IO[Any] | None = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Starts `argv` as a child of the calling (main) thread.

    Parameters
    ----------
    namespace : pid of a process whose network namespace the child shall live in.
    cpus : CPU list of `taskset`; None leaves the lab's own.
    death : signal the child gets when the lab dies.
    """
    command = ["setpriv", "--pdeathsig", death]
    if namespace is not None:
        command += ["nsenter", f"--net=/proc/{namespace}/ns/net"]
    if cpus is not None:
        command += ["taskset", "-c", cpus]
    command += argv
    for program in ("setpriv", "nsenter", "taskset", argv[0]):
        if program in command and not shutil.which(program):
            raise missing(program)
    child = subprocess.Popen(
        command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )
    _children.append(child)
    return child


def kill_all() -> None:
    """Ends every child that still lives at once, by its pid. For a signal handler.

    Two signals, of which the second means "now" to tickline: so it takes its shared memory along.
    """
    alive = [child for child in _children if child.returncode is None]
    for child in alive:
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 1
    for child in alive:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(deadline - time.monotonic(), 0.01))
        child.kill()


def end(child: subprocess.Popen[bytes], patience: float = 2.0, first: int = signal.SIGTERM) -> int:
    """Asks a child to end by the signal `first`, kills it `patience` seconds later. Its status."""
    if child.poll() is None:
        child.send_signal(first)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


def shell_status(returncode: int) -> int:
    """A returncode of subprocess as a shell says it: 128 + n for a signal."""
    return 128 - returncode if returncode < 0 else returncode


class Talker:
    """A child that reads commands on stdin and answers each with a line of JSON on stdout.

    Its stderr goes to `log`. Whatever it says that nobody waits for (an unasked `ready`) is kept
    until somebody does; an `error` event, or its end, raises LabError in whoever waits.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        namespace: int | None,
        cpus: str | None = None,
        death: str = "TERM",
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as stderr:
            self.child = spawn(
                argv,
                namespace=namespace,
                cpus=cpus,
                death=death,
                stdin=subprocess.PIPE,
                stderr=stderr,
            )
        self._text = b""
        self._events: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        return self.child.pid

    def say(self, command: str) -> None:
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(command.encode() + b"\n")
            self.child.stdin.flush()
        except OSError:
            pass  # it has ended: the next wait says why

    def ask(self, command: str, event: str, timeout: float) -> dict[str, Any]:
        """Gives a command and waits for the event that answers it."""
        self.say(command)
        return self.wait_for(event, timeout)

    def wait_for(self, event: str, timeout: float) -> dict[str, Any]:
        """The next event of this name, at most `timeout` seconds from now."""
        deadline = time.monotonic() + timeout
        while True:
            self._complain()
            for index, found in enumerate(self._events):
                if found.get("event") == event:
                    del self._events[index]
                    return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise LabError(f"{self.name}: no {event} within {timeout:g} s; see {self.log}")
            self._read(left)

    def taken(self, event: str) -> list[dict[str, Any]]:
        """The events of this name that have been read and not been asked for."""
        found = [one for one in self._events if one.get("event") == event]
        self._events = [one for one in self._events if one.get("event") != event]
        return found

    def check(self) -> None:
        """Raises LabError when the child has reported an error or has ended."""
        while select.select([self.child.stdout], [], [], 0)[0]:
            self._read(0)
        self._complain()

    def _complain(self) -> None:
        for found in self._events:
            if found.get("event") == "error":
                self._events.remove(found)
                raise LabError(found["message"], int(found.get("exit", 4)))

    def _read(self, timeout: float) -> None:
        assert self.child.stdout is not None
        if not select.select([self.child.stdout], [], [], timeout)[0]:
            return
        data = os.read(self.child.stdout.fileno(), 65536)
        if not data:
            raise self._ended()
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            try:
                self._events.append(json.loads(line))
            except ValueError:
                raise LabError(f"{self.name}: not a line of JSON: {line[:200]!r}") from None

    def _ended(self) -> LabError:
        """Its end, by the reason it gave itself where it did."""
        self._complain()
        code = self.child.wait()
        how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        words = "" if code == -signal.SIGKILL else self.last_words()  # nobody says why of that
        return LabError(
            words or f"{self.name}: {how}; its log is {self.log}",
            shell_status(code) or 4,
        )

    def said(self) -> list[str]:
        """The lines of its log."""
        return self.log.read_text(errors="replace").strip().splitlines()

    def last_words(self) -> str:
        """The last line of its log, or nothing."""
        return self.said()[-1] if self.said() else ""
