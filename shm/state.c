/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/state.h"

#include <errno.h>
#include <string.h>

enum { CONTROL_OFFSET = PAGE_BYTES, COPIES_OFFSET = 2 * PAGE_BYTES, GEOMETRY_BYTES = 0 };

static uint64_t rounded(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

struct region_want state_want(uint64_t epoch)
{
    const uint64_t parts[] = {sizeof(struct state_control), COPIES_OFFSET};

    return (struct region_want){
        .kind = REGION_STATE,
        .layout = region_hash(parts, sizeof(parts) / sizeof(parts[0])),
        .epoch = epoch,
        .any_geometry = true,
        .size_min = COPIES_OFFSET + 2 * PAGE_BYTES,
    };
}

int state_create(struct region *region, const char *name, uint64_t bytes, uint64_t epoch,
                 const struct region_place *place)
{
    struct region_want want = state_want(epoch);

    if (bytes == 0 || bytes > STATE_BYTES_MAX)
        return -EINVAL;
    want.geometry[GEOMETRY_BYTES] = bytes;
    return region_create(region, name, &want, place, COPIES_OFFSET + 2 * rounded(bytes));
}

int state_attach(struct state *state, const struct region *region, struct region_mismatch *mismatch)
{
    uint64_t bytes = region->header->geometry[GEOMETRY_BYTES];

    if (bytes == 0 || bytes > STATE_BYTES_MAX ||
        region->size < COPIES_OFFSET + 2 * rounded(bytes)) {
        *mismatch = (struct region_mismatch){"state bytes", region->size - COPIES_OFFSET, bytes};
        return -EPROTO;
    }
    *state = (struct state){
        .control = region_at(region, CONTROL_OFFSET),
        .working = region_at(region, COPIES_OFFSET),
        .settled = region_at(region, COPIES_OFFSET + rounded(bytes)),
        .bytes = bytes,
    };
    return 0;
}

void state_recover(struct state *state, uint64_t next)
{
    if (position_diff(next, load_acquire(&state->control->begun)) >= 0) {
        crash_point("state:settling");
        memcpy(state->settled, state->working, state->bytes);
    } else {
        crash_point("state:undoing");
        memcpy(state->working, state->settled, state->bytes);
        crash_point("state:undone");
        store_release(&state->control->begun, next);
    }
    crash_point("state:recovered");
}

void state_settle(struct state *state)
{
    memcpy(state->settled, state->working, state->bytes);
}

bool state_touch(struct state *state, uint64_t position, uint64_t offset, uint64_t bytes)
{
    if (offset > state->bytes || bytes > state->bytes - offset)
        return false;
    if (state->ranges == 0) {
        crash_point("state:before_begin");
        /* A killed process has done its stores in their order; the compiler must keep it. */
        store_release(&state->control->begun, position + 1);
        atomic_signal_fence(memory_order_seq_cst);
        crash_point("state:begun");
    }
    if (state->ranges < STATE_RANGES_MAX) {
        state->range[state->ranges].offset = offset;
        state->range[state->ranges++].bytes = bytes;
        return true;
    }
    state->range[0].offset = 0;
    state->range[0].bytes = state->bytes;
    return true;
}

void state_commit(struct state *state)
{
    atomic_signal_fence(memory_order_seq_cst);
    crash_point("state:before_copy");
    for (uint32_t i = 0; i < state->ranges; i++) {
        uint64_t at = state->range[i].offset;
        memcpy(state->settled + at, state->working + at, state->range[i].bytes);
        crash_point("state:copied");
    }
    state->ranges = 0;
#ifdef TICKLINE_CRASH_POINTS
    if (memcmp(state->working, state->settled, state->bytes) != 0)
        region_corrupt("state changed without touch, at position", 0,
                       load_relaxed(&state->control->begun));
#endif
}
