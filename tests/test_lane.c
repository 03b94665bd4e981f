/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes are small here: 16 sub-buffers of one payload page, 256 records each. Stamps are made up,
 * counted from the newest one of the lane.
 */
#include "shm/lane.h"
#include "tests/unit.h"

#include <errno.h>
#include <pthread.h>

static const struct region_place anywhere = {.numa_node = -1};

enum { RECORDS = 256, LAPS = 3 };

struct fixture {
    struct region arena;
    struct lane lane;
    struct trace trace;
};

static void make(struct fixture *made, enum lane_kind kind, uint32_t sample)
{
    const struct lane_plan plan = {
        .name = "rx", .kind = kind, .record_bytes = 32, .bytes = LANE_BYTES_MIN};
    CU_ASSERT_EQUAL_FATAL(arena_create(&made->arena, &anywhere, &plan, 1, 1), 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&made->lane, &made->arena, 0), 0);
    trace_open(&made->trace, &made->lane, sample, 1, 5);
}

/* As the tracer does when it has written a sub-buffer. */
static void drain(struct fixture *made, uint64_t count)
{
    struct lane_control *control = made->lane.control;
    store_release(&control->drained, load_relaxed(&control->drained) + count);
}

static uint64_t sealed(const struct fixture *made)
{
    return load_relaxed(&made->lane.control->sealed);
}

static void stamp(struct fixture *made, uint64_t request)
{
    trace_stamp_at(&made->trace, made->trace.last + 10, POINT_rx_put, 0, request);
}

/* ---- arena ---- */

static void test_arena(void)
{
    const struct lane_plan plan[] = {
        {"rx", LANE_TRACE, 0, 1},
        {"ingress", LANE_PLAIN, 32, 1 << 20},
        {"worker0", LANE_TRACE, 0, 16 * 12288 + 5000},
    };
    struct region arena;
    struct lane lane;
    CU_ASSERT_EQUAL_FATAL(arena_create(&arena, &anywhere, plan, 3, 1), 0);
    CU_ASSERT_EQUAL(lane_find(&lane, &arena, "rx"), 0);
    CU_ASSERT_EQUAL(lane.entry->offset, 8192);
    CU_ASSERT_EQUAL(lane.subbuffer_bytes, 8192);
    CU_ASSERT_EQUAL(lane.entry->record_bytes, 16);
    CU_ASSERT_EQUAL(lane_find(&lane, &arena, "ingress"), 0);
    CU_ASSERT_EQUAL(lane.entry->offset, 8192 + 4096 + 16 * 8192);
    CU_ASSERT_EQUAL(lane.subbuffer_bytes, 65536);
    CU_ASSERT_EQUAL(lane_payload_bytes(&lane), 61440);
    CU_ASSERT_EQUAL(lane.entry->record_bytes, 32);
    CU_ASSERT_EQUAL(lane_find(&lane, &arena, "worker0"), 0);
    CU_ASSERT_EQUAL(lane.subbuffer_bytes, 12288);
    CU_ASSERT_EQUAL(lane_find(&lane, &arena, "worker"), -ENOENT);
    CU_ASSERT_EQUAL(lane_open(&lane, &arena, 3), -ENOENT);
    region_close(&arena);

    const struct lane_plan odd = {"x", LANE_PLAIN, 24, 1}, tiny = {"x", LANE_PLAIN, 4, 1};
    CU_ASSERT_EQUAL(arena_create(&arena, &anywhere, &odd, 1, 1), -EINVAL);
    CU_ASSERT_EQUAL(arena_create(&arena, &anywhere, &tiny, 1, 1), -EINVAL);
    CU_ASSERT_EQUAL(arena_create(&arena, &anywhere, plan, LANE_MAX + 1, 1), -EINVAL);
}

