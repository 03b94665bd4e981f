/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/counters.h"

#include "launch/tap.h"
#include "stage/io.h"

#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* ---- sockets ---- */

static void address_text(int fd, char *out, size_t size)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {0};
    socklen_t length = sizeof(address);
    char text[INET6_ADDRSTRLEN] = "?";

    out[0] = '\0';
    if (getsockname(fd, &address.any, &length) < 0)
        return;
    if (address.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address.v4.sin_addr, text, sizeof(text));
        snprintf(out, size, "%s:%u", text, ntohs(address.v4.sin_port));
    } else {
        inet_ntop(AF_INET6, &address.v6.sin6_addr, text, sizeof(text));
        snprintf(out, size, "[%s]:%u", text, ntohs(address.v6.sin6_port));
    }
}

/* From the socket itself: a message that carries the count with each datagram would miss the last
 * ones. */
static uint64_t socket_drops(int fd)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof(info);

    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) == 0 ? info[SK_MEMINFO_DROPS] : 0;
}

/* Datagrams that lie in the socket, once nobody reads it any more. Takes them out. */
static uint64_t unread(int fd)
{
    char byte;
    uint64_t count = 0;

    while (recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) >= 0)
        count++;
    return count;
}

json_t *counters_sockets(const struct pipeline *pipeline)
{
    const struct process *rx = &pipeline->process[0];
    json_t *sockets = json_array();
    struct tap_figures tap;

    for (uint32_t i = 0; i < rx->store.count; i++) {
        int granted = 0;
        socklen_t length = sizeof(granted);
        char bind[80];
        if (!store_is_socket(&rx->store.item[i]))
            continue;
        address_text(rx->store.item[i].fd, bind, sizeof(bind));
        getsockopt(rx->store.item[i].fd, SOL_SOCKET, SO_RCVBUF, &granted, &length);
        uint64_t left = rx->gone ? unread(rx->store.item[i].fd) : 0;
        json_array_append_new(sockets, json_pack("{s:s, s:I, s:I, s:i}", "bind", bind, "drops",
                                                 (json_int_t)socket_drops(rx->store.item[i].fd),
                                                 "unread", (json_int_t)left, "rcvbuf", granted));
    }
    if (tap_figures(pipeline, &tap))
        json_array_append_new(
            sockets, json_pack("{s:s, s:I, s:I, s:I, s:I}", "bind", tap.interface, "drops",
                               (json_int_t)tap.drops, "unread", (json_int_t)tap.unread, "rcvbuf",
                               (json_int_t)tap.ring_bytes, "packets", (json_int_t)tap.packets));
    return sockets;
}

static uint64_t all_socket_drops(const struct pipeline *pipeline)
{
    const struct process *rx = &pipeline->process[0];
    struct tap_figures tap;
    uint64_t sum = tap_figures(pipeline, &tap) ? tap.drops : 0;

    for (uint32_t i = 0; i < rx->store.count; i++) {
        if (store_is_socket(&rx->store.item[i]))
            sum += socket_drops(rx->store.item[i].fd);
    }
    return sum;
}

/* ---- rings and outcomes ---- */

static json_t *ring_counts(const struct region *regions, uint32_t count)
{
    json_t *rings = json_array();

    for (uint32_t i = 0; i < count; i++) {
        struct ring_positions positions = {0};
        (void)ring_positions(&regions[i], &positions);
        json_array_append_new(rings,
                              json_pack("{s:I, s:I}", "published", (json_int_t)positions.published,
                                        "consumed", (json_int_t)positions.consumed));
    }
    return rings;
}

static uint64_t outcome_sum(const struct pipeline *pipeline, uint32_t outcome)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < pipeline->config->worker.count; i++)
        sum += load_acquire(&pipeline->cells->outcome[i][outcome]);
    return sum;
}

