/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/frame.h"

#include "stage/decimal.h"

#include <endian.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { V1_HEADER = 15, V2_HEADER = 12, PAYLOAD_MAX = 65535 };

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
    if (payload > PAYLOAD_MAX || payload > length - V2_HEADER)
        return false;
    frame->length = V2_HEADER + payload;
    return true;
}

struct frame frame_next(enum config_schema schema, const uint8_t *data, uint32_t length)
{
    struct frame frame = {.length = length, .well_formed = true};

    if (schema == SCHEMA_V1 && frame_v1(data, length, &frame))
        return frame;
    if (schema == SCHEMA_V2 && frame_v2(data, length, &frame))
        return frame;
    return (struct frame){
        .id = XXH3_64bits(data, length),
        .length = length,
        .well_formed = schema == SCHEMA_DATAGRAM,
    };
}

/* ---- streams ---- */

/* Bytes that the request at `data` takes, 0: it is none; where its header is not whole, those of the
 * header. */
static uint32_t needed_v1(const uint8_t *data, uint32_t length)
{
    static const char form[V1_HEADER + 1] = "|########|####|";
    uint32_t payload;

    for (uint32_t i = 0; i < length && i < V1_HEADER; i++) {
        if (form[i] == '|' ? data[i] != '|' : (uint8_t)(data[i] - '0') > 9)
            return 0;
    }
    return length >= V1_HEADER && decimal_read_4(data + 10, &payload) ? V1_HEADER + payload
                                                                      : V1_HEADER;
}

static uint32_t needed_v2(const uint8_t *data, uint32_t length)
{
    uint32_t payload;

    if (length < V2_HEADER)
        return V2_HEADER;
    memcpy(&payload, data + 8, 4);
    payload = be32toh(payload);
    return payload > PAYLOAD_MAX ? 0 : V2_HEADER + payload;
}

enum frame_state frame_stream(enum config_schema schema, const uint8_t *data, uint32_t length,
                              struct frame *frame)
{
    uint32_t needed = schema == SCHEMA_V1 ? needed_v1(data, length) : needed_v2(data, length);

    if (needed > length) {
        *frame = (struct frame){.length = needed};
        return FRAME_MORE;
    }
    *frame = frame_next(schema, data, needed ? needed : length);
    return frame->well_formed ? FRAME_WHOLE : FRAME_BROKEN;
}

bool frame_resyncs(enum config_schema schema)
{
    return schema == SCHEMA_FIX;
}
