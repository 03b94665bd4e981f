/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/frame_own.h"

#include "stage/decimal.h"

#include <endian.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { V1_HEADER = 15, V2_HEADER = 12 };

static bool frame_v1(const uint8_t *data, uint32_t length, struct frame *frame)
{
    uint32_t payload;

    if (length < V1_HEADER || data[0] != '|' || data[9] != '|' || data[14] != '|' ||
        !decimal_read_8(data + 1, &frame->id) || !decimal_read_4(data + 10, &payload) ||
        payload > length - V1_HEADER)
        return false;
    frame->length = V1_HEADER + payload;
    return true;
}

static bool frame_v2(const uint8_t *data, uint32_t length, struct frame *frame)
{
    uint32_t payload;

    if (length < V2_HEADER)
        return false;
    memcpy(&frame->id, data, 8);
    memcpy(&payload, data + 8, 4);
    frame->id = be64toh(frame->id);
    payload = be32toh(payload);
    if (payload > FRAME_PAYLOAD_MAX || payload > length - V2_HEADER)
        return false;
    frame->length = V2_HEADER + payload;
    return true;
}

struct frame frame_malformed(const uint8_t *data, uint32_t length)
{
    return (struct frame){.id = XXH3_64bits(data, length), .length = length};
}

/* What is neither a good v1 nor a good v2; apart, so that these pay nothing for it. */
static __attribute__((noinline)) struct frame frame_other(enum config_schema schema,
                                                          const uint8_t *data, uint32_t length)
{
    struct frame frame = {.length = length, .well_formed = true};

    if (schema == SCHEMA_IEX && segment_frame(data, length, &frame.id))
        return frame;
    if (schema == SCHEMA_V3 && v3_measure(data, length, &frame.length) == FRAME_WHOLE) {
        if (!v3_id(data, frame.length, &frame.id))
            frame.id = XXH3_64bits(data, frame.length);
        return frame;
    }
    if (schema == SCHEMA_V4 && v4_measure(data, length, &frame.length) == FRAME_WHOLE) {
        if (!v4_id(data, &frame.id))
            frame.id = XXH3_64bits(data, frame.length);
        return frame;
    }
    if ((schema == SCHEMA_FIX && fix_measure(data, length, &frame.length) == FRAME_WHOLE) ||
        schema == SCHEMA_DATAGRAM) {
        frame.id = XXH3_64bits(data, frame.length);
        return frame;
    }
    return frame_malformed(data, length);
}

struct frame frame_next(enum config_schema schema, const uint8_t *data, uint32_t length)
{
    struct frame frame = {.length = length, .well_formed = true};

    if (schema == SCHEMA_V1 && frame_v1(data, length, &frame))
        return frame;
    if (schema == SCHEMA_V2 && frame_v2(data, length, &frame))
        return frame;
    return frame_other(schema, data, length);
}

/* ---- streams ---- */

static enum frame_state v1_measure(const uint8_t *data, uint32_t length, uint32_t *size)
{
    static const char form[V1_HEADER + 1] = "|########|####|";
    uint32_t payload = 0;

    for (uint32_t i = 0; i < length && i < V1_HEADER; i++) {
        *size = i + 1;
        if (form[i] == '|' ? data[i] != '|' : (uint8_t)(data[i] - '0') > 9)
            return FRAME_BROKEN;
    }
    if (length >= V1_HEADER)
        (void)decimal_read_4(data + 10, &payload);
    *size = V1_HEADER + payload;
    return *size > length ? FRAME_MORE : FRAME_WHOLE;
}

static enum frame_state v2_measure(const uint8_t *data, uint32_t length, uint32_t *size)
{
    uint32_t payload = 0;

    *size = V2_HEADER;
    if (length < V2_HEADER)
        return FRAME_MORE;
    memcpy(&payload, data + 8, 4);
    payload = be32toh(payload);
    if (payload > FRAME_PAYLOAD_MAX)
        return FRAME_BROKEN;
    *size += payload;
    return *size > length ? FRAME_MORE : FRAME_WHOLE;
}

static enum frame_state measure(enum config_schema schema, const uint8_t *data, uint32_t length,
                                uint32_t *size)
{
    switch (schema) {
    case SCHEMA_V1:
        return v1_measure(data, length, size);
    case SCHEMA_V3:
        return v3_measure(data, length, size);
    case SCHEMA_V4:
        return v4_measure(data, length, size);
    case SCHEMA_FIX:
        return fix_stream(data, length, size);
    default:
        return v2_measure(data, length, size);
    }
}

enum frame_state frame_stream(enum config_schema schema, const uint8_t *data, uint32_t length,
                              struct frame *frame)
{
    uint32_t size = 0;
    enum frame_state state = measure(schema, data, length, &size);

    if (state == FRAME_MORE)
        *frame = (struct frame){.length = size};
    else
        *frame = frame_next(schema, data, size);
    return state;
}

bool frame_resyncs(enum config_schema schema)
{
    return schema == SCHEMA_FIX;
}
