/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tx.sink = reply with rx.source = tcp: a reply goes out on the connection that its request came in on
 * (shm/connection.h). rx accepts and reads, tx writes; the launcher brings each descriptor here.
 *
 * A connection that rx has ended is closed for writing once all of its requests have their outputs here
 * and the kernel has them. One that is broken, or that fails here, takes no more: what waits for it is
 * dropped. In both cases the place is given back by `released`, and what comes later for that
 * connection is dropped as well.
 */
#include "stage/control.h"
#include "tx/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOKS = 64 /* places that a tick looks at */, RECEIVE_NS = 50000 };

#define MISSING_NS UINT64_C(1000000000)

struct reply {
    struct streams streams; /* first: tx->own is both */
    struct connections *table;
    uint64_t released[STREAMS_MAX]; /* as in the table: the newest number we are done with */
    uint32_t looked;                /* the place to be looked at next */
    uint64_t asked;                 /* tsc at which the launcher's messages were last taken */
    uint64_t receive_ticks;
    uint64_t missing_ticks;
};

static struct connection *at(const struct reply *reply, const struct stream *stream)
{
    return &reply->table->place[stream->place];
}

/* ---- how a connection leaves ---- */

/* It is done with: our copy of the descriptor goes, rx may use the place again. */
static void release(struct tx *tx, struct stream *stream)
{
    struct reply *reply = tx->own;

    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
    reply->released[stream->place] = stream->number;
    store_release(&at(reply, stream)->released, stream->number);
    crash_point("stream:released");
}

/* Nothing reaches it any more. */
static void abandon(struct stage *stage, struct tx *tx, struct stream *stream, uint32_t reason)
{
    if (stream->fd >= 0)
        stream_counter_add(&stage->cells->streams.unacknowledged_bytes,
                           stream_unacknowledged(stream->fd));
    stream_drop(stage, tx, stream, reason);
    release(tx, stream);
}

/* Has rx said that it ends, and is it time? */
static void look(struct stage *stage, struct tx *tx, struct stream *stream)
{
    struct reply *reply = tx->own;
    const struct connection *connection = at(reply, stream);
    uint64_t number = load_acquire(&connection->number);
    uint32_t state = load_acquire(&connection->state);

    if (state >= CONNECTION_STATES)
        region_corrupt("state of a connection", CONNECTION_STATES - 1, state);
    if (state < CONNECTION_ENDED || number == reply->released[stream->place])
        return;
    if (number != stream->number) /* it came and went without a request */
        stream_begin(tx, stream, number);
    if (state == CONNECTION_BROKEN) {
        abandon(stage, tx, stream, CELL_UNDELIVERED_GONE);
    } else if (stream->head == STREAM_END && stream->taken == load_relaxed(&connection->issued)) {
        if (stream->fd >= 0)
            (void)shutdown(stream->fd, SHUT_WR);
        crash_point("stream:ended");
        release(tx, stream);
    }
}

/* ---- as struct stream_kind has them ---- */

/* A number is stored while its place is free, `first` before the place is open: in this order of reading
 * they belong together, or the place is seen to be free. */
static struct stream *reply_choose(struct stage *stage, struct tx *tx, const struct ring_slot *slot)
{
    struct reply *reply = tx->own;

    (void)stage;
    if (slot->flow >= reply->streams.count)
        region_corrupt("place of a request", reply->streams.count - 1, slot->flow);
    struct stream *stream = &reply->streams.stream[slot->flow];
    const struct connection *connection = at(reply, stream);
    uint64_t number = load_acquire(&connection->number);
    uint32_t state = load_acquire(&connection->state);
    if (state == CONNECTION_FREE || number == reply->released[slot->flow] ||
        slot->request < load_relaxed(&connection->first))
        return NULL;
    if (unlikely(number != stream->number))
        stream_begin(tx, stream, number);
    return stream;
}

static void reply_failed(struct stage *stage, struct tx *tx, struct stream *stream, int err)
{
    if (stream->fd >= 0) /* so that rx sees its end */
        (void)shutdown(stream->fd, SHUT_RDWR);
    abandon(stage, tx, stream, err ? CELL_UNDELIVERED_ERROR : CELL_UNDELIVERED_PATIENCE);
}

