# SPDX-License-Identifier: Apache-2.0
"""Framing, reasons, wire ids, handlers and replies against examples written out by hand."""

import gzip
import struct
from collections import Counter
from pathlib import Path

import dpkt
import pytest
from xxhash import xxh3_64_intdigest

from ticklab import generate, generate_iex, reference
from ticklab.generate_forms import FORMS

FIX = Path(__file__).parents[1] / "../shared/captures/fix41-tcp.pcap.gz"


def reasons(schema: str, datagram: bytes) -> list[str | None]:
    return [request.reason for request in reference.frame(schema, datagram)]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"abcdefgh", b"bcdefghi"),
        (b"xyzXYZ", b"yzaYZA"),
        (b"a1-|\0\xff Z", b"b1-|\0\xff A"),
        (b"", b""),
    ],
)
def test_rot1(payload, expected):
    assert reference.rot1(payload) == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"0", b"FizzBuzz"),
        (b"1", b"1"),
        (b"3", b"Fizz"),
        (b"5", b"Buzz"),
        (b"15", b"FizzBuzz"),
        (b"00000016", b"00000016"),
        (b"00000018", b"Fizz"),
        (b"999999999999999999", b"Fizz"),
        (b"1" * 19, None),
        (b"", None),
        (b"-15", None),
        (b"15 ", None),
        (b"1_5", None),
        (b"\xb1\xb5", None),
        ("¹⁵".encode(), None),
    ],
)
def test_fizzbuzz(payload, expected):
    assert reference.fizzbuzz(payload) == expected


def test_v1_reply_keeps_form_and_id():
    (request,) = reference.frame("v1", b"|00000001|0008|abcdefgh")
    assert (request.id, request.payload, request.reason) == (1, b"abcdefgh", None)
    assert reference.reply("v1", "rot1", request) == b"|00000001|0008|bcdefghi"
    (request,) = reference.frame("v1", b"|00000042|0002|15")
    assert reference.reply("v1", "fizzbuzz", request) == b"|00000042|0008|FizzBuzz"


def test_v2_reply_keeps_form_and_id():
    datagram = bytes.fromhex("fedcba9876543210 00000002") + b"Az"
    (request,) = reference.frame("v2", datagram)
    assert (request.id, request.payload) == (0xFEDCBA9876543210, b"Az")
    expected = bytes.fromhex("fedcba9876543210 00000002") + b"Ba"
    assert reference.reply("v2", "rot1", request) == expected


def test_datagram_is_one_request_whatever_it_holds():
    for datagram in (b"", b"|00000001|0001|a|00000002|0001|b", bytes(9000)):
        (request,) = reference.frame("datagram", datagram)
        assert request == (xxh3_64_intdigest(datagram), datagram, datagram, None, True)
    assert reference.reply("datagram", "rot1", reference.frame("datagram", b"ab")[0]) == b"bc"
    assert reference.reply("datagram", "rot1", reference.frame("datagram", b"")[0]) == b""


def test_wire_id_of_nothing_is_the_published_hash():
    (request,) = reference.frame("v1", b"")
    assert (request.id, request.reason) == (0x2D06800538D394C2, "empty")


def test_several_requests_back_to_back():
    datagram = b"|00000007|0000||00000008|0002|hi|00000008|0001|x"
    assert [(r.id, r.payload) for r in reference.frame("v1", datagram)] == [
        (7, b""),
        (8, b"hi"),
        (8, b"x"),
    ]
    datagram = bytes(7) + b"\7" + bytes(4) + bytes(7) + b"\x08\0\0\0\2hi"
    assert [(r.id, r.payload) for r in reference.frame("v2", datagram)] == [(7, b""), (8, b"hi")]


