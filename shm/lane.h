/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trace arena and its lanes: where processes write records that a tracer drains to disk.
 *
 * One lane a process, written by its owner alone, read by the tracer. A lane is a circle of
 * sub-buffers, each a header page and a payload of whole pages, laid out so that the tracer can
 * write both to disk from where they lie. The owner never waits and never wakes anybody: where no
 * sub-buffer is free the record is counted as discarded, and the count is written into the next
 * sub-buffer that opens.
 *
 *   arena:  page 0 region header | page 1 directory | lane | lane | …
 *   lane:   page 0 control | sub-buffer 0: header page, payload | sub-buffer 1 | …
 *
 *   trace record (16 bytes)             wide record (32 bytes): the same, then
 *     0  8  tsc                           16  8  value
 *     8  2  point (POINT_WIDE: wide)      24  8  extra
 *    10  2  argument
 *    12  4  request, low 32 bits
 *
 * The words of a record are stored so that its tsc comes last (release): a record is there exactly
 * when its tsc is. Sub-buffers are reused without being cleared; behind the last record of an
 * unsealed one stand older stamps, so it ends where the tsc falls below the sub-buffer's begin or
 * below its predecessor. A sub-buffer is sealed early where the high 32 bits of the request number
 * change.
 *
 * A lane of kind LANE_PLAIN holds records of another form and a fixed size (rx's ingress records).
 */
#ifndef TICKLINE_SHM_LANE_H
#define TICKLINE_SHM_LANE_H

#include "shm/crash.h"
#include "shm/points.h"
#include "shm/region.h"

enum {
    LANE_MAX = 24,
    LANE_SUBBUFFERS = 16,
    LANE_BYTES_MIN = 16 * (2 * PAGE_BYTES),
    LANE_RECORD_BYTES = 16,
    LANE_WIDE_BYTES = 32,
    LANE_POINTS_MAX = 16,
    LANE_POINT_FIRST = 0x100, /* id of the handler's first own point */
};

enum lane_kind { LANE_TRACE = 1, LANE_PLAIN = 2 };

struct lane_record {
    _Atomic uint64_t tsc; /* owner, release; pairs with lane_scan's acquire */
    uint16_t point;
    uint16_t argument;
    uint32_t request;
};
static_assert(sizeof(struct lane_record) == LANE_RECORD_BYTES, "drawn above");

/* One request as rx received it: the plain lane `ingress`, and the file of that name. */
struct ingress_record {
    uint64_t request;
    uint64_t id;        /* wire id */
    uint64_t kernel_ns; /* REALTIME, 0 where the socket gave none */
    uint32_t datagram;  /* number of its datagram, low 32 bits */
    uint16_t flow;
    uint16_t length;
};
static_assert(sizeof(struct ingress_record) == 32, "a file format");

/* Header page of a sub-buffer as its owner leaves it; the tracer writes the file's own form of it.
 */
struct lane_packet {
    uint64_t begin; /* tsc at which it was opened */
    uint64_t end;   /* tsc of its last record, never 0; set by the seal, like the next two */
    uint64_t content_bytes;
    uint64_t records;
    uint64_t discarded; /* of the lane, up to its opening */
    uint64_t before;    /* records of the lane in earlier sub-buffers; set at its opening */
    uint32_t generation;
    uint32_t cpu;
    uint32_t request_high;
};

struct lane_control {
    /* owner */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t
        sealed;              /* sub-buffers sealed; release, pairs with the tracer's acquire */
    _Atomic uint64_t opened; /* sealed, or sealed + 1 where one is open */
    _Atomic uint64_t discarded;
    _Atomic uint64_t records; /* in sealed sub-buffers */
    _Atomic uint64_t closed;  /* the owner will write no more */
    _Atomic uint64_t shadow;  /* records that stand; counted only in builds with crash points */
    /* tracer */
    /* sub-buffers written out; release, pairs with the owner's acquire */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t drained;
    /* raised to have the open sub-buffer sealed; release, pairs with trace_tend's acquire */
    _Atomic uint64_t seal_asked;
};
static_assert(sizeof(struct lane_control) <= PAGE_BYTES, "one page");

struct lane_entry {
    char name[16];
    uint32_t kind;
    uint32_t record_bytes; /* of a plain lane */
    uint64_t offset;
    uint64_t bytes;
};

/* A point that the handler of the run has declared; its id is LANE_POINT_FIRST + its index. */
struct lane_point {
    char name[24];
    char span[8]; /* "work" or "wait" */
    char sentence[128];
};

struct lane_directory {
    uint32_t count;
    uint32_t points;
    struct lane_entry lane[LANE_MAX];
    struct lane_point point[LANE_POINTS_MAX];
};
static_assert(sizeof(struct lane_directory) <= PAGE_BYTES, "one page");

/* A lane as its reader sees it; the owner's view is struct trace. */
struct lane {
    struct lane_control *control;
    uint8_t *buffers;
    const struct lane_entry *entry;
    uint32_t count;           /* sub-buffers */
    uint32_t subbuffer_bytes; /* header page included */
};

/* ---- arena ---- */

struct lane_plan {
    const char *name;
    enum lane_kind kind;
    uint32_t record_bytes; /* plain lanes: a divisor of the page size, at least 8 */
    uint64_t bytes;        /* asked for; rounded to LANE_SUBBUFFERS equal sub-buffers */
};

int arena_create(struct region *region, const struct region_place *place,
                 const struct lane_plan *plan, uint32_t count, uint64_t epoch);
struct region_want arena_want(uint64_t epoch);

/* Does the directory stand as arena_create left it? 0, or -EPROTO and what differs. */
int arena_check(const struct region *arena, struct region_mismatch *mismatch);

/* Creator: writes down the handler's own points, at most LANE_POINTS_MAX. */
void arena_name_points(const struct region *arena, const struct lane_point *points, uint32_t count);

/* A handler's point by index, as the run's list of points has it; false where there is none, or what stands
 * there cannot be. The texts are those of `copy`. */
bool arena_point(const struct region *arena, uint32_t index, struct lane_point *copy,
                 struct point_info *info);

/* Lane number `index` or the one called `name`; -ENOENT, or -EPROTO where the directory cannot be.
 */
int lane_open(struct lane *lane, const struct region *arena, uint32_t index);
int lane_find(struct lane *lane, const struct region *arena, const char *name);

/*
 * For who has attached the arena read-only: moves the lane into a mapping that can be written, all of
 * it (its owner) or only the control page (the tracer). 0 or -errno.
 */
int lane_writable(struct lane *lane, const struct region *arena, bool whole);

static inline struct lane_packet *lane_packet(const struct lane *lane, uint64_t number)
{
    return (struct lane_packet *)(void *)(lane->buffers +
                                          (number % lane->count) * lane->subbuffer_bytes);
}

static inline uint8_t *lane_payload(const struct lane *lane, uint64_t number)
{
    return (uint8_t *)lane_packet(lane, number) + PAGE_BYTES;
}

static inline uint32_t lane_payload_bytes(const struct lane *lane)
{
    return lane->subbuffer_bytes - PAGE_BYTES;
}

struct lane_content {
    uint64_t bytes;
    uint64_t records;
    uint64_t end; /* tsc of the last record */
};

/* How far an unsealed sub-buffer is written, by what stands in it; `now` bounds the stamps. */
struct lane_content lane_scan(const struct lane *lane, uint64_t number, uint64_t now);

/* Seals what a dead owner left open, in its name. */
void lane_seal_abandoned(const struct lane *lane, uint64_t now);

/*
 * Did the owner die between the words of a record, behind the last one of the newest sealed
 * sub-buffer? In a first lap any word but zero says so. Later an older lap stands there, whose
 * request is older too; a record without a request, or of which less than its request was there,
 * cannot be told from that. At most one a lane.
 */
bool lane_torn(const struct lane *lane);

/*
 * The same for the tracer, who writes nothing but control pages: the header of what it seals so stays
 * as its owner left it. lane_sealed() gives the header of a sealed sub-buffer, completed by what
 * stands in it where its owner did not come to that.
 */
void lane_close_abandoned(const struct lane *lane, uint64_t now);
struct lane_packet lane_sealed(const struct lane *lane, uint64_t number, uint64_t now);

/* ---- writing: the owner ---- */

/* The owner's private end of its lane. */
struct trace {
    uint8_t *next; /* where the next record goes; == end: no sub-buffer is open, or it is full */
    uint8_t *end;
    uint8_t
        *unasked; /* a record that begins below needs no question; NULL where not all is stamped, or
                    * somebody counts */
    uint64_t last;          /* newest tsc written: a lane never runs backward */
    uint64_t sample_factor; /* request * factor < limit: stamp it */
    uint64_t sample_limit;
    uint32_t request_high;
    uint32_t wides;
    uint64_t discarded;
    uint64_t seal_seen;
    uint32_t generation;
    uint32_t cpu;
    struct lane lane;
    /* Called before each stamp of a request that is stamped; may write records. NULL: nobody counts. */
    void (*count)(struct trace *trace, enum point point, uint64_t request);
    void *counting; /* its own */
};

/*
 * Opens a lane for writing. Seals what a predecessor left open. `sample`: stamp one request in so
 * many (the same in all stages), 0: none. The trace must outlive nothing but the region.
 */
void trace_open(struct trace *trace, const struct lane *lane, uint32_t sample, uint32_t generation,
                uint32_t cpu);

/* Seals the open sub-buffer; no record may follow. */
void trace_close(struct trace *trace);

/* From a tick: seals the open sub-buffer where the tracer has asked for it. */
void trace_tend(struct trace *trace);

/* Makes room for `bytes` for a request with these high bits, or counts a discard and returns false.
 */
bool trace_switch(struct trace *trace, uint32_t bytes, uint32_t request_high);

static inline uint64_t tsc_read(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
#error "no time-stamp counter known for this architecture"
#endif
}

/*
 * Is this request stamped? A number is a multiple of n exactly where its product with 2^64 / n + 1
 * falls short of that factor (Lemire, Kaser, Kurz: Faster remainder by direct computation, 2019;
 * 32-bit numbers).
 */
static inline bool trace_wants(const struct trace *trace, uint64_t request)
{
    return (uint64_t)(uint32_t)request * trace->sample_factor < trace->sample_limit;
}

/* Do so many bytes fit behind `next`? As numbers: where nothing is open both are NULL. */
static inline bool trace_fits(const struct trace *trace, uint32_t bytes)
{
    return (uintptr_t)trace->next + bytes <= (uintptr_t)trace->end;
}

/* Work on a request begins that is stamped only when it is done. */
static inline void trace_begin(struct trace *trace, enum point point, uint64_t request)
{
    if (unlikely(trace->count != NULL) && trace_wants(trace, request))
        trace->count(trace, point, request);
}

static inline bool trace_room(struct trace *trace, uint32_t bytes, uint32_t request_high)
{
    if (likely(trace_fits(trace, bytes) && trace->request_high == request_high))
        return true;
    return trace_switch(trace, bytes, request_high);
}

/* Before a stamp that is not certain to fit, or to be wanted. */
static inline bool trace_ready(struct trace *trace, enum point point, uint64_t request,
                               uint32_t bytes)
{
    if (unlikely(trace->count != NULL))
        trace->count(trace, point, request);
    return trace_room(trace, bytes, (uint32_t)(request >> 32));
}

/* Where the record of a request goes, or NULL: it is not stamped, or discarded. One comparison
 * answers for sampling, counting and room together. */
static inline struct lane_record *trace_place(struct trace *trace, enum point point,
                                              uint64_t request)
{
    uint32_t high = (uint32_t)(request >> 32);

    if (unlikely(trace->next >= trace->unasked || trace->request_high != high) &&
        (!trace_wants(trace, request) || !trace_ready(trace, point, request, LANE_RECORD_BYTES)))
        return NULL;
    struct lane_record *record = (struct lane_record *)(void *)trace->next;
    trace->next += LANE_RECORD_BYTES;
    return record;
}

static inline void trace_fill(struct lane_record *record, enum point point, uint16_t argument,
                              uint64_t request)
{
    record->point = (uint16_t)point;
    record->argument = argument;
    record->request = (uint32_t)request;
}

/* A record stands. Counted where crash points are, so that a test knows what must be found after a
 * kill: as much as the count says, or one more. */
static inline void trace_shadow(struct trace *trace)
{
    (void)trace;
#ifdef TICKLINE_CRASH_POINTS
    _Atomic uint64_t *shadow = &trace->lane.control->shadow;
    store_relaxed(shadow, load_relaxed(shadow) + 1);
#endif
}

/* The tsc was read by the caller, perhaps before an older stamp. */
static inline void trace_fill_at(struct trace *trace, struct lane_record *record, uint64_t tsc,
                                 enum point point, uint16_t argument, uint64_t request)
{
    trace_fill(record, point, argument, request);
    trace->last = tsc > trace->last ? tsc : trace->last;
    crash_point("lane:record_words");
    store_release(&record->tsc, trace->last);
    crash_point("lane:record_done");
    trace_shadow(trace);
}

static inline void trace_record(struct trace *trace, uint64_t tsc, enum point point,
                                uint16_t argument, uint64_t request)
{
    trace_fill_at(trace, (struct lane_record *)(void *)trace->next, tsc, point, argument, request);
    trace->next += LANE_RECORD_BYTES;
}

/* Stamps a point with a tsc read by the caller. Never blocks. */
static inline void trace_stamp_at(struct trace *trace, uint64_t tsc, enum point point,
                                  uint16_t argument, uint64_t request)
{
    struct lane_record *record = trace_place(trace, point, request);

    if (record)
        trace_fill_at(trace, record, tsc, point, argument, request);
}

/*
 * Stamps a point now: one bare time-stamp read and one record. The counter of a pinned process never
 * runs back, so unlike trace_stamp_at() this compares with nothing.
 */
static inline void trace_stamp(struct trace *trace, enum point point, uint16_t argument,
                               uint64_t request)
{
    struct lane_record *record = trace_place(trace, point, request);

    if (!record)
        return;
    trace_fill(record, point, argument, request);
    crash_point("lane:record_words");
    trace->last = tsc_read();
    store_release(&record->tsc, trace->last);
    crash_point("lane:record_done");
    trace_shadow(trace);
}

static inline void trace_wide_record(struct trace *trace, uint64_t tsc, enum point point,
                                     uint16_t argument, uint64_t request, uint64_t value,
                                     uint64_t extra)
{
    uint64_t *words = (uint64_t *)(void *)trace->next;
    words[2] = value;
    words[3] = extra;
    crash_point("lane:wide_words");
    trace_record(trace, tsc, point, argument, request);
    trace->next += LANE_WIDE_BYTES - LANE_RECORD_BYTES;
    trace->wides++;
}

static inline void trace_wide(struct trace *trace, uint64_t tsc, enum point point,
                              uint16_t argument, uint64_t request, uint64_t value, uint64_t extra)
{
    if (trace_room(trace, LANE_WIDE_BYTES, (uint32_t)(request >> 32)))
        trace_wide_record(trace, tsc, point, argument, request, value, extra);
}

/* A wide point of a request; sampled like the others. */
static inline void trace_stamp_wide(struct trace *trace, uint64_t tsc, enum point point,
                                    uint16_t argument, uint64_t request, uint64_t value,
                                    uint64_t extra)
{
    if (trace_wants(trace, request) && trace_ready(trace, point, request, LANE_WIDE_BYTES))
        trace_wide_record(trace, tsc, point, argument, request, value, extra);
}

/* Has somebody count before each stamp of a request: trace->count. */
void trace_count_by(struct trace *trace,
                    void (*count)(struct trace *trace, enum point point, uint64_t request),
                    void *counting);

/* Point of the run itself, outside the sampling; the high bits of the request stay as they are. */
static inline void trace_event(struct trace *trace, uint64_t tsc, enum point point,
                               uint16_t argument, uint64_t value, uint64_t extra)
{
    uint64_t request = (uint64_t)trace->request_high << 32;

    if (trace->sample_limit == 0)
        return;
    if (point & POINT_WIDE)
        trace_wide(trace, tsc, point, argument, request, value, extra);
    else if (trace_room(trace, LANE_RECORD_BYTES, trace->request_high))
        trace_record(trace, tsc, point, argument, request);
}

/* Appends a record of `bytes` to a plain lane; the same rules. Its first word, by which lane_scan
 * knows it, comes last (release). */
static inline void trace_append(struct trace *trace, const void *record, uint32_t bytes)
{
    uint64_t first;

    if (!trace_room(trace, bytes, 0))
        return;
    __builtin_memcpy(&first, record, sizeof(first));
    __builtin_memcpy(trace->next + sizeof(first), (const uint8_t *)record + sizeof(first),
                     bytes - sizeof(first));
    crash_point("lane:append_words");
    store_release((_Atomic uint64_t *)(void *)trace->next, first);
    crash_point("lane:append_done");
    trace_shadow(trace);
    trace->next += bytes;
}

#endif
