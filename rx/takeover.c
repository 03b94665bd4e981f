/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receiver, the first or a successor's. Nothing is lost with rx: its batch outlives it (stage/io.h), and
 *
 *     issued - published - dropped    0: the newest number is done with, 1: it is not
 *
 * says where in the batch a successor goes on: with the same request under the same number.
 */
#include "rx/rx_own.h"

#include <string.h>

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
        if (rx_pass_frame(stage, rx, datagram, &frame))
            rx->batch_next++;
    }
    if (rx->issued != done)
        region_corrupt("requests of the batch", done, rx->issued);
}

int rx_take_over(struct stage *stage, struct rx *rx)
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
