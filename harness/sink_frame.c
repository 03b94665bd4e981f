/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "sink_frame.h"

#include <endian.h>
#include <string.h>

enum {
    V1_HEADER = 15,
    V1_LENGTH_AT = 10,
    V1_LENGTH_DIGITS = 4,
    V2_HEADER = 12,
    V2_LENGTH_AT = 8,
    V4_SEGMENTS_MAX = 512,
    FIX_BEGIN_MAX = 24, /* bytes up to the body */
    FIX_TRAILER = 7,
};

static int32_t bounded(uint64_t length)
{
    return length > FRAME_MAX ? FRAME_NONE : (int32_t)length;
}

/* Reads digits up to `end`; false where there is anything else, or none. */
static int digits(const uint8_t *data, size_t begin, size_t end, uint64_t *value)
{
    *value = 0;
    for (size_t i = begin; i < end; i++) {
        if (data[i] < '0' || data[i] > '9')
            return 0;
        *value = *value * 10 + (uint64_t)(data[i] - '0');
    }
    return end > begin;
}

static int32_t length_v1(const uint8_t *data, size_t length)
{
    uint64_t payload;

    if (length > 0 && data[0] != '|')
        return FRAME_NONE;
    if (length < V1_HEADER)
        return 0;
    if (!digits(data, V1_LENGTH_AT, V1_LENGTH_AT + V1_LENGTH_DIGITS, &payload))
        return FRAME_NONE;
    return bounded(V1_HEADER + payload);
}

static int32_t length_v2(const uint8_t *data, size_t length)
{
    uint32_t payload;

    if (length < V2_HEADER)
        return 0;
    memcpy(&payload, data + V2_LENGTH_AT, sizeof payload);
    return bounded(V2_HEADER + (uint64_t)be32toh(payload));
}

static int32_t length_v3(const uint8_t *data, size_t length)
{
    uint64_t payload = 0;

    for (size_t i = 0; i < length; i++) {
        payload |= (uint64_t)(data[i] & 0x7f) << (7 * i);
        if (data[i] < 0x80)
            return bounded(i + 1 + payload);
        if (i == 3)
            return FRAME_NONE;
    }
    return 0;
}

static int32_t length_v4(const uint8_t *data, size_t length)
{
    uint32_t segments, words;
    uint64_t total;

    if (length < sizeof segments)
        return 0;
    memcpy(&segments, data, sizeof segments);
    segments = le32toh(segments);
    if (segments >= V4_SEGMENTS_MAX)
        return FRAME_NONE;
    size_t header = (sizeof segments + 4 * ((size_t)segments + 1) + 7) / 8 * 8;
    if (length < header)
        return 0;
    total = header;
    for (uint32_t i = 0; i <= segments; i++) {
        memcpy(&words, data + 4 + 4 * (size_t)i, sizeof words);
        total += 8 * (uint64_t)le32toh(words);
    }
    return bounded(total);
}

static int32_t length_fix(const uint8_t *data, size_t length)
{
    size_t seen = length < FIX_BEGIN_MAX ? length : FIX_BEGIN_MAX;
    const uint8_t *first = memchr(data, '\1', seen);
    uint64_t body;

    if (memcmp(data, "8=", length < 2 ? length : 2) != 0)
        return FRAME_NONE;
    if (!first)
        return length < FIX_BEGIN_MAX ? 0 : FRAME_NONE;
    size_t at = (size_t)(first - data) + 1;
    const uint8_t *second = memchr(data + at, '\1', seen - at);
    if (!second)
        return length < FIX_BEGIN_MAX ? 0 : FRAME_NONE;
    size_t end = (size_t)(second - data);
    if (end < at + 2 || memcmp(data + at, "9=", 2) != 0 || !digits(data, at + 2, end, &body))
        return FRAME_NONE;
    return bounded(end + 1 + body + FIX_TRAILER);
}

frame_length *frame_of(const char *schema)
{
    static const struct {
        const char *name;
        frame_length *length;
    } forms[] = {{"v1", length_v1},
                 {"v2", length_v2},
                 {"v3", length_v3},
                 {"v4", length_v4},
                 {"fix", length_fix}};

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(schema, forms[i].name) == 0)
            return forms[i].length;
    return NULL;
}
