# SPDX-License-Identifier: Apache-2.0
"""Handlers of one's own: built against what is installed, loaded, judged; and their mistakes."""

import contextlib
import json
import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dpkt
import numpy as np
import pytest
from chaos import BUDGET, kill, wait_until_up
from conftest import BUILD, ROOT, Outcome
from xxhash import xxh3_64_intdigest

from ticklab import (
    capture,
    ctf,
    judge,
    reference,
    reference_book,
    reference_iex,
    reference_spin,
    summary,
    vary,
)
from ticklab.run import Run

HEAD = """
#include <tickline/handler.h>
#include <stdlib.h>
#include <string.h>
static int32_t echo(const struct tickline_request *request, uint8_t *reply, uint32_t capacity)
{
    if (request->length > capacity)
        return TICKLINE_REPLY_TOO_BIG;
    memcpy(reply, request->payload, request->length);
    return (int32_t)request->length;
}
#define HANDLE static int32_t handle(struct tickline_context *context, \\
    const struct tickline_request *request, uint8_t *reply, uint32_t capacity)
"""
HANDLER = "const struct tickline_handler tickline_handler = {.abi = TICKLINE_HANDLER_ABI, "
MESSAGES = int(os.environ.get("TICKLINE_TEST_MESSAGES", "20000"))
FEW = {"replay__requests": 3000, "replay__warmup": 0, "pipeline__schema": "v2"}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `make install` has put everything."""
    where = tmp_path_factory.mktemp("installed")
    build = os.environ.get("TICKLINE_BUILD", "build")
    command = ["make", "-s", "install", f"BUILD={build}", f"PREFIX={where}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return where


@pytest.fixture
def built(prefix: Path, tmp_path: Path):
    """A function: source text → a shared object, by the installed header alone."""

    def build(source: str, name: str = "own") -> Path:
        code, made = tmp_path / f"{name}.c", tmp_path / f"{name}.so"
        code.write_text(HEAD + source)
        command = ["cc", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
        command += [f"-I{prefix}/include", "-fPIC", "-shared", "-o", str(made), str(code)]
        subprocess.run(command, check=True)
        return made

    return build


def tickline(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [str(BUILD / "tickline"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refused(config: Path, *arguments: str) -> str:
    """The one line, the same by `check`, `config` and `run`."""
    said = set()
    for command in ("check", "config", "run"):
        more = ["--run-dir", str(config.parent / "run")] if command == "run" else []
        done = tickline(command, config, *arguments, *more)
        assert done.returncode == 2, (command, done.stderr)
        said.add(done.stderr)
    assert len(said) == 1
    line = said.pop()
    assert line.count("\n") == 1, line
    return line.strip()


def written(tmp_path: Path, handler: object, section: str = "") -> Path:
    path = tmp_path / "own.ini"
    path.write_text(f"[worker]\nhandler = {handler}\n{section}")
    return path


# ---- the example ---------------------------------------------------------------------------------


@pytest.fixture
def example(prefix: Path, tmp_path: Path) -> Path:
    """The example as installed, copied and built outside of any tree, by its own Makefile."""
    folder = tmp_path / "example"
    subprocess.run(["cp", "-r", prefix / "share/tickline/examples/handler", folder], check=True)
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    subprocess.run(["make", "-s"], cwd=folder, env=environment, check=True)
    return folder


def test_the_example(lab, example, monkeypatch) -> None:
    monkeypatch.chdir(example)
    sets = {"worker__handler": example / "counter.so", "worker__count": 2}
    sets |= {"replay__reference": example / "reference.py", "replay__requests": 3000}
    outcome = lab.run(config_of(lab, example / "counter.ini", sets))
    assert outcome.status == 0, outcome.stderr
    made, manifest = outcome.summary, outcome.manifest
    assert made["replies"] == {"judged": 3000, "wrong": 0}
    assert made["account"]["requests"]["corrupted"] == 0
    spans = made["latency_ns"]
    for span in ("worker_parsed..counter_found", "counter_found..counter_written"):
        assert spans[span]["count"] == 3000
        assert spans[span]["kind"] == "work"
    assert manifest["handler"]["name"] == "counter"
    assert re.fullmatch("[0-9a-f]{64}", manifest["handler"]["sha256"])
    own = {p["name"]: p for p in manifest["points"] if p["name"].startswith("counter_")}
    assert sorted(own) == ["counter_found", "counter_written"]
    read = subprocess.run(
        ["babeltrace2", outcome.directory / "trace"], capture_output=True, text=True, check=True
    )
    a_judge_that_is_wrong(outcome.directory, example)
    stamped = read.stdout.count("counter_written")
    assert stamped == read.stdout.count("counter_found") == read.stdout.count("worker_done") >= 3000


def a_judge_that_is_wrong(run: Path, example: Path) -> None:
    """Were the replies wrong, the account would say so."""
    module = example / "wrong.py"
    module.write_text((example / "reference.py").read_text().replace("+= 1", "+= 2"))
    plan = json.loads((run / "manifest.json").read_text())["capture"]
    asked = capture.requests_by_id(Path(plan["capture"]), "v2")
    told = judge.judge(Run(run), module, asked)
    assert told["judged"] == told["wrong"] == 3000
    (run / "wire" / "judged.json").write_text(json.dumps(told))
    assert summary.summarise(run)["unbalanced"] == ["requests.corrupted: 3000: expected 0"]


def config_of(lab, config: Path, sets: dict[str, Any]) -> str:
    """Makes lab.run() use another file; an option that changes nothing."""
    words = lab.command

    def command(*arguments: str, **values: Any) -> list[str]:
        return words(*arguments, config=config, **{**values, **sets})

    lab.command = command
    return "--name=example"


def test_points_of_a_configuration(example) -> None:
    done = tickline(
        "points", example / "counter.ini", "--set", f"worker.handler={example}/counter.so"
    )
    assert "counter_found  the sender's number is found" in done.stdout
    assert "counter_found" not in tickline("points").stdout


# ---- mistakes ------------------------------------------------------------------------------------


def test_keys_in_their_lines(built, tmp_path) -> None:
    handler = built(
        """
        static int32_t init(struct tickline_context *context)
        {
            uint64_t size;
            return context->bytes(context, "size", "4KiB", 1024, 65536, &size);
        }
        HANDLE { (void)context; return echo(request, reply, capacity); }
        """
        + HANDLER + '.name = "own", .init = init, .handle = handle};'
    )  # fmt: skip
    for section, said in (
        ("[handler.own]\nsize = 4KB\n", "own.ini:4: handler.own.size = 4KB: expected a size from"),
        ("[handler.own]\nsiz = 4KiB\n", "own.ini:4: handler.own.siz = 4KiB: no such key of this"),
        ("[handler.mine]\nsize = 4KiB\n", "own.ini:4: handler.mine.size = 4KiB: the handler is"),
    ):
        assert said in refused(written(tmp_path, handler, section))
    assert (
        tickline("check", written(tmp_path, handler, "[handler.own]\nsize = 8KiB\n")).returncode
        == 0
    )


def test_wrong_version(built, tmp_path) -> None:
    handler = built(
        "HANDLE { (void)context; return echo(request, reply, capacity); }"
        "const struct tickline_handler tickline_handler = {.abi = TICKLINE_HANDLER_ABI + 1, "
        '.name = "own", .handle = handle};'
    )
    line = refused(written(tmp_path, handler))
    assert "own.ini:2: worker.handler = " in line
    assert "it has version 2 of the handler ABI, this tickline has 1; build it against" in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("int x;", "it has no symbol tickline_handler"),
        (HANDLER + '.name = "own"};', "it has no handle()"),
        (
            "HANDLE { (void)context; return echo(request, reply, capacity); }"
            + HANDLER
            + '.name = "Own!", .handle = handle};',
            "its name is at most 31 of a-z",
        ),
        (
            "HANDLE { (void)context; return echo(request, reply, capacity); }"
            'static const struct tickline_point p[] = {{"rx_got", "work", "again"}};'
            + HANDLER
            + '.name = "own", .handle = handle, .points = p, .point_count = 1};',
            "a point has the name of another one",
        ),
        (
            "HANDLE { (void)context; return echo(request, reply, capacity); }"
            "static int32_t init(struct tickline_context *c) { (void)c; abort(); }"
            + HANDLER
            + '.name = "own", .init = init, .handle = handle};',
            "it crashed while it was looked at (signal 6)",
        ),
    ],
)
def test_no_handler(built, tmp_path, source, said) -> None:
    assert said in refused(written(tmp_path, built(source)))


def test_no_such_file(tmp_path) -> None:
    assert "cannot open shared object file" in refused(written(tmp_path, "/nowhere/own.so"))
    assert "handler.rot1.by = 13: no such key of this handler; expected none" in refused(
        written(tmp_path, "rot1", "[handler.rot1]\nby = 13\n")
    )


# ---- crashes -------------------------------------------------------------------------------------

CRASHER = (
    """
    __attribute__((noinline)) int32_t look_up(const struct tickline_request *request)
    {
        return *(volatile int32_t *)(uintptr_t)(request->id - WHICH + 16);
    }
    HANDLE
    {
        (void)context;
        if (EVERY || request->id == WHICH)
            return look_up(request);
        if (request->id == 2000)
            abort();
        if (request->id == 2500)
            return (int32_t)capacity + 1;
        if (request->id < 10) {
            char *much = malloc(8 << 20); /* by mmap */
            much[0] = much[8 << 10] = 1;
            free(much);
        }
        return echo(request, reply, capacity);
    }
    """
    + HANDLER
    + '.name = "crasher", .state = TICKLINE_STATE_LOST, .allocates = 1, .handle = handle};'
)


@pytest.mark.skipif(BUILD.name == "build-asan", reason="a sanitizer answers to such signals itself")
def test_a_request_that_crashes(lab, built) -> None:
    """It is told as the handler's, refused in the end, and the run goes on without it."""
    handler = built("#define WHICH 1000\n#define EVERY 0\n" + CRASHER)
    sets = {"supervise__max_restarts": 64, "isolate__sandbox": "need", "replay__rate": "5k"}
    outcome = lab.run(worker__handler=handler, **sets, **FEW)
    assert outcome.status == 0, outcome.stderr
    requests = outcome.summary["account"]["requests"]
    assert requests["rejected"]["poison"] == 3
    assert requests["delivered"] == 2997
    assert outcome.summary["replies"]["unchecked"] == 2997  # nobody knows what it must answer
    assert "2,997 replies are unchecked: there is no reference" in outcome.stdout
    causes = [restart["cause"] for restart in outcome.summary["restarts"]]
    assert len(causes) == 6
    assert re.search(
        r"handler crasher crashed at look_up\+0x[0-9a-f]+ of own.so\+0x[0-9a-f]+ in request 1000 "
        r"\(SIGSEGV, address 0x10\)",
        causes[0],
    )
    assert "in request 2000 (SIGABRT)" in causes[2]
    assert "in request 2500 (SIGABRT)" in causes[4]
    log = (outcome.directory / "log" / "worker0.log").read_text()
    assert re.search(r"handler crasher returned ([0-9]+) with room for [0-9]+ bytes", log)
    # All behind the first crash, but for what may have been answered anew.
    assert requests["suspect"] == 3000 - 999
    trace = ctf.Trace(outcome.directory / "trace")
    lost = next(p["id"] for p in outcome.manifest["points"] if p["name"] == "state_lost")
    assert int((trace.lanes["worker0"].point == lost).sum()) == 6


