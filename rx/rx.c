/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rx: takes datagrams from the kernel, finds the requests in them, gives each a number and puts it
 * into a worker's ring. A full ring drops the newest request and counts it (ring.full = wait: rx
 * waits, and the kernel drops). A number is stored in the cell before it is used, so that no number
 * is ever given twice.
 *
 * Nothing is lost with rx: its batch outlives it (stage/io.h), and
 *
 *     issued - published - dropped    0: the newest number is done with, 1: it is not
 *
 * says where in the batch a successor goes on: with the same request under the same number.
 */
#include "rx/rx.h"

#include "rx/frame.h"
#include "rx/socket.h"
#include "shm/crash.h"
#include "stage/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CLOCK_TICKS = 10, BEND_NS = 5000 };

struct rx {
    int sockets[SOCKETS_MAX];
    struct receiver *receiver;
    struct ring_producer to_worker[CELL_WORKERS_MAX];
    struct trace ingress;
    uint64_t issued;    /* request numbers given out: 1 … issued */
    uint64_t published; /* into all rings */
    uint32_t workers;
    uint32_t socket_count;
    enum config_schema schema;
    enum config_dispatch dispatch;
    bool drop;
    bool bells; /* consumers may be parked */
    bool was_idle;
    /* where a full ring made us stop in the batch (ring.full = wait) */
    struct received *batch;
    uint32_t batch_count;
    uint32_t batch_next;
    uint32_t offset;
    /* clock pairs */
    uint32_t ticks;
    struct clock_pair pair;
};

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

/* On to the next request of the datagram; true where that was the last, which completes it. */
static bool pass_frame(struct stage *stage, struct rx *rx, const struct received *datagram,
                       const struct frame *frame)
{
    rx->offset += frame->length;
    if (rx->offset < datagram->length)
        return false;
    rx->offset = 0;
    stage->figures.datagrams++;
    stage->figures.bytes += datagram->length;
    return true;
}

/* Requests that are in a ring or counted as dropped: all before them are, too. */
static uint64_t done_with(const struct stage *stage, const struct rx *rx)
{
    uint64_t done = rx->published;

    for (uint32_t i = 0; i < rx->workers; i++)
        done += load_acquire(&stage->cells->dropped[i]);
    if (rx->issued - done > 1)
        region_corrupt("requests published and dropped", rx->issued, done);
    return done;
}

/* Goes through a predecessor's batch up to the request after number `done`. */
static void resume(struct stage *stage, struct rx *rx, const struct receiver_mark *mark,
                   uint64_t done)
{
    rx->issued = mark->tag;
    stage->figures.datagrams = mark->datagrams;
    stage->figures.bytes = mark->bytes;
    while (rx->batch_next < rx->batch_count && rx->issued < done) {
        const struct received *datagram = &rx->batch[rx->batch_next];
        struct frame frame =
            frame_next(rx->schema, datagram->data + rx->offset, datagram->length - rx->offset);
        rx->issued++;
        if (pass_frame(stage, rx, datagram, &frame))
            rx->batch_next++;
    }
    if (rx->issued != done)
        region_corrupt("requests of the batch", done, rx->issued);
}

static int open_receiver(struct stage *stage, struct rx *rx)
{
    static const char *const asked[] = {"auto", "uring", "plain"};
    const struct config *config = &stage->config;
    struct receiver_mark mark;
    struct io_choice choice;

    int err = io_choose(config->rx.io, rx->socket_count, &choice);
    if (err < 0)
        return stage_error(stage, err, "rx.io = uring: %s", choice.why);
    stage_note(stage, "rx.io", asked[config->rx.io], choice.uring ? "uring" : "plain", choice.why);
    struct receiver_plan plan = {
        .uring = choice.uring,
        .sources = rx->workers > 1 && rx->dispatch == DISPATCH_FLOW,
        .huge = config->memory.pages != PAGES_4K,
        .sockets = rx->sockets,
        .count = rx->socket_count,
        .buffers = config->rx.recv_buffers,
        .burst = config->rx.burst,
        .epoch = stage->arena.header->epoch,
        .memory = stage_descriptor(stage, "rx.received"),
    };
    err = receiver_open(&rx->receiver, &plan);
    if (err < 0)
        return stage_error(stage, err, "receive buffers: %s", strerror(-err));
    rx->batch_count = receiver_recover(rx->receiver, &mark, &rx->batch);
    resume(stage, rx, &mark, done_with(stage, rx));
    return plan.memory >= 0 ? 0
                            : stage_deposit(stage, "rx.received", receiver_memory(rx->receiver));
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
    return open_receiver(stage, rx);
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
    } while (!pass_frame(stage, rx, datagram, &frame));
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
        if (take_datagram(stage, rx, &rx->batch[rx->batch_next]) == -EAGAIN)
            return moved || is_in_vain(stage, rx) ? (int)moved : -EAGAIN;
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
