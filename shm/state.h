/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State: the memory of a handler that outlives its worker. A block in two copies, committed with
 * the publish of the output.
 *
 * The handler changes `working` and announces each change before it makes it. Once the output is
 * published what was announced is copied to `settled`. So at any moment one of the two is what a
 * successor needs, and the ring says which: positions are those of the worker's input ring, and
 * `next` is where ring_resume() goes on.
 *
 *   begun    input + 1 that `working` is being, or was, changed for; stored before the change
 *   next - begun >= 0   that output is published: working is whole, settled may be half copied
 *   next - begun <  0   it is not: settled is whole, working may be half changed
 *
 * One word decides, and it was stored before; there is no moment between. Recovery copies the block once
 * and may itself be killed anywhere.
 *
 *   page 0 region header | page 1 struct state_control | working | settled (whole pages each)
 */
#ifndef TICKLINE_SHM_STATE_H
#define TICKLINE_SHM_STATE_H

#include "shm/crash.h"
#include "shm/region.h"

enum { STATE_RANGES_MAX = 64 };

#define STATE_BYTES_MAX (UINT64_C(1) << 30)

struct state_control {
    _Atomic uint64_t begun; /* worker, release; read by its successor */
};

/* The worker's end; all but what the pointers lead to is private to it. */
struct state {
    struct state_control *control;
    uint8_t *working;
    uint8_t *settled;
    uint64_t bytes;
    uint32_t ranges; /* announced since the last commit; 0: nothing to commit */
    struct {
        uint64_t offset;
        uint64_t bytes;
    } range[STATE_RANGES_MAX];
};

/* -EINVAL: no bytes, or more than STATE_BYTES_MAX. */
int state_create(struct region *region, const char *name, uint64_t bytes, uint64_t epoch,
                 const struct region_place *place);
struct region_want state_want(uint64_t epoch);

/* -EPROTO where the size in the header cannot be. The region must outlive it. */
int state_attach(struct state *state, const struct region *region,
                 struct region_mismatch *mismatch);

/* Of a successor, before anything else: both copies become what `next` says. */
void state_recover(struct state *state, uint64_t next);

/* Both copies become the working one: what init of the first life has written. */
void state_settle(struct state *state);

/*
 * Announces a change of working bytes for the input at `position`. False where they are not within the
 * block. Beyond STATE_RANGES_MAX ranges an input the whole block counts as changed.
 */
bool state_touch(struct state *state, uint64_t position, uint64_t offset, uint64_t bytes);

/* After the publish, where `ranges` is not 0. */
void state_commit(struct state *state);

#endif
