# SPDX-License-Identifier: Apache-2.0
"""What of the trace stays on disk: bounded histories and the flight recorder."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
from conftest import BUILD, ROOT, Lab
from test_runs import babeltrace, live_run

from ticklab.ctf import Trace
from ticklab.run import Run


def bytes_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def test_a_bounded_trace_keeps_the_last_second_and_is_readable(lab: Lab) -> None:
    outcome = lab.run(trace__keep="last 1s", trace__lane="1MiB", replay__requests=80_000)
    assert outcome.status == 0, outcome.stderr + outcome.stdout
    babeltrace(outcome.directory / "trace")
    run = Run(outcome.directory)
    lane = run.trace.lanes["rx"]  # its clock pairs go on to the end
    assert np.all(np.diff(lane.tsc.astype(np.int64)) >= 0)
    seconds = (int(lane.tsc[-1]) - int(lane.tsc[0])) / run.tsc_hz
    assert 0.9 < seconds < 1.5  # and up to a chunk more
    assert int(lane.request.max()) == run.counters["end"]["rx"]["issued"]
    assert outcome.summary["account"]["requests"]["delivered"] == 80_000
    assert not list((outcome.directory / "wire").glob("ingress.0*"))


def test_max_bytes_bounds_the_files(lab: Lab) -> None:
    most = 16 << 20
    process = lab.start(
        "--speed", "top", "--name", "bounded", trace__max_bytes="16MiB", trace__lane="1MiB",
        replay__requests=400_000,
    )  # fmt: skip
    directory = Path(live_run(lab)["run_directory"])
    largest = 0
    while process.poll() is None:
        if (directory / "trace").exists():
            try:
                largest = max(largest, bytes_of(directory / "trace"))
            except FileNotFoundError:  # removed while we looked
                continue
        time.sleep(0.02)
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    assert 0 < largest <= most + (2 << 20)  # and one open sub-buffer a lane
    babeltrace(outcome.directory / "trace")


def test_a_stall_leaves_a_snapshot_that_holds_it(lab: Lab) -> None:
    # Three times: a stall of the host itself, just before, may have been the second's snapshot.
    stall_s = 0.05
    process = lab.start(
        "--name", "stalled", trace__keep="2s", trace__lane="1MiB",
        trace__snapshot_over="20ms", replay__requests=100_000,
    )  # fmt: skip
    run = live_run(lab)
    worker = next(stage["pid"] for stage in run["stages"] if stage["name"] == "worker0")
    stalls = []
    for _ in range(3):
        time.sleep(1.2)
        os.kill(worker, signal.SIGSTOP)
        stopped_ns = time.time_ns()
        time.sleep(stall_s)
        os.kill(worker, signal.SIGCONT)
        stalls.append((stopped_ns, time.time_ns()))
    outcome = lab.finish(process)
    assert outcome.status == 0, outcome.stderr
    snapshots = sorted((outcome.directory / "snapshots").iterdir())
    assert snapshots
    held = []
    for snapshot in snapshots:
        babeltrace(snapshot)
        trace = Trace(snapshot)
        lane = trace.lanes["worker0"]
        at_ns = trace.metadata.offset_ns + lane.tsc.astype(np.float64) * 1e9 / trace.metadata.tsc_hz
        request = int(snapshot.name.rpartition("-")[2])
        for stopped_ns, resumed_ns in stalls:
            during = (at_ns > stopped_ns - 5e6) & (at_ns < resumed_ns + 5e6)
            gap_ns = np.diff(at_ns[during]).max(initial=0)
            held.append(gap_ns > 0.9 * stall_s * 1e9 and request in lane.request)
    assert any(held), [snapshot.name for snapshot in snapshots]


def test_a_snapshot_of_an_unbounded_trace_is_refused(lab: Lab) -> None:
    done = subprocess.run(
        [BUILD / "tickline", "config", ROOT / "configs" / "isolated.ini",
         "--set", "trace.snapshot_over=5ms"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "trace.keep = last 10s" in done.stderr
    assert json.dumps(done.stderr).count("\\n") == 1
