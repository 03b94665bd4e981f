# SPDX-License-Identifier: Apache-2.0
"""What the fuzz targets of the Python readers share: coverage by atheris, files in memory.

A target is a function of the input's bytes. It may end in the reader's own error; whatever else
comes out of it is a finding, and so are more than ten seconds and two gigabytes (see run.sh).
Without atheris the files named on the command line are replayed, and nothing is fuzzed.
"""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "harness"))
try:
    import atheris
except ImportError:
    atheris = None


def instrumented() -> AbstractContextManager:
    """Modules of the harness imported within tell the fuzzer which of their lines ran."""
    return atheris.instrument_imports(include=["ticklab"]) if atheris else nullcontext()


def folder() -> Path:
    """An empty directory of this process, removed at its end."""
    path = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def require(held: bool, what: str) -> None:
    """A property that must hold for every input."""
    if not held:
        raise AssertionError(f"does not hold: {what}")


def one_line(error: Exception) -> None:
    """What a person is told of a file that cannot be read is one line."""
    require("\n" not in str(error), f"one line: {error}")


def run(target: Callable[[bytes], None]) -> None:
    """The main of a target; takes libFuzzer's arguments."""
    if atheris:
        atheris.Setup(sys.argv, target)
        atheris.Fuzz()
        return
    files = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    for path in files:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            target(file.read_bytes())
    print(f"atheris is missing: {len(files)} seeds replayed, nothing fuzzed; pip install atheris")
    sys.stdout.flush()
    os._exit(0)
