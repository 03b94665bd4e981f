/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following the TCP connections on a wire: from a segment to the flow it belongs to, to the bytes in order, to
 * the requests in them. A step (shm/tap.h) changes one flow at most:
 *
 *   follow_begin()                        nothing is changed yet
 *   follow_segment() or follow_flush()    the change is made beside the flow
 *   follow_store(step)                    it is written into the region
 *   the step is done
 *   follow_done()
 *
 * A step that is not stored has changed nothing, and can be taken again.
 */
#ifndef TICKLINE_RX_FOLLOW_H
#define TICKLINE_RX_FOLLOW_H

#include "rx/flows.h"
#include "rx/stream.h"

struct follow_plan {
    uint32_t connections;   /* at once; two flows each */
    uint32_t keep_bytes;    /* that a request may take */
    uint32_t reorder_bytes; /* behind a gap, that are waited for */
    enum config_schema schema;
    bool huge;
    uint64_t epoch;
    uint64_t done; /* steps, by a predecessor */
    int memory;    /* its region; -1: make one */
    struct tap_counts *counts;
    /* Takes a request; another answer than 0 ends the step. */
    int (*put)(void *self, const uint8_t *data, const struct frame *frame);
    void *self;
};

struct follow {
    struct flows flows;
    struct reassembly reassembly;
    struct stream stream;
    uint32_t slot;             /* of the flow that the step changes; FLOWS_NONE */
    struct flow flow;          /* what it becomes */
    const struct flow *before; /* what it was */
    uint32_t flushed;          /* slots that hold nothing behind a gap */
};

/* 0 or -errno. */
int follow_open(struct follow *follow, const struct follow_plan *plan);
void follow_close(struct follow *follow);

static inline void follow_begin(struct follow *follow)
{
    follow->slot = FLOWS_NONE;
}

/* 0; REASSEMBLY_AGAIN: that was a step, the segment is to be taken in another one; or what put()
 * answered. */
int follow_segment(struct follow *follow, const struct decoded *segment);

/* At the end: gives up a gap. REASSEMBLY_AGAIN: that was a step; 0: there is none left; or what put()
 * answered. */
int follow_flush(struct follow *follow);

void follow_store(struct follow *follow, uint64_t step);
void follow_done(struct follow *follow);

#endif
