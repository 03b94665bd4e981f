/* SPDX-License-Identifier: Apache-2.0 */
/* A run directory for one measurement: made anew, removed with all that is in it. */
#ifndef TICKLINE_TESTS_BENCH_SCRATCH_H
#define TICKLINE_TESTS_BENCH_SCRATCH_H

#include "tests/bench/bench.h"

struct scratch {
    char path[512];
};

/* Below `parent`, or in the build directory where that is NULL. 0 or -errno, said in the note. */
int scratch_make(struct scratch *scratch, const char *parent, struct bench_result *result);

/* Bytes of all files below it. */
uint64_t scratch_bytes(const struct scratch *scratch);

void scratch_remove(const struct scratch *scratch);

#endif
