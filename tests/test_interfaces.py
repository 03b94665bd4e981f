# SPDX-License-Identifier: Apache-2.0
"""lab.network = none: interfaces that are there already. Two namespaces with a wire between them
stand in for two machines with a cable."""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BUILD, ISOLATED, ROOT

from ticklab import network
from ticklab.child import LabError

TICKLINE = BUILD / "tickline"
SERVER, CLIENT = "10.9.0.1", "10.9.0.2"
GROUP = "239.1.2.3"
QUIET = {"ipv4/conf/all/rp_filter": 0, "ipv4/conf/default/rp_filter": 0}

pytestmark = pytest.mark.skipif(not TICKLINE.exists(), reason="needs build/tickline: make")


class Machines:
    """`server` has eth0 at 10.9.0.1, `client` eth0 at 10.9.0.2; no route leads to a group."""

    def __init__(self, server: network.Namespace, client: network.Namespace) -> None:
        self.server, self.client = server, client
        server.configure(QUIET, ["link set lo up"])
        client.configure(
            QUIET,
            [
                "link set lo up",
                f"link add eth0 type veth peer name eth0 netns {server.pid}",
                f"address add {CLIENT}/24 dev eth0",
                "link set eth0 up",
            ],
        )
        server.configure({}, [f"address add {SERVER}/24 dev eth0", "link set eth0 up"])
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: object) -> subprocess.Popen[str]:
        """On the server."""
        process = subprocess.Popen(
            ["nsenter", f"--net=/proc/{self.server.pid}/ns/net", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """What a failed test has left: a second signal ends it at once."""
        for process in self.started:
            for _ in range(2):
                if process.poll() is None:
                    process.terminate()
                    time.sleep(0.1)
            process.communicate(timeout=20)


@pytest.fixture
def machines() -> Iterator[Machines]:
    with contextlib.ExitStack() as stack:
        try:
            pair = [network.Namespace(), network.Namespace()]
        except LabError as error:
            pytest.skip(f"no network namespaces: {error}")
        for namespace in pair:
            stack.callback(namespace.close)
        made = Machines(*pair)
        stack.callback(made.end)
        yield made


def inside(namespace: network.Namespace, act: Callable[[], Any]) -> Any:
    """Calls `act` in a namespace; a socket made there stays there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as home, open(f"/proc/{namespace.pid}/ns/net") as there:
        assert libc.setns(there.fileno(), 0) == 0
        try:
            return act()
        finally:
            assert libc.setns(home.fileno(), 0) == 0


def sets(**values: object) -> list[str]:
    values.setdefault("pipeline__name", f"wire-{os.getpid()}")
    pairs = (f"{key.replace('__', '.')}={value}" for key, value in values.items())
    return [word for pair in pairs for word in ("--set", pair)]


def run(machines: Machines, directory: Path, **values: object) -> subprocess.Popen[str]:
    """`tickline run` by itself on the server."""
    ends = sets(**{"rx__bind": f"{SERVER}:9000", "tx__to": f"{CLIENT}:9100", **values})
    return machines.start(TICKLINE, "run", ISOLATED, *ends, "--json", "--run-dir", directory)


def lab(machines: Machines, tmp_path: Path, *words: str, **values: object) -> list[object]:
    ends = sets(lab__network="none", replay__requests=1000, replay__warmup=0, **values)
    script = ROOT / "harness" / "lab.py"
    return [sys.executable, script, ISOLATED, *ends, "--runs", tmp_path / "runs", *words]


def event(process: subprocess.Popen[str]) -> dict[str, Any]:
    return json.loads(process.stdout.readline())


def assert_answered(machines: Machines, to: str = SERVER, count: int = 500) -> None:
    """The client sends requests and gets all replies, each right."""

    def open_socket() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((CLIENT, 9100))
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(CLIENT))
        return made

    with inside(machines.client, open_socket) as client:
        expected, got = set(), set()
        for number in range(1, count + 1):
            client.sendto(b"|%08d|0003|abz" % number, (to, 9000))
            expected.add(b"|%08d|0003|bca" % number)
            while select.select([client], [], [], 0.0002)[0]:
                got.add(client.recv(100))
        while select.select([client], [], [], 1.0)[0] and got != expected:
            got.add(client.recv(100))
    assert got == expected


def test_the_pipeline_alone(machines: Machines, tmp_path: Path) -> None:
    process = run(machines, tmp_path / "run")
    ready = event(process)
    assert ready["sockets"][0]["bind"] == f"{SERVER}:9000"
    assert_answered(machines)
    done = process.communicate("drain\n", 20)[0]
    assert json.loads(done.splitlines()[-1]) == {"event": "done", "exit": 0}
    end = json.loads((tmp_path / "run" / "counters.json").read_text())["end"]
    assert end["rx"]["datagrams"] == end["outcomes"]["transmitted"] == 500


def test_a_group_is_joined_on_the_interface_that_is_named(
    machines: Machines, tmp_path: Path
) -> None:
    process = run(machines, tmp_path / "run", rx__bind=f"{GROUP}:9000", rx__interface="eth0")
    assert event(process)["event"] == "ready"
    assert_answered(machines, GROUP)
    process.communicate("drain\n", 20)
    assert process.returncode == 0


def test_a_group_without_a_route_or_an_interface(machines: Machines, tmp_path: Path) -> None:
    process = run(machines, tmp_path / "run", rx__bind=f"{GROUP}:9000")
    stderr = process.communicate(timeout=20)[1]
    assert process.returncode in (1, 2)
    assert len(stderr.splitlines()) == 1
    assert f"rx.bind = {GROUP}:9000: cannot join the group" in stderr
    assert "write rx.interface" in stderr


def test_an_interface_that_is_not_there(machines: Machines, tmp_path: Path) -> None:
    process = run(machines, tmp_path / "run", rx__interface="eth77")
    stderr = process.communicate(timeout=20)[1]
    assert process.returncode == 2
    assert len(stderr.splitlines()) == 1
    assert "rx.interface = eth77: no such interface; expected one of: ip -brief link" in stderr


def test_hardware_stamps_where_the_interface_has_none(machines: Machines, tmp_path: Path) -> None:
    process = run(machines, tmp_path / "run", rx__interface="eth0", rx__timestamps="hardware")
    note = event(process)["obtained"]["rx rx.timestamps"]
    assert note["asked"] == "hardware"
    assert note["obtained"] == "software"
    assert "eth0" in note["why"]
    assert_answered(machines)
    process.communicate("drain\n", 20)
    assert process.returncode == 0
    ingress = (tmp_path / "run" / "wire" / "ingress.bin").read_bytes()
    stamps = [int.from_bytes(ingress[at + 16 : at + 24], "little") for at in range(0, 500 * 32, 32)]
    assert all(abs(time.time_ns() - stamp) < 60e9 for stamp in stamps)


def test_hardware_stamps_of_nobody(tmp_path: Path) -> None:
    done = subprocess.run(
        [TICKLINE, "config", ISOLATED, *sets(rx__timestamps="hardware")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "rx.timestamps = hardware: expected rx.interface too" in done.stderr


def test_the_lab_serves_on_the_hosts_network(machines: Machines, tmp_path: Path) -> None:
    ends = {"rx__bind": "0.0.0.0:9000", "tx__to": f"{CLIENT}:9100"}
    process = machines.start(*lab(machines, tmp_path, "--serve", **ends))
    said = [process.stdout.readline() for _ in range(4)]
    assert said[0].split() == ["receiving", "at:", "0.0.0.0:9000"]
    assert said[1].split() == ["replies", "go", "to:", f"{CLIENT}:9100"]
    assert said[2].startswith("on the network of:")
    assert_answered(machines)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    directory = Path(stdout.splitlines()[-1].removeprefix("run directory: "))
    account = json.loads((directory / "summary.json").read_text())["account"]["requests"]
    assert account["received"] == account["transmitted"] == 500
    assert "offered" not in account
    assert "delivered" not in account


def test_a_replay_into_an_interface_that_is_named(machines: Machines, tmp_path: Path) -> None:
    """A cable from one port of a machine to another one of it: the player's end and rx's."""
    machines.server.configure(
        {},
        [
            "link add play type veth peer name take",
            "link set play up",
            "link set take up",
            "address add 10.77.0.2/32 dev take",
            "address add 192.0.2.1/32 dev take",
        ],
    )
    values = {"lab__interface": "play", "rx__interface": "take", "tx__to": "127.0.0.1:9100"}
    generate = ROOT / "harness" / "generate.py"
    pcap = tmp_path / "x.pcap"
    made = [sys.executable, generate, pcap, "--count", "2000", "--destination", "192.0.2.1"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    process = machines.start(*lab(machines, tmp_path, "--capture", str(pcap), **values))
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr + stdout
    directory = Path(stdout.splitlines()[-1].removeprefix("run directory: "))
    account = json.loads((directory / "summary.json").read_text())["account"]
    requests = account["requests"]
    assert requests["offered"] == requests["delivered"] == 2000
    assert account["datagrams"]["sent"] == 2000
    assert set(account["datagrams"]["dropped"]) == {"socket"}  # of the others nobody knows


WRONG = {
    "nothing to play into": ([], {"tx__to": "127.0.0.1:9100"}, "unless rx.interface and"),
    "no such interface": (["--serve"], {"lab__interface": "eth77"}, "lab.interface = eth77"),
    "nowhere to send": (["--serve"], {}, "tx.to = auto"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_lab_cannot_know(machines: Machines, tmp_path: Path, name: str) -> None:
    words, values, part = WRONG[name]
    process = machines.start(*lab(machines, tmp_path, *words, **values))
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 2
    assert len(stderr.splitlines()) == 1
    assert part in stderr
    assert not (tmp_path / "runs").exists()
