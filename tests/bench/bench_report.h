/* SPDX-License-Identifier: Apache-2.0 */
/* The two forms of a result: Google Benchmark's JSON for programs, a table for people. */
#ifndef TICKLINE_TESTS_BENCH_BENCH_REPORT_H
#define TICKLINE_TESTS_BENCH_BENCH_REPORT_H

#include "tests/bench/bench.h"

#include <jansson.h>

/* One repetition of a case; `err` < 0: why it could not run. */
json_t *report_result(const char *name, const struct bench_result *result, int err);

/* Where and how it was measured. */
json_t *report_context(const char *program, const struct bench *bench);

/* Medians over the repetitions in `benchmarks`, a line a case. */
void report_table(const struct bench *bench, int repetitions, const struct bench_case *cases,
                  int count, const json_t *benchmarks);

#endif
