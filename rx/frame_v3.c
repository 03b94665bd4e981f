/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v3: a length as varint of at most three bytes, then so many of a protobuf message:
 *
 *   fields: tag varint (field * 8 + type) | value by type: 0 varint, 1 8 bytes, 2 length and bytes, 5 4 bytes
 *
 * The id is field 1 of type 1, the last of it; 0 where there is none.
 */
#include "rx/frame_own.h"

#include <endian.h>
#include <string.h>

enum {
    LENGTH_BYTES_MAX = 3,
    VARINT = 0,
    FIXED_64 = 1,
    BYTES = 2,
    FIXED_32 = 5,
    ID = 1,
    PAYLOAD = 2
};

enum frame_state v3_measure(const uint8_t *data, uint32_t length, uint32_t *size)
{
    uint32_t message = 0;

    for (uint32_t i = 0; i < LENGTH_BYTES_MAX; i++) {
        *size = i + 1;
        if (i == length)
            return FRAME_MORE;
        message |= (uint32_t)(data[i] & 0x7f) << 7 * i;
        if (data[i] < 0x80) {
            if (message > FRAME_PAYLOAD_MAX)
                return FRAME_BROKEN;
            *size += message;
            return *size > length ? FRAME_MORE : FRAME_WHOLE;
        }
    }
    return FRAME_BROKEN;
}

/* Bytes of a varint of at most `most`; 0: it does not end. */
static uint32_t read_varint(const uint8_t *data, uint32_t length, uint32_t most, uint64_t *value)
{
    *value = 0;
    for (uint32_t i = 0; i < length && i < most; i++) {
        *value |= (uint64_t)(data[i] & 0x7f) << 7 * i;
        if (data[i] < 0x80)
            return i + 1;
    }
    return 0;
}

/* Bytes of a value of this type, more than `length` where it is not whole. */
static uint64_t value_bytes(uint32_t type, const uint8_t *data, uint32_t length)
{
    uint64_t value;
    uint32_t used;

    switch (type) {
    case VARINT:
        used = read_varint(data, length, 10, &value);
        return used ? used : UINT64_MAX;
    case FIXED_64:
        return 8;
    case BYTES:
        used = read_varint(data, length, 5, &value);
        return used ? used + value : UINT64_MAX;
    case FIXED_32:
        return 4;
    default:
        return UINT64_MAX;
    }
}

bool v3_id(const uint8_t *data, uint32_t size, uint64_t *id)
{
    uint64_t tag;
    uint32_t at = 0;

    while (data[at++] >= 0x80)
        ;
    *id = 0;
    while (at < size) {
        uint32_t used = read_varint(data + at, size - at, 5, &tag);
        if (used == 0 || data[at] < 8)
            return false;
        at += used;
        uint32_t type = tag & 7, field = (uint32_t)(tag >> 3);
        uint64_t bytes = value_bytes(type, data + at, size - at);
        if (bytes > size - at || (field == ID && type != FIXED_64) ||
            (field == PAYLOAD && type != BYTES))
            return false;
        if (field == ID) {
            memcpy(id, data + at, sizeof(*id));
            *id = le64toh(*id);
        }
        at += (uint32_t)bytes;
    }
    return true;
}
