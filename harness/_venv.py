# SPDX-License-Identifier: Apache-2.0
"""Imported first by every entry point: moves over to the repository's .venv where there is one.

Without a .venv Debian's own packages serve, and Debian's own Python where another one stands first
in the PATH and lacks them. Ctrl-C while the rest is imported ends with status 130.
"""

import os
import sys


def _told(kind, error, trace) -> None:
    """Ctrl-C before the program has begun to mind it is no error to be told."""
    if issubclass(kind, KeyboardInterrupt):
        os._exit(130)
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _told

import importlib.util  # noqa: E402
from pathlib import Path  # noqa: E402

_home = Path(__file__).resolve().parent.parent / ".venv"
_python = _home / "bin" / "python"
_debian = Path("/usr/bin/python3")


def _move(python: Path) -> None:
    os.execv(python, [str(python), *sys.orig_argv[1:]])


_missing = [name for name in ("numpy", "rich", "xxhash") if not importlib.util.find_spec(name)]
_ready = (_home / "pyvenv.cfg").exists() and os.access(_python, os.X_OK)
if _ready and Path(sys.prefix).resolve() != _home.resolve():
    _move(_python)
_other = Path(sys.executable).resolve() != _debian.resolve()
if _missing and not _ready and _other and os.access(_debian, os.X_OK):
    _move(_debian)
if _missing:
    print(
        f"tickline: Python's {', '.join(_missing)} missing; run harness/setup.sh, or as root: "
        f"apt-get install {' '.join(f'python3-{name}' for name in _missing)}",
        file=sys.stderr,
    )
    sys.exit(4)
