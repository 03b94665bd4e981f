/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/clock.h"
#include "tests/unit.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static uint64_t raw_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* Over 100 ms, each end taken as the quickest of many readings. */
static double measured_hz(void)
{
    uint64_t tsc[2] = {0, 0}, ns[2] = {0, 0};
    for (int end = 0; end < 2; end++) {
        uint64_t narrowest = UINT64_MAX;
        for (int i = 0; i < 50; i++) {
            uint64_t before = tsc_read(), now = raw_ns(), width = tsc_read() - before;
            if (width < narrowest) {
                narrowest = width;
                tsc[end] = before + width / 2;
                ns[end] = now;
            }
        }
        if (end == 0)
            nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    return (double)(tsc[1] - tsc[0]) * 1e9 / (double)(ns[1] - ns[0]);
}

static struct clock calibrated(void)
{
    struct clock_pair first = clock_pair_read(NULL);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    struct clock_pair second = clock_pair_read(NULL);
    return clock_from_pairs(&first, &second);
}

static void test_frequency(void)
{
    double expected = measured_hz();
    struct clock clock = calibrated();
    CU_ASSERT(fabs(clock.hz / expected - 1) < 0.01);
    CU_ASSERT(clock.error_ppm > 0 && clock.error_ppm < 1000);
    CU_ASSERT(fabs(clock.hz / expected - 1) * 1e6 < clock.error_ppm + 100);
}

static void test_from_pairs(void)
{
    const struct clock_pair first = {.tsc = 1000, .raw_ns = 5000, .width_ns = 40};
    const struct clock_pair second = {.tsc = 1000 + 26000000, .raw_ns = 5000 + 10000000};
    struct clock clock = clock_from_pairs(&first, &second);
    CU_ASSERT_DOUBLE_EQUAL(clock.hz, 2.6e9, 1);
    CU_ASSERT_DOUBLE_EQUAL(clock.error_ppm, 7.0, 1e-9); /* (40 + 100 ns) / 2 in 10 ms */
}

static void test_converted(void)
{
    static const double frequencies[] = {25e6, 1e9, 1.9e9, 2.6e9, 2599998765.0, 5.7e9};
    struct clock one = clock_from_hz(1e9), two = clock_from_hz(2e9);
    CU_ASSERT_EQUAL(clock_ns(&one, 123456789), 123456789);
    CU_ASSERT_EQUAL(clock_ns(&two, 123456788), 61728394);
    CU_ASSERT_EQUAL(clock_ticks(&two, 61728394), 123456788);
    CU_ASSERT_EQUAL(clock_ns(&two, 0), 0);
    for (size_t i = 0; i < sizeof(frequencies) / sizeof(frequencies[0]); i++) {
        struct clock clock = clock_from_hz(frequencies[i]);
        for (uint64_t ns = 1; ns < 4000000000000; ns = ns * 3 + 1) {
            double tick_ns = 1e9 / frequencies[i];
            double back = (double)clock_ns(&clock, clock_ticks(&clock, ns));
            /* a tick, a nanosecond, and a rounding of 2^-32 of the factor */
            CU_ASSERT(fabs(back - (double)ns) <= tick_ns + 1 + (double)ns / tick_ns / 4294967296.0);
        }
    }
}

static void test_pair(void)
{
    struct clock clock = calibrated();
    struct clock_pair before = clock_pair_read(&clock);
    for (int i = 0; i < 1000; i++) {
        uint64_t tsc = tsc_read(), raw = raw_ns();
        struct clock_pair pair = clock_pair_read(&clock);
        CU_ASSERT(pair.tsc > before.tsc && pair.tsc > tsc && pair.tsc < tsc_read());
        CU_ASSERT(pair.raw_ns >= before.raw_ns && pair.raw_ns >= raw && pair.raw_ns <= raw_ns());
        CU_ASSERT(pair.width_ns > 0 && pair.width_ns < 1000000);
        before = pair;
    }
    CU_ASSERT_EQUAL(clock_pair_read(NULL).width_ns, 0);
    CU_ASSERT(llabs((long long)before.real_ns / 1000000000 - (long long)time(NULL)) <= 1);
}

static bool cpu_has(const char *flag)
{
    char command[128];
    snprintf(command, sizeof(command), "grep -m1 '^flags' /proc/cpuinfo | grep -qw %s", flag);
    return system(command) == 0;
}

static void test_invariant(void)
{
#if defined(__x86_64__)
    CU_ASSERT_EQUAL(clock_invariant(), cpu_has("constant_tsc") && cpu_has("nonstop_tsc"));
#else
    CU_ASSERT(clock_invariant());
    (void)cpu_has;
#endif
}

static void test_skew(void)
{
    struct clock clock = calibrated();
    double skew = -1, error = -1;
    cpu_set_t before, after;
    CU_ASSERT_EQUAL(clock_skew(&clock, unit_cpu(0), CPU_SETSIZE, &skew, &error), -EINVAL);
    if (unit_cpu(1) < 0) {
        UNIT_SKIP("skew: one CPU only");
        return;
    }
    sched_getaffinity(0, sizeof(before), &before);
    CU_ASSERT_EQUAL(clock_skew(&clock, unit_cpu(0), unit_cpu(1), &skew, &error), 0);
    CU_ASSERT(skew >= 0 && skew < 10000);
    CU_ASSERT(error > 0 && error < 10000);
    sched_getaffinity(0, sizeof(after), &after);
    CU_ASSERT(CPU_EQUAL(&before, &after));
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"frequency", test_frequency},
        {"frequency from two pairs", test_from_pairs},
        {"ticks and ns", test_converted},
        {"pairs", test_pair},
        {"invariant", test_invariant},
        {"skew", test_skew},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "clock", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