@pytest.mark.skipif(BUILD.name == "build-asan", reason="a sanitizer answers to such signals itself")
def test_a_handler_that_always_crashes(lab, built) -> None:
    """The budget of restarts ends it; the run directory is whole and says who it was."""
    handler = built("#define WHICH 1000\n#define EVERY 1\n" + CRASHER)
    outcome = lab.run(worker__handler=handler, supervise__max_restarts=3, **FEW)
    assert outcome.status == 1
    said = outcome.stderr.strip().splitlines()
    assert any("handler crasher crashed at look_up" in line for line in said), said
    run = next(path for path in lab.runs.iterdir() if path.is_dir())
    manifest = json.loads((run / "manifest.json").read_text())
    assert "handler crasher crashed at look_up" in manifest["failed"]
    assert manifest["handler"]["name"] == "crasher"
    counters = json.loads((run / "counters.json").read_text())
    assert "crasher" in counters["reason"]
    assert len(counters["restarts"]) == 3
    assert (run / "trace" / "metadata").exists()
    assert "handler crasher crashed" in (run / "log" / "worker0.log").read_text()


@pytest.mark.skipif(BUILD.name == "build-asan", reason="a sanitizer's build filters no calls")
def test_malloc_needs_a_word(lab, built) -> None:
    """Without `allocates` a handler that needs more memory than there is ends by the sandbox."""
    handler = built(
        "HANDLE { (void)context; char *p = malloc(64 << 20); if (!p) return TICKLINE_FULL;"
        "p[0] = p[8 << 10] = 1; free(p); return echo(request, reply, capacity); }"
        + HANDLER
        + '.name = "own", .handle = handle};'
    )
    outcome = lab.run(worker__handler=handler, **{**FEW, "replay__requests": 200})
    assert outcome.status == 1
    assert "system call mmap (9) is not in worker's table" in outcome.stderr


