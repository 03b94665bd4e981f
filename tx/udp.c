/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tx.sink = udp: a datagram to tx.to for each reply. A send that was begun and not counted is made
 * again by a successor, and listed: with plain calls at most the one that was under way, with io_uring
 * a window of them.
 */
#include "stage/io.h"
#include "tx/socket.h"
#include "tx/tx_own.h"

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

struct udp {
    struct sender *sender;
    uint64_t oldest;
    uint64_t newest;
    struct pending window[WINDOW];
};

static int udp_open(struct stage *stage, struct tx *tx)
{
    static const char *const asked[] = {"auto", "uring", "plain"};
    struct udp *udp = calloc(1, sizeof(*udp));
    struct io_choice choice;

    if (!udp)
        return -ENOMEM;
    tx->own = udp;
    tx_list_repeats(stage, tx);
    int fd = socket_open(stage);
    if (fd < 0)
        return fd;
    int err = io_choose(stage->config.tx.io, 1, &choice);
    if (err < 0)
        return stage_error(stage, err, "tx.io = uring: %s", choice.why);
    stage_note(stage, "tx.io", asked[stage->config.tx.io], choice.uring ? "uring" : "plain",
               choice.why);
    err = sender_open(&udp->sender, choice.uring, fd, WINDOW);
    return err < 0 ? stage_error(stage, err, "sender: %s", strerror(-err)) : 0;
}

/* In the ring's order: behind what is still in flight an output waits for its turn to be counted. */
static void finish(struct stage *stage, struct tx *tx, struct udp *udp, uint32_t ring,
                   const struct ring_slot *slot, uint8_t outcome)
{
    uint64_t position = tx->from[ring].next;

    if (udp->oldest == udp->newest)
        tx_count(stage, tx, ring, position, outcome);
    else
        udp->window[udp->newest++ % WINDOW] = (struct pending){
            .position = position,
            .request = slot->request,
            .ring = (uint16_t)ring,
            .outcome = outcome,
            .complete = true,
        };
}

/* One output of a ring. -EAGAIN: the kernel has no room for it; nothing has happened then. */
static int take_output(struct stage *stage, struct tx *tx, struct udp *udp, uint32_t ring,
                       const struct ring_slot *slot)
{
    uint64_t now = tsc_read();
    uint8_t outcome;

    if (slot->kind == RING_REPLY) {
        store_relaxed(&stage->cells->sending[ring], tx->from[ring].next + 1);
        crash_point("tx:sending");
        uint64_t sent = tsc_read();
        trace_begin(&stage->trace, POINT_tx_got, slot->request);
        int result = sender_send(udp->sender, slot->payload, slot->length, udp->newest);
        if (result == -EAGAIN)
            return result;
        crash_point("tx:sent");
        trace_stamp_at(&stage->trace, now, POINT_tx_got, 0, slot->request);
        trace_stamp_at(&stage->trace, sent, POINT_tx_sent, slot->length, slot->request);
        stage->figures.bytes += slot->length;
        if (result == 0) {
            udp->window[udp->newest++ % WINDOW] = (struct pending){
                .position = tx->from[ring].next,
                .request = slot->request,
                .ingress = slot->ingress,
                .ring = (uint16_t)ring,
            };
            return 0;
        }
        outcome = tx_complete(stage, tx, slot->request, slot->ingress, result);
    } else {
        trace_stamp_at(&stage->trace, now, POINT_tx_got, 0, slot->request);
        outcome = tx_unsent(slot);
    }
    finish(stage, tx, udp, ring, slot, outcome);
    return 0;
}

/* Counts what has completed, oldest first. */
static void retire(struct stage *stage, struct tx *tx)
{
    struct udp *udp = tx->own;

    for (; udp->oldest != udp->newest; udp->oldest++) {
        const struct pending *pending = &udp->window[udp->oldest % WINDOW];
        if (!pending->complete)
            break;
        tx_count(stage, tx, pending->ring, pending->position, pending->outcome);
    }
}

static int reap(struct stage *stage, struct tx *tx)
{
    struct udp *udp = tx->own;
    uint64_t tag;
    int result;

    int err = sender_submit(udp->sender);
    while (sender_reap(udp->sender, &tag, &result) > 0) {
        struct pending *pending = &udp->window[tag % WINDOW];
        pending->outcome = tx_complete(stage, tx, pending->request, pending->ingress, result);
        pending->complete = true;
    }
    return err;
}

static int udp_poll(struct stage *stage, struct tx *tx)
{
    struct udp *udp = tx->own;
    uint32_t moved = 0;
    bool blocked = false;

    for (uint32_t i = 0; i < tx->rings && !blocked; i++) {
        struct ring_consumer *ring = &tx->from[i];
        const struct ring_slot *slot;
        for (uint32_t n = 0; n < tx->burst && (slot = ring_peek(ring)) != NULL; n++) {
            blocked =
                udp->newest - udp->oldest == WINDOW || take_output(stage, tx, udp, i, slot) < 0;
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
    tx_publish(stage, tx);
    return moved == 0 && blocked ? -EAGAIN : (int)moved;
}

static bool udp_idle(const struct stage *stage, const struct tx *tx)
{
    const struct udp *udp = tx->own;

    (void)stage;
    return udp->oldest == udp->newest;
}

static void udp_close(struct stage *stage, struct tx *tx)
{
    struct udp *udp = tx->own;

    (void)stage;
    sender_close(udp->sender);
}

const struct tx_sink tx_udp = {
    .open = udp_open,
    .poll = udp_poll,
    .idle = udp_idle,
    .close = udp_close,
};
