# SPDX-License-Identifier: Apache-2.0
"""One run of the lab, from a configuration to a run directory.

The lab makes the network, starts sink and pipeline in it, warms up, replays the capture, waits
until nothing moves, drains, and writes down what happened. Nothing here is on the path of a
request.

The first Ctrl-C or SIGTERM stops the player; what is under way is drained and the run directory
written as usual, marked interrupted. The second ends everything at once.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticklab import child, client, judge, manifest, network, player, prepare
from ticklab.child import LabError, Talker, no_room
from ticklab.progress import Progress, say

if TYPE_CHECKING:
    from ticklab.capture import Prepared
    from ticklab.script import Script

POLL_S = 0.02
QUIET_S = 0.2  # without a datagram: nothing moves any more
QUIET_LIMIT_S = 10.0
WARMUP_LIMIT_S = 2.0  # a warm-up that would take longer is played faster
ANSWER_S = 10.0  # for what a child does at once
REPLIES_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Options:
    """The command line; see harness/lab.py."""

    config: Path
    overrides: tuple[str, ...]  # section.key=value
    runs: Path
    serve: bool
    start_order: str | None = None  # names of the stages; None: consumers first


class Interrupt:
    """Remembers the first SIGINT or SIGTERM; the second ends the process and its children."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: object) -> None:
        if self.signal:
            child.kill_all()
            os._exit(128 + number)
        self.signal = number

    def __bool__(self) -> bool:
        return self.signal != 0


def main(options: Options) -> int:
    """Runs the lab; the exit status."""
    try:
        lab = Lab(options)
    except LabError as error:
        return _tell(error)
    except OSError as error:
        return _tell(_of_file(error, options.runs))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    interrupt = Interrupt()
    try:
        status = lab.run(interrupt)
        if lab.reference and not options.serve:
            lab.judge()
        if "failed" not in lab.facts:
            status = _summary(lab.directory) or status
        elif lab.facts["replay"].get("begun_ns") or options.serve:  # there is something to sum up
            _summary(lab.directory, say_errors=False)
    except OSError as error:
        return _tell(_of_file(error, lab.directory))
    except LabError as error:
        return _tell(error)
    print(f"run directory: {lab.directory}")
    if interrupt and not options.serve:
        return 128 + interrupt.signal
    return status


def _of_file(error: OSError, directory: Path) -> LabError:
    """A file that cannot be read or written, in one line; `directory` where nobody named it."""
    where = error.filename2 or error.filename or directory
    if error.errno in (ENOSPC, EDQUOT):
        return no_room(where, error)
    return LabError(f"{where}: {error.strerror}", 1)


def _summary(directory: Path, say_errors: bool = True) -> int:
    """Derives the summary of a run and shows it; 1 where the account does not balance.

    Of a run that failed it is what can be had: not to have it is no second error.
    """
    from ticklab import ctf, run, summary, terminal

    try:
        made = summary.write(directory) if say_errors else summary.summarise(directory)
    except (run.RunError, ctf.TraceError, OSError) as error:
        return _tell(LabError(str(error))) if say_errors else 1
    if not say_errors:
        with contextlib.suppress(OSError):  # a full disk, perhaps: it is shown all the same
            summary.write(directory)
    terminal.show_summary(made)
    for line in made["unbalanced"]:
        print(f"tickline: {directory}: the account does not balance: {line}", file=sys.stderr)
    return 0 if made["balanced"] else 1


def _tell(error: LabError) -> int:
    """Shows an error unless the program that found it has done so."""
    if str(error):
        print(f"tickline: {str(error).removeprefix('tickline: ')}", file=sys.stderr)
    return error.status


