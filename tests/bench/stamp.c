/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stamp through its real API: in a tight loop, with work between, beside a tracer that drains
 * the lane to disk, sampled, and switched off.
 *
 * The figure of tight and sustained is the median over batches; p50 to max are of single stamps,
 * which tell their own times: a record holds the counter as it was read.
 */
#include "shm/lane.h"
#include "stage/cpu.h"
#include "stage/wait.h"
#include "tests/bench/rig.h"
#include "tests/bench/scratch.h"
#include "tests/bench/work.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct region_place anywhere = {.numa_node = -1};

enum { BATCH = 64, LANE_BYTES = 1 << 20, WORK_NS = 100, SUSTAINED_PER_SECOND = 2000000 };

/* A lane of its own, with nobody who drains it but recycle(). */
struct stamper {
    struct region arena;
    struct lane lane;
    struct trace trace;
};

static int stamper_open(struct stamper *stamper, uint32_t sample, struct bench_result *result)
{
    const struct lane_plan plan = {"rx", LANE_TRACE, 0, LANE_BYTES};

    int err = arena_create(&stamper->arena, &anywhere, &plan, 1, 1);
    if (err == 0)
        err = lane_open(&stamper->lane, &stamper->arena, 0);
    if (err < 0)
        return bench_fail(result, err, "arena: %s", strerror(-err));
    trace_open(&stamper->trace, &stamper->lane, sample, 1, 0);
    result->page_bytes = (int)stamper->arena.page_bytes;
    return 0;
}

/* The distances between the newest `count` records of the open sub-buffer; how many there were. */
static uint64_t intervals(const struct trace *trace, uint32_t count, uint32_t *samples)
{
    const struct lane_record *record = (const struct lane_record *)(const void *)trace->next;
    const uint8_t *begin = lane_payload(&trace->lane, load_relaxed(&trace->lane.control->sealed));
    uint64_t taken = 0;

    if (!trace->next)
        return 0;
    uint64_t there = (uint64_t)(trace->next - begin) / LANE_RECORD_BYTES;
    for (uint64_t i = 1; i < count && i < there; i++)
        samples[taken++] = bench_ticks32(load_relaxed(&record[-(int64_t)i].tsc) -
                                         load_relaxed(&record[-(int64_t)i - 1].tsc));
    return taken;
}

struct samples {
    uint32_t *batches;
    uint32_t *singles;
    uint64_t batch_count;
    uint64_t single_count;
};

static void samples_open(struct samples *samples, uint64_t batches)
{
    *samples = (struct samples){.batches = bench_memory(batches * sizeof(uint32_t)),
                                .singles = bench_memory(batches * BATCH * sizeof(uint32_t))};
}

/* Median over batches as the figure, percentiles of single stamps beside it. */
static void samples_tell(const struct bench *bench, struct samples *samples,
                         struct bench_result *result)
{
    bench_spread(bench, result, samples->batches, samples->batch_count, BATCH - 1);
    double figure = result->ns;
    bench_spread(bench, result, samples->singles, samples->single_count, 1);
    result->ns = figure;
}

static inline void stamp_batch(struct trace *trace, struct samples *samples)
{
    uint32_t *singles = samples->singles + samples->single_count;
    uint64_t sum = 0;

    for (uint64_t k = 0; k < BATCH; k++) {
        trace_stamp(trace, POINT_rx_put, 0, k);
        __asm__ volatile("" ::: "memory");
    }
    uint64_t taken = intervals(trace, BATCH, singles);
    samples->single_count += taken;
    for (uint64_t i = 0; i < taken; i++)
        sum += singles[i];
    if (taken == BATCH - 1)
        samples->batches[samples->batch_count++] = bench_ticks32(sum);
}

static int run_tight(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    uint64_t batches = bench->quick ? 20000 : 200000;
    struct stamper *stamper = bench_memory(sizeof(*stamper));
    struct samples samples;

    (void)parameter;
    samples_open(&samples, batches);
    int err = stamper_open(stamper, 1, result);
    if (err < 0)
        return err;
    for (uint64_t i = 0; i < batches; i++) {
        stamp_batch(&stamper->trace, &samples);
        rig_recycle(&stamper->lane);
    }
    if (stamper->trace.discarded)
        return bench_fail(result, -EIO, "stamps were discarded");
    samples_tell(bench, &samples, result);
    region_close(&stamper->arena);
    return 0;
}

/* ---- off, and one in a hundred ---- */

/* A loop around the stamp, less the same loop without it. */
static int run_sampled(const struct bench *bench, const void *parameter,
                       struct bench_result *result)
{
    enum { LOOP = 10000, ROUNDS = 400 };
    const uint32_t sample = *(const uint32_t *)parameter;
    const uint32_t rounds = bench->quick ? ROUNDS : 10 * ROUNDS;
    struct stamper *stamper = bench_memory(sizeof(*stamper));
    uint32_t *with = bench_memory(rounds * sizeof(*with));
    uint32_t *without = bench_memory(rounds * sizeof(*without));
    struct bench_result empty = {0};

