/* SPDX-License-Identifier: Apache-2.0 */
/* Owner of a trace lane: every record that stands is found, none that is torn. */
#include "shm/lane.h"

#include "tests/crash/campaign.h"
#include "tests/crash/recovered.h"

enum { STAMPS = 300, DISCARDS = 3 };

static const struct region_place anywhere = {.numa_node = -1};
static struct region arena;
static struct lane lane;

static void make(void)
{
    const struct lane_plan plan = {"rx", LANE_TRACE, 0, LANE_BYTES_MIN};

    CU_ASSERT_EQUAL_FATAL(arena_create(&arena, &anywhere, &plan, 1, 1), 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&lane, &arena, 0), 0);
}

static void unmake(void)
{
    region_close(&arena);
}

/* ---- the owner: its records say the same thing twice ---- */

static uint16_t argument_of(uint64_t request)
{
    return (uint16_t)(request * 7 + 3);
}

static void stamp(struct trace *trace, uint64_t request)
{
    uint32_t low = (uint32_t)request;
    uint16_t argument = argument_of(low);

    if (low % 3 == 0)
        trace_stamp_wide(trace, tsc_read(), POINT_rx_got, argument, request, ~low, argument);
    else if (low % 3 == 1)
        trace_stamp_at(trace, tsc_read(), POINT_rx_put, argument, request);
    else
        trace_stamp(trace, POINT_rx_put, argument, request);
}

static int own(void)
{
    struct lane_control *control = lane.control;
    struct trace trace;

    trace_open(&trace, &lane, 1, 1, 5);
    for (uint64_t i = 0; i < STAMPS; i++)
        stamp(&trace, i);
    store_release(&control->seal_asked, load_relaxed(&control->seal_asked) + 1);
    trace_tend(&trace);
    (void)trace_room(&trace, LANE_RECORD_BYTES, 3); /* an empty one, */
    stamp(&trace, 4ULL << 32 | 5);                  /* for other high bits after all */
    uint64_t enough = load_relaxed(&control->discarded) + DISCARDS;
    for (uint64_t i = 0; load_relaxed(&control->discarded) < enough; i++)
        stamp(&trace, 4ULL << 32 | i);
    trace_close(&trace);
    return 0;
}

static bool is_whole(const uint64_t *words)
{
    const struct lane_record *record = (const struct lane_record *)(const void *)words;
    bool wide = record->request % 3 == 0;

    return record->argument == argument_of(record->request) &&
           record->point == (wide ? POINT_rx_got : POINT_rx_put) &&
           (!wide ||
            (words[2] == (uint64_t)(uint32_t)~record->request && words[3] == record->argument));
}

static void died(void)
{
    check_recovered(&lane);
}

static void check(void)
{
    unsigned int torn = 0;

    for (uint64_t number = 0; number < load_acquire(&lane.control->sealed); number++) {
        const uint64_t *at = (const uint64_t *)(const void *)lane_payload(&lane, number);
        const uint64_t *end = at + lane_packet(&lane, number)->content_bytes / 8;
        while (at < end) {
            torn += !is_whole(at);
            at += ((const uint16_t *)(const void *)at)[4] & POINT_WIDE ? 4 : 2;
        }
    }
    CU_ASSERT_EQUAL(torn, 0);
    check_lane_whole(&lane);
}

static const char *const lane_labels[] = {
    "lane:abandoned_found", "lane:attached",     "lane:seal_begun",
    "lane:seal_packet",     "lane:seal_counted", "lane:sealed",
    "lane:open_packet",     "lane:open_cleared", "lane:opened",
    "lane:high_bits",       "lane:discarded",    "lane:wide_words",
    "lane:record_words",    "lane:record_done",  "lane:seal_asked",
    "lane:close_sealed",    "lane:closed",       NULL,
};

const struct crash_role crash_lane = {
    .name = "lane",
    .labels = lane_labels,
    .first_label = "lane:record_done",
    .first_pass = 100,
    .make = make,
    .live = own,
    .died = died,
    .check = check,
    .unmake = unmake,
};
