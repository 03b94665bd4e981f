/* SPDX-License-Identifier: Apache-2.0 */
/* An arena of two trace lanes and an ingress lane with records of every kind, between pages that cannot be
 * touched: where the targets of lane, latency and drain begin. */
#ifndef TICKLINE_TESTS_FUZZ_ARENA_H
#define TICKLINE_TESTS_FUZZ_ARENA_H

#include "shm/lane.h"
#include "tests/fuzz/fuzz.h"

enum { ARENA_LANES = 3 };

/* The same content each time, whatever was done to it. The stamps begin at 1,000. */
struct region *arena_fresh(void);

#endif
