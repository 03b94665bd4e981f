/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one run loop. Every moment is booked to a regime: the time from the end of one turn to the
 * end of the next belongs to what that turn was, so the regimes add up to the whole without a
 * second clock read a turn.
 */
#include "stage/pmu.h"
#include "stage/rotation.h"
#include "stage/stage.h"

#include <errno.h>
#include <string.h>

enum { TICK_NS = 1000000, GAP_NS = 1000 };

struct loop {
    struct stage *stage;
    uint64_t booked;     /* tsc up to which all time is booked */
    uint64_t turn_began; /* tsc, after the wait */
    uint64_t idle_since;
    uint64_t next_tick;
    uint64_t tick_ticks;
    uint64_t gap_ticks;
    uint64_t park_ticks; /* 0: never */
    uint64_t patience_ticks;
    uint64_t hopes_since; /* tsc at which something last moved, or draining began */
    uint64_t hold_ticks;  /* how long the source keeps the CPU at most */
    uint64_t gave_way;    /* tsc of its last yield */
    struct rotation rotation;
    uint32_t move_seen;
    uint32_t random;
    bool finished;
};

static void book(struct loop *loop, enum regime regime, uint64_t now)
{
    loop->stage->figures.regime_ticks[regime] += now - loop->booked;
    loop->booked = now;
}

/* An idle turn has a known short length; what exceeds it was taken from us by somebody else. */
static void book_gap(struct loop *loop, uint64_t ticks)
{
    struct cell_gaps *gaps = &loop->stage->figures.gaps;
    uint64_t ns = clock_ns(&loop->stage->clock, ticks);

    gaps->count++;
    gaps->total_ticks += ticks;
    if (ticks > gaps->max_ticks)
        gaps->max_ticks = ticks;
    gaps->bucket[cell_gap_bucket(ns)]++;
}

static void tick(struct loop *loop, uint64_t now)
{
    struct stage *stage = loop->stage;

    if (stage->ops->tick)
        stage->ops->tick(stage, now);
    if (stage->trace.lane.control)
        trace_tend(&stage->trace);
    bool wanted = stage_wanted(stage);
    if (!wanted && !stage->draining) {
        stage->draining = true;
        loop->hopes_since = now;
        (void)cell_move(stage->cell, CELL_DRAINING, CELL_BY_STAGE);
    }
    stage->figures.heartbeat = now;
    pmu_tick(stage);
    cell_publish(stage->cell, &stage->figures);
    /* Jittered by a quarter, so that no two stages fall into step. */
    loop->random = loop->random * 1664525u + 1013904223u;
    uint64_t jitter = loop->tick_ticks / 2 * (loop->random >> 16) / 65536;
    now = tsc_read();
    loop->next_tick = now + loop->tick_ticks * 3 / 4 + jitter;
    book(loop, REGIME_HOUSEKEEPING, now);
}

static void park(struct loop *loop)
{
    struct stage *stage = loop->stage;
    uint64_t began = tsc_read();

    if (!stage->ops->park(stage, WAIT_PARK_NS))
        return;
    stage->figures.parks++;
    uint64_t slept_us = clock_ns(&stage->clock, tsc_read() - began) / 1000;
    if (stage->ops->in_flight)
        trace_event(&stage->trace, tsc_read(), POINT_parked,
                    slept_us > UINT16_MAX ? UINT16_MAX : (uint16_t)slept_us, 0, 0);
}

/* Gives the CPU to the other stages of the rotation, and judges the round by who had it. */
static void give_way(struct loop *loop, uint64_t now)
{
    struct stage *stage = loop->stage;
    uint32_t place;

    wait_yield(stage->cell);
    loop->gave_way = now;
    enum rotation_verdict verdict =
        rotation_vote(&loop->rotation, &stage->wait, stage->cells, now, &place);
    if (verdict == ROTATION_OPEN)
        return;
    stage->figures.rotation_checked++;
    stage->figures.rotation_wrong = verdict == ROTATION_WRONG;
    if (verdict == ROTATION_RIGHT)
        return;
    stage->figures.rotation_mended++;
    if (loop->rotation.tries == 1)
        trace_event(&stage->trace, tsc_read(), POINT_rotation, (uint16_t)place, 0, 0);
}

