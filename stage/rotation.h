/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotation: the order in which the stages of a shared CPU take turns.
 *
 * sched_yield keeps whatever order chance began with, and the wrong one makes every request wait a
 * whole round. So the source looks, whenever its turn comes again, at who ran since it gave way, and
 * mends what is wrong more often than right.
 *
 * How. Under EEVDF (Linux 6.6) a yield moves the virtual deadline by one slice, so the order of turns
 * is that of the deadlines modulo a slice and never changes by itself; not even by sleeping, since a
 * sleeper is put back to the lag it had. A stage that yields once with a longer slice of its own
 * (sched_setattr, Linux 6.12; no right is needed) has moved by just the difference. Nobody can see
 * where the others stand, so a stage out of place moves by a chance part of a slice until the order
 * is right: a few tries with three stages, some forty with six. An older kernel knows no slice of
 * one's own: there the stage naps instead, which helps by accident.
 *
 * A source that holds the CPU for longer than the average of all is ahead of it is not moved by its
 * yield and gets its next turn too early: the round is cut short. So it gives way at least every
 * ROTATION_HOLD_NS, and a round cut short counts as wrong: the others then stand too near.
 */
#ifndef TICKLINE_STAGE_ROTATION_H
#define TICKLINE_STAGE_ROTATION_H

#include "stage/wait.h"

enum {
    ROTATION_HOLD_NS = 200000,
    ROTATION_STALE_NS = 10000000,
    ROTATION_REST_NS = 250000000, /* after many tries in vain: somebody else is on this CPU */
};

/* What the source knows of its rotation. */
struct rotation {
    uint64_t stale_ticks; /* who had no turn for so long is parked, and says nothing */
    uint64_t rest_ticks;
    uint64_t rest_until;         /* tsc */
    uint32_t votes;              /* of this look */
    uint32_t skip;               /* rounds, until a stage has moved */
    uint32_t vote[CELL_MAX + 1]; /* by place of who ran too early; 0: right; count: cut short */
    uint32_t random;
    uint32_t tries; /* in a row */
};

enum rotation_verdict { ROTATION_OPEN, ROTATION_RIGHT, ROTATION_WRONG };

/*
 * Source only, after a yield at tsc `began`: the round counts as one vote. Without company: OPEN.
 * When there are enough, the verdict; where it is WRONG a stage has been asked to move, and `place`
 * is who ran too early (the count of stages: the round was cut short).
 */
enum rotation_verdict rotation_vote(struct rotation *rotation, const struct wait_plan *plan,
                                    struct cells *cells, uint64_t began, uint32_t *place);

/* Every other stage, between two turns: moves once where the source has asked for it and gives way
 * meanwhile. `seen` is the caller's memory. True: its turn has come again. */
bool rotation_obey(struct cell *cell, uint32_t *seen);

#endif
