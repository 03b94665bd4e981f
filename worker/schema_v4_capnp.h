/* SPDX-License-Identifier: Apache-2.0 */
/* Cap'n Proto for C: what schema_v4.c asks of schema_v4_capnp.cc. Nothing is thrown into C. */
#ifndef TICKLINE_WORKER_SCHEMA_V4_CAPNP_H
#define TICKLINE_WORKER_SCHEMA_V4_CAPNP_H

#include <stdbool.h>
#include <stdint.h>

enum { V4_SEGMENTS_MAX = 8, V4_HEADER = 32, V4_WORDS_MAX = 8192 };

#ifdef __cplusplus
extern "C" {
#endif

struct v4_segment {
    const uint8_t *data; /* at 8 bytes */
    uint32_t words;
};

struct v4_request {
    uint64_t id;
    const uint8_t *payload; /* in a segment */
    uint32_t length;
};

/* False: these segments hold no Request. */
bool v4_read(const struct v4_segment *segments, uint32_t count, struct v4_request *request);

/* Writes a message of one segment, without the segment table; its words. `payload` may lie in `out`. */
uint32_t v4_write(uint8_t *out, uint64_t id, const uint8_t *payload, uint32_t length);

#ifdef __cplusplus
}
#endif

#endif
