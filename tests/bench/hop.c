/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hop through two real stage loops: from the publish in one stage's turn to the peek in the next
 * one's, by way of waiting. The run loop, its books, the rotation and the bell are the real ones;
 * only what the two stages do is small.
 *
 *   spin/two   each stage on a CPU of its own         yield/one  both on one CPU, taking turns
 *   spin/one   both on one CPU and neither gives way: what the scheduler's slices cost
 *   park/one   the consumer sleeps between messages   park/two   the same on another CPU: found by a
 *              and is woken by the bell                          source that was idle itself
 *
 * The source publishes at random intervals, so that no phase of the loops is favoured.
 */
#include "tests/bench/rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct shape {
    const char *wait;
    bool one;
    uint64_t gap_ns; /* between messages, on average */
    uint64_t messages;
};

struct shared {
    uint64_t gap_ticks;
    uint64_t messages;
    bool bells;
    uint32_t *samples;
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t taken;
};

/* ---- the source, in rx's place ---- */

struct source {
    struct shared *shared;
    struct ring_producer out;
    uint64_t due;
    uint64_t sent;
    uint64_t random;
    uint64_t wakes;
};

static int source_open(struct stage *stage)
{
    struct source *source = stage->self;

    source->random = stage->clock.ns_per_tick_32;
    return stage_producer(stage, &source->out, "to_worker.%u", 0);
}

static int source_poll(struct stage *stage)
{
    struct source *source = stage->self;
    uint64_t now = tsc_read();

    if (position_diff(now, source->due) < 0 || source->sent == source->shared->messages)
        return 0;
    struct ring_slot *slot = ring_claim(&source->out);
    if (!slot)
        return -EAGAIN;
    slot->source = slot->request = ++source->sent;
    slot->length = 8;
    slot->kind = RING_REQUEST;
    slot->part = 0;
    slot->parts = 1;
    slot->ingress = tsc_read();
    ring_publish(&source->out);
    if (source->shared->bells && ring_wake(&source->out, true))
        stage->figures.wakes++;
    /* xorshift64: between a half and one and a half gaps. */
    source->random ^= source->random << 13;
    source->random ^= source->random >> 7;
    source->random ^= source->random << 17;
    source->due = now + source->shared->gap_ticks / 2 + source->random % source->shared->gap_ticks;
    return 1;
}

static bool source_in_flight(const struct stage *stage)
{
    const struct source *source = stage->self;

    return source->sent != load_acquire(&stage->cells->cell[CELL_TX].completed);
}

/* ---- the consumer, in tx's place ---- */

struct consumer {
    struct shared *shared;
    struct ring_consumer in;
    uint64_t completed;
};

static int consumer_open(struct stage *stage)
{
    struct consumer *consumer = stage->self;

    return stage_consumer(stage, &consumer->in, "to_worker.%u", 0);
}

static int consumer_poll(struct stage *stage)
{
    struct consumer *consumer = stage->self;
    const struct ring_slot *slot = ring_peek(&consumer->in);

    if (!slot)
        return 0;
    uint64_t now = tsc_read();
    if (consumer->completed < consumer->shared->messages)
        consumer->shared->samples[consumer->completed] = bench_ticks32(now - slot->ingress);
    ring_next(&consumer->in);
    ring_commit(&consumer->in);
    store_release(&stage->cell->completed, ++consumer->completed);
    store_release(&consumer->shared->taken, consumer->completed);
    return 1;
}

static bool consumer_park(struct stage *stage, uint64_t ns)
{
    struct consumer *consumer = stage->self;

    return ring_park(&consumer->in, stage->upstream_near, ns);
}

static bool drained(struct stage *stage)
{
    (void)stage;
    return true;
}

static void nothing(struct stage *stage)
{
    (void)stage;
}

/* ---- the case ---- */

