# SPDX-License-Identifier: Apache-2.0
"""Writes run directories of which everything is known, in the formats of a real one.

    run = Synthetic(requests=1000)
    run.fate[7] = "ring"                    # what became of a request
    run.ticks["tx_sent"][3] += 2600         # when it passed a point
    run.write(directory)

Requests come every 50 µs in a datagram each. The counter runs at 2.6 GHz beside the kernel's clock,
without drift, so that 13 ticks are 5 ns and nothing is rounded where a test counts on it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ticklab.ctf import MAGIC, PAGE_BYTES, UNIT_BYTES, WIDE, crc32c
from ticklab.run import DELIVERED, EXPECTED, INGRESS, OFFERED

TSC_HZ = 2_600_000_000
REALTIME = 1_763_690_000_000_000_000
TSC = 13_000_000_000  # at REALTIME
GAP_NS = 50_000
UUID = bytes(range(16))
FATES = ("answered", "lost", "ring", "rejected", "filtered", "tx", "sink")
REASONS = (
    "empty",
    "truncated",
    "bad_header",
    "bad_digit",
    "bad_length",
    "oversized",
    "bad_payload",
    "reply_too_big",
    "wrong_length",
    "bad_checksum",
    "bad_encoding",
)
# Ticks each span takes; in ns: 2000 500 1000 100 200 300 800 400 1200, through 6500.
SPANS = {
    "rx_got": 5200,
    "rx_put": 1300,
    "worker_got": 2600,
    "worker_parsed": 260,
    "worker_done": 520,
    "worker_put": 780,
    "tx_got": 2080,
    "tx_sent": 1040,
    "tx_complete": 3120,
}
THROUGH_TICKS = 16900
WIRE_NS = 7000  # kernel to kernel
POINTS = [
    (WIDE, "rx_got", "wait", "rx"),
    (1, "rx_put", "work", "rx"),
    (2, "worker_got", "wait", "worker"),
    (3, "worker_parsed", "work", "worker"),
    (4, "worker_done", "work", "worker"),
    (5, "worker_put", "work", "worker"),
    (6, "tx_got", "wait", "tx"),
    (7, "tx_sent", "work", "tx"),
    (8, "tx_complete", "work", "tx"),
    (WIDE | 0x10, "clock", "none", "rx"),
    (WIDE | 0x11, "clock_bend", "none", "rx"),
    (0x12, "rotation", "none", "rx"),
]
RECORD = np.dtype(
    [
        ("tsc", "<u8"),
        ("point", "<u2"),
        ("argument", "<u2"),
        ("request", "<u8"),
        ("value", "<u8"),
        ("extra", "<u8"),
        ("generation", "<u4"),  # of the process that wrote it
    ]
)

METADATA = """\
/* CTF 1.8 */

typealias integer { size = 8; align = 8; signed = false; } := uint8_t;
typealias integer { size = 16; align = 8; signed = false; } := uint16_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
typealias integer { size = 8; align = 8; signed = false; encoding = UTF8; } := char_t;

trace {
    major = 1;
    minor = 8;
    uuid = "@UUID@";
    byte_order = le;
    packet.header := struct {
        uint32_t magic;
        uint8_t uuid[16];
        uint32_t stream_id;
    };
};

env {
    hostname = "synthetic";
    tracer_name = "tickline";
    run = "@NAME@";
};

clock {
    name = tsc;
    description = "time-stamp counter";
    freq = @FREQ@;
    offset_s = @OFFSET_S@;
    offset = @OFFSET@;
    absolute = true;
};

typealias integer {
    size = 64; align = 8; signed = false;
    map = clock.tsc.value;
} := tsc_t;

