/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in the flows of a tap: what reassembly gives in order is framed and put.
 *
 * While nothing of a request is kept, a segment's bytes are framed where they lie; what is left of them, the
 * beginning of a request, goes into the flow's buffer until the rest has come. A request that does not fit
 * there (rx.connection_buffer) is given up with all that follows it.
 *
 * Where the beginning of a request is not known (a flow heard from its middle, a gap, a request that does
 * not frame) it is sought: at any byte where the schema allows that (frame_resyncs), else the flow goes on with
 * the first piece, a segment or what was held together, that begins with a whole request. What lies
 * before it is counted as skipped.
 */
#ifndef TICKLINE_RX_STREAM_H
#define TICKLINE_RX_STREAM_H

#include "rx/reassembly.h"

#include "rx/frame.h"

struct stream {
    enum config_schema schema;
    struct reassembly *reassembly;
    uint8_t *scratch; /* of reassembly->buffer_bytes */
    /* A request of the flow at hand; another answer than 0 ends it there. */
    int (*put)(void *self, const uint8_t *data, const struct frame *frame);
    void *self;
};

/* For struct reassembly; `self` is the stream. */
int stream_piece(void *self, struct flow *flow, const uint8_t *data, uint32_t length);
void stream_gap(void *self, struct flow *flow);

#endif