def test_what_follows_a_malformed_request_is_part_of_it():
    good, bad = b"|00000001|0001|a", b"|00000002|000x|b|00000003|0001|c"
    requests = reference.frame("v1", good + bad)
    assert [r.reason for r in requests] == [None, "bad_digit"]
    assert (requests[1].id, requests[1].raw) == (xxh3_64_intdigest(bad), bad)
    requests = reference.frame("v2", bytes(12) + b"tail")
    assert [(r.raw, r.reason) for r in requests] == [(bytes(12), None), (b"tail", "truncated")]


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "empty"),
        (b"|", "truncated"),
        (b"|0000", "truncated"),
        (b"|00000001", "truncated"),
        (b"|00000001|00", "truncated"),
        (b"|00000001|0008|abcdefg", "truncated"),
        (b"|00000001|9999|abcdefgh", "truncated"),
        (b"x", "bad_header"),
        (b"00000001|0008|abcdefgh", "bad_header"),
        (b"|00000001:0008|abcdefgh", "bad_header"),
        (b"|000000010008|abcdefgh", "bad_header"),
        (b"|00000001|0008abcdefgh", "bad_header"),
        (b"\r\n|00000001|0008|abcdefgh", "bad_header"),
        (b"|0000001|0008|abcdefgh", "bad_digit"),
        (b"|000x", "bad_digit"),
        (b"|0000000\xb1|0008|abcdefgh", "bad_digit"),
        (b"|-0000001|0008|abcdefgh", "bad_digit"),
        (b"|00000001|   8|abcdefgh", "bad_digit"),
        (b"|00000001|008|abcdefgh", "bad_digit"),
        (b"|0000000x:0008|abcdefgh", "bad_digit"),  # the first violation decides
        (b"|00000001:000x|abcdefgh", "bad_header"),
    ],
)
def test_reasons_v1(datagram, reason):
    assert reasons("v1", datagram) == [reason]


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "empty"),
        (b"\0", "truncated"),
        (b"\xff" * 11, "truncated"),
        (bytes(8) + b"\0\0\0\1", "truncated"),
        (bytes(8) + b"\0\0\xff\xff" + bytes(65534), "truncated"),
        (bytes(8) + b"\0\1\0\0" + bytes(65536), "bad_length"),
        (bytes(8) + b"\x80\0\0\1a", "bad_length"),
        (b"\xff" * 12, "bad_length"),
    ],
)
def test_reasons_v2(datagram, reason):
    assert reasons("v2", datagram) == [reason]


def test_longest_payloads_frame():
    assert reasons("v1", b"|00000001|9999|" + bytes(9999)) == [None]
    assert reasons("v2", bytes(8) + b"\0\0\xff\xff" + bytes(65535)) == [None]


def test_slot_capacity():
    (request,) = reference.frame("v1", b"|00000001|0001|3")
    assert reference.reply("v1", "fizzbuzz", request, 19) == b"|00000001|0004|Fizz"
    assert reference.reply("v1", "fizzbuzz", request, 18) == "reply_too_big"
    assert reference.reply("v1", "fizzbuzz", request, 16) == "reply_too_big"
    assert reference.reply("v1", "fizzbuzz", request, 15) == "oversized"
    (request,) = reference.frame("v1", b"|00000001|0001|x")
    assert reference.reply("v1", "fizzbuzz", request, 15) == "oversized"
    assert reference.reply("v1", "fizzbuzz", request, 16) == "bad_payload"
    (request,) = reference.frame("v1", b"|00000001|000x|3")
    assert reference.reply("v1", "fizzbuzz", request, 14) == "bad_digit"
    assert reference.reply("v1", "fizzbuzz", request, 13) == "truncated"  # all that the slot holds
    (request,) = reference.frame("fix", FIX_A.replace(b"216", b"000"))
    assert reference.reply("fix", "rot1", request, 32) == "bad_checksum"
    assert reference.reply("fix", "rot1", request, 31) == "oversized"


