# SPDX-License-Identifier: Apache-2.0
"""Requests over TCP: cut anywhere, ended, reset, refused, given up, held back, rx killed."""

import json
import os
import random
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import BUILD, ISOLATED
from tcp_run import CONNECTION, Run, ended_by, in_order, request, reset, run, stream


def play(clients: list[socket.socket], data: list[bytes], rng: random.Random, most: int) -> None:
    """Sends each its data in random pieces, all of them in random turns."""
    at = [0] * len(clients)
    open_ones = [index for index, bytes_ in enumerate(data) if bytes_]
    while open_ones:
        index = rng.choice(open_ones)
        piece = data[index][at[index] : at[index] + rng.randrange(1, most)]
        clients[index].sendall(piece)
        at[index] += len(piece)
        if at[index] == len(data[index]):
            open_ones.remove(index)


def test_random_cuts(tmp_path: Path) -> None:
    """64 connections, 4 workers, cut anywhere; TICKLINE_TCP_REQUESTS for how many in all."""
    each = int(os.environ.get("TICKLINE_TCP_REQUESTS", "20000")) // 64
    received = 0
    ids: list[int] = []
    with run(tmp_path / "run", BUILD, worker__count=4) as pipeline:
        clients = [pipeline.connect() for _ in range(64)]
        rng = random.Random(1)
        for begin in range(0, each, 50):
            data = [stream(index, min(50, each - begin), begin) for index in range(64)]
            play(clients, data, rng, 700)
            received += 64 * min(50, each - begin)
            pipeline.await_received(received)
            ids += pipeline.ids()
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            assert ended_by(client) == "end"
            client.close()
        end = pipeline.drain()
        ids += pipeline.ids()
    assert in_order(ids) == {index: list(range(each)) for index in range(64)}
    assert end["rx"]["issued"] == 64 * each
    assert [ring["published"] for ring in end["to_worker"]] == [16 * each] * 4
    assert end["connections"]["opened"] == end["connections"]["ended"] == 64
    assert end["connections"]["cut_bytes"] == end["connections"]["open"] == 0


def test_every_byte_alone(tmp_path: Path) -> None:
    data = stream(1, 40)
    with run(tmp_path / "run", BUILD) as pipeline, pipeline.connect() as client:
        for byte in data:
            client.send(bytes([byte]))
        pipeline.await_received(40)
        end = pipeline.drain()
        assert in_order(pipeline.ids()) == {1: list(range(40))}
    assert end["connections"]["open"] == 1


def test_half_close(tmp_path: Path) -> None:
    """What is whole is put; an unfinished rest is one malformed request, and truncated."""
    with run(tmp_path / "run", BUILD) as pipeline, pipeline.connect() as client:
        client.sendall(stream(1, 5) + request(1, 5)[:-3])
        client.shutdown(socket.SHUT_WR)
        assert ended_by(client) == "end"
        end = pipeline.drain()
        assert in_order(pipeline.ids()) == {1: list(range(5))}
    assert end["rx"]["issued"] == 6
    assert end["outcomes"]["rejected"]["truncated"] == 1
    assert end["connections"]["ended"] == 1
    assert end["connections"]["cut_bytes"] == 0


def test_resets(tmp_path: Path) -> None:
    """A thousand are opened and reset while another works; what was not whole is counted."""
    with run(tmp_path / "run", BUILD) as pipeline, pipeline.connect() as worker:
        ids: list[int] = []
        for number in range(1000):
            worker.sendall(request(1, number))
            client = pipeline.connect()
            client.sendall(request(2, number) + request(2, 7777)[:9])
            while number % 100 == 0 and 2 * CONNECTION + number not in ids:
                time.sleep(0.001)
                ids += pipeline.ids()
            reset(client)
        worker.shutdown(socket.SHUT_WR)
        assert ended_by(worker) == "end"
        end = pipeline.drain()
        numbers = in_order(ids + pipeline.ids())
    assert numbers[1] == list(range(1000))
    # Who is reset before it is accepted exists for nobody.
    assert len(numbers[2]) == end["rx"]["issued"] - 1000
    assert set(range(0, 1000, 100)) <= set(numbers[2])
    connections = end["connections"]
    assert connections["reset"] + connections["ended"] == connections["opened"]
    assert connections["ended"] == 1
    assert 9 * len(numbers[2]) <= connections["cut_bytes"] <= 9 * connections["reset"]
    assert connections["open"] == connections["refused"] == connections["held_bytes"] == 0


