# SPDX-License-Identifier: Apache-2.0
"""The reader of traces, its clock, the spans, and the statistics, on runs of which all is known."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from synthetic import (
    REALTIME,
    RECORD,
    SPANS,
    THROUGH_TICKS,
    TSC,
    TSC_HZ,
    Synthetic,
    checksum,
    tsc_at,
    units_of,
)

from ticklab import spans, stats
from ticklab.clock import Clock, clock_of
from ticklab.ctf import PAGE_BYTES, WIDE, Trace, TraceError, split_wide
from ticklab.run import Run, RunError
from ticklab.wire import match, missing

SPAN_NAMES = [f"{a}..{b}" for a, b in zip(["kernel", *SPANS], SPANS, strict=False)]


def table_of(directory):
    run = Run(directory)
    points = spans.points_of(run.manifest["points"])
    return spans.requests_of(run.trace, points, clock_of(run), run.measured_from)


# ---- CTF


def test_lane_holds_what_was_written(tmp_path):
    synthetic = Synthetic(requests=3000)
    trace = Trace(synthetic.write(tmp_path / "run") / "trace")
    written = synthetic._records("rx")
    read = trace.lanes["rx"].table()
    for name in read.dtype.names:
        assert np.array_equal(read[name], written[name]), name
    assert {lane: len(records) for lane, records in trace.lanes.items()} == {
        "rx": 2 * 3010 + 18,
        "tx": 3 * 3010,
        "worker0": 4 * 3010,
    }
    assert trace.metadata.tsc_hz == TSC_HZ
    assert trace.metadata.offset_ns == REALTIME - TSC * 5 // 13
    assert trace.metadata.events[WIDE] == "rx_got"
    assert trace.metadata.events[8] == "tx_complete"
    assert trace.metadata.env["run"] == "synthetic"


@pytest.mark.parametrize("packet_bytes", [PAGE_BYTES + 48, PAGE_BYTES + 160, 65536])
def test_second_halves_that_look_like_wide_records(tmp_path, packet_bytes):
    synthetic = Synthetic(requests=400, packet_bytes=packet_bytes)
    # The id word of a second half is the low word of the wire id.
    synthetic.id[:] = np.random.default_rng(1).choice([0x8000, 0x8010, 0xFFFF, 0x7FFF, 0], 410)
    lane = Trace(synthetic.write(tmp_path / "run") / "trace").lanes["rx"]
    assert np.array_equal(lane.extra[lane.point[lane.wide] == WIDE], synthetic.id)
    assert np.array_equal(lane.point, synthetic._records("rx")["point"])


def test_split_wide_agrees_with_reading_one_by_one():
    random = np.random.default_rng(2)
    records = np.zeros(5000, RECORD)
    records["point"] = random.choice([1, 2, WIDE, WIDE | 0x10], len(records))
    records["extra"] = random.choice([0, 3, WIDE, WIDE | 7], len(records))
    points = (units_of(records)[:, 1] & np.uint64(0xFFFF)).astype(np.uint16)
    expected, at = [], 0
    while at < len(points):
        if points[at] >= WIDE:
            expected.append(at)
            at += 1
        at += 1
    headers, torn = split_wide(points, np.array([0]))
    assert headers.tolist() == expected
    assert torn is None


def test_request_numbers_keep_their_high_bits(tmp_path):
    synthetic = Synthetic(requests=1000, first=(7 << 32) - 500)
    directory = synthetic.write(tmp_path / "run")
    lane = Trace(directory / "trace").lanes["tx"]
    assert lane.request.min() == (7 << 32) - 500
    assert lane.request.max() == (7 << 32) + 509
    assert sorted(set(lane.packets[1:, 2])) == [6, 7]
    table = table_of(directory)
    rows, through = table.through()
    assert len(rows) == 1000
    assert set(through.tolist()) == {THROUGH_TICKS}


def damage(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("offset", "data", "said"),
    [
        (PAGE_BYTES, b"\0", "4096: magic"),
        (PAGE_BYTES + 4, b"\xff", "4100: a packet of another trace"),
        (PAGE_BYTES + 20, b"\1", "4116: stream_id 1"),
        (PAGE_BYTES + 24, b"\xff" * 8, "4120: the packet ends before it begins"),
        (PAGE_BYTES + 40, b"\1", "4136: content_size"),
        (PAGE_BYTES + 48, b"\0" * 8, "4144: packet_size 0 bits"),
        (PAGE_BYTES + 48, b"\xf8" * 8, "4144: packet_size"),
        (PAGE_BYTES + 56, b"\0", "4152: packet 0 follows packet 0"),
        (64, b"\xff", "4160: discarded runs back from 255 to 0"),
    ],
)
def test_damaged_header_is_named_by_file_and_offset(tmp_path, offset, data, said):
    directory = Synthetic().write(tmp_path / "run")
    damage(directory / "trace" / "rx", offset, data)
    with pytest.raises(TraceError, match=f"trace/rx: {said}"):
        Trace(directory / "trace")


def test_damaged_events_are_named_by_file_and_offset(tmp_path):
    pytest.importorskip("crc32c")
    directory = Synthetic().write(tmp_path / "run")
    damage(directory / "trace" / "rx", 2 * PAGE_BYTES + 10, b"\xff")
    with pytest.raises(TraceError, match="trace/rx: 4180: checksum 0x"):
        Trace(directory / "trace")


def test_torn_files_are_named(tmp_path):
    path = Synthetic().write(tmp_path / "run") / "trace" / "tx"
    whole = path.read_bytes()
    for size, said in [(0, "an empty file"), (100, "100 bytes"), (len(whole) - 1, "packet_size")]:
        path.write_bytes(whole[:size])
        with pytest.raises(TraceError, match=f"trace/tx: .*{said}"):
            Trace(path.parent)


def test_wide_record_cut_by_its_packet(tmp_path):
    synthetic = Synthetic(requests=1, warmup=0)
    path = synthetic.write(tmp_path / "run") / "trace" / "rx"
    # clock, rx_got, rx_put, clock, clock: the last one loses its second half.
    content = PAGE_BYTES + 16 * 8
    damage(path, PAGE_BYTES + 40, (content * 8).to_bytes(8, "little"))
    events = path.read_bytes()[2 * PAGE_BYTES : 2 * PAGE_BYTES + 16 * 8]
    damage(path, PAGE_BYTES + 84, checksum(events).to_bytes(4, "little"))
    with pytest.raises(TraceError, match=f"rx: {2 * PAGE_BYTES + 16 * 7}: .* inside a wide record"):
        Trace(path.parent)


def test_babeltrace2_reads_the_same(tmp_path):
    """The text of the metadata and the layout of the packets are those of CTF 1.8."""
    if not shutil.which("babeltrace2"):
        pytest.skip("babeltrace2 is not installed")
    synthetic = Synthetic(requests=20, warmup=0, packet_bytes=PAGE_BYTES + 320, discard={"tx": [5]})
    directory = synthetic.write(tmp_path / "run")
    done = subprocess.run(
        ["babeltrace2", "--clock-cycles", "--no-delta", directory / "trace"],
        capture_output=True,
        text=True,
        check=True,
    )
    line = re.compile(
        r"\[0*(\d+)\] synthetic (\w+): .*, \{ argument = (\d+), request = (\d+) \}, "
        r"\{ (?:value = (\d+), extra = (\d+) )?\}"
    )
    read = [line.fullmatch(told).groups("0") for told in done.stdout.splitlines()]
    names = Trace(directory / "trace").metadata.events
    written = np.concatenate([synthetic._records(lane) for lane in ("rx", "worker0", "tx")])
    expected = [
        (str(tsc), names[point], str(argument), str(request), str(value), str(extra))
        for tsc, point, argument, request, value, extra, _ in written.tolist()
    ]
    assert sorted(read) == sorted(expected)
    assert [int(row[0]) for row in read] == sorted(written["tsc"].tolist())
    assert "discarded 1 event" in done.stderr


# ---- clock


def test_clock_interpolates_in_whole_ticks():
    clock = Clock([0, 26_000_000], [REALTIME, REALTIME + 10_000_000], TSC_HZ)
    at = np.array([0, 5, 9_999_995, 10_000_005, -5]) + REALTIME
    assert clock.ticks(at, at).tolist() == [0, 13, 25_999_987, 26_000_013, -13]
    assert clock.ns(26) == 10.0


def test_clock_follows_a_slew():
    # 100 ppm fast for the second of three stretches.
    tsc = np.array([0, 26_000_000, 52_002_600, 78_002_600])
    clock = Clock(tsc, REALTIME + np.array([0, 1, 2, 3]) * 10_000_000, TSC_HZ)
    middle = np.array([REALTIME + 15_000_000])
    assert clock.ticks(middle, middle).tolist() == [39_001_300]
    assert clock.error_ns == pytest.approx(500, abs=1)


def test_clock_set_back_is_found_by_the_counter():
    tsc = np.array([0, 26, 52, 78]) * 1_000_000
    clock = Clock(tsc, REALTIME + np.array([0, 10, 5, 15]) * 1_000_000, TSC_HZ)
    twice = np.array([REALTIME + 7_000_000] * 2)
    near = np.array([18_300_000, 57_300_000])
    assert clock.ticks(twice, near).tolist() == [18_200_000, 57_200_000]


def test_clock_leaves_out_interrupted_pairs():
    realtime = REALTIME + np.arange(5) * 10_000_000
    tsc = np.arange(5) * 26_000_000
    tsc[2] += 26_000
    clock = Clock(tsc, realtime, TSC_HZ, np.array([40, 40, 20_000, 40, 40]))
    at = np.array([REALTIME + 20_000_000])
    assert clock.ticks(at, at).tolist() == [52_000_000]
    assert clock.error_ns == 0


def test_one_pair_is_a_clock_too():
    clock = Clock([100], [REALTIME], TSC_HZ)
    at = np.array([REALTIME + 50])
    assert clock.ticks(at, at).tolist() == [230]
    assert clock.error_ns is None


# ---- spans


def test_spans_have_the_ticks_they_were_given(tmp_path):
    table = table_of(Synthetic(workers=3).write(tmp_path / "run"))
    found = spans.spans_of(table)
    assert list(found) == SPAN_NAMES
    for name, span in found.items():
        assert len(span.rows) == 1000, name
        assert set(span.ticks.tolist()) == {SPANS[name.split("..")[1]]}, name
    kinds = [span.kind for span in found.values()]
    assert kinds == ["wait", "work", "wait", "work", "work", "work", "wait", "work", "work"]


def test_spans_add_up_to_through_exactly(tmp_path):
    synthetic = Synthetic(discard={"worker0": [90, 91, 202, 303, 404]})
    random = np.random.default_rng(3)
    at = synthetic.ticks["kernel"]
    for name in SPANS:
        at = at + random.integers(-20, 9000, len(at))
        synthetic.ticks[name] = at.copy()
    # A lane never runs backward, and its records are written in order.
    table = table_of(synthetic.write(tmp_path / "run"))
    total = np.zeros(len(table.number), np.int64)
    for span in spans.spans_of(table).values():
        np.add.at(total, span.rows, span.ticks)
    rows, through = table.through()
    assert len(rows) == 1000
    assert np.array_equal(total[rows], through)


def test_negative_span_stays_negative(tmp_path):
    synthetic = Synthetic()
    synthetic.ticks["tx_got"][synthetic.row(5)] = (
        synthetic.ticks["worker_put"][synthetic.row(5)] - 7
    )
    found = spans.spans_of(table_of(synthetic.write(tmp_path / "run")))
    span = found["worker_put..tx_got"]
    assert span.ticks[span.rows == 5].tolist() == [-7]
    assert (span.ticks < 0).sum() == 1


def test_rejected_and_dropped_requests_have_the_spans_they_got_to(tmp_path):
    synthetic = Synthetic()
    synthetic.fate[synthetic.row(1)] = "rejected"
    synthetic.fate[synthetic.row(2)] = "ring"
    synthetic.fate[synthetic.row(3)] = "filtered"
    found = spans.spans_of(table_of(synthetic.write(tmp_path / "run")))
    assert {name: len(span.rows) for name, span in found.items()} == {
        "kernel..rx_got": 1000,
        "rx_got..rx_put": 999,
        "rx_put..worker_got": 999,
        "worker_got..worker_parsed": 998,
        "worker_got..worker_put": 1,
        "worker_parsed..worker_done": 998,
        "worker_done..worker_put": 998,
        "worker_put..tx_got": 999,
        "tx_got..tx_sent": 997,
        "tx_sent..tx_complete": 997,
    }
    assert found["worker_got..worker_put"].kind == "work"


def test_span_over_missing_records_is_mixed(tmp_path):
    # Records 4k to 4k+3 of the worker are those of request k, the warm-up's ten first.
    synthetic = Synthetic(discard={"worker0": [4 * 30, 4 * 30 + 1, 4 * 30 + 2, 4 * 30 + 3]})
    table = table_of(synthetic.write(tmp_path / "run"))
    found = spans.spans_of(table)
    span = found["rx_put..tx_got"]
    assert (span.kind, span.rows.tolist(), span.ticks.tolist()) == ("mixed", [20], [6240])
    waits, works = spans.waits_and_works(table, found)
    assert len(waits) == 999
    assert set(waits.tolist()) == {5200 + 2600 + 2080}
    assert set(works.tolist()) == {THROUGH_TICKS - 5200 - 2600 - 2080}


def test_sampled_requests(tmp_path):
    table = table_of(Synthetic(requests=5000, sample=100).write(tmp_path / "run"))
    assert table.number.tolist() == list(range(100, 5010, 100))
    assert table.through()[1].tolist() == [THROUGH_TICKS] * 50


def successor(stamps):
    """Records of generation 2: (tsc, point, request) each."""
    records = np.zeros(len(stamps), RECORD)
    records["tsc"], records["point"], records["request"] = zip(*stamps, strict=True)
    records["generation"] = 2
    return records


def test_after_a_restart_the_generation_that_published_counts(tmp_path):
    synthetic = Synthetic(requests=20, warmup=0)
    late = int(synthetic.ticks["worker_put"][-1]) + 1000
    # Killed in request 19 before it was published: the successor does it again, whole.
    synthetic.discard = {"worker0": [4 * 19 + 3]}
    synthetic.extra_records = {
        "worker0": successor([(late + i, 2 + i, 19) for i in range(4)] + [(late + 9, 2, 18)])
    }
    table = table_of(synthetic.write(tmp_path / "run"))
    assert [int(table.ticks[name][19] - late) for name in list(SPANS)[2:6]] == [0, 1, 2, 3]
    # It began 18 too, but its predecessor had published that one.
    assert table.ticks["worker_got"][18] == synthetic.ticks["worker_got"][18]
    assert table.ticks["worker_put"][18] == synthetic.ticks["worker_put"][18]


def test_of_two_that_finished_the_later_generation_counts(tmp_path):
    synthetic = Synthetic(requests=20, warmup=0)
    late = int(synthetic.ticks["tx_complete"][-1]) + 1000
    synthetic.extra_records = {"tx": successor([(late + i, 6 + i, 19) for i in range(3)])}
    table = table_of(synthetic.write(tmp_path / "run"))
    assert [int(table.ticks[name][19] - late) for name in list(SPANS)[6:]] == [0, 1, 2]
    assert table.ticks["tx_got"][18] == synthetic.ticks["tx_got"][18]


def test_handler_points_come_in_the_order_of_their_time(tmp_path):
    extra = [(0x20, "walk", "work", "worker"), (0x21, "probe", "work", "worker")]
    synthetic = Synthetic(requests=4, warmup=0, extra_points=extra)
    parsed = [int(tsc) for tsc in synthetic.ticks["worker_parsed"]]
    stamps = [(parsed[0] + 10, 0x20, 0), (parsed[0] + 30, 0x21, 0)]
    stamps += [(parsed[1] + 10, 0x21, 1), (parsed[1] + 30, 0x20, 1), (parsed[2] + 50, 0x21, 2)]
    records = successor(stamps)
    records["generation"] = 1
    synthetic.extra_records = {"worker0": records}
    table = table_of(synthetic.write(tmp_path / "run"))
    found = spans.spans_of(table)
    inside = {
        name: dict(zip(span.rows.tolist(), span.ticks.tolist(), strict=True))
        for name, span in found.items()
        if "walk" in name or "probe" in name or name == "worker_parsed..worker_done"
    }
    assert inside == {
        "worker_parsed..worker_done": {3: 520},
        "worker_parsed..walk": {0: 10},
        "worker_parsed..probe": {1: 10, 2: 50},
        "walk..probe": {0: 20},
        "probe..walk": {1: 20},
        "walk..worker_done": {1: 490},
        "probe..worker_done": {0: 490, 2: 470},
    }
    assert all(found[name].kind == "work" for name in inside)
    assert set(table.through()[1].tolist()) == {THROUGH_TICKS}


# ---- wire


def test_match_takes_the_same_occurrence():
    left = np.array([5, 3, 5, 9, 5], np.uint64)
    right = np.array([5, 5, 7, 9, 5, 5, 3], np.uint64)
    assert match(left, right).tolist() == [0, 2, -1, 3, 4, -1, 1]
    assert match(left, left).tolist() == [0, 1, 2, 3, 4]
    assert match(left, right[:0]).tolist() == []
    assert match(left[:0], right).tolist() == [-1] * 7
    assert missing(match(left, right[:3]), 5).tolist() == [1, 3, 4]


def test_tables_cut_in_a_record_are_refused(tmp_path):
    directory = Synthetic().write(tmp_path / "run")
    path = directory / "wire" / "ingress.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"ingress.bin: 32319 bytes: expected a multiple of 32"):
        _ = Run(directory).ingress


# ---- statistics


def test_percentiles_are_nearest_rank():
    entry = stats.describe(np.random.default_rng(4).permutation(np.arange(1, 100_001)), 0)
    assert entry == {
        "count": 100_000,
        "of": 100_000,
        "min": 1.0,
        "p50": 50_000.0,
        "p90": 90_000.0,
        "p99": 99_000.0,
        "p99_9": 99_900.0,
        "p99_99": 99_990.0,
        "max": 100_000.0,
        "mean": 50_000.5,
    }


def test_percentiles_stay_in_order_with_a_far_outlier():
    values = np.concatenate((np.full(19_999, 1000), [3_000_000_000]))
    entry = stats.describe(values, 0)
    order = [entry[name] for name in ("min", "p50", "p90", "p99", "p99_9", "max")]
    assert order == [1000, 1000, 1000, 1000, 1000, 3_000_000_000]
    assert "p99_99" not in entry


@pytest.mark.parametrize(
    ("count", "there"),
    [
        (0, []),
        (19, []),
        (20, ["p50"]),
        (99, ["p50"]),
        (100, ["p50", "p90"]),
        (999, ["p50", "p90"]),
        (1000, ["p50", "p90", "p99"]),
        (10_000, ["p50", "p90", "p99", "p99_9"]),
    ],
)
def test_percentile_needs_ten_records_beyond(count, there):
    entry = stats.describe(np.arange(count), 0)
    assert [name for name in stats.PERCENTILES if name in entry] == there
    assert ("max" in entry) == (count > 0)


def test_histogram_bins():
    values = np.array([-5, 0, 15, 16, 17, 1000, 1023, 1024])
    assert stats.histogram(values) == [[0, 2], [15, 1], [16, 2], [960, 2], [1024, 1]]
    assert [stats.bin_end(low) for low in (0, 15, 16, 960, 1024)] == [1, 16, 18, 1024, 1152]


def test_hgrm():
    assert stats.hgrm(np.arange(1, 11)) == (
        "       Value     Percentile TotalCount 1/(1-Percentile)\n"
        "\n"
        "       1.000 0.000000000000          1             1.00\n"
        "       1.000 0.100000000000          1             1.11\n"
        "       2.000 0.200000000000          2             1.25\n"
        "       3.000 0.300000000000          3             1.43\n"
        "       4.000 0.400000000000          4             1.67\n"
        "       5.000 0.500000000000          5             2.00\n"
        "       6.000 0.550000000000          6             2.22\n"
        "       6.000 0.600000000000          6             2.50\n"
        "       7.000 0.650000000000          7             2.86\n"
        "       7.000 0.700000000000          7             3.33\n"
        "       8.000 0.750000000000          8             4.00\n"
        "       8.000 0.775000000000          8             4.44\n"
        "       8.000 0.800000000000          8             5.00\n"
        "       9.000 0.825000000000          9             5.71\n"
        "       9.000 0.850000000000          9             6.67\n"
        "       9.000 0.875000000000          9             8.00\n"
        "       9.000 0.887500000000          9             8.89\n"
        "       9.000 0.900000000000          9            10.00\n"
        "      10.000 1.000000000000         10\n"
        "#[Mean    =        5.500, StdDeviation   =        2.872]\n"
        "#[Max     =       10.000, Total count    =           10]\n"
    )


def test_tsc_of_the_synthetic_clock():
    assert tsc_at(REALTIME + 5) == TSC + 13
