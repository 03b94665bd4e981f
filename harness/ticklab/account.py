# SPDX-License-Identifier: Apache-2.0
"""Where every datagram and every request went: two ledgers, and whether their lines add up.

    datagrams:    sent      = received + dropped.wire + dropped.ip + dropped.socket
    connections:  connected = opened + refused + lost
    requests:   offered   = lost_with_datagrams + received
                received  = rejected(by reason) + dropped.ring + lost.rx
                            + in_flight.to_worker + processed
                processed = filtered + in_flight.to_tx + dropped.tx + transmitted
                transmitted + repeated = delivered + dropped.sink

Over TCP there are no datagrams: what of a request was in flight, or in a socket, when its
connection was reset is `lost_with_connections` (by ids, and only on connections that the client
knows to be gone), and so is a reply that nobody was left to take, `dropped.connection`.

All of the measured phase. The two sides of a line come from different places (the player and the
socket, ids on the wire and counters, both ends of a ring, tx and the sink), so that each can fail.
"""

from dataclasses import dataclass

import numpy as np

from ticklab.run import STATUS_DUPLICATED, Run
from ticklab.wire import Wire


@dataclass(frozen=True)
class Account:
    """`ledgers`: the object `account` of summary.json; `unbalanced`: what lines fail, and how."""

    ledgers: dict
    unbalanced: list[str]


def account_of(run: Run, wire: Wire) -> Account:
    """The account of a run. With --serve it begins at `received` and ends at `transmitted`."""
    at_wire, sink = run.manifest.get("wire") or {}, run.manifest.get("sink") or {}
    requests = _requests(run, wire, at_wire, sink)
    if run.config("rx.source") == "tcp":
        carriers = {"connections": _connections(run)}
    else:
        carriers = {"datagrams": _datagrams(run, at_wire)}
    ledgers = carriers | {"requests": requests}
    unbalanced = [line for name in ledgers for line in _check(name, ledgers[name], _LINES[name])]
    unbalanced += _never(run, requests)
    if unbalanced and (discarded := run.measured("lanes", "ingress", "discarded")):
        # What is known of received ids is then short by so many.
        unbalanced = [
            f"{line}; {discarded} records of ingress were discarded" for line in unbalanced
        ]
    return Account(ledgers, unbalanced)


# Each line: the left side, the right side; a name alone on the left names the line.
_DATAGRAMS = [(["sent"], ["received", "dropped.wire", "dropped.ip", "dropped.socket"])]
_CONNECTIONS = [(["connected"], ["opened", "refused", "lost"])]
_REQUESTS = [
    (["offered"], ["lost_with_datagrams", "received"]),
    (["offered"], ["lost_with_connections", "received"]),
    (["received"], ["rejected", "dropped.ring", "lost.rx", "in_flight.to_worker", "processed"]),
    (["processed"], ["filtered", "in_flight.to_tx", "dropped.tx", "transmitted"]),
    (["transmitted", "repeated"], ["delivered", "dropped.sink", "dropped.connection"]),
]
_WHERE_KNOWN = ("dropped.connection",)  # only where replies go back over TCP
_LINES = {"datagrams": _DATAGRAMS, "connections": _CONNECTIONS, "requests": _REQUESTS}


def _datagrams(run: Run, at_wire: dict) -> dict:
    dropped = {
        "wire": at_wire.get("dropped_wire"),
        "ip": at_wire.get("dropped_ip"),
        "socket": run.measured("sockets", "*", "drops") + run.measured("sockets", "*", "unread"),
    }
    return _known(
        {
            "sent": at_wire.get("sent"),
            "received": run.measured("rx", "datagrams"),
            "dropped": _known(dropped),
        }
    )


def _connections(run: Run) -> dict:
    """What the client opened in the measured phase, and what rx counted: {} before it counts."""
    if "connections" not in run.counter("end"):
        return {}
    now = ("open", "held_bytes", "unread_bytes")  # as they stood at the end
    counted = {
        name: (run.at_end if name in now else run.measured)("connections", name)
        for name in run.counter("end", "connections")
    }
    made = run.connections
    return _known({"connected": int(made["opened"].sum()) if made is not None else None} | counted)


