/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IEX-TP, little-endian ("IEX Transport Specification" 1.25, outbound segment):
 *
 *   0 version u8 = 1 | 1 reserved | 2 protocol u16 | 4 channel u32 | 8 session u32
 *   12 payload bytes u16 | 14 messages u16 | 16 stream offset u64 | 24 first sequence number u64
 *   32 send time u64 | 40 messages: length u16, bytes
 *
 * A segment is believed as a whole: its messages fill its payload to the last byte, or all of it is
 * malformed. What the datagram has behind it does not belong to it.
 */
#include "rx/frame_own.h"

#include <endian.h>
#include <string.h>

enum {
    VERSION = 1,
    PROTOCOL_AT = 2,
    CHANNEL_AT = 4,
    SESSION_AT = 8,
    PAYLOAD_AT = 12,
    COUNT_AT = 14,
    OFFSET_AT = 16,
    FIRST_AT = 24,
    TOPS_1_6 = 0x8003,
    DEEP_1_0 = 0x8004,
};

static uint32_t read_16(const uint8_t *data)
{
    return (uint32_t)(data[0] | data[1] << 8);
}

static uint32_t read_32(const uint8_t *data)
{
    uint32_t value;

    memcpy(&value, data, sizeof(value));
    return le32toh(value);
}

static uint64_t read_64(const uint8_t *data)
{
    uint64_t value;

    memcpy(&value, data, sizeof(value));
    return le64toh(value);
}

static void write_64(uint8_t *data, uint64_t value)
{
    value = htole64(value);
    memcpy(data, &value, sizeof(value));
}

uint32_t segment_message_bytes(const uint8_t *message)
{
    return 2 + read_16(message);
}

static bool are_whole(const uint8_t *data, uint32_t length, uint32_t count)
{
    uint32_t at = SEGMENT_HEADER;

    for (; count > 0 && at + 2 <= length; count--)
        at += segment_message_bytes(data + at);
    return count == 0 && at == length;
}

bool segment_read(const uint8_t *data, uint32_t length, struct segment *segment)
{
    if (length < SEGMENT_HEADER || data[0] != VERSION ||
        read_16(data + PAYLOAD_AT) > length - SEGMENT_HEADER)
        return false;
    *segment = (struct segment){
        .first = read_64(data + FIRST_AT),
        .channel = read_32(data + CHANNEL_AT),
        .session = read_32(data + SESSION_AT),
        .protocol = (uint16_t)read_16(data + PROTOCOL_AT),
        .count = (uint16_t)read_16(data + COUNT_AT),
    };
    return (segment->protocol == TOPS_1_6 || segment->protocol == DEEP_1_0) &&
           are_whole(data, SEGMENT_HEADER + read_16(data + PAYLOAD_AT), segment->count);
}

uint32_t segment_alone(const uint8_t *data, uint32_t offset, uint64_t sequence, uint8_t *out)
{
    uint32_t length = segment_message_bytes(data + offset);

    memcpy(out, data, SEGMENT_HEADER);
    out[PAYLOAD_AT] = (uint8_t)length;
    out[PAYLOAD_AT + 1] = (uint8_t)(length >> 8);
    out[COUNT_AT] = 1;
    out[COUNT_AT + 1] = 0;
    write_64(out + OFFSET_AT, read_64(data + OFFSET_AT) + (offset - SEGMENT_HEADER));
    write_64(out + FIRST_AT, sequence);
    memcpy(out + SEGMENT_HEADER, data + offset, length);
    return SEGMENT_HEADER + length;
}

bool segment_frame(const uint8_t *data, uint32_t length, uint64_t *id)
{
    struct segment segment;

    if (!segment_read(data, length, &segment) || segment.count != 1)
        return false;
    *id = segment.first;
    return true;
}
