/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/clock.h"

#include "stage/cpu.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t clock_read(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

struct clock_pair clock_pair_read(const struct clock *clock)
{
    struct clock_pair best = {0};
    uint64_t narrowest = UINT64_MAX;

    for (int i = 0; i < 3; i++) {
        uint64_t before = tsc_read();
        uint64_t raw = clock_read(CLOCK_MONOTONIC_RAW);
        uint64_t real = clock_read(CLOCK_REALTIME);
        uint64_t width = tsc_read() - before;

        if (width < narrowest) {
            narrowest = width;
            best = (struct clock_pair){.tsc = before + width / 2, .raw_ns = raw, .real_ns = real};
        }
    }
    best.width_ns = clock ? (uint32_t)clock_ns(clock, narrowest) : 0;
    return best;
}

struct clock clock_from_hz(double hz)
{
    return (struct clock){.hz = hz, .ns_per_tick_32 = (uint64_t)(4294967296.0 * 1e9 / hz)};
}

struct clock clock_from_pairs(const struct clock_pair *first, const struct clock_pair *second)
{
    double elapsed_ns = (double)(second->raw_ns - first->raw_ns);
    struct clock clock = clock_from_hz((double)(second->tsc - first->tsc) * 1e9 / elapsed_ns);

    /* Each reading is off by at most half its width; 100 ns stands in where the width was not
     * known. */
    double widths =
        (first->width_ns ? first->width_ns : 100) + (second->width_ns ? second->width_ns : 100);
    clock.error_ppm = widths / 2 / elapsed_ns * 1e6;
    return clock;
}

bool clock_invariant(void)
{
#if defined(__x86_64__)
    char line[8192];
    bool constant = false;
    bool nonstop = false;
    FILE *file = fopen("/proc/cpuinfo", "re");

    if (!file)
        return false;
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, "flags", 5) != 0)
            continue;
        constant = strstr(line, " constant_tsc") != NULL;
        nonstop = strstr(line, " nonstop_tsc") != NULL;
        break;
    }
    fclose(file);
    return constant && nonstop;
#else
    return true;
#endif
}

/* One exchange: a asks (turn = 2i + 1), b answers with its counter (turn = 2i + 2). */
struct skew_exchange {
    _Alignas(LINE_PAIR_BYTES) _Atomic uint32_t turn;
    _Atomic uint64_t answer;
    _Alignas(LINE_PAIR_BYTES) int cpu_b;
    int pinned;
};

enum { SKEW_ROUNDS = 2000 };

/* The peer may share our CPU (or be off it): give way now and then, so that this always ends. */
static void await_turn(struct skew_exchange *exchange, uint32_t turn)
{
    for (uint32_t spins = 0; load_acquire(&exchange->turn) != turn; spins++) {
        if (spins > 20000)
            sched_yield();
    }
}

static void *skew_answer(void *argument)
{
    struct skew_exchange *exchange = argument;

    exchange->pinned = cpu_pin(exchange->cpu_b);
    for (uint32_t i = 0; i < SKEW_ROUNDS; i++) {
        await_turn(exchange, 2 * i + 1);
        store_relaxed(&exchange->answer, tsc_read());
        store_release(&exchange->turn, 2 * i + 2);
    }
    return NULL;
}

int clock_skew(const struct clock *clock, int cpu_a, int cpu_b, double *skew_ns, double *error_ns)
{
    struct skew_exchange exchange = {.cpu_b = cpu_b};
    cpu_set_t before;
    pthread_t peer;
    uint64_t narrowest = UINT64_MAX;
    double skew_ticks = 0;

    if (sched_getaffinity(0, sizeof(before), &before) < 0)
        return -errno;
    int err = pthread_create(&peer, NULL, skew_answer, &exchange);
    if (err)
        return -err;
    err = cpu_pin(cpu_a);
    for (uint32_t i = 0; i < SKEW_ROUNDS; i++) {
        uint64_t asked = tsc_read();
        store_release(&exchange.turn, 2 * i + 1);
        await_turn(&exchange, 2 * i + 2);
        uint64_t round = tsc_read() - asked;
        if (round < narrowest) {
            narrowest = round;
            skew_ticks = (double)position_diff(load_relaxed(&exchange.answer), asked + round / 2);
        }
    }
    pthread_join(peer, NULL);
    (void)sched_setaffinity(0, sizeof(before), &before);
    if (err < 0 || exchange.pinned < 0)
        return err < 0 ? err : exchange.pinned;
    *skew_ns = fabs(skew_ticks) * 1e9 / clock->hz;
    *error_ns = (double)narrowest / 2 * 1e9 / clock->hz;
    return 0;
}
