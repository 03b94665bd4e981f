/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of a TCP connection, as somebody who listens to it puts it together again: a flow.
 *
 * - A SYN begins a flow, or the first segment with data where the beginning was not heard. An RST ends it
 *   at once, a FIN once all before it has come; what comes again of one that has ended is told by its
 *   numbers. A SYN with another number begins a new flow, and so does any segment behind a FIN.
 * - Of each byte the first that came counts; what comes again is counted, and compared while the first
 *   still lies here.
 * - What stands behind missing bytes is held, while it ends at most `reorder_bytes` behind their
 *   beginning and is in at most REASSEMBLY_RANGES_MAX separate ranges. With the first segment more the gap is
 *   given up: it is counted, and the flow goes on behind it.
 * - Bytes in order are given to `piece` as they come, each once.
 *
 * Positions count bytes of the flow; their low 32 bits are the sequence number. Bytes are kept in `buffer`, a
 * circle of `buffer_bytes` (a power of two), the byte at position p in its place p. What is not yet framed is
 * [begun, next), what is held beyond lies in `range`. Whoever uses `piece` moves both `next` and `begun`, keeps
 * at most keep_bytes between them, and buffer_bytes is at least keep_bytes + reorder_bytes: so nothing
 * is written over what is still needed.
 *
 * A segment writes only where nothing stands yet, and giving up a gap writes nothing; each is a step of its own
 * (REASSEMBLY_AGAIN). So a step that was begun and not finished can be taken again from the flow as it was
 * before, as long as buffer_bytes is at least keep_bytes + SEGMENT_BYTES_MAX, too. The flow is the caller's.
 */
#ifndef TICKLINE_RX_REASSEMBLY_H
#define TICKLINE_RX_REASSEMBLY_H

#include "rx/decode.h"
#include "shm/tap.h"

enum {
    REASSEMBLY_RANGES_MAX = 16,
    SEGMENT_BYTES_MAX = 65535,
    REASSEMBLY_AGAIN = 1, /* a gap was given up: a step; now take the segment again */
};

struct range {
    uint64_t begin;
    uint64_t end;
};

/* Plain data: copied as a whole. */
struct flow {
    struct decode_ends ends;
    uint16_t hash; /* of them */
    uint8_t open;
    uint8_t seeking; /* the beginning of a request is not known */
    uint8_t has_fin;
    uint8_t ranges;
    uint64_t initial;                          /* position of the first byte */
    uint64_t next;                             /* the byte that is waited for */
    uint64_t begun;                            /* the first byte that no request has taken */
    uint64_t fin;                              /* where the stream ends, if has_fin */
    struct range range[REASSEMBLY_RANGES_MAX]; /* apart, in order */
};

struct reassembly {
    uint32_t keep_bytes;
    uint32_t reorder_bytes;
    uint32_t buffer_bytes;
    uint8_t *buffer; /* of the flow at hand */
    struct tap_counts *counts;
    /*
     * Takes `length` bytes from flow->next on: of a segment, or (`data` NULL) those that lie in the
     * buffer. Moves flow->next behind them, and flow->begun. Another answer than 0 ends the segment there.
     */
    int (*piece)(void *self, struct flow *flow, const uint8_t *data, uint32_t length);
    /* Bytes are missing in front of flow->next: what is kept of a request is of no use. */
    void (*gap)(void *self, struct flow *flow);
    void *self;
};

/* A new flow begins with this segment. */
void reassembly_begin(struct flow *flow, const struct decoded *segment);

/* Does this segment belong to another connection than the flow, one with the same ends? */
bool reassembly_is_new(const struct flow *flow, const struct decoded *segment);

/* A segment with data, SYN or FIN. 0, REASSEMBLY_AGAIN, or what piece() answered. */
int reassembly_take(struct reassembly *reassembly, struct flow *flow,
                    const struct decoded *segment);

/* Gives up the first gap, behind which something is held (flow->ranges). REASSEMBLY_AGAIN, or what piece()
 * answered. */
int reassembly_give_up(struct reassembly *reassembly, struct flow *flow);

static inline bool reassembly_ended(const struct flow *flow)
{
    return flow->has_fin && flow->fin == flow->next;
}

/* ---- the buffer ---- */

void reassembly_write(const struct reassembly *reassembly, uint64_t position, const uint8_t *data,
                      uint32_t length);

/* The bytes as one: where they lie, or copied to `scratch` (of `length` bytes) where the circle
 * parts them. */
const uint8_t *reassembly_view(const struct reassembly *reassembly, uint64_t position,
                               uint32_t length, uint8_t *scratch);

#endif