def _requests(run: Run, wire: Wire, at_wire: dict, sink: dict) -> dict:
    received, dropped_ring = run.measured("rx", "issued"), run.measured("rx", "dropped", "*")
    to_worker, to_tx = (run.measured(ring, "*", "published") for ring in ("to_worker", "to_tx"))
    reasons = run.counter("end", "outcomes", "rejected")
    rejected = {reason: run.measured("outcomes", "rejected", reason) for reason in reasons}
    offered, never_received = run.offered, wire.never_received
    player = offered is not None and never_received is not None
    lost = len(never_received) if player else None
    if player and run.bounded and len(run.ingress) < received:
        # The ids of the earlier ones are gone: what is missing can only be told by the counts.
        lost = len(offered) - received
    elif player:
        lost -= _not_noted(run, received)
    tcp = run.config("rx.source") == "tcp"
    if tcp and player:
        # Only a connection that is gone takes requests with it: the rest is a loss without reason.
        lost -= 0 if wire.gone is None else int((~wire.gone[never_received]).sum())
    repeated = _repeated(run)
    duplicated = sink["duplicated"] - repeated if "duplicated" in sink else None
    return _known(
        {
            "offered": len(offered) if player else None,
            "lost_with_connections" if tcp else "lost_with_datagrams": lost,
            "received": received,
            "rejected": rejected,
            "dropped": _known(
                {
                    "ring": dropped_ring,
                    "tx": run.measured("outcomes", "dropped_tx"),
                    "sink": _dropped_sink(at_wire, sink),
                    "connection": _dropped_connection(run, wire, sink),
                }
            ),
            "lost": {"rx": received - dropped_ring - to_worker},
            "in_flight": {ring: _in_flight(run, ring) for ring in ("to_worker", "to_tx")},
            "processed": to_tx - sum(rejected.values()),
            "filtered": run.measured("outcomes", "filtered"),
            "transmitted": run.measured("outcomes", "transmitted"),
            "repeated": repeated,
            "delivered": sink.get("delivered"),
            "duplicated": duplicated,
            "corrupted": _corrupted(run, sink),
            "unknown": sink.get("unknown"),
            "misordered": sink.get("misordered"),
            "suspect": _suspect(run),
        }
    )


def _corrupted(run: Run, sink: dict) -> int | None:
    """Wrong replies, by the sink and by the reference that was asked after the run."""
    if "corrupted" not in sink:
        return None
    return sink["corrupted"] + (run.judged or {}).get("wrong", 0)


def _suspect(run: Run) -> int | None:
    """Outputs of workers whose handler had lost its state; None: such a state cannot be lost."""
    return run.measured("suspect", "*") if "suspect" in run.counter("end") else None


def _dropped_sink(at_wire: dict, sink: dict) -> int | None:
    """Replies lost on their way to the sink, and by its socket."""
    if "dropped_socket" not in sink:
        return None
    return sink["dropped_socket"] + at_wire.get("replies_lost", 0)


def _dropped_connection(run: Run, wire: Wire, sink: dict) -> int | None:
    """Replies that were given to a connection and never came out of it, as it was reset.

    Where the ring has dropped requests nobody can tell which: then it is at most what is missing.
    """
    if wire.gone is None or run.config("tx.sink") != "reply":
        return None
    count = wire.gone_unanswered - run.measured("outcomes", "dropped_tx")
    if run.measured("rx", "dropped", "*"):
        count = min(count, run.measured("outcomes", "transmitted") - sink.get("delivered", 0))
    return max(count, 0)


def _not_noted(run: Run, received: int) -> int:
    """Received requests whose ids are not in ingress.bin because its lane or the disk was full.

    What no such reason is known for does not count: the line of the account is to fail then.
    """
    gone = received - len(run.ingress)
    if gone <= 0 or "ingress" not in run.counter("end", "lanes"):
        return 0
    unwritten = run.at_end("lanes", "ingress", "records") - run.ingress_written
    known = run.measured("lanes", "ingress", "discarded") + max(unwritten, 0)
    return gone if gone <= known else 0


def _repeated(run: Run) -> int:
    """Replies that came twice because the send of a killed tx was in doubt.

    The sink cannot tell them from duplicated ones; tx's list of those in doubt can. Without a sink
    there is that list alone, an upper bound.
    """
    in_doubt, delivered, ingress = run.repeated, run.delivered, run.ingress
    if delivered is None or ingress is None:
        return len(in_doubt)
    ids = ingress["id"][np.isin(ingress["request"], in_doubt)]
    twice = delivered["id"][delivered["status"] == STATUS_DUPLICATED]
    return int(np.isin(twice, ids).sum())


def _in_flight(run: Run, ring: str) -> int:
    return run.at_end(ring, "*", "published") - run.at_end(ring, "*", "consumed")


def _known(figures: dict) -> dict:
    return {name: figure for name, figure in figures.items() if figure is not None}


def _figure(ledger: dict, path: str) -> int | None:
    at = ledger
    for key in path.split("."):
        at = at.get(key)
        if at is None:
            return None
    return sum(at.values()) if isinstance(at, dict) else at


def _check(name: str, ledger: dict, lines: list) -> list[str]:
    failing = []
    for left, right in lines:
        right = [path for path in right if path not in _WHERE_KNOWN or _figure(ledger, path)]
        figures = {path: _figure(ledger, path) for path in (*left, *right)}
        if None in figures.values():
            continue
        total, expected = (sum(figures[path] for path in side) for side in (left, right))
        if total != expected:
            said = [
                " + ".join(f"{path} {figures[path]}" for path in side) for side in (left, right)
            ]
            failing.append(
                f"{name}.{left[0]}: {said[0]} ≠ {said[1]} ({expected}); {total - expected:+d}"
            )
    return failing


def _never(run: Run, requests: dict) -> list[str]:
    """What no loss excuses: replies sent twice, wrong ones, ones nobody asked for, and, where all
    requests of a flow take the same way, replies that overtook others of their flow."""
    kinds = ["duplicated", "corrupted", "unknown"]
    if run.config("worker.dispatch") == "flow" or run.config("worker.count") == "1":
        kinds.append("misordered")
    return [
        f"requests.{what}: {requests[what]}: expected 0" for what in kinds if requests.get(what)
    ]