# ---- built-in ones -------------------------------------------------------------------------------


def test_alloc(lab) -> None:
    few = {**FEW, "replay__requests": 500, "replay__payload": "8-40", "isolate__sandbox": "need"}
    outcome = lab.run(worker__handler="alloc", **few)
    assert outcome.status == 0, outcome.stderr
    assert outcome.summary["account"]["requests"]["delivered"] == 500
    assert "replies" not in outcome.summary  # the sink has judged them


def killed_again_and_again(lab, **sets: Any) -> Outcome:
    """A run with the book whose workers are killed; each reply to what came was judged right."""
    name = f"book-{os.getpid()}"
    sets |= dict(word.replace(".", "__").split("=") for word in BUDGET)
    process = lab.start("--name", name, worker__handler="book", **sets)
    rng, kills = random.Random(1), 0
    if wait_until_up(process, name):
        while kills < 6 and process.poll() is None:
            kills += kill(name, "worker", rng)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.12)
    outcome = lab.finish(process, timeout_s=600)
    assert outcome.status == 0, outcome.stderr
    assert kills >= 3
    requests = outcome.summary["account"]["requests"]
    assert outcome.summary["replies"] == {"judged": requests["delivered"], "wrong": 0}
    return outcome


def test_book_after_kills(lab) -> None:
    """Two workers with a book each; each reply is right all the same."""
    sets = {"worker__count": 2, "pipeline__schema": "v2", "replay__payload": 24}
    outcome = killed_again_and_again(lab, **sets, replay__requests=20_000, replay__errors=0.02)
    assert outcome.summary["account"]["requests"]["rejected"]["truncated"] > 0