def test_many_at_once(tmp_path: Path) -> None:
    """Nine hundred at once, rx killed with all of them open, all reset."""
    count = 900  # and this process is often allowed 1,024 descriptors
    values = {"rx.connections": 1024, "rx.connection_buffer": "4KiB"}
    with run(tmp_path / "run", BUILD, **values) as pipeline:
        clients = [pipeline.connect() for _ in range(count)]
        for index, client in enumerate(clients):
            client.sendall(request(index, 0) + request(index, 1)[:5])
        pipeline.await_received(count)
        pid = pipeline.ready["pids"]["rx"]
        os.kill(pid, signal.SIGKILL)
        successor(pid)
        for index, client in enumerate(clients):
            client.sendall(request(index, 1)[5:])
        pipeline.await_received(2 * count)
        for client in clients:
            reset(client)
        end = pipeline.drain()
        assert in_order(pipeline.ids()) == {index: [0, 1] for index in range(count)}
    assert end["connections"]["opened"] == end["connections"]["reset"] == count
    assert end["connections"]["lost"] == 0


def test_idle(tmp_path: Path) -> None:
    """Who is silent is closed, in the middle of a request, too; who is not goes on."""
    with (
        run(tmp_path / "run", BUILD, rx__idle="1s") as pipeline,
        pipeline.connect() as silent,
        pipeline.connect() as busy,
    ):
        silent.sendall(request(1, 0) + b"1234")
        number = 0
        while not select.select([silent], [], [], 0.05)[0]:
            busy.sendall(request(2, number))
            number += 1
        assert ended_by(silent) in ("end", "reset")
        busy.shutdown(socket.SHUT_WR)
        assert ended_by(busy) == "end"
        end = pipeline.drain()
        assert in_order(pipeline.ids()) == {1: [0], 2: list(range(number))}
    assert end["connections"]["idle"] == end["connections"]["ended"] == 1
    assert end["connections"]["cut_bytes"] == 4


def test_refused(tmp_path: Path) -> None:
    """Beyond rx.connections they are reset; a place that is free again is used again."""
    with run(tmp_path / "run", BUILD, rx__connections=3) as pipeline:
        kept = [pipeline.connect() for _ in range(3)]
        for index, client in enumerate(kept):
            client.sendall(request(index, 0))
        pipeline.await_received(3)
        for _ in range(5):
            with pipeline.connect() as client:
                assert ended_by(client) == "reset"
        kept[1].shutdown(socket.SHUT_WR)
        assert ended_by(kept[1]) == "end"
        with pipeline.connect() as client:
            client.sendall(request(9, 0))
            pipeline.await_received(4)
        end = pipeline.drain()
        for client in kept:
            client.close()
    assert end["connections"]["refused"] == 5
    assert end["connections"]["opened"] == 4


@pytest.mark.parametrize("figure", ["malformed", "oversized"])
def test_given_up(figure: str, tmp_path: Path) -> None:
    """A stream that cannot be understood: one malformed request, a reset, and the others go on."""
    header = b"\xff" * 12 if figure == "malformed" else b"\0" * 8 + b"\0\0\x20\0"
    with (
        run(tmp_path / "run", BUILD, rx__connection_buffer="4KiB") as pipeline,
        pipeline.connect() as other,
    ):
        with pipeline.connect() as client:
            client.sendall(stream(1, 3) + header + b"more")
            assert ended_by(client) == "reset"
        other.sendall(request(2, 0))
        other.shutdown(socket.SHUT_WR)
        assert ended_by(other) == "end"
        end = pipeline.drain()
        assert in_order(pipeline.ids()) == {1: [0, 1, 2], 2: [0]}
    assert end["rx"]["issued"] == 5
    reason = "bad_length" if figure == "malformed" else "oversized"
    assert end["outcomes"]["rejected"][reason] == 1
    assert end["connections"][figure] == end["connections"]["ended"] == 1


def test_large_requests(tmp_path: Path) -> None:
    """As large as the buffer, again and again, so that they wrap in it at all places."""
    sizes = [4084, 1, 3000, 2500, 4084, 4083, 700]
    data = b"".join(request(1, n, bytes(sizes[n % 7])) for n in range(200))
    with (
        run(tmp_path / "run", BUILD, rx__connection_buffer="4KiB", ring__slot=8192) as pipeline,
        pipeline.connect() as client,
    ):
        play([client], [data], random.Random(2), 6000)
        client.shutdown(socket.SHUT_WR)
        assert ended_by(client) == "end"
        end = pipeline.drain()
        assert in_order(pipeline.ids()) == {1: list(range(200))}
    assert end["rx"]["bytes"] == len(data)


