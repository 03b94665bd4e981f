/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/rotation.h"

#include "shm/lane.h"

#include <linux/sched/types.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    VOTES = 16, /* of a look at what has been right */
    VOTES_MENDING = 6,
    MOVE_ROUNDS = 4, /* for a stage to obey */
    PARTS = 16,      /* of a slice */
    NAP_NS = 100000,
    TRIES_FACTOR = 8, /* times the stages squared: several times what it takes */
};

/* Who ran before its upstream neighbour since `began`: its place; 0: nobody; the count: somebody had
 * no turn at all; -1: nor will, it is parked. */
static int round_order(const struct rotation *rotation, const struct wait_plan *plan,
                       const struct cells *cells, uint64_t began)
{
    uint64_t last = began;
    int first = 0;

    for (uint32_t i = 1; i < plan->rotation_count; i++) {
        uint64_t resumed = load_relaxed(&cells->cell[plan->rotation[i]].resumed);
        int64_t late = position_diff(began, resumed);
        if (late > 0)
            return (uint64_t)late > rotation->stale_ticks ? -1 : (int)plan->rotation_count;
        if (first == 0 && position_diff(resumed, last) < 0)
            first = (int)i;
        last = resumed;
    }
    return first;
}

static void ask(struct cells *cells, uint32_t index, uint32_t parts)
{
    _Atomic uint32_t *asked = &cells->cell[index].move_asked;

    store_release(asked, ((load_relaxed(asked) >> 8) + 1) << 8 | parts);
}

static void mend(struct rotation *rotation, const struct wait_plan *plan, struct cells *cells,
                 uint32_t place)
{
    uint32_t who = place;

    rotation->random = rotation->random * 1664525u + 1013904223u;
    if (place == plan->rotation_count)
        who = 1 + (rotation->random >> 8) % (plan->rotation_count - 1);
    else if (rotation->tries % 2 && place > 1)
        who = place - 1; /* the one it ran before: either may have no room */
    ask(cells, plan->rotation[who], 1 + (rotation->random >> 16) % (PARTS - 1));
    rotation->skip = MOVE_ROUNDS;
    if (++rotation->tries > TRIES_FACTOR * plan->rotation_count * plan->rotation_count) {
        rotation->tries = 0;
        rotation->rest_until = tsc_read() + rotation->rest_ticks;
    }
}

enum rotation_verdict rotation_vote(struct rotation *rotation, const struct wait_plan *plan,
                                    struct cells *cells, uint64_t began, uint32_t *place)
{
    if (plan->rotation_count < 2)
        return ROTATION_OPEN;
    if (unlikely(rotation->rest_until != 0)) {
        if (position_diff(began, rotation->rest_until) < 0)
            return ROTATION_OPEN;
        rotation->rest_until = 0;
    }
    int order = round_order(rotation, plan, cells, began);
    if (order < 0 || (rotation->skip > 0 && rotation->skip-- > 0))
        return ROTATION_OPEN;
    rotation->vote[order]++;
    if (++rotation->votes < (rotation->tries ? VOTES_MENDING : VOTES))
        return ROTATION_OPEN;
    *place = 0;
    if (2 * rotation->vote[0] <= rotation->votes) {
        *place = 1;
        for (uint32_t i = 2; i <= plan->rotation_count; i++) {
            if (rotation->vote[i] > rotation->vote[*place])
                *place = i;
        }
    }
    memset(rotation->vote, 0, sizeof(rotation->vote));
    rotation->votes = 0;
    if (*place != 0)
        mend(rotation, plan, cells, *place);
    else
        rotation->tries = 0;
    return *place == 0 ? ROTATION_RIGHT : ROTATION_WRONG;
}

bool rotation_obey(struct cell *cell, uint32_t *seen)
{
    struct sched_attr attr = {.size = sizeof(attr)};
    uint32_t asked = load_acquire(&cell->move_asked);

    if (likely(asked == *seen))
        return false;
    *seen = asked;
    /* For this policy sched_runtime is the task's slice; 0 where the kernel has none to set. */
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) < 0)
        attr.sched_runtime = 0;
    attr.sched_runtime += attr.sched_runtime * (asked & 0xff) / PARTS;
    if (attr.sched_runtime == 0 || syscall(SYS_sched_setattr, 0, &attr, 0) < 0) {
        const struct timespec nap = {.tv_nsec = (long)(asked & 0xff) * NAP_NS};
        nanosleep(&nap, NULL);
        store_relaxed(&cell->resumed, tsc_read());
        return true;
    }
    /* One yield that moves the deadline by the longer slice, and one that makes it count; between
     * them back to the kernel's own (0). */
    wait_yield(cell);
    attr.sched_runtime = 0;
    (void)syscall(SYS_sched_setattr, 0, &attr, 0);
    wait_yield(cell);
    return true;
}