    int err = stamper_open(stamper, sample, result);
    if (err < 0)
        return err;
    for (uint32_t r = 0; r < rounds; r++) {
        uint64_t began = tsc_read();
        for (uint64_t i = 0; i < LOOP; i++) {
            trace_stamp(&stamper->trace, POINT_rx_put, 0, i);
            __asm__ volatile("" ::: "memory");
        }
        uint64_t middle = tsc_read();
        for (uint64_t i = 0; i < LOOP; i++)
            __asm__ volatile("" ::: "memory");
        without[r] = bench_ticks32(tsc_read() - middle);
        with[r] = bench_ticks32(middle - began);
        rig_recycle(&stamper->lane);
    }
    bench_spread(bench, &empty, without, rounds, LOOP);
    bench_spread(bench, result, with, rounds, LOOP);
    bench_extra(result, "with_loop", result->ns);
    bench_extra(result, "loop", empty.ns);
    result->ns = result->ns > empty.ns ? result->ns - empty.ns : 0;
    result->n = (uint64_t)rounds * LOOP;
    region_close(&stamper->arena);
    return 0;
}

/* ---- with work between ---- */

static uint32_t worked(struct stamper *stamper, uint32_t steps, bool stamp)
{
    uint64_t value = steps;
    uint64_t began = tsc_read();

    for (uint64_t k = 0; k < BATCH; k++) {
        value = work(value, steps);
        if (stamp)
            trace_stamp(&stamper->trace, POINT_rx_put, 0, value & 1);
        __asm__ volatile("" ::"r"(value) : "memory");
    }
    return bench_ticks32(tsc_read() - began);
}

static int run_work(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    uint64_t batches = bench->quick ? 5000 : 50000;
    struct stamper *stamper = bench_memory(sizeof(*stamper));
    uint32_t *with = bench_memory(batches * sizeof(*with));
    uint32_t *without = bench_memory(batches * sizeof(*without));
    struct bench_result plain = {0};

    (void)parameter;
    int err = stamper_open(stamper, 1, result);
    if (err < 0)
        return err;
    uint32_t steps = work_steps(bench, WORK_NS);
    for (uint64_t i = 0; i < batches; i++) {
        with[i] = worked(stamper, steps, true);
        without[i] = worked(stamper, steps, false);
        rig_recycle(&stamper->lane);
    }
    bench_spread(bench, &plain, without, batches, BATCH);
    bench_spread(bench, result, with, batches, BATCH);
    bench_extra(result, "with_work", result->ns);
    bench_extra(result, "work", plain.ns);
    result->ns -= plain.ns;
    region_close(&stamper->arena);
    return 0;
}

/* ---- sustained, beside a tracer ---- */

/* Batches of stamps at the pace of SUSTAINED_PER_SECOND while the real tracer, on the other CPU,
 * writes the lane to disk. */
static int stamp_paced(const struct bench *bench, struct rig *rig, struct bench_result *result)
{
    uint64_t batches = (bench->quick ? 400 : 3000) * (uint64_t)SUSTAINED_PER_SECOND / BATCH / 1000;
    uint64_t gap = clock_ticks(&bench->clock, 1000000000ULL / (SUSTAINED_PER_SECOND / BATCH));
    struct samples samples;
    struct trace trace;
    struct lane lane;

    samples_open(&samples, batches);
    int err = lane_find(&lane, &rig->arena, "rx");
    if (err == 0)
        err = cpu_pin(bench->cpu[1]);
    if (err < 0)
        return err;
    trace_open(&trace, &lane, 1, 1, (uint32_t)bench->cpu[1]);
    uint64_t due = tsc_read();
    for (uint64_t i = 0; i < batches; i++, due += gap) {
        while (position_diff(tsc_read(), due) < 0)
            wait_pause();
        stamp_batch(&trace, &samples);
    }
    trace_close(&trace);
    bench_extra(result, "discarded", (double)trace.discarded);
    samples_tell(bench, &samples, result);
    return 0;
}

static int run_sustained(const struct bench *bench, const void *parameter,
                         struct bench_result *result)
{
    struct rig *rig = bench_memory(sizeof(*rig));
    struct scratch scratch;

    (void)parameter;
    int err = scratch_make(&scratch, NULL, result);
    if (err < 0)
        return err;
    const struct rig_plan plan = {.ini = "", .run = scratch.path};
    err = rig_open(rig, bench, &plan, result);
    if (err == 0)
        err = rig_start_tracer(rig, bench, result);
    if (err == 0)
        err = rig_run(rig, result);
    if (err == 0)
        err = stamp_paced(bench, rig, result);
    if (err == 0)
        err = rig_drain(rig, result);
    rig_close(rig);
    scratch_remove(&scratch);
    return err;
}

static const uint32_t off = 0;
static const uint32_t one_in_100 = 100;

static const struct bench_case cases[] = {
    {"stamp/tight", run_tight, NULL},
    {"stamp/work100", run_work, NULL},
    {"stamp/sustained", run_sustained, NULL},
    {"stamp/off", run_sampled, &off},
    {"stamp/sampled100", run_sampled, &one_in_100},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
