/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kills a real child at each crash point of a role.
 *
 * A case is three lives on the same shared memory: one killed at a fixed place, so that the next
 * finds something to take over; one killed at the label, at its n-th pass; and one that comes to its
 * end. How often the second life passes each label is found out first, and the passes 1, 2, the
 * middle and the last are tried.
 */
#ifndef TICKLINE_TESTS_CRASH_CAMPAIGN_H
#define TICKLINE_TESTS_CRASH_CAMPAIGN_H

#include "tests/unit.h"

#include <stdint.h>

struct crash_role {
    const char *name;
    const char *const *labels; /* each must be passed; NULL ends them */
    const char *first_label;   /* where the first life ends, */
    uint64_t first_pass;       /* at this pass */
    void (*make)(void);        /* fresh shared memory */
    int (*live)(void);         /* child: a whole life; 0 */
    void (*partner)(void);     /* parent, again and again while a child lives; or NULL */
    void (*died)(void);        /* parent, after each kill: what must hold at once; or NULL */
    void (*check)(void);       /* parent, after the life that came to its end */
    void (*unmake)(void);
};

void campaign(const struct crash_role *role);

/* A label of the list at which no role was killed, or NULL. */
const char *campaign_missed(void);

/* Memory that parent and children share. */
void *campaign_shared(size_t bytes);

extern const struct crash_role crash_producer;
extern const struct crash_role crash_consumer;
extern const struct crash_role crash_stage;
extern const struct crash_role crash_worker;
extern const struct crash_role crash_worker_undo;
extern const struct crash_role crash_cell;
extern const struct crash_role crash_lane;
extern const struct crash_role crash_plain;
extern const struct crash_role crash_drainer;
extern const struct crash_role crash_plain_drainer;

#endif
