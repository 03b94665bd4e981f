/* SPDX-License-Identifier: Apache-2.0 */
/* rot1: every letter becomes the next one, z becomes a, Z becomes A; all other bytes stay. */
#include "worker/load.h"

static uint8_t table[256];

static uint8_t next_letter(uint8_t byte)
{
    if (byte == 'z')
        return 'a';
    if (byte == 'Z')
        return 'A';
    if ((byte >= 'a' && byte < 'z') || (byte >= 'A' && byte < 'Z'))
        return (uint8_t)(byte + 1);
    return byte;
}

static int32_t rot1_init(struct tickline_context *context)
{
    (void)context;
    for (int byte = 0; byte < 256; byte++)
        table[byte] = next_letter((uint8_t)byte);
    return 0;
}

static int32_t rot1_handle(struct tickline_context *context, const struct tickline_request *request,
                           uint8_t *reply, uint32_t capacity)
{
    const uint8_t *in = request->payload;
    uint32_t length = request->length;

    (void)context;
    if (length > capacity)
        return TICKLINE_REPLY_TOO_BIG;
    for (uint32_t i = 0; i < length; i++)
        reply[i] = table[in[i]];
    return (int32_t)length;
}

const struct tickline_handler handler_rot1 = {
    .abi = TICKLINE_HANDLER_ABI,
    .name = "rot1",
    .summary = "every letter becomes the next one",
    .init = rot1_init,
    .handle = rot1_handle,
};
