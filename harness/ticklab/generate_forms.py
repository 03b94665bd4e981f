# SPDX-License-Identifier: Apache-2.0
"""How requests of each schema are written, and how each is broken, for generate.py.

A form writes requests with payloads of one size: what stands in front of the payload and what
behind it, a row each. Its kinds of malformed request turn a good request (with a payload that is
not empty) into one datagram that is refused; which reason that is says the reference.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ticklab import reference, reference_v3, reference_v4
from ticklab.generate_iex import KINDS as IEX_KINDS

Kinds = dict[str, Callable[[bytes], bytes]]


def digits(numbers: np.ndarray, width: int, base: int) -> np.ndarray:
    """The last `width` digits to the base; i64, shape (len(numbers), width)."""
    return numbers[:, None] // base ** np.arange(width - 1, -1, -1) % base


def _nothing(ids: np.ndarray, size: int) -> np.ndarray:
    return np.empty((len(ids), 0), np.uint8)


@dataclass(frozen=True)
class Form:
    """`head` and `tail` take the ids (i64) and the payload's size; u8, a row for each id.

    `tail` is given the rows in front of it too. `most`: bytes of head and tail together at most.
    `wrap` puts another payload into a good request;
    None: payloads have a form of their own.
    """

    most: int
    kinds: Kinds
    head: Callable[[np.ndarray, int], np.ndarray] = _nothing
    tail: Callable[[np.ndarray, int], np.ndarray] | None = None
    wrap: Callable[[bytes, bytes], bytes] | None = None

    def rows(self, ids: np.ndarray, payload: np.ndarray) -> np.ndarray:
        """Whole requests; `payload` and the answer u8, a row each."""
        size = payload.shape[1]
        front = np.hstack((self.head(ids, size), payload))
        return front if self.tail is None else np.hstack((front, self.tail(front, size)))

    def good(self, payload: bytes, number: int = 1) -> bytes:
        """One good request."""
        row = np.frombuffer(payload, np.uint8).reshape(1, -1)
        return self.rows(np.array([number]), row).tobytes()


# ---- v1 -----------------------------------------------------------------------------------------


def _v1_head(ids: np.ndarray, size: int) -> np.ndarray:
    head = np.full((len(ids), reference.V1_HEADER_BYTES), ord("|"), np.uint8)
    head[:, 1:9] = digits(ids, 8, 10) + ord("0")
    head[:, 10:14] = digits(np.full(len(ids), size), 4, 10) + ord("0")
    return head


# ---- v2 -----------------------------------------------------------------------------------------


def _v2_head(ids: np.ndarray, size: int) -> np.ndarray:
    head = np.empty(len(ids), [("id", ">u8"), ("length", ">u4")])
    head["id"], head["length"] = ids, size
    return head.view(np.uint8).reshape(len(ids), -1)


# Good ones read |iiiiiiii|nnnn|payload (v1) and iiiiiiiinnnnpayload (v2).
def _v1_length(good: bytes, length: bytes) -> bytes:
    return good[:10] + length + good[14:]


def _v2_length(good: bytes, length: int) -> bytes:
    return good[:8] + length.to_bytes(4, "big") + good[12:]


_V1_KINDS: Kinds = {
    "empty": lambda good: b"",
    "one_bar": lambda good: good[:1],
    "cut_in_id": lambda good: good[:5],
    "cut_before_second_bar": lambda good: good[:9],
    "cut_in_length": lambda good: good[:12],
    "cut_before_third_bar": lambda good: good[:14],
    "no_payload": lambda good: good[:15],
    "payload_short": lambda good: good[:-1],
    "length_plus_one": lambda good: _v1_length(good, b"%04d" % (len(good) - 15 + 1)),
    "length_largest": lambda good: _v1_length(good, b"9999"),
    "no_first_bar": lambda good: good[1:],
    "first_bar_blank": lambda good: b" " + good[1:],
    "second_bar_colon": lambda good: good[:9] + b":" + good[10:],
    "third_bar_colon": lambda good: good[:14] + b":" + good[15:],
    "no_second_bar": lambda good: good[:9] + good[10:],
    "newline_before": lambda good: b"\r\n" + good,
    "zeros": lambda good: bytes(len(good)),
    "binary": lambda good: reference.V2_HEADER.pack(int(good[1:9]), len(good) - 15) + good[15:],
    "id_9_digits": lambda good: b"|0" + good[1:],
    "id_7_digits": lambda good: good[:1] + good[2:],
    "id_letter": lambda good: good[:4] + b"x" + good[5:],
    "id_negative": lambda good: b"|-" + good[2:],
    "id_blank": lambda good: b"|" + b" " * 8 + good[9:],
    "id_high_bit": lambda good: good[:8] + bytes([good[8] | 0x80]) + good[9:],
    "length_letter": lambda good: _v1_length(good, good[10:13] + b"x"),
    "length_negative": lambda good: _v1_length(good, b"-001"),
    "length_blank": lambda good: _v1_length(good, b"   1"),
    "length_3_digits": lambda good: good[:10] + good[11:],
    "length_5_digits": lambda good: good[:10] + b"0" + good[10:],
}

_V2_KINDS: Kinds = {
    "empty": lambda good: b"",
    "one_byte": lambda good: good[:1],
    "cut_in_id": lambda good: good[:4],
    "cut_late_in_id": lambda good: good[:7],
    "id_only": lambda good: good[:8],
    "cut_early_in_length": lambda good: good[:9],
    "cut_in_length": lambda good: good[:10],
    "cut_late_in_length": lambda good: good[:11],
    "no_payload": lambda good: good[:12],
    "payload_half": lambda good: good[: 12 + (len(good) - 12) // 2],
    "payload_short": lambda good: good[:-1],
    "length_plus_one": lambda good: _v2_length(good, len(good) - 12 + 1),
    "length_with_header": lambda good: _v2_length(good, len(good)),
    "length_largest": lambda good: _v2_length(good, 65535),
    "length_65536": lambda good: _v2_length(good, 65536),
    "length_bit_16": lambda good: _v2_length(good, len(good) - 12 | 1 << 16),
    "length_bit_24": lambda good: _v2_length(good, len(good) - 12 | 1 << 24),
    "length_bit_31": lambda good: _v2_length(good, len(good) - 12 | 1 << 31),
    "length_minus_one": lambda good: _v2_length(good, 2**32 - 1),
    "length_int_max": lambda good: _v2_length(good, 2**31 - 1),
    "length_text": lambda good: good[:8] + b"0008" + good[12:],
    "length_blank": lambda good: good[:8] + b"    " + good[12:],
    "length_little_endian": lambda good: good[:8] + good[11:7:-1] + good[12:],
    "ones": lambda good: b"\xff" * len(good),
    "text": lambda good: b"|%08d|0008|abcdefgh" % (int.from_bytes(good[:8], "big") % 10**8),
}


# ---- v3 -----------------------------------------------------------------------------------------


def _beside(ids: np.ndarray, before: bytes, numbers: np.ndarray, behind: bytes) -> np.ndarray:
    """Rows of fixed bytes with a little-endian u64 between."""
    out = np.empty((len(ids), len(before) + 8 + len(behind)), np.uint8)
    out[:, : len(before)] = np.frombuffer(before, np.uint8)
    out[:, len(before) : len(before) + 8] = numbers.astype("<u8").view(np.uint8).reshape(-1, 8)
    out[:, len(before) + 8 :] = np.frombuffer(behind, np.uint8)
    return out


def _v3_head(ids: np.ndarray, size: int) -> np.ndarray:
    inner = b"\x12" + reference_v3.varint(size) if size else b""
    return _beside(ids, reference_v3.varint(9 + len(inner) + size) + b"\x09", ids, inner)


def _v3_message(good: bytes) -> bytes:
    """Without its length."""
    return good[next(at for at, byte in enumerate(good) if byte < 128) + 1 :]


def _v3(message: bytes, more: int = 0) -> bytes:
    """With a length that is so much greater."""
    return reference_v3.varint(len(message) + more) + message


def _v3_kind(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A change of the message, which then has its right length."""
    return lambda good: _v3(change(_v3_message(good)))


