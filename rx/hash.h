/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a flow as one number, the same for both directions of a connection. */
#ifndef TICKLINE_RX_HASH_H
#define TICKLINE_RX_HASH_H

#include "rx/decode.h"

#include <string.h>

/* Multiplied and folded (Fibonacci hashing). */
static inline uint32_t hash_end(const uint8_t address[16], uint16_t port)
{
    uint64_t half[2];

    memcpy(half, address, sizeof(half));
    uint64_t hash = (half[0] ^ port) * 0x9e3779b97f4a7c15ULL;
    hash = (hash ^ hash >> 32 ^ half[1]) * 0x9e3779b97f4a7c15ULL;
    return (uint32_t)(hash >> 32);
}

static inline uint32_t hash_ends(const struct decode_ends *ends)
{
    uint32_t sum = hash_end(ends->source, ends->source_port) +
                   hash_end(ends->destination, ends->destination_port);

    return (sum ^ sum >> 15) * 0x2c1b3c6dU >> 8;
}

#endif
