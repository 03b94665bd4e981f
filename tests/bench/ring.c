/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring through its real API: between two processes on two CPUs, and on one.
 *
 * rtt         a message there, one back: the time from one round to the next, since a counter read
 *             behind a polling loop may be executed before the loop has ended
 * throughput  as many as go: the producer publishes one by one or in bursts of 32, the consumer
 *             reads every word and commits per burst of what it found, as the stages do
 *
 * A slot counts with its header: `64` is a whole slot of 64 bytes, header written and read in full.
 */
#include "shm/ring.h"
#include "stage/cpu.h"
#include "stage/wait.h"
#include "tests/bench/bench.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { COMMIT_EVERY = 32, SAMPLE_ITEMS = 1024, WARM_ROUNDS = 4000 };

struct shape {
    uint32_t slot_bytes;
    uint16_t payload; /* bytes written and read */
    uint32_t depth;
    uint32_t burst; /* published at once */
    bool one;       /* both processes on one CPU: yielding */
};

/* How a process passes the time until there is a message, or room. */
enum wait { SPIN, PAUSE, YIELD };

struct shared {
    struct region there;
    struct region back;
    const struct shape *shape;
    enum wait wait;
    uint64_t messages;
    uint64_t sum; /* of what the consumer read, so that it cannot be left out */
    uint64_t waits_full;
    uint64_t waits_empty;
    uint64_t ticks;
    uint32_t *samples;
    uint64_t sample_count;
    _Alignas(LINE_PAIR_BYTES) _Atomic uint32_t ready;
};

static inline void fill(struct ring_slot *slot, uint64_t number, const uint8_t *payload,
                        uint16_t length)
{
    slot->source = number;
    slot->request = number;
    slot->ingress = number;
    slot->length = length;
    slot->kind = RING_REQUEST;
    slot->reason = 0;
    slot->part = 0;
    slot->parts = 1;
    slot->flow = 0;
    memcpy(slot->payload, payload, length);
}

/* Every word of it. */
static inline uint64_t digest(const struct ring_slot *slot)
{
    uint64_t words[4] = {0};
    uint64_t sum = slot->source + slot->request + slot->ingress + slot->kind + slot->flow;

    for (uint32_t at = 0; at < slot->length; at += sizeof(words)) {
        uint32_t left = slot->length - at;
        memcpy(words, slot->payload + at, left < sizeof(words) ? left : sizeof(words));
        sum += words[0] + words[1] + words[2] + words[3];
    }
    return sum;
}

static inline void pass_time(enum wait wait)
{
    if (wait == YIELD)
        sched_yield();
    else if (wait == PAUSE)
        wait_pause();
}

static inline struct ring_slot *claim_waiting(struct ring_producer *ring, enum wait wait,
                                              uint64_t *waits)
{
    struct ring_slot *slot;

    while ((slot = ring_claim(ring)) == NULL) {
        ++*waits;
        pass_time(wait);
    }
    return slot;
}

static inline struct ring_slot *peek_waiting(struct ring_consumer *ring, enum wait wait)
{
    struct ring_slot *slot;

    while ((slot = ring_peek(ring)) == NULL)
        pass_time(wait);
    return slot;
}

static struct shared *make(const struct shape *shape, enum wait wait, struct bench_result *result)
{
    struct shared *shared = bench_shared(sizeof(*shared));
    const struct region_place place = {.numa_node = -1};

    shared->shape = shape;
    shared->wait = wait;
    int err = ring_create(&shared->there, "bench", shape->depth, shape->slot_bytes, 0, 1, &place);
    if (err == 0)
        err = ring_create(&shared->back, "bench", shape->depth, shape->slot_bytes, 0, 1, &place);
    if (err < 0) {
        (void)bench_fail(result, err, "ring: %s", strerror(-err));
        return NULL;
    }
    result->page_bytes = (int)shared->there.page_bytes;
    return shared;
}

/* ---- round trip ---- */

/* The way of waiting is a constant in each copy: a branch on it in the polling loop would be measured
 * with it. */
