# SPDX-License-Identifier: Apache-2.0
"""`make install`: what it puts where, and that it runs from there, away from the sources."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(
    not (ROOT / "build" / "tickline").exists(), reason="needs build/tickline: make"
)


def make(goal: str, destination: Path) -> None:
    # The programs are built: -o all keeps make from looking at that again.
    command = ["make", "-s", "-o", "all", goal, f"DESTDIR={destination}", "PREFIX=/opt/tickline"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)


def tools() -> list[str]:
    """Those of the harness that the Makefile installs."""
    command = ["make", "-s", "--eval=tools: ; @echo $(TOOLS)", "tools"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix, as it lies in DESTDIR."""
    destination = tmp_path_factory.mktemp("destination")
    make("install", destination)
    return destination / "opt" / "tickline"


def attempt(
    installed: Path, where: Path, name: str, *words: object, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs an installed command in an empty directory."""
    command = [str(installed / "bin" / name), *map(str, words)]
    if name != "tickline":  # with the packages that the tests themselves run with
        command.insert(0, sys.executable)
    done = subprocess.run(
        command,
        cwd=where,
        env={**os.environ, "XDG_CACHE_HOME": str(where / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done


def test_what_is_installed(installed: Path) -> None:
    names = ["tickline", *(f"tickline-{tool}" for tool in tools())]
    assert {"tickline-lab", "tickline-summary", "tickline-compare"} <= set(names)
    assert {path.name for path in (installed / "bin").iterdir()} == set(names)
    for path in (f"bin/{name}" for name in names):
        assert os.access(installed / path, os.X_OK), path
        assert str(installed) not in os.readlink(installed / path)  # it may be moved
    for name in names:
        assert (installed / f"share/man/man1/{name}.1").exists()
        assert (installed / f"share/bash-completion/completions/{name}").exists()
    assert (installed / "share/tickline/configs/isolated.ini").exists()
    assert not list(installed.rglob("*bench*"))  # it is a tool of the sources


def test_the_pipeline_runs_from_there(installed: Path, tmp_path: Path) -> None:
    config = installed / "share/tickline/configs/isolated.ini"
    done = attempt(installed, tmp_path, "tickline", "check", config, "--json")
    assert json.loads(done.stdout)["verdict"] in ("ok", "warn")


def test_the_lab_runs_from_there(installed: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: the lab makes network namespaces")
    config = installed / "share/tickline/configs/isolated.ini"
    name = f"installed-{os.getpid()}"
    words = ["--set", "replay.requests=2000", "--name", name]
    for _ in range(2):
        done = attempt(installed, tmp_path, "tickline-lab", config, *words)
        assert "the account balances" in done.stdout
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    manifest = json.loads((runs[0] / "manifest.json").read_text())
    assert set(manifest["builds"]) == {
        *("rx", "worker", "tx", "tracer", "tickline", "sink", "client")
    }
    assert manifest["flags"]["version"]
    attempt(installed, tmp_path, "tickline-summary", runs[0])
    attempt(installed, tmp_path, "tickline-capture", "info", manifest["capture"]["capture"])
    done = attempt(installed, tmp_path, "tickline-compare", *runs, "--json", status=3)
    assert json.loads(done.stdout)
    assert list((tmp_path / "cache" / "tickline" / "captures").glob("*.pcap"))


def test_completion_knows_commands_options_and_keys(installed: Path) -> None:
    bash = shutil.which("bash")
    script = """
        source "$1"; PATH=$2:$PATH
        for line in 'tickline ' 'tickline check --' 'tickline check --set ring.' 'tickline-lab --'
        do
            read -ra COMP_WORDS <<<"$line"
            [[ $line != *' ' ]] || COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _tickline
            echo "${COMPREPLY[*]}"
        done
    """
    file = installed / "share/bash-completion/completions/tickline"
    done = subprocess.run(
        [bash, "-c", script, "-", file, installed / "bin"],
        capture_output=True,
        text=True,
        check=True,
    )
    commands, options, keys, of_lab = (line.split() for line in done.stdout.splitlines())
    usage = subprocess.run(
        [installed / "bin/tickline", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert {"check", "config", "run", "status", "clean"} <= set(commands)
    assert all(command in usage for command in commands)
    assert all(option == "--help" or option in usage for option in options)
    assert {"ring.depth=", "ring.slot=", "ring.full="} <= set(keys)
    help_text = subprocess.run(
        [sys.executable, ROOT / "harness" / "lab.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(option in help_text for option in of_lab)


def test_the_manual_names_every_option_of_the_lab(installed: Path) -> None:
    for tool in ("lab", "summary", "compare", "capture"):
        command = [sys.executable, ROOT / "harness" / f"{tool}.py"]
        shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        page = (ROOT / "man" / f"tickline-{tool}.1").read_text()
        for word in shown.stdout.replace("[", " ").split():
            if word.startswith("--") and word != "--help":
                assert f"Fl -{word[2:].strip(',]')}" in page, (tool, word)


def test_uninstall_leaves_nothing(installed: Path) -> None:
    make("uninstall", installed.parents[1])
    left = [path for path in installed.rglob("*") if not path.is_dir()]
    assert left == []
