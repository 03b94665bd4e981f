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