static const struct stage_ops source_ops = {
    .open = source_open,
    .poll = source_poll,
    .drained = drained,
    .close = nothing,
    .in_flight = source_in_flight,
};

static const struct stage_ops consumer_ops = {
    .open = consumer_open,
    .poll = consumer_poll,
    .drained = drained,
    .close = nothing,
    .park = consumer_park,
};

static int run_stages(struct rig *rig, const struct bench *bench, const struct shape *shape,
                      struct shared *shared, struct bench_result *result)
{
    struct source source = {.shared = shared};
    struct consumer consumer = {.shared = shared};
    bool park = strcmp(shape->wait, "park") == 0;
    bool spin = strcmp(shape->wait, "spin") == 0;
    int source_cpu = shape->one ? bench->cpu[1] : bench->cpu[0];
    const struct rig_stage to = {
        .name = "tx",
        .cell = CELL_TX,
        .cpu = bench->cpu[1],
        .upstream_cpu = source_cpu,
        .wait = shape->wait,
        .park_after_ns = park ? 1 : 0,
        .ops = &consumer_ops,
        .self = &consumer,
    };
    const struct rig_stage from = {
        .name = "rx",
        .cell = CELL_RX,
        .cpu = source_cpu,
        .upstream_cpu = source_cpu,
        .wait = shape->one && !spin ? "yield" : "spin",
        .rotation = shape->one && !spin ? "0,1" : "",
        .ops = &source_ops,
        .self = &source,
    };

    int err = rig_start(rig, &to, result);
    if (err == 0)
        err = rig_start(rig, &from, result);
    if (err == 0)
        err = rig_run(rig, result);
    for (int i = 0; err == 0 && i < 6000 && load_acquire(&shared->taken) < shared->messages; i++)
        bench_nap_ms(5);
    return err < 0 ? err : rig_drain(rig, result);
}

static int run_hop(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    const struct shape *shape = parameter;
    const struct rig_plan plan = {.ini = "[ring]\nslot = 128\n[trace]\nstamps = off\n",
                                  .lane_bytes = 1 << 17};
    struct shared *shared = bench_shared(sizeof(*shared));
    struct rig *rig = bench_memory(sizeof(*rig));

    if (!shape->one && bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    shared->messages = shape->messages / (bench->quick ? 10 : 1);
    shared->gap_ticks = clock_ticks(&bench->clock, shape->gap_ns);
    shared->bells = strcmp(shape->wait, "park") == 0;
    shared->samples = bench_shared(shared->messages * sizeof(*shared->samples));
    int err = rig_open(rig, bench, &plan, result);
    if (err == 0)
        err = run_stages(rig, bench, shape, shared, result);
    uint64_t taken = load_acquire(&shared->taken);
    if (err == 0 && taken != shared->messages)
        err = bench_fail(result, -EIO, "%llu of %llu messages arrived", (unsigned long long)taken,
                         (unsigned long long)shared->messages);
    if (err == 0)
        bench_spread(bench, result, shared->samples, shared->messages, 1);
    result->regime = BENCH_KEEPS_UP;
    rig_close(rig);
    return err;
}

#define SHAPE(by, one_cpu, gap, count)                                                             \
    &(const struct shape)                                                                          \
    {                                                                                              \
        .wait = (by), .one = (one_cpu), .gap_ns = (gap), .messages = (count)                       \
    }

static const struct bench_case cases[] = {
    {"hop/spin/two", run_hop, SHAPE("spin", false, 3000, 300000)},
    {"hop/spin/one", run_hop, SHAPE("spin", true, 3000000, 500)},
    {"hop/yield/one", run_hop, SHAPE("yield", true, 10000, 100000)},
    {"hop/yield/two", run_hop, SHAPE("yield", false, 3000, 300000)},
    {"hop/park/one", run_hop, SHAPE("park", true, 100000, 10000)},
    {"hop/park/two", run_hop, SHAPE("park", false, 300000, 5000)},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
