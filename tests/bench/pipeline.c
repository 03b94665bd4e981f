/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rx → worker → tx alone: the real programs with a source and a sink in memory, so what is left are
 * the rings, the run loops, the schema, the handler and the stamps. On two CPUs: rx has the first,
 * worker and tx take turns on the second.
 *
 * Each stage's own work a request stands in the extras; the largest of them is what limits the rate.
 */
#include "tests/bench/memory/memory.h"
#include "tests/bench/rig.h"
#include "tests/bench/scratch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct shape {
    const char *ini;
    uint64_t per_second; /* 0: as many as go through */
};

/* Where the pipeline stands at one moment. */
struct moment {
    uint64_t tsc;
    uint64_t completed;
    uint64_t work_ticks[3]; /* rx, worker, tx */
};

static const enum cell_index stages[] = {CELL_RX, CELL_WORKER, CELL_TX};

static struct moment now_at(const struct rig *rig)
{
    struct moment moment = {
        .tsc = tsc_read(),
        .completed = load_acquire(&rig->cells->cell[CELL_TX].completed),
    };
    for (int i = 0; i < 3; i++) {
        struct cell_lazy figures = {0};
        (void)cell_read(&rig->cells->cell[stages[i]], &figures);
        moment.work_ticks[i] = figures.regime_ticks[REGIME_WORK];
    }
    return moment;
}

/* `tracer`: with the real one; else the benchmark gives sealed sub-buffers back. */
static int start_all(struct rig *rig, const struct bench *bench, bool tracer,
                     struct bench_result *result)
{
    const int one = bench->cpu[0];
    const int two = bench->cpu[1];
    const struct rig_stage stage[] = {
        {.name = "tx",
         .cell = CELL_TX,
         .cpu = two,
         .upstream_cpu = two,
         .wait = "yield",
         .program = "bench/memory_tx"},
        {.name = "worker0",
         .cell = CELL_WORKER,
         .cpu = two,
         .upstream_cpu = one,
         .wait = "yield",
         .program = "worker"},
        {.name = "rx",
         .cell = CELL_RX,
         .cpu = one,
         .upstream_cpu = one,
         .wait = "spin",
         .program = "bench/memory_rx"},
    };
    int err = tracer ? rig_start_tracer(rig, bench, result) : 0;

    for (size_t i = 0; err == 0 && i < sizeof(stage) / sizeof(stage[0]); i++)
        err = rig_start(rig, &stage[i], result);
    return err == 0 ? rig_run(rig, result) : err;
}

/* Lets it run for so long; without a tracer in its place. */
static void pass(const struct rig *rig, bool tracer, long ms)
{
    struct lane lane;

    if (tracer)
        bench_nap_ms(ms);
    for (; !tracer && ms > 0; ms--) {
        bench_nap_ms(1);
        for (uint32_t i = 0; lane_open(&lane, &rig->arena, i) == 0; i++)
            rig_recycle(&lane);
    }
}

/* Starts the pipeline, lets it come up, and looks at it twice. */
static int observe(const struct bench *bench, const struct rig_plan *plan, bool tracer,
                   struct memory *memory, struct moment moment[2], struct bench_result *result)
{
    struct rig *rig = bench_memory(sizeof(*rig));

    int err = rig_open(rig, bench, plan, result);
    if (err == 0)
        err = start_all(rig, bench, tracer, result);
    if (err == 0) {
        pass(rig, tracer, 200);
        store_release(&memory->taken, 0u);
        moment[0] = now_at(rig);
        pass(rig, tracer, bench->quick ? 300 : 2000);
        moment[1] = now_at(rig);
        err = rig_drain(rig, result);
    }
    rig_close(rig);
    if (err == 0 && moment[1].completed == moment[0].completed)
        err = bench_fail(result, -EIO, "nothing came through");
    return err;
}

/* Time of its own that a stage spent on a request. */
static double work_ns(const struct bench *bench, const struct moment moment[2], int stage)
{
    return (double)(moment[1].work_ticks[stage] - moment[0].work_ticks[stage]) * 1e9 /
           bench->clock.hz / (double)(moment[1].completed - moment[0].completed);
}

static void tell(const struct bench *bench, const struct moment moment[2], struct memory *memory,
                 struct bench_result *result)
{
    static const char *const names[] = {"rx_work_ns", "worker_work_ns", "tx_work_ns"};
    uint64_t taken = load_acquire(&memory->taken);

