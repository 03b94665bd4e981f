/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the reply is that begins here in a stream of bytes, written from the schemas' rules alone:
 * it shares no code with the pipeline.
 *
 *   v1   |00000001|0008|abcdefgh
 *   v2   u64 id, u32 length (big-endian), then so many bytes
 *   v3   varint length, then so many bytes
 *   v4   u32 segments - 1, u32 words of each segment (little-endian), padded to 8 bytes, the words
 *   fix  8=FIX.4.1<SOH>9=LENGTH<SOH>, so many bytes, 10=xxx<SOH>
 */
#ifndef TICKLINE_HARNESS_SINK_FRAME_H
#define TICKLINE_HARNESS_SINK_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum { FRAME_NONE = -1, FRAME_MAX = 1 << 17 /* bytes: no reply is longer */ };

/* Bytes of the reply at `data`, of which `length` have come (there may be more to come than there
 * are); 0: not to be told yet; FRAME_NONE: no reply begins so. */
typedef int32_t frame_length(const uint8_t *data, size_t length);

/* NULL for a schema that has no form in a stream. */
frame_length *frame_of(const char *schema);

#endif
