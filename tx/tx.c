/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tx: takes outputs from every worker's ring and sends the replies. Rejected and filtered ones it
 * completes without sending, and counts. An output's count is stored before its ring's tail moves,
 * in the ring's order, so that a successor knows what is counted; what is counted is never sent
 * again. A send that was begun and not counted is made again and listed (struct cell_repeats): with
 * plain calls at most the one that was under way, with io_uring a window of them.
 */
#include "tx/tx.h"

#include "shm/crash.h"
#include "stage/io.h"
#include "tx/socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 256 };

/* An output between its send and its completion; the window is a queue in order of sending. */
struct pending {
    uint64_t position; /* in its ring */
    uint64_t request;
    uint64_t ingress; /* tsc */
    uint16_t ring;
    uint8_t outcome;
    bool complete;
};

struct tx {
    struct ring_consumer from[CELL_WORKERS_MAX];
    uint64_t counted[CELL_WORKERS_MAX]; /* position in each ring up to which all is counted */
    uint32_t rings;
    uint32_t burst;
    struct sender *sender;
    int socket;
    uint64_t completed;  /* outputs, over all rings */
    uint64_t published;  /* what of it others have been told */
    uint64_t slow_ticks; /* a request that took longer triggers a snapshot; 0: none does */
    struct pending window[WINDOW];
    uint64_t oldest;
    uint64_t newest;
};

/* Outputs whose send a predecessor had begun, without counting it. */
static void list_repeats(struct stage *stage, const struct tx *tx, uint32_t ring)
{
    struct cell_repeats *repeats = &stage->cells->repeats;
    struct ring_consumer from = tx->from[ring];
    uint64_t sending = load_acquire(&stage->cells->sending[ring]);
    const struct ring_slot *slot;

    for (; position_diff(sending, from.next) > 0 && (slot = ring_peek(&from)); ring_next(&from)) {
        uint64_t count = load_relaxed(&repeats->count);
        if (slot->kind != RING_REPLY)
            continue;
        repeats->request[count % CELL_REPEATS_MAX] = slot->request;
        store_release(&repeats->count, count + 1);
        trace_stamp(&stage->trace, POINT_repeated, 0, slot->request);
    }
}

static int open_rings(struct stage *stage, struct tx *tx)
{
    tx->rings = stage->config.worker.count;
    for (uint32_t i = 0; i < tx->rings; i++) {
        int err = stage_consumer(stage, &tx->from[i], "to_tx.%u", i);
        if (err < 0)
            return err;
        /* What a predecessor had counted and not committed is done: it was sent before it was
         * counted. */
        uint64_t counted = cells_counted(stage->cells, i);
        uint64_t most = tx->from[i].next - tx->from[i].start + tx->from[i].mask + 1;
        if (counted > most)
            region_corrupt("outputs counted", most, counted);
        tx->from[i].next = position_max(tx->from[i].next, tx->from[i].start + counted);
        tx->counted[i] = tx->from[i].next;
        tx->completed += counted;
        ring_commit(&tx->from[i]);
        list_repeats(stage, tx, i);
    }
    tx->published = tx->completed;
    store_release(&stage->cell->completed, tx->completed);
    return 0;
}

static int tx_open(struct stage *stage)
{
    static const char *const asked[] = {"auto", "uring", "plain"};
    struct tx *tx = calloc(1, sizeof(*tx));
    struct io_choice choice;

    if (!tx)
        return -ENOMEM;
    stage->self = tx;
    tx->burst = stage->config.rx.burst;
    tx->slow_ticks = clock_ticks(&stage->clock, stage->config.trace.snapshot_over_ns);
    int err = open_rings(stage, tx);
    if (err < 0)
        return err;
    tx->socket = socket_open(stage);
    if (tx->socket < 0)
        return tx->socket;
    err = io_choose(stage->config.tx.io, 1, &choice);
    if (err < 0)
        return stage_error(stage, err, "tx.io = uring: %s", choice.why);
    stage_note(stage, "tx.io", asked[stage->config.tx.io], choice.uring ? "uring" : "plain",
               choice.why);
    err = sender_open(&tx->sender, choice.uring, tx->socket, WINDOW);
    return err < 0 ? stage_error(stage, err, "sender: %s", strerror(-err)) : 0;
}

static void watch_slow(struct stage *stage, const struct tx *tx, uint64_t request, uint64_t ingress)
{
    struct cell_slow *slow = &stage->cells->slow;
    uint64_t took = tsc_read() - ingress;

    if (likely(took <= tx->slow_ticks))
        return;
    store_relaxed(&slow->request, request);
    store_relaxed(&slow->ticks, took);
    store_release(&slow->count, load_relaxed(&slow->count) + 1);
}

/* The kernel is done with a reply: what became of it. */
static uint8_t complete(struct stage *stage, const struct tx *tx, uint64_t request,
                        uint64_t ingress, int result)
{
    if (result >= 0)
        trace_stamp(&stage->trace, POINT_tx_complete, 0, request);
    if (tx->slow_ticks)
        watch_slow(stage, tx, request, ingress);
    return result < 0 ? OUTCOME_DROPPED : OUTCOME_TRANSMITTED;
}

