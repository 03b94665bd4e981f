#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes requests of a run as a Chrome trace, to look at in ui.perfetto.dev or chrome://tracing."""

import _venv  # noqa: F401, I001 - moves to the repository's .venv before anything else is imported

import os
import sys
from pathlib import Path

from ticklab import arguments
from ticklab import timeline
from ticklab.ctf import TraceError
from ticklab.run import Run, RunError


def main() -> int:
    parser = arguments.Parser(
        description=__doc__,
        epilog="Times are relative to the first stamp of the measured phase, the kernel's where it "
        "gave one. exit status: 0 fine, 2 not a run that can be read, no such request, an empty "
        "window",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory, runs/NAME-TIME")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--worst",
        metavar="N",
        type=int,
        help="the N requests that took longest through, and what else the stages worked on "
        "meanwhile (default: 100)",
    )
    which.add_argument(
        "--around",
        metavar="ID",
        help="the request of a wire id, or of a number: '#4711'; and 1 ms before and after it",
    )
    which.add_argument("--from", dest="since", metavar="T", help="all from here, such as 1.5ms, 2s")
    parser.add_argument("--to", dest="until", metavar="T", help="all up to here")
    parser.add_argument(
        "-o", dest="output", metavar="FILE", help="default: RUN/timeline.json; - is stdout"
    )
    options = parser.parse_args()
    if options.until is not None and (options.worst is not None or options.around is not None):
        parser.error("argument --to: not allowed with --worst or --around")
    path = Path(options.output or Path(options.run) / "timeline.json")
    to_stdout = options.output == "-"
    try:
        facts = timeline.read(Run(options.run, salvaged=True))
        if options.around is not None:
            selection = timeline.around(facts, options.around)
        elif options.since is not None or options.until is not None:
            selection = timeline.between(facts, options.since, options.until)
        else:
            selection = timeline.worst(facts, 100 if options.worst is None else options.worst)
        document = timeline.timeline(facts, selection)
        text = timeline.to_json(document)
        if to_stdout:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            path.write_text(text)
    except BrokenPipeError:
        # Whoever read has seen enough; nothing more is to be said to the pipe at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (timeline.TimelineError, RunError, TraceError, OSError) as error:
        print(f"timeline.py: {error}", file=sys.stderr)
        return 2
    events, said = len(document["traceEvents"]), document["otherData"]
    where = "stdout" if to_stdout else path
    print(f"timeline.py: {where}: {said['shows']}; {events:,} events", file=sys.stderr)
    notes = [*selection.notes, *said["left_out"]]
    if facts.run.is_salvaged:
        notes.append(
            "the run was killed and salvaged: its warm-up is among the requests, and what its "
            "stages counted, the capture and the host are not known"
        )
    for line in notes:
        print(f"timeline.py: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
