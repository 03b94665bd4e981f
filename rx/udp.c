/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rx.source = udp: datagrams of one or many sockets.
 *
 * Nothing is lost with rx: its batch outlives it (stage/io.h), and
 *
 *     issued - published - dropped    0: the newest number is done with, 1: it is not
 *
 * says where in the batch a successor goes on: with the same request under the same number.
 */
#include "rx/datagram.h"
#include "rx/socket.h"
#include "shm/peer.h"
#include "stage/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct udp {
    int sockets[SOCKETS_MAX];
    uint32_t socket_count;
    struct receiver *receiver;
    struct peer_book *peers; /* where replies go back to senders (tx.sink = reply); else NULL */
    /* where a full ring made us stop in the batch (ring.full = wait) */
    struct received *batch;
    uint32_t batch_count;
    uint32_t batch_next;
    struct rx_cursor cursor;
};

static void count_datagram(struct stage *stage, const struct received *datagram)
{
    stage->figures.datagrams++;
    stage->figures.bytes += datagram->length;
}

/* Gives each datagram of a batch the flow of its sender's place, before a request of it has a number. (No
 * place is used twice in a batch: it is shorter than the table.) */
static void find_peers(const struct rx *rx, struct udp *udp)
{
    for (uint32_t i = udp->batch_next; i < udp->batch_count; i++) {
        struct received *datagram = &udp->batch[i];
        uint16_t place = peer_find(udp->peers, datagram->name, datagram->socket, rx->issued + 1);
        datagram->source = place ^ datagram->socket;
    }
}

/* ---- open ---- */

/* Goes through a predecessor's batch up to the request after number `done`. */
static void resume(struct stage *stage, struct rx *rx, const struct receiver_mark *mark,
                   uint64_t done)
{
    struct udp *udp = rx->own;

    rx->issued = mark->tag;
    stage->figures.datagrams = mark->datagrams;
    stage->figures.bytes = mark->bytes;
    while (udp->batch_next < udp->batch_count && rx->issued < done) {
        const struct received *datagram = &udp->batch[udp->batch_next];
        rx->issued +=
            rx_skip(rx->schema, datagram->data, datagram->length, done - rx->issued, &udp->cursor);
        if (udp->cursor.offset == 0) {
            count_datagram(stage, datagram);
            udp->batch_next++;
        }
    }
    if (rx->issued != done)
        region_corrupt("requests of the batch", done, rx->issued);
}

static int open_receiver(struct stage *stage, struct rx *rx)
{
    static const char *const asked[] = {"auto", "uring", "plain"};
    const struct config *config = &stage->config;
    struct udp *udp = rx->own;
    struct receiver_mark mark;
    struct io_choice choice;

    int err = io_choose(config->rx.io, udp->socket_count, &choice);
    if (err < 0)
        return stage_error(stage, err, "rx.io = uring: %s", choice.why);
    stage_note(stage, "rx.io", asked[config->rx.io], choice.uring ? "uring" : "plain", choice.why);
    struct receiver_plan plan = {
        .uring = choice.uring,
        .sources = udp->peers || (rx->workers > 1 && rx->dispatch == DISPATCH_FLOW),
        .huge = config->memory.pages != PAGES_4K,
        .sockets = udp->sockets,
        .count = udp->socket_count,
        .buffers = config->rx.recv_buffers,
        .burst = config->rx.burst,
        .epoch = stage->arena.header->epoch,
        .memory = stage_descriptor(stage, "rx.received"),
    };
    err = receiver_open(&udp->receiver, &plan);
    if (err < 0)
        return stage_error(stage, err, "receive buffers: %s", strerror(-err));
    udp->batch_count = receiver_recover(udp->receiver, &mark, &udp->batch);
    resume(stage, rx, &mark, rx_done_with(stage, rx));
    if (udp->peers)
        find_peers(rx, udp);
    return plan.memory >= 0 ? 0
                            : stage_deposit(stage, "rx.received", receiver_memory(udp->receiver));
}

static int open_peers(struct stage *stage, struct udp *udp)
{
    const struct region_want want = peers_want(stage->arena.header->epoch);
    struct region region;

    if (strcmp(stage->config.tx.sink, "reply") != 0)
        return 0;
    int err = stage_attach(stage, &region, "peers", &want, true);
    if (err < 0)
        return err;
    udp->peers = calloc(1, sizeof(*udp->peers));
    if (!udp->peers)
        return -ENOMEM;
    peer_book_open(udp->peers, peers_of(&region));
    return 0;
}

static int udp_open(struct stage *stage, struct rx *rx)
{
    struct udp *udp = calloc(1, sizeof(*udp));

    if (!udp)
        return -ENOMEM;
    rx->own = udp;
    int count = sockets_open(stage, udp->sockets);
    if (count < 0)
        return count;
    udp->socket_count = (uint32_t)count;
    int err = open_peers(stage, udp);
    return err < 0 ? err : open_receiver(stage, rx);
}

/* ---- poll ---- */

static int take_datagram(struct stage *stage, struct rx *rx, const struct received *received)
{
    struct udp *udp = rx->own;
    const struct rx_datagram datagram = {
        .data = received->data,
        .length = received->length,
        .kernel_ns = received->kernel_ns,
        .flow = received->source ^ received->socket,
        .place = (uint16_t)udp->batch_next,
    };

    int err = rx_put_datagram(stage, rx, &datagram, &udp->cursor);
    if (err == 0)
        count_datagram(stage, received);
    return err;
}

/* Its datagrams were received; the requests in them were not. */
static void leave_batch(struct stage *stage, struct udp *udp)
{
    stage->figures.datagrams += udp->batch_count - udp->batch_next;
    udp->batch_next = udp->batch_count;
    udp->cursor = (struct rx_cursor){0};
}

static int udp_poll(struct stage *stage, struct rx *rx)
{
    struct udp *udp = rx->own;
    uint32_t moved = 0;

    if (udp->batch_next == udp->batch_count) {
        int got = receiver_poll(udp->receiver, rx->issued, &udp->batch);
        if (got <= 0) {
            rx->was_idle = true;
            udp->batch_count = udp->batch_next = 0;
            return got;
        }
        udp->batch_count = (uint32_t)got;
        udp->batch_next = 0;
        if (udp->peers)
            find_peers(rx, udp);
    }
    for (; udp->batch_next < udp->batch_count; udp->batch_next++, moved++) {
        if (take_datagram(stage, rx, &udp->batch[udp->batch_next]) == -EAGAIN) {
            if (moved == 0 && !rx_is_in_vain(stage, rx))
                return -EAGAIN;
            if (moved == 0)
                leave_batch(stage, udp);
            return (int)moved;
        }
        rx->was_idle = false;
    }
    return (int)moved;
}

static void udp_park(struct stage *stage, struct rx *rx, uint64_t ns)
{
    const struct udp *udp = rx->own;

    (void)stage;
    receiver_park(udp->receiver, ns);
}

static void udp_close(struct stage *stage, struct rx *rx)
{
    struct udp *udp = rx->own;

    (void)stage;
    receiver_close(udp->receiver);
}

const struct rx_source rx_udp = {
    .name = "udp",
    .open = udp_open,
    .poll = udp_poll,
    .park = udp_park,
    .close = udp_close,
};