# Good ones read length, 09 iiiiiiii, 12 n payload.
_V3_KINDS: Kinds = {
    "empty": lambda good: b"",
    "half_a_length": lambda good: b"\x80",
    "length_only": lambda good: _v3(b"", 20),
    "cut_in_id": lambda good: good[:6],
    "payload_short": lambda good: good[:-1],
    "length_plus_one": lambda good: _v3(_v3_message(good), 1),
    "length_endless": lambda good: b"\xff\xff\xff" + good,
    "length_65536": lambda good: b"\x80\x80\x04" + good,
    "id_cut": _v3_kind(lambda message: message[:5]),
    "id_varint": _v3_kind(lambda message: b"\x08\x01" + message[9:]),
    "id_bytes": _v3_kind(lambda message: b"\x0a\x01x" + message[9:]),
    "id_fixed32": _v3_kind(lambda message: b"\x0dabcd" + message[9:]),
    "payload_varint": _v3_kind(lambda message: message[:9] + b"\x10\x01"),
    "payload_fixed64": _v3_kind(lambda message: message[:9] + b"\x11abcdefgh"),
    "payload_cut": _v3_kind(lambda message: message[:-1]),
    "payload_endless": _v3_kind(lambda message: message[:9] + b"\x12" + b"\xff" * 5),
    "payload_without_length": _v3_kind(lambda message: message[:10]),
    "field_0": _v3_kind(lambda message: message + b"\0\0"),
    "group": _v3_kind(lambda message: message + b"\x1b\x1c"),
    "type_7": _v3_kind(lambda message: message + b"\x1f"),
    "unknown_cut": _v3_kind(lambda message: message + b"\x1d\1\2\3"),
    "tag_endless": _v3_kind(lambda message: message + b"\xf8" * 6),
    "varint_endless": _v3_kind(lambda message: message + b"\x18" + b"\xff" * 11),
}


