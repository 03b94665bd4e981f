/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Physical limits of this machine: what the least possible code costs. Everything else is told as a
 * ratio to one of these, measured in the same run.
 */
#include "stage/cpu.h"
#include "stage/wait.h"
#include "tests/bench/bench.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* ---- the time stamp itself ---- */

enum { BATCH = 64, RECORDS = 1 << 16 };

static int run_rdtsc(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    uint64_t batches = bench->quick ? 20000 : 200000;
    uint32_t *samples = bench_memory(batches * sizeof(*samples));
    uint64_t sum = 0;

    (void)parameter;
    for (uint64_t i = 0; i < batches; i++) {
        uint64_t began = tsc_read();
        for (int k = 0; k < BATCH; k++)
            sum += tsc_read();
        samples[i] = bench_ticks32(tsc_read() - began);
    }
    __asm__ volatile("" ::"r"(sum));
    bench_spread(bench, result, samples, batches, BATCH + 1);
    return 0;
}

struct pair {
    uint64_t tsc;
    uint64_t rest;
};

/* A bare counter read and a store of 16 bytes, one behind the other through a buffer of the size of
 * a lane. As for the stamp, the records tell their own times: the figure is the median over batches,
 * the percentiles are of single ones. */
static int run_rdtsc_store(const struct bench *bench, const void *parameter,
                           struct bench_result *result)
{
    uint64_t batches = bench->quick ? 20000 : 200000;
    uint32_t *samples = bench_memory(batches * sizeof(*samples));
    uint32_t *singles = bench_memory(batches * BATCH * sizeof(*singles));
    struct pair *records = bench_shared(RECORDS * sizeof(*records));

    (void)parameter;
    for (uint64_t i = 0; i < batches; i++) {
        struct pair *first = records + i * BATCH % RECORDS;
        struct pair *next = first;
        for (uint64_t k = 0; k < BATCH; k++, next++) {
            next->rest = k;
            next->tsc = tsc_read();
            __asm__ volatile("" ::: "memory");
        }
        samples[i] = bench_ticks32(next[-1].tsc - first->tsc);
        for (uint64_t k = 0; k < BATCH - 1; k++)
            singles[i * (BATCH - 1) + k] = bench_ticks32(first[k + 1].tsc - first[k].tsc);
    }
    bench_spread(bench, result, samples, batches, BATCH - 1);
    double figure = result->ns;
    bench_spread(bench, result, singles, batches * (BATCH - 1), 1);
    result->ns = figure;
    result->page_bytes = 4096;
    return 0;
}

/* ---- one cache line, there and back ---- */

struct pingpong {
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t ping;
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t pong;
    _Alignas(LINE_PAIR_BYTES) uint64_t rounds;
    bool pause;
};

static inline void await(_Atomic uint64_t *word, uint64_t value, bool pause)
{
    while (load_acquire(word) != value) {
        if (pause)
            wait_pause();
    }
}

static int echo(void *argument)
{
    struct pingpong *shared = argument;

    for (uint64_t i = 1; i <= shared->rounds; i++) {
        await(&shared->ping, i, shared->pause);
        store_release(&shared->pong, i);
    }
    return 0;
}

static int pingpong(const struct bench *bench, bool pause, uint32_t *samples, uint64_t rounds)
{
    enum { WARM = 2000 };
    struct pingpong *shared = bench_shared(sizeof(*shared));

    if (bench->cpu[0] == bench->cpu[1])
        return -ENOTSUP;
    shared->rounds = rounds + WARM;
    shared->pause = pause;
    pid_t child = bench_child(bench->cpu[1], echo, shared);
    uint64_t last = tsc_read();
    for (uint64_t i = 1; i <= rounds + WARM; i++) {
        store_release(&shared->ping, i);
        await(&shared->pong, i, pause);
        /* From round to round: a counter read behind a polling loop may be executed before its end. */
        uint64_t now = tsc_read();
        if (i > WARM)
            samples[i - WARM - 1] = bench_ticks32(now - last);
        last = now;
    }
    return bench_wait(child);
}

/* The better of with and without pause, both in the extras. */
static int run_pingpong(const struct bench *bench, const void *parameter,
                        struct bench_result *result)
{
    uint64_t rounds = bench->quick ? 100000 : 1000000;
    uint32_t *samples = bench_memory(rounds * sizeof(*samples));
    struct bench_result other = {0};

    (void)parameter;
    int err = pingpong(bench, false, samples, rounds);
    if (err < 0) {
        return bench_fail(result, err, "needs two CPUs");
    }
    bench_spread(bench, result, samples, rounds, 1);
    err = pingpong(bench, true, samples, rounds);
    bench_spread(bench, &other, samples, rounds, 1);
    bench_better(result, &other);
    result->page_bytes = 4096;
    return err;
}

/* ---- sched_yield between two processes of one CPU ---- */

struct yields {
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t left; /* tsc before the yield */
    _Atomic uint64_t turn;
    _Alignas(LINE_PAIR_BYTES) _Atomic uint32_t stop;
};

static int yielder(void *argument)
{
    struct yields *shared = argument;

    while (!load_relaxed(&shared->stop)) {
        store_relaxed(&shared->left, tsc_read());
        sched_yield();
    }
    return 0;
}

/* From one process's call to the other's return: one switch. */
static int run_yield(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    uint64_t count = bench->quick ? 50000 : 500000;
    uint32_t *samples = bench_memory(count * sizeof(*samples));
    struct yields *shared = bench_shared(sizeof(*shared));
    uint64_t taken = 0;

    (void)parameter;
    pid_t child = bench_child(bench->cpu[1], yielder, shared);
    int err = cpu_pin(bench->cpu[1]);
    uint64_t last = 0;
    for (uint64_t tries = 0; err == 0 && taken < count && tries < 4 * count; tries++) {
        sched_yield();
        uint64_t now = tsc_read();
        uint64_t left = load_relaxed(&shared->left);
        if (left != last && left != 0)
            samples[taken++] = bench_ticks32(now - left);
        last = left;
    }
    store_relaxed(&shared->stop, 1u);
    int waited = bench_wait(child);
    if (taken == 0)
        return bench_fail(result, -EIO, "the other process never ran");
    bench_spread(bench, result, samples, taken, 1);
    return err < 0 ? err : waited;
}

static const struct bench_case cases[] = {
    {"limit/rdtsc", run_rdtsc, NULL},
    {"limit/rdtsc_store", run_rdtsc_store, NULL},
    {"limit/pingpong", run_pingpong, NULL},
    {"limit/yield", run_yield, NULL},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
