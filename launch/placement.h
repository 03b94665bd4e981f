/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who runs on which CPU, and how he waits there.
 *
 * Where there is a CPU for each stage and one more, every stage has one of its own and spins. With
 * fewer the stages share what there is, but for one CPU that is kept for everything else (tracer,
 * player, sink, launcher), and yield among themselves. Stages avoid the lowest CPU, prefer isolated
 * ones, cores of their own and one NUMA node. A CPU named in the configuration is taken as it
 * stands.
 *
 * A pure function of its arguments: nothing is pinned here.
 */
#ifndef TICKLINE_LAUNCH_PLACEMENT_H
#define TICKLINE_LAUNCH_PLACEMENT_H

#include "launch/host.h"

enum {
    PLACEMENT_STAGES_MAX = CONFIG_WORKERS_MAX + 2,
    PLACEMENT_REASONS_MAX = 40,
};

struct placement_stage {
    char name[16]; /* rx, worker0.., tx */
    uint16_t cpu;
    bool alone;            /* nothing else of ours on this CPU */
    enum config_wait wait; /* what it does when idle: never WAIT_AUTO */
    bool may_park;         /* sched.wait = auto on a shared CPU: parks after sched.park_after */
};

/* Stages that share a CPU, in pipeline order: the order in which they must take turns. */
struct placement_rotation {
    uint16_t cpu;
    uint32_t count;
    uint8_t stage[PLACEMENT_STAGES_MAX]; /* index in placement.stage */
};

struct placement {
    uint32_t stages; /* workers + 2, in pipeline order */
    struct placement_stage stage[PLACEMENT_STAGES_MAX];
    uint16_t tracer, player, sink, launcher; /* CPUs */
    uint32_t rotations;
    struct placement_rotation rotation[PLACEMENT_STAGES_MAX];
    bool own_cpu;     /* obtained: every stage is alone on its CPU */
    uint32_t reasons; /* the run is degraded where there is one; each a short sentence */
    char reason[PLACEMENT_REASONS_MAX][256];
};

/*
 * 0, or one line in `error` and -EINVAL (a CPU or node in the configuration does not exist or is
 * not allowed) or -EBUSY (isolate.own_cpu = need, and there are not enough CPUs).
 */
int placement_plan(const struct config *config, const struct host_topology *topology,
                   struct placement *placement, char error[CONFIG_ERROR_MAX]);

/* Names what of ours runs on the CPU, as `rx, worker0 and tx`. */
void placement_names(const struct placement *placement, unsigned cpu, char *out, size_t size);

/* The second half of placement_plan: rotations, waiting and reasons from the CPUs alone. */
void placement_conclude(const struct config *config, struct placement *placement);

#endif