def test_slow_downstream(tmp_path: Path) -> None:
    """The ring is full for long: senders have to wait, memory stays, nothing is lost."""
    values = {"ring.depth": 4, "worker.handler": "spin", "handler.spin.time": "100us"}
    values["rx.connection_buffer"] = "4KiB"
    count = 1000
    with run(tmp_path / "run", BUILD, **values) as pipeline:
        clients = [pipeline.connect() for _ in range(4)]
        data = [request(index, n, bytes(1500)) for index in range(4) for n in range(count)]
        waited = 0
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
            client.setblocking(False)
        left = {i: memoryview(b"".join(data[i * count : (i + 1) * count])) for i in range(4)}
        memory = resident(pipeline)
        while left:
            for index in list(left):
                try:
                    left[index] = left[index][clients[index].send(left[index][:65536]) :]
                except BlockingIOError:
                    waited += 1
                    time.sleep(0.001)
                if not left[index]:
                    clients[index].shutdown(socket.SHUT_WR)
                    del left[index]
        assert resident(pipeline) < memory + 1024
        end_of = [pipeline.connect()]  # nobody is starved
        end_of[0].sendall(request(9, 0))
        end_of[0].shutdown(socket.SHUT_WR)
        pipeline.await_received(4 * count + 1)
        end = pipeline.drain()
        assert in_order(pipeline.ids()) == {
            **{index: list(range(count)) for index in range(4)},
            9: [0],
        }
        for client in clients + end_of:
            client.close()
    assert waited > 0
    assert sum(end["rx"]["dropped"]) == 0


def test_worker_stopped(tmp_path: Path) -> None:
    """One ring is full and stays so: the connections of the other worker go on."""
    with run(tmp_path / "run", BUILD, worker__count=2, ring__depth=16) as pipeline:
        pids = pipeline.ready["pids"]
        with pipeline.connect() as held, pipeline.connect() as free:
            held.sendall(request(0, 0))
            free.sendall(request(1, 0))
            pipeline.await_received(2)
            os.kill(pids["worker0"], signal.SIGSTOP)
            try:
                held.sendall(stream(0, 100, 1))
                for begin in range(1, 501, 10):
                    free.sendall(stream(1, 10, begin))
                pipeline.await_received(2 + 500 + 16)
                pipeline.ids()
            finally:
                os.kill(pids["worker0"], signal.SIGCONT)
            for client in (held, free):
                client.shutdown(socket.SHUT_WR)
                assert ended_by(client) == "end"
        end = pipeline.drain()
    assert end["outcomes"]["transmitted"] == 602
    assert end["stages"]["rx"]["regimes_ticks"]["blocked"] > 0


def resident(pipeline: Run) -> int:
    """KiB of rx."""
    status = Path(f"/proc/{pipeline.ready['pids']['rx']}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)


def test_rx_killed(tmp_path: Path) -> None:
    """kill -9 of rx again and again: requests go on over the same connections."""
    rng = random.Random(3)
    with run(tmp_path / "run", BUILD, worker__count=2, supervise__max_restarts=10) as pipeline:
        clients = [pipeline.connect() for _ in range(16)]
        pid = pipeline.ready["pids"]["rx"]
        for begin in range(0, 500, 100):
            play(clients, [stream(index, 100, begin) for index in range(16)], rng, 300)
            os.kill(pid, signal.SIGKILL)
            # The beginning of a request before there is a successor, its rest when there is.
            play(clients, [request(i, 10_000 + begin)[:7] for i in range(16)], rng, 8)
            pid = successor(pid)
            play(clients, [request(i, 10_000 + begin)[7:] for i in range(16)], rng, 8)
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            assert ended_by(client) == "end"
            client.close()
        end = pipeline.drain()
        numbers = in_order(pipeline.ids())
        assert len(pipeline.counters["restarts"]) == 5
    expected = [n for b in range(0, 500, 100) for n in [*range(b, b + 100), 10_000 + b]]
    assert numbers == dict.fromkeys(range(16), expected)
    assert end["connections"]["opened"] == end["connections"]["ended"] == 16
    assert end["connections"]["lost"] == 0


def successor(dead: int) -> int:
    """Pid of the rx that has replaced this one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        command = [BUILD / "tickline", "status", "--json"]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        for one in json.loads(found.stdout):
            if one["name"] == f"tcp-{os.getpid()}":
                rx = next(stage for stage in one["stages"] if stage["name"] == "rx")
                if rx["pid"] != dead and rx["state"] == "running":
                    return rx["pid"]
    raise AssertionError("rx has no successor")


def test_uring_is_refused(tmp_path: Path) -> None:
    command = [BUILD / "tickline", "config", ISOLATED]
    for value in ("rx.source=tcp", "rx.io=uring", "rx.bind=127.0.0.1:9327"):
        command += ["--set", value]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "rx.io = uring: rx.source = tcp is read by plain calls" in found.stderr
