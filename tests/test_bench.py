# SPDX-License-Identifier: Apache-2.0
"""harness/bench.py: on programs that print what they are told to, and once on real ones."""

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from ticklab.bench import gate, judge, page, relations, table
from ticklab.bench.results import Results, google

BENCH = ROOT / "harness" / "bench.py"
pytest.importorskip("scipy", reason="needs scipy: harness/setup.sh requirements-bench.txt")

# A benchmark program as far as its output goes. What it holds stands in NAME.json beside it: case →
# fields of its entry, and `wobble` (relative), `hang`, `crash`. It notes each start in starts.log.
FAKE = """#!{python} -IS
import json, os, sys
argv, here = sys.argv[1:], os.path.dirname(os.path.abspath(sys.argv[0]))
cases = json.load(open(os.path.abspath(sys.argv[0]) + ".json"))
if "--list" in argv:
    sys.exit(print("\\n".join(cases)))
name = argv[argv.index("--filter") + 1]
with open(here + "/starts.log", "a+") as log:
    log.write(name + " " + " ".join(argv) + "\\n")
    log.seek(0)
    number = sum(line.split()[0] == name for line in log)
case = cases[name]
if case.pop("crash", 0):
    sys.exit("out of luck")
if case.pop("hang", 0):
    import time
    time.sleep(600)
wobble = case.pop("wobble", 0)
chance = (number * 7919 + len(here) * 104729 + len(name)) % 1009 / 1009 - 0.5
entry = dict(name=name, run_name=name, run_type="iteration", repetition_index=0, threads=1)
entry.update(iterations=1000, time_unit="ns", **case)
if "real_time" in case:
    entry["real_time"] = entry["cpu_time"] = case["real_time"] * (1 + 2 * wobble * chance)
    entry["quantiles"] = [entry["real_time"] * (1 + 3 * p ** 30) for p in (0, .5, .9, .99, .999, 1)]
context = dict(executable=sys.argv[0], cpus=[0, 1], mhz_per_cpu=2600, num_cpus=2,
               quantiles=[0, .5, .9, .99, .999, 1])
json.dump(dict(context=context, benchmarks=[entry]), sys.stdout)
"""


def fake(folder: Path, program: str, cases: dict[str, dict[str, Any]]) -> Path:
    """Puts a program into a folder of programs; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / program).write_text(FAKE.format(python=sys.executable))
    (folder / program).chmod(0o755)
    (folder / f"{program}.json").write_text(json.dumps(cases))
    return folder


def command(*words: object) -> list[str]:
    return [sys.executable, str(BENCH), *map(str, words)]


@dataclass
class Ended:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """harness/bench.py in this process: the libraries it imports take longer than a session."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("bench_program", BENCH)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)

    def call(*words: object, status: int = 0) -> Ended:
        monkeypatch.setattr(sys, "argv", command(*words)[1:])
        capsys.readouterr()
        try:
            ended = program.main()
        except SystemExit as error:
            ended = error.code
        told = Ended(ended, *capsys.readouterr())
        assert ended == status, told.stdout + told.stderr
        return told

    return call


def timed(ns: float, **fields: Any) -> dict[str, Any]:
    return {"real_time": ns, "p50": ns, "p99": 2 * ns, "p99_9": 3 * ns, "max": 9 * ns} | fields


RING = {
    "limit/pingpong": timed(200, wobble=0.01),
    "ring/rtt/64": timed(250, wobble=0.01, regime="consumer keeps up", page_bytes=4096),
    "ring/throughput/64/single": timed(20, items_per_second=50e6, regime="consumer lags"),
}
PEERS = {
    "peer/boost/ring/rtt/64": timed(400, wobble=0.01),
    "peer/ck/ring/rtt/64": timed(375, wobble=0.01),
    "peer/boost/ring/throughput/64/single": timed(100, items_per_second=10e6),
    "peer/ck/ring/throughput/64/single": timed(80, items_per_second=12.5e6),
}