/* A directory that cannot be is refused, never followed out of the region. */
static void test_directory(void)
{
    static const struct {
        size_t offset; /* in the directory: count at 0, the first entry at 8 */
        uint64_t value;
    } wrong[] = {
        {0, 25},
        {8 + 24, 8193}, /* offset */
        {8 + 24, 1 << 30},
        {8 + 24, UINT64_MAX - 4095},
        {8 + 32, 0}, /* bytes */
        {8 + 32, 4096},
        {8 + 32, 4096 + 16 * 4096},
        {8 + 32, 4096 + 16 * 8192 + 16},
        {8 + 32, UINT64_MAX - 4095},
        {8 + 32, 4096 + 16 * 16384}, /* longer than the region */
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct fixture made;
        struct lane lane;
        make(&made, LANE_TRACE, 1);
        memcpy(region_at(&made.arena, 4096 + wrong[i].offset), &wrong[i].value,
               wrong[i].offset ? 8 : 4);
        CU_ASSERT_EQUAL(lane_open(&lane, &made.arena, 0), -EPROTO);
        CU_ASSERT_EQUAL(lane_find(&lane, &made.arena, "rx"), -EPROTO);
        region_close(&made.arena);
    }
}

/* ---- records ---- */

static void test_records(void)
{
    static const uint8_t expected[64] = {
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x71, 0x01, 0x00, 0x02, 0x01, 0x44,
        0x33, 0x22, 0x11, 0x19, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x71, 0x00, 0x80,
        0x04, 0x03, 0x44, 0x33, 0x22, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22,
        0x21, 0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31, 0x1a, 0x17, 0x16, 0x15,
        0x14, 0x13, 0x12, 0x71, 0x08, 0x00, 0xff, 0xff, 0x45, 0x33, 0x22, 0x11,
    };
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    trace_stamp_at(&made.trace, 0x7112131415161718, POINT_rx_put, 0x0102, 0x11223344);
    trace_stamp_wide(&made.trace, 0x7112131415161719, POINT_rx_got, 0x0304, 0x11223344,
                     0x2122232425262728, 0x3132333435363738);
    trace_stamp_at(&made.trace, 0x711213141516171a, POINT_tx_complete, 0xffff, 0x11223345);
    CU_ASSERT(memcmp(lane_payload(&made.lane, 0), expected, sizeof(expected)) == 0);
    trace_close(&made.trace);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->records, 3);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->content_bytes, 64);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->end, 0x711213141516171a);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->cpu, 5);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->generation, 1);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->records), 3);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->closed), 1);
    region_close(&made.arena);
}

static void test_never_backward(void)
{
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    uint64_t base = made.trace.last;
    const int64_t steps[] = {100, 50, 120, 0, -1000, 121};
    const uint64_t expected[] = {100, 100, 120, 120, 120, 121};
    for (size_t i = 0; i < 6; i++) {
        trace_stamp_at(&made.trace, base + (uint64_t)steps[i], POINT_rx_put, 0, 1);
        CU_ASSERT_EQUAL(*(uint64_t *)(void *)(lane_payload(&made.lane, 0) + 16 * i),
                        base + expected[i]);
    }
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->begin, base);
    for (int i = 0; i < 1000; i++) { /* also with the true counter, and across sub-buffers */
        trace_stamp(&made.trace, POINT_rx_put, 0, 1);
        trace_stamp_at(&made.trace, tsc_read() - 5000, POINT_rx_put, 0, 1);
    }
    trace_close(&made.trace);
    uint64_t last = 0;
    for (uint64_t n = 0; n < sealed(&made); n++) {
        const struct lane_packet *packet = lane_packet(&made.lane, n);
        CU_ASSERT(packet->begin >= last);
        for (uint64_t i = 0; i < packet->records; i++) {
            uint64_t tsc = *(uint64_t *)(void *)(lane_payload(&made.lane, n) + 16 * i);
            CU_ASSERT(tsc >= last && tsc >= packet->begin && tsc <= packet->end);
            last = tsc;
        }
        CU_ASSERT_EQUAL(packet->end, last);
    }
    CU_ASSERT_EQUAL(sealed(&made), 8); /* 2006 records */
    region_close(&made.arena);
}

