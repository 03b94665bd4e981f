/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/queue.h"

#include "stage/cpu.h"
#include "tests/bench/bench.h"

#include <errno.h>
#include <stdlib.h>

enum { CASES_MAX = 32 };

static struct queue_run *make(const struct queue_case *one, uint64_t messages, uint64_t samples)
{
    struct queue_run *run = bench_shared(sizeof(*run));

    run->there = bench_shared(one->bytes);
    run->back = bench_shared(one->bytes);
    one->make(run->there);
    one->make(run->back);
    run->samples = bench_shared(samples * sizeof(*run->samples));
    run->messages = messages;
    run->payload[0] = UINT64_C(0x030201);
    return run;
}

/* Both sides of a case; the child is the one that echoes or drains. */
static int together(const struct bench *bench, const struct queue_case *one, enum queue_wait wait,
                    struct queue_run *run)
{
    pid_t child = bench_child(bench->cpu[1], one->loops->child[wait], run);

    if (one->one)
        (void)cpu_pin(bench->cpu[1]);
    (void)one->loops->here[wait](run);
    return bench_wait(child);
}

static int round_trip(const struct bench *bench, const struct queue_case *one, enum queue_wait wait,
                      struct bench_result *result)
{
    const uint64_t rounds = (bench->quick ? 100000u : 500000u) / (one->one ? 4u : 1u);
    struct queue_run *run = make(one, rounds + QUEUE_WARM_ROUNDS, rounds);
    int err = together(bench, one, wait, run);

    if (err == 0)
        bench_spread(bench, result, run->samples, rounds, 1);
    result->regime = BENCH_KEEPS_UP;
    return err;
}

static int run_round_trip(const struct bench *bench, const struct queue_case *one,
                          struct bench_result *result)
{
    struct bench_result paused = {0};

    if (one->one)
        return round_trip(bench, one, QUEUE_YIELD, result);
    int err = round_trip(bench, one, QUEUE_SPIN, result);
    if (err == 0)
        err = round_trip(bench, one, QUEUE_PAUSE, &paused);
    bench_better(result, &paused);
    return err;
}

static int run_throughput(const struct bench *bench, const struct queue_case *one,
                          struct bench_result *result)
{
    const uint64_t messages = bench->quick ? 4000000 : 20000000;
    struct queue_run *run = make(one, messages, messages / QUEUE_SAMPLE_ITEMS + 1);
    int err = together(bench, one, one->one ? QUEUE_YIELD : QUEUE_PAUSE, run);

    if (err < 0)
        return err;
    bench_spread(bench, result, run->samples, run->sample_count, QUEUE_SAMPLE_ITEMS);
    bench_rate(bench, result, messages, run->ticks);
    bench_extra(result, "waits_full", (double)run->waits_full);
    bench_extra(result, "waits_empty", (double)run->waits_empty);
    result->regime = run->waits_empty > run->waits_full ? BENCH_KEEPS_UP : BENCH_LAGS;
    return 0;
}

static int run_case(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    const struct queue_case *one = parameter;

    if (!one->one && bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    int err = one->loops->throughput ? run_throughput(bench, one, result)
                                     : run_round_trip(bench, one, result);
    result->page_bytes = 4096;
    return err;
}

int queue_main(int argc, char **argv, const struct queue_case *cases, int count)
{
    struct bench_case all[CASES_MAX];

    if (count > CASES_MAX)
        abort();
    for (int i = 0; i < count; i++)
        all[i] = (struct bench_case){cases[i].name, run_case, &cases[i]};
    return bench_main(argc, argv, all, count);
}
