/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of the model's pipeline, and its roles. */
#ifndef TICKLINE_TESTS_MODEL_LINE_H
#define TICKLINE_TESTS_MODEL_LINE_H

#include "shm/cell.h"
#include "shm/ring.h"
#include "tests/model/roles.h"

/* What a role knows for itself: gone with it. */
struct memory {
    struct ring_producer out[MODEL_WORKERS_MAX];
    struct ring_consumer in[MODEL_WORKERS_MAX];
    uint64_t counted[MODEL_WORKERS_MAX];
    uint64_t issued;
    uint64_t ring;
    uint64_t n;
    uint64_t part;
    uint64_t input;
    uint64_t flag;
};

struct line {
    const struct setup *setup;
    struct region to_worker[MODEL_WORKERS_MAX];
    struct region to_tx[MODEL_WORKERS_MAX];
    struct memory memory[EXPLORE_ROLES_MAX];
    struct cells *cells;
    struct {
        uint64_t rx;
        uint64_t worker[MODEL_WORKERS_MAX];
    } ended; /* as the cells of the stages say it */
};

extern struct line line;

/* rx is 0, then the workers, then tx. */
void role_run(uint32_t role);
bool role_quiet(uint32_t role, const char *label);

#endif
