/* SPDX-License-Identifier: Apache-2.0 */
/* An arena into which somebody has written: its directory, what a successor finds in its lane, and how it goes
 * on there. The input is patches (fuzz.h); first byte: before or behind the opening. */
#include "shm/lane.h"

#include "tests/fuzz/arena.h"

#include <string.h>

struct work {
    struct fuzz_input input;
    struct region *arena;
    bool late;
};

static void look(const struct region *arena, const struct lane *lane)
{
    const uint8_t *begin = region_at(arena, 0);
    const uint8_t *control = (const uint8_t *)lane->control;

    fuzz_require(strnlen(lane->entry->name, sizeof(lane->entry->name)) < sizeof(lane->entry->name));
    fuzz_require(control >= begin + (size_t)2 * PAGE_BYTES && lane->subbuffer_bytes > PAGE_BYTES);
    fuzz_require(control + PAGE_BYTES + (uint64_t)lane->count * lane->subbuffer_bytes <=
                 begin + arena->size);
    for (uint64_t number = 0; number < 2 * LANE_SUBBUFFERS; number += 5) {
        struct lane_content content = lane_scan(lane, number, 1000000);
        fuzz_require(content.bytes <= lane_payload_bytes(lane));
    }
}

static void go_on(const struct lane *lane)
{
    struct trace trace;

    trace_open(&trace, lane, 1, 2, 0);
    for (uint64_t i = 0; i < 200; i++) {
        trace_stamp(&trace, POINT_rx_put, 0, i < 100 ? i : i << 30);
        trace_event(&trace, tsc_read(), POINT_clock, 0, i, i);
    }
    trace_tend(&trace);
    trace_close(&trace);
}

static void act(void *context)
{
    struct work *work = context;
    struct lane lane[LANE_MAX + 1];
    uint32_t opened = 0;
    int err;

    if (!work->late)
        fuzz_patch(&work->input, work->arena->header, work->arena->size);
    while ((err = lane_open(&lane[opened], work->arena, opened)) == 0)
        opened++;
    fuzz_require(opened <= LANE_MAX && (err == -2 || err == -71)); /* ENOENT, EPROTO */
    (void)lane_find(&lane[opened], work->arena, "ingress");
    if (work->late)
        fuzz_patch(&work->input, region_at(work->arena, (size_t)2 * PAGE_BYTES),
                   work->arena->size - (size_t)2 * PAGE_BYTES);
    for (uint32_t i = 0; i < opened; i++) {
        look(work->arena, &lane[i]);
        if (lane[i].entry->kind == LANE_TRACE)
            go_on(&lane[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct work work = {.input = {data, size}, .arena = arena_fresh()};

    work.late = fuzz_number(&work.input, 1) & 1;
    (void)fuzz_stops(act, &work);
    return 0;
}
