/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/arena.h"

#include <string.h>

static void stamp(struct trace *trace, uint64_t request, uint64_t tsc)
{
    trace_stamp_wide(trace, tsc, POINT_rx_got, 0, request, 1000 + request, request);
    trace_stamp_at(trace, tsc + 10, POINT_rx_put, 0, request);
    trace_stamp_at(trace, tsc + 20, POINT_worker_got, 0, request);
    trace_stamp_at(trace, tsc + 30, POINT_tx_complete, 0, request);
}

/* One sealed sub-buffer and an open one, as every owner leaves them. */
static void fill(struct region *arena)
{
    struct trace trace[ARENA_LANES];
    struct lane lane;

    for (uint32_t i = 0; i < ARENA_LANES; i++) {
        fuzz_require(lane_open(&lane, arena, i) == 0);
        trace_open(&trace[i], &lane, 1, 1, 0);
        trace[i].last = 1000;
    }
    for (uint64_t i = 1; i < 40; i++) {
        struct ingress_record record = {.request = i, .id = i, .kernel_ns = i};
        uint64_t request = i < 20 ? i : i << 32;
        if (i % 8 == 1)
            trace_event(&trace[0], 1000 + 100 * i, POINT_clock, 25, 1000 * i, 1000 * i);
        stamp(&trace[0], request, 1000 + 100 * i);
        stamp(&trace[1], request, 1005 + 100 * i);
        trace_append(&trace[2], &record, sizeof(record));
    }
}

struct region *arena_fresh(void)
{
    static struct region kept;
    static struct region used;
    const struct region_place place = {.numa_node = -1};
    const struct lane_plan plan[ARENA_LANES] = {
        {"rx", LANE_TRACE, 0, LANE_BYTES_MIN},
        {"tx", LANE_TRACE, 0, LANE_BYTES_MIN},
        {"ingress", LANE_PLAIN, sizeof(struct ingress_record), LANE_BYTES_MIN},
    };

    if (!used.header) {
        fuzz_require(arena_create(&kept, &place, plan, ARENA_LANES, 1) == 0);
        fill(&kept);
        used = kept;
        used.header = fuzz_pages(kept.size);
    }
    memcpy(used.header, kept.header, kept.size);
    return &used;
}