static json_t *outcomes(const struct pipeline *pipeline)
{
    json_t *rejected = json_object();

    for (uint32_t i = 0; i < REASON_COUNT; i++)
        json_object_set_new(rejected, reason_name[i],
                            number(outcome_sum(pipeline, OUTCOME_REJECTED + i)));
    return json_pack("{s:I, s:I, s:I, s:o}", "transmitted",
                     (json_int_t)outcome_sum(pipeline, OUTCOME_TRANSMITTED), "filtered",
                     (json_int_t)outcome_sum(pipeline, OUTCOME_FILTERED), "dropped_tx",
                     (json_int_t)outcome_sum(pipeline, OUTCOME_DROPPED), "rejected", rejected);
}

static uint64_t dropped_sum(const struct pipeline *pipeline)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < pipeline->config->worker.count; i++)
        sum += load_acquire(&pipeline->cells->dropped[i]);
    return sum;
}

/* ---- stages ---- */

static json_t *gap_histogram(const struct cell_gaps *gaps)
{
    json_t *histogram = json_array();

    for (uint32_t i = 0; i < CELL_GAP_BUCKETS; i++) {
        if (gaps->bucket[i])
            json_array_append_new(histogram, json_pack("[I, I]", (json_int_t)cell_gap_low_ns(i),
                                                       (json_int_t)gaps->bucket[i]));
    }
    return histogram;
}

/* NULL where none are known. */
static json_t *own_counters(const struct cell_counters *counters)
{
    static const char *const names[] = {
#define COUNTER_NAME(name) #name,
        COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
    };
    json_t *known = counters->known ? json_object() : NULL;

    for (uint32_t i = 0; i < COUNTER_COUNT; i++) {
        if (counters->known >> i & 1)
            json_object_set_new(known, names[i], number(counters->count[i]));
    }
    return known;
}

static json_t *stage_counts(const struct cell *cell)
{
    struct cell_lazy lazy;

    if (cell_read(cell, &lazy) < 0)
        memset(&lazy, 0, sizeof(lazy));
    json_t *regimes =
        json_pack("{s:I, s:I, s:I, s:I}", "work", (json_int_t)lazy.regime_ticks[REGIME_WORK],
                  "idle", (json_int_t)lazy.regime_ticks[REGIME_IDLE], "blocked",
                  (json_int_t)lazy.regime_ticks[REGIME_BLOCKED], "housekeeping",
                  (json_int_t)lazy.regime_ticks[REGIME_HOUSEKEEPING]);
    json_t *gaps =
        json_pack("{s:I, s:I, s:I, s:o}", "count", (json_int_t)lazy.gaps.count, "total_ticks",
                  (json_int_t)lazy.gaps.total_ticks, "max_ticks", (json_int_t)lazy.gaps.max_ticks,
                  "histogram", gap_histogram(&lazy.gaps));
    return json_pack("{s:i, s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o*}", "pid",
                     (int)load_relaxed(&cell->pid), "cpu", (int)load_relaxed(&cell->cpu),
                     "generation", (int)load_relaxed(&cell->generation), "state",
                     cell_state_name(cell_state(cell)), "turns", (json_int_t)lazy.turns, "wakes",
                     (json_int_t)lazy.wakes, "parks", (json_int_t)lazy.parks, "heartbeat",
                     (json_int_t)lazy.heartbeat, "regimes_ticks", regimes, "gaps", gaps, "counters",
                     own_counters(&lazy.counters));
}

/* Figures are published once a millisecond; what a killed rx had taken since stands in its buffers. */
static uint64_t datagrams(const struct pipeline *pipeline, const struct cell_lazy *lazy)
{
    const struct process *rx = &pipeline->process[0];
    uint64_t taken = lazy->datagrams;
    struct tap_figures tap;

    if (tap_figures(pipeline, &tap))
        return tap.counts.frames;
    for (uint32_t i = 0; rx->gone && rx->status > 128 && i < rx->store.count; i++) {
        if (strcmp(rx->store.item[i].name, "rx.received") == 0)
            (void)receiver_taken(rx->store.item[i].fd, &taken);
    }
    return taken;
}