static void test_full(void)
{
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    const struct lane_control *control = made.lane.control;
    for (uint64_t i = 0; i < 16 * RECORDS; i++)
        stamp(&made, i);
    CU_ASSERT_EQUAL(load_relaxed(&control->discarded), 0);
    CU_ASSERT_EQUAL(sealed(&made), 15);
    uint64_t last = made.trace.last;
    for (uint64_t i = 0; i < 10; i++)
        stamp(&made, i);
    trace_event(&made.trace, last + 1, POINT_clock, 0, 1, 2);
    CU_ASSERT_EQUAL(load_relaxed(&control->discarded), 11);
    CU_ASSERT_EQUAL(sealed(&made), 16);
    CU_ASSERT_EQUAL(made.trace.last, last);
    drain(&made, 1);
    stamp(&made, 77);
    CU_ASSERT_EQUAL(load_relaxed(&control->discarded), 11);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 16)->discarded, 11);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 15)->discarded, 0);
    CU_ASSERT_EQUAL(*(uint32_t *)(void *)(lane_payload(&made.lane, 16) + 12), 77);
    for (uint64_t i = 0; i < RECORDS; i++) /* one of them has no room again */
        stamp(&made, i);
    CU_ASSERT_EQUAL(load_relaxed(&control->discarded), 12);
    drain(&made, 16);
    stamp(&made, 78);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 17)->discarded, 12);
    trace_close(&made.trace);
    CU_ASSERT_EQUAL(load_relaxed(&control->records), 17 * RECORDS + 1);
    region_close(&made.arena);
}

/* The low 32 bits of a request number stand in the record, the high ones in its packet. */
static void test_high_bits(void)
{
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    stamp(&made, 0xfffffffe);
    stamp(&made, 0xffffffff);
    stamp(&made, 0x100000000);
    stamp(&made, 0x100000001);
    stamp(&made, 0xffffffff);                                           /* a late one of before */
    trace_event(&made.trace, made.trace.last, POINT_rotation, 2, 0, 0); /* goes with any */
    trace_close(&made.trace);
    static const struct {
        uint64_t bytes;
        uint32_t high, first;
    } expected[] = {{32, 0, 0xfffffffe}, {32, 1, 0}, {32, 0, 0xffffffff}};
    CU_ASSERT_EQUAL_FATAL(sealed(&made), 3);
    for (uint64_t i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(lane_packet(&made.lane, i)->content_bytes, expected[i].bytes);
        CU_ASSERT_EQUAL(lane_packet(&made.lane, i)->request_high, expected[i].high);
        CU_ASSERT_EQUAL(*(uint32_t *)(void *)(lane_payload(&made.lane, i) + 12), expected[i].first);
    }
    region_close(&made.arena);

    make(&made, LANE_TRACE, 1); /* nothing in it yet: no packet is wasted */
    CU_ASSERT(trace_room(&made.trace, 16, 3));
    CU_ASSERT(trace_room(&made.trace, 16, 4));
    CU_ASSERT_EQUAL(sealed(&made), 0);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->request_high, 4);
    region_close(&made.arena);
}

/* A wide record is never split: the last half place stays empty. */
static void test_wide_at_the_end(void)
{
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    stamp(&made, 1);
    for (uint64_t i = 0; i < RECORDS / 2; i++)
        trace_stamp_wide(&made.trace, made.trace.last + 10, POINT_rx_got, 0, i, 0, 0);
    trace_close(&made.trace);
    CU_ASSERT_EQUAL(sealed(&made), 2);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->content_bytes, 4096 - 16);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 0)->records, 1 + 127);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 1)->content_bytes, 32);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 1)->records, 1);
    region_close(&made.arena);
}

/* ---- the dead ---- */

/* Wide where bit (i mod 8) of `mix` is set. */
static uint64_t write_mixed(struct fixture *made, uint64_t records, uint8_t mix, bool like_stamps)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < records; i++) {
        uint64_t tsc = made->trace.last + 1 + i % 3;
        if (mix >> (i % 8) & 1) {
            /* A second half that would pass for a record of this moment. */
            uint64_t value = like_stamps ? tsc + 1 : 1700000000000000000ULL + i;
            trace_stamp_wide(&made->trace, tsc, POINT_rx_got, 0, i, value, POINT_worker_got);
            bytes += 32;
        } else {
            trace_stamp_at(&made->trace, tsc, POINT_worker_got, 0, i);
            bytes += 16;
        }
    }
    return bytes;
}

