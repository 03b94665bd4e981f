/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When may sub-buffer n be overwritten while it is read? Its owner opens n + count in the same
 * place, and not before n + count - 1 is sealed. We stay one more sub-buffer away from that: a copy
 * is believed where, after it, fewer than n + count - 1 are sealed. Between that seal and the first
 * word of the new lap lies a whole sub-buffer of released stores, so no order of memory hides it.
 */
#include "launch/latency.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* kernel, and all of the list */
#define COUNT_POINT(name, id, stage, span, sentence) COUNTED_##name,
enum { COUNTED_kernel, POINTS(COUNT_POINT) POINTS_MAX };
#undef COUNT_POINT

enum {
    POINT_IDS = 0x400,
    BATCH = 512,
    PASSAGES = 1 << 16,     /* requests on their way that we remember; a power of two */
    BEHIND_BYTES = 1 << 20, /* what one reading of a lane may catch up on */
    FINE_BITS = 6,
    FINE = 1 << FINE_BITS,
    BUCKETS = (64 - FINE_BITS) * FINE + FINE,
    BEYOND_MIN = 10,
    BRACKET_MIN_NS = 25,
};
static_assert((int)POINTS_MAX <= (int)LATENCY_SPANS_MAX, "each point but the first ends one");

struct record {
    uint64_t tsc;
    uint64_t value;
    uint64_t extra;
    uint32_t request;
    uint16_t point;
    uint16_t argument;
};

/* Where we stand in a lane. */
struct follower {
    struct lane lane;
    uint64_t number; /* sub-buffer */
    uint64_t offset; /* of the next record in its payload */
    uint64_t last;   /* tsc of the record before */
    uint64_t keep;   /* sub-buffers that we read at most, the open one included */
};

/* A request: the ticks at which it passed each point, 0: not yet. */
struct passage {
    uint64_t request;
    int64_t ticks[POINTS_MAX];
};

/* Log-linear: FINE buckets an octave. */
struct span {
    uint64_t count;
    uint64_t negative;
    int64_t min;
    int64_t max;
    uint32_t bucket[BUCKETS];
};

struct latency {
    double hz;
    uint32_t lanes;
    struct follower follower[LANE_MAX];

    uint32_t points; /* kernel is 0 */
    const char *name[POINTS_MAX];
    const char *kind[POINTS_MAX];
    uint8_t index[POINT_IDS]; /* by id; 0: no point of a request */
    uint32_t last_point;      /* where `through` ends */

    uint64_t pair_tsc; /* newest clock pair; 0: none yet */
    uint64_t pair_real_ns;
    uint32_t bracket_limit_ns;

    struct span span[POINTS_MAX]; /* [i]: point i - 1 to i; [0]: through */
    struct passage passage[PASSAGES];
    struct record batch[BATCH];
};

/* ---- histogram ---- */

static uint32_t bucket_of(uint64_t ticks)
{
    if (ticks < FINE)
        return (uint32_t)ticks;
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(ticks) - FINE_BITS;
    return (shift << FINE_BITS) + (uint32_t)(ticks >> shift);
}

static int64_t bucket_end(uint32_t bucket)
{
    uint32_t shift = bucket >= 2 * FINE ? (bucket >> FINE_BITS) - 1 : 0;
    uint64_t first = bucket - (shift << FINE_BITS);

    return (int64_t)(((first + 1) << shift) - 1);
}

static void count(struct span *span, int64_t ticks)
{
    if (span->count == 0 || ticks < span->min)
        span->min = ticks;
    if (span->count == 0 || ticks > span->max)
        span->max = ticks;
    span->count++;
    if (ticks < 0)
        span->negative++;
    else
        span->bucket[bucket_of((uint64_t)ticks)]++;
}

/* By nearest rank, in ticks; NAN where too few lie beyond. */
static double percentile(const struct span *span, uint32_t percent)
{
    uint64_t rank = (span->count * percent + 99) / 100;
    uint64_t seen = span->negative;

    if (span->count < rank + BEYOND_MIN)
        return NAN;
    if (rank <= seen)
        return (double)span->min;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        seen += span->bucket[i];
        if (seen >= rank) {
            int64_t end = bucket_end(i);
            return (double)(end < span->max ? end : span->max);
        }
    }
    return NAN;
}

