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
#include <time.h>
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

static void nap_ms(long ms)
{
    const struct timespec nap = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&nap, NULL);
}

static int start_all(struct rig *rig, const struct bench *bench, struct bench_result *result)
{
    const int one = bench->cpu[0];
    const int two = bench->cpu[1];
    const struct rig_stage stage[] = {
        {.name = "tracer",
         .cell = CELL_TRACER,
         .cpu = one,
         .upstream_cpu = two,
         .wait = "park",
         .park_after_ns = 1,
         .program = "tracer"},
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
    int err = 0;

    for (size_t i = 0; err == 0 && i < sizeof(stage) / sizeof(stage[0]); i++)
        err = rig_start(rig, &stage[i], result);
    return err == 0 ? rig_run(rig, result) : err;
}

static void tell(const struct bench *bench, const struct moment *from, const struct moment *to,
                 struct memory *memory, struct bench_result *result)
{
    static const char *const names[] = {"rx_work_ns", "worker_work_ns", "tx_work_ns"};
    uint64_t requests = to->completed - from->completed;
    uint64_t taken = load_acquire(&memory->taken);

    taken = taken < MEMORY_SAMPLES ? taken : MEMORY_SAMPLES;
    if (taken > 0)
        bench_spread(bench, result, memory->sample, taken, 1);
    bench_rate(bench, result, requests, to->tsc - from->tsc);
    for (int i = 0; i < 3; i++)
        bench_extra(result, names[i],
                    (double)(to->work_ticks[i] - from->work_ticks[i]) * 1e9 / bench->clock.hz /
                        (double)requests);
}

static int measure(const struct bench *bench, struct rig *rig, struct memory *memory,
                   struct bench_result *result)
{
    nap_ms(200);
    store_release(&memory->taken, 0u);
    struct moment from = now_at(rig);
    nap_ms(bench->quick ? 300 : 2000);
    struct moment to = now_at(rig);
    int err = rig_drain(rig, result);

    if (err == 0 && to.completed == from.completed)
        err = bench_fail(result, -EIO, "nothing came through");
    if (err == 0)
        tell(bench, &from, &to, memory, result);
    return err;
}

static int run_pipeline(const struct bench *bench, const void *parameter,
                        struct bench_result *result)
{
    const struct shape *shape = parameter;
    struct rig *rig = calloc(1, sizeof(*rig));
    int fd = memfd_create("bench-memory", MFD_CLOEXEC);
    struct memory *memory = MAP_FAILED;
    struct scratch scratch;

    if (rig && fd >= 0 && ftruncate(fd, sizeof(*memory)) == 0)
        memory =
            mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    if (bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    memory->gap_ticks =
        shape->per_second ? clock_ticks(&bench->clock, 1000000000 / shape->per_second) : 0;
    int err = scratch_make(&scratch, NULL, result);
    if (err < 0)
        return err;
    const struct rig_plan plan = {.ini = shape->ini, .run = scratch.path, .memory = fd};
    err = rig_open(rig, bench, &plan, result);
    if (err == 0)
        err = start_all(rig, bench, result);
    if (err == 0)
        err = measure(bench, rig, memory, result);
    rig_close(rig);
    scratch_remove(&scratch);
    munmap(memory, sizeof(*memory));
    close(fd);
    free(rig);
    return err;
}

#define V2         "[pipeline]\nschema = v2\n[ring]\nslot = 128\nfull = wait\n[trace]\nlane = 32MiB\n"
#define V1         "[pipeline]\nschema = v1\n[ring]\nslot = 128\nfull = wait\n[trace]\nlane = 32MiB\n"
#define STAMPS_OFF "stamps = off\n"

static const struct bench_case cases[] = {
    {"pipeline/memory", run_pipeline, &(const struct shape){.ini = V2 STAMPS_OFF}},
    {"pipeline/memory/stamps", run_pipeline, &(const struct shape){.ini = V2}},
    {"pipeline/memory/v1", run_pipeline, &(const struct shape){.ini = V1 STAMPS_OFF}},
    {"pipeline/memory/100k", run_pipeline,
     &(const struct shape){.ini = V2 STAMPS_OFF, .per_second = 100000}},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
