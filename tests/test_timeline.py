# SPDX-License-Identifier: Apache-2.0
"""harness/timeline.py: a Chrome trace that viewers take, with the numbers of the span table."""

import copy
import html
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from conftest import Lab
from synthetic import RECORD, SPANS, WIDE, Synthetic, tsc_at

from ticklab import spans, timeline
from ticklab.clock import clock_of
from ticklab.run import Run
from ticklab.summary import summarise

TIMELINE = Path(__file__).resolve().parent.parent / "harness" / "timeline.py"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
STALLED = 50  # position of the first of ten that wait for the worker


def timeline_py(*arguments):
    return subprocess.run(
        [sys.executable, TIMELINE, *map(str, arguments)], capture_output=True, text=True
    )


def stalled(**more) -> Synthetic:
    """Ten requests, a µs apart, wait for a worker that takes up the first 100 µs after it came."""
    synthetic = Synthetic(requests=200, **more)
    i = np.arange(10)
    rows = synthetic.row(STALLED) + i
    start = synthetic.kernel_ns[rows[0]]
    synthetic.kernel_ns[rows] = start + 1000 * i
    after = {"rx_got": 2000, "rx_put": 2500}
    behind = {"worker_got": 0, "worker_parsed": 100, "worker_done": 300, "worker_put": 600}
    behind |= {"tx_got": 1400, "tx_sent": 1800, "tx_complete": 3000}
    synthetic.ticks["kernel"][rows] = tsc_at(start + 1000 * i)
    for name, ns in after.items():
        synthetic.ticks[name][rows] = tsc_at(start + 1000 * i + ns)
    for name, ns in behind.items():
        synthetic.ticks[name][rows] = tsc_at(start + 100_000 + 2000 * i + ns)
    return synthetic


def drawn(run: Path, which: str, *arguments, bound: int = timeline.EVENTS_MAX) -> dict:
    """The document, as it reads once written."""
    facts = timeline.read(Run(run))
    selection = getattr(timeline, which)(facts, *arguments)
    return json.loads(timeline.to_json(timeline.timeline(facts, selection, bound)))


def events(document: dict, phase: str, **wanted) -> list[dict]:
    return [
        event
        for event in document["traceEvents"]
        if event["ph"] == phase and all(event.get(key) == what for key, what in wanted.items())
    ]


def pids(document: dict) -> dict[str, int]:
    return {e["args"]["name"]: e["pid"] for e in events(document, "M", name="process_name")}


# ---- the schema


def problems(document: dict) -> list[str]:
    """What a viewer would misread, a line each."""
    found: list[str] = []
    if document.get("displayTimeUnit") != "ns":
        found.append("displayTimeUnit is not ns")
    named = set(pids(document).values())
    order = [e["args"]["sort_index"] for e in events(document, "M", name="process_sort_index")]
    if len(set(order)) != len(named):
        found.append("processes without a place of their own")
    timed = [event for event in document["traceEvents"] if event["ph"] != "M"]
    for event in timed:
        ts = event.get("ts")
        if event["ph"] not in "XbesftCi" or not event.get("name") or event.get("pid") not in named:
            found.append(f"unknown phase, process or name: {event}")
        if not isinstance(ts, int | float) or ts < 0 or abs(ts * 1000 - round(ts * 1000)) > 0.01:
            found.append(f"ts is not µs with three decimals from zero: {event}")
        if event["ph"] == "i" and event.get("s") not in ("t", "p", "g"):
            found.append(f"instant without a scope: {event}")
        if event["ph"] == "C" and not all(n >= 0 for n in event["args"].values()):
            found.append(f"counter below zero: {event}")
    if [event["ts"] for event in timed] != sorted(event["ts"] for event in timed):
        found.append("not in order of time")
    slices = defaultdict(list)
    for event in events(document, "X"):
        slices[event["pid"], event["tid"]].append(event)
    return [
        *found,
        *(line for track in slices.values() for line in _slice_problems(document, track)),
        *_pair_problems(document),
        *_flow_problems(document, slices),
    ]


def _ns(us: float) -> int:
    return round(us * 1000)


