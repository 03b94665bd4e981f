/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { IOVS = 64 };

/* ---- queues ---- */

void stream_join(struct streams *streams, struct stream *stream, uint32_t index, uint64_t now)
{
    struct stream_output *output = streams->memory.output;

    output[index].next = STREAM_END;
    if (stream->head == STREAM_END) {
        stream->head = index;
        stream->since = now;
    } else {
        output[stream->tail].next = index;
    }
    stream->tail = index;
    stream->waiting++;
}

void stream_mind(struct streams *streams, struct stream *stream)
{
    if (stream->busy || stream->head == STREAM_END)
        return;
    stream->busy = true;
    stream->next_busy = streams->busy;
    streams->busy = stream;
}

/* The head is done with, whatever became of it. */
static void leave(struct streams *streams, struct stream *stream, uint8_t outcome)
{
    struct stream_output *output = &streams->memory.output[stream->head];

    store_release(&output->outcome, (uint8_t)(outcome + 1));
    crash_point("stream:marked");
    stream->head = output->next;
    stream->waiting--;
    streams->completed++;
}

void stream_drop(struct stage *stage, struct tx *tx, struct stream *stream, uint32_t reason)
{
    struct streams *streams = tx->own;

    stream_counter_add(&stage->cells->streams.undelivered[reason], stream->waiting);
    while (stream->head != STREAM_END) {
        const struct ring_slot *slot = stream_slot(&streams->memory, tx, stream->head);
        leave(streams, stream, tx_complete(stage, tx, slot->request, slot->ingress, -ECONNRESET));
    }
    stream->offset = 0;
    stream->retry_ticks = 0;
}

/* ---- writing ---- */

static uint32_t gather(const struct tx *tx, const struct stream *stream, struct iovec iov[IOVS])
{
    const struct streams *streams = tx->own;
    uint32_t skip = stream->offset;
    uint32_t count = 0;

    for (uint32_t i = stream->head; i != STREAM_END && count < IOVS;
         i = streams->memory.output[i].next) {
        const struct ring_slot *slot = stream_slot(&streams->memory, tx, i);
        iov[count++] =
            (struct iovec){(uint8_t *)(uintptr_t)slot->payload + skip, slot->length - skip};
        skip = 0;
    }
    return count;
}

/* The replies of which the write that began at `begun` took the first byte. */
static void stamp_sent(struct stage *stage, const struct tx *tx, const struct stream *stream,
                       uint64_t bytes, uint64_t begun)
{
    const struct streams *streams = tx->own;
    uint32_t i = stream->head;

    for (uint64_t at = 0; i != STREAM_END && at < bytes; i = streams->memory.output[i].next) {
        const struct ring_slot *slot = stream_slot(&streams->memory, tx, i);
        if (at > 0 || stream->offset == 0)
            trace_stamp_at(&stage->trace, begun, POINT_tx_sent, slot->length, slot->request);
        at += slot->length - (at == 0 ? stream->offset : 0);
    }
}

/* The kernel has `bytes` more of the queue. */
static void take_away(struct stage *stage, struct tx *tx, struct stream *stream, uint64_t bytes)
{
    struct streams *streams = tx->own;

    stage->figures.bytes += bytes;
    bytes += stream->offset;
    stream->offset = 0;
    while (stream->head != STREAM_END) {
        const struct ring_slot *slot = stream_slot(&streams->memory, tx, stream->head);
        if (slot->length > bytes) {
            stream->offset = (uint32_t)bytes;
            return;
        }
        bytes -= slot->length;
        leave(streams, stream, tx_complete(stage, tx, slot->request, slot->ingress, 1));
    }
}

void stream_wrote(struct stage *stage, struct tx *tx, struct stream *stream, uint64_t bytes,
                  uint64_t begun)
{
    stamp_sent(stage, tx, stream, bytes, begun);
    take_away(stage, tx, stream, bytes);
}

