/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark and the two ends of its pipeline share: rx and tx are the real programs, linked
 * with a source and a sink in memory in place of stage/'s sockets. The descriptor named "bench" is a
 * region of this form.
 */
#ifndef TICKLINE_TESTS_BENCH_MEMORY_MEMORY_H
#define TICKLINE_TESTS_BENCH_MEMORY_MEMORY_H

#include "shm/atomic.h"

#include <stddef.h>

struct stage;

enum {
    MEMORY_SAMPLES = 1 << 20,
    MEMORY_REQUEST_BYTES = 64,
    MEMORY_MARK_EVERY = 16, /* one v2 request in so many carries the counter as its id */
};

/* An id from here up is a time stamp, below a plain number. */
#define MEMORY_MARK_MIN (UINT64_C(1) << 32)

struct memory {
    uint64_t gap_ticks; /* between requests; 0: as many as rx takes. Benchmark, before the start */
    /* sink */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t
        taken;                       /* samples; release, pairs with the benchmark's acquire */
    uint32_t sample[MEMORY_SAMPLES]; /* ticks from the source's turn to the sink */
};

/* Maps the descriptor "bench"; NULL where there is none. */
struct memory *memory_attach(const struct stage *stage);

#endif
