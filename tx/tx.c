/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tx: takes outputs from every worker's ring. Its sink (tx/sink.h) sends the replies; rejected and
 * filtered ones are completed without sending, and counted.
 */
#include "tx/tx.h"

#include "tx/tx_own.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

void tx_list_repeats(struct stage *stage, const struct tx *tx)
{
    for (uint32_t i = 0; i < tx->rings; i++)
        list_repeats(stage, tx, i);
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
    }
    tx->published = tx->completed;
    store_release(&stage->cell->completed, tx->completed);
    return 0;
}

static const struct tx_sink *find_sink(const struct config *config)
{
    if (strcmp(config->tx.sink, "tcp") == 0)
        return &tx_tcp;
    if (strcmp(config->tx.sink, "reply") != 0)
        return &tx_udp;
    return strcmp(config->rx.source, "tcp") == 0 ? &tx_reply_tcp : &tx_reply_udp;
}

static int tx_open(struct stage *stage)
{
    struct tx *tx = calloc(1, sizeof(*tx));

    if (!tx)
        return -ENOMEM;
    stage->self = tx;
    tx->sink = find_sink(&stage->config);
    tx->burst = stage->config.rx.burst;
    tx->slow_ticks = clock_ticks(&stage->clock, stage->config.trace.snapshot_over_ns);
    int err = open_rings(stage, tx);
    return err < 0 ? err : tx->sink->open(stage, tx);
}

void tx_watch_slow(struct stage *stage, const struct tx *tx, uint64_t request, uint64_t ingress)
{
    struct cell_slow *slow = &stage->cells->slow;
    uint64_t took = tsc_read() - ingress;

    if (likely(took <= tx->slow_ticks))
        return;
    store_relaxed(&slow->request, request);
    store_relaxed(&slow->ticks, took);
    store_release(&slow->count, load_relaxed(&slow->count) + 1);
}

static int tx_poll(struct stage *stage)
{
    struct tx *tx = stage->self;

    return tx->sink->poll(stage, tx);
}

static void tx_tick(struct stage *stage, uint64_t now)
{
    struct tx *tx = stage->self;

    if (tx->sink->tick)
        tx->sink->tick(stage, tx, now);
}

static bool tx_given(struct stage *stage, const char *name, uint64_t value, int fd)
{
    struct tx *tx = stage->self;

    return tx->sink->given && tx->sink->given(stage, tx, name, value, fd);
}

static bool tx_drained(struct stage *stage)
{
    const struct tx *tx = stage->self;

    for (uint32_t i = 0; i < tx->rings; i++) {
        if (!stage_ended(stage, CELL_WORKER + i))
            return false;
    }
    return tx->sink->idle(stage, tx);
}

static bool tx_park(struct stage *stage, uint64_t ns)
{
    struct tx *tx = stage->self;

    if (tx->sink->nap)
        ns = tx->sink->nap(stage, tx, ns);
    if (ns == 0)
        return false;
    /* With several rings there is one bell too many to sleep on: a timer serves all. */
    if (tx->rings > 1)
        return ring_nap(ns);
    return ring_park(&tx->from[0], stage->upstream_near, ns);
}

static void tx_close(struct stage *stage)
{
    struct tx *tx = stage->self;

    tx->sink->close(stage, tx);
}

const struct stage_ops tx_ops = {
    .open = tx_open,
    .poll = tx_poll,
    .tick = tx_tick,
    .drained = tx_drained,
    .close = tx_close,
    .park = tx_park,
    .given = tx_given,
};
