/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clock of everything: the CPU's time-stamp counter (x86-64) or virtual counter (aarch64), in
 * ticks.
 *
 * Ticks become nanoseconds by a frequency calibrated against CLOCK_MONOTONIC_RAW, which no daemon
 * slews. REALTIME (the kernel's socket stamps) is tied to ticks by clock pairs taken all through a
 * run. tsc_read() is in shm/lane.h.
 */
#ifndef TICKLINE_STAGE_CLOCK_H
#define TICKLINE_STAGE_CLOCK_H

#include "shm/lane.h"

#include <stdbool.h>
#include <stdint.h>

/* The three clocks at one moment; `width_ns` is how long the reading took, which bounds its error.
 */
struct clock_pair {
    uint64_t tsc;
    uint64_t raw_ns;
    uint64_t real_ns;
    uint32_t width_ns;
};

struct clock {
    double hz;
    double error_ppm;        /* bound on the frequency: reading widths over the base line */
    uint64_t ns_per_tick_32; /* ns = ticks * this >> 32 */
};

/* Narrowest of three readings, about 0.3 µs, no system call (vDSO). `clock` may be NULL: width 0.
 */
struct clock_pair clock_pair_read(const struct clock *clock);

/* CLOCK_MONOTONIC, for deadlines. */
uint64_t clock_monotonic_ns(void);

/* Frequency from two pairs; the error falls with the time between them (50 ms: about 2 ppm). */
struct clock clock_from_pairs(const struct clock_pair *first, const struct clock_pair *second);

struct clock clock_from_hz(double hz);

static inline uint64_t clock_ns(const struct clock *clock, uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * clock->ns_per_tick_32) >> 32);
}

static inline uint64_t clock_ticks(const struct clock *clock, uint64_t ns)
{
    return (uint64_t)((double)ns * clock->hz / 1e9);
}

/* Does the counter run at one rate in all power states (constant_tsc and nonstop_tsc; always on
 * aarch64)? */
bool clock_invariant(void);

/*
 * Offset of `cpu_b`'s counter against `cpu_a`'s in ns, by the narrowest of many exchanges between
 * two pinned threads; `error_ns` is half of that exchange's round trip. 0 or -errno (a CPU is not
 * ours).
 */
int clock_skew(const struct clock *clock, int cpu_a, int cpu_b, double *skew_ns, double *error_ns);

#endif
