/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/wait.h"

#include "shm/lane.h"

#include <sched.h>
#include <time.h>

enum { STEP_BACK_NS = 100000 };

void wait_yield(struct cell *cell)
{
    sched_yield();
    store_relaxed(&cell->resumed, tsc_read());
}

/*
 * One round: after our yield each of the others had one turn. 0: in the pipeline's order; the place of the first that
 * ran before its upstream neighbour; -1: not all of them ran (a timer cut the round short, or one is parked).
 */
static int round_order(const struct wait_plan *plan, struct cells *cells, uint64_t began)
{
    uint64_t last = began;
    int first = 0;

    for (uint32_t i = 1; i < plan->rotation_count; i++) {
        uint64_t resumed = load_relaxed(&cells->cell[plan->rotation[i]].resumed);
        if (position_diff(resumed, began) < 0)
            return -1;
        if (first == 0 && position_diff(resumed, last) < 0)
            first = (int)i;
        last = resumed;
    }
    return first;
}

int rotation_check(const struct wait_plan *plan, struct cells *cells)
{
    enum { ROUNDS = 5 };
    int votes[CELL_MAX] = {0};
    int place = 0;

    for (int round = 0; round < ROUNDS; round++) {
        uint64_t began = tsc_read();
        wait_yield(&cells->cell[plan->rotation[0]]);
        int order = round_order(plan, cells, began);
        if (order >= 0)
            votes[order]++;
    }
    for (uint32_t i = 1; i < plan->rotation_count; i++) {
        if (votes[i] > votes[place])
            place = (int)i;
    }
    if (place == 0)
        return 0;
    struct cell *cell = &cells->cell[plan->rotation[place]];
    store_relaxed(&cell->step_back, load_relaxed(&cell->step_back) + 1);
    return place;
}

bool rotation_obey(struct cell *cell, uint32_t *seen)
{
    uint32_t asked = load_relaxed(&cell->step_back);

    if (asked == *seen)
        return false;
    *seen = asked;
    /* Another length each time: how long it has slept decides where in the queue it wakes. */
    const struct timespec nap = {.tv_nsec = (long)(asked * 5 % 32 + 1) * STEP_BACK_NS};
    nanosleep(&nap, NULL);
    return true;
}
