/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tracer's throughput: one process stamps, the real tracer on the other CPU writes the lane out,
 * to disk or to a tmpfs. As fast as it goes, and at fixed rates, where nothing may be discarded.
 *
 * What the disk itself can do is measured in the same folder just before: direct writes of 1 MiB.
 */
#include "stage/cpu.h"
#include "stage/wait.h"
#include "tests/bench/rig.h"
#include "tests/bench/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BATCH = 64, LANE_BYTES = 128 << 20, WRITE_BYTES = 1 << 20, FILE_BYTES = 256 << 20 };

struct shape {
    const char *parent;  /* NULL: the build directory's disk */
    uint64_t per_second; /* 0: as fast as it goes */
    uint32_t seconds;
};

/* Bytes a second of 256 MiB written as `dd oflag=direct bs=1M` does; 0 where O_DIRECT is refused. */
static double plain_writes(const struct bench *bench, const struct scratch *scratch)
{
    char path[sizeof(scratch->path) + 8];
    uint64_t written = 0;

    snprintf(path, sizeof(path), "%s/plain", scratch->path);
    void *block = mmap(NULL, WRITE_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0644);
    uint64_t began = tsc_read();
    while (fd >= 0 && block != MAP_FAILED && written < FILE_BYTES &&
           write(fd, block, WRITE_BYTES) == WRITE_BYTES)
        written += WRITE_BYTES;
    double seconds = (double)(tsc_read() - began) / bench->clock.hz;
    if (fd >= 0)
        close(fd);
    unlink(path);
    if (block != MAP_FAILED)
        munmap(block, WRITE_BYTES);
    return written == FILE_BYTES ? (double)written / seconds : 0;
}

/* Stamps for so long; how many there were, those discarded included. */
static uint64_t stamp_on(const struct bench *bench, const struct shape *shape, double seconds,
                         struct trace *trace)
{
    uint64_t gap = shape->per_second
                       ? clock_ticks(&bench->clock, BATCH * 1000000000ULL / shape->per_second)
                       : 0;
    uint64_t due = tsc_read();
    uint64_t end = due + (uint64_t)(seconds * bench->clock.hz);
    uint64_t request = 0;

    while (position_diff(due, end) < 0) {
        for (int k = 0; k < BATCH; k++)
            trace_stamp(trace, POINT_rx_put, 0, request++);
        due = gap ? due + gap : tsc_read();
        while (position_diff(tsc_read(), due) < 0)
            wait_pause();
    }
    return request;
}

/* Before its first lap a lane's pages are not in this process's tables. */
static void touch(const struct lane *lane)
{
    for (uint64_t i = 0; i < (uint64_t)lane->count * lane->subbuffer_bytes; i += PAGE_BYTES)
        *(volatile uint8_t *)(lane->buffers + i) = 0;
}

static int stamp_and_drain(const struct bench *bench, const struct shape *shape, struct rig *rig,
                           const struct scratch *scratch, struct bench_result *result)
{
    double seconds = (double)shape->seconds / (bench->quick ? 10 : 1);
    struct trace trace;
    struct lane lane;

    int err = lane_find(&lane, &rig->arena, "rx");
    if (err == 0)
        err = cpu_pin(bench->cpu[1]);
    if (err < 0)
        return bench_fail(result, err, "%s", strerror(-err));
    touch(&lane);
    trace_open(&trace, &lane, 1, 1, (uint32_t)bench->cpu[1]);
    uint64_t began = tsc_read();
    uint64_t stamps = stamp_on(bench, shape, seconds, &trace);
    trace_close(&trace);
    err = rig_drain(rig, result);
    uint64_t kept = stamps - trace.discarded;
    bench_rate(bench, result, kept, tsc_read() - began);
    bench_extra(result, "stamps", (double)stamps);
    bench_extra(result, "discarded", (double)trace.discarded);
    bench_extra(result, "bytes_per_stamp",
                kept ? (double)scratch_bytes(scratch) / (double)kept : 0);
    bench_extra(result, "bytes_per_second",
                (double)scratch_bytes(scratch) * result->items_per_second / (double)kept);
    return err;
}

static int run_drain(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    const struct shape *shape = parameter;
    struct rig *rig = bench_memory(sizeof(*rig));
    struct scratch scratch;

    int err = scratch_make(&scratch, shape->parent, result);
    if (err < 0)
        return err;
    if (!shape->parent)
        bench_extra(result, "plain_bytes_per_second", plain_writes(bench, &scratch));
    const struct rig_plan plan = {.ini = "", .run = scratch.path, .lane_bytes = LANE_BYTES};
    err = rig_open(rig, bench, &plan, result);
    if (err == 0)
        err = rig_start_tracer(rig, bench, result);
    if (err == 0)
        err = rig_run(rig, result);
    if (err == 0)
        err = stamp_and_drain(bench, shape, rig, &scratch, result);
    rig_close(rig);
    scratch_remove(&scratch);
    return err;
}

#define SHAPE(where, rate, time)                                                                   \
    &(const struct shape)                                                                          \
    {                                                                                              \
        .parent = (where), .per_second = (rate), .seconds = (time)                                 \
    }

static const struct bench_case cases[] = {
    {"drain/disk", run_drain, SHAPE(NULL, 0, 3)},
    {"drain/tmpfs", run_drain, SHAPE("/dev/shm", 0, 3)},
    {"drain/disk/50M", run_drain, SHAPE(NULL, 50000000, 5)},
    {"drain/disk/10M", run_drain, SHAPE(NULL, 10000000, 30)},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