# ---- relations and results -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("ring/rtt/8", ("limit/pingpong", 1.0)),
        ("ring/rtt/64/d16", ("limit/pingpong", 1.0)),
        ("ring/rtt/64/one", ("limit/yield", 2.0)),
        ("peer/ck/ring/rtt/64", ("limit/pingpong", 1.0)),
        ("stamp/tight", ("limit/rdtsc_store", 1.0)),
        ("stamp/sustained/wide", ("limit/rdtsc_store", 1.0)),
        ("stamp/off", None),
        ("hop/spin/two", ("ring/rtt/64", 0.5)),
        ("hop/yield/one", ("limit/yield", 1.0)),
        ("hop/park/one", None),
        ("e2e/udp/5000", ("limit/forwarder/5000", 1.0)),
        ("peer/nginx/e2e/udp/20000", ("limit/forwarder/20000", 1.0)),
        ("e2e/udp/top", ("limit/forwarder/top", 1.0)),
        ("e2e/tcp/5000", ("limit/relay/5000", 1.0)),
        ("peer/haproxy-busy/e2e/tcp/20000", ("limit/relay/20000", 1.0)),
        ("e2e/tcp/reply/5000", ("limit/echo/5000", 1.0)),
        ("pipeline/memory/100k", None),
        ("codec/v1/parse", None),
        ("handler/rot1/64", None),
        ("drain/disk/50M", None),
        ("limit/pingpong", None),
    ],
)
def test_limits(name, limit):
    assert relations.limit_of(name) == limit


def test_headlines_have_every_family_and_no_variants():
    names = [
        "limit/pingpong",
        "limit/forwarder/5000",
        "limit/forwarder/20000",
        "ring/rtt/64",
        "ring/rtt/64/d16",
        "ring/rtt/64/d65536",
        "hop/spin/two",
        "hop/spin/two/pause",
        "codec/v2/parse",
        "e2e/udp/5000",
        "limit/echo/5000",
        "e2e/tcp/reply/5000",
        "peer/boost/ring/rtt/64",
        "peer/boost/ring/rtt/256",
        "peer/nginx/e2e/udp/5000",
        "peer/nginx/e2e/udp/40000",
    ]
    assert relations.headlines(names) == [
        "limit/pingpong",
        "limit/forwarder/5000",
        "limit/forwarder/20000",
        "ring/rtt/64",
        "ring/rtt/64/d16",
        "hop/spin/two",
        "codec/v2/parse",
        "e2e/udp/5000",
        "limit/echo/5000",
        "e2e/tcp/reply/5000",
        "peer/boost/ring/rtt/64",
        "peer/nginx/e2e/udp/5000",
        "peer/nginx/e2e/udp/40000",
    ]


def test_order_is_by_family_with_peers_behind_ours():
    names = ["ring/b", "ring/a", "limit/x", "other/y", "peer/z/ring/b", "peer/z/ring/only"]
    assert relations.in_order(names) == [
        "limit/x",
        "ring/b",
        "peer/z/ring/b",
        "ring/a",
        "peer/z/ring/only",
        "other/y",
    ]


def test_a_peer_stands_beside_what_it_is_a_variant_of():
    names = ["ring/rtt/64", "ring/rtt/64/d16"]
    for name, own in (
        ("peer/boost/ring/rtt/64", "ring/rtt/64"),
        ("peer/boost/ring/rtt/64/d16", "ring/rtt/64/d16"),
        ("peer/boost/ring/rtt/64/consume_all", "ring/rtt/64"),
        ("peer/boost/other/rtt", "peer/boost/other/rtt"),
        ("ring/rtt/64/d16", "ring/rtt/64/d16"),
    ):
        assert relations.owner(name, names) == own
    label = relations.peer("peer/boost/ring/rtt/64/consume_all", "ring/rtt/64")
    assert label == "boost consume_all"


def entries(name: str, *times: float, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"name": name, "run_name": name, "run_type": "iteration", "real_time": ns, **fields}
        for ns in times
    ]


