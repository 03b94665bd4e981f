/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the pipeline: what pipeline.c, spawn.c and supervise.c share, and nobody else uses. */
#ifndef TICKLINE_LAUNCH_PIPELINE_OWN_H
#define TICKLINE_LAUNCH_PIPELINE_OWN_H

#include "launch/pipeline.h"

enum { PIPELINE_POLL_NS = 500000 };

/* Puts one line into pipeline->error; returns `err`. */
__attribute__((format(printf, 3, 4))) int pipeline_fail(struct pipeline *pipeline, int err,
                                                        const char *format, ...);

static inline struct cell *cell_of(const struct pipeline *pipeline, const struct process *process)
{
    return &pipeline->cells->cell[process->cell];
}

/* Fills pipeline->process; nothing is started. */
void pipeline_plan(struct pipeline *pipeline);

/* Starts a process, the first or a successor, which gets all that its predecessor had left here. */
int pipeline_spawn(struct pipeline *pipeline, struct process *process);

/* Tells of a stage that does not move, and of its going on. `now` MONOTONIC ns. */
void pipeline_mind_still(struct pipeline *pipeline, struct process *process, uint64_t now);

/* Does tx answer on the connections of rx, or by its sockets? And on this one? */
bool pipeline_forwards(const struct pipeline *pipeline);
bool pipeline_forwards_item(const struct pipeline *pipeline, const struct store_item *item);

/* All of them, in this order of names or consumers first. */
int pipeline_spawn_all(struct pipeline *pipeline, const char *order);

#endif
