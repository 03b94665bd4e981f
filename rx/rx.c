/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rx: takes datagrams from the kernel, finds the requests in them, gives each a number and puts it
 * into a worker's ring. A full ring drops the newest request and counts it (ring.full = wait: rx
 * waits, and the kernel drops). A number is stored in the cell before it is used, so that no number
 * is ever given twice.
 */
#include "rx/rx.h"

#include "rx/rx_own.h"
#include "shm/crash.h"
#include "stage/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CLOCK_TICKS = 10, BEND_NS = 5000 };

/* ---- open ---- */

static int open_rings(struct stage *stage, struct rx *rx)
{
    rx->workers = stage->config.worker.count;
    for (uint32_t i = 0; i < rx->workers; i++) {
        int err = stage_producer(stage, &rx->to_worker[i], "to_worker.%u", i);
        if (err < 0)
            return err;
        rx->published += rx->to_worker[i].head - rx->to_worker[i].start;
    }
    return 0;
}

static int open_ingress(struct stage *stage, struct rx *rx)
{
    struct lane lane;

    int err = lane_find(&lane, &stage->arena, "ingress");
    if (err < 0)
        return stage_error(stage, err, "the arena has no lane `ingress`");
    err = lane_writable(&lane, &stage->arena, true);
    if (err < 0)
        return stage_error(stage, err, "arena: %s", strerror(-err));
    trace_open(&rx->ingress, &lane, 1, stage->generation, (uint32_t)stage->cpu);
    return 0;
}

static int rx_open(struct stage *stage)
{
    struct rx *rx = calloc(1, sizeof(*rx));
    const struct config *config = &stage->config;

    if (!rx)
        return -ENOMEM;
    stage->self = rx;
    rx->schema = config->pipeline.schema;
    rx->dispatch = config->worker.dispatch;
    rx->drop = config->ring.drop;
    rx->bells = stage->wait.park_after_ns != 0;
    rx->issued = load_relaxed(&stage->cell->issued);
    int err = open_rings(stage, rx);
    if (err == 0)
        err = open_ingress(stage, rx);
    if (err < 0)
        return err;
    int count = sockets_open(stage, rx->sockets);
    if (count < 0)
        return count;
    rx->socket_count = (uint32_t)count;
    return rx_take_over(stage, rx);
}

/* ---- poll ---- */

static uint32_t choose_worker(const struct rx *rx, const struct received *datagram,
                              const struct frame *frame)
{
    if (rx->workers == 1)
        return 0;
    switch (rx->dispatch) {
    case DISPATCH_KEY:
        return (uint32_t)(frame->id % rx->workers);
    case DISPATCH_ROUND_ROBIN:
        return (uint32_t)(rx->issued % rx->workers);
    case DISPATCH_FLOW:
    default:
        return (uint32_t)(datagram->source ^ datagram->socket) % rx->workers;
    }
}

/* The kernel's receive time on our clock, by the newest clock pair; `now` where there is none. */
static uint64_t kernel_ticks(const struct stage *stage, const struct rx *rx, uint64_t kernel_ns,
                             uint64_t now)
{
    if (kernel_ns == 0 || rx->pair.tsc == 0)
        return now;
    double ns = (double)position_diff(kernel_ns, rx->pair.real_ns);
    return rx->pair.tsc + (uint64_t)(int64_t)(ns * stage->clock.hz / 1e9);
}

static void fill_slot(const struct rx *rx, struct ring_slot *slot, const uint8_t *data,
                      const struct frame *frame, uint32_t capacity)
{
    bool fits = frame->length <= capacity;

    slot->source = rx->issued;
    slot->request = rx->issued;
    slot->reason = 0;
    slot->part = 0;
    slot->parts = 1;
    if (frame->well_formed && !fits) {
        slot->kind = RING_REJECTED;
        slot->reason = REASON_oversized;
        slot->length = 0;
        return;
    }
    /* Of a malformed request as much as fits: its header, and with it the reason, is at its
     * beginning. */
    slot->kind = RING_REQUEST;
    slot->length = (uint16_t)(fits ? frame->length : capacity);
    memcpy(slot->payload, data, slot->length);
}

/* One request. -EAGAIN: its ring is full and it must wait; nothing has happened then. */
static int put_request(struct stage *stage, struct rx *rx, const struct received *datagram,
                       const uint8_t *data, const struct frame *frame)
{
    uint32_t worker = choose_worker(rx, datagram, frame);
    struct ring_producer *ring = &rx->to_worker[worker];
    struct ring_slot *slot = ring_claim(ring);

    if (!slot && !rx->drop)
        return -EAGAIN;
    store_relaxed(&stage->cell->issued, ++rx->issued);
    crash_point("rx:issued");

    uint64_t now = tsc_read();
    uint16_t flow = datagram->source ? datagram->source : datagram->socket;
    trace_stamp_wide(&stage->trace, now, POINT_rx_got, (uint16_t)rx->batch_next, rx->issued,
                     datagram->kernel_ns, frame->id);
    struct ingress_record record = {
        .request = rx->issued,
        .id = frame->id,
        .kernel_ns = datagram->kernel_ns,
        .datagram = (uint32_t)(stage->figures.datagrams + 1),
        .flow = flow,
        .length = (uint16_t)(frame->length > UINT16_MAX ? UINT16_MAX : frame->length),
    };
    trace_append(&rx->ingress, &record, sizeof(record));
    crash_point("rx:recorded");
    if (!slot) {
        _Atomic uint64_t *dropped = &stage->cells->dropped[worker];
        store_relaxed(dropped, load_relaxed(dropped) + 1);
        crash_point("rx:dropped");
        return 0;
    }
    fill_slot(rx, slot, data, frame, ring_capacity(ring->slot_bytes));
    slot->ingress = kernel_ticks(stage, rx, datagram->kernel_ns, now);
    slot->flow = flow;
    crash_point("rx:filled");
    ring_publish(ring);
    crash_point("rx:put");
    rx->published++;
    trace_stamp(&stage->trace, POINT_rx_put, 0, rx->issued);
    if (rx->bells && ring_wake(ring, rx->was_idle))
        stage->figures.wakes++;
    return 0;
}

