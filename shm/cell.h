/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage cells: one for each process, in one region. What a stage tells the world about itself, and
 * what the launcher wants of it.
 *
 * Each word has one writer, named below. Between a process's death (as waitid reports it) and the
 * start of its successor the launcher owns the whole cell.
 *
 *   state      who moves it there   from
 *   absent     launcher             (initial), dead
 *   starting   launcher             absent, dead
 *   opening    stage                starting
 *   ready      stage                opening
 *   running    stage                ready
 *   draining   stage                running, ready
 *   done       stage                draining
 *   failed     stage                starting, opening, ready, running, draining
 *   dead       launcher             any but absent, done and dead, after waitid
 *
 * Every other move is forbidden (cell_move answers -EPERM): no way back from done, no running
 * without ready.
 */
#ifndef TICKLINE_SHM_CELL_H
#define TICKLINE_SHM_CELL_H

#include "shm/feed.h"
#include "shm/points.h"
#include "shm/region.h"

enum {
    CELL_WORKERS_MAX = 16,
    CELL_MAX = CELL_WORKERS_MAX + 3,
    CELL_GAP_BUCKETS = 96,
    CELL_ERROR_MAX = 512,
    CELL_REPEATS_MAX = 4096,
};

enum cell_index { CELL_RX = 0, CELL_TX = 1, CELL_TRACER = 2, CELL_WORKER = 3 /* + worker */ };

enum cell_state {
    CELL_ABSENT,
    CELL_STARTING,
    CELL_OPENING,
    CELL_READY,
    CELL_RUNNING,
    CELL_DRAINING,
    CELL_DONE,
    CELL_FAILED,
    CELL_DEAD,
    CELL_STATE_COUNT,
};

enum cell_mover { CELL_BY_STAGE, CELL_BY_LAUNCHER };

/* What the launcher wants; only ever moves down this list. */
enum cell_wanted { CELL_WANT_READY, CELL_WANT_RUN, CELL_WANT_DRAIN, CELL_WANT_STOP };

/* Every moment of a stage is booked to one of them; together they are its whole time. */
enum regime { REGIME_WORK, REGIME_IDLE, REGIME_BLOCKED, REGIME_HOUSEKEEPING, REGIME_COUNT };

/* Interruptions of the waiting loop of at least 1 µs: what the host takes from this CPU. */
struct cell_gaps {
    uint64_t count;
    uint64_t total_ticks;
    uint64_t max_ticks;
    uint64_t bucket[CELL_GAP_BUCKETS]; /* cell_gap_bucket */
};

/* What a stage may count of its own thread (trace.counters, stage/pmu.h), by the names of counters.json. */
#define COUNTERS(COUNTER)                                                                          \
    COUNTER(instructions)                                                                          \
    COUNTER(cycles)                                                                                \
    COUNTER(cache_misses)                                                                          \
    COUNTER(branch_misses)                                                                         \
    COUNTER(minor_faults)                                                                          \
    COUNTER(major_faults)                                                                          \
    COUNTER(voluntary_switches)                                                                    \
    COUNTER(involuntary_switches)                                                                  \
    COUNTER(cpu_ns)

enum counter {
#define COUNTER_ENUM(name) COUNTER_##name,
    COUNTERS(COUNTER_ENUM)
#undef COUNTER_ENUM
        COUNTER_COUNT,
};

struct cell_counters {
    uint64_t known; /* bit i: enum counter i */
    uint64_t count[COUNTER_COUNT];
};

/* Published by the stage from its tick, about once a millisecond, and once more at its end. */
struct cell_lazy {
    uint64_t heartbeat; /* tsc */
    uint64_t turns;
    uint64_t regime_ticks[REGIME_COUNT];
    uint64_t datagrams; /* rx: received */
    uint64_t bytes;     /* rx: received, tx: sent */
    uint64_t wakes;     /* bells rung */
    uint64_t parks;     /* times slept */
    uint64_t rotation_checked;
    uint64_t rotation_mended;
    uint64_t rotation_wrong; /* found out of place at the last check */
    struct cell_gaps gaps;
    struct cell_counters counters;
};

struct cell {
    /* launcher */
    _Alignas(LINE_PAIR_BYTES) char name[16];
    _Atomic uint32_t wanted; /* enum cell_wanted; release, pairs with the run loop's acquire */
    _Atomic uint32_t
        generation; /* raised before each start; release, pairs with the stage's attach */
    _Atomic uint32_t used;

    /* stage (launcher while dead) */
    _Alignas(
        LINE_PAIR_BYTES) _Atomic uint32_t state; /* release, pairs with the launcher's acquire */
    _Atomic int32_t pid;
    _Atomic int32_t cpu;
    char error[CELL_ERROR_MAX]; /* written before state failed */

    /* stage; per request */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t
        issued;                 /* rx: request numbers given out, stored before use */
    _Atomic uint64_t completed; /* tx: inputs completed; release, pairs with rx's acquire */

    /* stage; per yield. tsc at which its turn began: what the rotation is judged by */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t resumed;

    /* rx: when it changes, this stage is to move to another place in the rotation (stage/rotation.h) */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint32_t move_asked;

