# SPDX-License-Identifier: Apache-2.0
"""The lab's private network: two anonymous namespaces and the two wires between them.

    client namespace              pipeline namespace
    player ▶ play0 ───── veth ───── rx0 ▶ rx
    sink   ◀ sink0 ───── veth ───── tx0 ◀ tx

Each namespace is held by a `cat` that ends with the lab (its stdin is the lab's pipe, which the
kernel closes even when the lab is killed), and vanishes with it. Nothing of the host is changed:
every sysctl written here belongs to the namespace.

rx0 sees the player's frames and no others (no ARP, no IPv6 but where the capture has it), so that
interface counters can stand in the account.
"""

import fcntl
import ipaddress
import select
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ticklab.child import LabError, end, missing, spawn

PLAY_MAC = "02:00:00:00:77:01"
RX_MAC = "02:00:00:00:77:02"  # what every frame of a prepared capture is sent to
TX_MAC = "02:00:00:00:77:03"
SINK_MAC = "02:00:00:00:77:04"
# With these a client of one's own reaches every destination of the capture from the client
# namespace.
CLIENT_ADDRESS = "10.77.0.1"
GATEWAY = "10.77.0.2"
SIOCGIFHWADDR = 0x8927
MTU = 65535  # a datagram of any size is one frame

# Where tx and the sink live: the first /16 in which the capture has no destination.
SINK_NETS = ("10.78.0.0/16", "172.30.0.0/16", "192.168.0.0/16", "198.18.0.0/16")

Snapshot = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Drops:
    """Datagrams lost before any socket, between two snapshots."""

    sent: int  # taken from the player by play0
    wire: int  # lost between play0 and the IP layer of the pipeline
    ip: int  # thrown away by IP or UDP, before or without a socket