static json_t *rx_counts(const struct pipeline *pipeline)
{
    const struct cell *cell = &pipeline->cells->cell[CELL_RX];
    struct cell_lazy lazy;
    json_t *dropped = json_array();

    if (cell_read(cell, &lazy) < 0)
        memset(&lazy, 0, sizeof(lazy));
    for (uint32_t i = 0; i < pipeline->config->worker.count; i++)
        json_array_append_new(dropped, number(load_acquire(&pipeline->cells->dropped[i])));
    return json_pack("{s:I, s:I, s:I, s:o}", "datagrams", (json_int_t)datagrams(pipeline, &lazy),
                     "bytes", (json_int_t)lazy.bytes, "issued",
                     (json_int_t)load_acquire(&cell->issued), "dropped", dropped);
}

/* Sequence numbers, a feed each. */
static json_t *feed_counts(const struct pipeline *pipeline)
{
    json_t *feeds = json_array();
    struct feed_figures feed;

    for (uint32_t i = 0; i <= FEEDS_MAX; i++) {
        if (!feed_read(&pipeline->cells->feeds, i, &feed))
            continue;
        json_t *counts =
            json_pack("{s:I, s:I, s:I, s:I, s:I}", "messages", (json_int_t)feed.messages, "gaps",
                      (json_int_t)feed.gaps, "missing", (json_int_t)feed.missing, "repeated",
                      (json_int_t)feed.repeated, "resets", (json_int_t)feed.resets);
        if (i < FEEDS_MAX)
            json_object_update_new(
                counts,
                json_pack("{s:i, s:I, s:I, s:I, s:I}", "protocol", (int)feed.protocol, "channel",
                          (json_int_t)feed.channel, "session", (json_int_t)feed.session, "began",
                          (json_int_t)feed.began, "next", (json_int_t)feed.next));
        json_array_append_new(feeds, counts);
    }
    return feeds;
}

/* ---- lanes ---- */

static json_t *lane_counts(const struct pipeline *pipeline, uint64_t *discarded)
{
    json_t *lanes = json_object();
    struct lane lane;

    *discarded = 0;
    for (uint32_t i = 0; lane_open(&lane, &pipeline->arena, i) == 0; i++) {
        uint64_t lost = load_acquire(&lane.control->discarded);
        uint64_t records = load_acquire(&lane.control->records);
        *discarded += lost;
        json_object_set_new(
            lanes, lane.entry->name,
            json_pack("{s:I, s:I}", "records", (json_int_t)records, "discarded", (json_int_t)lost));
    }
    return lanes;
}

/* Requests whose reply may have been sent twice. */
static json_t *repeated(const struct pipeline *pipeline)
{
    const struct cell_repeats *repeats = &pipeline->cells->repeats;
    uint64_t count = load_acquire(&repeats->count);
    json_t *requests = json_array();

    for (uint64_t i = count > CELL_REPEATS_MAX ? count - CELL_REPEATS_MAX : 0; i < count; i++)
        json_array_append_new(requests, number(repeats->request[i % CELL_REPEATS_MAX]));
    return requests;
}

/* By worker: outputs published after its handler's state was lost; only where one may be. */
static void add_suspect(const struct pipeline *pipeline, json_t *snapshot)
{
    json_t *suspect = json_array();

    for (uint32_t i = 0; i < pipeline->config->worker.count; i++) {
        uint64_t from = load_acquire(&pipeline->cells->suspect_from[i]);
        struct ring_positions positions = {0};
        (void)ring_positions(&pipeline->to_tx[i], &positions);
        json_array_append_new(suspect, number(from ? positions.published - (from - 1) : 0));
    }
    if (pipeline->handler->state_lost)
        json_object_set(snapshot, "suspect", suspect);
    json_decref(suspect);
}

