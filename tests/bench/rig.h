/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rig: real stages for a benchmark, without the launcher's lab around them.
 *
 * It makes the regions, starts stages over their control sockets as the launcher does, and lets them
 * run. A stage is a program of the build, or the benchmark's own callbacks in a forked process that
 * calls stage_main: the run loop, the waiting, the trace are the real ones in both.
 *
 *   rig_open → rig_start for each stage, consumers first → rig_run → … → rig_drain → rig_close
 */
#ifndef TICKLINE_TESTS_BENCH_RIG_H
#define TICKLINE_TESTS_BENCH_RIG_H

#include "stage/stage.h"
#include "tests/bench/bench.h"

enum { RIG_STAGES_MAX = 4 };

struct rig_plan {
    const char *ini;     /* configuration: sections and keys, or "" */
    const char *run;     /* existing directory for the tracer; NULL: none */
    uint64_t lane_bytes; /* 0: the configuration's */
    int memory;          /* descriptor that stages get as "bench"; 0: none */
};

struct rig_stage {
    const char *name; /* also of its lane */
    uint32_t cell;    /* enum cell_index */
    int cpu;
    int upstream_cpu;
    const char *wait; /* spin, yield, park */
    uint64_t park_after_ns;
    const char *rotation; /* source on a shared CPU: cells in pipeline order, "0,1"; else "" */
    const char *program;  /* path below the build directory; NULL: `ops` with `self` */
    const struct stage_ops *ops;
    void *self;
};

struct rig_process {
    pid_t pid;
    int control;
    struct cell *cell;
};

struct rig {
    struct config config;
    struct region cells_region;
    struct region to_worker;
    struct region to_tx;
    struct region arena;
    struct cells *cells;
    int config_fd;
    int run_folder;
    int memory;
    uint64_t epoch;
    double hz;
    struct rig_process process[RIG_STAGES_MAX]; /* in the order of their start */
    uint32_t count;
};

/* 0 or -errno, said in the result's note. Lanes: rx, worker0, tx, ingress. */
int rig_open(struct rig *rig, const struct bench *bench, const struct rig_plan *plan,
             struct bench_result *result);
int rig_start(struct rig *rig, const struct rig_stage *stage, struct bench_result *result);

/* The same stage in this very process, opened and READY, for who calls its poll() himself. `stage` is
 * zeroed before. */
int rig_prepare(struct rig *rig, const struct rig_stage *plan, struct stage *stage,
                struct bench_result *result);

/* Starts the tracer of the build on the first CPU; it drains to plan.run. */
int rig_start_tracer(struct rig *rig, const struct bench *bench, struct bench_result *result);

/* Waits until all are ready (at most 10 s) and lets them run. */
int rig_run(struct rig *rig, struct bench_result *result);

/* Drains upstream first and waits for each to end (at most 10 s). */
int rig_drain(struct rig *rig, struct bench_result *result);

/* What a tracer does to the owner of a lane: all that is sealed is free again. */
static inline void rig_recycle(const struct lane *lane)
{
    store_release(&lane->control->drained, load_acquire(&lane->control->sealed));
}

/* Ends what still runs and gives everything back. */
void rig_close(struct rig *rig);

/* Folder of the benchmark programs' parent, where rx, worker, tx and tracer are. */
void rig_build_folder(char *path, size_t size);

#endif
