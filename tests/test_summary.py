# SPDX-License-Identifier: Apache-2.0
"""harness/summary.py on runs of which all is known: the account, the figures, the screen."""

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import Synthetic

from ticklab import terminal
from ticklab.run import DELIVERED, STATUS_DUPLICATED
from ticklab.summary import summarise
from ticklab.terminal import cell, us

SUMMARY = Path(__file__).resolve().parent.parent / "harness" / "summary.py"


def summary_py(*arguments, **environment):
    """The finished process; environment=None takes a variable away."""
    variables = {**os.environ, "COLUMNS": "100", **environment}
    return subprocess.run(
        [sys.executable, SUMMARY, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={name: value for name, value in variables.items() if value is not None},
    )


def lossy():
    """A request of every fate: 1000 offered, 10 each lost in every way there is."""
    synthetic = Synthetic()
    fates = ("lost", "ring", "rejected", "filtered", "tx", "sink")
    for i, fate in enumerate(fates):
        begin = synthetic.row(100 * (i + 1))
        synthetic.fate[begin : begin + 10] = fate
    return synthetic


# ---- the account


def test_account_of_a_clean_run(tmp_path):
    summary = summarise(Synthetic().write(tmp_path / "run"))
    assert summary["balanced"]
    assert summary["complete"]
    # The whole trace: nine points a request, ten of the warm-up, and eight clock pairs.
    assert summary["trace"]["records"] == 9098
    assert summary["account"] == {
        "datagrams": {
            "sent": 1000,
            "received": 1000,
            "dropped": {"wire": 0, "ip": 0, "socket": 0},
        },
        "requests": {
            "offered": 1000,
            "lost_with_datagrams": 0,
            "received": 1000,
            "rejected": {
                "empty": 0,
                "truncated": 0,
                "bad_header": 0,
                "bad_digit": 0,
                "bad_length": 0,
                "oversized": 0,
                "bad_payload": 0,
                "reply_too_big": 0,
                "wrong_length": 0,
                "bad_checksum": 0,
                "bad_encoding": 0,
            },
            "dropped": {"ring": 0, "tx": 0, "sink": 0},
            "lost": {"rx": 0},
            "in_flight": {"to_worker": 0, "to_tx": 0},
            "processed": 1000,
            "filtered": 0,
            "transmitted": 1000,
            "repeated": 0,
            "delivered": 1000,
            "duplicated": 0,
            "corrupted": 0,
            "unknown": 0,
        },
    }


def test_account_of_every_loss(tmp_path):
    summary = summarise(lossy().write(tmp_path / "run"))
    assert summary["unbalanced"] == []
    requests = summary["account"]["requests"]
    assert requests["rejected"].pop("bad_payload") == 10
    assert not any(requests.pop("rejected").values())
    assert requests == {
        "offered": 1000,
        "lost_with_datagrams": 10,
        "received": 990,
        "dropped": {"ring": 10, "tx": 10, "sink": 10},
        "lost": {"rx": 0},
        "in_flight": {"to_worker": 0, "to_tx": 0},
        "processed": 970,
        "filtered": 10,
        "transmitted": 950,
        "repeated": 0,
        "delivered": 940,
        "duplicated": 0,
        "corrupted": 0,
        "unknown": 0,
    }
    assert summary["account"]["datagrams"]["dropped"] == {"wire": 0, "ip": 0, "socket": 10}
    assert summary["first_loss"] == {
        "position": 100,
        "id": 101,
        "planned_ns": 5_000_000,
        "received": False,
        "lines": {"datagrams.dropped.socket": 10},
    }


def test_what_the_player_did_not_send_is_a_loss_of_its_own(tmp_path):
    synthetic = Synthetic(manifest={"replay.sent": 980, "wire.sent": 980})
    synthetic.fate[synthetic.row(980) :] = "lost"
    synthetic.counters = {"end.sockets.0.drops": 0}
    summary = summarise(synthetic.write(tmp_path / "run"))
    assert summary["balanced"]
    assert summary["first_loss"]["position"] == 980
    assert summary["first_loss"]["lines"] == {"replay.not_sent": 20}


def test_first_loss_behind_rx(tmp_path):
    synthetic = Synthetic()
    synthetic.fate[synthetic.row(800)] = "lost"
    synthetic.fate[synthetic.row(700)] = "ring"
    loss = summarise(synthetic.write(tmp_path / "run"))["first_loss"]
    assert (loss["position"], loss["received"]) == (700, True)
    assert loss["lines"] == {"requests.dropped.ring": 1}


@pytest.mark.parametrize(
    ("where", "change", "line"),
    [
        (
            "manifest",
            {"wire.sent": 1003},
            "datagrams.sent: sent 1003 ≠ received 1000 + dropped.wire 0 + dropped.ip 0 + "
            "dropped.socket 0 (1000); +3",
        ),
        (
            "counters",
            {"end.rx.issued": 1011},
            "requests.offered: offered 1000 ≠ lost_with_datagrams 0 + received 1001 (1001); -1",
        ),
        (
            "counters",
            {"end.to_worker.0.consumed": 1008},
            "requests.received: received 1000 ≠ rejected 0 + dropped.ring 0 + lost.rx 0 + "
            "in_flight.to_worker 2 + processed 1000 (1002); -2",
        ),
        (
            "counters",
            {"end.outcomes.dropped_tx": 5},
            "requests.processed: processed 1000 ≠ filtered 0 + in_flight.to_tx 0 + dropped.tx 5 + "
            "transmitted 1000 (1005); -5",
        ),
        (
            "manifest",
            {"sink.delivered": 998},
            "requests.transmitted: transmitted 1000 + repeated 0 ≠ delivered 998 + "
            "dropped.sink 0 (998); +2",
        ),
        ("manifest", {"sink.corrupted": 1}, "requests.corrupted: 1: expected 0"),
        ("manifest", {"sink.duplicated": 2}, "requests.duplicated: 2: expected 0"),
        ("manifest", {"sink.unknown": 3}, "requests.unknown: 3: expected 0"),
    ],
)
def test_each_line_can_fail_and_is_named(tmp_path, where, change, line):
    directory = Synthetic(**{where: change}).write(tmp_path / "run")
    assert summarise(directory)["unbalanced"] == [line]
    done = summary_py(directory)
    assert done.returncode == 1
    assert done.stderr == f"summary.py: {directory}: the account does not balance: {line}\n"
    assert "✗ the account does not balance" in done.stdout


def test_offered_is_checked_by_id_and_not_by_count(tmp_path):
    """A request received that nobody offered is no answer for one that was lost."""
    directory = Synthetic().write(tmp_path / "run")
    path = directory / "wire" / "ingress.bin"
    ingress = np.fromfile(path, "<u8").reshape(-1, 4)
    ingress[500, 1] = 99_999_999
    ingress.tofile(path)
    summary = summarise(directory)
    assert summary["account"]["requests"]["lost_with_datagrams"] == 1
    assert summary["unbalanced"] == [
        "requests.offered: offered 1000 ≠ lost_with_datagrams 1 + received 1000 (1001); -1"
    ]


@pytest.mark.parametrize("twice", [0, 1, 2, 3])
def test_repeated_replies_are_told_from_duplicated_ones_by_id(tmp_path, twice):
    """Of three replies in doubt so many came twice; and one came twice that nobody lists."""
    positions = [3, 50, 700]
    in_doubt = [Synthetic().row(position) for position in positions]  # they are numbered from 0
    directory = Synthetic(
        counters={"end.repeated": in_doubt},
        manifest={"sink.duplicated": twice + 1, "sink.delivered": 1001 + twice},
    ).write(tmp_path / "run")
    path = directory / "wire" / "delivered.bin"
    delivered = np.fromfile(path, DELIVERED)
    again = delivered[[*positions[:twice], 800]]
    again["status"] = STATUS_DUPLICATED
    np.concatenate([delivered, again]).tofile(path)
    summary = summarise(directory)
    requests = summary["account"]["requests"]
    assert (requests["repeated"], requests["duplicated"]) == (twice, 1)
    assert summary["unbalanced"] == [
        f"requests.transmitted: transmitted 1000 + repeated {twice} ≠ delivered {1001 + twice} + "
        f"dropped.sink 0 ({1001 + twice}); -1",
        "requests.duplicated: 1: expected 0",
    ]


def test_without_a_sink_repeated_is_what_is_in_doubt(tmp_path):
    serve = Synthetic(serve=True, counters={"end.repeated": [12, 12, 19]})  # 12 twice
    summary = summarise(serve.write(tmp_path / "run"))
    assert summary["account"]["requests"]["repeated"] == 2


def test_restarts_are_told(tmp_path):
    restart = {"stage": "worker0", "generation": 2, "cause": "killed by signal 9 (Killed)"}
    restart |= {"last_tick": 5_200, "noticed": 6_000, "back": 2_605_200}
    waited = restart | {"waiting": 3, "first": 17, "last": 19}
    lost = restart | {"stage": "tracer", "back": 0, "waiting": 0, "first": 0, "last": 0}
    directory = Synthetic(counters={"restarts": [waited, lost]}).write(tmp_path / "run")
    summary = summarise(directory)
    common = {"generation": 2, "cause": "killed by signal 9 (Killed)"}
    assert summary["restarts"] == [
        {"stage": "worker0", **common, "waiting": 3, "first_waiting": 17, "last_waiting": 19,
         "gone_ns": 1_000_000.0},
        {"stage": "tracer", **common, "waiting": 0},
    ]  # fmt: skip
    text = io.StringIO()
    terminal.show_summary(summary, text)
    assert "worker0 was killed by signal 9 (Killed): gone for 1.0 ms" in text.getvalue()
    assert "requests 17 to 19 waited" in text.getvalue()
    assert "tracer was killed by signal 9 (Killed): not back" in text.getvalue()
    assert "restarts" not in summarise(Synthetic().write(tmp_path / "none"))


def test_serve_knows_neither_offered_nor_delivered(tmp_path):
    summary = summarise(Synthetic(serve=True).write(tmp_path / "run"))
    assert summary["balanced"]
    requests = summary["account"]["requests"]
    assert requests["received"] == 1010
    assert not {"offered", "lost_with_datagrams", "delivered", "duplicated"} & requests.keys()
    assert "sent" not in summary["account"]["datagrams"]
    assert "wire_to_wire" not in summary["latency_ns"]
    assert "replay" not in summary
    assert summary["latency_ns"]["through"]["count"] == 1010
    assert summary_py(tmp_path / "run").returncode == 0


# ---- the figures


def test_latency_of_a_clean_run(tmp_path):
    latency = summarise(Synthetic().write(tmp_path / "run"))["latency_ns"]
    figures = ("min", "p50", "p90", "p99", "max", "mean")
    same = {name: entry["p50"] for name, entry in latency.items()}
    assert same == {
        "wire_to_wire": 7000.0,
        "through": 6500.0,
        "waits": 3800.0,
        "works": 2700.0,
        "kernel..rx_got": 2000.0,
        "rx_got..rx_put": 500.0,
        "rx_put..worker_got": 1000.0,
        "worker_got..worker_parsed": 100.0,
        "worker_parsed..worker_done": 200.0,
        "worker_done..worker_put": 300.0,
        "worker_put..tx_got": 800.0,
        "tx_got..tx_sent": 400.0,
        "tx_sent..tx_complete": 1200.0,
    }
    for name, entry in latency.items():
        kind = {"kind": entry["kind"]} if "kind" in entry else {}
        assert entry == {**kind, "count": 1000, "of": 1000, **dict.fromkeys(figures, same[name])}


def test_measured_phase_alone_counts(tmp_path):
    synthetic = Synthetic()
    for name in ("tx_sent", "tx_complete"):
        synthetic.ticks[name][: synthetic.warmup] += 26_000
    latency = summarise(synthetic.write(tmp_path / "run"))["latency_ns"]
    assert latency["through"]["max"] == 6500.0


def test_missing_records_make_bounds(tmp_path):
    directory = Synthetic(discard={"worker0": list(range(400, 420))}).write(tmp_path / "run")
    summary = summarise(directory)
    assert not summary["complete"]
    assert summary["incomplete_because"] == ["20 records missing in lane worker0"]
    assert summary["trace"]["discarded"] == 20
    assert summary["trace"]["missing"] == {"worker0": 20}
    latency = summary["latency_ns"]
    assert (
        latency["worker_done..worker_put"]["count"],
        latency["worker_done..worker_put"]["of"],
    ) == (
        995,
        1015,
    )
    assert latency["kernel..rx_got"]["of"] == 1000
    shown = summary_py(directory).stdout
    line = next(line for line in shown.splitlines() if line.startswith("worker_put..tx_got"))
    # 995 records have too few beyond p99.
    assert line.split() == ["worker_put..tx_got", "wait", "995", "0.800", "-", "-", "≥0.800"]
    assert "≥: records are missing; the figure is a bound" in shown


def test_bound_is_printed_from_p99_up():
    entry = {"count": 9, "of": 10, "p50": 1500.0, "p90": 1500.0, "p99": 1500.0, "max": 1500.0}
    shown = [cell(entry, name) for name in ("p50", "p90", "p99", "p99_9", "max")]
    assert shown == ["1.500", "1.500", "≥1.500", "-", "≥1.500"]
    assert cell({**entry, "of": 9}, "max") == "1.500"


def test_replies_lost_at_the_sink_make_a_bound(tmp_path):
    synthetic = Synthetic()
    synthetic.fate[synthetic.row(3)] = "sink"
    summary = summarise(synthetic.write(tmp_path / "run"))
    assert summary["incomplete_because"] == ["wire_to_wire of 999 requests, 1000 were sent"]
    entry = summary["latency_ns"]["wire_to_wire"]
    assert (entry["count"], entry["of"]) == (999, 1000)


def test_records_that_the_file_lost_are_missed(tmp_path):
    directory = Synthetic(counters={"end.lanes.tx.records": 3035}).write(tmp_path / "run")
    summary = summarise(directory)
    assert summary["trace"]["missing"] == {"tx": 5}
    assert not summary["complete"]


def test_negative_spans_are_counted(tmp_path):
    synthetic = Synthetic()
    row = synthetic.row(5)
    synthetic.ticks["tx_got"][row] = synthetic.ticks["worker_put"][row] - 26
    summary = summarise(synthetic.write(tmp_path / "run"))
    assert summary["trace"]["negative_spans"] == 1
    assert summary["trace"]["negative"] == {"worker_put..tx_got": 1}
    assert summary["latency_ns"]["worker_put..tx_got"]["min"] == -10.0
    assert summary["latency_ns"]["through"]["max"] == 6500.0


def test_ids_that_come_again_are_matched_in_turn(tmp_path):
    synthetic = Synthetic(warmup=0)
    synthetic.id[:] = np.arange(1000) % 10
    synthetic.wire_ns[:] = np.arange(1000) + 5000
    entry = summarise(synthetic.write(tmp_path / "run"))["latency_ns"]["wire_to_wire"]
    assert (entry["count"], entry["min"], entry["p50"], entry["max"]) == (1000, 5000, 5499, 5999)


def test_lateness_is_aligned_at_the_earliest(tmp_path):
    synthetic = Synthetic()
    synthetic.kernel_ns[synthetic.warmup :] += np.arange(1000)[::-1]
    replay = summarise(synthetic.write(tmp_path / "run"))["replay"]
    assert replay["lateness_ns"] == {"p50": 499.0, "p99": 989.0, "max": 999.0}
    top = Synthetic(manifest={"replay.speed": "top"}).write(tmp_path / "top")
    assert "lateness_ns" not in summarise(top)["replay"]


def test_regimes_are_of_the_measured_phase_and_add_up(tmp_path):
    regimes = summarise(Synthetic().write(tmp_path / "run"))["regimes"]
    assert list(regimes) == ["rx", "worker0", "tx", "tracer"]
    assert regimes["rx"] == {"work": 0.25, "idle": 0.6, "blocked": 0.05, "housekeeping": 0.1}


def test_a_successor_goes_on_counting(tmp_path):
    restarted = {"end.stages.tx.generation": 2}
    directory = Synthetic(counters=restarted).write(tmp_path / "restarted")
    plain = Synthetic().write(tmp_path / "plain")
    assert summarise(directory)["regimes"] == summarise(plain)["regimes"]


def test_noise_is_merged_by_cpu(tmp_path):
    noise = summarise(Synthetic().write(tmp_path / "run"))["noise"]
    # A stage has 90 gaps: 81 of 1 µs and 9 of 8 µs; three stages share CPU 1.
    assert noise["0"]["gaps"] == 90
    assert noise["1"]["gaps"] == 270
    assert (noise["1"]["p99"], noise["1"]["max"]) == (8192.0, 100_000.0)
    assert noise["1"]["share"] == pytest.approx(3 * noise["0"]["share"], abs=2e-6)
    # The longest gap was in the warm-up: what the histogram says is left.
    old = {f"mark.stages.{stage}.gaps.max_ticks": 260_000 for stage in ("rx", "worker0", "tx")}
    noise = summarise(Synthetic(counters=old).write(tmp_path / "old"))["noise"]
    assert noise["1"]["max"] == 8192.0


def test_request_numbers_that_wrap(tmp_path):
    summary = summarise(Synthetic(first=(1 << 32) - 300).write(tmp_path / "run"))
    assert summary["balanced"]
    assert summary["latency_ns"]["through"]["count"] == 1000
    assert summary["latency_ns"]["through"]["max"] == 6500.0


def test_a_run_without_a_trace(tmp_path):
    bare = {"end.lanes": {}, "mark.lanes": {}}
    directory = Synthetic(counters=bare).write(tmp_path / "run")
    shutil.rmtree(directory / "trace")
    summary = summarise(directory)
    assert list(summary["latency_ns"]) == ["wire_to_wire"]
    assert summary["complete"]
    assert summary_py(directory).returncode == 0


# ---- the tool


def test_rebuilt_files_are_the_same_bytes(tmp_path):
    directory = lossy().write(tmp_path / "run")
    first = summary_py(directory)
    assert first.returncode == 0
    names = ("summary.json", "latency.hgrm")
    built = [(directory / name).read_bytes() for name in names]
    shutil.copytree(directory, tmp_path / "elsewhere")
    for name in names:
        (tmp_path / "elsewhere" / name).unlink()
    second = summary_py(tmp_path / "elsewhere", PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    assert second.stdout == first.stdout
    assert [(tmp_path / "elsewhere" / name).read_bytes() for name in names] == built
    assert str(tmp_path).encode() not in built[0]


def test_json_is_the_file(tmp_path):
    directory = Synthetic().write(tmp_path / "run")
    done = summary_py(directory, "--json")
    assert done.returncode == 0
    assert done.stdout == (directory / "summary.json").read_text()
    assert json.loads(done.stdout)["schema"] == 1


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        done = summary_py(path)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"summary.py: {path}: not a run directory")
        assert done.stderr.count("\n") == 1
    directory = Synthetic().write(tmp_path / "run")
    (directory / "trace" / "tx").write_bytes(b"x")
    done = summary_py(directory)
    assert done.returncode == 2
    assert "trace/tx: 0: 1 bytes" in done.stderr
    assert done.stderr.count("\n") == 1


def test_degraded_is_said_with_its_reason(tmp_path):
    directory = Synthetic(manifest={"degraded": ["3 stages share cpu 1"]}).write(tmp_path / "run")
    assert "degraded: 3 stages share cpu 1" in summary_py(directory).stdout
    assert json.loads((directory / "summary.json").read_text())["degraded"] is True


@pytest.mark.parametrize("columns", [80, 104, 120, 300])
def test_screen_fits(tmp_path, columns):
    shown = summary_py(lossy().write(tmp_path / "run"), COLUMNS=str(columns)).stdout
    assert max(map(len, shown.splitlines())) <= min(columns, 120)
    assert "…" not in shown
    for word in (
        "dropped.ring 10",
        "in_flight.to_tx 0",
        "worker_parsed..worker_done",
        "rx → worker0",
    ):
        assert word in shown


def on_a_terminal(directory, **environment):
    """What summary.py writes to a terminal."""
    ours, theirs = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        [sys.executable, SUMMARY, directory],
        stdout=theirs,
        env={**variables, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            written += part
    os.close(ours)
    assert process.returncode == 0
    return written.decode()


def test_colour_on_a_terminal_unless_no_color(tmp_path):
    directory = Synthetic().write(tmp_path / "run")
    assert "\x1b[" in on_a_terminal(directory)
    assert "\x1b" not in on_a_terminal(directory, NO_COLOR="1")
    assert "\x1b" not in summary_py(directory, FORCE_COLOR="1").stdout


def test_times_are_readable():
    assert [us(ns) for ns in (84, 9_999, 12_345.6, 1_234_567, 25_000_000, -7)] == [
        "0.084",
        "9.999",
        "12.35",
        "1,234.57",
        "25,000",
        "-0.007",
    ]