static void count(struct stage *stage, struct tx *tx, uint32_t ring, uint64_t position,
                  uint8_t outcome)
{
    _Atomic uint64_t *counter = &stage->cells->outcome[ring][outcome];

    store_release(counter, load_relaxed(counter) + 1);
    crash_point("tx:counted");
    tx->counted[ring] = position + 1;
    tx->completed++;
}

/* In the ring's order: behind what is still in flight an output waits for its turn to be counted. */
static void finish(struct stage *stage, struct tx *tx, uint32_t ring, const struct ring_slot *slot,
                   uint8_t outcome)
{
    uint64_t position = tx->from[ring].next;

    if (tx->oldest == tx->newest)
        count(stage, tx, ring, position, outcome);
    else
        tx->window[tx->newest++ % WINDOW] = (struct pending){
            .position = position,
            .request = slot->request,
            .ring = (uint16_t)ring,
            .outcome = outcome,
            .complete = true,
        };
}

/* What becomes of an output that is no reply. */
static uint8_t unsent(const struct ring_slot *slot)
{
    if (slot->kind == RING_FILTERED)
        return OUTCOME_FILTERED;
    if (unlikely(slot->kind != RING_REJECTED))
        region_corrupt("ring slot kind", RING_REJECTED, slot->kind);
    if (unlikely(slot->reason >= REASON_COUNT))
        region_corrupt("ring slot reason", REASON_COUNT - 1, slot->reason);
    return (uint8_t)(OUTCOME_REJECTED + slot->reason);
}

/* One output of a ring. -EAGAIN: the kernel has no room for it; nothing has happened then. */
static int take_output(struct stage *stage, struct tx *tx, uint32_t ring,
                       const struct ring_slot *slot)
{
    uint64_t now = tsc_read();

    if (slot->kind != RING_REPLY) {
        trace_stamp_at(&stage->trace, now, POINT_tx_got, 0, slot->request);
        finish(stage, tx, ring, slot, unsent(slot));
        return 0;
    }
    store_relaxed(&stage->cells->sending[ring], tx->from[ring].next + 1);
    crash_point("tx:sending");
    uint64_t sent = tsc_read();
    int result = sender_send(tx->sender, slot->payload, slot->length, tx->newest);
    if (result == -EAGAIN)
        return result;
    crash_point("tx:sent");
    trace_stamp_at(&stage->trace, now, POINT_tx_got, 0, slot->request);
    trace_stamp_at(&stage->trace, sent, POINT_tx_sent, slot->length, slot->request);
    stage->figures.bytes += slot->length;
    if (result != 0)
        finish(stage, tx, ring, slot, complete(stage, tx, slot->request, slot->ingress, result));
    else
        tx->window[tx->newest++ % WINDOW] = (struct pending){
            .position = tx->from[ring].next,
            .request = slot->request,
            .ingress = slot->ingress,
            .ring = (uint16_t)ring,
        };
    return 0;
}

/* Counts what has completed, oldest first, then lets the rings go on. */
static void retire(struct stage *stage, struct tx *tx)
{
    for (; tx->oldest != tx->newest; tx->oldest++) {
        const struct pending *pending = &tx->window[tx->oldest % WINDOW];
        if (!pending->complete)
            break;
        count(stage, tx, pending->ring, pending->position, pending->outcome);
    }
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

static int reap(struct stage *stage, struct tx *tx)
{
    uint64_t tag;
    int result;

    int err = sender_submit(tx->sender);
    while (sender_reap(tx->sender, &tag, &result) > 0) {
        struct pending *pending = &tx->window[tag % WINDOW];
        pending->outcome = complete(stage, tx, pending->request, pending->ingress, result);
        pending->complete = true;
    }
    return err;
}

static int tx_poll(struct stage *stage)
{
    struct tx *tx = stage->self;
    uint32_t moved = 0;
    bool blocked = false;

    for (uint32_t i = 0; i < tx->rings && !blocked; i++) {
        struct ring_consumer *ring = &tx->from[i];
        const struct ring_slot *slot;
        for (uint32_t n = 0; n < tx->burst && (slot = ring_peek(ring)) != NULL; n++) {
            blocked = tx->newest - tx->oldest == WINDOW || take_output(stage, tx, i, slot) < 0;
            if (blocked)
                break;
            ring_next(ring);
            moved++;
        }
    }
    int err = reap(stage, tx);
    if (err < 0)
        return err;
    retire(stage, tx);
    return moved == 0 && blocked ? -EAGAIN : (int)moved;
}

static bool tx_drained(struct stage *stage)
{
    const struct tx *tx = stage->self;

    for (uint32_t i = 0; i < tx->rings; i++) {
        if (!stage_ended(stage, CELL_WORKER + i))
            return false;
    }
    return tx->oldest == tx->newest;
}

static bool tx_park(struct stage *stage, uint64_t ns)
{
    struct tx *tx = stage->self;

    /* With several rings there is one bell too many to sleep on: a timer serves all. */
    if (tx->rings > 1)
        return ring_nap(ns);
    return ring_park(&tx->from[0], stage->upstream_near, ns);
}

static void tx_close(struct stage *stage)
{
    struct tx *tx = stage->self;

    sender_close(tx->sender);
}

const struct stage_ops tx_ops = {
    .open = tx_open,
    .poll = tx_poll,
    .drained = tx_drained,
    .close = tx_close,
    .park = tx_park,
};