/* After `laps` full laps of old records, `records` new ones and no seal: how many are found. */
static bool finds_exactly(int laps, uint8_t old_mix, uint64_t records, uint8_t mix,
                          bool like_stamps)
{
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    while (sealed(&made) < (uint64_t)laps * 16) {
        (void)write_mixed(&made, 1, old_mix >> (made.trace.last % 8) & 1, like_stamps);
        drain(&made, sealed(&made) - load_relaxed(&made.lane.control->drained));
        if (sealed(&made) == (uint64_t)laps * 16) { /* that record had opened the next one */
            trace_close(&made.trace);
            drain(&made, 1);
            trace_open(&made.trace, &made.lane, 1, 2, 5);
        }
    }
    uint64_t number = sealed(&made);
    uint64_t bytes = write_mixed(&made, records, mix, like_stamps);
    uint64_t before = load_relaxed(&made.lane.control->records);
    uint64_t end = made.trace.last;
    lane_seal_abandoned(&made.lane, end + 1000000);
    const struct lane_packet *packet = lane_packet(&made.lane, number);
    bool right = sealed(&made) == number + (records ? 1 : 0) &&
                 (records == 0 || (packet->content_bytes == bytes && packet->records == records &&
                                   packet->end == end &&
                                   load_relaxed(&made.lane.control->records) == before + records));
    lane_seal_abandoned(&made.lane, end + 1000000); /* a second time: nothing is left to seal */
    right = right && sealed(&made) == number + (records ? 1 : 0);
    region_close(&made.arena);
    return right;
}

static void test_abandoned(void)
{
    static const uint8_t mixes[] = {0x00, 0xff, 0x55, 0x01, 0x80, 0x36};
    unsigned int wrong = 0;
    for (int laps = 0; laps < LAPS; laps++) {
        for (size_t old = 0; old < sizeof(mixes); old++) {
            for (size_t mix = 0; mix < sizeof(mixes); mix++) {
                for (uint64_t records = 0; records <= 128; records += records < 9 ? 1 : 17) {
                    wrong += !finds_exactly(laps, mixes[old], records, mixes[mix], false);
                    wrong += !finds_exactly(laps, mixes[old], records, mixes[mix], true);
                }
            }
        }
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* Killed between the words of a record: without its tsc it is not there. */
static void test_torn_record(void)
{
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    while (sealed(&made) < 16) {
        stamp(&made, 1);
        drain(&made, sealed(&made) - load_relaxed(&made.lane.control->drained));
    }
    stamp(&made, 2);
    struct lane_record *next = (struct lane_record *)(void *)made.trace.next;
    next->point = POINT_worker_done;
    next->argument = 3;
    next->request = 4;
    uint64_t *words = (uint64_t *)(void *)made.trace.next;
    words[2] = words[3] = 0x1111111111111111;
    struct lane_content content = lane_scan(&made.lane, 16, made.trace.last + 1000);
    CU_ASSERT_EQUAL(content.records, 2); /* the one that opened it, and that */
    CU_ASSERT_EQUAL(content.bytes, 32);
    CU_ASSERT_EQUAL(content.end, made.trace.last);
    store_release(&next->tsc, made.trace.last + 2000);
    CU_ASSERT_EQUAL(lane_scan(&made.lane, 16, made.trace.last + 1000).records, 2);
    CU_ASSERT_EQUAL(lane_scan(&made.lane, 16, made.trace.last + 2000).records, 3);
    region_close(&made.arena);
}

/* The successor seals what was open and goes on behind it, with the same counts. */
static void test_successor(void)
{
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    for (uint64_t i = 0; i < 16 * RECORDS + 4; i++)
        trace_stamp(&made.trace, POINT_rx_put, 0, i);
    drain(&made, 16);
    for (uint64_t i = 0; i < 3; i++)
        trace_stamp(&made.trace, POINT_rx_put, 0, i);
    trace_open(&made.trace, &made.lane, 1, 2, 6);
    CU_ASSERT_EQUAL(sealed(&made), 17);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 16)->records, 3);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 16)->generation, 1);
    stamp(&made, 9);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 17)->generation, 2);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 17)->cpu, 6);
    CU_ASSERT_EQUAL(lane_packet(&made.lane, 17)->discarded, 4);
    CU_ASSERT(lane_packet(&made.lane, 17)->begin >= lane_packet(&made.lane, 16)->end);
    trace_close(&made.trace);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->records), 16 * RECORDS + 3 + 1);
    region_close(&made.arena);
}