def _slice_problems(document: dict, track: list[dict]):
    tick = 1e9 / document["otherData"]["tsc_hz"]
    zero = document["otherData"]["time_zero"]["tsc"]
    reached = 0
    for event in sorted(track, key=lambda event: (event["ts"], event["dur"])):
        args = event.get("args")
        if event["dur"] < 0:
            yield f"negative duration: {event}"
        if _ns(event["ts"]) < reached:
            yield f"overlaps its predecessor: {event}"
        reached = _ns(event["ts"]) + _ns(event["dur"])
        if args and abs(event["dur"] * 1000 - args["ticks"] * tick) > 1.01:
            yield f"dur is not its ticks in µs: {event}"
        if args and abs(event["ts"] * 1000 - (args["tsc"] - zero) * tick) > 0.51:
            yield f"ts is not its tsc in µs: {event}"
        if args and abs(args["ns"] - args["ticks"] * tick) > 0.051:
            yield f"ns are not its ticks: {event}"


def _pair_problems(document: dict):
    open_pairs: dict[tuple, dict] = {}
    for event in document["traceEvents"]:
        key = (event.get("cat"), event.get("id"), event["name"])
        if event["ph"] == "b":
            if key in open_pairs:
                yield f"begins twice: {event}"
            if event["args"]["request"] != event["id"]:
                yield f"id is not the request: {event}"
            open_pairs[key] = event
        elif event["ph"] == "e":
            begun = open_pairs.pop(key, None)
            if begun is None:
                yield f"ends what never began: {event}"
            elif begun["pid"] != event["pid"]:
                yield f"ends in another process: {event}"
            elif abs(_ns(event["ts"]) - _ns(begun["ts"]) - begun["args"]["ns"]) > 2:
                yield f"pair is not its ns long: {event}"
    yield from (f"never ends: {event}" for event in open_pairs.values())


def _flow_problems(document: dict, slices: dict):
    begins = {
        (pid, tid, _ns(event["ts"]), event["args"]["request"])
        for (pid, tid), track in slices.items()
        for event in track
        if "args" in event
    }
    flows = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] in "stf":
            flows[event["id"]].append(event)
            if (event["pid"], event["tid"], _ns(event["ts"]), event["id"]) not in begins:
                yield f"flow without a slice of its request: {event}"
    for request, steps in flows.items():
        phases = "".join(step["ph"] for step in steps)
        if phases != "s" + "t" * (len(steps) - 2) + "f":
            yield f"flow {request} runs {phases}"


def first(phase: str, **wanted):
    return lambda document: events(document, phase, **wanted)[0]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: first("X", cat="work")(d).update(dur=-1.0), "negative duration"),
        (
            lambda d: d["traceEvents"].append({**first("X", cat="work")(d)}),
            "overlaps its predecessor",
        ),
        (
            lambda d: [e.update(dur=e["dur"] * 1000) for e in events(d, "X", cat="work")],
            "dur is not its ticks in µs",
        ),
        (
            lambda d: [e.update(ts=e["ts"] / 1000) for e in events(d, "X", cat="work")],
            "ts is not its tsc in µs",
        ),
        (lambda d: [e.update(ts=float(round(e["ts"]))) for e in events(d, "X")], "ts is not its"),
        (lambda d: d["traceEvents"].remove(first("e")(d)), "never ends"),
        (lambda d: d["traceEvents"].remove(first("b")(d)), "ends what never began"),
        (lambda d: first("s")(d).update(tid=7), "flow without a slice"),
        (lambda d: d["traceEvents"].remove(first("f")(d)), "runs st"),
        (lambda d: first("b")(d).update(id=1), "id is not the request"),
        (lambda d: first("C")(d)["args"].update(requests=-1), "counter below zero"),
        (lambda d: first("X")(d).update(pid=99), "unknown phase, process or name"),
        (lambda d: d.update(displayTimeUnit="ms"), "displayTimeUnit"),
    ],
)
def test_the_check_sees_what_is_wrong(tmp_path, spoil, said):
    document = drawn(stalled().write(tmp_path / "run"), "worst", 3)
    assert problems(document) == []
    spoilt = copy.deepcopy(document)
    spoil(spoilt)
    assert any(said in line for line in problems(spoilt))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "which", [("worst", 5), ("worst", 500), ("around", "55"), ("between", "2.4ms", "2.7ms")]
)
def test_what_is_drawn_is_sound(tmp_path, workers, which):
    document = drawn(stalled(workers=workers).write(tmp_path / "run"), *which)
    assert problems(document) == []
    names = ["wire", "rx", *(f"worker{i}" for i in range(workers)), "tx"]
    assert list(pids(document)) == names
    assert document["otherData"]["left_out"] == []