def test_book_of_market_data(lab) -> None:
    """At every 1,000th message of a session the newest reply about each symbol has its best levels.

    Every level below is compared by test_judge.
    """
    sets = {"pipeline__schema": "iex", "replay__per_datagram": 4, "replay__warmup": 0}
    outcome = killed_again_and_again(lab, **sets, replay__requests=MESSAGES, replay__rate="10k")
    requests = outcome.summary["account"]["requests"]
    assert requests["received"] == requests["offered"] == MESSAGES
    came = Run(outcome.directory).delivered
    hashes = dict(zip(came["id"].tolist(), came["reply_hash"].tolist(), strict=True))
    book, newest, compared, answered = reference_book.Book(), {}, 0, 0
    with Path(outcome.manifest["capture"]["capture"]).open("rb") as file:
        datagrams = [frame[42:] for _, frame in dpkt.pcap.Reader(file)]
    for request in (each for data in datagrams for each in reference.frame("iex", data)):
        if isinstance(book.update(request.payload), bytes):
            newest[request.payload[10:18]] = request
            answered += 1
        if request.id % 1000 == 0:
            for symbol, last in newest.items():
                right = reference_iex.answer(last, book.best(symbol))
                assert hashes[last.id] == xxh3_64_intdigest(right), (request.id, symbol)
                compared += 1
    assert len(hashes) == answered == requests["delivered"]
    assert compared == 5 * (MESSAGES // 1000)


def test_spin_is_ground_truth(lab) -> None:
    """What a request took is what the formula says, and what the host took besides."""
    values = {"worker__handler": "spin"}
    sets = ("time=20us", "distribution=bimodal", "slow=100us", "slow_share=10%", "seed=5")
    arguments = [word for each in sets for word in ("--set", f"handler.spin.{each}")]
    few = {**FEW, "replay__requests": 1500, "replay__rate": "5k", "replay__arrivals": "fixed"}
    outcome = lab.run(*arguments, **few, **values)
    assert outcome.status == 0, outcome.stderr
    trace = ctf.Trace(outcome.directory / "trace")
    lane = trace.lanes["worker0"]
    ids = {p["name"]: p["id"] for p in outcome.manifest["points"]}
    took = {}
    for name in ("worker_parsed", "worker_done"):
        at = lane.point == ids[name]
        took[name] = dict(zip(lane.request[at].tolist(), lane.tsc[at].tolist(), strict=True))
    hz = json.loads((outcome.directory / "counters.json").read_text())["tsc_hz"]
    requests = sorted(took["worker_done"])
    ns = np.array([took["worker_done"][r] - took["worker_parsed"][r] for r in requests]) * 1e9 / hz
    # Without a warm-up the n-th request has the id n.
    planned = reference_spin.planned_ns(requests, 20_000, "bimodal", 100_000, 0.1, 5)
    slow = planned == 100_000
    assert 0.07 < slow.mean() < 0.13
    assert (ns - planned).min() > -100  # a ten thousandth, and the stamps
    for kind in (slow, ~slow):
        assert np.median(ns[kind] - planned[kind]) < 1000


def test_spin_formula() -> None:
    """Exponential times: their mean, and one computed by hand from SplitMix64's first numbers."""
    first = 0xE220A8397B1DCDAF  # of SplitMix64 begun at 0, as published
    assert int(reference_spin.mix(np.array([0], np.uint64))[0]) == first
    drawn = reference_spin.planned_ns(np.arange(200_000), 20_000, "exponential", seed=3)
    assert abs(drawn.mean() - 20_000) < 200
    assert abs(np.median(drawn) - 20_000 * np.log(2)) < 200


# ---- the reference itself ------------------------------------------------------------------------


def test_reference_book_by_hand() -> None:
    book = reference_book.Book(symbols=2, levels=2)

    def order(what: bytes, side: bytes, size: int, price: int, symbol: bytes = b"A") -> Any:
        return book.update(reference_book.ORDER.pack(what, side, size, price, symbol))

    def best(bid: int, bids: int, ask: int, asks: int, symbol: bytes = b"A") -> bytes:
        return reference_book.BEST.pack(symbol, bid, bids, ask, asks)

    assert order(b"q", b"\0", 0, 0) == best(0, 0, 0, 0)
    assert order(b"a", b"B", 5, 100) == best(100, 5, 0, 0)
    assert order(b"a", b"S", 3, 102) == best(100, 5, 102, 3)
    assert order(b"a", b"B", 1, 101) == best(101, 1, 102, 3)
    assert order(b"a", b"B", 1, 99) == "full"
    assert order(b"r", b"B", 9, 101) == best(100, 5, 102, 3)
    assert order(b"a", b"B", 1, 1, b"B") == best(1, 1, 0, 0, b"B")
    assert order(b"a", b"B", 1, 1, b"C") == "full"
    assert order(b"x", b"B", 1, 1) == "bad_payload"
    assert order(b"T", b"B", 1, 1) == "filtered"
    deep = reference_book.DEEP_UPDATE.pack(b"5", 1, 0, b"A       ", 7, 101)
    assert book.update(deep) == "full"  # its symbol is padded by blanks: another one


def test_order_flow_keeps_within_the_book() -> None:
    """No order of the flow is refused, and the same seed gives the same flow."""
    flow = reference_book.order_flow(9, 50_000)
    assert (flow == reference_book.order_flow(9, 50_000)).all()
    book = reference_book.Book()
    answers = [book.update(bytes(order)) for order in flow]
    assert not [answer for answer in answers if isinstance(answer, str)]
    assert len(book.levels) == reference_book.SYMBOLS
    assert max(len(side) for sides in book.levels.values() for side in sides.values()) > 20


# ---- a key varied --------------------------------------------------------------------------------


def test_values() -> None:
    assert vary.values_of("8,15, 64") == ("8", "15", "64")
    assert vary.values_of("16KiB..64KiB") == ("16KiB", "32KiB", "64KiB")
    assert vary.values_of("512KiB..3MiB") == ("512KiB", "1MiB", "2MiB")
    for wrong in ("64KiB..16KiB", "1..x", "..", "0..8"):
        with pytest.raises(ValueError, match="expected 8,16,64"):
            vary.values_of(wrong)


def test_picture() -> None:
    """Each value and each cache between them has its place."""
    points = [{"value": f"{2**k}KiB", "number": 2**k << 10, "p50": 2.0 + k} for k in range(4, 9)]
    result = {"name": "n", "span": "a..b", "per": 10, "key": "handler.x.size", "points": points}
    drawn = vary.svg(result | {"caches": {"L1": 48 << 10, "L2": 2 << 20}})
    assert "L1 48KiB" in drawn
    assert "L2" not in drawn
    assert all(f">{point['value']}<" in drawn for point in points)
    assert drawn.count("<circle") == len(points)
    ElementTree.fromstring(drawn)