static int take_datagram(struct stage *stage, struct rx *rx, const struct received *datagram)
{
    struct frame frame;

    do {
        const uint8_t *data = datagram->data + rx->offset;
        frame = frame_next(rx->schema, data, datagram->length - rx->offset);
        int err = put_request(stage, rx, datagram, data, &frame);
        if (err < 0)
            return err;
    } while (!rx_pass_frame(stage, rx, datagram, &frame));
    return 0;
}

/* Draining, and the worker that there is no room for will never make any. */
static bool is_in_vain(const struct stage *stage, const struct rx *rx)
{
    bool gone = false;

    for (uint32_t i = 0; stage->draining && i < rx->workers; i++)
        gone = gone || stage_ended(stage, CELL_WORKER + i);
    return gone;
}

/* Its datagrams were received; the requests in them were not. */
static void leave_batch(struct stage *stage, struct rx *rx)
{
    stage->figures.datagrams += rx->batch_count - rx->batch_next;
    rx->batch_next = rx->batch_count;
    rx->offset = 0;
}

static int rx_poll(struct stage *stage)
{
    struct rx *rx = stage->self;
    uint32_t moved = 0;

    if (rx->batch_next == rx->batch_count) {
        int got = receiver_poll(rx->receiver, rx->issued, &rx->batch);
        if (got <= 0) {
            rx->was_idle = true;
            rx->batch_count = rx->batch_next = 0;
            return got;
        }
        rx->batch_count = (uint32_t)got;
        rx->batch_next = 0;
    }
    for (; rx->batch_next < rx->batch_count; rx->batch_next++, moved++) {
        if (take_datagram(stage, rx, &rx->batch[rx->batch_next]) == -EAGAIN) {
            if (moved == 0 && !is_in_vain(stage, rx))
                return -EAGAIN;
            if (moved == 0)
                leave_batch(stage, rx);
            return (int)moved;
        }
        rx->was_idle = false;
    }
    return (int)moved;
}

/* ---- tick ---- */

/* REALTIME against MONOTONIC_RAW: what moved between two pairs was a step or a slew of the wall
 * clock. */
static void note_bend(struct stage *stage, const struct clock_pair *before,
                      const struct clock_pair *now)
{
    int64_t raw = position_diff(now->raw_ns, before->raw_ns);
    int64_t bend = position_diff(now->real_ns, before->real_ns) - raw;

    if (bend > BEND_NS || bend < -BEND_NS)
        trace_event(&stage->trace, now->tsc, POINT_clock_bend, 0, (uint64_t)bend, (uint64_t)raw);
}

static void rx_tick(struct stage *stage, uint64_t now)
{
    struct rx *rx = stage->self;

    (void)now;
    trace_tend(&rx->ingress);
    if (rx->ticks++ % CLOCK_TICKS != 0)
        return;
    struct clock_pair pair = clock_pair_read(&stage->clock);
    trace_event(&stage->trace, pair.tsc, POINT_clock,
                (uint16_t)(pair.width_ns > UINT16_MAX ? UINT16_MAX : pair.width_ns), pair.raw_ns,
                pair.real_ns);
    if (rx->pair.tsc)
        note_bend(stage, &rx->pair, &pair);
    rx->pair = pair;
}

static bool rx_in_flight(const struct stage *stage)
{
    const struct rx *rx = stage->self;

    return rx->published != load_acquire(&stage->cells->cell[CELL_TX].completed);
}

static bool rx_park(struct stage *stage, uint64_t ns)
{
    struct rx *rx = stage->self;

    /* Woken by a datagram, so the timer only serves the heartbeat. */
    receiver_park(rx->receiver, 20 * ns);
    return true;
}

static bool rx_drained(struct stage *stage)
{
    (void)stage;
    return true;
}

static void rx_close(struct stage *stage)
{
    struct rx *rx = stage->self;

    trace_close(&rx->ingress);
    receiver_close(rx->receiver);
}

const struct stage_ops rx_ops = {
    .open = rx_open,
    .poll = rx_poll,
    .tick = rx_tick,
    .drained = rx_drained,
    .close = rx_close,
    .park = rx_park,
    .in_flight = rx_in_flight,
};
