# SPDX-License-Identifier: Apache-2.0
"""What is settled before a run begins: the effective configuration, the capture, who runs where.

The lab knows things that a configuration may leave open: which ports the capture was sent to, where
its sink listens, how large a request gets. It hands them to the pipeline as `--fill
KEY=VALUE@ORIGIN`, which takes effect only where the configuration says `auto`.
"""

import dataclasses
import hashlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from errno import EDQUOT, ENOSPC, EROFS
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticklab.child import LabError, missing
from ticklab.progress import say

if TYPE_CHECKING:
    from ticklab.capture import Prepared
    from ticklab.script import Script

ROOT = Path(__file__).resolve().parents[2]
# In a tree of sources programs stand in build/, installed they stand beside harness/.
IN_SOURCES = (ROOT / "Makefile").exists()
# TICKLINE_BUILD: programs of another build, such as build-asan.
BUILD = ROOT / os.environ.get("TICKLINE_BUILD", "build") if IN_SOURCES else ROOT
SINK_PORT = 9100
SLOT_HEADER_BYTES = 40
SLOT_STEP_BYTES = 64
ENDPOINTS_MAX = 64
FRAME_BYTES_MIN = 128  # of rx.frame

FROM_CAPTURE = "from the capture"
FROM_LAB = "the lab"


def cache() -> Path:
    """Where prepared captures stay: in the tree of sources, else in the user's own cache."""
    if IN_SOURCES and os.access(ROOT, os.W_OK):
        return ROOT / ".cache"
    chosen = os.environ.get("XDG_CACHE_HOME")
    if not chosen and os.geteuid() == 0 and os.access("/var/cache", os.W_OK):
        return Path("/var/cache/tickline")
    return Path(chosen or Path.home() / ".cache") / "tickline"


CAPTURES = cache() / "captures"


class Config:
    """The effective configuration, as `tickline config --json` gives it."""

    def __init__(self, entries: dict[str, dict[str, Any]]) -> None:
        self.entries = entries

    def text(self, key: str) -> str:
        return self.entries[key]["value"]

    def number(self, key: str) -> float:
        """A number in its base unit (bytes, requests, requests a second)."""
        return self.entries[key]["number"]

    def auto(self, key: str) -> bool:
        return self.text(key) == "auto"