# What each kind of malformed request must be refused for.
V1_KINDS = {
    "empty": "empty",
    "one_bar": "truncated",
    "cut_in_id": "truncated",
    "cut_before_second_bar": "truncated",
    "cut_in_length": "truncated",
    "cut_before_third_bar": "truncated",
    "no_payload": "truncated",
    "payload_short": "truncated",
    "length_plus_one": "truncated",
    "length_largest": "truncated",
    "no_first_bar": "bad_header",
    "first_bar_blank": "bad_header",
    "second_bar_colon": "bad_header",
    "third_bar_colon": "bad_header",
    "no_second_bar": "bad_header",
    "newline_before": "bad_header",
    "zeros": "bad_header",
    "binary": "bad_header",
    "id_9_digits": "bad_header",
    "length_5_digits": "bad_header",
    "id_7_digits": "bad_digit",
    "id_letter": "bad_digit",
    "id_negative": "bad_digit",
    "id_blank": "bad_digit",
    "id_high_bit": "bad_digit",
    "length_letter": "bad_digit",
    "length_negative": "bad_digit",
    "length_blank": "bad_digit",
    "length_3_digits": "bad_digit",
}
V2_KINDS = {
    "empty": "empty",
    "one_byte": "truncated",
    "cut_in_id": "truncated",
    "cut_late_in_id": "truncated",
    "id_only": "truncated",
    "cut_early_in_length": "truncated",
    "cut_in_length": "truncated",
    "cut_late_in_length": "truncated",
    "no_payload": "truncated",
    "payload_half": "truncated",
    "payload_short": "truncated",
    "length_plus_one": "truncated",
    "length_with_header": "truncated",
    "length_largest": "truncated",
    "length_65536": "bad_length",
    "length_bit_16": "bad_length",
    "length_bit_24": "bad_length",
    "length_bit_31": "bad_length",
    "length_minus_one": "bad_length",
    "length_int_max": "bad_length",
    "length_text": "bad_length",
    "length_blank": "bad_length",
    "length_little_endian": "bad_length",
    "ones": "bad_length",
    "text": "bad_length",
}
# Those that are refused for another reason than most of their schema.
V3_KINDS = {
    "bad_encoding": None,
    "empty": "empty",
    **dict.fromkeys(("half_a_length", "length_only", "cut_in_id", "payload_short"), "truncated"),
    "length_plus_one": "truncated",
    "length_endless": "bad_length",
    "length_65536": "bad_length",
}
V4_KINDS = {
    "bad_encoding": None,
    "empty": "empty",
    **dict.fromkeys(("one_byte", "table_cut", "table_only", "cut_in_id"), "truncated"),
    **dict.fromkeys(("payload_cut", "words_plus_one"), "truncated"),
    "words_most": "bad_length",
    "words_8191": "bad_length",
    "no_segments": "bad_header",
    "nine_segments": "bad_header",
}
FIX_KINDS = {
    "bad_header": None,
    "empty": "empty",
    **dict.fromkeys(
        ("cut_in_begin", "cut_in_length", "cut_in_body", "cut_in_trailer"), "truncated"
    ),
    **dict.fromkeys(("no_trailer", "length_plus_one"), "truncated"),
    **dict.fromkeys(("length_minus_one", "length_zero", "trailer_of_another"), "wrong_length"),
    **dict.fromkeys(("length_65536", "length_9_digits"), "bad_length"),
    **dict.fromkeys(("length_letter", "length_none", "length_negative"), "bad_digit"),
    **dict.fromkeys(("sum_letters", "sum_2_digits"), "bad_digit"),
    **dict.fromkeys(("body_changed", "sum_of_another", "sum_beyond"), "bad_checksum"),
}
IEX_KINDS = {
    "wrong_length": None,
    "empty": "empty",
    **dict.fromkeys(("one_byte", "header_cut", "payload_cut", "header_only"), "truncated"),
    **dict.fromkeys(("payload_plus_one", "payload_most"), "truncated"),
    **dict.fromkeys(("version_2", "version_0", "tops_1_5"), "bad_header"),
    **dict.fromkeys(("protocol_0", "protocol_swapped"), "bad_header"),
}


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [("v3", V3_KINDS), ("v4", V4_KINDS), ("fix", FIX_KINDS), ("iex", IEX_KINDS)],
)
@pytest.mark.parametrize("size", [1, 8, 300])
def test_every_kind_of_malformed_message(schema, kinds, size):
    usual = next(iter(kinds))
    mutations = generate.mutations(schema, "rot1")
    assert len(mutations) >= 20
    assert set(kinds) - {usual} <= set(mutations)
    good = FORMS[schema].good(b"x" * size, 259)
    if schema == "iex":
        good = generate_iex.alone(b"H" + bytes(20 + size), 259, 1)
    assert reasons(schema, good) == [None]
    found = {name: reasons(schema, mutate(good)) for name, mutate in mutations.items()}
    if schema == "iex" and size > 1:
        # It is longer than its type, and may be cut.
        assert found.pop("message_short") == [None]
        assert found.pop("message_of_another") == [None if size > 59 else "wrong_length"]
    assert found == {name: [kinds.get(name, usual)] for name in found}