def test_rows_stand_beside_limit_and_best_peer():
    results = Results(
        [
            *entries("limit/pingpong", 190, 200, 230),
            *entries("ring/rtt/64", 240, 250, 300, p99=700.0, regime="consumer keeps up"),
            *entries("peer/boost/ring/rtt/64", 400),
            *entries("peer/ck/ring/rtt/64", 375),
            *entries("ring/throughput/64/single", 20, items_per_second=50e6),
            *entries("peer/boost/ring/throughput/64/single", 90, items_per_second=10e6),
            *entries("peer/ck/ring/throughput/64/single", 95, items_per_second=12.5e6),
        ]
    )
    rows = {row.name: row for row in results.rows()}
    rtt = rows["ring/rtt/64"]
    assert (rtt.ns, rtt.low, rtt.high, rtt.p99, rtt.regime) == (250, 240, 300, 700, "keeps up")
    assert (rtt.limit, rtt.of_limit) == ("limit/pingpong", 1.25)
    assert (rtt.best_peer, rtt.of_peer) == ("ck", 1.5)
    assert rows["peer/boost/ring/rtt/64"].of_limit == 2
    # A peer's row says how far ours is ahead of that very one.
    assert rows["peer/boost/ring/rtt/64"].of_peer == 1.6
    assert table.cells(rows["peer/boost/ring/rtt/64"])["peer"] == "1.60"
    assert table.cells(rtt)["peer"] == "1.50 ck"
    single = rows["ring/throughput/64/single"]
    assert (single.best_peer, single.of_peer) == ("ck", 4)  # by items a second, not by time


def test_a_variant_of_a_peer_is_a_row_and_not_the_best_peer():
    rings = [
        *entries("ring/throughput/64/single", 20, items_per_second=50e6),
        *entries("peer/boost/ring/throughput/64/single", 80, items_per_second=12.5e6),
    ]
    variant = entries(
        "peer/boost/ring/throughput/64/single/consume_all", 10, items_per_second=100e6
    )
    single, _, all_at_once = Results([*rings, *variant]).rows()
    assert (single.best_peer, single.of_peer) == ("boost", 4)
    assert table.cells(all_at_once)["name"] == "  boost consume_all"
    single, _ = Results([*rings[:1], *variant]).rows()
    assert single.best_peer is None


@pytest.mark.parametrize(("ours", "its"), [(0.21, 0.03), (0.03, 0.21), (-0.01, 0.02)])
def test_what_costs_next_to_nothing_has_no_ratios(ours, its):
    results = Results(
        [*entries("stamp/off", ours, ours + 0.001), *entries("peer/lttng/stamp/off", its)]
    )
    told = table.cells(results.rows()[0])
    assert told["peer"] == "- lttng"
    assert told["spread"] == ("-" if ours < 0.05 else "-0.2 +0.2")
    before = [ours + at / 1e4 for at in range(9)]
    (one,) = judge.judge({"stamp/off": (before, [3.0 + ns for ns in before])})["benchmarks"]
    assert one["verdict"] == "slower"
    assert (table.ratio(one) == "-") == (table.interval(one) == "-") == (ours < 0.05)


def test_json_has_google_benchmarks_aggregates():
    failed = [{"name": "a/b", "run_type": "iteration", "error_occurred": True}]
    told = google({"x": 1}, Results([*entries("a/b", 100, 110, 150, p99=7.0), *failed]))
    assert told["context"] == {"x": 1}
    kinds = [one["run_type"] for one in told["benchmarks"]]
    assert kinds == ["iteration"] * 4 + ["aggregate"] * 4
    by_name = {one["name"]: one for one in told["benchmarks"][4:]}
    assert set(by_name) == {"a/b_mean", "a/b_median", "a/b_stddev", "a/b_cv"}
    median, deviation = by_name["a/b_median"], by_name["a/b_stddev"]
    assert (median["run_name"], median["aggregate_name"]) == ("a/b", "median")
    assert (median["real_time"], median["p99"], median["repetitions"]) == (110, 7, 3)
    assert deviation["real_time"] == pytest.approx(statistics.stdev((100, 110, 150)))
    assert by_name["a/b_cv"]["aggregate_unit"] == "percentage"


# ---- verdicts ------------------------------------------------------------------------------------


def noisy(
    chance: random.Random, ns: float, count: int = 9, spread: float = 0.02, odd: float = 0.05
) -> list[float]:
    """Process starts as they come: a spread, and a share of odd ones that the host interrupted."""
    return [
        ns * chance.lognormvariate(0, spread) * (1.5 if chance.random() < odd else 1)
        for _ in range(count)
    ]


def test_identical_programs_are_not_flagged():
    """Of 30 sessions of 30 benchmarks each at most a few may be wrong: 5 % at most, all told."""
    chance = random.Random(4)
    wrong = 0
    for _ in range(30):
        pairs = {str(n): (noisy(chance, 100), noisy(chance, 100)) for n in range(30)}
        found = judge.judge(pairs)
        wrong += any(one["verdict"] in ("slower", "faster") for one in found["benchmarks"])
    assert wrong <= 2


