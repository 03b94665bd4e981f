/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of tx: what tx.c and the sinks share. The functions are compiled into the sinks' loops.
 *
 * An output's count is stored before its ring's tail moves, in the ring's order, so that a successor
 * knows what is counted; what is counted is never sent again.
 */
#ifndef TICKLINE_TX_TX_OWN_H
#define TICKLINE_TX_TX_OWN_H

#include "shm/crash.h"
#include "tx/sink.h"

struct tx {
    struct ring_consumer from[CELL_WORKERS_MAX];
    uint64_t counted[CELL_WORKERS_MAX]; /* position in each ring up to which all is counted */
    uint32_t rings;
    uint32_t burst;
    const struct tx_sink *sink;
    void *own;           /* the sink's state, made by its open() */
    uint64_t completed;  /* outputs, over all rings */
    uint64_t published;  /* what of it others have been told */
    uint64_t slow_ticks; /* a request that took longer triggers a snapshot; 0: none does */
};

/* For sinks that send an output again that was begun and not counted: lists what a predecessor had
 * begun (struct cell_repeats). */
void tx_list_repeats(struct stage *stage, const struct tx *tx);

/* A request took longer than trace.snapshot_over: the tracer is told. */
void tx_watch_slow(struct stage *stage, const struct tx *tx, uint64_t request, uint64_t ingress);

/* Nothing more will come in: rx has been told to drain. */
static inline bool tx_ends(const struct stage *stage)
{
    return stage->draining || load_relaxed(&stage->cells->cell[CELL_RX].wanted) >= CELL_WANT_DRAIN;
}

/* What becomes of an output that is no reply. */
static inline uint8_t tx_unsent(const struct ring_slot *slot)
{
    if (slot->kind == RING_FILTERED)
        return OUTCOME_FILTERED;
    if (unlikely(slot->kind != RING_REJECTED))
        region_corrupt("ring slot kind", RING_REJECTED, slot->kind);
    if (unlikely(slot->reason >= REASON_COUNT))
        region_corrupt("ring slot reason", REASON_COUNT - 1, slot->reason);
    return (uint8_t)(OUTCOME_REJECTED + slot->reason);
}

/* The kernel is done with a reply: what became of it. */
static inline uint8_t tx_complete(struct stage *stage, const struct tx *tx, uint64_t request,
                                  uint64_t ingress, int result)
{
    if (result >= 0)
        trace_stamp(&stage->trace, POINT_tx_complete, 0, request);
    if (tx->slow_ticks)
        tx_watch_slow(stage, tx, request, ingress);
    return result < 0 ? OUTCOME_DROPPED : OUTCOME_TRANSMITTED;
}

/* The next output of a ring in its order is done with. */
static inline void tx_count(struct stage *stage, struct tx *tx, uint32_t ring, uint64_t position,
                            uint8_t outcome)
{
    _Atomic uint64_t *counter = &stage->cells->outcome[ring][outcome];

    store_release(counter, load_relaxed(counter) + 1);
    crash_point("tx:counted");
    tx->counted[ring] = position + 1;
    tx->completed++;
}

/* At the end of a turn: gives back what is counted, and tells others. */
static inline void tx_publish(struct stage *stage, struct tx *tx)
{
    if (tx->completed == tx->published)
        return;
    for (uint32_t i = 0; i < tx->rings; i++) {
        if (load_relaxed(&tx->from[i].control->tail) != tx->counted[i])
            ring_commit_to(&tx->from[i], tx->counted[i]);
        crash_point("tx:committed");
    }
    tx->published = tx->completed;
    store_release(&stage->cell->completed, tx->completed);
    crash_point("tx:completed");
}

#endif