GOOD = {
    "v1": [b"|00000001|0008|abcdefgh", b"|12345678|0001|z", b"|00000256|0300|" + b"q" * 300],
    "v2": [
        bytes.fromhex("0000000000000001 00000008") + b"abcdefgh",
        bytes.fromhex("0000000000000100 00000001") + b"\0",
        bytes.fromhex("00000000000000ff 0000012c") + bytes(300),
    ],
}


@pytest.mark.parametrize(("schema", "kinds"), [("v1", V1_KINDS), ("v2", V2_KINDS)])
def test_every_kind_of_malformed_request(schema, kinds):
    mutations = generate.mutations(schema, "rot1")
    assert len(mutations) >= 20
    for good in GOOD[schema]:
        assert reasons(schema, good) == [None]
        found = {name: reasons(schema, mutate(good)) for name, mutate in mutations.items()}
        assert found == {name: [reason] for name, reason in kinds.items()}


@pytest.mark.parametrize("schema", ["v1", "v2", "datagram"])
def test_payloads_that_are_no_numbers(schema):
    good = b"15" if schema == "datagram" else GOOD[schema][0]
    mutations = generate.mutations(schema, "fizzbuzz")
    kinds = {name: mutate for name, mutate in mutations.items() if name.startswith("number_")}
    assert len(kinds) == 14
    for name, mutate in kinds.items():
        (request,) = reference.frame(schema, mutate(good))
        assert reference.reply(schema, "fizzbuzz", request) == "bad_payload", name


# ---- IEX -----------------------------------------------------------------------------------------

EVENT = b"\x12\0EO12345678AAPL    "


def segment(*messages: bytes, first: int = 12345, **changed: int) -> bytes:
    """A segment of DEEP; `payload` and `count` can be made wrong."""
    payload = b"".join(messages)
    head = (1, 0, changed.get("protocol", 0x8004), 7, 9, changed.get("payload", len(payload)))
    head += (changed.get("count", len(messages)), 500, first, 0)
    return struct.pack("<BBHIIHHQQQ", *head) + payload


def test_segment_is_a_request_for_each_message():
    requests = reference.frame("iex", segment(EVENT, b"\3\0?ab") + b"behind")
    assert [(r.id, r.payload, r.reason) for r in requests] == [
        (12345, EVENT[2:], None),
        (12346, b"?ab", None),
    ]
    second = struct.pack("<BBHIIHHQQQ", 1, 0, 0x8004, 7, 9, 5, 1, 520, 12346, 0) + b"\3\0?ab"
    assert requests[1].raw == second
    assert reference.reply("iex", "rot1", requests[1]) == second[:-3] + b"?bc"
    assert reference.frame("iex", segment()) == []


@pytest.mark.parametrize(
    ("datagram", "reasons_"),
    [
        (b"", ["empty"]),
        (segment()[:39], ["truncated"]),
        (b"\2" + segment()[1:], ["bad_header"]),
        (segment(protocol=0x8002), ["bad_header"]),
        (segment(EVENT, payload=21), ["truncated"]),
        (segment(EVENT, payload=19), ["wrong_length"]),
        (segment(EVENT, count=0), ["wrong_length"]),
        (segment(EVENT, count=2), ["wrong_length"]),
        (segment(EVENT, b"\0\0", EVENT), [None, "wrong_length", None]),
        (segment(b"\x11\0" + EVENT[2:-1]), ["wrong_length"]),
        (segment(b"\x13\0" + EVENT[2:] + b"+"), [None]),
    ],
)
def test_segments(datagram, reasons_):
    assert reasons("iex", datagram) == reasons_


# ---- FIX, and streams ----------------------------------------------------------------------------

FIX_A = b"8=FIX.4.1\x019=10\x0135=0\x0158=a\x0110=216\x01"
FIX_B = b"8=FIXT.1.1\x019=5\x0135=0\x0110=000\x01"  # a wrong sum


