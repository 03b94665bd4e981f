/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v2, binary, big-endian:
 *
 *   0 id u64 | 8 length u32 | 12 payload
 */
#include "worker/schema_own.h"

#include <endian.h>
#include <string.h>

enum { V2_HEADER = 12, V2_PAYLOAD_MAX = 65535 };

static int v2_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    uint64_t id;
    uint32_t payload;

    if (length == 0)
        return schema_reject(REASON_empty);
    if (length < V2_HEADER)
        return schema_reject(REASON_truncated);
    memcpy(&id, bytes, sizeof(id));
    memcpy(&payload, bytes + sizeof(id), sizeof(payload));
    payload = be32toh(payload);
    if (payload > V2_PAYLOAD_MAX)
        return schema_reject(REASON_bad_length);
    if (payload > length - V2_HEADER)
        return schema_reject(REASON_truncated);
    message->id = be64toh(id);
    message->payload = bytes + V2_HEADER;
    message->length = payload;
    return 0;
}

static int v2_serialise(uint8_t *out, uint32_t capacity, const struct message *request,
                        uint32_t length)
{
    uint64_t id = htobe64(request->id);
    uint32_t payload = htobe32(length);

    (void)capacity;
    memcpy(out, &id, sizeof(id));
    memcpy(out + sizeof(id), &payload, sizeof(payload));
    return (int)(V2_HEADER + length);
}

const struct schema schema_v2 = {"v2", V2_HEADER, V2_PAYLOAD_MAX, v2_parse, v2_serialise};
