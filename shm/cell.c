/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/cell.h"

#include "shm/crash.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define FROM(state) (1u << (state))

/* allowed[mover][to] = the states from which; drawn as a table in cell.h */
static const uint32_t allowed[2][CELL_STATE_COUNT] = {
    [CELL_BY_STAGE] =
        {
            [CELL_OPENING] = FROM(CELL_STARTING),
            [CELL_READY] = FROM(CELL_OPENING),
            [CELL_RUNNING] = FROM(CELL_READY),
            [CELL_DRAINING] = FROM(CELL_RUNNING) | FROM(CELL_READY),
            [CELL_DONE] = FROM(CELL_DRAINING),
            [CELL_FAILED] = FROM(CELL_STARTING) | FROM(CELL_OPENING) | FROM(CELL_READY) |
                            FROM(CELL_RUNNING) | FROM(CELL_DRAINING),
        },
    [CELL_BY_LAUNCHER] =
        {
            [CELL_ABSENT] = FROM(CELL_DEAD),
            [CELL_STARTING] = FROM(CELL_ABSENT) | FROM(CELL_DEAD),
            [CELL_DEAD] = FROM(CELL_STARTING) | FROM(CELL_OPENING) | FROM(CELL_READY) |
                          FROM(CELL_RUNNING) | FROM(CELL_DRAINING) | FROM(CELL_FAILED),
        },
};

static const char *const state_name[CELL_STATE_COUNT] = {
    "absent", "starting", "opening", "ready", "running", "draining", "done", "failed", "dead",
};

static uint64_t cells_layout(void)
{
    const uint64_t parts[] = {
        CELL_MAX,
        OUTCOME_COUNT,
        sizeof(struct cell),
        sizeof(struct cells),
        sizeof(struct cell_lazy),
        offsetof(struct cell, wanted),
        offsetof(struct cell, state),
        offsetof(struct cell, issued),
        offsetof(struct cell, resumed),
        offsetof(struct cell, move_asked),
        offsetof(struct cell, lazy),
        offsetof(struct cells, slow),
        offsetof(struct cells, dropped),
        offsetof(struct cells, outcome),
        offsetof(struct cells, sending),
        offsetof(struct cells, repeats),
        offsetof(struct cells, streams),
        offsetof(struct cells, feeds),
        offsetof(struct cells, crash),
        offsetof(struct cells, suspect_from),
    };
    return region_hash(parts, sizeof(parts) / sizeof(parts[0]));
}

struct region_want cells_want(uint64_t epoch)
{
    return (struct region_want){
        .kind = REGION_CELLS,
        .layout = cells_layout(),
        .epoch = epoch,
        .size_min = CELLS_OFFSET + sizeof(struct cells),
    };
}

int cells_create(struct region *region, uint64_t epoch, const struct region_place *place)
{
    struct region_want want = cells_want(epoch);

    return region_create(region, "tickline-cells", &want, place,
                         CELLS_OFFSET + sizeof(struct cells));
}

int cell_move(struct cell *cell, enum cell_state to, enum cell_mover mover)
{
    uint32_t from = load_relaxed(&cell->state);

    if (from >= CELL_STATE_COUNT)
        region_corrupt("stage state", CELL_STATE_COUNT - 1, from);
    if (!(allowed[mover][to] & FROM(from)))
        return -EPERM;
    crash_point("cell:before_move");
    store_release(&cell->state, (uint32_t)to);
    crash_point("cell:after_move");
    return 0;
}

const char *const cell_undelivered_name[CELL_UNDELIVERED_COUNT] = {
    [CELL_UNDELIVERED_GONE] = "gone",
    [CELL_UNDELIVERED_PATIENCE] = "patience",
    [CELL_UNDELIVERED_ERROR] = "error",
};

const char *cell_state_name(enum cell_state state)
{
    return (unsigned int)state < CELL_STATE_COUNT ? state_name[state] : "unknown";
}

struct cell_text cell_name(const struct cell *cell)
{
    struct cell_text text = {.s = ""};

    for (size_t i = 0; i < sizeof(cell->name) && cell->name[i]; i++)
        text.s[i] = isalnum((unsigned char)cell->name[i]) ? cell->name[i] : '?';
    return text;
}

/* A sequence lock with one writer: the copy between an odd and the next even number is not to be
 * believed. */
void cell_publish(struct cell *cell, const struct cell_lazy *figures)
{
    uint64_t sequence = load_relaxed(&cell->lazy_sequence) | 1;

    store_relaxed(&cell->lazy_sequence, sequence);
    atomic_thread_fence(memory_order_release);
    crash_point("cell:copy_begun");
    memcpy(&cell->lazy, figures, sizeof(cell->lazy));
    crash_point("cell:copied");
    store_release(&cell->lazy_sequence, sequence + 1);
    crash_point("cell:published");
}

int cell_read(const struct cell *cell, struct cell_lazy *figures)
{
    for (int attempt = 0; attempt < 1000; attempt++) {
        uint64_t before = load_acquire(&cell->lazy_sequence);

        memcpy(figures, &cell->lazy, sizeof(*figures));
        atomic_thread_fence(memory_order_acquire);
        if (!(before & 1) && load_relaxed(&cell->lazy_sequence) == before)
            return 0;
    }
    return -EAGAIN;
}

/* Each word is either the old or the new one, so the mixture is off by one tick at most. */
void cell_mend(struct cell *cell)
{
    uint64_t sequence = load_acquire(&cell->lazy_sequence);

    store_release(&cell->lazy_sequence, sequence + (sequence & 1));
}

uint64_t cells_counted(const struct cells *cells, uint32_t worker)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < OUTCOME_COUNT; i++)
        sum += load_relaxed(&cells->outcome[worker][i]);
    return sum;
}

enum { GAP_FIRST_NS = 1024, GAP_FIRST_LOG2 = 10 };

uint32_t cell_gap_bucket(uint64_t gap_ns)
{
    if (gap_ns < GAP_FIRST_NS)
        return 0;
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(gap_ns);
    uint32_t quarter = (uint32_t)(gap_ns >> (octave - 2)) & 3;
    uint32_t bucket = 4 * (octave - GAP_FIRST_LOG2) + quarter;
    return bucket < CELL_GAP_BUCKETS ? bucket : CELL_GAP_BUCKETS - 1;
}

uint64_t cell_gap_low_ns(uint32_t bucket)
{
    uint32_t octave = bucket / 4 + GAP_FIRST_LOG2;

    return (1ULL << octave) + ((uint64_t)(bucket % 4) << (octave - 2));
}
