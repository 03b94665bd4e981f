# SPDX-License-Identifier: Apache-2.0
"""Generated captures that are not even: sizes, kinds of errors, arrivals, flows."""

import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import dpkt
import numpy as np
import pytest

from ticklab import capture, generate, reference

ROOT = Path(__file__).parent.parent


def made(path: Path, **options) -> tuple[dict, np.ndarray, list[bytes], np.ndarray]:
    """What generate() says; stamps in ns from the first; UDP payloads; source ports."""
    result = generate.generate(path, generate.Options(**options))
    with path.open("rb") as file:
        records = [(round(stamp * 10**9), frame) for stamp, frame in dpkt.pcap.Reader(file)]
    packets = [dpkt.ethernet.Ethernet(frame).data.data for _, frame in records]
    stamps = np.array([stamp for stamp, _ in records])
    ports = np.array([packet.sport for packet in packets])
    return result, stamps - stamps[0], [packet.data for packet in packets], ports


def test_bytes_never_change(tmp_path):
    """Beside those of tests/test_capture.py, which only know what was there first."""
    sums = {
        name: made(tmp_path / name, count=500, **options)[0]["sha256"][:16]
        for name, options in UNEVEN.items()
    }
    assert sums == SUMS


UNEVEN = {
    "ramp": {"arrivals": "ramp", "payload": "8-64"},
    "onoff": {"arrivals": "onoff", "payload": "exp:32", "schema": "v2", "per_datagram": 3},
    "weights": {"payload": "8:90,256:9,1024:1", "flow_skew": 1.0, "errors": 0.1},
    "datagram": {"payload": "4-9", "schema": "datagram", "arrivals": "poisson"},
    "errors": {"errors": 0.3, "error_kinds": "truncated,id_letter"},
    "fizzbuzz": {"handler": "fizzbuzz", "payload": "1-18", "errors": 0.2},
    "v3": {"schema": "v3", "payload": "0-200", "per_datagram": 3},
    "v4": {"schema": "v4", "payload": "0-200", "per_datagram": 3},
    "fix": {"schema": "fix", "payload": "8-64", "errors": 0.2},
    "iex": {"schema": "iex", "per_datagram": 4, "errors": 0.2},
}
SUMS = {
    "ramp": "e7317beb591f1106",
    "onoff": "dba3df06c5195a02",
    "weights": "e8f4a0d62bb76d5d",
    "datagram": "bbb0aced31a32e54",
    "errors": "9fd83f6a960ad26a",
    "fizzbuzz": "e865d492af154639",
    "v3": "61e3dbfa67ec785a",
    "v4": "4943910d25547f33",
    "fix": "67181b86552ce5a1",
    "iex": "03cc0eb49b17c3bf",
}


# ---- sizes ---------------------------------------------------------------------------------------


def sizes_of(tmp_path: Path, payload: str, **options) -> np.ndarray:
    _, _, datagrams, _ = made(tmp_path / "x", payload=payload, **options)
    requests = [request for each in datagrams for request in reference.frame("v1", each)]
    assert {request.reason for request in requests} == {None}
    assert [request.id for request in requests] == list(range(1, len(requests) + 1))
    return np.array([len(request.payload) for request in requests])


def test_one_size(tmp_path):
    assert set(sizes_of(tmp_path, "13", count=200)) == {13}


def test_a_range_of_sizes(tmp_path):
    found = sizes_of(tmp_path, "8-64", count=20_000)
    assert (found.min(), found.max()) == (8, 64)
    counts = np.bincount(found)[8:]
    assert counts.min() > 0.75 * 20_000 / 57
    assert counts.max() < 1.25 * 20_000 / 57


def test_exponential_sizes(tmp_path):
    found = sizes_of(tmp_path, "exp:32", count=20_000, per_datagram=3)
    assert found.min() == 1
    assert found.max() <= 512
    assert found.mean() == pytest.approx(32, rel=0.03)
    assert found.std() == pytest.approx(np.sqrt(32 * 31), rel=0.05)  # geometric


def test_weighted_sizes(tmp_path):
    found = sizes_of(tmp_path, "8:90,1024:1,256:9", count=20_000)
    assert set(found) == {8, 256, 1024}
    shares = [(found == size).mean() for size in (8, 256, 1024)]
    assert shares == pytest.approx([0.9, 0.09, 0.01], rel=0.15)


