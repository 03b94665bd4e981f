/* SPDX-License-Identifier: Apache-2.0 */
/* rot1: every letter becomes the next one, z becomes a, Z becomes A; all other bytes stay. */
#include "worker/handler.h"

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

static int rot1_open(const struct config *config, char error[CONFIG_ERROR_MAX])
{
    (void)config;
    (void)error;
    for (int byte = 0; byte < 256; byte++)
        table[byte] = next_letter((uint8_t)byte);
    return 0;
}

static int rot1_handle(const uint8_t *in, uint32_t length, uint8_t *out, uint32_t capacity)
{
    if (length > capacity)
        return HANDLER_REJECT(REASON_reply_too_big);
    for (uint32_t i = 0; i < length; i++)
        out[i] = table[in[i]];
    return (int)length;
}

const struct handler handler_rot1 = {"rot1", rot1_open, rot1_handle};
