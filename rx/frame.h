/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Framing: where in a datagram one request ends and the next begins.
 *
 *   v1        |00000001|0008|abcdefgh       id: 8 decimal digits, length: 4, then so many bytes
 *   v2        u64 id, u32 length (big-endian), then so many bytes
 *   datagram  the whole datagram is one request
 *
 * What does not frame is, with all that follows it, one malformed request: the worker's parser says
 * what is wrong with it. An empty datagram of v1 or v2 is one malformed request, too; so no
 * datagram is without one.
 */
#ifndef TICKLINE_RX_FRAME_H
#define TICKLINE_RX_FRAME_H

#include "stage/config.h"

#include <stdbool.h>
#include <stdint.h>

struct frame {
    uint64_t id;     /* wire id: as written, or XXH3-64 of the bytes where none is written */
    uint32_t length; /* bytes; all that is left where malformed */
    bool well_formed;
};

/* The request at the beginning of `data`. */
struct frame frame_next(enum config_schema schema, const uint8_t *data, uint32_t length);

#endif