# ---- the numbers


def test_the_worst_is_the_summarys_largest(tmp_path):
    synthetic = stalled()
    run = synthetic.write(tmp_path / "run")
    document = drawn(run, "worst", 10)
    ways = events(document, "b", name="through")
    ranked = sorted(ways, key=lambda event: event["args"]["rank"])
    assert ranked[0]["args"]["ns"] == summarise(run)["latency_ns"]["through"]["max"]
    # The later of the ten waited longer: they came a µs apart, the worker took two for each.
    numbers = synthetic.number[synthetic.row(STALLED) + np.arange(10)[::-1]].tolist()
    assert [event["id"] for event in ranked] == numbers


def test_slices_are_the_span_table(tmp_path):
    synthetic = stalled()
    run = Run(synthetic.write(tmp_path / "run"))
    document = drawn(run.path, "worst", 10)
    points = spans.points_of(run.manifest["points"])
    table = spans.requests_of(run.trace, points, clock_of(run), run.measured_from)
    expected = {}
    for name, span in spans.spans_of(table).items():
        for row, ticks in zip(span.rows.tolist(), span.ticks.tolist(), strict=True):
            expected[int(table.number[row]), name] = (ticks, round(ticks / 2.6, 1))
    shown = [
        *events(document, "X", cat="work"),
        *(e for e in events(document, "b") if e["cat"] == "wait"),
    ]
    assert len(shown) == 10 * len(SPANS)
    total = defaultdict(int)
    for event in shown:
        args = event["args"]
        assert event["name"] == f"{args['begin']}..{args['end']}"
        assert (args["ticks"], args["ns"]) == expected[args["request"], event["name"]]
        total[args["request"]] += args["ticks"]
    ways = {e["id"]: e["args"]["ticks"] for e in events(document, "b", name="through")}
    assert total == ways


def test_times_are_those_of_the_counter(tmp_path):
    """Against the ticks that were written, not those that were read."""
    synthetic = stalled()
    document = drawn(synthetic.write(tmp_path / "run"), "between", "0", None)
    zero = synthetic.ticks["kernel"][synthetic.row(0)]
    assert document["otherData"]["time_zero"] == {
        "tsc": zero,
        "point": "kernel",
        "request": int(synthetic.number[synthetic.row(0)]),
    }
    row = {int(number): i for i, number in enumerate(synthetic.number)}
    works = events(document, "X", cat="work")
    assert len(works) == 200 * 6
    for event in works:
        at, begin = row[event["args"]["request"]], _ns(event["ts"])
        for end, ns in (("begin", begin), ("end", begin + _ns(event["dur"]))):
            ticks = synthetic.ticks[event["args"][end]][at] - zero
            assert ns == pytest.approx(ticks / 2.6, abs=0.51)


def test_wire_to_wire_is_that_of_the_kernels_stamps(tmp_path):
    synthetic = stalled()
    row = synthetic.row(STALLED + 9)
    synthetic.wire_ns[row] = 125_000
    document = drawn(synthetic.write(tmp_path / "run"), "worst", 1)
    (way,) = events(document, "b", name="wire_to_wire")
    assert (way["id"], way["args"]["ns"]) == (synthetic.number[row], 125_000)
    assert way["args"]["wire_id"] == str(synthetic.id[row])


def test_depths_count_who_came_before_the_window(tmp_path):
    synthetic = stalled()
    document = drawn(synthetic.write(tmp_path / "run"), "between", "2.55ms", "2.6105ms")
    steps = events(document, "C", name="to_worker.0")
    assert _ns(steps[0]["ts"]) == 2_550_000
    assert steps[0]["args"] == {"requests": 10}
    # The worker takes one every 2 µs from 2.6 ms on.
    assert [(_ns(s["ts"]), s["args"]["requests"]) for s in steps[1:]] == [
        (2_600_000 + 2000 * i, 9 - i) for i in range(6)
    ]
    assert {step["pid"] for step in steps} == {pids(document)["worker0"]}