def test_the_size_of_a_request_is_its_own_not_the_next_ones(tmp_path):
    """The same seed gives the same sizes, whatever the schema, the errors and the arrivals."""
    plain = sizes_of(tmp_path, "8-64", count=300)
    packed = sizes_of(tmp_path, "8-64", count=300, per_datagram=7, arrivals="ramp")
    assert plain.tolist() == packed.tolist()


@pytest.mark.parametrize("schema", reference.SCHEMAS)
@pytest.mark.parametrize("payload", ["3-40", "5:1,50:1"])
def test_what_was_generated_is_what_is_offered(tmp_path, schema, payload):
    options = {"schema": schema, "payload": payload, "count": 400, "arrivals": "poisson"}
    generate.generate(tmp_path / "x.pcap", generate.Options(**options))
    prepared = capture.prepare(tmp_path / "x.pcap", schema=schema, cache_dir=tmp_path / "cache")
    assert prepared.plan["expected"] == prepared.plan["offered"]["requests"] == 400
    assert not any(prepared.plan["changes"].values())
    assert prepared.plan["ambiguous"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"payload": "64-8"}, "payload = 64-8: expected bytes: 8, 8-64, exp:32, or 8:90,256:9"),
        ({"payload": "8:0"}, "payload = 8:0"),
        ({"payload": "8:1,9"}, "payload = 8:1,9"),
        ({"payload": "exp:1"}, "payload = exp:1"),
        ({"payload": ""}, "payload = "),
        ({"payload": "-1"}, "payload = -1"),
        ({"payload": "exp:700"}, "payload = exp:700: expected at most 9,999 bytes for v1"),
        ({"payload": "0-8", "errors": 0.1}, "at least 1 byte with errors"),
        ({"payload": "1-40", "schema": "datagram"}, "expected enough bytes to tell"),
        ({"payload": "10-30", "handler": "fizzbuzz"}, "1 to 18 digits"),
        ({"arrivals": "onoff", "peak": 1.0}, "peak = 1.0: expected more than 1"),
        ({"arrivals": "onoff", "on_ns": 10}, "on_ns = 10"),
        ({"flow_skew": -1.0}, "flow_skew = -1.0"),
        ({"errors": 0.1, "error_kinds": "trunkated"}, "error_kinds = trunkated: expected all, "),
        ({"errors": 0.1, "error_kinds": "empty,"}, "error_kinds = empty,"),
        ({"errors": 0.1, "error_kinds": "bad_payload"}, "error_kinds = bad_payload"),
    ],
)
def test_options_that_cannot_be_met(tmp_path, options, said):
    with pytest.raises(generate.GenerateError) as error:
        generate.generate(tmp_path / "x", generate.Options(**options))
    assert str(error.value).startswith(f"{error.value.option} = ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


# ---- kinds of errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "handler", "kinds", "reasons"),
    [
        ("v1", "rot1", "truncated", {"truncated"}),
        ("v1", "rot1", "bad_digit,empty", {"bad_digit", "empty"}),
        ("v1", "fizzbuzz", "bad_payload", {"bad_payload"}),
        ("v1", "rot1", "third_bar_colon", {"bad_header"}),
        ("v2", "rot1", "bad_length", {"bad_length"}),
        ("v2", "fizzbuzz", "truncated,number_letters", {"truncated", "bad_payload"}),
        ("datagram", "fizzbuzz", "number_blank", {"bad_payload"}),
    ],
)
def test_only_the_kinds_chosen(tmp_path, schema, handler, kinds, reasons):
    options = {"schema": schema, "handler": handler, "count": 400, "payload": "4-8"}
    generate.generate(
        tmp_path / "x.pcap", generate.Options(errors=0.25, error_kinds=kinds, **options)
    )
    plan = capture.check(tmp_path / "x.pcap", schema=schema, handler=handler)
    assert {reason for reason, count in plan["rejected"].items() if count} == reasons
    assert sum(plan["rejected"].values()) == 100
    assert plan["expected"] == 300


def test_every_kind_comes_in_its_turn():
    options = generate.Options(error_kinds="truncated,empty,truncated")
    names = [name for name, make in generate.mutations("v1", "rot1").items() if make]
    known = generate.mutations("v1", "rot1")
    chosen = {name for name in names if known[name] in options.kinds()}
    assert {"empty", "one_bar", "payload_short", "length_largest"} <= chosen
    assert "id_letter" not in chosen
    assert len(options.kinds()) == len(chosen)