class Lab:
    """A run: what it needs is settled by the constructor, everything else happens in run()."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.config = prepare.effective(options.config, options.overrides)
        self.cpus = prepare.lab_cpus(self.config)
        if self.config.text("lab.network") == "veth" and os.geteuid() != 0:
            child.become_root()
        prepare.host_network(self.config, options.serve)
        prepare.programs(self.config, options.serve)
        self.prepared: Prepared | Script = prepare.capture(self.config)
        self.live = prepare.is_live(self.config)  # the client plays, not tcpreplay
        self.replies_to_client = prepare.replies_to_client(self.config)
        self.plan = self.prepared.plan
        for warning in self.plan["warnings"]:
            say(f"{self.plan['capture']}: {warning}")
        handler = self.config.text("worker.handler")
        self.reference = judge.reference_of(handler, self.config.text("replay.reference"))
        if self.reference:
            try:
                judge.load(self.reference)  # now, rather than after the run
            except judge.JudgeError as error:
                raise LabError(f"replay.reference = {error}", 2) from None
        self.speed = self.config.text("replay.speed")
        self.pps = player.packet_rate(self.speed)
        self.client: Talker | None = None
        self.sink: Talker | None = None  # the client, where replies come to it
        self.failure: LabError | None = None  # of pipeline, client or sink, while they were up
        self.send_cost_ns = 0.0  # of the player, as the warm-up shows it
        sink_address = network.sink_network(self._destinations())[2]
        self.fills = prepare.fills(self.config, self.plan, str(sink_address), self.cpus)
        preflight = prepare.preflight(options.config, options.overrides, self.fills)
        self.config = prepare.effective(options.config, options.overrides, self.fills)
        name = self.config.text("pipeline.name") or options.config.stem
        self.directory = prepare.run_directory(options.runs, name)
        self.facts: dict[str, Any] = {
            "name": name,
            "started": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "interrupted": False,
            **manifest.host(),
            **manifest.build(prepare.ROOT, prepare.BUILD),
            "points": _tickline("points", options, self.fills),
            "handler": _handler(self.config, options, self.fills),
            "config": self.config.entries,
            "preflight": preflight,
            "capture": manifest.capture(self.plan),
            "replay": {"serve": options.serve},
        }
        manifest.reserve(self.directory)

    def run(self, interrupt: Interrupt) -> int:
        """The whole run; its exit status. Whatever happens, manifest.json is written."""
        self.interrupt = interrupt
        status = 0
        try:
            with contextlib.ExitStack() as stack:
                self._start(stack)
                try:
                    if self.options.serve:
                        self._serve()
                    elif self._warm_up():
                        self._measure()
                except LabError as error:
                    self.failure = error
                except OSError as error:  # after a failure it is an effect of that
                    self.failure = self.failure or _of_file(error, self.directory)
                if not self.failure:
                    try:
                        status = self._finish()
                    except LabError as error:
                        self.failure = error
                if self.failure:
                    status = self._fail()
        except LabError as error:
            self.facts["failed"] = str(error)
            status = _tell(error)
        self.facts["interrupted"] = bool(self.interrupt) and not self.options.serve
        try:
            manifest.write(self.directory, self.facts)
        except OSError:
            if "failed" not in self.facts:  # else the cause has been told
                raise
        return status

    def judge(self) -> None:
        """Writes wire/judged.json: what the reference says of the replies."""
        from ticklab import capture, ctf
        from ticklab.run import Run, RunError

        assert self.reference
        try:
            requests = capture.requests_by_id(
                self.prepared.replay, self.config.text("pipeline.schema")
            )
            told = judge.judge(Run(self.directory), self.reference, requests)
        except judge.JudgeError as error:
            raise LabError(f"replay.reference = {error}") from None
        except (RunError, ctf.TraceError) as error:
            told = {"why": str(error)}
        path = self.directory / "wire" / "judged.json"
        path.write_text(json.dumps(told, indent=1) + "\n")

    # ---- up --------------------------------------------------------------------------------------

    def _start(self, stack: contextlib.ExitStack) -> None:
        self.net = stack.enter_context(self._network())
        if not self.options.serve:
            self._write_wire()
            if self.live:
                self.client = self._start_client()
                stack.callback(child.end, self.client.child)
            self.sink = self.client if self.replies_to_client else self._start_sink()
            stack.callback(child.end, self.sink.child)
        self.tickline = self._start_tickline()
        stack.callback(child.end, self.tickline.child, patience=ANSWER_S)
        timeout_s = self.config.number("supervise.ready_timeout") / 1e9 + ANSWER_S
        ready = self.tickline.wait_for("ready", timeout_s)
        for line in self.tickline.said():  # what killed runs have left behind
            say(line.removeprefix("tickline: "))
        for talker in self._talkers():
            talker.wait_for("ready", ANSWER_S)
        self.facts["placement"] = {
            "cpus": ready["cpus"],
            "player": self.cpus[0],
            "sink": self.cpus[1],
            "rotation": ready.get("rotation"),
        }
        self.facts["obtained"] = ready.get("obtained")
        self.facts["degraded"] = [*ready.get("degraded", []), *_less_than_asked(ready)]
        self.facts["sockets"] = ready.get("sockets", [])
        self.facts["shm_bytes"] = ready.get("shm_bytes")
        for reason in self.facts["degraded"]:
            say(f"degraded: {reason}")
        os.sched_setaffinity(0, {self.cpus[0]})  # from here on only waiting, off the stages' CPUs
        self.mark = self.end = self.net.snapshot()

    def _talkers(self) -> list[Talker]:
        """The lab's ends of the wire: the client, the sink, or one that is both."""
        return list(dict.fromkeys(end for end in (self.client, self.sink) if end))

    def _network(self) -> network.Network | network.Host:
        if not self.live:
            self.to_play = self.prepared.warmup, self.prepared.replay
        if self.config.text("lab.network") == "veth":
            tap = prepare.is_tap(self.config)
            return network.Network(self._destinations(), answers=self.live, tap=tap)
        if not self.options.serve and not self.live:
            mac = network.mac_of(self.config.text("rx.interface"))
            (self.directory / "replay").mkdir()
            self.to_play = tuple(
                player.readdress(pcap, mac, self.directory / "replay" / pcap.name)
                for pcap in self.to_play
            )
        return network.Host(self.config.text("lab.interface"))

    def _write_wire(self) -> None:
        wire = self.directory / "wire"
        (wire / "offered.bin").touch()
        shutil.copyfile(self.prepared.expected, wire / "expected.bin")
        if self.live:
            shutil.copyfile(self.prepared.flows, wire / "flows.bin")

    def _start_sink(self) -> Talker:
        command = [str(prepare.BUILD / "sink"), "--listen", self.config.text("tx.to")]
        if self.config.text("tx.sink") == "tcp":
            command += ["--tcp", *self._slow()]
        log = self.directory / "log" / "sink.log"
        command += [*self._judging(), "--cpu", str(self.cpus[1])]
        return Talker("sink", command, log, namespace=self.net.client.pid)

    def _start_client(self) -> Talker:
        wire = self.directory / "wire"
        command = [*self._client_command(), "--cpu", str(self.cpus[0])]
        command += ["--sent", str(wire / "sent.bin")]
        command += ["--connections", str(wire / "connections.bin")]
        if self.replies_to_client:
            command += [*self._judging(), *self._slow()]
        log = self.directory / "log" / "client.log"
        return Talker("client", command, log, namespace=self.net.client.pid)

    def _client_command(self) -> list[str]:
        command = [str(prepare.BUILD / "client"), "--script", str(self.prepared.path)]
        command += ["--to", client.destination(self.config, self.plan)]
        return command + ["--udp"] * (self.config.text("rx.source") != "tcp")

    def _judging(self) -> list[str]:
        """What is expected, and where what comes is recorded: options of sink and client."""
        wire = self.directory / "wire"
        command = ["--expected", str(wire / "expected.bin"), "--out", str(wire / "delivered.bin")]
        command += ["--flows", str(wire / "flows.bin")] if self.live else []
        command += ["--replies", str(wire / "replies.bin")]
        command += ["--replies-max", str(REPLIES_MAX_BYTES)]
        return [*command, "--schema", self.config.text("pipeline.schema")]

    def _slow(self) -> list[str]:
        if self.config.text("lab.slow_sink") == "none":
            return []
        return ["--slow", str(int(self.config.number("lab.slow_sink")))]

    def _start_tickline(self) -> Talker:
        command = [str(prepare.BUILD / "tickline"), "run", str(self.options.config), "--json"]
        command += prepare.flags(self.options.overrides, self.fills)
        command += ["--run-dir", str(self.directory)]
        if self.options.start_order:
            command += ["--start-order", self.options.start_order]
        log = self.directory / "log" / "tickline.log"
        return Talker("tickline", command, log, namespace=self.net.pipeline.pid)

    def _destinations(self) -> set[str]:
        if self.live:
            host = client.destination(self.config, self.plan)
            return {str(prepare.address_of(host))}
        return {end["address"] for end in self.plan["endpoints"]}

    # ---- traffic ---------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Says how to reach the pipeline, then waits for Ctrl-C."""
        self._say_where()
        while self._is_up() and not self.interrupt:
            time.sleep(POLL_S)

    def _say_where(self) -> None:
        print(f"receiving at:       {self.config.text('rx.bind')}")
        to = "who asked" if self.replies_to_client else self.config.text("tx.to")
        print(f"replies go to:      {to}")
        if self.net.client.pid is None:
            print(f"on the network of:  {self.facts['host']['name']} (lab.network = none)")
            print("Ctrl-C ends it.", flush=True)
            return
        if self.live:
            line = " ".join([*self._client_command(), "--speed", self.speed])
        else:
            pace = player.scale(self.speed)
            line = " ".join(player.arguments(self.prepared.replay, pace, self.pps))
        enter = f"{self.net.client.enter} taskset -c {self.cpus[0]}"
        print(f"client namespace:   {self.net.client.enter}")
        print(f"pipeline namespace: {self.net.pipeline.enter}")
        print(f"for example:        {enter} {line}")
        print("Ctrl-C ends it.", flush=True)

    def _is_up(self) -> bool:
        """Tells what befalls stages; False, and `failure`, where somebody has ended."""
        try:
            self.tickline.check()
            for talker in self._talkers():
                talker.check()
        except LabError as error:
            self.failure = error
        self._tell_news()
        return self.failure is None

    def _tell_news(self) -> None:
        for event in self.tickline.taken("restart"):
            cause, gone_ms = event["restart"]["cause"], event["gone_ms"]
            say(f"{event['stage']} was {cause}; its successor is back after {gone_ms:.1f} ms")
        for event in self.tickline.taken("told"):
            say(event["message"])

    def _warm_up(self) -> bool:
        """Replays the beginning of the capture, then has everyone count from nought."""
        warmup = self.plan["warmup"]
        if self.live:
            self._play("warm-up", warmup["operations"], self._warm_up_speed())
        elif warmup["datagrams"] and self.pps:
            rate = max(self.pps, warmup["datagrams"] / WARMUP_LIMIT_S)
            self._replay("warm-up", self.to_play[0], 1.0, warmup["datagrams"], pps=rate)
        elif warmup["datagrams"]:
            offered = self.prepared.offered_at()
            span_ns = int(offered["planned_ns"][warmup["requests"] - 1])
            self._calibrate(warmup["datagrams"], span_ns)
        self._wait_quiet()
        self.sink.ask("mark", "mark", ANSWER_S)
        self.tickline.ask("mark", "mark", ANSWER_S)
        self.mark = self.net.snapshot()
        return not self.interrupt and not self.failure

    def _calibrate(self, packets: int, span_ns: int) -> None:
        """The warm-up itself, and what it shows of the player's cost of sending.

        Played twice, for the cost depends on the pace (gaps below 1 us are not waited for); the
        lesser counts, as the host may have interrupted either.
        """
        factor = player.scale(self.speed)
        if factor is not None:
            factor = max(factor, span_ns / 1e9 / WARMUP_LIMIT_S)
        costs: list[float] = []
        for _ in range(2):
            pace = player.multiplier(factor, packets, span_ns, min(costs, default=0.0))
            report = self._replay("warm-up", self.to_play[0], pace, packets, span_ns, factor=factor)
            if self.interrupt or self.failure:
                return
            costs.append(player.send_cost_ns(report, span_ns, pace))
        self.send_cost_ns = min(costs)

    def _warm_up_speed(self) -> str:
        """As the replay's, but faster where it would take too long."""
        warmup = self.plan["warmup"]
        if self.speed == "top" or not warmup["requests"]:
            return self.speed
        if self.pps:
            return f"{max(self.pps, warmup['operations'] / WARMUP_LIMIT_S):.10g}pps"
        offered = self.prepared.offered_at()
        span_s = int(offered["planned_ns"][warmup["requests"] - 1]) / 1e9
        return f"{max(player.scale(self.speed), span_s / WARMUP_LIMIT_S):.9g}x"

    def _play(self, label: str, operations: int, speed: str) -> client.Report:
        """The beginning of the script, played by the client."""
        silence_s = self.plan["silence_ns"] / 1e9 / (player.scale(speed) or float("inf"))
        with Progress(label, operations, unit="writes") as progress:

            def watch(sent: int) -> bool:
                progress.update(sent)
                return self._is_up() and not self.interrupt

            report = client.play(self.client, operations, speed, watch, silence_s)
            progress.close(report.sent)
        return report

    def _measure_live(self) -> None:
        file = self.directory / "wire" / "offered.bin"
        file.write_bytes(self.prepared.offered_at(self.speed).tobytes())
        shutil.copyfile(self.prepared.directory / "requests.bin", file.with_name("requests.bin"))
        self.facts["replay"] |= {
            "player": "client",
            "speed": self.speed,
            "planned": self.plan["offered"]["writes"],
            "requests": self.plan["offered"]["requests"],
            "begun_ns": time.time_ns(),
        }
        report = self._play("replay", self.plan["offered"]["operations"], self.speed)
        self.facts["replay"] |= {"ended_ns": time.time_ns(), **asdict(report)}
        if report.complete and report.sent < self.plan["offered"]["writes"]:
            say("not all could be written: connections were gone; see the account")

    def _cut_offered(self) -> None:
        """Leaves in offered.bin and requests.bin what the client has written wholly: it was
        stopped, or a connection was gone. Where it was killed, nobody knows what it wrote.
        """
        wire = self.directory / "wire"
        offered, requests = (wire / f"{name}.bin" for name in ("offered", "requests"))
        if not (wire / "connections.bin").exists():
            offered.unlink()
            return
        made = self.prepared.offered_at(self.speed)
        where = self.prepared.requests()
        written = self.prepared.written(wire)
        if not written.all():
            offered.write_bytes(made[written].tobytes())
            requests.write_bytes(where[written].tobytes())

    def _measure(self) -> None:
        if self.live:
            self._measure_live()
            return
        packets = self.plan["offered"]["datagrams"]
        span_ns = self.plan["duration_ns"]
        factor = player.scale(self.speed)
        pace = player.multiplier(factor, packets, span_ns, self.send_cost_ns)
        # Written before, cut afterwards: that needs no room.
        file = self.directory / "wire" / "offered.bin"
        file.write_bytes(self.prepared.offered_at(self.speed).tobytes())
        begun_ns = time.time_ns()
        report = self._replay(
            "replay", self.to_play[1], pace, packets, span_ns, factor=factor, pps=self.pps
        )
        if not report.complete:  # else what it could not send was lost, wherever it was
            os.truncate(file, self.prepared.offered_at(self.speed, report.sent).nbytes)
        self.facts["replay"] |= {
            "player": "tcpreplay",
            "speed": self.speed,
            "planned": packets,
            "requests": self.plan["offered"]["requests"],
            "send_cost_ns": round(self.send_cost_ns),
            "multiplier": None if self.pps else pace,
            "begun_ns": begun_ns,
            "ended_ns": time.time_ns(),
            **asdict(report),
        }
        if report.failed:
            say(f"tcpreplay could not send {report.failed:,} datagrams; see log/replay.log")

    def _replay(
        self,
        label: str,
        pcap: Path,
        pace: float | None,
        packets: int,
        span_ns: int = 0,
        *,
        factor: float | None = None,
        pps: float | None = None,
    ) -> player.Report:
        """`factor`: how fast the capture is to come; `pace`: with the cost of sending, too."""
        if pps:
            span_ns = round(packets * 1e9 / pps)
        planned_s = span_ns / 1e9 / (factor or pace or float("inf"))
        with Progress(label, packets, planned_s=planned_s) as progress:

            def watch(sent: int) -> bool:
                progress.update(sent)
                return self._is_up() and not self.interrupt

            report = player.replay(
                self.net,
                pcap,
                pace,
                self.cpus[0],
                packets=packets,
                span_ns=span_ns,
                log=self.directory / "log" / f"{label}.log",
                watch=watch,
                pps=pps,
            )
            progress.close(report.sent)
        return report

    def _wait_quiet(self) -> bool:
        """Waits until nothing has moved in the pipeline for a while; False when that never came."""
        begun = still_since = time.monotonic()
        before: dict[str, Any] = {}
        while time.monotonic() - begun < QUIET_LIMIT_S:
            stats = self.tickline.ask("stats", "stats", ANSWER_S)
            del stats["discarded"]  # clock pairs are, for ever, where the trace has no room
            self._tell_news()
            now = time.monotonic()
            if stats["in_flight"] != 0 or stats != before:
                before, still_since = stats, now
            elif now - still_since >= QUIET_S:
                return True
            time.sleep(POLL_S)
        say(f"the pipeline is not quiet after {QUIET_LIMIT_S:g} s")
        return False

    # ---- down ------------------------------------------------------------------------------------

    def _finish(self) -> int:
        """Drains and stops everyone, upstream first; the pipeline's exit status."""
        self._wait_quiet()
        self.end = self.net.snapshot()
        status = self._stop()
        return self._left("tickline") or status

    def _stop(self) -> int:
        timeout_s = self.config.number("supervise.drain_timeout") / 1e9 + ANSWER_S
        status = int(self.tickline.ask("drain", "done", timeout_s)["exit"])
        self._tell_news()
        if not self.options.serve:
            status = self._stop_ends() or status
        self.facts["wire"] = self._wire_facts()
        return status

    def _stop_ends(self) -> int:
        """Stops the lab's ends of the wire; their exit status. Raises where one has failed, but
        only when all are stopped."""
        status, error = 0, None
        for talker in self._talkers():
            try:
                told = talker.ask("stop", "done", ANSWER_S)
                status = self._left(talker.name) or status
            except LabError as failed:
                error = error or failed
                continue
            self.facts[talker.name] = told
            if talker is self.sink:
                self.facts["sink"] = told
        if self.live:
            self._cut_offered()
        if error:
            raise error
        return status

    def _fail(self) -> int:
        """Tells what failed and collects what the others have left: the run directory is whole."""
        assert self.failure
        self.facts["failed"] = str(self.failure)
        status = _tell(self.failure)
        self.end = self.net.snapshot()
        with contextlib.suppress(LabError):
            self._stop()
        return status

    def _left(self, name: str) -> int:
        """Waits for a child that has said its last word; its exit status."""
        talker: Talker = getattr(self, name)
        try:
            status = child.shell_status(talker.child.wait(ANSWER_S))
        except subprocess.TimeoutExpired:
            raise LabError(f"{name}: does not end after it is done") from None
        if status != 0 and talker.last_words():
            print(talker.last_words(), file=sys.stderr)
        return status

    def _wire_facts(self) -> dict[str, Any]:
        """Datagrams lost outside any socket in the measured phase, and the counters that say so."""
        if self.config.text("lab.network") == "none":
            return {"sent": self.facts["replay"].get("sent")}
        if self.config.text("rx.source") == "tcp":  # it knows of no datagrams
            return {
                "replies_lost": network.replies_lost(self.mark, self.end),
                "counters": network.growth(self.mark, self.end),
            }
        if prepare.is_tap(self.config):
            packets = _sockets(self.directory, "packets")
            lost = network.tap_drops(self.mark, self.end, packets)
        else:
            lost = network.drops(self.mark, self.end, _sockets(self.directory, "drops"))
        return {
            "sent": lost.sent,
            "dropped_wire": lost.wire,
            "dropped_ip": lost.ip,
            "replies_lost": network.replies_lost(self.mark, self.end),
            "counters": network.growth(self.mark, self.end),
        }


