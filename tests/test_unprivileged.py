# SPDX-License-Identifier: Apache-2.0
"""The lab without root: a user namespace of one's own, buffers as the kernel grants them."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

NOBODY = 65534
PARTS = ("shm", "stage", "rx", "worker", "tx", "tracer", "launch", "harness", "configs", "build")


class User:
    """An ordinary user with a tree of his own, as after git clone and a first start."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tree = home / "tickline"
        self.tree.mkdir()
        for name in PARTS:
            shutil.copytree(ROOT / name, self.tree / name)
        for name in ("Makefile", "launch.sh", "requirements.txt"):
            shutil.copy2(ROOT / name, self.tree)
        if (ROOT / ".venv").exists():
            shutil.copytree(ROOT / ".venv", self.tree / ".venv", symlinks=True)
        self.drop: list[str] = []
        if os.geteuid() == 0:
            self.drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            for path in [home, *home.rglob("*")]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.drop, *command],
            cwd=self.tree,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def launch(self, *words: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        """A run of 20,000 requests, and its directory."""
        done = self.run(
            "./launch.sh", "configs/isolated.ini", "--set", "replay.requests=20000", *words
        )
        last = done.stdout.splitlines()[-1] if done.stdout else ""
        return done, self.tree / last.removeprefix("run directory: ")


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    if not (ROOT / "build" / "tickline").exists():
        pytest.skip("needs build/tickline: make")
    with tempfile.TemporaryDirectory(prefix="tickline-user-") as home:
        made = User(Path(home))
        if made.run("unshare", "--user", "--map-root-user", "true").returncode != 0:
            pytest.skip("needs user namespaces")
        python = ".venv/bin/python" if (ROOT / ".venv").exists() else "python3"
        if made.run(python, "-V").returncode != 0:
            pytest.skip("needs a .venv that others may read")
        yield made


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.parametrize("speed", ["1x", "top"])
def test_the_account_balances_and_says_what_was_granted(user: User, speed: str) -> None:
    done, directory = user.launch("--speed", speed)
    assert done.returncode == 0, done.stderr + done.stdout
    summary, manifest = read(directory / "summary.json"), read(directory / "manifest.json")
    account = summary["account"]
    requests, lost = account["requests"], account["datagrams"]["dropped"]["socket"]
    assert requests["offered"] == 20_000 == account["datagrams"]["sent"]
    assert requests["received"] == 20_000 - lost
    assert requests["delivered"] + requests["dropped"]["sink"] == requests["transmitted"]
    assert requests["duplicated"] == requests["corrupted"] == 0

    most = 2 * int(Path("/proc/sys/net/core/rmem_max").read_text())  # the kernel doubles it
    granted = manifest["obtained"]["rx rx.socket_buffer"]
    assert int(granted["obtained"]) == min(most, int(granted["asked"])) == read_granted(manifest)
    if most < int(granted["asked"]):
        assert "rmem_max" in granted["why"]
        said = [reason for reason in summary["degraded_because"] if "socket buffer" in reason]
        assert len(said) == 1
        assert said[0].endswith("of 64 MiB asked")
        assert said == [r for r in manifest["degraded"] if "socket buffer" in r]
        assert said[0] in done.stdout


def read_granted(manifest: dict[str, Any]) -> int:
    """What the kernel itself says of the socket."""
    return manifest["sockets"][0]["rcvbuf"]


def test_no_reason_is_given_where_all_was_granted(user: User) -> None:
    done, directory = user.launch("--set", "rx.socket_buffer=64KiB")
    assert done.returncode == 0, done.stderr
    assert not [r for r in read(directory / "manifest.json")["degraded"] if "buffer" in r]


def test_a_place_that_is_not_his(user: User) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a place that is not the user's")
    done = user.run("./launch.sh", "configs/isolated.ini", "--runs", "/root/runs")
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("tickline: ")]
    assert len(told) == 1
    assert "Permission denied" in told[0]
    assert "choose one by --runs" in told[0]


def test_nothing_is_left_behind(user: User) -> None:
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    mine = [path for path in Path("/dev/shm").glob("tickline*") if path.stat().st_uid == uid]
    assert mine == []
    assert list(Path(f"/tmp/tickline-{uid}").glob("*")) == []