/* ---- joining ---- */

/* Stamps are anything where a clock or a word is wrong: the difference wraps. */
static int64_t span_of(int64_t from, int64_t to)
{
    return position_diff((uint64_t)to, (uint64_t)from);
}

static void pass(struct latency *latency, struct passage *passage, uint32_t point, int64_t ticks)
{
    int64_t *at = passage->ticks;

    at[point] = ticks;
    if (point != 0 && at[point - 1])
        count(&latency->span[point], span_of(at[point - 1], ticks));
    if (point + 1 < latency->points && at[point + 1])
        count(&latency->span[point + 1], span_of(ticks, at[point + 1]));
    if ((point == 0 || point == latency->last_point) && at[0] && at[latency->last_point])
        count(&latency->span[0], span_of(at[0], at[latency->last_point]));
}

/* A pair whose reading was interrupted says little; but not for ever, should all be like that. */
static void take_pair(struct latency *latency, const struct record *record)
{
    uint32_t bracket = record->argument > BRACKET_MIN_NS ? record->argument : BRACKET_MIN_NS;

    if (latency->pair_tsc && bracket > latency->bracket_limit_ns) {
        latency->bracket_limit_ns *= 2;
        return;
    }
    latency->bracket_limit_ns = 4 * bracket;
    latency->pair_tsc = record->tsc;
    latency->pair_real_ns = record->extra;
}

static int64_t kernel_ticks(const struct latency *latency, uint64_t real_ns)
{
    double ahead_ns = (double)position_diff(real_ns, latency->pair_real_ns);

    return (int64_t)(latency->pair_tsc + (uint64_t)llrint(ahead_ns * latency->hz / 1e9));
}

static void take(struct latency *latency, const struct record *record, uint32_t request_high)
{
    uint64_t request = ((uint64_t)request_high << 32) | record->request;
    struct passage *passage = &latency->passage[request & (PASSAGES - 1)];
    uint32_t point = latency->index[record->point & (POINT_IDS - 1)];

    if (record->point == POINT_clock)
        take_pair(latency, record);
    /* Its place may belong to a newer one by now. */
    if (point == 0 || position_diff(passage->request, request) > 0)
        return;
    if (passage->request != request)
        *passage = (struct passage){.request = request};
    if (record->point == POINT_rx_got && record->value && latency->pair_tsc)
        pass(latency, passage, 0, kernel_ticks(latency, record->value));
    pass(latency, passage, point, (int64_t)record->tsc);
}

/* ---- following a lane ---- */

static uint64_t load_word(const uint8_t *at)
{
    return load_relaxed((const _Atomic uint64_t *)(const void *)at);
}

/*
 * Copies the records behind follower->offset, up to `limit` bytes of payload and the tsc `now`, and
 * moves on behind them; the rules are those of lane_scan.
 */
static uint32_t copy(struct follower *follower, uint64_t limit, uint64_t now, struct record *out)
{
    const uint8_t *payload = lane_payload(&follower->lane, follower->number);
    uint32_t copied = 0;

    while (copied < BATCH && follower->offset + LANE_RECORD_BYTES <= limit) {
        const uint8_t *at = payload + follower->offset;
        struct record record = {.tsc = load_acquire((const _Atomic uint64_t *)(const void *)at)};
        uint64_t word = load_word(at + 8);
        record.point = (uint16_t)word;
        record.argument = (uint16_t)(word >> 16);
        record.request = (uint32_t)(word >> 32);
        if (record.tsc < follower->last || record.tsc > now ||
            (record.point & ~POINT_WIDE) >= POINT_IDS)
            break;
        uint64_t bytes = record.point & POINT_WIDE ? LANE_WIDE_BYTES : LANE_RECORD_BYTES;
        if (follower->offset + bytes > limit)
            break;
        if (bytes == LANE_WIDE_BYTES) {
            record.value = load_word(at + 16);
            record.extra = load_word(at + 24);
        }
        follower->offset += bytes;
        follower->last = record.tsc;
        out[copied++] = record;
    }
    return copied;
}

/* Up to `now`, so that a fast owner cannot hold us; nor can one whose counts cannot be, where skipping ahead
 * leads nowhere. */
