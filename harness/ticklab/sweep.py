# SPDX-License-Identifier: Apache-2.0
"""How fast before it gets slow: the lab at rising rates, a run each, and what the curve says.

A pipeline near its limit is not slow because its work takes longer but because requests wait for
each other. The curve of latency over offered rate is flat, bends, and stands upright at the rate
that the busiest CPU can serve. Four figures describe it, each found in its own way:

knee         the highest rate measured at which p99 is still within `factor` times its value at low
             rates and nothing was dropped. Run there or below: beyond it a little more load costs
             much more time. That value is the least p99 of any rate: load and interruptions by the
             host only ever add to it.
within       the same for a p99 in ns that somebody has promised (--p99).
saturation   observed: the most replies a second that came out at any rate, where replies fell
             behind requests or requests were lost. predicted: 1 / busy time, where the busy time
             is what the stages on the busiest CPU worked for one request, by their own account,
             at the highest rate that was not saturated. The two agree unless something but the
             stages' work is the limit: the player, the sink, or the host taking the CPU away.
             `idle_at` tells the first saturated rate at which that CPU was not busy.
fit          the wait curve as theory has it. For Poisson arrivals at a rate r and one server that
             takes S for each request (M/D/1) the mean wait is r S S / 2(1 - r S); S and the time B
             of a request that never waits are fitted to the means that were measured. Where its
             1 / S agrees with the saturation, waiting for the busiest CPU explains the curve; where
             `error` is large or S is not the busy time, something else makes requests wait
             (batches, the host, another resource). There is none for other arrivals, nor where the
             rates stay so low that S would be guessed.

A knee lies between two rates that were measured, and both are told: more points, or a narrower
range, bring them closer. Rates are requests a second as rx's sockets saw them come, not as asked.
"""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ticklab import child, prepare
from ticklab.child import LabError
from ticklab.run import STATUS_OK, Run, RunError

LAB = Path(__file__).resolve().parents[1] / "lab.py"
ORDERS = ("up", "down", "random")
REQUESTS_MIN = 1000  # fewer have no p99
BEHIND = 0.95  # replies that come out slower than this share of the requests: saturated
BUSY = 0.85  # a CPU whose stages work less is not what requests wait for
FIT_POINTS_MIN = 4
FIT_ERROR_MAX = 0.25  # beyond, the curve is not that of M/D/1
FIT_RHO_MIN = 0.5  # below, the curve is too flat to tell S
PERCENTILES = ("p50", "p90", "p99", "p99_9", "max", "mean")


@dataclass(frozen=True)
class Options:
    """The command line; see harness/sweep.py."""

    config: Path
    overrides: tuple[str, ...]
    rates: tuple[float, float]  # requests a second, lowest and highest
    points: int = 12
    requests: int = 20_000  # generated for each rate
    seconds: float = 10.0  # the most that the replay of a point takes
    factor: float = 3.0  # of the knee
    p99_ns: float | None = None
    capture: str | None = None
    order: str = "up"
    out: Path | None = None
    as_json: bool = False