def _sockets(directory: Path, what: str) -> int:
    """What the pipeline's sockets counted in the measured phase, from counters.json."""
    try:
        counters = json.loads((directory / "counters.json").read_text())
    except (FileNotFoundError, ValueError):
        raise LabError(f"{directory}: tickline left no whole counters.json") from None
    return sum(
        sign * sum(socket[what] for socket in counters.get(when, {}).get("sockets", []))
        for when, sign in (("end", 1), ("mark", -1))
    )


def _less_than_asked(ready: dict[str, Any]) -> list[str]:
    """Reasons why losses are to be expected: a receive buffer that the kernel did not grant."""
    note = ready.get("obtained", {}).get("rx rx.socket_buffer")
    if not note or int(note["obtained"]) >= int(note["asked"]):
        return []
    obtained, asked = (_binary(int(note[which])) for which in ("obtained", "asked"))
    return [f"socket buffer {obtained} of {asked} asked"]


def _binary(size: int) -> str:
    """Bytes as a person says them: 416 KiB, 64 MiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"


def _tickline(command: str, options: Options, fills: list[str]) -> Any:
    """What `tickline COMMAND CONFIG --json` prints: the trace points of this run, its handler."""
    words = [str(prepare.BUILD / "tickline"), command, str(options.config), "--json"]
    words += prepare.flags(options.overrides, fills)
    done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise LabError("", done.returncode)
    return json.loads(done.stdout)


def _handler(config: prepare.Config, options: Options, fills: list[str]) -> dict[str, Any]:
    """Its name and state; of a shared object also which file that was."""
    told = _tickline("handler", options, fills)
    facts = {key: told[key] for key in ("name", "abi", "state", "state_bytes")}
    chosen = config.text("worker.handler")
    if "/" not in chosen:
        return facts
    path = Path(chosen).resolve()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return facts | {"path": str(path), "sha256": sha256, "build_id": manifest.build_id(path)}
