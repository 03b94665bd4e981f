/* SPDX-License-Identifier: Apache-2.0 */
/* Work of a known length to put between two stamps. */
#ifndef TICKLINE_TESTS_BENCH_WORK_H
#define TICKLINE_TESTS_BENCH_WORK_H

#include "tests/bench/bench.h"

/* A chain of dependent multiplications: of a stamp nothing can hide in it but what runs beside it. */
static inline uint64_t work(uint64_t value, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++)
        value = value * 0x9e3779b97f4a7c15ULL + 1;
    return value;
}

/* How many steps take so long. */
static inline uint32_t work_steps(const struct bench *bench, uint64_t ns)
{
    enum { STEPS = 2000000 };
    uint64_t value = tsc_read();
    uint64_t began = tsc_read();

    value = work(value, STEPS);
    __asm__ volatile("" ::"r"(value));
    double step_ns = (double)(tsc_read() - began) * 1e9 / bench->clock.hz / STEPS;
    return (uint32_t)((double)ns / step_ns);
}

#endif
