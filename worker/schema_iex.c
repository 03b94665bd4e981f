/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IEX-TP 1 with the messages of TOPS 1.6 and DEEP 1.0, little-endian ("IEX Transport Specification" 1.25,
 * "IEX TOPS Specification" 1.6, "IEX DEEP Specification" 1.0): a segment of one message, which rx makes of
 * each message of a segment.
 *
 *   0 version u8 = 1 | 1 reserved | 2 protocol u16 | 4 channel u32 | 8 session u32
 *   12 payload bytes u16 | 14 messages u16 = 1 | 16 stream offset u64 | 24 sequence number u64
 *   32 send time u64 | 40 message bytes u16 | 42 message: type u8, the rest by type
 *
 * The payload is the message; a reply has the header of its request. A message of a known type must have
 * the bytes of that type at least (the specifications let messages grow at their end); what is of an
 * unknown type passes as it is.
 */
#include "worker/schema_own.h"

#include <endian.h>
#include <string.h>

enum {
    VERSION = 1,
    PROTOCOL_AT = 2,
    PAYLOAD_AT = 12,
    COUNT_AT = 14,
    SEQUENCE_AT = 24,
    SEGMENT_HEADER = 40,
    IEX_HEADER = 42,
    PAYLOAD_MAX = 65535 - IEX_HEADER,
    TOPS_1_6 = 0x8003,
    DEEP_1_0 = 0x8004,
};

/* Bytes of a message by its type. */
static const uint8_t type_bytes[256] = {
    ['S'] = 10, /* system event */
    ['D'] = 31, /* security directory */
    ['H'] = 22, /* trading status */
    ['O'] = 18, /* operational halt status */
    ['P'] = 19, /* short sale price test status */
    ['E'] = 18, /* security event (DEEP) */
    ['Q'] = 42, /* quote update (TOPS) */
    ['8'] = 30, /* price level update, buy side (DEEP) */
    ['5'] = 30, /* price level update, sell side (DEEP) */
    ['T'] = 38, /* trade report */
    ['X'] = 26, /* official price */
    ['B'] = 38, /* trade break */
    ['A'] = 80, /* auction information */
};

static uint32_t read_16(const uint8_t *bytes)
{
    return (uint32_t)(bytes[0] | bytes[1] << 8);
}

/* Do the messages of the segment fill it? */
static bool is_filled(const uint8_t *bytes, uint32_t length)
{
    uint32_t at = SEGMENT_HEADER, left = read_16(bytes + COUNT_AT);

    while (left > 0 && length - at >= 2 && read_16(bytes + at) <= length - at - 2) {
        at += 2 + read_16(bytes + at);
        left--;
    }
    return left == 0 && at == length;
}

static int iex_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    uint64_t sequence;

    if (length < SEGMENT_HEADER)
        return schema_reject(length ? REASON_truncated : REASON_empty);
    uint32_t protocol = read_16(bytes + PROTOCOL_AT), payload = read_16(bytes + PAYLOAD_AT);
    if (bytes[0] != VERSION || (protocol != TOPS_1_6 && protocol != DEEP_1_0))
        return schema_reject(REASON_bad_header);
    if (payload > length - SEGMENT_HEADER)
        return schema_reject(REASON_truncated);
    if (!is_filled(bytes, SEGMENT_HEADER + payload) || read_16(bytes + COUNT_AT) != 1)
        return schema_reject(REASON_wrong_length);
    uint32_t size = payload - 2;
    if (size == 0 || size < type_bytes[bytes[IEX_HEADER]])
        return schema_reject(REASON_wrong_length);
    memcpy(&sequence, bytes + SEQUENCE_AT, sizeof(sequence));
    *message = (struct message){
        .id = le64toh(sequence),
        .payload = bytes + IEX_HEADER,
        .length = size,
        .whole = bytes,
    };
    return 0;
}

static int iex_serialise(uint8_t *out, uint32_t capacity, const struct message *request,
                         uint32_t length)
{
    static const uint8_t deep[SEGMENT_HEADER] = {
        VERSION, 0, DEEP_1_0 & 0xff, DEEP_1_0 >> 8, 1, 0, 0, 0, 1, [COUNT_AT] = 1,
    };
    uint64_t sequence = htole64(request->id);
    uint16_t size = htole16((uint16_t)length), payload = htole16((uint16_t)(length + 2));

    (void)capacity;
    memcpy(out, request->whole ? request->whole : deep, SEGMENT_HEADER);
    memcpy(out + PAYLOAD_AT, &payload, sizeof(payload));
    memcpy(out + SEQUENCE_AT, &sequence, sizeof(sequence));
    memcpy(out + SEGMENT_HEADER, &size, sizeof(size));
    return (int)(IEX_HEADER + length);
}

const struct schema schema_iex = {"iex", IEX_HEADER, PAYLOAD_MAX, iex_parse, iex_serialise};