/* ---- sampling ---- */

static void test_sampling(void)
{
    struct fixture made;
    make(&made, LANE_TRACE, 1);
    unsigned int wrong = 0;
    for (uint32_t n = 1; n <= 200; n++) {
        trace_open(&made.trace, &made.lane, n, 1, 0);
        for (uint64_t request = 0; request < 10000; request++)
            wrong += trace_wants(&made.trace, request) != (request % n == 0);
        for (uint64_t request = 0xffffffff - 1000; request <= 0xffffffff; request++)
            wrong += trace_wants(&made.trace, request) != (request % n == 0);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    trace_open(&made.trace, &made.lane, 7, 1, 0);
    for (uint64_t request = 0; request < 70; request++)
        stamp(&made, request);
    trace_close(&made.trace);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->records), 10);
    for (uint32_t i = 0; i < 10; i++)
        CU_ASSERT_EQUAL(*(uint32_t *)(void *)(lane_payload(&made.lane, 0) + 16 * i + 12), 7 * i);
    region_close(&made.arena);
}

static void test_off(void)
{
    struct fixture made;
    make(&made, LANE_TRACE, 0);
    for (uint64_t request = 0; request < 1000; request++) {
        trace_stamp(&made.trace, POINT_rx_put, 0, request);
        trace_stamp_at(&made.trace, tsc_read(), POINT_rx_put, 0, request);
        trace_stamp_wide(&made.trace, tsc_read(), POINT_rx_got, 0, request, 1, 2);
        trace_event(&made.trace, tsc_read(), POINT_clock, 0, 1, 2);
    }
    trace_close(&made.trace);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->opened), 0);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->discarded), 0);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->records), 0);
    region_close(&made.arena);
}

/* ---- plain lane ---- */

static void append(struct fixture *made, uint64_t request)
{
    const struct ingress_record record = {
        .request = request,
        .id = 0x1112131415161718,
        .kernel_ns = 0x2122232425262728,
        .datagram = 0x31323334,
        .flow = 0x4142,
        .length = 0x5152,
    };
    trace_append(&made->trace, &record, sizeof(record));
}

static void test_plain(void)
{
    static const uint8_t expected[32] = {
        0x07, 0,    0,    0,    0,    0,    0,    0,    0x18, 0x17, 0x16,
        0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23,
        0x22, 0x21, 0x34, 0x33, 0x32, 0x31, 0x42, 0x41, 0x52, 0x51,
    };
    struct fixture made;
    make(&made, LANE_PLAIN, 1);
    append(&made, 7);
    CU_ASSERT(memcmp(lane_payload(&made.lane, 0), expected, 32) == 0);
    for (uint64_t request = 8; request < 7 + 16 * 128; request++)
        append(&made, request);
    CU_ASSERT_EQUAL(sealed(&made), 15);
    append(&made, 1);
    append(&made, 2);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->discarded), 2);
    CU_ASSERT_EQUAL(sealed(&made), 16);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->records), 16 * 128);
    drain(&made, 16);
    /* Killed after each count: a record of an older lap follows and does not belong to it. */
    for (uint64_t count = 1; count <= 128; count++) {
        uint64_t number = sealed(&made);
        for (uint64_t i = 0; i < count; i++)
            append(&made, 100000 * count + i);
        lane_seal_abandoned(&made.lane, UINT64_MAX);
        CU_ASSERT_EQUAL(sealed(&made), number + 1);
        CU_ASSERT_EQUAL(lane_packet(&made.lane, number)->records, count);
        CU_ASSERT_EQUAL(lane_packet(&made.lane, number)->content_bytes, 32 * count);
        drain(&made, 1);
        trace_open(&made.trace, &made.lane, 1, 2, 0);
    }
    region_close(&made.arena);
}