static void hold_back(const struct streams *streams, struct stream *stream)
{
    uint64_t ticks = 2 * stream->retry_ticks;

    ticks = ticks < streams->retry_min_ticks ? streams->retry_min_ticks : ticks;
    stream->retry_ticks = ticks > streams->retry_max_ticks ? streams->retry_max_ticks : ticks;
    stream->retry_at = tsc_read() + stream->retry_ticks;
}

static bool wants_later(int err)
{
    return err == EAGAIN || err == EINTR || err == ENOBUFS || err == ENOMEM;
}

/* One call. False: the kernel takes no more now, or never again. */
static bool write_some(struct stage *stage, struct tx *tx, struct stream *stream)
{
    const struct streams *streams = tx->own;
    struct iovec iov[IOVS];
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = gather(tx, stream, iov)};
    uint64_t begun = tsc_read();
    ssize_t got = message.msg_iovlen == 1
                      ? send(stream->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (got < 0) {
        if (wants_later(errno))
            hold_back(streams, stream);
        else
            streams->kind->failed(stage, tx, stream, -errno);
        return false;
    }
    crash_point("stream:written");
    stream_wrote(stage, tx, stream, (uint64_t)got, begun);
    stream->since = begun;
    stream->retry_ticks = 0;
    return true;
}

static void write_out(struct stage *stage, struct tx *tx, struct stream *stream)
{
    const struct streams *streams = tx->own;

    while (stream->head != STREAM_END) {
        if (!write_some(stage, tx, stream))
            return;
    }
    if (streams->kind->emptied)
        streams->kind->emptied(stage, tx, stream);
}

static bool may_write(const struct stream *stream, uint64_t now)
{
    return stream->fd >= 0 &&
           (stream->retry_ticks == 0 || position_diff(now, stream->retry_at) >= 0);
}

/* What has waited long enough, or goes on where the kernel had no room. */
static bool is_due(const struct streams *streams, const struct stream *stream, uint64_t now)
{
    return may_write(stream, now) &&
           (stream->retry_ticks || stream->waiting >= streams->flush_count ||
            now - stream->since >= streams->flush_ticks || streams->ends_since);
}

/* True: some of it waits for the other side. */
static bool write_due(struct stage *stage, struct tx *tx)
{
    struct streams *streams = tx->own;
    struct stream **at = &streams->busy;
    uint64_t now = *at ? tsc_read() : 0;
    bool blocked = false;
    bool missing = false;

    while (*at) {
        struct stream *stream = *at;
        if (is_due(streams, stream, now))
            write_out(stage, tx, stream);
        if (stream->head == STREAM_END) {
            stream->busy = false;
            *at = stream->next_busy;
        } else {
            blocked = blocked || stream->retry_ticks;
            missing = missing || stream->fd < 0;
            at = &stream->next_busy;
        }
    }
    streams->missing = missing;
    return blocked || missing;
}

/* ---- taking ---- */

/* Notes where the output belongs, before anything of it is written. */
static void note(struct stage *stage, const struct tx *tx, uint32_t ring, struct stream *stream,
                 const struct ring_slot *slot, struct stream_output *output)
{
    const struct streams *streams = tx->own;

    if (stream) {
        stream->taken += slot->part + 1 == slot->parts;
        store_relaxed(&output->begin, stream->queued);
        store_relaxed(&output->number, stream->number);
        store_relaxed(&output->taken, stream->taken);
    }
    store_relaxed(&output->place, stream ? stream->place : (uint16_t)STREAM_NOWHERE);
    crash_point("stream:noted");
    store_release(&stage->cells->sending[ring], tx->from[ring].next + 1);
    crash_point("stream:taken");
    if (stream) {
        struct stream_record *record = &streams->memory.record[stream->place];
        stream->queued += slot->kind == RING_REPLY ? slot->length : 0;
        store_relaxed(&record->queued, stream->queued);
        store_relaxed(&record->taken, stream->taken);
    }
}