def test_ten_percent_are_found_among_many_where_the_baseline_was_not_interrupted():
    chance = random.Random(5)
    for _ in range(10):
        pairs = {str(n): (noisy(chance, 100), noisy(chance, 100)) for n in range(39)}
        pairs["slow"] = (noisy(chance, 100, odd=0), noisy(chance, 110))
        found = judge.judge(pairs)
        slow = next(one for one in found["benchmarks"] if one["name"] == "slow")
        assert (slow["verdict"], found["exit"]) == ("slower", 1)
    assert judge.judge({"slow": pairs["slow"][::-1]})["benchmarks"][0]["verdict"] == "faster"


def test_an_interrupted_start_of_the_baseline_may_hide_ten_percent_but_never_passes_them():
    """Ranks pay for it with 9 starts a side among 40 benchmarks; the second look finds it."""
    steady = {str(n): ([100 + i / 10 for i in range(9)],) * 2 for n in range(39)}
    before, now = [100 + i / 5 for i in range(18)], [110.05 + i / 5 for i in range(18)]
    before[4] = 150.0
    found = judge.judge({**steady, "slow": (before[:9], now[:9])}, looks=2)
    assert (found["benchmarks"][-1]["verdict"], found["exit"]) == ("inconclusive", 3)
    found = judge.judge({**steady, "slow": (before, now)}, looks=2)
    assert (found["benchmarks"][-1]["verdict"], found["exit"]) == ("slower", 1)


def test_interval_covers_what_it_claims():
    chance = random.Random(6)
    inside = 0
    for _ in range(300):
        before, now = noisy(chance, 100, spread=0.05), noisy(chance, 103, spread=0.05)
        found = judge.judge({"x": (before, now)})["benchmarks"][0]
        inside += found["low"] <= 1.03 <= found["high"]
    assert inside / 300 == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(
    ("before", "now", "verdict", "status"),
    [
        ([100.0] * 9, [100.0] * 9, "no difference", 0),
        ([100 + n / 10 for n in range(9)], [101 + n / 10 for n in range(9)], "no difference", 0),
        ([100 + n for n in range(9)], [112 + n for n in range(9)], "slower", 1),
        ([100 + n for n in range(9)], [88 + n for n in range(9)], "faster", 0),
        ([100 + 9 * n for n in range(9)], [103 + 9 * n for n in range(9)], "inconclusive", 3),
        ([100, 101, 102], [150, 151, 152], "inconclusive", 3),  # three cannot tell
        ([0.010 + n / 1e4 for n in range(9)], [0.03] * 9, "no difference", 0),  # nothing to 0.05 ns
        ([1.0] * 9, [1.04 + n / 1e4 for n in range(9)], "no difference", 0),
    ],
)
def test_verdicts(before, now, verdict, status):
    found = judge.judge({"x": (before, now)})
    assert (found["benchmarks"][0]["verdict"], found["exit"]) == (verdict, status)


def test_a_larger_effect_may_be_asked_for():
    sides = ([100 + n / 10 for n in range(9)], [104 + n / 10 for n in range(9)])
    assert judge.judge({"x": sides})["exit"] == 1
    assert judge.judge({"x": sides}, effect=0.06)["exit"] == 0


def test_holm():
    found = judge.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_too_few_starts_for_so_many_benchmarks_are_told():
    pairs = {str(n): ([1.0, 2, 3, 4], [1.5, 2.5, 3.5, 4.5]) for n in range(40)}
    assert "more --repetitions" in judge.judge(pairs)["notes"][0]


