# SPDX-License-Identifier: Apache-2.0
"""Programs and reference say the same of the same bytes: good ones, mutated ones, cut ones."""

import copy
import os
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import dpkt
import pytest
from xxhash import xxh3_64_intdigest

from ticklab import generate, generate_iex, reference, reference_iex, reference_v3, reference_v4
from ticklab.reference_book import BEST, ORDER, Book

ROOT = Path(__file__).resolve().parents[1]
JUDGE = ROOT / os.environ.get("TICKLINE_BUILD", "build") / "judge"
INPUTS = int(os.environ.get("TICKLINE_TEST_INPUTS", "4000"))
MESSAGES = int(os.environ.get("TICKLINE_TEST_MESSAGES", "20000"))


def judged(schema: str, way: str, inputs: list[bytes], handler: str = "rot1") -> list[str]:
    data = b"".join(struct.pack("<I", len(each)) + each for each in inputs)
    command = [JUDGE, schema, way, handler]
    done = subprocess.run(command, input=data, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def expected(schema: str, requests: list[reference.Request], handler: Any = "rot1") -> str:
    told = ""
    for request in requests:
        answer = reference.reply(schema, handler, request)
        said = f"{answer}:-" if isinstance(answer, str) else f"-:{xxh3_64_intdigest(answer):x}"
        told += f" {request.id:x}:{len(request.raw):x}:{request.framed:d}:{said}"
    return told


def fix(chance: random.Random) -> bytes:
    body = b"35=%c\x0134=%d\x01" % (chance.choice(b"0158AD"), chance.randrange(10**6))
    body += b"58=%b\x01" % chance.randbytes(chance.randrange(20)).replace(b"\x01", b"")
    begin = chance.choice([b"FIX.4.1", b"FIX.4.4", b"FIXT.1.1"])
    head = b"8=%b\x019=%0*d\x01" % (begin, chance.randrange(1, 7), len(body))
    return b"%b%b10=%03d\x01" % (head, body, sum(head + body) % 256)


def iex(chance: random.Random) -> bytes:
    messages = b""
    count = chance.choice([0, 1, 1, 2, 5])
    for _ in range(count):
        kind = chance.choice([*reference_iex.TYPE_BYTES, "z"])
        size = reference_iex.TYPE_BYTES.get(kind, 3) + chance.choice([0, 0, 0, 0, 1, -1])
        messages += struct.pack("<H", size) + kind.encode() + chance.randbytes(size - 1)
    protocol = chance.choice([0x8003, 0x8004])
    head = (1, 0, protocol, 1, 7, len(messages), count, 99, chance.randrange(1 << 40), 5)
    return reference_iex.HEADER.pack(*head) + messages


def v3(chance: random.Random) -> bytes:
    """Fields in any order, some twice, some unknown, some in more bytes than they need."""
    fields = []
    for _ in range(chance.choice([0, 1, 2, 2, 2, 3, 5])):
        payload = chance.randbytes(chance.choice([0, 1, 8, 130]))
        length = reference_v3.varint(len(payload))
        if chance.random() < 0.1:
            length = bytes((*length[:-1], length[-1] | 128, 0))
        fields.append(
            chance.choice(
                [
                    b"\x09" + chance.randbytes(8),
                    b"\x12" + length + payload,
                    b"\x18" + reference_v3.varint(chance.randrange(1 << 60)),
                    b"\x8d\x01" + chance.randbytes(4),
                    b"\xfa\xff\xff\xff\x0f" + length + payload,
                ]
            )
        )
    message = b"".join(fields)
    return reference_v3.varint(len(message)) + message


def v4(chance: random.Random) -> bytes:
    """Of one segment as the library writes it; of several, with far pointers of both kinds."""
    number, payload = chance.randrange(1 << 64), chance.randbytes(chance.choice([0, 1, 8, 50]))
    if chance.random() < 0.4:
        return reference_v4.encode(number, payload)
    padded = payload + bytes(-len(payload) % 8)
    size = len(payload) << 3 | 2
    root = struct.pack("<IHHQ", 0, 1, 1, number)
    if chance.random() < 0.5:  # the pad in front of its content
        segments = [root + struct.pack("<II", 2, 1), struct.pack("<II", 1, size) + padded]
    else:  # the pad in a segment of its own
        pad = struct.pack("<IIII", 2, 2, 1, size)
        segments = [root + struct.pack("<II", 6, 1), pad, padded]
    table = struct.pack(
        f"<{len(segments) + 1}I", len(segments) - 1, *(len(s) // 8 for s in segments)
    )
    return table + bytes(-len(table) % 8) + b"".join(segments)


def v1(chance: random.Random) -> bytes:
    payload = chance.randbytes(chance.randrange(20))
    return b"|%08d|%04d|%b" % (chance.randrange(10**8), len(payload), payload)


def v2(chance: random.Random) -> bytes:
    payload = chance.randbytes(chance.randrange(20))
    return struct.pack(">QI", chance.randrange(1 << 64), len(payload)) + payload


MAKERS = {"v1": v1, "v2": v2, "v3": v3, "v4": v4, "fix": fix, "iex": iex}


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Up to three bytes changed, rather those in front and to values that matter; perhaps cut."""
    bytes_ = bytearray(data)
    for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
        if bytes_:
            place = chance.randrange(min(len(bytes_), chance.choice([4, 16, 48, 1000])))
            likely = chance.choice(
                [0, 1, 2, 4, 6, 7, 8, 0x80, 0xFF, bytes_[place] ^ 1 << chance.randrange(8)]
            )
            bytes_[place] = likely if chance.random() < 0.7 else chance.randrange(256)
    if chance.random() < 0.2:
        del bytes_[chance.randrange(len(bytes_) + 1) :]
    return bytes(bytes_)


def compare(
    schema: str, way: str, inputs: list[bytes], told: list[str], handler: str = "rot1"
) -> None:
    for each, line, said in zip(inputs, judged(schema, way, inputs, handler), told, strict=True):
        assert line == said, f"{schema} {way} {each.hex()}"


@pytest.mark.parametrize("schema", MAKERS)
def test_datagrams(schema: str) -> None:
    chance = random.Random(1)
    inputs = [b"", b"\0", b"\xff" * 50]
    while len(inputs) < INPUTS:
        many = 1 if schema == "iex" else chance.choice([1, 1, 2, 3])
        data = b"".join(MAKERS[schema](chance) for _ in range(many))
        inputs.append(mutated(chance, data))
    told = [expected(schema, reference.frame(schema, each)) for each in inputs]
    compare(schema, "datagram", inputs, told)
    good = sum(":-:" in line for line in told)
    assert len(inputs) / 10 < good < len(inputs) * 9 / 10


@pytest.mark.parametrize("schema", reference.STREAMS)
def test_streams(schema: str) -> None:
    chance = random.Random(2)
    inputs = [b"", b"8" * 9000]
    while len(inputs) < INPUTS:
        data = b"".join(mutated(chance, MAKERS[schema](chance)) for _ in range(4))
        inputs.append(data)
    told = []
    for each in inputs:
        requests, rest = reference.frame_stream(schema, each)
        told.append(f"{expected(schema, requests)} {len(rest):x}")
    compare(schema, "stream", inputs, told)


def apart(book: Book, symbol: bytes) -> tuple[list[bytes], list[bytes]]:
    """Orders that take the best level of a symbol until there is none, and that bring all back.

    The replies to the former tell each level, its price and its size, and that there is no more.
    """
    levels = [
        (size, price, symbol, side)
        for side, name in ((b"B", "bid"), (b"S", "ask"))
        for price, size in sorted(book.levels[symbol][name].items(), reverse=name == "bid")
    ]
    asks = [ORDER.pack(b"q", b"\0", 0, 0, symbol)]
    takes, adds = (
        [ORDER.pack(what, side, *level) for *level, side in levels] for what in (b"r", b"a")
    )
    return asks + takes, adds


def test_every_level_of_a_book(tmp_path: Path) -> None:
    """A session of DEEP; after every 1,000th message both books are taken apart, level by level."""
    path = tmp_path / "session.pcap"
    options = generate.Options(schema="iex", handler="book", count=MESSAGES, per_datagram=4)
    generate.generate(path, options)
    book, inputs, told, levels = Book(), [], [], 0

    def ask(data: bytes) -> int:
        requests = reference.frame("iex", data)
        inputs.append(data)
        told.append(expected("iex", requests, book.update))
        return requests[-1].id

    with path.open("rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            number = ask(frame[42:])
            before = copy.deepcopy(book.levels) if number % 1000 == 0 else {}
            for symbol in before:
                takes, adds = apart(book, symbol)
                for order in takes:
                    ask(generate_iex.alone(order, number, 0))
                assert book.best(symbol) == BEST.pack(symbol, 0, 0, 0, 0)
                for order in adds:
                    ask(generate_iex.alone(order, number, 0))
                levels += len(adds)
            assert not before or book.levels == before
    compare("iex", "datagram", inputs, told, "book")
    assert levels > 50 * MESSAGES // 1000
