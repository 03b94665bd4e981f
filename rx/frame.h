/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Framing: where in a datagram or a stream one request ends and the next begins.
 *
 *   v1        |00000001|0008|abcdefgh       id: 8 decimal digits, length: 4, then so many bytes
 *   v2        u64 id, u32 length (big-endian), then so many bytes
 *   v3        varint length, then protobuf, of which nothing but the id is looked for
 *   v4        Cap'n Proto's segment table, then the segments; the id where the root is in the first
 *   fix       8=FIX.4.1|9=112|…|10=042| with SOH for |; id: XXH3-64 of its bytes
 *   iex       a segment of one message (rx/segment.h says how a datagram becomes such); id: its number
 *   datagram  the whole datagram is one request
 *
 * What does not frame is, with all that follows it, one malformed request: the worker's parser says
 * what is wrong with it. An empty datagram is one malformed request, too (but for `datagram`); so no
 * datagram is without one. Well-formed is what a request can be told from the next by: the parser checks
 * more (a sum, say).
 */
#ifndef TICKLINE_RX_FRAME_H
#define TICKLINE_RX_FRAME_H

#include "stage/config.h"

#include <stdbool.h>
#include <stdint.h>

struct frame {
    uint64_t id;     /* wire id: as written, or XXH3-64 of the bytes where none can be read */
    uint32_t length; /* bytes; all that is left where malformed */
    bool well_formed;
};

/* What does not frame. */
struct frame frame_malformed(const uint8_t *data, uint32_t length);

/* The request at the beginning of `data`, what is left of a datagram. */
struct frame frame_next(enum config_schema schema, const uint8_t *data, uint32_t length);

/*
 * The same in a stream of bytes, of which `length` have come so far.
 *
 *   WHOLE   `frame` is a well-formed request
 *   MORE    it may become one; frame->length bytes of it at least will be needed
 *   BROKEN  it never will: frame->length bytes (at least one, at most `length`) are one malformed request.
 *           Where frame_resyncs(schema) the stream goes on behind them (they reach to the next request, at
 *           most 4,096 a time), else it is lost.
 *
 * The same bytes yield the same requests, however the stream was cut.
 */
enum frame_state { FRAME_WHOLE, FRAME_MORE, FRAME_BROKEN };
enum frame_state frame_stream(enum config_schema schema, const uint8_t *data, uint32_t length,
                              struct frame *frame);

/* Can the beginning of a request be told from its bytes alone? */
bool frame_resyncs(enum config_schema schema);

#endif