static inline __attribute__((always_inline)) int echo_by(struct shared *shared,
                                                         const enum wait wait)
{
    const uint16_t payload = shared->shape->payload;
    struct region_mismatch mismatch;
    struct ring_consumer in;
    struct ring_producer out;
    uint64_t waits = 0;

    if (ring_consumer_attach(&in, &shared->there, &mismatch) < 0 ||
        ring_producer_attach(&out, &shared->back, &mismatch) < 0)
        return 1;
    for (uint64_t i = 0; i < shared->messages; i++) {
        const struct ring_slot *got = peek_waiting(&in, wait);
        struct ring_slot *slot = claim_waiting(&out, wait, &waits);
        fill(slot, got->request, got->payload, payload);
        ring_publish(&out);
        ring_next(&in);
        ring_commit(&in);
    }
    return 0;
}

static int echo(void *argument)
{
    struct shared *shared = argument;

    switch (shared->wait) {
    case SPIN:
        return echo_by(shared, SPIN);
    case PAUSE:
        return echo_by(shared, PAUSE);
    case YIELD:
    default:
        return echo_by(shared, YIELD);
    }
}

static inline __attribute__((always_inline)) int rtt(const struct bench *bench,
                                                     const struct shape *shape,
                                                     const enum wait wait, uint64_t rounds,
                                                     struct bench_result *result)
{
    uint8_t payload[256] = {1, 2, 3};
    uint32_t *samples = malloc(rounds * sizeof(*samples));
    struct shared *shared = make(shape, wait, result);
    struct region_mismatch mismatch;
    struct ring_producer out;
    struct ring_consumer in;
    uint64_t waits = 0;
    uint64_t sum = 0;

    if (!shared || !samples)
        return -ENOMEM;
    shared->messages = rounds + WARM_ROUNDS;
    pid_t child = bench_child(bench->cpu[1], echo, shared);
    int err = shape->one ? cpu_pin(bench->cpu[1]) : 0;
    if (err == 0)
        err = ring_producer_attach(&out, &shared->there, &mismatch);
    if (err == 0)
        err = ring_consumer_attach(&in, &shared->back, &mismatch);
    uint64_t last = tsc_read();
    for (uint64_t i = 0; err == 0 && i < shared->messages; i++) {
        fill(claim_waiting(&out, wait, &waits), i, payload, shape->payload);
        ring_publish(&out);
        const struct ring_slot *slot = peek_waiting(&in, wait);
        sum += digest(slot);
        ring_next(&in);
        ring_commit(&in);
        uint64_t now = tsc_read();
        if (i >= WARM_ROUNDS)
            samples[i - WARM_ROUNDS] = bench_ticks32(now - last);
        last = now;
    }
    __asm__ volatile("" ::"r"(sum));
    int waited = bench_wait(child);
    if (err == 0)
        bench_spread(bench, result, samples, rounds, 1);
    result->regime = BENCH_KEEPS_UP;
    free(samples);
    return err < 0 ? err : waited;
}

/* Spinning with and without a pause instruction, as for the limit: which is better depends on the
 * CPU. */