# ---- v4 -----------------------------------------------------------------------------------------


def _v4_head(ids: np.ndarray, size: int) -> np.ndarray:
    words = 3 + -(-size // 8)
    before = struct.pack("<IIIHH", 0, words, 0, 1, 1)
    return _beside(ids, before, ids, struct.pack("<II", 1, size << 3 | 2))


def _v4_tail(front: np.ndarray, size: int) -> np.ndarray:
    return np.zeros((len(front), -size % 8), np.uint8)


def _v4_root(good: bytes, low: int, data: int = 1, pointers: int = 1) -> bytes:
    return good[:8] + struct.pack("<IHH", low, data, pointers) + good[16:]


def _v4_pointer(good: bytes, low: int, high: int | None = None) -> bytes:
    size = int.from_bytes(good[28:32], "little")
    return good[:24] + struct.pack("<II", low, size if high is None else high) + good[32:]


# Good ones read 0, words, root, iiiiiiii, pointer, payload to a multiple of 8.
_V4_KINDS: Kinds = {
    "empty": lambda good: b"",
    "one_byte": lambda good: good[:1],
    "table_cut": lambda good: good[:6],
    "table_only": lambda good: good[:8],
    "cut_in_id": lambda good: good[:20],
    "payload_cut": lambda good: good[:-1],
    "words_plus_one": lambda good: good[:4] + struct.pack("<I", len(good) // 8) + good[8:],
    "words_most": lambda good: good[:4] + b"\xff" * 4 + good[8:],
    "words_8191": lambda good: good[:4] + struct.pack("<I", 8191) + good[8:],
    "no_segments": lambda good: b"\xff" * 4 + good[4:],
    "nine_segments": lambda good: b"\x08" + good[1:],
    "root_list": lambda good: _v4_root(good, 1),
    "root_far": lambda good: _v4_root(good, 2),
    "root_other": lambda good: _v4_root(good, 3),
    "root_behind": lambda good: _v4_root(good, len(good) << 2),
    "root_before": lambda good: _v4_root(good, -2 << 2 & 0xFFFFFFFF),
    "root_long": lambda good: _v4_root(good, 0, 60000),
    "root_pointers": lambda good: _v4_root(good, 0, 1, 60000),
    "payload_struct": lambda good: _v4_pointer(good, 0),
    "payload_other": lambda good: _v4_pointer(good, 3),
    "payload_bits": lambda good: _v4_pointer(good, 1, 8 << 3 | 1),
    "payload_words": lambda good: _v4_pointer(good, 1, 1 << 3 | 5),
    "payload_long": lambda good: _v4_pointer(good, 1, 1 << 30 | 2),
    "payload_before": lambda good: _v4_pointer(good, -9 << 2 & 0xFFFFFFFF | 1),
    "payload_behind": lambda good: _v4_pointer(good, len(good) << 2 | 1),
    "far_to_no_segment": lambda good: _v4_pointer(good, 2, 1),
    "far_behind": lambda good: _v4_pointer(good, len(good) << 3 | 2, 0),
    "far_to_itself": lambda good: _v4_pointer(good, 2 << 3 | 2, 0),
    "far_double": lambda good: _v4_pointer(good, 2 << 3 | 6, 0),
}


# ---- FIX ----------------------------------------------------------------------------------------

_FIX_BODY = b"35=1\x0149=CLIENT\x0156=TICKLINE\x0134=%08d\x0152=20231114-22:13:20\x01112="
_FIX_BODY_BYTES = len(_FIX_BODY % 0)


def _fix_head(ids: np.ndarray, size: int) -> np.ndarray:
    """A test request; its payload is the text that the other side is to send back."""
    begin = b"8=FIX.4.4\x019=%d\x01" % (_FIX_BODY_BYTES + size + 1)
    head = np.empty((len(ids), len(begin) + _FIX_BODY_BYTES), np.uint8)
    head[:] = np.frombuffer(begin + _FIX_BODY % 0, np.uint8)
    at = len(begin) + _FIX_BODY.index(b"%")
    head[:, at : at + 8] = digits(ids, 8, 10) + ord("0")
    return head


def _fix_tail(front: np.ndarray, size: int) -> np.ndarray:
    tail = np.empty((len(front), 8), np.uint8)
    tail[:] = np.frombuffer(b"\x0110=000\x01", np.uint8)
    sums = (front.sum(axis=1, dtype=np.int64) + 1) % 256
    tail[:, 4:7] = digits(sums, 3, 10) + ord("0")
    return tail


def _fix_length(good: bytes, more: int) -> bytes:
    """With another BodyLength."""
    begin, length, rest = good.split(b"\x01", 2)
    return begin + b"\x019=%d\x01" % (int(length[2:]) + more) + rest


_FIX_KINDS: Kinds = {
    "empty": lambda good: b"",
    "cut_in_begin": lambda good: good[:5],
    "cut_in_length": lambda good: good[:13],
    "cut_in_body": lambda good: good[:40],
    "cut_in_trailer": lambda good: good[:-1],
    "no_trailer": lambda good: good[:-7],
    "length_plus_one": lambda good: _fix_length(good, 1),
    "length_minus_one": lambda good: _fix_length(good, -1),
    "length_zero": lambda good: _fix_length(good, -int(good.split(b"\x01")[1][2:])),
    "length_65536": lambda good: good.replace(b"\x019=", b"\x019=65536\x01", 1),
    "length_9_digits": lambda good: good.replace(b"\x019=", b"\x019=0000000", 1),
    "length_letter": lambda good: good.replace(b"\x019=", b"\x019=x", 1),
    "length_none": lambda good: good.replace(b"\x019=", b"\x019=\x01", 1),
    "length_negative": lambda good: good.replace(b"\x019=", b"\x019=-", 1),
    "no_begin": lambda good: good.split(b"\x01", 1)[1],
    "begin_of_another": lambda good: b"8=FIXCOMP" + good[9:],
    "begin_second": lambda good: b"35=1\x01" + good,
    "length_third": lambda good: good.replace(b"\x019=", b"\x0135=1\x019=", 1),
    "pipes": lambda good: good.replace(b"\x01", b"|"),
    "newline_before": lambda good: b"\r\n" + good,
    "body_changed": lambda good: good.replace(b"49=C", b"49=D", 1),
    "sum_of_another": lambda good: good[:-4] + b"%03d\x01" % ((sum(good[:-7]) + 1) % 256),
    "sum_beyond": lambda good: good[:-4] + b"999\x01",
    "sum_letters": lambda good: good[:-4] + b"abc\x01",
    "sum_2_digits": lambda good: good[:-4] + b"1\x01\x01\x01",
    "trailer_of_another": lambda good: good[:-7] + b"11=" + good[-4:],
}


# ---- all ----------------------------------------------------------------------------------------


def _number(little: bytes) -> int:
    return int.from_bytes(little, "little")


FORMS = {
    "v1": Form(
        most=15,
        kinds=_V1_KINDS,
        head=_v1_head,
        wrap=lambda good, payload: b"%b%04d|%b" % (good[:10], len(payload), payload),
    ),
    "v2": Form(
        most=12,
        kinds=_V2_KINDS,
        head=_v2_head,
        wrap=lambda good, payload: good[:8] + len(payload).to_bytes(4, "big") + payload,
    ),
    "v3": Form(
        most=16,
        kinds=_V3_KINDS,
        head=_v3_head,
        wrap=lambda good, payload: reference_v3.encode(_number(_v3_message(good)[1:9]), payload),
    ),
    "v4": Form(
        most=39,
        kinds=_V4_KINDS,
        head=_v4_head,
        tail=_v4_tail,
        wrap=lambda good, payload: reference_v4.encode(_number(good[16:24]), payload),
    ),
    "fix": Form(
        most=18 + _FIX_BODY_BYTES + 8,
        kinds=_FIX_KINDS,
        head=_fix_head,
        tail=_fix_tail,
    ),
    "iex": Form(most=0, kinds=IEX_KINDS),
    "datagram": Form(most=0, kinds={}, wrap=lambda good, payload: payload),
}
