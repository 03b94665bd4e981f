/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rx: takes requests from its source (rx/source.h), gives each a number and puts it into a worker's
 * ring (rx/put.h).
 */
#include "rx/rx.h"

#include "rx/rx_own.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CLOCK_TICKS = 10, BEND_NS = 5000 };

/* ---- open ---- */

static int open_rings(struct stage *stage, struct rx *rx)
{
    rx->workers = stage->config.worker.count;
    for (uint32_t i = 0; i < rx->workers; i++) {
        int err = stage_producer(stage, &rx->to_worker[i], "to_worker.%u", i);
        if (err < 0)
            return err;
        rx->published += rx->to_worker[i].head - rx->to_worker[i].start;
    }
    return 0;
}

static int open_ingress(struct stage *stage, struct rx *rx)
{
    struct lane lane;

    int err = lane_find(&lane, &stage->arena, "ingress");
    if (err < 0)
        return stage_error(stage, err, "the arena has no lane `ingress`");
    err = lane_writable(&lane, &stage->arena, true);
    if (err < 0)
        return stage_error(stage, err, "arena: %s", strerror(-err));
    trace_open(&rx->ingress, &lane, 1, stage->generation, (uint32_t)stage->cpu);
    return 0;
}

static const struct rx_source *find_source(const char *name)
{
    static const struct rx_source *const sources[] = {&rx_udp, &rx_tcp, &rx_packet};

    for (uint32_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
        if (strcmp(sources[i]->name, name) == 0)
            return sources[i];
    }
    return NULL;
}

static int rx_open(struct stage *stage)
{
    struct rx *rx = calloc(1, sizeof(*rx));
    const struct config *config = &stage->config;

    if (!rx)
        return -ENOMEM;
    stage->self = rx;
    rx->source = find_source(config->rx.source);
    if (!rx->source)
        return stage_error(stage, -EINVAL, "rx.source = %s: this rx has no such source",
                           config->rx.source);
    rx->schema = config->pipeline.schema;
    rx->dispatch = config->worker.dispatch;
    rx->drop = config->ring.drop;
    rx->bells = stage->wait.park_after_ns != 0;
    rx->issued = load_relaxed(&stage->cell->issued);
    int err = open_rings(stage, rx);
    if (err == 0)
        err = open_ingress(stage, rx);
    if (err < 0)
        return err;
    return rx->source->open(stage, rx);
}

/* ---- for the sources ---- */

uint64_t rx_done_with(const struct stage *stage, const struct rx *rx)
{
    uint64_t done = rx->published;

    for (uint32_t i = 0; i < rx->workers; i++)
        done += load_acquire(&stage->cells->dropped[i]);
    if (rx->issued - done > 1)
        region_corrupt("requests published and dropped", rx->issued, done);
    return done;
}

bool rx_is_in_vain(const struct stage *stage, const struct rx *rx)
{
    bool gone = false;

    for (uint32_t i = 0; stage->draining && i < rx->workers; i++)
        gone = gone || stage_ended(stage, CELL_WORKER + i);
    return gone;
}

/* ---- turns ---- */

static int rx_poll(struct stage *stage)
{
    struct rx *rx = stage->self;

    return rx->source->poll(stage, rx);
}

/* ---- tick ---- */

/* REALTIME against MONOTONIC_RAW: what moved between two pairs was a step or a slew of the wall
 * clock. */
static void note_bend(struct stage *stage, const struct clock_pair *before,
                      const struct clock_pair *now)
{
    int64_t raw = position_diff(now->raw_ns, before->raw_ns);
    int64_t bend = position_diff(now->real_ns, before->real_ns) - raw;

    if (bend > BEND_NS || bend < -BEND_NS)
        trace_event(&stage->trace, now->tsc, POINT_clock_bend, 0, (uint64_t)bend, (uint64_t)raw);
}

static void rx_tick(struct stage *stage, uint64_t now)
{
    struct rx *rx = stage->self;

    trace_tend(&rx->ingress);
    if (rx->source->tick)
        rx->source->tick(stage, rx, now);
    if (rx->ticks++ % CLOCK_TICKS != 0)
        return;
    struct clock_pair pair = clock_pair_read(&stage->clock);
    trace_event(&stage->trace, pair.tsc, POINT_clock,
                (uint16_t)(pair.width_ns > UINT16_MAX ? UINT16_MAX : pair.width_ns), pair.raw_ns,
                pair.real_ns);
    if (rx->pair.tsc)
        note_bend(stage, &rx->pair, &pair);
    rx->pair = pair;
}

static bool rx_in_flight(const struct stage *stage)
{
    const struct rx *rx = stage->self;

    return rx->published != load_acquire(&stage->cells->cell[CELL_TX].completed);
}

static bool rx_park(struct stage *stage, uint64_t ns)
{
    struct rx *rx = stage->self;

    /* Woken by what arrives, so the timer only serves the heartbeat. */
    rx->source->park(stage, rx, 20 * ns);
    return true;
}

static bool rx_drained(struct stage *stage)
{
    struct rx *rx = stage->self;

    return !rx->source->drained || rx->source->drained(stage, rx);
}

static void rx_close(struct stage *stage)
{
    struct rx *rx = stage->self;

    trace_close(&rx->ingress);
    rx->source->close(stage, rx);
}

const struct stage_ops rx_ops = {
    .open = rx_open,
    .poll = rx_poll,
    .tick = rx_tick,
    .drained = rx_drained,
    .close = rx_close,
    .park = rx_park,
    .in_flight = rx_in_flight,
};
