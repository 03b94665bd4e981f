/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flows that a tap follows, each with its buffer, in a region that outlives rx ("rx.flows").
 *
 *   page 0 region header | page 1 slots | buffers
 *
 * A slot holds a flow twice: as it is, and as it was before or will be. flows_store() writes beside what
 * stands and says of which step that is; it becomes true when that step is done (shm/tap.h). A successor
 * believes, of the steps that were done, the later one.
 */
#ifndef TICKLINE_RX_FLOWS_H
#define TICKLINE_RX_FLOWS_H

#include "rx/reassembly.h"

enum { FLOWS_NONE = UINT32_MAX };

struct flow_slot {
    _Atomic uint64_t step[2]; /* release, after the flow; pairs with a successor's acquire */
    struct flow flow[2];
};

struct flows {
    struct region region;
    struct flow_slot *slot;
    uint8_t *buffers;
    uint32_t count;
    uint32_t buffer_bytes;
    /* where a flow is, by its ends; this process's own */
    uint32_t *chain; /* the first slot of each hash, then the next one of each slot */
    uint32_t free;   /* the first slot without a flow; they are chained, too */
};

struct flows_plan {
    uint32_t count;        /* a power of two */
    uint32_t buffer_bytes; /* of each, a power of two */
    bool huge;             /* 2 MiB pages where they can be had */
    uint64_t epoch;
    uint64_t done; /* steps; 0: none yet */
    int memory;    /* a predecessor's region; -1: make one */
};

/* 0 or -errno. */
int flows_open(struct flows *flows, const struct flows_plan *plan);
void flows_close(struct flows *flows);

/* The slot of the flow with these ends; FLOWS_NONE. */
uint32_t flows_find(const struct flows *flows, const struct decode_ends *ends);

/* A slot for one more: an empty one, else that of the flow longest silent, of those that have ended first. */
uint32_t flows_room(const struct flows *flows);

/* As it is. `open` is false in an empty slot. */
const struct flow *flows_at(const struct flows *flows, uint32_t slot);

static inline uint8_t *flows_buffer(const struct flows *flows, uint32_t slot)
{
    return flows->buffers + (size_t)slot * flows->buffer_bytes;
}

/* As it will be once `step` is done; then flows_done() with what flows_at() had said before. */
void flows_store(struct flows *flows, uint32_t slot, const struct flow *flow, uint64_t step);
void flows_done(struct flows *flows, uint32_t slot, const struct flow *before);

#endif