stream {
    id = 0;
    packet.context := struct {
        tsc_t timestamp_begin;
        tsc_t timestamp_end;
        uint64_t content_size;
        uint64_t packet_size;
        uint64_t packet_seq_num;
        uint64_t events_discarded;
        uint32_t cpu_id;
        uint32_t generation;
        uint32_t request_high;
        uint32_t checksum;
        char_t reserved[4008];
    };
    event.header := struct {
        tsc_t timestamp;
        uint16_t id;
    };
    event.context := struct {
        uint16_t argument;
        uint32_t request;
    };
};
"""
EVENT = """
event {
    id = %d;
    name = "%s";
    stream_id = 0;
    fields := struct {%s};
};
"""
WIDE_FIELDS = "\n        uint64_t value;\n        uint64_t extra;\n    "


def tsc_at(realtime_ns):
    """The counter at a time of day; whole ticks for multiples of 5 ns after REALTIME."""
    return TSC + (np.asarray(realtime_ns).astype(np.int64) - REALTIME) * 13 // 5


@dataclass
class Synthetic:
    """A run to be. Arrays have a row a request, the warm-up's first; change them before write().

    `fate` is one of FATES, `ticks` the counter at each point of a request that got so far.
    `discard` is lane → positions of records it could not keep. `counters` and `manifest` hold what
    is to differ from the truth, by dotted path (None: absent).
    """

    requests: int = 1000
    warmup: int = 10
    first: int = 0  # number of the first request
    workers: int = 1
    packet_bytes: int = 65536
    name: str = "synthetic"
    serve: bool = False
    discard: dict[str, list[int]] = field(default_factory=dict)
    counters: dict[str, object] = field(default_factory=dict)
    manifest: dict[str, object] = field(default_factory=dict)
    extra_points: list[tuple] = field(default_factory=list)
    extra_records: dict[str, np.ndarray] = field(default_factory=dict)
    sample: int = 1

    def __post_init__(self):
        count = self.warmup + self.requests
        index = np.arange(count)
        self.measured = index >= self.warmup
        # The warm-up is the beginning of the capture, sent once before.
        self.id = np.where(self.measured, index - self.warmup, index).astype(np.uint64) + np.uint64(
            1
        )
        self.planned_ns = np.maximum(index - self.warmup, 0) * GAP_NS
        self.kernel_ns = REALTIME + 1_000_000 + index * GAP_NS
        self.wire_ns = np.full(count, WIRE_NS)
        self.reply_hash = self.id * np.uint64(0x9E3779B97F4A7C15)
        self.status = np.zeros(count, np.uint32)
        self.fate = np.full(count, "answered", "U8")
        self.ticks = {"kernel": tsc_at(self.kernel_ns)}
        at = self.ticks["kernel"]
        for name, ticks in SPANS.items():
            at = at + ticks
            self.ticks[name] = at.copy()

    def row(self, position: int) -> int:
        """Row of the measured request that was offered at `position`."""
        return self.warmup + position

    def passes(self, point: str) -> np.ndarray:
        """Which requests get as far as `point`."""
        never = {"lost"}
        if point != "rx_got":
            never |= {"ring"}
        if point in ("worker_parsed", "worker_done"):
            never |= {"rejected"}
        if point in ("tx_sent", "tx_complete"):
            never |= {"rejected", "filtered", "tx"}
        return ~np.isin(self.fate, list(never))

    def write(self, directory: Path) -> Path:
        directory = Path(directory)
        for part in ("trace", "wire"):
            (directory / part).mkdir(parents=True)
        received = self.fate != "lost"
        self.number = np.zeros(len(self.fate), np.uint64)
        self.number[received] = self.first + np.arange(received.sum())
        self.lanes = {}
        for lane in ("rx", *(f"worker{i}" for i in range(self.workers)), "tx"):
            self._write_lane(directory / "trace" / lane, self._records(lane))
        self._write_metadata(directory / "trace" / "metadata")
        self._write_wire(directory / "wire", received)
        _write_json(directory / "counters.json", self._counters(received), self.counters)
        _write_json(directory / "manifest.json", self._manifest(), self.manifest)
        return directory

    def _records(self, lane: str) -> np.ndarray:
        stage = lane.rstrip("0123456789")
        parts = [self.extra_records.get(lane, np.empty(0, RECORD))]
        for point, name, span, where in POINTS:
            if where != stage or span == "none":
                continue
            mine = self.passes(name) & (self.number % np.uint64(self.sample) == 0)
            if stage == "worker":
                mine &= self.number % np.uint64(self.workers) == int(lane[6:])
            part = np.zeros(mine.sum(), RECORD)
            part["tsc"], part["point"] = self.ticks[name][mine], point
            part["request"], part["generation"] = self.number[mine], 1
            if name == "rx_got":
                part["value"], part["extra"] = self.kernel_ns[mine], self.id[mine]
            parts.append(part)
        if lane == "rx":
            realtime = REALTIME + np.arange(0, 20_000_000 + len(self.fate) * GAP_NS, 10_000_000)
            clock = np.zeros(len(realtime), RECORD)
            clock["tsc"], clock["point"], clock["argument"] = tsc_at(realtime), WIDE | 0x10, 40
            clock["value"], clock["extra"] = realtime - REALTIME, realtime
            clock["request"], clock["generation"] = self.first >> 32 << 32, 1
            parts.append(clock)
        records = np.concatenate(parts)
        records = records[np.argsort(records["tsc"], kind="stable")]
        return np.delete(records, self.discard.get(lane, []))

    def _write_lane(self, path: Path, records: np.ndarray) -> None:
        """Packets of at most packet_bytes; a new one where generation or high bits change."""
        discarded = len(self.discard.get(path.name, []))
        units = units_of(records)
        end = np.cumsum(1 + (records["point"] >= WIDE))  # in units, by record
        high = (records["request"] >> np.uint64(32)).astype(np.int64)
        room = (self.packet_bytes - PAGE_BYTES) // UNIT_BYTES
        generation = records["generation"].astype(np.int64)
        changes = np.flatnonzero(np.diff(high) | np.diff(generation)) + 1
        first_tsc = int(records["tsc"][0]) if len(records) else TSC
        with path.open("wb") as file:
            file.write(page(first_tsc, first_tsc, 0, PAGE_BYTES, 0, 0, 1, 0))
            at, number = 0, 0
            while at < len(records):
                number += 1
                begin = int(end[at - 1]) if at else 0
                until = int(np.searchsorted(end, begin + room, "right"))
                until = min([until, *changes[changes > at].tolist()])
                size = int(end[until - 1]) - begin
                last = until == len(records)
                events = units[begin : begin + size].tobytes()
                file.write(
                    page(
                        int(records["tsc"][at]),
                        int(records["tsc"][until - 1]),
                        size * UNIT_BYTES,
                        PAGE_BYTES + size * UNIT_BYTES if last else self.packet_bytes,
                        number,
                        discarded if last else 0,
                        int(generation[at]),
                        int(high[at]),
                        events,
                    )
                )
                file.write(events)
                if not last:
                    file.write(bytes(self.packet_bytes - PAGE_BYTES - size * UNIT_BYTES))
                at = until
        measured = records["request"] >= np.uint64(self.first + self.warmup)
        self.lanes[path.name] = (len(records), int((~measured).sum()), discarded)

    def _write_metadata(self, path: Path) -> None:
        offset_ns = REALTIME - TSC * 5 // 13
        text = METADATA.replace("@NAME@", self.name).replace("@FREQ@", str(TSC_HZ))
        text = text.replace("@OFFSET_S@", str(offset_ns // 1_000_000_000))
        text = text.replace("@OFFSET@", str(offset_ns % 1_000_000_000 * 13 // 5))
        uuid = UUID.hex()
        text = text.replace(
            "@UUID@", "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
        )
        for point, name, *_ in [*POINTS, *self.extra_points]:
            text += EVENT % (point, name, WIDE_FIELDS if point & WIDE else "")
        path.write_text(text)

    def _write_wire(self, directory: Path, received: np.ndarray) -> None:
        ingress = np.zeros(received.sum(), INGRESS)
        ingress["request"], ingress["id"] = self.number[received], self.id[received]
        ingress["kernel_ns"] = self.kernel_ns[received]
        ingress["length"] = 23
        ingress.tofile(directory / "ingress.bin")
        if self.serve:
            return
        offered = np.zeros(self.requests, OFFERED)
        offered["id"], offered["planned_ns"] = (
            self.id[self.measured],
            self.planned_ns[self.measured],
        )
        offered.tofile(directory / "offered.bin")
        due = self.measured & ~np.isin(self.fate, ["rejected", "filtered"])
        expected = np.zeros(due.sum(), EXPECTED)
        expected["id"], expected["reply_hash"] = self.id[due], self.reply_hash[due]
        expected.tofile(directory / "expected.bin")
        came = self.measured & (self.fate == "answered")
        delivered = np.zeros(came.sum(), DELIVERED)
        delivered["id"], delivered["reply_hash"] = self.id[came], self.reply_hash[came]
        delivered["kernel_ns"] = (self.kernel_ns + self.wire_ns)[came]
        delivered["length"], delivered["status"] = 23, self.status[came]
        delivered.tofile(directory / "delivered.bin")

    def _snapshot(self, rows: np.ndarray, tsc: int, share: float) -> dict:
        def count(*fates):
            return int(np.isin(self.fate[rows], fates).sum())

        sent = count("answered", "sink")
        here = [rows & (self.number % np.uint64(self.workers) == i) for i in range(self.workers)]
        through = [int((mine & self.passes("worker_got")).sum()) for mine in here]
        ring = [int((mine & (self.fate == "ring")).sum()) for mine in here]
        received = len(self.fate[rows]) - count("lost")
        stage = {"generation": 1, "state": "running", "turns": 1000}
        regimes = {"work": 25, "idle": 60, "blocked": 5, "housekeeping": 10}
        regimes = {name: int(part * share * 26_000_000) for name, part in regimes.items()}
        gaps = {
            "count": int(100 * share),
            "total_ticks": int(2_600_000 * share),
            "max_ticks": int(260_000 * share),
            "histogram": [[1024, int(90 * share)], [8192, int(10 * share)]],
        }
        stages = {
            name: {"pid": 100 + i, "cpu": cpu, **stage, "regimes_ticks": regimes, "gaps": gaps}
            for i, (name, cpu) in enumerate(
                [
                    ("rx", 1),
                    *((f"worker{i}", 1) for i in range(self.workers)),
                    ("tx", 1),
                    ("tracer", 0),
                ]
            )
        }
        lanes = {}
        for name, (records, before, discarded) in self.lanes.items():
            end = share == 1
            lanes[name] = {
                "records": records if end else before,
                "discarded": discarded if end else 0,
            }
        lanes["ingress"] = {"records": received, "discarded": 0}
        return {
            "tsc": tsc,
            "realtime_ns": REALTIME + (tsc - TSC) * 5 // 13,
            "rx": {
                "datagrams": received,
                "bytes": 23 * received,
                "issued": received,
                "dropped": ring,
            },
            "to_worker": [{"published": n, "consumed": n} for n in through],
            "to_tx": [{"published": n, "consumed": n} for n in through],
            "outcomes": {
                "transmitted": sent,
                "filtered": count("filtered"),
                "dropped_tx": count("tx"),
                "rejected": {r: count("rejected") if r == "bad_payload" else 0 for r in REASONS},
            },
            "repeated": [],
            "sockets": [
                {"bind": "0.0.0.0:9000", "drops": count("lost"), "unread": 0, "rcvbuf": 67108864}
            ],
            "stages": stages,
            "lanes": lanes,
        }

    def _counters(self, received: np.ndarray) -> dict:
        everything = np.ones(len(self.fate), bool)
        marked = tsc_at(self.kernel_ns[0] + self.warmup * GAP_NS - 20_000)
        end = tsc_at(self.kernel_ns[-1] + 1_000_000)
        counters = {
            "schema": 1,
            "measured_from": self.first + int(received[: self.warmup].sum()),
            "tsc_hz": float(TSC_HZ),
            "stamp_cost_ns": 9.1,
            "mark": self._snapshot(~self.measured, int(marked), 0.1),
            "end": self._snapshot(everything, int(end), 1),
            "clock": {
                "tsc_hz": float(TSC_HZ),
                "error_ppm": 0.02,
                "error_ns": 30.0,
                "skew_ns": 12.0,
                "invariant": True,
                "source": "tsc",
            },
            "rotation": {
                "order": ["rx", "worker0", "tx"],
                "checked": 10,
                "mended": 1,
                "right": True,
            },
            "complete": True,
            "reason": "drained",
        }
        if self.serve:
            del counters["mark"]
            counters["measured_from"] = self.first
        return counters

    def _manifest(self) -> dict:
        listed = [
            {
                "id": i,
                "name": name,
                "wide": bool(i & WIDE),
                "span": span,
                "stage": stage,
                "sentence": "",
            }
            for i, name, span, stage in [*POINTS, *self.extra_points]
        ]
        delivered = int((self.fate[self.measured] == "answered").sum())
        manifest = {
            "schema": 1,
            "name": self.name,
            "started_utc": "2025-11-21T02:00:00Z",
            "config": {
                "pipeline.schema": {"value": "v1", "origin": "default"},
                "worker.handler": {"value": "rot1", "origin": "configs/isolated.ini:7"},
                "trace.sample": {"value": str(self.sample), "origin": "default"},
            },
            "capture": {"sha256": "ab" * 32},
            "wire": {"sent": self.requests, "dropped_wire": 0, "dropped_ip": 0, "ip_detail": {}},
            "sink": {
                "delivered": delivered,
                "duplicated": int((self.status == 1).sum()),
                "corrupted": int((self.status == 2).sum()),
                "unknown": int((self.status == 3).sum()),
                "dropped_socket": int((self.fate[self.measured] == "sink").sum()),
                "rcvbuf": 67108864,
            },
            "replay": {
                "speed": "1x",
                "player": "tcpreplay 4.4.3",
                "sent": self.requests,
                "planned": self.requests,
                "serve": self.serve,
            },
            "points": listed,
            "degraded": [],
            "obtained": {
                "memory.pages": {"asked": "want-2m", "obtained": "4k", "why": "none free"}
            },
            "placement": {"rx": 1, "worker0": 1, "tx": 1, "tracer": 0},
            "host": {"name": "synthetic"},
            "kernel": "6.1.0",
            "cpu": "synthetic",
            "git": {"commit": "0" * 40, "dirty": False},
            "builds": {"rx": {"build_id": "00", "flags": "-O2"}},
            "interrupted": False,
        }
        if self.serve:
            del manifest["wire"], manifest["sink"]
        return manifest


def units_of(records: np.ndarray) -> np.ndarray:
    """RECORDs as they stand in a packet: shape (units, 2) of u64, two units a wide one."""
    wide = records["point"] >= WIDE
    at = np.cumsum(1 + wide) - (1 + wide)
    units = np.zeros((len(records) + int(wide.sum()), 2), "<u8")
    units[at, 0] = records["tsc"]
    units[at, 1] = (
        records["point"].astype(np.uint64)
        | records["argument"].astype(np.uint64) << np.uint64(16)
        | (records["request"] & np.uint64(0xFFFFFFFF)) << np.uint64(32)
    )
    units[at[wide] + 1, 0] = records["value"][wide]
    units[at[wide] + 1, 1] = records["extra"][wide]
    return units


def checksum(events: bytes) -> int:
    """As the reader verifies it, or nothing where it cannot."""
    return crc32c(events) if crc32c else 0


def page(
    begin: int,
    end: int,
    content_bytes: int,
    packet_bytes: int,
    number: int,
    discarded: int,
    generation: int,
    high: int,
    events: bytes = b"",
) -> bytes:
    """Header and context of a packet; content_bytes without the page."""
    words = np.zeros(PAGE_BYTES // 8, "<u8")
    words[0] = MAGIC | int.from_bytes(UUID[:4], "little") << 32
    words[1] = int.from_bytes(UUID[4:12], "little")
    words[2] = int.from_bytes(UUID[12:], "little")  # and stream_id 0
    words[3:9] = (begin, end, (PAGE_BYTES + content_bytes) * 8, packet_bytes * 8, number, discarded)
    words[9] = 1 | generation << 32
    words[10] = high | checksum(events) << 32
    return words.tobytes()


def _write_json(path: Path, content: dict, changes: dict[str, object]) -> None:
    for dotted, value in changes.items():
        at = content
        *way, last = [int(key) if key.isdigit() else key for key in dotted.split(".")]
        for key in way:
            at = at[key]
        if value is None:
            del at[last]
        else:
            at[last] = value
    path.write_text(json.dumps(content))
