/* SPDX-License-Identifier: Apache-2.0 */
/* What `status --watch` does with an arena into which somebody writes, before and between its readings. The
 * input is patches (fuzz.h); first byte: how many of them come before. */
#include "launch/latency.h"

#include "tests/fuzz/arena.h"

static void read_spans(struct latency *latency, uint64_t now)
{
    struct latency_figures figures[LATENCY_SPANS_MAX];

    latency_read(latency, now);
    fuzz_require(latency_take(latency, figures) <= LATENCY_SPANS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct region *arena = arena_fresh();
    struct latency *latency;

    size_t first = 10 * (fuzz_number(&input, 1) % 16);
    struct fuzz_input before = {input.at, first < input.left ? first : input.left};
    input.at += before.left;
    input.left -= before.left;
    fuzz_patch(&before, arena->header, arena->size);
    if (latency_open(&latency, arena, 2.6e9, 2000) < 0)
        return 0;
    read_spans(latency, 3000);
    fuzz_patch(&input, region_at(arena, (size_t)2 * PAGE_BYTES),
               arena->size - (size_t)2 * PAGE_BYTES);
    read_spans(latency, 1000000);
    read_spans(latency, UINT64_MAX);
    latency_close(latency);
    return 0;
}
