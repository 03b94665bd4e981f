/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v4, Cap'n Proto (request.capnp) in its stream framing, little-endian:
 *
 *   0 segments - 1 u32 | 4 words of each segment u32 … | to a multiple of 8 | segments
 *
 * A reply is what the library writes for one segment:
 *
 *   0 u32 0 | 4 words | 8 root pointer | 16 id | 24 payload's pointer | 32 payload, to a multiple of 8
 */
#include "worker/schema_v4_capnp.h"

#include "worker/schema_own.h"

#include <endian.h>
#include <string.h>

enum { WORD = 8, MESSAGE_MAX = WORD * (V4_WORDS_MAX - 1), PAYLOAD_MAX = MESSAGE_MAX - V4_HEADER };

static uint32_t read_32(const uint8_t *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof(value));
    return le32toh(value);
}

/* The segments of a message, or a rejection. */
static int read_table(const uint8_t *bytes, uint32_t length, struct v4_segment *segments)
{
    uint64_t words = 0;

    if (length < sizeof(uint32_t))
        return schema_reject(length ? REASON_truncated : REASON_empty);
    uint32_t count = read_32(bytes) + 1, table;
    if (count == 0 || count > V4_SEGMENTS_MAX)
        return schema_reject(REASON_bad_header);
    table = (4 + 4 * count + WORD - 1) / WORD * WORD;
    if (length < table)
        return schema_reject(REASON_truncated);
    for (uint32_t i = 0; i < count; i++) {
        segments[i].words = read_32(bytes + 4 + 4 * i);
        words += segments[i].words;
    }
    if (words * WORD + table > MESSAGE_MAX)
        return schema_reject(REASON_bad_length);
    if (words * WORD + table > length)
        return schema_reject(REASON_truncated);
    for (uint32_t i = 0; i < count; i++) {
        segments[i].data = bytes + table;
        table += segments[i].words * WORD;
    }
    return (int)count;
}

/* Segments must lie at multiples of 8; in a ring's slot they do. */
static const uint8_t *aligned(const uint8_t *bytes, uint32_t length)
{
    static _Alignas(WORD) uint8_t copy[MESSAGE_MAX];

    if ((uintptr_t)bytes % WORD == 0)
        return bytes;
    memcpy(copy, bytes, length < MESSAGE_MAX ? length : MESSAGE_MAX);
    return copy;
}

static int v4_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    struct v4_segment segments[V4_SEGMENTS_MAX];
    struct v4_request request;

    int count = read_table(aligned(bytes, length), length, segments);
    if (count < 0)
        return count;
    /* The root stands in the first segment, where rx has seen its id. */
    if (segments[0].words == 0 || (segments[0].data[0] & 3) != 0 ||
        !v4_read(segments, (uint32_t)count, &request))
        return schema_reject(REASON_bad_encoding);
    *message = (struct message){
        .id = request.id,
        .payload = request.payload,
        .length = request.length,
    };
    return 0;
}

static int v4_serialise(uint8_t *out, uint32_t capacity, const struct message *request,
                        uint32_t length)
{
    uint32_t padded = (length + WORD - 1) / WORD * WORD;

    if (V4_HEADER + padded > capacity)
        return schema_reject(REASON_reply_too_big);
    uint32_t words = htole32(v4_write(out + WORD, request->id, out + V4_HEADER, length));
    memset(out, 0, sizeof(uint32_t));
    memcpy(out + sizeof(uint32_t), &words, sizeof(words));
    return (int)(WORD + WORD * le32toh(words));
}

const struct schema schema_v4 = {"v4", V4_HEADER, PAYLOAD_MAX, v4_parse, v4_serialise};