static const struct stream_kind kind = {
    .choose = reply_choose,
    .failed = reply_failed,
    .emptied = look,
};

/* ---- descriptors ---- */

/* After a kill there may be a queue already, of which the kernel has a part. */
static void take_descriptor(struct stage *stage, struct tx *tx, struct stream *stream, int fd)
{
    struct reply *reply = tx->own;
    uint64_t bytes;

    stream->fd = fd;
    if (stream->head == STREAM_END)
        return;
    int err = stream_kernel_bytes(fd, &bytes);
    if (err < 0)
        abandon(stage, tx, stream, CELL_UNDELIVERED_ERROR);
    else
        stream_settle(stage, tx, stream, bytes - load_relaxed(&at(reply, stream)->written_before));
}

static bool reply_given(struct stage *stage, struct tx *tx, const char *name, uint64_t value,
                        int fd)
{
    struct reply *reply = tx->own;
    unsigned place;

    if (sscanf(name, "connection.%u", &place) != 1 || place >= reply->streams.count)
        return false;
    struct stream *stream = &reply->streams.stream[place];
    if (value <= reply->released[place] || value < stream->number ||
        (value == stream->number && stream->fd >= 0))
        return false;
    if (value != stream->number)
        stream_begin(tx, stream, value);
    take_descriptor(stage, tx, stream, fd);
    return true;
}

/* A reply may be faster than the descriptor, which comes by the launcher. */
static void ask_for_missing(struct stage *stage, struct tx *tx)
{
    struct reply *reply = tx->own;
    uint64_t now = tsc_read();

    if (now - reply->asked < reply->receive_ticks)
        return;
    reply->asked = now;
    (void)stage_receive(stage);
}

static void give_up_missing(struct stage *stage, struct tx *tx, uint64_t now)
{
    const struct reply *reply = tx->own;

    for (struct stream *stream = reply->streams.busy; stream; stream = stream->next_busy) {
        if (stream->fd < 0 && stream->head != STREAM_END &&
            position_diff(now, stream->since + reply->missing_ticks) > 0)
            stream_drop(stage, tx, stream, CELL_UNDELIVERED_GONE);
    }
}

/* ---- as struct tx_sink has them ---- */

static int reply_open(struct stage *stage, struct tx *tx)
{
    const struct region_want want = connections_want(stage->arena.header->epoch);
    struct reply *reply = calloc(1, sizeof(*reply));
    struct region region;

    if (!reply)
        return -ENOMEM;
    tx->own = reply;
    reply->receive_ticks = clock_ticks(&stage->clock, RECEIVE_NS);
    reply->missing_ticks = clock_ticks(&stage->clock, MISSING_NS);
    int err = stage_attach(stage, &region, "connections", &want, true);
    if (err < 0)
        return err;
    reply->table = connections_of(&region);
    for (uint32_t i = 0; i < STREAMS_MAX; i++)
        reply->released[i] = load_relaxed(&reply->table->place[i].released);
    return streams_open(stage, tx, &kind, stage->config.rx.connections,
                        stage_descriptor(stage, "tx.streams"));
}

static int reply_poll(struct stage *stage, struct tx *tx)
{
    const struct reply *reply = tx->own;

    if (unlikely(reply->streams.missing))
        ask_for_missing(stage, tx);
    return streams_poll(stage, tx);
}

static void reply_tick(struct stage *stage, struct tx *tx, uint64_t now)
{
    struct reply *reply = tx->own;

    (void)stage_receive(stage);
    streams_tick(stage, tx, now);
    give_up_missing(stage, tx, now);
    for (uint32_t n = 0; n < LOOKS && n < reply->streams.count; n++)
        look(stage, tx, &reply->streams.stream[reply->looked++ % reply->streams.count]);
}

static void reply_close(struct stage *stage, struct tx *tx)
{
    (void)stage;
    (void)tx;
}

const struct tx_sink tx_reply_tcp = {
    .open = reply_open,
    .poll = reply_poll,
    .tick = reply_tick,
    .given = reply_given,
    .idle = streams_idle,
    .nap = streams_nap,
    .close = reply_close,
};