@pytest.mark.parametrize("workers", [1, 2])
def test_depths_are_entries_less_exits(tmp_path, workers):
    """Each step against a count over all requests, by the ring of their worker."""
    synthetic = stalled(workers=workers)
    document = drawn(synthetic.write(tmp_path / "run"), "between", "0", None)
    zero = synthetic.ticks["kernel"][synthetic.row(0)]
    ns = {name: np.rint((at - zero) / 2.6) for name, at in synthetic.ticks.items()}
    steps = events(document, "C")
    assert {step["name"] for step in steps} == {
        f"{ring}.{i}" for ring in ("to_worker", "to_tx") for i in range(workers)
    }
    for step in steps:
        ring, _, index = step["name"].partition(".")
        put, got = ("rx_put", "worker_got") if ring == "to_worker" else ("worker_put", "tx_got")
        mine = synthetic.number % np.uint64(workers) == int(index)
        now = _ns(step["ts"])
        assert step["args"]["requests"] == (mine & (ns[put] <= now) & (ns[got] > now)).sum()


# ---- what is beside


def test_others_are_shown_at_work_in_grey(tmp_path):
    synthetic = stalled()
    document = drawn(synthetic.write(tmp_path / "run"), "worst", 1)
    last = synthetic.row(STALLED + 9)
    context = events(document, "X", cat="context")
    assert all(event["cname"] == "grey" for event in context)
    # rx had put all but the last when that reached the kernel, two excepted; the worker and tx
    # worked on all of the nine before it while it waited.
    works = defaultdict(set)
    for event in context:
        works[event["name"]].add(event["args"]["request"])
    nine = set(synthetic.number[last - 9 : last].tolist())
    assert works["worker_got..worker_parsed"] == works["tx_sent..tx_complete"] == nine
    assert works["rx_got..rx_put"] == set(synthetic.number[last - 2 : last].tolist())
    assert {event["id"] for event in events(document, "b")} == {synthetic.number[last]}
    assert document["otherData"]["context_slices"] == len(context) == 9 * 5 + 2


def test_where_requests_ended_is_shown(tmp_path):
    synthetic = stalled()
    for i, fate in enumerate(("ring", "rejected", "filtered", "tx")):
        synthetic.fate[synthetic.row(100 + i)] = fate
    document = drawn(synthetic.write(tmp_path / "run"), "between", "5ms", "5.3ms")
    assert problems(document) == []
    losses = [(e["name"], e["args"]["wire_id"]) for e in events(document, "i", cat="loss")]
    assert losses == [("dropped", "101"), *(("not sent", i) for i in ("102", "103", "104"))]
    # A rejected request was neither parsed nor handled.
    (work,) = [
        event
        for event in events(document, "X", cat="work")
        if event["args"]["wire_id"] == "102" and event["name"].startswith("worker")
    ]
    assert work["name"] == "worker_got..worker_put"


def test_events_of_the_stages_are_shown(tmp_path):
    synthetic = stalled()
    start = synthetic.kernel_ns[synthetic.row(0)]
    own = np.zeros(3, RECORD)
    own["tsc"] = tsc_at(start + np.array([2_510_000, 2_520_000, 9_000_000]))
    own["point"] = (WIDE | 0x11, 0x12, 0x12)
    own["value"][0], own["extra"][0] = np.uint64(2**64 - 70_000), 10_000_000
    own["generation"] = 1
    synthetic.extra_records["rx"] = own
    document = drawn(synthetic.write(tmp_path / "run"), "worst", 1)
    bend, rotation = events(document, "i", cat="event")
    assert (bend["name"], _ns(bend["ts"])) == ("clock_bend", 2_510_000)
    assert (bend["args"]["value"], bend["args"]["extra"]) == (-70_000, 10_000_000)
    assert (rotation["name"], rotation["pid"]) == ("rotation", pids(document)["rx"])


