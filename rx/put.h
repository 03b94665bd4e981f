/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request on its way into a worker's ring. For the sources, whose loops it is compiled into (a call
 * and its copies cost 28 instructions a request).
 */
#ifndef TICKLINE_RX_PUT_H
#define TICKLINE_RX_PUT_H

#include "rx/rx_own.h"
#include "shm/crash.h"

#include <errno.h>
#include <string.h>

/* A request that a source has found. */
struct rx_request {
    const uint8_t *data;
    struct frame frame;
    uint64_t kernel_ns; /* REALTIME at which the kernel had it; 0: not known */
    uint16_t flow;      /* what dispatch = flow keeps together and in order */
    uint16_t place;     /* in the burst */
};

static inline uint32_t choose_worker(const struct rx *rx, const struct rx_request *request)
{
    if (rx->workers == 1)
        return 0;
    switch (rx->dispatch) {
    case DISPATCH_KEY:
        return (uint32_t)(request->frame.id % rx->workers);
    case DISPATCH_ROUND_ROBIN:
        return (uint32_t)(rx->issued % rx->workers);
    case DISPATCH_FLOW:
    default:
        return request->flow % rx->workers;
    }
}

/* The kernel's receive time on our clock, by the newest clock pair; `now` where there is none. */
static inline uint64_t kernel_ticks(const struct stage *stage, const struct rx *rx,
                                    uint64_t kernel_ns, uint64_t now)
{
    if (kernel_ns == 0 || rx->pair.tsc == 0)
        return now;
    double ns = (double)position_diff(kernel_ns, rx->pair.real_ns);
    return rx->pair.tsc + (uint64_t)(int64_t)(ns * stage->clock.hz / 1e9);
}

static inline void fill_slot(const struct rx *rx, struct ring_slot *slot, const uint8_t *data,
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

/*
 * Gives a request its number and puts it into a worker's ring, or counts it as dropped. Copies what it
 * needs of `data`. -EAGAIN: the ring is full and it must wait (ring.full = wait, or a source that
 * must lose nothing); nothing has happened then.
 */
static inline int rx_put(struct stage *stage, struct rx *rx, const struct rx_request *request)
{
    const struct frame *frame = &request->frame;
    uint32_t worker = choose_worker(rx, request);
    struct ring_producer *ring = &rx->to_worker[worker];
    struct ring_slot *slot = ring_claim(ring);

    if (!slot && !rx->drop)
        return -EAGAIN;
    store_relaxed(&stage->cell->issued, ++rx->issued);
    crash_point("rx:issued");

    uint64_t now = tsc_read();
    trace_stamp_wide(&stage->trace, now, POINT_rx_got, request->place, rx->issued,
                     request->kernel_ns, frame->id);
    struct ingress_record record = {
        .request = rx->issued,
        .id = frame->id,
        .kernel_ns = request->kernel_ns,
        .datagram = (uint32_t)(stage->figures.datagrams + 1),
        .flow = request->flow,
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
    fill_slot(rx, slot, request->data, frame, ring_capacity(ring->slot_bytes));
    slot->ingress = kernel_ticks(stage, rx, request->kernel_ns, now);
    slot->flow = request->flow;
    crash_point("rx:filled");
    ring_publish(ring);
    crash_point("rx:put");
    rx->published++;
    trace_stamp(&stage->trace, POINT_rx_put, 0, rx->issued);
    if (rx->bells && ring_wake(ring, rx->was_idle))
        stage->figures.wakes++;
    return 0;
}

#endif