static void take_output(struct stage *stage, struct tx *tx, uint32_t ring,
                        const struct ring_slot *slot)
{
    struct streams *streams = tx->own;
    uint32_t index = stream_index(&streams->memory, tx, ring, tx->from[ring].next);
    struct stream_output *output = &streams->memory.output[index];
    uint64_t now = tsc_read();
    uint8_t outcome = 0;

    trace_stamp_at(&stage->trace, now, POINT_tx_got, 0, slot->request);
    struct stream *stream = streams->kind->choose(stage, tx, slot);
    if (slot->kind != RING_REPLY) {
        outcome = tx_unsent(slot) + 1;
    } else if (!stream) {
        stream_counter_add(&stage->cells->streams.undelivered[CELL_UNDELIVERED_GONE], 1);
        outcome = OUTCOME_DROPPED + 1;
    }
    store_relaxed(&output->outcome, outcome);
    note(stage, tx, ring, stream, slot, output);
    if (outcome)
        return;
    stream_join(streams, stream, index, now);
    if (stream->waiting >= streams->flush_count && may_write(stream, now))
        write_out(stage, tx, stream);
    stream_mind(streams, stream);
}

/* In the ring's order, up to the first that waits. */
static void count_done(struct stage *stage, struct tx *tx)
{
    const struct streams *streams = tx->own;

    for (uint32_t i = 0; i < tx->rings; i++) {
        while (tx->counted[i] != tx->from[i].next) {
            uint32_t index = stream_index(&streams->memory, tx, i, tx->counted[i]);
            uint8_t outcome = load_relaxed(&streams->memory.output[index].outcome);
            if (!outcome)
                break;
            tx_count(stage, tx, i, tx->counted[i], (uint8_t)(outcome - 1));
        }
    }
}

int streams_poll(struct stage *stage, struct tx *tx)
{
    const struct streams *streams = tx->own;
    uint64_t completed = streams->completed;
    uint32_t moved = 0;

    for (uint32_t i = 0; i < tx->rings; i++) {
        struct ring_consumer *ring = &tx->from[i];
        const struct ring_slot *slot;
        for (uint32_t n = 0; n < tx->burst && (slot = ring_peek(ring)) != NULL; n++, moved++) {
            take_output(stage, tx, i, slot);
            ring_next(ring);
        }
    }
    bool blocked = write_due(stage, tx);
    count_done(stage, tx);
    tx_publish(stage, tx);
    moved += (uint32_t)(streams->completed - completed);
    return moved == 0 && blocked ? -EAGAIN : (int)moved;
}

/* ---- patience ---- */

/* Whoever has taken nothing for too long. At the end of a run there is less time. */
static bool is_out_of_patience(const struct streams *streams, const struct stream *stream,
                               uint64_t now)
{
    uint64_t ends = position_max(stream->since, streams->ends_since);

    return (streams->patience_ticks &&
            position_diff(now, stream->since + streams->patience_ticks) > 0) ||
           (streams->ends_since && position_diff(now, ends + streams->drain_ticks) > 0);
}

void streams_tick(struct stage *stage, struct tx *tx, uint64_t now)
{
    struct streams *streams = tx->own;

    if (!streams->ends_since && tx_ends(stage))
        streams->ends_since = now;
    for (struct stream *stream = streams->busy; stream; stream = stream->next_busy) {
        if (stream->head != STREAM_END && is_out_of_patience(streams, stream, now))
            streams->kind->failed(stage, tx, stream, 0);
    }
}

bool streams_idle(const struct stage *stage, const struct tx *tx)
{
    (void)stage;
    for (uint32_t i = 0; i < tx->rings; i++) {
        if (tx->counted[i] != tx->from[i].next)
            return false;
    }
    return true;
}

uint64_t streams_nap(const struct stage *stage, const struct tx *tx, uint64_t ns)
{
    const struct streams *streams = tx->own;
    uint64_t now = tsc_read();

    for (const struct stream *stream = streams->busy; stream; stream = stream->next_busy) {
        uint64_t at = stream->retry_ticks ? stream->retry_at : stream->since + streams->flush_ticks;
        if (stream->fd < 0)
            continue;
        int64_t left = position_diff(at, now);
        uint64_t left_ns = left > 0 ? clock_ns(&stage->clock, (uint64_t)left) : 0;
        ns = left_ns < ns ? left_ns : ns;
    }
    return ns;
}