    taken = taken < MEMORY_SAMPLES ? taken : MEMORY_SAMPLES;
    if (taken > 0)
        bench_spread(bench, result, memory->sample, taken, 1);
    bench_rate(bench, result, moment[1].completed - moment[0].completed,
               moment[1].tsc - moment[0].tsc);
    for (int i = 0; i < 3; i++)
        bench_extra(result, names[i], work_ns(bench, moment, i));
}

/* The memory that source and sink share with us, and a run directory. */
struct place {
    int fd;
    struct memory *memory;
    struct scratch scratch;
};

static int place_make(const struct bench *bench, struct place *place, struct bench_result *result)
{
    place->fd = memfd_create("bench-memory", MFD_CLOEXEC);
    place->memory = MAP_FAILED;
    if (bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    if (place->fd >= 0 && ftruncate(place->fd, sizeof(*place->memory)) == 0)
        place->memory = mmap(NULL, sizeof(*place->memory), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_POPULATE, place->fd, 0);
    if (place->memory == MAP_FAILED)
        return bench_fail(result, -ENOMEM, "no memory");
    return scratch_make(&place->scratch, NULL, result);
}

static void place_remove(struct place *place)
{
    scratch_remove(&place->scratch);
    munmap(place->memory, sizeof(*place->memory));
    close(place->fd);
}

static int run_pipeline(const struct bench *bench, const void *parameter,
                        struct bench_result *result)
{
    const struct shape *shape = parameter;
    struct moment moment[2];
    struct place place;

    int err = place_make(bench, &place, result);
    if (err < 0)
        return err;
    const struct rig_plan plan = {.ini = shape->ini, .run = place.scratch.path, .memory = place.fd};
    place.memory->gap_ticks =
        shape->per_second ? clock_ticks(&bench->clock, 1000000000 / shape->per_second) : 0;
    err = observe(bench, &plan, true, place.memory, moment, result);
    if (err == 0)
        tell(bench, moment, place.memory, result);
    place_remove(&place);
    return err;
}

/* What the stamps of a request cost all stages together: their work with stamps, less without. Nothing
 * is written to disk, so that a tracer's share of a CPU is not counted as theirs. */
static int run_tracing(const struct bench *bench, const void *parameter,
                       struct bench_result *result)
{
    enum { POINTS = 9 }; /* rx_got, rx_put, four of the worker, three of tx */
    const struct shape *shape = parameter;
    double sum[2] = {0};
    struct place place;

    int err = place_make(bench, &place, result);
    if (err < 0)
        return err;
    for (int on = 0; err == 0 && on < 2; on++) {
        struct moment moment[2];
        const struct rig_plan plan = {
            .ini = shape[on].ini, .run = place.scratch.path, .memory = place.fd};
        err = observe(bench, &plan, false, place.memory, moment, result);
        for (int i = 0; err == 0 && i < 3; i++)
            sum[on] += work_ns(bench, moment, i);
        result->n = err == 0 ? moment[1].completed - moment[0].completed : 0;
    }
    result->ns = sum[1] - sum[0];
    bench_extra(result, "points", POINTS);
    bench_extra(result, "point_ns", result->ns / POINTS);
    bench_extra(result, "work_without_ns", sum[0]);
    bench_extra(result, "work_with_ns", sum[1]);
    place_remove(&place);
    return err;
}

#define V2         "[pipeline]\nschema = v2\n[ring]\nslot = 128\nfull = wait\n[trace]\nlane = 32MiB\n"
#define V1         "[pipeline]\nschema = v1\n[ring]\nslot = 128\nfull = wait\n[trace]\nlane = 32MiB\n"
#define STAMPS_OFF "stamps = off\n"

static const struct shape off_and_on[] = {{.ini = V2 STAMPS_OFF}, {.ini = V2}};

static const struct bench_case cases[] = {
    {"pipeline/memory", run_pipeline, &(const struct shape){.ini = V2 STAMPS_OFF}},
    {"pipeline/memory/stamps", run_pipeline, &(const struct shape){.ini = V2}},
    {"pipeline/memory/tracing", run_tracing, off_and_on},
    {"pipeline/memory/v1", run_pipeline, &(const struct shape){.ini = V1 STAMPS_OFF}},
    {"pipeline/memory/100k", run_pipeline,
     &(const struct shape){.ini = V2 STAMPS_OFF, .per_second = 100000}},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
