# SPDX-License-Identifier: Apache-2.0
"""The reader of a run directory: its raw files as they were written, and nothing derived from them.

    manifest.json  what was run, where and how         counters.json  what the stages counted
    trace/         CTF, a stream a process             wire/*.bin     the four tables below

Everything a run yields besides is computed from these, and can be computed again.
"""

import configparser
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from ticklab import ctf

# A request of the measured phase each, in capture order; planned_ns from the first packet, 0 at top
# speed.
OFFERED = np.dtype([("id", "<u8"), ("planned_ns", "<i8")])
# A request that must be answered each; XXH3 of its whole reply. Of a handler with a memory each
# that may be answered: whatever comes is judged later, or not at all.
EXPECTED = np.dtype([("id", "<u8"), ("reply_hash", "<u8")])
ANY_REPLY = 0
# A received request each, in order of number, the warm-up's too; kernel_ns REALTIME, 0 if unknown.
INGRESS = np.dtype(
    [
        ("request", "<u8"),
        ("id", "<u8"),
        ("kernel_ns", "<u8"),
        ("datagram", "<u4"),
        ("flow", "<u2"),
        ("length", "<u2"),
    ]
)
# A reply of the measured phase each, in order of arrival; kernel_ns is REALTIME.
DELIVERED = np.dtype(
    [
        ("id", "<u8"),
        ("kernel_ns", "<u8"),
        ("reply_hash", "<u8"),
        ("length", "<u4"),
        ("status", "<u4"),
    ]
)
# Where the client plays: of each request offered its connection, the operation that completes it,
# and how many bytes its connection has written by then.
REQUESTS = np.dtype([("connection", "<u4"), ("operation", "<u4"), ("end", "<u8")])
# An operation of the client each; `done_ns` is the least number where it was never done.
SENT = np.dtype([("planned_ns", "<i8"), ("done_ns", "<i8")])
# A connection of the client each, what became of it; `state` as in harness/client_link.h.
CONNECTIONS = np.dtype(
    [
        ("written", "<u8"),
        ("read", "<u8"),
        ("opened", "<u4"),
        ("resets", "<u4"),
        ("state", "<u4"),
        ("error", "<u4"),
    ]
)
LINK_BROKEN = 6
NOT_DONE = np.iinfo(np.int64).min
STATUS_OK, STATUS_DUPLICATED, STATUS_CORRUPTED, STATUS_UNKNOWN = range(4)


class RunError(Exception):
    """A run directory that cannot be read; the message is one line naming the file."""


# What is read of the two files below, and as what; "*" stands for every key, [form] for a list.
_COUNTS = {"stages": {"*": {"generation": int}}, "repeated": [int]}
_RESTART = {"stage": str, "generation": int, "cause": str, "last_tick": int, "back": int}
_RESTART |= {"waiting": int, "first": int, "last": int}
_FORMS = {
    "manifest.json": {"name": str, "config": {"*": {"value": str}}, "replay": {}},
    "counters.json": {
        "measured_from": int,
        "tsc_hz": (int, float),
        "restarts": [_RESTART],
        "end": _COUNTS,
    },
}