def test_sends_under_way_together_have_tracks_of_their_own(tmp_path):
    synthetic = stalled()
    rows = synthetic.row(STALLED) + np.arange(10)
    synthetic.ticks["tx_complete"][rows] = synthetic.ticks["tx_complete"][rows[-1]]
    document = drawn(synthetic.write(tmp_path / "run"), "worst", 10)
    assert problems(document) == []
    tx = pids(document)["tx"]
    assert {e["tid"] for e in events(document, "X", pid=tx)} == set(range(10))
    names = [e["args"]["name"] for e in events(document, "M", name="thread_name", pid=tx)]
    assert names == ["tx", *(f"tx +{i}" for i in range(1, 10))]


def test_a_negative_span_is_told_and_not_drawn(tmp_path):
    synthetic = stalled()
    row = synthetic.row(20)
    synthetic.ticks["worker_got"][row] = synthetic.ticks["rx_put"][row] - 260
    document = drawn(synthetic.write(tmp_path / "run"), "around", "21")
    assert problems(document) == []
    assert document["otherData"]["negative_spans"] == 1
    (told,) = events(document, "i", cat="negative")
    assert (told["name"], told["args"]["ns"]) == ("negative rx_put..worker_got", -100)


def test_missing_records_are_no_slices(tmp_path):
    synthetic = stalled()
    whole = drawn(synthetic.write(tmp_path / "whole"), "worst", 200)
    lost = stalled(discard={"worker0": list(range(300, 340))})
    document = drawn(lost.write(tmp_path / "lost"), "worst", 200)
    assert problems(document) == []
    assert len(events(document, "X", cat="work")) < len(events(whole, "X", cat="work"))
    assert {event["name"] for event in events(document, "b", cat="mixed")} != set()
    assert any("records are missing" in line for line in document["otherData"]["left_out"])


def test_of_a_sample_no_depths_are_told(tmp_path):
    run = stalled(sample=4).write(tmp_path / "run")
    document = drawn(run, "worst", 3)
    assert problems(document) == []
    assert events(document, "C") == []
    assert any("one request in 4" in line for line in document["otherData"]["left_out"])


@pytest.mark.parametrize("which", [("worst", 200), ("between", "0", None), ("around", "55")])
def test_the_bound_holds_and_is_told(tmp_path, which):
    document = drawn(stalled().write(tmp_path / "run"), *which, bound=100)
    assert problems(document) == []
    assert len(document["traceEvents"]) - len(events(document, "M")) <= 100
    assert any(line.startswith("left out: ") for line in document["otherData"]["left_out"])
    assert len(events(document, "b", name="through")) >= 1


# ---- the command


def test_the_same_question_gives_the_same_bytes(tmp_path):
    run = stalled().write(tmp_path / "run")
    assert timeline_py(run, "--worst", 7).returncode == 0
    piped = timeline_py(run, "--worst", 7, "-o", "-")
    assert piped.stdout == (run / "timeline.json").read_text()
    assert "the 7 worst of 200 requests, through 112.0 to 106.0 µs" in piped.stderr
    assert problems(json.loads(piped.stdout)) == []


def test_around_takes_ids_and_numbers(tmp_path):
    synthetic = Synthetic(requests=200)
    synthetic.id[synthetic.row(30)] = 2**64 - 1
    run = synthetic.write(tmp_path / "run")
    number = int(synthetic.number[synthetic.row(30)])
    ways = (f"{2**64 - 1}", "0xffffffffffffffff", f"#{number}")
    asked = [timeline_py(run, "--around", way, "-o", "-") for way in ways]
    assert asked[0].stdout == asked[1].stdout == asked[2].stdout
    (way,) = events(json.loads(asked[0].stdout), "b", name="through")
    assert (way["id"], way["args"]["wire_id"]) == (number, str(2**64 - 1))
    # 1 ms before and after, at a request every 50 µs.
    around = {e["args"]["request"] for e in events(json.loads(asked[0].stdout), "X", cat="context")}
    assert around == set(range(number - 20, number + 21)) - {number}