def test_fix_reply_has_its_begin_length_and_sum():
    (request,) = reference.frame("fix", FIX_A)
    assert (request.id, request.payload) == (xxh3_64_intdigest(FIX_A), b"35=0\x0158=a\x01")
    answer = reference.reply("fix", "rot1", request)
    assert answer == b"8=FIX.4.1\x019=10\x0135=0\x0158=b\x0110=217\x01"
    assert reasons("fix", FIX_A + FIX_B + FIX_A) == [None, "bad_checksum", None]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "empty"),
        (b"8=FI", "truncated"),
        (FIX_A[:-1], "truncated"),
        (FIX_A.replace(b"9=10", b"9=11"), "truncated"),
        (FIX_A.replace(b"9=10", b"9=9"), "wrong_length"),
        (FIX_A.replace(b"a\x0110", b"ab10"), "wrong_length"),
        (FIX_A.replace(b"10=216", b"10=2x6"), "bad_digit"),
        (FIX_A.replace(b"10=216", b"10=472"), "bad_checksum"),
        (FIX_A.replace(b"9=10", b"9=1x"), "bad_digit"),
        (FIX_A.replace(b"9=10", b"9="), "bad_digit"),
        (FIX_A.replace(b"9=10", b"9=65536"), "bad_length"),
        (FIX_A.replace(b"9=10", b"9=000000010"), "bad_length"),
        (FIX_A.replace(b"4.1", b"4.x"), "bad_header"),
        (FIX_A[10:], "bad_header"),
    ],
)
def test_fix_rejected(message, reason):
    assert reasons("fix", message) == [reason]


V1 = b"|00000001|0001|a"
V2 = bytes(7) + b"\1" + bytes(3) + b"\1a"


@pytest.mark.parametrize(
    ("schema", "data", "sizes", "rest"),
    [
        ("v1", V1 + V1 + b"|000", [16, 16], 4),
        ("v1", V1 + b"|0000x02|0001|" + V1, [16, -6], 24),
        ("v2", V2 + V2 + bytes(11), [13, 13], 11),
        ("v2", V2 + b"\xff" * 20, [13, -12], 8),
        ("fix", FIX_A + FIX_B + FIX_A[:9], [32, 27], 9),
        ("fix", b"x8=FIX 8=FIX.4.1" + FIX_A + b"\r\n" + FIX_A + FIX_A[:16], [-16, 32, -2, 32], 16),
        ("fix", FIX_A.replace(b"9=10", b"9=25") + FIX_A + FIX_A, [-32, 32, 32], 0),
        ("fix", b"8" * 9000, [-4096, -4096], 808),
    ],
)
def test_stream(schema, data, sizes, rest):
    requests, left = reference.frame_stream(schema, data)
    assert [len(r.raw) if r.framed else -len(r.raw) for r in requests] == sizes
    assert len(left) == rest
    assert b"".join(r.raw for r in requests) + left == data


@pytest.mark.skipif(not FIX.exists(), reason=f"the sample {FIX.name} is not in ../shared/captures")
def test_stream_of_the_fix_capture():
    """A real session, some of it compressed: the messages that tshark 4.0 shows are all found."""
    sides = {}
    with gzip.open(FIX) as file:
        for _, packet in dpkt.pcap.Reader(file):
            tcp = dpkt.ethernet.Ethernet(packet).data.data
            if tcp.data:
                sides.setdefault((tcp.sport, tcp.dport), {})[tcp.seq] = tcp.data
    sums = Counter()
    for pieces in sides.values():
        data = b"".join(pieces[seq] for seq in sorted(pieces))
        requests, rest = reference.frame_stream("fix", data)
        assert b"".join(request.raw for request in requests) + rest == data
        good = [request.raw for request in requests if request.framed]
        assert len(good) == data.count(b"8=FIX.4.1\x01")
        sums.update(raw[-4:-1] for raw in good)
    assert sums == Counter(
        {b"217": 28, b"113": 1, b"116": 1, b"169": 1, b"228": 1, b"235": 1, b"236": 1}
    )