# ---- arrivals ------------------------------------------------------------------------------------


def test_ramp(tmp_path):
    """Rate R (0.1 + 1.8 t / T): 0.1 t + 0.9 t² / T of it have come at the time t."""
    _, stamps, _, _ = made(tmp_path / "x", count=20_000, rate=20_000.0, arrivals="ramp")
    share = stamps / 1e9
    came = 20_000 * (0.1 * share + 0.9 * share**2)
    assert np.abs(came - np.arange(20_000)).max() < 0.001
    assert stamps[-1] == pytest.approx(1e9, rel=1e-4)
    gaps = np.diff(stamps)
    assert gaps[0] == pytest.approx(1e9 / 2_000, rel=0.1)
    assert gaps[-1] == pytest.approx(1e9 / 38_000, rel=0.01)
    assert (np.diff(gaps) <= 1).all()


def test_onoff(tmp_path):
    options = {"count": 20_000, "rate": 20_000.0, "on_ns": 5_000_000, "peak": 5.0}
    _, stamps, _, _ = made(tmp_path / "x", arrivals="onoff", **options)
    assert (stamps % 25_000_000 < 5_000_000).all()
    periods = np.bincount(stamps // 25_000_000)
    assert periods.tolist() == [500] * 40  # so the average holds
    gaps = np.diff(stamps)
    assert set(gaps.tolist()) == {10_000, 20_010_000}


@pytest.mark.parametrize("arrivals", generate.ARRIVALS)
def test_arrivals_never_run_backwards_and_keep_the_rate(tmp_path, arrivals):
    options = {"count": 20_000, "rate": 50_000.0, "per_datagram": 4, "errors": 0.05}
    _, stamps, _, _ = made(tmp_path / "x", arrivals=arrivals, **options)
    assert (np.diff(stamps) >= 0).all()
    assert stamps[-1] == pytest.approx(4e8, rel=0.08)


# ---- flows ---------------------------------------------------------------------------------------


def test_skewed_flows(tmp_path):
    _, _, _, ports = made(tmp_path / "x", count=20_000, flows=8, flow_skew=1.0)
    shares = np.bincount(ports - generate.SOURCE_PORT, minlength=8) / 20_000
    expected = 1 / np.arange(1, 9)
    assert shares == pytest.approx(expected / expected.sum(), rel=0.1)


def test_even_flows(tmp_path):
    _, _, _, ports = made(tmp_path / "x", count=20_000, flows=8)
    assert np.bincount(ports - generate.SOURCE_PORT) == pytest.approx([2500] * 8, rel=0.1)


# ---- command and configuration -------------------------------------------------------------------


def test_command(tmp_path):
    words = ["--payload", "8-64", "--arrivals", "onoff", "--on-ns", "1000000", "--peak", "2.5"]
    words += ["--errors", "0.1", "--error-kinds", "truncated", "--flow-skew", "0.5"]
    command = [sys.executable, ROOT / "harness" / "generate.py", "x.pcap", "--count", "500"]
    done = subprocess.run(
        [*command, *words, "--json"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    options = generate.Options(
        count=500,
        payload="8-64",
        arrivals="onoff",
        on_ns=1_000_000,
        peak=2.5,
        errors=0.1,
        error_kinds="truncated",
        flow_skew=0.5,
    )
    same = generate.generate(tmp_path / "y.pcap", options)
    assert json.loads(done.stdout)["sha256"] == same["sha256"]


def test_keys_of_the_configuration(lab):
    """A run of a capture that uses every key; what the pipeline rejects is what was broken."""
    outcome = lab.run(
        replay__requests=4000,
        replay__rate="40k",
        replay__warmup=200,
        replay__arrivals="onoff",
        replay__on="2ms",
        replay__peak=3,
        replay__payload="8:9,200:1",
        replay__flow_skew=1,
        replay__errors="5%",
        replay__error_kinds="truncated,bad_digit",
    )
    assert outcome.status == 0, outcome.stderr
    requests = outcome.summary["account"]["requests"]
    rejected = {reason: count for reason, count in requests["rejected"].items() if count}
    assert set(rejected) == {"truncated", "bad_digit"}
    assert sum(rejected.values()) == 200
    assert requests["delivered"] == 3800


def test_a_wrong_key_is_told_with_its_line(lab, tmp_path):
    config = tmp_path / "x.ini"
    config.write_text("[replay]\nrequests = 4000\nerrors = 0.1\nerror_kinds = trunkated\n")
    outcome = lab.run(config=config)
    assert outcome.status == 2
    assert outcome.stderr.startswith(
        f"tickline: {config}:4: replay.error_kinds = trunkated: expected all, empty, truncated, "
    )
    assert outcome.stderr.count("\n") == 1


def test_constant_packet_rate(lab):
    """--pps: planned at k / N, and so they come."""
    outcome = lab.run("--pps", "10k", replay__requests=4000, replay__warmup=400)
    assert outcome.status == 0, outcome.stderr
    offered = np.fromfile(outcome.directory / "wire" / "offered.bin", capture.OFFERED)
    assert offered["planned_ns"].tolist() == [k * 100_000 for k in range(4000)]
    load = outcome.summary["load"]
    assert load["requests_per_s"] == pytest.approx(10_000, rel=0.02)
    assert outcome.manifest["replay"]["speed"] == "10000pps"
    assert "--speed" in lab.run("--pps", "10k", "--speed", "top").stderr


def test_packet_rate_counts_datagrams_not_requests(tmp_path):
    generate.generate(tmp_path / "x.pcap", generate.Options(count=90, per_datagram=3))
    prepared = capture.prepare(tmp_path / "x.pcap", cache_dir=tmp_path / "cache")
    planned = prepared.offered_at("1000pps")["planned_ns"]
    assert planned.tolist() == [k // 3 * 1_000_000 for k in range(90)]
    assert len(prepared.offered_at("1000pps", 10)) == 30


@pytest.mark.parametrize("schema", ["v3", "v4", "fix"])
def test_requests_of_each_schema_have_their_payloads(tmp_path, schema):
    found = {}
    for name in (schema, "v2"):
        options = {"count": 500, "payload": "0-40", "per_datagram": 3, "schema": name}
        options |= {"handler": "rot1", "seed": 5}
        _, _, datagrams, _ = made(tmp_path / name, **options)
        found[name] = [r for data in datagrams for r in reference.frame(name, data)]
    assert [r.reason for r in found[schema]] == [None] * 500
    if schema == "fix":
        texts = [r.payload.split(b"\x01112=")[1][:-1] for r in found[schema]]
        assert [len(text) for text in texts] == [len(r.payload) for r in found["v2"]]
        assert all(b"34=%08d" % n in r.payload for n, r in enumerate(found[schema], 1))
    else:
        same = [[(r.id, r.payload) for r in found[name]] for name in (schema, "v2")]
        assert same[0] == same[1]


def test_a_session_of_market_data(tmp_path):
    """Numbered without a gap; a book built from it is never crossed, and a trade is at its best."""
    options = {"schema": "iex", "count": 20_000, "per_datagram": 4, "rate": 50_000.0}
    _, _, datagrams, _ = made(tmp_path / "x.pcap", **options)
    books: dict[bytes, dict[str, dict[int, int]]] = {}
    number, kinds = 0, Counter()
    for datagram in datagrams:
        for request in reference.frame("iex", datagram):
            number += 1
            assert (request.id, request.reason) == (number, None)
            message = request.payload
            kind = chr(message[0])
            kinds[kind] += 1
            if kind not in "85T":
                continue
            symbol, size, price = struct.unpack_from("<8sIq", message, 10)
            book = books.setdefault(symbol, {"8": {}, "5": {}})
            if kind == "T":
                best = max(book["8"], default=0), min(book["5"], default=0)
                assert price in best
            elif size:
                book[kind][price] = size
            else:
                assert book[kind].pop(price) > 0
            if message[1] == 1 and book["8"] and book["5"]:
                assert max(book["8"]) < min(book["5"])
    assert number == 20_000
    assert set(kinds) == set("SDHE85TX")
    assert kinds["8"] + kinds["5"] > 15_000
    assert kinds["T"] > 500
    assert len(books) == 5


def test_malformed_market_data_counts_its_reasons(tmp_path):
    options = generate.Options(schema="iex", count=3_000, per_datagram=4, errors=0.1)
    assert generate.generate(tmp_path / "x.pcap", options)["malformed"] == 300
    plan = capture.check(tmp_path / "x.pcap", schema="iex")
    assert plan["offered"]["requests"] == 3_000
    assert sum(plan["rejected"].values()) == 300
    assert {r for r, n in plan["rejected"].items() if n} == {
        "empty",
        "truncated",
        "bad_header",
        "wrong_length",
    }
