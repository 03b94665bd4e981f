/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/schema.h"

#include "stage/decimal.h"

#include <endian.h>
#include <string.h>

static int reject(enum reason reason)
{
    return -1 - (int)reason;
}

/* ---- v1 ---- */

enum { V1_HEADER = 15, V1_LENGTH_AT = 10 };

/* What stands at each place of the header: a separator or a digit. */
static const char v1_form[V1_HEADER + 1] = "|########|####|";

/* What is wrong with a header, byte by byte. */
static int v1_fault(const uint8_t *bytes, uint32_t length)
{
    for (uint32_t i = 0; i < V1_HEADER && i < length; i++) {
        if (v1_form[i] == '|' && bytes[i] != '|')
            return reject(REASON_bad_header);
        if (v1_form[i] == '#' && (uint8_t)(bytes[i] - '0') > 9)
            return reject(REASON_bad_digit);
    }
    return reject(length ? REASON_truncated : REASON_empty);
}

static int v1_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    if (length < V1_HEADER || bytes[0] != '|' || bytes[V1_LENGTH_AT - 1] != '|' ||
        bytes[V1_HEADER - 1] != '|' || !decimal_read_8(bytes + 1, &message->id) ||
        !decimal_read_4(bytes + V1_LENGTH_AT, &message->length))
        return v1_fault(bytes, length);
    message->payload = bytes + V1_HEADER;
    return message->length > length - V1_HEADER ? reject(REASON_truncated) : 0;
}

static int v1_serialise(uint8_t *out, uint32_t capacity, const struct message *request,
                        uint32_t length)
{
    (void)capacity;
    out[0] = out[V1_LENGTH_AT - 1] = out[V1_HEADER - 1] = '|';
    decimal_write_8(out + 1, request->id);
    decimal_write_4(out + V1_LENGTH_AT, length);
    return (int)(V1_HEADER + length);
}

/* ---- v2 ---- */

enum { V2_HEADER = 12, V2_PAYLOAD_MAX = 65535 };

static int v2_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    uint64_t id;
    uint32_t payload;

    if (length == 0)
        return reject(REASON_empty);
    if (length < V2_HEADER)
        return reject(REASON_truncated);
    memcpy(&id, bytes, sizeof(id));
    memcpy(&payload, bytes + sizeof(id), sizeof(payload));
    payload = be32toh(payload);
    if (payload > V2_PAYLOAD_MAX)
        return reject(REASON_bad_length);
    if (payload > length - V2_HEADER)
        return reject(REASON_truncated);
    *message = (struct message){.id = be64toh(id), .payload = bytes + V2_HEADER, .length = payload};
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

/* ---- datagram ---- */

static int datagram_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    *message = (struct message){.payload = bytes, .length = length};
    return 0;
}

static int datagram_serialise(uint8_t *out, uint32_t capacity, const struct message *request,
                              uint32_t length)
{
    (void)out;
    (void)capacity;
    (void)request;
    return (int)length;
}

static const struct schema schemas[] = {
    [SCHEMA_V1] = {"v1", V1_HEADER, 9999, v1_parse, v1_serialise},
    [SCHEMA_V2] = {"v2", V2_HEADER, V2_PAYLOAD_MAX, v2_parse, v2_serialise},
    [SCHEMA_DATAGRAM] = {"datagram", 0, V2_PAYLOAD_MAX, datagram_parse, datagram_serialise},
};

const struct schema *schema_of(enum config_schema schema)
{
    return &schemas[schema];
}