def effective(path: Path, overrides: Iterable[str], fills: Iterable[str] = ()) -> Config:
    """The configuration in force. A mistake in it has been told by tickline, in one line."""
    command = [str(BUILD / "tickline"), "config", str(path), "--json", *flags(overrides, fills)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        raise missing(command[0]) from None
    if done.returncode != 0:
        raise LabError("", done.returncode)
    return Config(json.loads(done.stdout))


def flags(overrides: Iterable[str], fills: Iterable[str]) -> list[str]:
    """As tickline's command line has them."""
    return [
        *(word for override in overrides for word in ("--set", override)),
        *(word for fill in fills for word in ("--fill", fill)),
    ]


def preflight(path: Path, overrides: Iterable[str], fills: Iterable[str]) -> dict[str, Any]:
    """What the host can do of what is asked (`tickline check`); tells what it cannot, to stderr."""
    command = [str(BUILD / "tickline"), "check", str(path), "--json", *flags(overrides, fills)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not done.stdout:
        raise LabError("", done.returncode)
    found = json.loads(done.stdout)
    checks = found["checks"]
    amiss = [check for check in checks if check["verdict"] == "warn"]
    failed = [check for check in checks if check["verdict"] == "fail"]
    fine = len(checks) - len(amiss) - len(failed)
    say(f"preflight: {fine} of {len(checks)} fine; {_shown(BUILD / 'tickline')} check {path}")
    for check in amiss:
        print(f"  {check['verdict']}  {check['name']}: {check['found']}", file=sys.stderr)
        if check["remedy"]:
            print(f"        mend: {check['remedy']}", file=sys.stderr)
    if failed:
        told = (f"{check['name']}: {check['found']}; mend: {check['remedy']}" for check in failed)
        raise LabError("; and ".join(told))
    return found


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def is_live(config: Config) -> bool:
    """Must the lab's client play the requests, as nobody can replay a connection's packets?"""
    return config.text("rx.source") == "tcp" or replies_to_client(config)


def replies_to_client(config: Config) -> bool:
    """Is the client the sink, too?"""
    return config.text("tx.sink") == "reply"


def programs(config: Config, serve: bool) -> None:
    """Are those there that the lab starts? Asked before anything is made."""
    live = is_live(config)
    needed = ["setpriv", "unshare", "nsenter", "taskset", "ip"]
    for program in needed + ["tcpreplay"] * (not serve and not live):
        if not shutil.which(program):
            raise missing(program)
    own = ["client"] * live + ["sink"] * (not replies_to_client(config))
    for program in own if not serve else []:
        if not (BUILD / program).exists():
            raise missing(str(BUILD / program))


def host_network(config: Config, serve: bool) -> None:
    """With lab.network = none: does the configuration say all that the lab cannot know then?"""

    def wrong(key: str, why: str) -> LabError:
        entry = config.entries[key]
        return LabError(f"{entry['origin']}: {key} = {entry['value']}: {why}", 2)

    if config.text("lab.network") != "none":
        return
    for key in ("rx.interface", "lab.interface") if not is_live(config) else ():
        if config.text(key) not in ("any", *(name for _, name in socket.if_nameindex())):
            raise wrong(key, "no such interface; expected one of: ip -brief link")
        if config.text(key) == "any" and not serve:
            raise wrong(
                key,
                "nothing is played into the host's own network unless rx.interface and "
                "lab.interface say from where to where; write both, or use --serve",
            )
    if config.auto("tx.to") and not replies_to_client(config):
        raise wrong("tx.to", "lab.network = none, so there is no sink; write ADDRESS:PORT")


def capture(config: Config) -> "Prepared | Script":
    """The prepared capture, or script, from the cache where it is there already."""
    from ticklab import capture as captures
    from ticklab import generate

    CAPTURES.mkdir(parents=True, exist_ok=True)
    slot_capacity = (
        None if config.auto("ring.slot") else int(config.number("ring.slot")) - SLOT_HEADER_BYTES
    )
    try:
        source: Path | str = config.text("replay.capture")
        if source == "generated":
            source = _generated(config, generate)
        if is_live(config):
            return _script(config, source, slot_capacity)
        return captures.prepare(
            source,
            schema=config.text("pipeline.schema"),
            handler=reference_name(config),
            slot_capacity=slot_capacity,
            warmup=int(config.number("replay.warmup")),
            tap=_tap(config, captures),
            cache_dir=CAPTURES,
        )
    except captures.CaptureError as error:
        raise LabError(str(error), 2) from None
    except generate.GenerateError as error:
        key = f"replay.{_KEYS.get(error.option, error.option)}"
        said = config.entries.get(key)
        text = str(error)
        if said:
            text = f"{said['origin']}: {key}{text.removeprefix(error.option)}"
        raise LabError(text, 2) from None


def _script(config: Config, source: Path | str, slot_capacity: int | None) -> "Script":
    from ticklab import script

    tcp = config.text("rx.source") == "tcp"
    options = script.Options(
        schema=config.text("pipeline.schema"),
        handler=reference_name(config),
        datagrams=not tcp,
        cuts=config.text("replay.cuts"),
        churn=int(config.number("replay.churn")) if tcp else 0,
        seed=int(config.number("replay.seed")),
        connections=int(config.number("rx.connections")) if tcp else script.CONNECTIONS_MAX,
        slot_capacity=slot_capacity,
        warmup=int(config.number("replay.warmup")),
    )
    return script.prepare(source, options, CAPTURES)


def reference_name(config: Config) -> str:
    """Which of reference.HANDLERS; `other` for a shared object, and where a judge is chosen."""
    own = "/" in config.text("worker.handler") or config.text("replay.reference") != "auto"
    return "other" if own else config.text("worker.handler")


def is_tap(config: Config) -> bool:
    """Are frames taken off the interface, rather than received by sockets?"""
    return config.text("rx.source") == "packet"


def _tap(config: Config, captures: Any) -> Any:
    if not is_tap(config):
        return None
    return captures.Tap(
        reorder_bytes=int(config.number("rx.reorder")),
        buffer_bytes=int(config.number("rx.connection_buffer")),
        flows=1 << (2 * int(config.number("rx.connections")) - 1).bit_length(),
    )


# Keys of [replay] that are not named as the option of the generator is.
_KEYS = {"count": "requests", "on_ns": "on"}


def _generated(config: Config, generate: Any) -> Path:
    """The capture that the [replay] keys describe, made once."""
    options = generate.Options(
        schema=config.text("pipeline.schema"),
        handler=reference_name(config),
        count=int(config.number("replay.requests")),
        rate=config.number("replay.rate"),
        arrivals=config.text("replay.arrivals"),
        on_ns=int(config.number("replay.on")),
        peak=config.number("replay.peak"),
        payload=config.text("replay.payload"),
        per_datagram=int(config.number("replay.per_datagram")),
        flows=int(config.number("replay.flows")),
        flow_skew=config.number("replay.flow_skew"),
        errors=config.number("replay.errors"),
        error_kinds=config.text("replay.error_kinds"),
        seed=int(config.number("replay.seed")),
    )
    files = sorted(Path(generate.__file__).parent.glob("generate*.py"))
    code = b"".join(file.read_bytes() for file in files)
    parameters = json.dumps(dataclasses.asdict(options), sort_keys=True).encode()
    path = CAPTURES / f"generated-{hashlib.sha256(parameters + code).hexdigest()[:16]}.pcap"
    if not path.exists():
        options.check()
        say(f"generating {options.count:,} requests into {path}")
        generate.generate(path, options)
    return path


def fills(
    config: Config, plan: dict[str, Any], sink_address: str, cpus: tuple[int, int]
) -> list[str]:
    """What the lab knows and the configuration may leave open, as `section.key=value@ORIGIN`."""
    largest = max(plan["largest"]["request_bytes"], plan["largest"]["reply_bytes"])
    steps = -(-(largest + SLOT_HEADER_BYTES) // SLOT_STEP_BYTES)
    known = []
    if is_tap(config):
        frame_bytes = max(plan["largest"]["frame_bytes"], FRAME_BYTES_MIN)
        known.append(f"rx.frame={frame_bytes}@{FROM_CAPTURE}")
    # A tap without addresses takes all there is: the wire is the player's alone.
    if config.auto("rx.bind") and not (is_tap(config) and len(_ends(plan)) > ENDPOINTS_MAX):
        known.append(f"rx.bind={bind(plan)}@{FROM_CAPTURE}")
    return [
        *known,
        f"ring.slot={max(1, steps) * SLOT_STEP_BYTES}@{FROM_CAPTURE}",
        f"tx.to={sink_address}:{SINK_PORT}@{FROM_LAB}",
        f"lab.cpu={','.join(map(str, dict.fromkeys(cpus)))}@{FROM_LAB}",
    ]


def bind(plan: dict[str, Any]) -> str:
    """Where to receive what the capture sends: a wildcard a port, and each multicast group."""
    ends = _ends(plan)
    if len(ends) > ENDPOINTS_MAX:
        raise LabError(
            f"the capture is sent to {len(ends)} ports and multicast groups, and tickline receives "
            f"at {ENDPOINTS_MAX}: name those you want in rx.bind",
            2,
        )
    return ",".join(
        f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        for _, _, port, address in sorted(ends)
    )


def _ends(plan: dict[str, Any]) -> set[tuple]:
    ends = set()
    for end in plan["endpoints"]:
        address = ipaddress.ip_address(end["address"])
        if not address.is_multicast:
            address = ipaddress.ip_address("0.0.0.0" if address.version == 4 else "::")
        ends.add((address.is_multicast, address.version, end["port"], address))
    return ends


def address_of(end: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Of `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`."""
    host = end[1:].partition("]")[0] if end.startswith("[") else end.partition(":")[0]
    return ipaddress.ip_address(host)


def lab_cpus(config: Config) -> tuple[int, int]:
    """CPUs of player and sink: as configured, else the lowest that no stage was given."""
    if not config.auto("lab.cpu"):
        named = cpu_list(config.text("lab.cpu"))
        return named[0], named[-1]
    keys = ("rx.cpu", "worker.cpu", "tx.cpu")
    taken = {cpu for key in keys if not config.auto(key) for cpu in cpu_list(config.text(key))}
    allowed = sorted(os.sched_getaffinity(0))
    free = [cpu for cpu in allowed if cpu not in taken] or allowed
    return free[0], free[0]


def cpu_list(text: str) -> list[int]:
    """`1,3-5` → [1, 3, 4, 5]."""
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def run_directory(runs: Path, name: str) -> Path:
    """Makes `<name>-<UTC>` with its folders; `-2` and so on where that second is taken."""
    stem = f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1, 1000):
        path = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            host = error.errno in (EDQUOT, ENOSPC, EROFS)
            raise LabError(
                f"{path}: {error.strerror}: expected a place for run directories; "
                "choose one by --runs",
                4 if host else 2,
            ) from None
        for folder in ("wire", "trace", "log"):
            (path / folder).mkdir()
        return path
    raise LabError(f"{runs}: too many runs of the name {stem}")