    /* stage; lazily, a copy of its private figures. `lazy_sequence` is odd while the copy is being
     * written */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t lazy_sequence;
    struct cell_lazy lazy;
};

/* A request that took longer than trace.snapshot_over: the flight recorder's trigger. */
struct cell_slow {
    _Atomic uint64_t count; /* release, after the others; pairs with the tracer's acquire */
    _Atomic uint64_t request;
    _Atomic uint64_t ticks;
};

/* Replies that may have been sent twice: a predecessor was killed around their send. Written by tx when
 * it takes over; the newest where there are more than the list holds. */
struct cell_repeats {
    _Atomic uint64_t count; /* release, after the request; pairs with the launcher's acquire */
    uint64_t request[CELL_REPEATS_MAX];
};

/* Why a reply was dropped on its way into a connection. */
enum cell_undelivered {
    CELL_UNDELIVERED_GONE,     /* nobody is left who asked, or can be told from where */
    CELL_UNDELIVERED_PATIENCE, /* tx.patience, or the end of the run */
    CELL_UNDELIVERED_ERROR,    /* the connection failed */
    CELL_UNDELIVERED_COUNT,
};

extern const char *const cell_undelivered_name[CELL_UNDELIVERED_COUNT];

/* What befell tx's connections; each event once, or not at all where tx was killed in it. The account
 * does not rest on it: that is `outcome`. */
struct cell_streams {
    _Atomic uint64_t lost;                 /* connections of tx.sink = tcp, after they were up */
    _Atomic uint64_t back;                 /* and up again */
    _Atomic uint64_t refused;              /* attempts that failed */
    _Atomic uint64_t unacknowledged_bytes; /* of replies that count as transmitted, when the
                                            * connection was lost: perhaps with nobody */
    _Atomic uint64_t discarded_bytes;      /* what the other side of tx.sink = tcp has said */
    _Atomic uint64_t undelivered[CELL_UNDELIVERED_COUNT];
};

/* A request in which the handler of a worker has crashed. */
struct cell_crash {
    uint64_t request;
    uint64_t count; /* how often; 0: in none */
};

struct cells {
    struct cell cell[CELL_MAX];
    /* tx */
    _Alignas(LINE_PAIR_BYTES) struct cell_slow slow;
    /* rx: requests dropped because the worker's ring was full */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t dropped[CELL_WORKERS_MAX];
    /*
     * tx: what became of each output, by worker. A count is stored before the ring's tail moves and
     * in the ring's order, so the sum of a row is the position up to which everything is counted: a
     * successor skips what its predecessor had counted and committed no more.
     */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t outcome[CELL_WORKERS_MAX][OUTCOME_COUNT];
    /* tx: position in each ring up to which sends may have begun, stored before they do. What lies
     * between the outputs counted and here is what a successor repeats. */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t sending[CELL_WORKERS_MAX];
    _Alignas(LINE_PAIR_BYTES) struct cell_repeats repeats;
    /* tx */
    _Alignas(LINE_PAIR_BYTES) struct cell_streams streams;
    /* rx: sequence numbers (schema iex) */
    _Alignas(LINE_PAIR_BYTES) struct feeds feeds;
    /* worker, as it crashes; read by its successor */
    _Alignas(LINE_PAIR_BYTES) struct cell_crash crash[CELL_WORKERS_MAX];
    /* worker, when it takes over from one whose state is lost, once: outputs published until then, and 1
     * more; 0: nothing was lost. Release, pairs with the launcher's acquire */
    _Atomic uint64_t suspect_from[CELL_WORKERS_MAX];
};

enum { CELLS_OFFSET = PAGE_BYTES };

struct region_want cells_want(uint64_t epoch);
int cells_create(struct region *region, uint64_t epoch, const struct region_place *place);

static inline struct cells *cells_of(const struct region *region)
{
    return (struct cells *)region_at(region, CELLS_OFFSET);
}

/* Moves the state; 0, or -EPERM where the table above has no such move. */
int cell_move(struct cell *cell, enum cell_state to, enum cell_mover mover);

static inline enum cell_state cell_state(const struct cell *cell)
{
    return (enum cell_state)load_acquire(&cell->state);
}

const char *cell_state_name(enum cell_state state);

/* The cell's name as text, whatever stands in it. */
struct cell_text {
    char s[17];
};
struct cell_text cell_name(const struct cell *cell);

/* Stage: publishes its private figures. Readers take a consistent copy or -EAGAIN (the stage died
 * in the copy). */
void cell_publish(struct cell *cell, const struct cell_lazy *figures);
int cell_read(const struct cell *cell, struct cell_lazy *figures);

/* Launcher, of a dead stage: figures that it was killed while publishing count as published. */
void cell_mend(struct cell *cell);

/* Outputs counted for a worker's ring: the sum of its row. */
uint64_t cells_counted(const struct cells *cells, uint32_t worker);

/* Log-linear buckets, four an octave from 1 µs: bucket of a gap and the lower bound of a bucket, in
 * ns. */
uint32_t cell_gap_bucket(uint64_t gap_ns);
uint64_t cell_gap_low_ns(uint32_t bucket);

#endif