class Namespace:
    """A network namespace and the process that holds it."""

    def __init__(self) -> None:
        self.holder = spawn(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        try:
            self._wait()
        except LabError:
            self.close()
            raise

    def _wait(self) -> None:
        """`cat` gives back the line it is given: then the namespace exists."""
        assert self.holder.stdin
        assert self.holder.stdout
        assert self.holder.stderr
        try:
            self.holder.stdin.write(b"\n")
            self.holder.stdin.flush()
            ready = select.select([self.holder.stdout], [], [], 5)[0]
            if ready and self.holder.stdout.readline() == b"\n":
                return
        except BrokenPipeError:
            pass
        self.holder.kill()
        why = self.holder.stderr.read().decode().strip()
        raise LabError(
            f"cannot make a network namespace ({why or 'no answer'}); "
            "run as root, or allow user namespaces"
        )

    @property
    def pid(self) -> int:
        return self.holder.pid

    @property
    def enter(self) -> str:
        """What to type to be in it."""
        return f"nsenter --net=/proc/{self.pid}/ns/net"

    def configure(self, sysctls: Mapping[str, int], batch: Iterable[str]) -> None:
        """Writes sysctls (paths under /proc/sys/net), then runs lines of `ip -batch`, in it."""
        if not shutil.which("ip"):
            raise missing("ip")
        writes = "".join(
            f"echo {value} > /proc/sys/net/{path}\n" for path, value in sysctls.items()
        )
        child = spawn(
            ["sh", "-e", "-c", f"{writes}exec ip -batch -"],
            namespace=self.pid,
            stdin=subprocess.PIPE,
        )
        error = child.communicate("\n".join([*batch, ""]).encode())[1].decode().strip()
        if child.returncode != 0:
            raise LabError(f"cannot set up the lab's network: {' '.join(error.split())}")

    def read(self, name: str) -> str:
        """A file of /proc/net as the namespace has it; empty where the kernel has no such file."""
        path = Path(f"/proc/{self.pid}/net/{name}")
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        for pipe in (self.holder.stdin, self.holder.stdout, self.holder.stderr):
            if pipe:
                pipe.close()
        end(self.holder)


class Outside:
    """The namespace that the lab itself lives in."""

    pid = None


class Host:
    """The host's own network in the place of Network (lab.network = none): nothing is made, and
    nothing changed. Its counters are everybody's, so they do not stand in the account.

    Parameters
    ----------
    player : the interface that captures are played into; `any` where none is.
    """

    client = pipeline = Outside()

    def __init__(self, player: str) -> None:
        self.player = player

    def snapshot(self) -> Snapshot:
        return {}

    def played(self) -> int:
        """Frames that the interface has sent, whoever gave them."""
        return _parse_dev(Path("/proc/net/dev").read_text())[self.player]["tx_packets"]

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def mac_of(interface: str) -> bytes:
    """The address of an interface of the lab's own namespace (/sys may show another one's)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("256s", interface.encode())
        return fcntl.ioctl(any_socket, SIOCGIFHWADDR, request)[18:24]


class Network:
    """Both namespaces, ready for traffic; a context manager that leaves nothing behind.

    Parameters
    ----------
    destinations : every address that the capture sends to (multicast groups may be among them).
    answers : shall a client of the lab's own be answered (TCP, replies to its datagrams)?
    tap : frames are taken off rx0 and belong to nobody there: no address leads to a socket, so
        that the kernel does not answer them.
    """

    player = "play0"

    def __init__(
        self, destinations: Iterable[str] = (), *, answers: bool = False, tap: bool = False
    ) -> None:
        destinations = list(destinations)
        addresses = [ipaddress.ip_address(text) for text in destinations]
        net = sink_network(destinations)
        self.tx_address, self.sink_address = str(net[1]), str(net[2])
        self.client = Namespace()
        try:
            self.pipeline = Namespace()
        except LabError:
            self.client.close()
            raise
        try:
            self._wire([] if tap else addresses, answers)
        except LabError:
            self.close()
            raise

    def _wire(
        self, addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address], answers: bool
    ) -> None:
        unicast = [address for address in addresses if not address.is_multicast]
        six = any(address.version == 6 for address in addresses)
        quiet = {"ipv6/conf/default/disable_ipv6": 1} if _has_ipv6() else {}
        self.pipeline.configure(
            {
                "ipv4/conf/all/rp_filter": 0,
                "ipv4/conf/default/rp_filter": 0,
                "ipv4/conf/all/accept_local": 1,
                "ipv4/igmp_max_memberships": 4096,
                **quiet,
            },
            ["link set lo up"],
        )
        peer = f"netns {self.pipeline.pid} mtu {MTU}"
        self.client.configure(
            quiet,
            [
                "link set lo up",
                f"link add play0 address {PLAY_MAC} mtu {MTU} arp off type veth "
                f"peer name rx0 address {RX_MAC} arp off {peer}",
                f"link add sink0 address {SINK_MAC} mtu {MTU} arp off type veth "
                f"peer name tx0 address {TX_MAC} arp off {peer}",
                f"address add {self.sink_address}/30 dev sink0",
                f"address add {CLIENT_ADDRESS}/32 dev play0",
                "link set play0 up",
                "link set sink0 up",
                f"neigh add {self.tx_address} lladdr {TX_MAC} dev sink0 nud permanent",
                f"neigh add {GATEWAY} lladdr {RX_MAC} dev play0 nud permanent",
                f"route add default via {GATEWAY} dev play0 onlink",
            ],
        )
        # Routes of type local, not addresses: sockets can bind to them all the same, and 10,000
        # take a tenth of the time. Added once rx0 is up, for a route needs that.
        routes = [f"route replace local {address} dev rx0" for address in unicast]
        if answers:  # from the address that was asked, for its socket is bound to any
            source = next((f"src {text}" for text in unicast if text.version == 4), "")
            routes += [
                f"neigh add {CLIENT_ADDRESS} lladdr {PLAY_MAC} dev rx0 nud permanent",
                f"route add {CLIENT_ADDRESS}/32 dev rx0 {source}",
            ]
        self.pipeline.configure(
            {
                "ipv6/conf/rx0/addr_gen_mode": 1,
                "ipv6/conf/rx0/disable_ipv6": 0,
                "ipv6/ip_nonlocal_bind": 1,
            }
            if six
            else {},
            [
                "link set rx0 up",
                "link set tx0 up",
                f"address add {self.tx_address}/30 dev tx0",
                f"neigh add {self.sink_address} lladdr {SINK_MAC} dev tx0 nud permanent",
                "route add 224.0.0.0/4 dev rx0",
                *routes,
            ],
        )

    def snapshot(self) -> Snapshot:
        """All counters that the account may need, by source: interfaces, then Ip, Udp and so on."""
        counters: Snapshot = {}
        for namespace in (self.client, self.pipeline):
            counters |= _parse_dev(namespace.read("dev"))  # `lo` is the pipeline's: it comes last
        counters |= _parse_pairs(self.pipeline.read("snmp") + self.pipeline.read("netstat"))
        counters["Six"] = _parse_six(self.pipeline.read("snmp6"))
        counters["Sink"] = _parse_pairs(self.client.read("snmp"))["Udp"]
        return counters

    def played(self) -> int:
        """Frames that the player has put on the wire."""
        return _parse_dev(self.client.read("dev"))["play0"]["tx_packets"]

    def close(self) -> None:
        self.client.close()
        self.pipeline.close()

    def __enter__(self) -> "Network":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def drops(mark: Snapshot, end: Snapshot, socket_drops: int) -> Drops:
    """What was lost between two snapshots, each taken while nothing moved.

    The kernel throws some datagrams away without a word (a martian source, a group nobody joined)
    and books others twice (InCsumErrors is within InErrors; a frame refused by a full backlog is
    counted by both ends of a wire, and the player sends it again). So losses are differences
    between what went into a layer and what came out of it, not sums of error counters.

    Parameters
    ----------
    socket_drops : datagrams that the pipeline's sockets counted as dropped (SO_MEMINFO) in that
    time.
        UDP books them as InErrors too, along with those that it dropped before it had a socket: a
        wrong checksum is of the one kind or the other by the length of the datagram.
    """

    def grown(source: str, *names: str) -> int:
        return sum(end[source].get(name, 0) - mark[source].get(name, 0) for name in names)

    sent = grown("play0", "tx_packets")
    others = grown("tx0", "rx_packets") + grown("lo", "rx_packets")
    into_ip = grown("Ip", "InReceives") + grown("Six", "Ip6InReceives")
    into_udp = grown("Ip", "InDelivers") + grown("Six", "Ip6InDelivers")
    no_socket = grown("Udp", "NoPorts", "IgnoredMulti") + grown("Six", "Udp6NoPorts")
    no_socket += grown("Six", "Udp6IgnoredMulti")
    errors = grown("Udp", "InErrors") + grown("Six", "Udp6InErrors")
    return Drops(
        sent=sent,
        wire=sent + others - into_ip,
        ip=into_ip - into_udp + no_socket + errors - socket_drops,
    )


def tap_drops(mark: Snapshot, end: Snapshot, packets: int) -> Drops:
    """The same for a tap, whose socket has counted so many `packets`, dropped ones too."""
    sent = end["play0"]["tx_packets"] - mark["play0"]["tx_packets"]
    return Drops(sent=sent, wire=sent - packets, ip=0)


def replies_lost(mark: Snapshot, end: Snapshot) -> int:
    """Replies that the kernel took from tx and that never came to the sink's UDP.

    What the sink's socket drops is among InErrors: it did come.
    """
    sent = end["Udp"]["OutDatagrams"] - mark["Udp"]["OutDatagrams"]
    came = ("InDatagrams", "InErrors", "NoPorts")
    return sent - sum(end["Sink"][name] - mark["Sink"][name] for name in came)


def growth(mark: Snapshot, end: Snapshot) -> Snapshot:
    """Every counter that differs between two snapshots, by how much."""
    grown: Snapshot = {}
    for source, counters in end.items():
        before = mark.get(source, {})  # the kernel has some lines only once they count something
        changed = {name: value - before.get(name, 0) for name, value in counters.items()}
        if any(changed.values()):
            grown[source] = {name: change for name, change in changed.items() if change}
    return grown


def sink_network(destinations: Iterable[str]) -> ipaddress.IPv4Network:
    """Where tx (host 1) and sink (host 2) live when a capture sends to `destinations`."""
    addresses = [ipaddress.ip_address(text) for text in destinations]
    for text in SINK_NETS:
        net = ipaddress.IPv4Network(text)
        if not any(address in net for address in addresses):
            return net
    raise LabError(f"the capture sends to all of {', '.join(SINK_NETS)}: no room for the sink")


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").is_dir()


def _parse_dev(text: str) -> Snapshot:
    """/proc/net/dev: two lines of heading, then `name: 8 receive columns 8 transmit columns`."""
    counters = {}
    for line in text.splitlines()[2:]:
        name, _, columns = line.partition(":")
        value = [int(column) for column in columns.split()]
        counters[name.strip()] = {
            "rx_packets": value[1],
            "rx_errors": value[2],
            "rx_dropped": value[3],
            "tx_packets": value[9],
            "tx_errors": value[10],
            "tx_dropped": value[11],
        }
    return counters


def _parse_pairs(text: str) -> Snapshot:
    """/proc/net/snmp and netstat: a line of names, a line of values, both begun by their source."""
    lines = [line.partition(":") for line in text.splitlines()]
    return {
        names[0]: dict(zip(names[2].split(), map(int, values[2].split()), strict=True))
        for names, values in zip(lines[::2], lines[1::2], strict=True)
    }


def _parse_six(text: str) -> dict[str, int]:
    """/proc/net/snmp6: `name value`, the per-type ICMP lines left out."""
    pairs = (line.split() for line in text.splitlines())
    return {name: int(value) for name, value in pairs if not name.startswith("Icmp")}