class Run:
    """One run directory.

    `manifest` and `counters` are their files' contents. Tables are None where the run has none (a
    run with --serve has no `offered` and no `delivered`). With `salvaged`, a run that was
    killed and salvaged may be read too: it has its configuration, its points and its trace. Raises
    RunError, from the constructor for a directory that is no run, from a property for a file that
    is damaged.
    """

    def __init__(self, path: str | Path, salvaged: bool = False):
        self.path = Path(path)
        if not self.path.is_dir():
            raise RunError(
                f"{self.path}: not a run directory: expected a directory such as runs/NAME-TIME"
            )
        if salvaged and self.is_salvaged:
            self._take_salvaged()
            return
        self.manifest = self._json("manifest.json")
        self.counters = self._json("counters.json")
        self._end = self.counter("end")
        self._mark = self.counters.get("mark")
        if self._mark is not None:
            self._check("counters.json", self._mark, _COUNTS, "mark")

    @property
    def is_salvaged(self) -> bool:
        """Was it killed, so that what its stages counted died with them, and its trace saved?"""
        return (self.path / "salvage.json").exists() and not (self.path / "counters.json").exists()

    def _take_salvaged(self) -> None:
        """What is known of the run all the same."""
        report = self._json("salvage.json")
        parser = configparser.ConfigParser(
            interpolation=None, inline_comment_prefixes=(";",), strict=False
        )
        parser.read(self.path / "config.ini")
        config = {
            f"{section}.{key}": {"value": value}
            for section in parser.sections()
            for key, value in parser.items(section)
        }
        self.manifest = {"config": config, "points": report["points"]}
        self.counters = {"tsc_hz": report["tsc_hz"]}
        self._end = self._mark = None

    @property
    def name(self) -> str:
        return self.manifest.get("name") or self.path.resolve().name

    def config(self, key: str, default: str = "") -> str:
        """Effective value of `section.key` as text."""
        return self.manifest.get("config", {}).get(key, {}).get("value", default)

    @property
    def serve(self) -> bool:
        """Was it up for somebody else's client, with no player and no sink of the lab's?"""
        return bool(self.manifest.get("replay", {}).get("serve"))

    @property
    def bounded(self) -> bool:
        """Was only the end of trace and ingress kept (trace.keep, trace.max_bytes)?"""
        return (
            self.config("trace.keep", "all") != "all"
            or self.config("trace.max_bytes", "none") != "none"
        )

    @property
    def measured_from(self) -> int:
        """Number of the first request of the measured phase."""
        return self.counters.get("measured_from", 0)

    @property
    def tsc_hz(self) -> float:
        return self.counter("tsc_hz")

    def counter(self, *path: str | int):
        """What stands at `path` in counters.json."""
        return self._walk(self.counters, path, ())

    def measured(self, *path: str | int) -> int:
        """A counter's growth in the measured phase, `end` minus `mark`; "*" sums over many.

        A run that was never marked is measured from its start.
        """
        count = self._sum(self._end, path, ("end",))
        return count - self._sum(self._mark, path, ("mark",)) if self._mark is not None else count

    def at_end(self, *path: str | int) -> int:
        """A counter at the end of the run; "*" sums over many."""
        return self._sum(self._end, path, ("end",))

    def stages(self) -> dict[str, tuple[dict, dict | None]]:
        """Each stage's figures at the end, and at the mark (None: there is none).

        A successor goes on counting where its predecessor was.
        """
        marks = (self._mark or {}).get("stages", {})
        return {name: (end, marks.get(name)) for name, end in self.counter("end", "stages").items()}

    @property
    def restarts(self) -> list[dict]:
        """What the launcher noted of each stage that was replaced, in order."""
        return self.counters.get("restarts", [])

    @property
    def repeated(self) -> np.ndarray:
        """Measured requests whose reply may have been sent twice, uint64, ascending."""
        first = max(self.measured_from, 0)
        listed = {n for n in self.counter("end", "repeated") if first <= n < 1 << 64}
        return np.array(sorted(listed), np.uint64)

    @cached_property
    def trace(self) -> ctf.Trace | None:
        directory = self.path / "trace"
        return ctf.Trace(directory) if (directory / "metadata").exists() else None

    @cached_property
    def offered(self) -> np.ndarray | None:
        """OFFERED, shape (requests,)."""
        return None if self.serve else self._table("offered", OFFERED)

    @cached_property
    def requests(self) -> np.ndarray | None:
        """REQUESTS, shape of `offered`; None unless the client played."""
        return self._table("requests", REQUESTS) if self.offered is not None else None

    @cached_property
    def sent(self) -> np.ndarray | None:
        """SENT, shape (operations,); None unless the client played."""
        return self._table("sent", SENT)

    @cached_property
    def connections(self) -> np.ndarray | None:
        """CONNECTIONS, shape (connections,); None unless the client played."""
        return self._table("connections", CONNECTIONS)

    @cached_property
    def expected(self) -> np.ndarray | None:
        """EXPECTED, shape (replies,)."""
        return None if self.serve else self._table("expected", EXPECTED)

    @cached_property
    def ingress(self) -> np.ndarray | None:
        """INGRESS of the measured phase, shape (requests,)."""
        table = self._ingress
        return None if table is None else table[table["request"] >= self.measured_from]

    @property
    def received(self) -> np.ndarray | None:
        """INGRESS of the whole run, shape (requests,)."""
        return self._ingress

    @cached_property
    def judged(self) -> dict | None:
        """What a reference said of the replies after the run (wire/judged.json); None: none did."""
        path = self.path / "wire" / "judged.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def ingress_written(self) -> int:
        """Records in ingress.bin, the warm-up's too."""
        return 0 if self._ingress is None else len(self._ingress)

    @cached_property
    def _ingress(self) -> np.ndarray | None:
        return self._table("ingress", INGRESS)

    @cached_property
    def delivered(self) -> np.ndarray | None:
        """DELIVERED, shape (replies,)."""
        return None if self.serve else self._table("delivered", DELIVERED)

    def _table(self, name: str, dtype: np.dtype) -> np.ndarray | None:
        path = self.path / "wire" / f"{name}.bin"
        if not path.exists():
            return None
        size = path.stat().st_size
        if size % dtype.itemsize:
            raise RunError(
                f"{path}: {size} bytes: expected a multiple of {dtype.itemsize}; was it cut?"
            )
        return np.fromfile(path, dtype)

    def _json(self, name: str) -> dict:
        path = self.path / name
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            if self.is_salvaged:
                raise RunError(
                    f"{self.path}: a run that was killed: what its stages counted died with them; "
                    f"its trace was salvaged: harness/timeline.py {self.path}"
                ) from None
            raise RunError(
                f"{self.path}: not a run directory, or an unfinished one: no {name}; "
                "expected one such as runs/NAME-TIME"
            ) from None
        except OSError as error:
            raise RunError(f"{path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path}: not JSON: {error}") from None
        if not isinstance(content, dict) or content.get("schema") != 1:
            raise RunError(f"{path}: expected an object with schema 1")
        self._check(name, content, _FORMS.get(name, {}), "")
        return content

    def _check(self, name: str, content, form, at: str) -> None:
        """Raises where something that is there is not of its form."""
        kind = type(form) if isinstance(form, (dict, list)) else form
        if not isinstance(content, kind):
            names = {dict: "an object", list: "a list", int: "a whole number", str: "text"}
            expected = names.get(kind, "a number")
            raise RunError(f"{self.path / name}: {at}: expected {expected}")
        for i, element in enumerate(content if kind is list else ()):
            self._check(name, element, form[0], f"{at}[{i}]")
        for key in (content if "*" in form else form) if kind is dict else ():
            if key in content:
                inner = form.get(key, form.get("*"))
                self._check(name, content[key], inner, f"{at}.{key}".lstrip("."))

    def _walk(self, at, path: tuple, walked: tuple):
        for depth, key in enumerate(path):
            try:
                at = at[key]
            except (KeyError, IndexError, TypeError):
                missing = ".".join(map(str, walked + path[: depth + 1]))
                raise RunError(f"{self.path / 'counters.json'}: {missing} is missing") from None
        return at

    def _sum(self, at, path: tuple, walked: tuple) -> int:
        if "*" not in path:
            count = self._walk(at, path, walked)
            if not isinstance(count, (int, float)):
                where = ".".join(map(str, walked + path))
                raise RunError(f"{self.path / 'counters.json'}: {where}: expected a number")
            return count
        star = path.index("*")
        many = self._walk(at, path[:star], walked)
        if not isinstance(many, (dict, list)):
            where = ".".join(map(str, walked + path[:star]))
            raise RunError(f"{self.path / 'counters.json'}: {where}: expected a list or an object")
        keys = many if isinstance(many, dict) else range(len(many))
        return sum(
            self._sum(many[key], path[star + 1 :], (*walked, *path[:star], key)) for key in keys
        )
