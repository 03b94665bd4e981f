/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting: what a stage does between two turns.
 *
 *   spin   pause; the CPU is ours
 *   yield  sched_yield to the other stages of this CPU. The source holds the CPU while nothing of
 *          its own is on its way downstream, and yields until its burst has left
 *   park   as yield, and after `park_after_ns` of idleness sleep until a bell or a timer (at most
 *          1 ms). A hot stage never wakes a process on another CPU: that costs the waker 12 µs on a
 *          virtual machine
 *
 * On a shared CPU the order of turns is part of the contract, upstream before downstream:
 * stage/rotation.h.
 */
#ifndef TICKLINE_STAGE_WAIT_H
#define TICKLINE_STAGE_WAIT_H

#include "shm/cell.h"

#include <stdbool.h>
#include <stdint.h>

enum wait_kind { WAIT_BY_SPIN, WAIT_BY_YIELD, WAIT_BY_PARK };

enum { WAIT_PARK_NS = 1000000 };

struct wait_plan {
    enum wait_kind kind;
    uint64_t park_after_ns; /* 0: never */
    /* The cells that share this CPU in pipeline order; fewer than two: no rotation. */
    uint32_t rotation_count;
    uint8_t rotation[CELL_MAX];
};

static inline void wait_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

/* Gives way once and notes when our turn came again (the rotation is judged by it). */
void wait_yield(struct cell *cell);

#endif
