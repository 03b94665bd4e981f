/* SPDX-License-Identifier: Apache-2.0 */
/* Streams after a kill: from what a predecessor has left back to queues. */
#include "tx/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MIN_NS = 10000, RETRY_MAX_NS = 1000000 };

/* An output that waits. */
struct waiting {
    uint64_t number;
    uint64_t begin;
    uint32_t index;
    uint16_t place;
};

static int in_order(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;

    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    if (x->number != y->number)
        return x->number > y->number ? -1 : 1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* The place of an output that was taken; NULL: of none. */
static struct stream *place_of(struct streams *streams, const struct stream_output *output)
{
    uint16_t place = load_relaxed(&output->place);
    uint8_t outcome = load_relaxed(&output->outcome);

    if (outcome > OUTCOME_COUNT)
        region_corrupt("outcome of an output", OUTCOME_COUNT, outcome);
    if (place == STREAM_NOWHERE && outcome)
        return NULL;
    if (place >= streams->count)
        region_corrupt("place of an output", streams->count - 1, place);
    return &streams->stream[place];
}

/* The record may lack the last output. */
static void complete_record(struct stream *stream, const struct stream_output *output,
                            const struct ring_slot *slot)
{
    uint64_t end = load_relaxed(&output->begin) + (slot->kind == RING_REPLY ? slot->length : 0);

    if (load_relaxed(&output->number) != stream->number)
        return;
    stream->queued = position_max(stream->queued, end);
    stream->taken = position_max(stream->taken, load_relaxed(&output->taken));
}

/* Goes through what was taken of a ring and is not counted. */
static uint32_t find_waiting(struct stage *stage, struct tx *tx, uint32_t ring,
                             struct waiting *waiting)
{
    struct streams *streams = tx->own;
    struct ring_consumer *from = &tx->from[ring];
    uint64_t sending = load_acquire(&stage->cells->sending[ring]);
    uint32_t count = 0;

    for (; position_diff(sending, from->next) > 0; ring_next(from)) {
        const struct ring_slot *slot = ring_peek(from);
        if (!slot)
            region_corrupt("outputs taken", from->next, sending);
        uint32_t index = stream_index(&streams->memory, tx, ring, from->next);
        const struct stream_output *output = &streams->memory.output[index];
        struct stream *stream = place_of(streams, output);
        if (stream)
            complete_record(stream, output, slot);
        if (load_relaxed(&output->outcome))
            continue;
        if (slot->kind != RING_REPLY)
            region_corrupt("kind of an output that waits", RING_REPLY, slot->kind);
        trace_stamp(&stage->trace, POINT_tx_got, 0, slot->request);
        waiting[count++] = (struct waiting){
            .number = load_relaxed(&output->number),
            .begin = load_relaxed(&output->begin),
            .index = index,
            .place = stream->place,
        };
    }
    return count;
}

static void line_up(struct streams *streams, const struct waiting *waiting, uint32_t count)
{
    uint64_t now = tsc_read();

    for (uint32_t i = 0; i < count; i++)
        stream_join(streams, &streams->stream[waiting[i].place], waiting[i].index, now);
    for (uint32_t i = 0; i < streams->count; i++)
        stream_mind(streams, &streams->stream[i]);
}

static int recover(struct stage *stage, struct tx *tx)
{
    struct streams *streams = tx->own;
    size_t most = (size_t)tx->rings << streams->memory.shift;
    struct waiting *waiting = calloc(most, sizeof(*waiting));
    uint32_t count = 0;

    if (!waiting)
        return -ENOMEM;
    for (uint32_t i = 0; i < tx->rings; i++)
        count += find_waiting(stage, tx, i, waiting + count);
    qsort(waiting, count, sizeof(*waiting), in_order);
    line_up(streams, waiting, count);
    free(waiting);
    return 0;
}

int streams_open(struct stage *stage, struct tx *tx, const struct stream_kind *kind, uint32_t count,
                 int memory)
{
    static const char *const asked[] = {"auto", "uring", "plain"};
    struct streams *streams = tx->own;
    const struct config *config = &stage->config;
    const struct clock *clock = &stage->clock;

    streams->kind = kind;
    streams->count = count;
    streams->flush_count = config->tx.flush.count;
    streams->flush_ticks = clock_ticks(clock, config->tx.flush.wait_ns);
    streams->patience_ticks = clock_ticks(clock, config->tx.patience_ns);
    streams->drain_ticks = clock_ticks(clock, config->supervise.drain_timeout_ns / 2);
    streams->retry_min_ticks = clock_ticks(clock, RETRY_MIN_NS);
    streams->retry_max_ticks = clock_ticks(clock, RETRY_MAX_NS);
    stage_note(stage, "tx.io", asked[config->tx.io], "plain",
               "connections are written by plain calls");
    int err = stream_memory_open(stage, tx, &streams->memory, memory);
    if (err < 0)
        return err;
    for (uint32_t i = 0; i < count; i++) {
        const struct stream_record *record = &streams->memory.record[i];
        streams->stream[i] = (struct stream){
            .fd = -1,
            .place = (uint16_t)i,
            .head = STREAM_END,
            .number = load_relaxed(&record->number),
            .queued = load_relaxed(&record->queued),
            .taken = load_relaxed(&record->taken),
        };
    }
    return recover(stage, tx);
}

void stream_begin(struct tx *tx, struct stream *stream, uint64_t number)
{
    struct streams *streams = tx->own;
    struct stream_record *record = &streams->memory.record[stream->place];
    uint64_t begin = 0;

    for (uint32_t i = stream->head; i != STREAM_END; i = streams->memory.output[i].next) {
        struct stream_output *output = &streams->memory.output[i];
        store_relaxed(&output->begin, begin);
        store_release(&output->number, number);
        crash_point("stream:renumbered");
        begin += stream_slot(&streams->memory, tx, i)->length;
    }
    stream->number = number;
    stream->queued = begin;
    stream->taken = 0;
    stream->offset = 0;
    store_relaxed(&record->queued, begin);
    store_relaxed(&record->taken, UINT64_C(0));
    store_release(&record->number, number);
}

void stream_settle(struct stage *stage, struct tx *tx, struct stream *stream, uint64_t bytes)
{
    struct streams *streams = tx->own;

    if (bytes > stream->queued)
        region_corrupt("bytes written", stream->queued, bytes);
    if (stream->head == STREAM_END)
        return;
    uint64_t begin = load_relaxed(&streams->memory.output[stream->head].begin);
    if (bytes > begin)
        stream_wrote(stage, tx, stream, bytes - begin, tsc_read());
}
