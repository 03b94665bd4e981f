# SPDX-License-Identifier: Apache-2.0
"""The command line of every tool: argparse, whose complaints are one line here like all others."""

import argparse
import signal
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