/* Killed in the middle of a record: its number is written last. */
static void test_torn_plain(void)
{
    struct fixture made;
    make(&made, LANE_PLAIN, 1);
    append(&made, 1);
    memset(made.trace.next + 8, 0x55, 24);
    CU_ASSERT_EQUAL(lane_scan(&made.lane, 0, UINT64_MAX).records, 1);
    append(&made, 2);
    CU_ASSERT_EQUAL(lane_scan(&made.lane, 0, UINT64_MAX).records, 2);
    region_close(&made.arena);
}

/* ---- owner and tracer at the same time ---- */

static uint64_t stamps_wanted(void)
{
    return unit_threads() ? 50000 : 3000000;
}

static void *stamp_many(void *argument)
{
    struct fixture *made = argument;
    for (uint64_t i = 0; i < stamps_wanted(); i++) {
        if (i % 5 == 0)
            trace_stamp_wide(&made->trace, tsc_read(), POINT_rx_got, 1, i, ~i, i);
        else
            trace_stamp(&made->trace, POINT_rx_put, 2, i);
        if (i % 2000 == 0)
            sched_yield();
    }
    trace_close(&made->trace);
    return NULL;
}

/* Counts the records of a sealed sub-buffer; `next` is the request that comes next at the earliest.
 */
static uint64_t read_packet(const struct lane *lane, uint64_t number, uint64_t *next, uint64_t *tsc)
{
    const struct lane_packet *packet = lane_packet(lane, number);
    const uint8_t *at = lane_payload(lane, number);
    const uint8_t *end = at + packet->content_bytes;
    uint64_t records = 0;
    while (at < end) {
        const struct lane_record *record = (const struct lane_record *)(const void *)at;
        bool wide = record->request % 5 == 0;
        uint64_t now = load_relaxed(&record->tsc);
        if (record->request < *next || now < *tsc || record->argument != (wide ? 1 : 2) ||
            record->point != (wide ? POINT_rx_got : POINT_rx_put))
            return 0;
        const uint64_t *words = (const uint64_t *)(const void *)at;
        if (wide && (words[2] != ~(uint64_t)record->request || words[3] != record->request))
            return 0;
        *next = (uint64_t)record->request + 1;
        *tsc = now;
        at += wide ? 32 : 16;
        records++;
    }
    return records == packet->records ? records : 0;
}

static void test_drained_meanwhile(void)
{
    struct fixture made;
    pthread_t owner;
    uint64_t records = 0, number = 0, next = 0, tsc = 0;
    unsigned int wrong = 0;
    make(&made, LANE_TRACE, 1);
    struct lane_control *control = made.lane.control;
    pthread_create(&owner, NULL, stamp_many, &made);
    for (;;) {
        bool closed = load_acquire(&control->closed);
        if (load_acquire(&control->sealed) == number) {
            if (closed)
                break;
            sched_yield();
            continue;
        }
        uint64_t found = read_packet(&made.lane, number, &next, &tsc);
        wrong += found == 0;
        records += found;
        store_release(&control->drained, ++number);
    }
    pthread_join(owner, NULL);
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(records, load_relaxed(&control->records));
    CU_ASSERT_EQUAL(records + load_relaxed(&control->discarded), stamps_wanted());
    region_close(&made.arena);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"arena", test_arena},
        {"directory that cannot be", test_directory},
        {"records, byte by byte", test_records},
        {"time never runs backward", test_never_backward},
        {"full", test_full},
        {"high bits of the request", test_high_bits},
        {"wide at the end", test_wide_at_the_end},
        {"abandoned", test_abandoned},
        {"torn record", test_torn_record},
        {"successor", test_successor},
        {"sampling", test_sampling},
        {"off", test_off},
        {"plain", test_plain},
        {"torn plain record", test_torn_plain},
        {"drained meanwhile", test_drained_meanwhile},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "lane", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
