/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every benchmark program shares: its main, pinned child processes, percentiles, and the two
 * forms of its result, a table for people and Google Benchmark's JSON for programs.
 *
 * A program is a list of cases. A case runs once a process start: with --repetitions N the program
 * starts itself N times for each case, all cases in turn, because what one start has (addresses,
 * pages, the order of a run queue) is the same for all its loops and says nothing about the next.
 *
 *   PROGRAM [--filter GLOB]… [--repetitions N] [--quick] [--cpus A,B] [--json FILE] [--list]
 *
 * Times are in nanoseconds, measured with the CPU's time-stamp counter; a case says per what.
 */
#ifndef TICKLINE_TESTS_BENCH_BENCH_H
#define TICKLINE_TESTS_BENCH_BENCH_H

#include "stage/clock.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { BENCH_EXTRA_MAX = 8, BENCH_NOTE_MAX = 160, BENCH_QUANTILES = 25 };

/* How a case is run. */
struct bench {
    int cpu[2]; /* the pair; a case on one CPU uses cpu[1] */
    bool quick; /* about a tenth of the work */
    struct clock clock;
};

/* Whether the consumer waited for the producer or the other way round, which decides what a ring
 * costs. */
enum bench_regime { BENCH_NO_REGIME, BENCH_KEEPS_UP, BENCH_LAGS };

struct bench_extra {
    const char *name; /* a static string */
    double value;
};

struct bench_result {
    double ns;               /* the figure of the case: a median, or time per operation */
    double items_per_second; /* 0: not about a rate */
    uint64_t n;              /* samples or operations behind it */
    bool spread;             /* the following are set; ns */
    double p50;
    double p99;
    double p99_9;
    double max;
    double quantile[BENCH_QUANTILES]; /* bench_quantile_at[] */
    enum bench_regime regime;
    int page_bytes; /* of the shared memory; 0: none */
    struct bench_extra extra[BENCH_EXTRA_MAX];
    int extras;
    char note[BENCH_NOTE_MAX]; /* why it was skipped, or what to know */
};

extern const double bench_quantile_at[BENCH_QUANTILES];

/* 0, or -errno: the case could not run and `note` says why. */
typedef int bench_run(const struct bench *bench, const void *parameter,
                      struct bench_result *result);

struct bench_case {
    const char *name;
    bench_run *run;
    const void *parameter;
};

/* The whole program; its exit status: 0, 2 usage, 4 the result cannot be written. A case that could not
 * run is told as skipped, with the reason. */
int bench_main(int argc, char **argv, const struct bench_case *cases, int count);

/* Nearest-rank percentiles of `count` samples in ticks, which are sorted in place; ns = p50. The
 * samples are divided by `per` (operations a sample). */
void bench_spread(const struct bench *bench, struct bench_result *result, uint32_t *ticks,
                  uint64_t count, double per);

/* Figure of `operations` that took `ticks` in all. */
void bench_rate(const struct bench *bench, struct bench_result *result, uint64_t operations,
                uint64_t ticks);

/* The better of two ways to wait, in `result`; both stand in its extras. */
void bench_better(struct bench_result *without_pause, const struct bench_result *with_pause);

void bench_extra(struct bench_result *result, const char *name, double value);

/* Fills the note; returns `err`. */
int bench_fail(struct bench_result *result, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Zeroed memory of this process, which is one repetition and ends soon: never freed. Ends the program
 * where there is none. */
void *bench_memory(size_t bytes);

/* Zeroed memory shared with children, prefaulted; ends the program where there is none. */
void *bench_shared(size_t bytes);

void bench_nap_ms(long ms);

/* A child pinned to `cpu` that calls act(argument) and exits with what it returns; it dies with us.
 */
pid_t bench_child(int cpu, int (*act)(void *argument), void *argument);

/* Waits for a child; 0 where it returned 0, else -EIO. */
int bench_wait(pid_t pid);

/* Ticks as a 32-bit sample; what does not fit counts as the largest. */
static inline uint32_t bench_ticks32(uint64_t ticks)
{
    return ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks;
}

#ifdef __cplusplus
}
#endif

#endif
