# SPDX-License-Identifier: Apache-2.0
"""The command line of every tool: argparse, whose complaints are one line here like all others."""

import argparse
import os
import signal
import subprocess
import sys
from typing import NoReturn

USAGE = 2  # exit status


class Parser(argparse.ArgumentParser):
    """Sub-commands take this class along."""

    def error(self, message: str) -> NoReturn:
        print(f"tickline: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(USAGE)


def end_with_reader() -> None:
    """For tools that only print: `| head` ends them, as it ends any other."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def as_root() -> None:
    """Without root, a user namespace of one's own gives a network too, as in launch.sh."""
    if os.geteuid() == 0:
        return
    namespace = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*namespace, "true"], check=False).returncode != 0:
        print("tickline: no user namespaces here; run it as root", file=sys.stderr)
        sys.exit(4)
    os.execvp(namespace[0], [*namespace, sys.executable, *sys.argv])
