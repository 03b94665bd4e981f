/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tx.sink = reply with rx.source = udp: a reply goes back to who sent its datagram, from the socket that
 * it came to; rx notes senders in a table (shm/peer.h), the launcher brings rx's sockets. A send that was
 * begun and not counted is made again by a successor, and listed: at most one.
 */
#include "shm/peer.h"
#include "tx/tx_own.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { SOCKETS_MAX = CONFIG_ENDPOINTS_MAX };

struct reply {
    const struct peers *peers;
    int socket[SOCKETS_MAX]; /* -1: not here yet */
};

static int reply_open(struct stage *stage, struct tx *tx)
{
    static const char *const asked[] = {"auto", "uring", "plain"};
    const struct region_want want = peers_want(stage->arena.header->epoch);
    struct reply *reply = calloc(1, sizeof(*reply));
    struct region region;
    char name[16];

    if (!reply)
        return -ENOMEM;
    tx->own = reply;
    tx_list_repeats(stage, tx);
    stage_note(stage, "tx.io", asked[stage->config.tx.io], "plain",
               "each reply has an address of its own");
    int err = stage_attach(stage, &region, "peers", &want, false);
    if (err < 0)
        return err;
    reply->peers = peers_of(&region);
    for (int i = 0; i < SOCKETS_MAX; i++) {
        snprintf(name, sizeof(name), "rx.socket.%d", i);
        int fd = stage_descriptor(stage, name);
        reply->socket[i] = fd < 0 ? -1 : fd;
    }
    return 0;
}

static bool reply_given(struct stage *stage, struct tx *tx, const char *name, uint64_t value,
                        int fd)
{
    struct reply *reply = tx->own;
    unsigned index;

    (void)stage;
    (void)value;
    if (sscanf(name, "rx.socket.%u", &index) != 1 || index >= SOCKETS_MAX ||
        reply->socket[index] >= 0)
        return false;
    reply->socket[index] = fd;
    return true;
}

/* -1: it is not here yet. */
static int socket_of(struct stage *stage, const struct reply *reply, uint16_t index)
{
    const int *fd = &reply->socket[index % SOCKETS_MAX];

    if (index >= SOCKETS_MAX)
        region_corrupt("socket of a sender", SOCKETS_MAX - 1, index);
    if (*fd < 0)
        (void)stage_receive(stage);
    return *fd;
}

/* 0; -EAGAIN: not now; another -errno: never. */
static int send_reply(struct stage *stage, const struct reply *reply, const struct ring_slot *slot)
{
    struct peer peer;

    if (!peer_read(reply->peers, slot->flow, slot->request, &peer)) {
        _Atomic uint64_t *gone = &stage->cells->streams.undelivered[CELL_UNDELIVERED_GONE];
        store_relaxed(gone, load_relaxed(gone) + 1);
        return -ENOTCONN;
    }
    int fd = socket_of(stage, reply, peer.socket);
    if (fd < 0)
        return -EAGAIN;
    if (sendto(fd, slot->payload, slot->length, MSG_DONTWAIT | MSG_NOSIGNAL, &peer.address.any,
               load_relaxed(&peer.length)) >= 0)
        return 0;
    if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR)
        return -EAGAIN;
    _Atomic uint64_t *failed = &stage->cells->streams.undelivered[CELL_UNDELIVERED_ERROR];
    store_relaxed(failed, load_relaxed(failed) + 1);
    return -errno;
}

/* One output of a ring. -EAGAIN: it cannot be sent now; nothing has happened then. */
static int take_output(struct stage *stage, struct tx *tx, uint32_t ring,
                       const struct ring_slot *slot)
{
    uint64_t position = tx->from[ring].next;
    uint64_t now = tsc_read();
    uint8_t outcome;

    if (slot->kind == RING_REPLY) {
        store_relaxed(&stage->cells->sending[ring], position + 1);
        crash_point("tx:sending");
        uint64_t sent = tsc_read();
        trace_begin(&stage->trace, POINT_tx_got, slot->request);
        int result = send_reply(stage, tx->own, slot);
        if (result == -EAGAIN)
            return result;
        crash_point("tx:sent");
        trace_stamp_at(&stage->trace, now, POINT_tx_got, 0, slot->request);
        trace_stamp_at(&stage->trace, sent, POINT_tx_sent, slot->length, slot->request);
        stage->figures.bytes += result == 0 ? slot->length : 0;
        outcome = tx_complete(stage, tx, slot->request, slot->ingress, result);
    } else {
        trace_stamp_at(&stage->trace, now, POINT_tx_got, 0, slot->request);
        outcome = tx_unsent(slot);
    }
    tx_count(stage, tx, ring, position, outcome);
    return 0;
}

static int reply_poll(struct stage *stage, struct tx *tx)
{
    uint32_t moved = 0;
    bool blocked = false;

    for (uint32_t i = 0; i < tx->rings; i++) {
        struct ring_consumer *ring = &tx->from[i];
        const struct ring_slot *slot;
        for (uint32_t n = 0; n < tx->burst && (slot = ring_peek(ring)) != NULL; n++, moved++) {
            blocked = take_output(stage, tx, i, slot) < 0;
            if (blocked)
                break;
            ring_next(ring);
        }
    }
    tx_publish(stage, tx);
    return moved == 0 && blocked ? -EAGAIN : (int)moved;
}

/* Each is counted as soon as it is sent. */
static bool reply_idle(const struct stage *stage, const struct tx *tx)
{
    (void)stage;
    (void)tx;
    return true;
}

static void reply_close(struct stage *stage, struct tx *tx)
{
    (void)stage;
    free(tx->own);
}

const struct tx_sink tx_reply_udp = {
    .open = reply_open,
    .poll = reply_poll,
    .given = reply_given,
    .idle = reply_idle,
    .close = reply_close,
};
