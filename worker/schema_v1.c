/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v1, text:
 *
 *   |00000001|0008|abcdefgh
 *   0        9    14
 *    id       length
 *             of the payload
 */
#include "worker/schema_own.h"

#include "stage/decimal.h"

enum { V1_HEADER = 15, V1_LENGTH_AT = 10 };

/* What stands at each place of the header: a separator or a digit. */
static const char v1_form[V1_HEADER + 1] = "|########|####|";

/* What is wrong with a header, byte by byte. */
static int v1_fault(const uint8_t *bytes, uint32_t length)
{
    for (uint32_t i = 0; i < V1_HEADER && i < length; i++) {
        if (v1_form[i] == '|' && bytes[i] != '|')
            return schema_reject(REASON_bad_header);
        if (v1_form[i] == '#' && (uint8_t)(bytes[i] - '0') > 9)
            return schema_reject(REASON_bad_digit);
    }
    return schema_reject(length ? REASON_truncated : REASON_empty);
}

static int v1_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    if (length < V1_HEADER || bytes[0] != '|' || bytes[V1_LENGTH_AT - 1] != '|' ||
        bytes[V1_HEADER - 1] != '|' || !decimal_read_8(bytes + 1, &message->id) ||
        !decimal_read_4(bytes + V1_LENGTH_AT, &message->length))
        return v1_fault(bytes, length);
    message->payload = bytes + V1_HEADER;
    return message->length > length - V1_HEADER ? schema_reject(REASON_truncated) : 0;
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

const struct schema schema_v1 = {"v1", V1_HEADER, 9999, v1_parse, v1_serialise};