/* A source keeps the CPU while nothing of its own is on its way, though not for ever: yielding takes
 * effect only for who has not run too long. */
static bool keeps_cpu(const struct loop *loop, uint64_t now)
{
    const struct stage *stage = loop->stage;

    return stage->ops->in_flight && !stage->ops->in_flight(stage) &&
           now - loop->gave_way < loop->hold_ticks;
}

/* Between two turns; the next one begins at loop->turn_began. */
static void wait_turn(struct loop *loop, uint64_t now, bool idle)
{
    struct stage *stage = loop->stage;

    loop->turn_began = now;

    if (loop->park_ticks && idle && now - loop->idle_since > loop->park_ticks &&
        !(stage->ops->in_flight && stage->ops->in_flight(stage))) {
        park(loop);
    } else if (stage->wait.kind == WAIT_BY_SPIN) {
        if (idle)
            wait_pause();
        return;
    } else if (keeps_cpu(loop, now)) {
        return;
    } else if (!rotation_obey(stage->cell, &loop->move_seen)) {
        give_way(loop, now);
    }
    loop->turn_began = tsc_read();
    book(loop, REGIME_IDLE, loop->turn_began);
}

/* Without a launcher nobody replaces or ends the others: a stage that has waited for one of them in vain,
 * for input or for room, goes. */
static bool waits_in_vain(const struct loop *loop, uint64_t now)
{
    return loop->stage->orphaned && now - loop->hopes_since > loop->patience_ticks;
}

static bool is_done(const struct loop *loop)
{
    return loop->stage->ops->drained(loop->stage) || waits_in_vain(loop, loop->booked);
}

static void turn(struct loop *loop)
{
    struct stage *stage = loop->stage;
    /* Asked before the poll: what upstream published last is seen by one that begins after its end. */
    bool may_end = unlikely(stage->draining) && is_done(loop);
    int moved = stage->ops->poll(stage);
    uint64_t now = tsc_read();

    stage->figures.turns++;
    if (moved > 0) {
        book(loop, REGIME_WORK, now);
        loop->idle_since = loop->hopes_since = now;
    } else if (moved == 0) {
        book(loop, REGIME_IDLE, now);
        if (now - loop->turn_began > loop->gap_ticks)
            book_gap(loop, now - loop->turn_began);
        loop->finished = may_end;
    } else if (moved == -EAGAIN) {
        book(loop, REGIME_BLOCKED, now);
        loop->idle_since = now;
        loop->finished = waits_in_vain(loop, now);
    } else {
        stage_error(stage, moved, "%s", strerror(-moved));
        loop->finished = true;
        return;
    }
    if (now >= loop->next_tick) {
        tick(loop, now);
        now = loop->booked;
    }
    wait_turn(loop, now, moved == 0);
}

void stage_loop(struct stage *stage)
{
    uint64_t now = tsc_read();
    struct loop loop = {
        .stage = stage,
        .booked = now,
        .turn_began = now,
        .idle_since = now,
        .next_tick = now,
        .tick_ticks = clock_ticks(&stage->clock, TICK_NS),
        .gap_ticks = clock_ticks(&stage->clock, GAP_NS),
        .park_ticks = clock_ticks(&stage->clock, stage->wait.park_after_ns),
        .patience_ticks = clock_ticks(&stage->clock, stage->config.supervise.drain_timeout_ns),
        .hold_ticks = clock_ticks(&stage->clock, ROTATION_HOLD_NS),
        .gave_way = now,
        .rotation = {.stale_ticks = clock_ticks(&stage->clock, ROTATION_STALE_NS),
                     .rest_ticks = clock_ticks(&stage->clock, ROTATION_REST_NS),
                     .random = (uint32_t)now},
        .move_seen = load_relaxed(&stage->cell->move_asked),
        .random = (uint32_t)now,
    };

    while (!loop.finished)
        turn(&loop);
    stage->figures.heartbeat = tsc_read();
    book(&loop, REGIME_HOUSEKEEPING, stage->figures.heartbeat);
    pmu_tick(stage);
    cell_publish(stage->cell, &stage->figures);
}