def test_of_several_with_one_id_the_first_is_taken(tmp_path):
    synthetic = stalled()
    synthetic.id[[synthetic.row(40), synthetic.row(90)]] = 7
    run = synthetic.write(tmp_path / "run")
    asked = timeline_py(run, "--around", "7", "-o", "-")
    one, two, three = synthetic.number[[synthetic.row(i) for i in (6, 40, 90)]]
    assert f"3 times: #{one}, #{two}, #{three}; this is the first" in asked.stderr
    (way,) = events(json.loads(asked.stdout), "b", name="through")
    assert way["id"] == one


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--around", "999999"], "no request with this wire id"),
        (["--around", "#3"], "it is of the warm-up, the measured phase begins at #10"),
        (["--around", "#999999"], "the trace holds #10 to #209"),
        (["--around", "abc"], "expected a wire id"),
        (["--around", str(2**64)], "expected a wire id"),
        (["--from", "1s"], "no request between 1s and the end: the run's requests span 0s to"),
        (["--from", "2ms", "--to", "1ms"], "no request between"),
        (["--from", "10us", "--to", "20us"], "no request between"),
        (["--from", "3"], "expected a time such as 1.5ms"),
        (["--to", "-1ms"], "expected"),
        (["--worst", "0"], "expected at least 1"),
        (["-o", "/nowhere/at/all.json"], "No such file"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, said):
    asked = timeline_py(stalled().write(tmp_path / "run"), *arguments)
    assert asked.returncode == 2
    assert asked.stdout == ""
    assert said in asked.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "timeline.json").exists()


def test_no_run_is_one_line(tmp_path):
    asked = timeline_py(tmp_path / "nowhere")
    assert (asked.returncode, len(asked.stderr.splitlines())) == (2, 1)
    run = stalled().write(tmp_path / "run")
    shutil.rmtree(run / "trace")
    asked = timeline_py(run)
    assert (asked.returncode, len(asked.stderr.splitlines())) == (2, 1)
    assert "no trace to draw" in asked.stderr


# ---- elsewhere


def test_chromium_reads_the_same_numbers(tmp_path):
    """Not the importer of its tracing page, which no script reaches: its JSON, and its numbers."""
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt-get install chromium")
    synthetic = stalled()
    synthetic.id[synthetic.row(STALLED + 9)] = 2**64 - 1
    facts = timeline.read(Run(synthetic.write(tmp_path / "run")))
    text = timeline.to_json(timeline.timeline(facts, timeline.worst(facts, 10)))
    page = tmp_path / "page.html"
    page.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><body><script id="trace" type="application/json">'
        + text.replace("<", "\\u003c")
        + """</script><script>
        const events = JSON.parse(document.getElementById("trace").textContent).traceEvents;
        const ns = (us) => Math.round(us * 1000);
        document.body.textContent = JSON.stringify(events.filter((e) => e.ph === "X").map(
            (e) => [e.name, ns(e.ts), ns(e.dur), e.args ? e.args.wire_id : null]));
        </script>"""
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    shown = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    body = html.unescape(shown.stdout.partition("<body>")[2].partition("</body>")[0])
    slices = events(json.loads(text), "X")
    assert json.loads(body) == [
        [e["name"], _ns(e["ts"]), _ns(e["dur"]), e.get("args", {}).get("wire_id")] for e in slices
    ]
    assert any(e["args"]["wire_id"] == str(2**64 - 1) for e in slices if "args" in e)


@pytest.mark.parametrize("io", ["plain", "uring"])
def test_a_real_run(lab: Lab, io: str):
    outcome = lab.run(
        worker__count=2, worker__dispatch="key", replay__requests=5000, rx__io=io, tx__io=io
    )
    assert outcome.status == 0, outcome.stderr
    asked = timeline_py(outcome.directory, "--worst", 20)
    assert asked.returncode == 0, asked.stderr
    document = json.loads((outcome.directory / "timeline.json").read_text())
    assert problems(document) == []
    assert list(pids(document)) == ["wire", "rx", "worker0", "worker1", "tx"]
    ways = events(document, "b", name="through")
    assert len(ways) == 20
    worst = max(way["args"]["ns"] for way in ways)
    assert worst == outcome.summary["latency_ns"]["through"]["max"]
    assert len(events(document, "b", name="wire_to_wire")) == 20
    assert len(events(document, "s")) == len(events(document, "f")) == 20
    assert problems(drawn(outcome.directory, "between", "0", "50ms")) == []
