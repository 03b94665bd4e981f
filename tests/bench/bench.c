/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/bench.h"

#include "stage/cpu.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const double bench_quantile_at[BENCH_QUANTILES] = {
    0,   0.001, 0.005, 0.01, 0.02, 0.05, 0.1,  0.2,   0.25,  0.3,    0.4,    0.5, 0.6,
    0.7, 0.75,  0.8,   0.9,  0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1,
};

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

void bench_spread(const struct bench *bench, struct bench_result *result, uint32_t *ticks,
                  uint64_t count, double per)
{
    double ns = 1e9 / bench->clock.hz / per;

    qsort(ticks, count, sizeof(*ticks), by_size);
    for (int i = 0; i < BENCH_QUANTILES; i++) {
        /* Nearest rank: the smallest sample with at least that share of all at or below it. */
        double rank = ceil(bench_quantile_at[i] * (double)count);
        uint64_t at = rank < 1 ? 0 : (uint64_t)rank - 1;
        result->quantile[i] = ticks[at] * ns;
        if (bench_quantile_at[i] == 0.5)
            result->p50 = result->quantile[i];
        else if (bench_quantile_at[i] == 0.99)
            result->p99 = result->quantile[i];
        else if (bench_quantile_at[i] == 0.999)
            result->p99_9 = result->quantile[i];
        else if (bench_quantile_at[i] == 1)
            result->max = result->quantile[i];
    }
    result->n = count;
    result->spread = true;
    result->ns = result->p50;
}

void bench_rate(const struct bench *bench, struct bench_result *result, uint64_t operations,
                uint64_t ticks)
{
    double ns = (double)ticks * 1e9 / bench->clock.hz;

    result->n = operations;
    result->ns = ns / (double)operations;
    result->items_per_second = (double)operations * 1e9 / ns;
}

void bench_better(struct bench_result *without_pause, const struct bench_result *with_pause)
{
    double without = without_pause->p50;

    if (with_pause->p50 < without)
        *without_pause = *with_pause;
    bench_extra(without_pause, "without_pause", without);
    bench_extra(without_pause, "with_pause", with_pause->p50);
}

void bench_extra(struct bench_result *result, const char *name, double value)
{
    if (result->extras < BENCH_EXTRA_MAX)
        result->extra[result->extras++] = (struct bench_extra){name, value};
}

int bench_fail(struct bench_result *result, int err, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(result->note, sizeof(result->note), format, arguments);
    va_end(arguments);
    return err;
}

void *bench_memory(size_t bytes)
{
    void *memory = calloc(1, bytes);

    if (!memory) {
        fprintf(stderr, "bench: %zu bytes of memory: %s\n", bytes, strerror(errno));
        exit(4);
    }
    return memory;
}

void *bench_shared(size_t bytes)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (memory == MAP_FAILED) {
        fprintf(stderr, "bench: %zu bytes of shared memory: %s\n", bytes, strerror(errno));
        exit(4);
    }
    return memory;
}

void bench_nap_ms(long ms)
{
    const struct timespec nap = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&nap, NULL);
}

pid_t bench_child(int cpu, int (*act)(void *argument), void *argument)
{
    fflush(NULL);
    pid_t pid = fork();

    if (pid < 0) {
        fprintf(stderr, "bench: fork: %s\n", strerror(errno));
        exit(4);
    }
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (cpu_pin(cpu) < 0)
        _exit(4);
    _exit(act(argument));
}

int bench_wait(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return status == 0 ? 0 : -EIO;
}