static void follow(struct latency *latency, struct follower *follower, uint64_t now)
{
    const struct lane *lane = &follower->lane;
    uint32_t skips = 0;

    while (skips < lane->count) {
        uint64_t opened = load_acquire(&lane->control->opened);
        if (opened - follower->number > follower->keep) {
            follower->number = opened - follower->keep;
            follower->offset = 0;
        }
        if (follower->number == opened)
            return;
        bool sealed = load_acquire(&lane->control->sealed) > follower->number;
        const struct lane_packet *packet = lane_packet(lane, follower->number);
        uint64_t limit = lane_payload_bytes(lane);
        if (sealed && packet->content_bytes < limit)
            limit = packet->content_bytes;
        if (follower->offset == 0)
            follower->last = packet->begin;
        uint32_t copied = copy(follower, limit, now, latency->batch);
        uint32_t request_high = packet->request_high;
        atomic_thread_fence(memory_order_acquire);
        if (load_relaxed(&lane->control->sealed) - follower->number >= lane->count - 1) {
            follower->offset = 0; /* reused, or about to be: skip ahead */
            skips++;
            continue;
        }
        for (uint32_t i = 0; i < copied; i++)
            take(latency, &latency->batch[i], request_high);
        if (copied == 0 && (!sealed || follower->offset < limit))
            return;
        if (copied == 0) {
            follower->number++;
            follower->offset = 0;
        }
    }
}

void latency_read(struct latency *latency, uint64_t now)
{
    for (uint32_t i = 0; i < latency->lanes; i++)
        follow(latency, &latency->follower[i], now);
}

/* ---- open, take, close ---- */

static void name_points(struct latency *latency)
{
    latency->name[0] = "kernel";
    latency->points = 1;
    for (uint32_t i = 0; i < point_count; i++) {
        const struct point_info *point = &point_list[i];
        if (strcmp(point->span, "none") == 0)
            continue;
        latency->index[point->id & (POINT_IDS - 1)] = (uint8_t)latency->points;
        latency->name[latency->points] = point->name;
        latency->kind[latency->points++] = point->span;
    }
    latency->last_point = latency->index[POINT_tx_complete & (POINT_IDS - 1)];
}

static void follow_from_here(struct latency *latency, const struct lane *lane)
{
    uint64_t opened = load_acquire(&lane->control->opened);
    uint64_t keep = BEHIND_BYTES / lane_payload_bytes(lane);

    keep = keep > 2 ? keep : 2;
    latency->follower[latency->lanes++] = (struct follower){
        .lane = *lane,
        .number = opened ? opened - 1 : 0,
        .keep = keep < lane->count - 2 ? keep : lane->count - 2,
    };
}

int latency_open(struct latency **out, const struct region *arena, double hz, uint64_t now)
{
    struct latency *latency = calloc(1, sizeof(*latency));
    struct lane lane;
    int err;

    if (!latency)
        return -ENOMEM;
    latency->hz = hz;
    name_points(latency);
    for (uint32_t i = 0; (err = lane_open(&lane, arena, i)) == 0; i++) {
        if (lane.entry->kind == LANE_TRACE)
            follow_from_here(latency, &lane);
    }
    if (err != -ENOENT) {
        free(latency);
        return err;
    }
    latency_read(latency, now);
    memset(latency->span, 0, sizeof(latency->span));
    *out = latency;
    return 0;
}

uint32_t latency_take(struct latency *latency, struct latency_figures figures[LATENCY_SPANS_MAX])
{
    double ns = 1e9 / latency->hz;

    for (uint32_t i = 0; i < latency->points; i++) {
        /* `through` is kept at 0 and told last. */
        uint32_t which = (i + 1) % latency->points;
        const struct span *span = &latency->span[which];
        figures[i] = (struct latency_figures){
            .from = latency->name[which ? which - 1 : 0],
            .to = latency->name[which ? which : latency->last_point],
            .kind = which ? latency->kind[which] : "",
            .count = span->count,
            .negative = span->negative,
            .p50 = percentile(span, 50) * ns,
            .p99 = percentile(span, 99) * ns,
            .max = (double)span->max * ns,
        };
    }
    memset(latency->span, 0, sizeof(latency->span));
    return latency->points;
}

void latency_close(struct latency *latency)
{
    free(latency);
}