static int run_rtt(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    const struct shape *shape = parameter;
    const uint64_t rounds = bench->quick ? 100000 : 500000;
    struct bench_result paused = {0};

    if (shape->one)
        return rtt(bench, shape, YIELD, rounds / 2, result);
    if (bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    int err = rtt(bench, shape, SPIN, rounds, result);
    if (err == 0)
        err = rtt(bench, shape, PAUSE, rounds, &paused);
    bench_better(result, &paused);
    return err;
}

/* ---- throughput ---- */

static int drain(void *argument)
{
    struct shared *shared = argument;
    const enum wait wait = shared->wait;
    struct region_mismatch mismatch;
    struct ring_consumer in;
    uint64_t sum = 0;
    uint64_t empty = 0;
    uint32_t uncommitted = 0;
    uint64_t sampled = 0;

    if (ring_consumer_attach(&in, &shared->there, &mismatch) < 0)
        return 1;
    store_release(&shared->ready, 1u);
    (void)peek_waiting(&in, wait);
    uint64_t began = tsc_read();
    uint64_t last = began;
    while (in.next < shared->messages) {
        const struct ring_slot *slot = ring_peek(&in);
        if (!slot || uncommitted == COMMIT_EVERY) {
            ring_commit(&in);
            uncommitted = 0;
        }
        if (!slot) {
            empty++;
            pass_time(wait);
            continue;
        }
        sum += digest(slot);
        ring_next(&in);
        uncommitted++;
        if (in.next % SAMPLE_ITEMS == 0) {
            uint64_t now = tsc_read();
            shared->samples[sampled++] = bench_ticks32(now - last);
            last = now;
        }
    }
    shared->ticks = tsc_read() - began;
    ring_commit(&in);
    shared->sum = sum;
    shared->waits_empty = empty;
    shared->sample_count = sampled;
    return 0;
}

static int run_throughput(const struct bench *bench, const void *parameter,
                          struct bench_result *result)
{
    const struct shape *shape = parameter;
    uint8_t payload[256] = {1, 2, 3};
    struct shared *shared = make(shape, shape->one ? YIELD : PAUSE, result);
    struct region_mismatch mismatch;
    struct ring_producer out;

    if (!shared)
        return -ENOMEM;
    if (!shape->one && bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    shared->messages = bench->quick ? 4000000 : 20000000;
    shared->samples =
        bench_shared((shared->messages / SAMPLE_ITEMS + 1) * sizeof(*shared->samples));
    pid_t child = bench_child(bench->cpu[1], drain, shared);
    int err = shape->one ? cpu_pin(bench->cpu[1]) : 0;
    if (err == 0)
        err = ring_producer_attach(&out, &shared->there, &mismatch);
    while (!load_acquire(&shared->ready))
        sched_yield();
    for (uint64_t i = 0; err == 0 && i < shared->messages;) {
        for (uint32_t k = 0; k < shape->burst && i < shared->messages; k++, i++)
            fill(claim_waiting(&out, shared->wait, &shared->waits_full), i, payload,
                 shape->payload);
        ring_publish(&out);
    }
    int waited = bench_wait(child);
    if (err < 0 || waited < 0)
        return err < 0 ? err : waited;
    bench_spread(bench, result, shared->samples, shared->sample_count, SAMPLE_ITEMS);
    bench_rate(bench, result, shared->messages, shared->ticks);
    bench_extra(result, "waits_full", (double)shared->waits_full);
    bench_extra(result, "waits_empty", (double)shared->waits_empty);
    result->regime = shared->waits_empty > shared->waits_full ? BENCH_KEEPS_UP : BENCH_LAGS;
    return 0;
}

/* A payload of 24 bytes fills a slot of 64 with its header; slots of 128 and 256 carry 64 and 216. */
#define SHAPE(slot, bytes, deep, at_once, one_cpu)                                                 \
    &(const struct shape)                                                                          \
    {                                                                                              \
        .slot_bytes = (slot), .payload = (bytes), .depth = (deep), .burst = (at_once),             \
        .one = (one_cpu)                                                                           \
    }

static const struct bench_case cases[] = {
    {"ring/rtt/8", run_rtt, SHAPE(64, 8, 1024, 1, false)},
    {"ring/rtt/64", run_rtt, SHAPE(64, 24, 1024, 1, false)},
    {"ring/rtt/64/d16", run_rtt, SHAPE(64, 24, 16, 1, false)},
    {"ring/rtt/64/d65536", run_rtt, SHAPE(64, 24, 65536, 1, false)},
    {"ring/rtt/64/one", run_rtt, SHAPE(64, 24, 1024, 1, true)},
    {"ring/rtt/128", run_rtt, SHAPE(128, 64, 1024, 1, false)},
    {"ring/rtt/256", run_rtt, SHAPE(256, 216, 1024, 1, false)},
    {"ring/throughput/64/single", run_throughput, SHAPE(64, 24, 1024, 1, false)},
    {"ring/throughput/64/single/d16", run_throughput, SHAPE(64, 24, 16, 1, false)},
    {"ring/throughput/64/single/d65536", run_throughput, SHAPE(64, 24, 65536, 1, false)},
    {"ring/throughput/64/single/one", run_throughput, SHAPE(64, 24, 1024, 1, true)},
    {"ring/throughput/64/burst32", run_throughput, SHAPE(64, 24, 1024, 32, false)},
    {"ring/throughput/64/burst32/d65536", run_throughput, SHAPE(64, 24, 65536, 32, false)},
    {"ring/throughput/64/burst32/one", run_throughput, SHAPE(64, 24, 1024, 32, true)},
    {"ring/throughput/128/single", run_throughput, SHAPE(128, 64, 1024, 1, false)},
    {"ring/throughput/128/burst32", run_throughput, SHAPE(128, 64, 1024, 32, false)},
    {"ring/throughput/256/single", run_throughput, SHAPE(256, 216, 1024, 1, false)},
    {"ring/throughput/256/burst32", run_throughput, SHAPE(256, 216, 1024, 32, false)},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