json_t *counters_snapshot(const struct pipeline *pipeline)
{
    uint32_t workers = pipeline->config->worker.count;
    struct clock_pair pair = clock_pair_read(&pipeline->clock);
    json_t *stages = json_object();
    uint64_t discarded;

    for (uint32_t i = 0; i < pipeline->count; i++) {
        const struct process *process = &pipeline->process[i];
        json_object_set_new(stages, process->name,
                            stage_counts(&pipeline->cells->cell[process->cell]));
    }
    json_t *snapshot = json_pack(
        "{s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o*, s:o*, s:o, s:o*}", "tsc",
        (json_int_t)pair.tsc, "realtime_ns", (json_int_t)pair.real_ns, "rx", rx_counts(pipeline),
        "to_worker", ring_counts(pipeline->to_worker, workers), "to_tx",
        ring_counts(pipeline->to_tx, workers), "outcomes", outcomes(pipeline), "repeated",
        repeated(pipeline), "sockets", counters_sockets(pipeline), "stages", stages, "lanes",
        lane_counts(pipeline, &discarded), "connections", counters_connections(pipeline), "replies",
        counters_replies(pipeline), "feed", feed_counts(pipeline), "tap", tap_json(pipeline));
    add_suspect(pipeline, snapshot);
    return snapshot;
}

/* Sockets in which something waits to be read: a stage that gets no CPU leaves it there, and nothing that is
 * counted moves. */
static uint64_t sockets_waiting(const struct pipeline *pipeline)
{
    const struct store *store = &pipeline->process[0].store;
    uint64_t waiting = 0;

    for (uint32_t i = 0; i < store->count; i++) {
        const struct store_item *item = &store->item[i];
        int bytes = 0;
        if ((store_is_socket(item) || store_is_connection(item)) &&
            ioctl(item->fd, FIONREAD, &bytes) == 0)
            waiting += bytes > 0;
    }
    return waiting;
}

json_t *counters_stats(const struct pipeline *pipeline)
{
    const struct cells *cells = pipeline->cells;
    uint64_t issued = load_acquire(&cells->cell[CELL_RX].issued);
    uint64_t completed = load_acquire(&cells->cell[CELL_TX].completed);
    uint64_t dropped = dropped_sum(pipeline);
    struct cell_lazy rx;
    uint64_t discarded;

    if (cell_read(&cells->cell[CELL_RX], &rx) < 0)
        memset(&rx, 0, sizeof(rx));
    json_decref(lane_counts(pipeline, &discarded));
    uint64_t in_flight =
        issued - completed - dropped + tap_waiting(pipeline) + sockets_waiting(pipeline);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "event", "stats", "datagrams",
                     (json_int_t)rx.datagrams, "received", (json_int_t)issued, "completed",
                     (json_int_t)completed, "in_flight", (json_int_t)in_flight, "dropped",
                     (json_int_t)dropped, "discarded", (json_int_t)discarded, "socket_drops",
                     (json_int_t)all_socket_drops(pipeline));
}

json_t *counters_rotation(const struct pipeline *pipeline)
{
    const struct placement *placement = pipeline->placement;
    struct cell_lazy rx;

    for (uint32_t i = 0; i < placement->rotations; i++) {
        const struct placement_rotation *rotation = &placement->rotation[i];
        /* The source judges the order, so only its own CPU has one that is kept. */
        if (rotation->stage[0] != 0)
            continue;
        json_t *order = json_array();
        for (uint32_t k = 0; k < rotation->count; k++)
            json_array_append_new(order, json_string(placement->stage[rotation->stage[k]].name));
        if (cell_read(&pipeline->cells->cell[CELL_RX], &rx) < 0)
            memset(&rx, 0, sizeof(rx));
        return json_pack("{s:i, s:o, s:I, s:I, s:b}", "cpu", (int)rotation->cpu, "order", order,
                         "checked", (json_int_t)rx.rotation_checked, "mended",
                         (json_int_t)rx.rotation_mended, "right", !rx.rotation_wrong);
    }
    return NULL;
}

json_t *counters_clock(const struct pipeline *pipeline)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:b, s:s}", "tsc_hz", pipeline->clock.hz,
                     "error_ppm", pipeline->clock.error_ppm, "error_ns",
                     (double)clock_pair_read(&pipeline->clock).width_ns / 2, "skew_ns",
                     pipeline->skew_ns, "skew_error_ns", pipeline->skew_error_ns, "invariant",
                     clock_invariant(), "source",
#if defined(__x86_64__)
                     "tsc"
#else
                     "cntvct"
#endif
    );
}
