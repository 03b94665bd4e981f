/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v4: Cap'n Proto's stream framing, little-endian:
 *
 *   0 segments - 1 u32 | 4 words of each segment u32 … | to a multiple of 8 | segments, of words of 8 bytes
 *
 * The first word is the root pointer: bits 0-1 kind (0: struct), 2-31 words from behind it to the struct,
 * 32-47 words of data, 48-63 pointers. The id is the first word of the data, 0 where there is none.
 */
#include "rx/frame_own.h"

#include <endian.h>
#include <string.h>

enum { WORD = 8, SEGMENTS_MAX = 8, MESSAGE_MAX = 65528 };

static uint32_t read_32(const uint8_t *data)
{
    uint32_t value;

    memcpy(&value, data, sizeof(value));
    return le32toh(value);
}

static uint32_t table_bytes(uint32_t segments)
{
    return (4 + 4 * segments + WORD - 1) / WORD * WORD;
}

enum frame_state v4_measure(const uint8_t *data, uint32_t length, uint32_t *size)
{
    uint64_t words = 0;

    *size = 4;
    if (length < *size)
        return FRAME_MORE;
    uint32_t segments = read_32(data) + 1;
    if (segments == 0 || segments > SEGMENTS_MAX)
        return FRAME_BROKEN;
    *size = table_bytes(segments);
    if (length < *size)
        return FRAME_MORE;
    for (uint32_t i = 0; i < segments; i++)
        words += read_32(data + 4 + 4 * i);
    if (words * WORD + *size > MESSAGE_MAX)
        return FRAME_BROKEN;
    *size += (uint32_t)words * WORD;
    return length < *size ? FRAME_MORE : FRAME_WHOLE;
}

bool v4_id(const uint8_t *data, uint64_t *id)
{
    uint32_t begin = table_bytes(read_32(data) + 1), words = read_32(data + 4);
    uint32_t low, high;

    *id = 0;
    if (words == 0)
        return false;
    low = read_32(data + begin);
    high = read_32(data + begin + 4);
    if ((low & 3) != 0)
        return false;
    int64_t at = 1 + (int64_t)((int32_t)low >> 2);
    uint32_t content = (high & 0xffff) + (high >> 16);
    if (content == 0)
        return true;
    if (at < 0 || at + content > words)
        return false;
    if ((high & 0xffff) > 0) {
        memcpy(id, data + begin + WORD * at, sizeof(*id));
        *id = le64toh(*id);
    }
    return true;
}
