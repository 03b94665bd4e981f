/* SPDX-License-Identifier: Apache-2.0 */
/* datagram: the payload alone, any bytes. */
#include "worker/schema_own.h"

enum { PAYLOAD_MAX = 65535 };

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

const struct schema schema_datagram = {"datagram", 0, PAYLOAD_MAX, datagram_parse,
                                       datagram_serialise};