class Sweep:
    """A sweep: what it needs is settled by the constructor, everything else happens in run()."""

    def __init__(self, options: Options) -> None:
        """Raises LabError."""
        self.options = options
        self.overrides = list(options.overrides)
        if options.capture:
            self.overrides.append(f"replay.capture={options.capture}")
        config = prepare.effective(options.config, self.overrides)
        self.generated = config.text("replay.capture") == "generated"
        self.warmup = int(config.number("replay.warmup"))
        self.packets_per_request = 1.0
        if not self.generated:
            offered = prepare.capture(config).plan["offered"]
            packets = offered.get("datagrams", offered.get("writes"))
            self.packets_per_request = packets / offered["requests"]
        name = config.text("pipeline.name") or options.config.stem
        self.directory = options.out or _directory(Path("runs"), name)
        self.result: dict[str, Any] = {
            "schema": 1,
            "name": name,
            "config": str(options.config),
            "overrides": list(options.overrides),
            "capture": config.text("replay.capture"),
            "arrivals": config.text("replay.arrivals") if self.generated else "fixed",
            "started": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "order": options.order,
            "points": [],
        }
        self.signal = 0
        self.lab: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Measures every point and judges them after each, so that nothing measured gets lost."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)
        try:
            self.directory.mkdir(parents=True, exist_ok=self.options.out is not None)
        except OSError as error:
            raise LabError(
                f"{self.directory}: {error.strerror}; choose a place by --out", 2
            ) from None
        status = 0
        rates = rates_of(self.options)
        for number, rate in enumerate(rates, 1):
            _say(f"{number} of {len(rates)}: {rate:,.0f} requests a second")
            ended, run = self._measure(rate)
            if self.signal:
                status = 128 + self.signal
                break
            if run is None or ended not in (0, 1):
                status = ended or 4
                break
            status = max(status, ended)
            self.result["points"].append({"asked": rate, **point_of(run)})
            self._write(status)
        return self._write(status)

    def _measure(self, rate: float) -> tuple[int, Run | None]:
        """One run of the lab; its exit status, and its directory where it left a whole one."""
        command = [sys.executable, str(LAB), str(self.options.config)]
        command += prepare.flags([*self.overrides, *self._settings(rate)], [])
        command += ["--runs", str(self.directory), "--name", f"{rate:.0f}"]
        log = self.directory / f"{rate:.0f}.log"
        with log.open("wb") as stderr:
            self.lab = child.spawn(command, death="TERM", stderr=stderr)
        assert self.lab.stdout is not None
        printed = self.lab.stdout.read().decode(errors="replace")
        status = child.shell_status(self.lab.wait())
        self.lab = None
        if status not in (0, 1) and not self.signal:
            told = log.read_text(errors="replace").strip().splitlines()
            print(told[-1] if told else f"{log}: no reason given", file=sys.stderr)
        for line in printed.splitlines():
            if line.startswith("run directory: "):
                try:
                    return status, Run(line.removeprefix("run directory: "))
                except RunError as error:
                    print(f"tickline: {error}", file=sys.stderr)
        return status, None

    def _settings(self, rate: float) -> list[str]:
        if not self.generated:
            return [f"replay.speed={rate * self.packets_per_request:.3f}pps"]
        requests = min(self.options.requests, round(rate * self.options.seconds))
        requests = max(requests, REQUESTS_MIN)
        warmup = min(self.warmup, requests // 4)
        keys = {"rate": f"{rate:.3f}", "requests": requests, "warmup": warmup, "speed": "1x"}
        return [f"replay.{key}={value}" for key, value in keys.items()]

    def _take(self, number: int, _frame: object) -> None:
        """The first signal ends the run under way and with it the sweep, the second all at once."""
        if self.signal:
            child.kill_all()
            os._exit(128 + number)
        self.signal = number
        if self.lab:
            self.lab.send_signal(signal.SIGINT)

    def _write(self, status: int) -> int:
        """sweep.json and sweep.svg as far as it has come; the exit status."""
        from ticklab import sweep_picture

        judged = judge(self.result, self.options.factor, self.options.p99_ns)
        self.result |= judged | {"exit": status or judged["exit"]}
        text = json.dumps(self.result, indent=1, ensure_ascii=False) + "\n"
        for name, content in (
            ("sweep.json", text),
            ("sweep.svg", sweep_picture.svg(self.result)),
        ):
            part = self.directory / f"{name}.part"
            part.write_text(content)
            part.replace(self.directory / name)
        return self.result["exit"]


def main(options: Options) -> int:
    """Sweeps and tells; the exit status."""
    from ticklab import sweep_picture

    try:
        sweep = Sweep(options)
        status = sweep.run()
    except LabError as error:
        if str(error):
            print(f"tickline: {str(error).removeprefix('tickline: ')}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"tickline: {error.filename}: {error.strerror}; see --out", file=sys.stderr)
        return 4
    if options.as_json:
        sys.stdout.write((sweep.directory / "sweep.json").read_text())
    else:
        sweep_picture.show(sweep.result)
        print(f"sweep directory: {sweep.directory}")
    return status


def _say(text: str) -> None:
    print(f"sweep: {text}", file=sys.stderr, flush=True)


def _directory(runs: Path, name: str) -> Path:
    return runs / f"sweep-{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def rates_of(options: Options) -> list[float]:
    """Geometric steps from the lowest to the highest rate, both ends included, in their order."""
    least, most = options.rates
    rates = np.geomspace(least, most, options.points).tolist() if least < most else [least]
    if options.order == "down":
        rates.reverse()
    elif options.order == "random":  # so that a host that gets slower does not bend the curve
        random.Random(1).shuffle(rates)
    return rates


# ---- a point -------------------------------------------------------------------------------------


def point_of(run: Run) -> dict[str, Any]:
    """What a sweep keeps of a run; times in ns, rates a second, what is unknown is absent."""
    summary = json.loads((run.path / "summary.json").read_text())
    requests = summary["account"]["requests"]
    datagrams = summary["account"].get("datagrams", {"dropped": {}})  # over TCP there are none
    lines = {f"datagrams.{where}": count for where, count in datagrams["dropped"].items()}
    lines |= {f"requests.{where}": count for where, count in requests["dropped"].items()}
    lines["requests.lost.rx"] = requests["lost"]["rx"]
    latency = summary["latency_ns"].get("wire_to_wire", {})
    due = requests["offered"] - sum(requests["rejected"].values()) - requests["filtered"]
    busy = _busy_ns(run)
    point = {
        "run": run.path.name,
        "requests": requests["offered"],
        "offered": _offered(run, requests["offered"], summary),
        "delivered": _delivered(run),
        "delivered_share": requests["delivered"] / due if due else None,
        "dropped": {line: count for line, count in lines.items() if count},
        "balanced": summary["balanced"],
        "degraded": summary["degraded"],
        "of": latency.get("of"),
        **{name: latency.get(name) for name in PERCENTILES},
        "late_p99": summary.get("replay", {}).get("lateness_ns", {}).get("p99"),
        "busy_ns": busy / requests["received"] if requests["received"] else None,
        "busy": _busy_share(run, busy),
    }
    return {name: value for name, value in point.items() if value is not None}


def _offered(run: Run, requests: int, summary: dict[str, Any]) -> float | None:
    """By the player's clock where it says how long it took; what did not arrive counts as well."""
    replay = run.manifest.get("replay", {})
    if replay.get("took_ns"):
        return round(requests * 1e9 / replay["took_ns"], 1)
    return summary["load"].get("requests_per_s")


def _delivered(run: Run) -> float | None:
    """Right replies a second, from the first to the last."""
    delivered = run.delivered
    stamps = delivered["kernel_ns"][
        (delivered["status"] == STATUS_OK) & (delivered["kernel_ns"] > 0)
    ]
    if len(stamps) < 2 or stamps.max() == stamps.min():
        return None
    return round((len(stamps) - 1) * 1e9 / int(stamps.max() - stamps.min()), 1)


def _busy_ns(run: Run) -> float:
    """How long the stages of the busiest CPU worked in the measured phase, ns."""
    cpus: dict[int, int] = {}
    for name, (end, _) in run.stages().items():
        if name != "tracer":
            ticks = run.measured("stages", name, "regimes_ticks", "work")
            cpus[end["cpu"]] = cpus.get(end["cpu"], 0) + ticks
    return max(cpus.values(), default=0) * 1e9 / run.tsc_hz


def _busy_share(run: Run, busy_ns: float) -> float | None:
    """The same as a share of the time from the first request to the last reply."""
    came, left = (table["kernel_ns"] for table in (run.ingress, run.delivered))
    came = came[run.ingress["request"] >= run.measured_from]
    came, left = came[came > 0], left[left > 0]
    if not len(came) or not len(left) or left.max() <= came.min():
        return None
    return round(busy_ns / int(left.max() - came.min()), 4)


# ---- judging -------------------------------------------------------------------------------------


def judge(result: dict[str, Any], factor: float, p99_ns: float | None) -> dict[str, Any]:
    """`knee`, `within`, `saturation`, `fit` and `exit` of the points, in any order.

    `exit` is 0, 1 where an account does not balance, 3 where no rate at all passes: the rates
    began too high to say.
    """
    points = sorted(
        (point for point in result["points"] if point.get("offered")), key=lambda p: p["offered"]
    )
    knee: dict[str, Any] = {"factor": factor}
    if any("p99" in point for point in points):
        knee["low_p99"] = min(point["p99"] for point in points if "p99" in point)
        knee |= _highest(points, factor * knee["low_p99"])
    judged = {"knee": knee, "saturation": _saturation(points)}
    if p99_ns is not None:
        judged["within"] = {"p99_ns": p99_ns, **_highest(points, p99_ns)}
    judged["fit"] = fit_md1(points) if result["arrivals"] == "poisson" else None
    wanted = judged.get("within", knee)
    judged["exit"] = 0 if "rate" in wanted else 3
    if not all(point["balanced"] for point in points):
        judged["exit"] = 1
    return judged


def _highest(points: list[dict], limit_ns: float) -> dict[str, Any]:
    """The highest rate that passes, the one above, and why that fails; points by rising rate.

    A lower rate that fails says nothing against a higher one that passes (the host interrupted
    it), so it is told as `below`.
    """
    why = [_fails(point, limit_ns) for point in points]
    passing = [at for at, reason in enumerate(why) if not reason]
    if not passing:
        return {}
    best = passing[-1]
    found: dict[str, Any] = {"rate": points[best]["offered"], "p99": points[best]["p99"]}
    if best + 1 < len(points):
        found |= {"next": points[best + 1]["offered"], "next_fails": why[best + 1]}
    below = [points[at]["offered"] for at in range(best) if why[at]]
    return found | ({"below": below} if below else {})


def _fails(point: dict[str, Any], limit_ns: float) -> str:
    if point["dropped"]:
        return f"{sum(point['dropped'].values()):,} dropped"
    if "p99" not in point:
        return "no p99"
    if point["p99"] > limit_ns:
        return f"p99 {point['p99'] / 1000:,.1f} µs"
    return ""


def is_saturated(point: dict[str, Any]) -> bool:
    """Did replies fall behind requests, or did some get lost?"""
    return bool(point["dropped"]) or point.get("delivered", 0) < BEHIND * point["offered"]


def _saturation(points: list[dict]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    free = [point for point in points if not is_saturated(point)]
    if len(free) < len(points):
        found["observed"] = max(point.get("delivered", 0) for point in points)
        idle = [p for p in points if is_saturated(p) and p.get("busy", 1) < BUSY]
        if idle:
            found |= {"idle_at": idle[0]["offered"], "idle_busy": idle[0]["busy"]}
    if busy_ns := (free[-1] if free else {}).get("busy_ns"):
        found |= {"busy_ns": round(busy_ns, 1), "predicted": round(1e9 / busy_ns, 1)}
    return found


def md1_wait(rate: np.ndarray, service_ns: np.ndarray) -> np.ndarray:
    """Mean wait in ns: Poisson arrivals at `rate` a second, a constant service, M/D/1."""
    rho = rate * service_ns / 1e9
    return rho * service_ns / (2 * (1 - rho))


def fit_md1(points: list[dict]) -> dict[str, Any] | None:
    """S and B, so that mean = B + md1_wait(offered, S) at the points that are not saturated.

    By least absolute relative error, which one interrupted run does not pull away. For each S on a
    fine grid the best B is a weighted median. None where the points are too few or too flat.
    """
    free = [point for point in points if not is_saturated(point) and "mean" in point]
    if len(free) < FIT_POINTS_MIN:
        return None
    rate = np.array([point["offered"] for point in free])
    mean = np.array([point["mean"] for point in free])
    services = np.linspace(0, 0.999, 2000)[1:] * 1e9 / rate.max()
    rest = mean - md1_wait(rate, services[:, None])
    order = np.argsort(rest, axis=1)
    weight = np.cumsum((1 / mean)[order], axis=1)
    middle = (weight >= weight[:, -1:] / 2).argmax(axis=1)
    rows = np.arange(len(services))
    base = rest[rows, order[rows, middle]]
    error = (np.abs(rest - base[:, None]) / mean).mean(axis=1)
    best = int(error.argmin())
    if services[best] * rate.max() / 1e9 < FIT_RHO_MIN:
        return None
    return {
        "model": "M/D/1",
        "points": len(free),
        "service_ns": round(float(services[best]), 1),
        "base_ns": round(float(base[best]), 1),
        "saturation": round(1e9 / float(services[best]), 1),
        "error": round(float(error[best]), 4),
    }