def test_without_scipy_there_are_ratios_and_no_verdict(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    found = judge.judge({"x": ([100.0 + n for n in range(9)], [150.0] * 9)})
    assert found["benchmarks"][0]["ratio"] == pytest.approx(150 / 104)
    assert found["benchmarks"][0]["verdict"] == "inconclusive"
    assert found["notes"] == [judge.MISSING]
    assert found["exit"] == 3


# ---- a session -----------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    fake(tmp_path / "programs", "ring", RING)
    return fake(tmp_path / "programs", "peer_rings", PEERS)


def test_a_session(bench, tmp_path, programs):
    done = bench("--programs", programs, "--repetitions", 3, "--cpus", "0,0")
    last = done.stdout.splitlines()[-1]
    page = tmp_path / last.removeprefix("page: ")
    assert re.fullmatch(r"page: runs/bench-\d{8}T\d{6}Z/bench\.html", last)
    for words in ("ring/rtt/64", "1.25", "1.50 ck", "50.0 M/s", "keeps up", "4.00 ck"):
        assert words in done.stdout
    assert "\x1b" not in done.stdout
    assert "21 process starts" in done.stderr
    told = json.loads((page.parent / "bench.json").read_text())
    assert told["context"]["repetitions"] == 3
    assert told["context"]["cpus"] == [0, 1]
    names = [one["name"] for one in told["benchmarks"] if one["run_type"] == "iteration"]
    assert sorted(set(names)) == sorted(RING | PEERS)
    assert all(names.count(name) == 3 for name in names)
    medians = [one for one in told["benchmarks"] if one.get("aggregate_name") == "median"]
    assert {one["run_name"] for one in medians} == set(RING | PEERS)
    assert_self_contained(page.read_text())


def test_rounds_are_shuffled_and_always_the_same(bench, tmp_path, programs):
    logs = []
    for _ in range(2):
        words = ("--programs", programs, "--repetitions", 3, "--quick", "--json", "x.json")
        bench(*words, "--html", "x.html")
        lines = (programs / "starts.log").read_text().splitlines()
        (programs / "starts.log").unlink()
        assert all("--repetitions 1" in line and "--quick" in line for line in lines)
        logs.append([line.split()[0] for line in lines])
    assert logs[0] == logs[1]
    rounds = [tuple(logs[0][at : at + 7]) for at in (0, 7, 14)]
    assert len({frozenset(each) for each in rounds}) == 1
    assert len(set(rounds)) == 3
    assert not (tmp_path / "runs").exists()


def test_json_on_stdout_is_nothing_else(bench, tmp_path, programs):
    done = bench("--programs", programs, "--repetitions", 1, "--json", "-")
    assert json.loads(done.stdout)["benchmarks"]
    assert "page: " in done.stderr


def test_list_and_filter(bench, tmp_path, programs):
    done = bench("--programs", programs, "--list", "--filter", "*/rtt/*")
    assert done.stdout.split() == ["ring/rtt/64", "peer/boost/ring/rtt/64", "peer/ck/ring/rtt/64"]


def test_what_hangs_or_crashes_is_named_and_the_rest_is_told(bench, tmp_path):
    cases = {
        "a/fine": timed(100),
        "b/hangs": timed(1, hang=1),
        "c/crashes": timed(1, crash=1),
        "d/cannot": {"error_occurred": True, "error_message": "needs a third CPU"},
    }
    programs = fake(tmp_path / "programs", "x", cases)
    begun = time.monotonic()
    words = ("--programs", programs, "--repetitions", 2, "--timeout", 1)
    done = bench(*words, status=1)
    assert time.monotonic() - begun < 8  # it is waited for once
    for words in (
        "b/hangs: no result within 1 s",
        "c/crashes: out of luck",
        "d/cannot: needs a third CPU",
    ):
        assert words in done.stdout
    assert re.search(r"^a/fine +100\.0", done.stdout, re.MULTILINE)
    page = (tmp_path / done.stdout.splitlines()[-1].removeprefix("page: ")).read_text()
    assert "no result within 1 s" in page


def test_nothing_that_could_run(bench, tmp_path):
    cannot = {"error_occurred": True, "error_message": "needs a third CPU"}
    programs = fake(tmp_path / "programs", "x", {"d/cannot": cannot})
    bench("--programs", programs, status=4)


def test_ctrl_c_tells_what_was_measured(tmp_path):
    cases = {"a/first": timed(100), "b/hangs": timed(1, hang=1)}
    programs = fake(tmp_path / "programs", "x", cases)
    process = subprocess.Popen(
        command("--programs", programs, "--json", "x.json", "--save-baseline", "./kept"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = programs / "starts.log"
    deadline = time.monotonic() + 20
    while not (log.exists() and "b/hangs" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert "ended early by SIGINT" in stderr
    assert "page: " in stdout
    told = json.loads((tmp_path / "x.json").read_text())
    names = {one["name"] for one in told["benchmarks"]}
    assert names <= {"a/first", "a/first_mean", "a/first_median"}
    assert not (tmp_path / "kept").exists()
    assert not (tmp_path / "kept.part").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--repetitions", "0"], "--repetitions: 0: expected a whole number from 1 to 9999"),
        (["--cpus", "0"], "--cpus: 0: expected two of the CPUs allowed here"),
        (["--cpus", "0,4095"], "expected two of the CPUs allowed here"),
        (["--effect", "none"], "expected a percentage such as 2%"),
        (["--programs", "nowhere"], "--programs nowhere: expected a folder"),
        (["--programs", ".", "--list"], "no benchmarks there"),
        (["--programs", "programs", "--filter", "no*"], "--filter no*: no such benchmark"),
        (["--programs", "programs", "--baseline", "./no"], "--baseline ./no: none in"),
        (["--save-baseline", "a b"], "expected a name such as before"),
        (["--record"], "--record: expected --instructions with it"),
        (["--qick"], "unrecognized arguments: --qick"),
    ],
)
def test_mistakes_get_one_line(bench, tmp_path, programs, words, said):
    done = bench(*words, status=2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


# ---- baselines -----------------------------------------------------------------------------------


def changed(**factors: float) -> dict[str, dict[str, Any]]:
    """RING with other times."""
    made = json.loads(json.dumps(RING))
    for name, factor in factors.items():
        made[name.replace("_", "/")]["real_time"] *= factor
    return made


@pytest.fixture
def kept(bench: Callable[..., Ended], tmp_path: Path, programs: Path) -> Path:
    """A baseline of RING and PEERS."""
    words = ("--programs", programs, "--repetitions", 5, "--save-baseline", "./before")
    done = bench(*words, "--json", "a.json", "--html", "a.html")
    assert "baseline kept in" in done.stderr
    (programs / "starts.log").unlink()
    return tmp_path / "before"


def against(
    bench: Callable[..., Ended], programs: Path, status: int, *words: object
) -> dict[str, Any]:
    """The comparison of a session with the baseline."""
    words = ("--programs", programs, "--baseline", "./before", "--repetitions", 5, *words)
    done = bench(*words, "--json", "b.json", "--html", "b.html", status=status)
    found = json.loads(Path("b.json").read_text())["comparison"]
    found["stdout"] = done.stdout
    assert found["exit"] == status
    return found


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["verdict"] for one in found["benchmarks"]}


def test_the_same_programs_are_no_regression(bench, tmp_path, programs, kept):
    found = against(bench, programs, 0)
    assert found["interleaved"]
    assert verdicts(found) == dict.fromkeys(RING, "no difference")
    assert "3 no difference" in found["stdout"]
    # Both sides ran in turns, A B and B A, peers on one side alone.
    here = (programs / "starts.log").read_text().splitlines()
    there = (kept / "build" / "bench" / "starts.log").read_text().splitlines()
    assert [len(here), len(there)] == [5 * 7, 5 * 3]
    assert not any("peer/" in line for line in there)
    page = (tmp_path / "b.html").read_text()
    assert "Beside the baseline ./before" in page
    assert_self_contained(page)


def test_a_slowdown_of_ten_percent_is_a_regression(bench, tmp_path, programs, kept):
    fake(programs, "ring", changed(ring_rtt_64=1.1, limit_pingpong=0.9))
    found = against(bench, programs, 1)
    assert verdicts(found) == {
        "limit/pingpong": "faster",
        "ring/rtt/64": "slower",
        "ring/throughput/64/single": "no difference",
    }
    slow = next(one for one in found["benchmarks"] if one["name"] == "ring/rtt/64")
    assert slow["low"] <= 1.1 <= slow["high"]


def test_what_is_inconclusive_is_started_again(bench, tmp_path, programs, kept):
    wide = changed()
    wide["ring/rtt/64"]["wobble"] = 0.3
    fake(programs, "ring", wide)
    words = ("--programs", programs, "--baseline", "./before", "--json", "b.json")
    words += ("--filter", "limit/*", "--filter", "ring/rtt/*")
    bench(*words, "--html", "b.html", status=3)
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["comparison"]["looks"] == 2
    starts = [one["name"] for one in found["benchmarks"] if one["run_type"] == "iteration"]
    assert (starts.count("limit/pingpong"), starts.count("ring/rtt/64")) == (9, 18)
    assert "inconclusive" in verdicts(found["comparison"])["ring/rtt/64"]


def test_results_without_programs_are_weaker(bench, tmp_path, programs, kept):
    shutil.rmtree(kept / "build")
    fake(programs, "ring", changed(ring_rtt_64=1.1))
    found = against(bench, programs, 1, "--filter", "ring/*", "--filter", "limit/*")
    assert not found["interleaved"]
    assert verdicts(found)["ring/rtt/64"] == "slower"
    assert "weaker: its programs were not kept" in found["stdout"]
    done = bench("--programs", programs, "--baseline", "./before", "--quick", status=2)
    assert "its results are without --quick; leave it out" in done.stderr


def test_a_benchmark_that_no_longer_runs_is_no_pass(bench, tmp_path, programs, kept):
    broken = changed()
    broken["ring/rtt/64"] = {"error_occurred": True, "error_message": "no memory"}
    broken["ring/new"] = timed(5)
    fake(programs, "ring", broken)
    found = against(bench, programs, 3)
    assert "ring/rtt/64: has a figure in the baseline and none now" in found["notes"]
    assert "ring/new: not compared, the baseline has no figure" in found["notes"]


# ---- the page ------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """What a page refers to, and what it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    return found


def assert_self_contained(text: str) -> None:
    found = outline(text)
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert all(link.startswith("#") for link in found.links)
    assert {link[1:] for link in found.links} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert not re.search(r"url\((?!#)|@import|<!DOCTYPE svg|<\?xml", text)


def told(results: Results) -> dict[str, Any]:
    context = {"date": "2020-01-02T03:04:05+00:00", "repetitions": 3, "quantiles": [0, 0.5, 1]}
    return google(context, results)


CURVES = Results(
    [
        *entries("limit/pingpong", 190, 200, 230, quantiles=[150, 200, 9000]),
        *entries("ring/rtt/64", 240, 250, 300, quantiles=[200, 250, 20000]),
        *entries("peer/ck<&>/ring/rtt/64", 375, 376, 390, quantiles=[300, 375, 30000]),
        *entries("drain/disk", 5, 6, 7),
    ]
)


def test_page_draws_each_benchmark_with_its_peers_and_its_limit():
    pytest.importorskip(
        "matplotlib", reason="needs matplotlib: harness/setup.sh requirements-bench.txt"
    )
    text = page.html(told(CURVES), CURVES)
    assert_self_contained(text)
    assert outline(text).tags.count("svg") == 3
    rtt = text[text.index('<h3 id="picture-ring-rtt-64"') :].split("</svg>")[0]
    for words in ("tickline", "ck&lt;&amp;&gt;", "limit/pingpong", "p99.99", "max", "10 µs"):
        assert words in rtt
    for colour in ("--ours", "--peer0", "--limit", "--grid"):
        assert f"var({colour})" in rtt
    assert "#0102" not in rtt
    assert "prefers-color-scheme: dark" in text


def test_page_without_matplotlib_has_the_table_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "ticklab.bench.plot", raising=False)
    monkeypatch.delattr("ticklab.bench.plot", raising=False)
    text = page.html(told(CURVES), CURVES)
    assert "<svg" not in text
    assert page.NO_PICTURES in text
    assert "ring/rtt/64" in text


# ---- instructions --------------------------------------------------------------------------------

# As valgrind, as far as it is asked: a count in a file, and a loader that tells what it finds.
VALGRIND = """#!/bin/sh
case $1 in
-q) echo "x86.cpu_features.features[0x0].active[0x0]=$FEATURES"; exit ;;
esac
out=${2#*=}
echo "summary: $((1000000 + $7 * $PER_REQUEST))" >"$out"
"""
COUNTED = """#!/bin/sh
echo instructions/v1
echo instructions/v2
"""


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Calls the gate with a valgrind that counts `per_request`."""
    for name, text in (("bin/valgrind", VALGRIND), ("build/bench/instructions", COUNTED)):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "build" / "flags.json").write_text('{"cc": "gcc 12.2"}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def call(per_request: int, features: str = "0x1", **options: Any) -> int:
        monkeypatch.setenv("PER_REQUEST", str(per_request))
        monkeypatch.setenv("FEATURES", features)
        baselines = tmp_path / "instructions.json"
        programs = tmp_path / "build" / "bench"
        made = gate.Options(programs=programs, baselines=baselines, **options)
        return gate.main(made)

    return call


def test_gate_records_and_judges(gated, tmp_path, capsys):
    assert gated(500) == 0
    assert "nothing is recorded for this compiler, libc and CPU" in capsys.readouterr().out
    assert not (tmp_path / "instructions.json").exists()
    assert gated(500, record=True) == 0
    kept = json.loads((tmp_path / "instructions.json").read_text())
    (key,) = kept
    assert re.fullmatch(r"gcc 12\.2; glibc \S+; \S+ [0-9a-f]{12}", key)
    assert kept[key] == {"instructions/v1": 500.0, "instructions/v2": 500.0}
    capsys.readouterr()
    for per_request, status, said in (
        (509, 0, "within 2% of what is recorded"),
        (511, 1, "more than 2% above what is recorded"),
        (480, 0, "to hold on to it"),
    ):
        assert gated(per_request) == status
        assert said in capsys.readouterr().out


def test_gate_does_not_judge_by_another_cpus_count(gated, capsys):
    assert gated(500, record=True) == 0
    assert gated(900, features="0x3") == 0
    assert "not judged" in capsys.readouterr().out
    assert gated(900, features="0x3", record=True) == 0
    assert gated(500) == gated(900, features="0x3") == 0


def test_gate_of_some_configurations(gated, tmp_path, capsys):
    assert gated(500, record=True) == 0
    assert gated(600, record=True, filters=("*/v2",)) == 0
    (kept,) = json.loads((tmp_path / "instructions.json").read_text()).values()
    assert kept == {"instructions/v1": 500.0, "instructions/v2": 600.0}
    capsys.readouterr()
    assert gated(500, filters=("*/v1",), json="-") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["benchmarks"]] == ["instructions/v1"]
    assert found["benchmarks"][0]["ratio"] == 1
    assert found["gone"] == []


def test_gate_without_valgrind(bench, tmp_path, gated, monkeypatch):
    bare = tmp_path / "bare"
    bare.mkdir()
    words = ("--instructions", "--programs", tmp_path / "build" / "bench")
    monkeypatch.setenv("PATH", str(bare))
    done = bench(*words, status=4)
    assert "apt-get install valgrind" in done.stderr
    assert done.stderr.count("\n") == 1


COUNTABLE = """
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv)
{
    volatile long sum = 0;
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--requests") == 0)
            for (long n = atol(argv[i + 1]); n > 0; n--)
                __asm__ volatile("nop; nop; nop; nop; nop; nop; nop; nop" ::: "memory");
    return (int)sum;
}
"""


def test_callgrind_counts_the_same_each_time(tmp_path):
    for program in ("valgrind", "gcc"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}: apt-get install {program}")
    program = tmp_path / "instructions"
    compiler = ["gcc", "-O2", "-x", "c", "-", "-o", str(program)]
    subprocess.run(compiler, input=COUNTABLE, text=True, check=True)
    first, second = (gate.instructions(program, "any") for _ in range(2))
    assert first == second
    assert 8 < first < 12


# ---- as it is shipped ----------------------------------------------------------------------------


def test_real_programs(tmp_path):
    if not shutil.which("make") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs make and two CPUs")
    words = command("--quick", "--filter", "limit/*", "--json", "x.json")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "x.json").read_text())
    medians = {
        one["run_name"]: one for one in told["benchmarks"] if one.get("aggregate_name") == "median"
    }
    assert {"limit/rdtsc_store", "limit/pingpong", "limit/yield"} <= set(medians)
    for one in medians.values():
        assert 0 < one["real_time"] < 1e9
    assert medians["limit/pingpong"]["p50"] <= medians["limit/pingpong"]["p99_9"]
    assert told["context"]["quick"] is True
    page = tmp_path / done.stdout.splitlines()[-1].removeprefix("page: ")
    assert_self_contained(page.read_text())


def test_completion_in_the_source_tree():
    script = """
        source completion/tickline.bash
        complete -p harness/bench.py
        COMP_WORDS=(harness/bench.py --sa) COMP_CWORD=1
        _tickline_tool
        echo "${COMPREPLY[*]}"
    """
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found, words = done.stdout.splitlines()
    assert "-F _tickline_tool" in found
    assert words == "--save-baseline"
