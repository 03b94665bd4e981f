/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes are small: 16 sub-buffers of two payload pages, 512 records each. The clock has 10^9 ticks
 * a second, so ticks are ns. The reader has a mapping of its own, for reading only.
 */
#include "launch/latency.h"
#include "tests/unit.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

static const struct region_place anywhere = {.numa_node = -1};

enum { RX, WORKER, TX, LANES, RECORDS = 512, PAIRS = RECORDS / 2, KEPT = LANE_SUBBUFFERS - 2 };

static const double HZ = 1e9;

struct fixture {
    struct region arena;
    struct region seen;
    struct trace trace[LANES];
    struct latency *latency;
    struct latency_figures figures[LATENCY_SPANS_MAX];
    uint32_t spans;
    uint64_t start; /* tsc from which made-up stamps count */
};

static void make(struct fixture *made)
{
    const uint64_t bytes = (uint64_t)LANE_SUBBUFFERS * 3 * PAGE_BYTES;
    const struct lane_plan plan[LANES] = {{"rx", LANE_TRACE, 0, bytes},
                                          {"worker0", LANE_TRACE, 0, bytes},
                                          {"tx", LANE_TRACE, 0, bytes}};
    const struct region_want want = arena_want(0);
    struct region_mismatch mismatch;

    *made = (struct fixture){0};
    CU_ASSERT_EQUAL_FATAL(arena_create(&made->arena, &anywhere, plan, LANES, 1), 0);
    CU_ASSERT_EQUAL_FATAL(region_attach(&made->seen, dup(made->arena.fd), &want, false, &mismatch),
                          0);
    for (uint32_t i = 0; i < LANES; i++) {
        struct lane lane;
        CU_ASSERT_EQUAL_FATAL(lane_open(&lane, &made->arena, i), 0);
        trace_open(&made->trace[i], &lane, 1, 1, 0);
    }
    made->start = made->trace[TX].last + 1000000;
    CU_ASSERT_EQUAL_FATAL(latency_open(&made->latency, &made->seen, HZ, made->start), 0);
}

static void end(struct fixture *made)
{
    latency_close(made->latency);
    region_close(&made->seen);
    region_close(&made->arena);
}

static void take(struct fixture *made)
{
    made->spans = latency_take(made->latency, made->figures);
}

static void read_all(struct fixture *made)
{
    latency_read(made->latency, UINT64_MAX);
    take(made);
}

static const struct latency_figures *span(const struct fixture *made, const char *from,
                                          const char *to)
{
    for (uint32_t i = 0; i < made->spans; i++) {
        if (strcmp(made->figures[i].from, from) == 0 && strcmp(made->figures[i].to, to) == 0)
            return &made->figures[i];
    }
    CU_FAIL_FATAL("no such span");
    return NULL;
}

static void pair(struct fixture *made, uint64_t at, uint64_t real_ns, uint16_t width_ns)
{
    trace_event(&made->trace[RX], made->start + at, POINT_clock, width_ns, 0, real_ns);
}

static void drain(struct trace *trace)
{
    store_release(&trace->lane.control->drained, load_relaxed(&trace->lane.control->sealed));
}

/* Two points in one lane, `ticks` apart: what the tests of the lanes themselves count. */
static void put_pair(struct fixture *made, uint64_t request, uint64_t at, uint64_t ticks)
{
    struct trace *trace = &made->trace[RX];

    drain(trace);
    trace_stamp_at(trace, made->start + at, POINT_rx_put, 0, request);
    trace_stamp_at(trace, made->start + at + ticks, POINT_worker_got, 0, request);
}

static const struct latency_figures *pairs(const struct fixture *made)
{
    return span(made, "rx_put", "worker_got");
}

/* ---- spans ---- */

static const enum point after_got[] = {POINT_rx_put,      POINT_worker_got, POINT_worker_parsed,
                                       POINT_worker_done, POINT_worker_put, POINT_tx_got,
                                       POINT_tx_sent,     POINT_tx_complete};
static const int lane_of_point[] = {RX, WORKER, WORKER, WORKER, WORKER, TX, TX, TX};

/* A request: 500 ns in the kernel, then 1, 2, … ticks from point to point. */
static void whole(struct fixture *made, uint64_t request, uint64_t at, uint64_t kernel_real_ns)
{
    uint64_t tsc = made->start + at;

    trace_stamp_wide(&made->trace[RX], tsc, POINT_rx_got, 0, request, kernel_real_ns, 77);
    for (uint32_t i = 0; i < sizeof(after_got) / sizeof(after_got[0]); i++) {
        tsc += i + 1;
        trace_stamp_at(&made->trace[lane_of_point[i]], tsc, after_got[i], 0, request);
    }
}

static void test_spans(void)
{
    static const char *const names[] = {"kernel",        "rx_got",      "rx_put",     "worker_got",
                                        "worker_parsed", "worker_done", "worker_put", "tx_got",
                                        "tx_sent",       "tx_complete"};
    struct fixture made;
    make(&made);
    pair(&made, 0, 5000000, 30);
    for (uint64_t r = 1; r <= 30; r++)
        whole(&made, r, 1000 * r, 5000000 + 1000 * r - 500);
    read_all(&made);
    CU_ASSERT_EQUAL_FATAL(made.spans, 10);
    for (uint32_t i = 0; i < 9; i++) {
        double ticks = i ? i : 500;
        CU_ASSERT_STRING_EQUAL(made.figures[i].from, names[i]);
        CU_ASSERT_STRING_EQUAL(made.figures[i].to, names[i + 1]);
        CU_ASSERT_EQUAL(made.figures[i].count, 30);
        CU_ASSERT_EQUAL(made.figures[i].p50, ticks);
        CU_ASSERT_EQUAL(made.figures[i].max, ticks);
        CU_ASSERT(isnan(made.figures[i].p99)); /* 30 records have no ten beyond it */
    }
    CU_ASSERT_STRING_EQUAL(span(&made, "kernel", "rx_got")->kind, "wait");
    CU_ASSERT_STRING_EQUAL(span(&made, "rx_got", "rx_put")->kind, "work");
    CU_ASSERT_STRING_EQUAL(span(&made, "worker_put", "tx_got")->kind, "wait");
    const struct latency_figures *through = span(&made, "kernel", "tx_complete");
    CU_ASSERT_PTR_EQUAL(through, &made.figures[9]);
    CU_ASSERT_STRING_EQUAL(through->kind, "");
    CU_ASSERT_EQUAL(through->count, 30);
    CU_ASSERT_EQUAL(through->max, 536);

    read_all(&made); /* begun anew */
    CU_ASSERT_EQUAL(span(&made, "kernel", "tx_complete")->count, 0);
    CU_ASSERT(isnan(span(&made, "kernel", "tx_complete")->p50));
    end(&made);
}

/* Its records are read at different times, and the later one counts. */
static void test_on_its_way(void)
{
    struct fixture made;
    make(&made);
    pair(&made, 0, 5000000, 30);
    trace_stamp_wide(&made.trace[RX], made.start + 100, POINT_rx_got, 0, 1, 5000090, 0);
    read_all(&made);
    CU_ASSERT_EQUAL(span(&made, "kernel", "rx_got")->count, 1);
    CU_ASSERT_EQUAL(span(&made, "kernel", "rx_got")->max, 10);
    trace_stamp_at(&made.trace[TX], made.start + 900, POINT_tx_complete, 0, 1);
    trace_stamp_at(&made.trace[WORKER], made.start + 150, POINT_worker_got, 0, 1);
    read_all(&made);
    CU_ASSERT_EQUAL(pairs(&made)->count, 0);
    CU_ASSERT_EQUAL(span(&made, "kernel", "tx_complete")->max, 810);
    trace_stamp_at(&made.trace[RX], made.start + 110, POINT_rx_put, 0, 1);
    read_all(&made);
    CU_ASSERT_EQUAL(pairs(&made)->count, 1);
    CU_ASSERT_EQUAL(pairs(&made)->max, 40);
    CU_ASSERT_EQUAL(span(&made, "rx_got", "rx_put")->max, 10);
    CU_ASSERT_EQUAL(span(&made, "kernel", "rx_got")->count, 0);
    end(&made);
}

/* A record beyond `now` waits; one from before the opening was never ours. */
static void test_from_then_to_now(void)
{
    struct fixture made;
    make(&made);
    put_pair(&made, 1, 100, 7);
    put_pair(&made, 2, 200, 7);
    latency_read(made.latency, made.start + 203);
    take(&made);
    CU_ASSERT_EQUAL(pairs(&made)->count, 1);
    read_all(&made);
    CU_ASSERT_EQUAL(pairs(&made)->count, 1);
    latency_close(made.latency);
    CU_ASSERT_EQUAL_FATAL(latency_open(&made.latency, &made.seen, HZ, UINT64_MAX), 0);
    put_pair(&made, 3, 300, 9);
    read_all(&made);
    CU_ASSERT_EQUAL(pairs(&made)->count, 1);
    CU_ASSERT_EQUAL(pairs(&made)->max, 9);
    end(&made);
}

/* The high half of a request's number stands in the packet. */
static void test_high_bits(void)
{
    struct fixture made;
    make(&made);
    for (uint64_t r = (1ULL << 32) - 20; r < (1ULL << 32) + 20; r++)
        put_pair(&made, r, 10 * (r & 0xff), 7);
    read_all(&made);
    CU_ASSERT_EQUAL(pairs(&made)->count, 40);
    end(&made);
}

/* ---- clock ---- */

static double kernel_wait(struct fixture *made, uint64_t request, uint64_t at, uint64_t real_ns)
{
    trace_stamp_wide(&made->trace[RX], made->start + at, POINT_rx_got, 0, request, real_ns, 0);
    read_all(made);
    const struct latency_figures *wait = span(made, "kernel", "rx_got");
    return wait->count ? wait->max : NAN;
}

static void test_kernel_time(void)
{
    struct fixture made;
    make(&made);
    CU_ASSERT(isnan(kernel_wait(&made, 1, 10, 5000000))); /* no pair yet */
    pair(&made, 100, 6000000, 30);
    CU_ASSERT_EQUAL(kernel_wait(&made, 2, 200, 6000050), 50);
    CU_ASSERT(isnan(kernel_wait(&made, 3, 210, 0))); /* the socket gave none */
    pair(&made, 1000, 7000000, 40);                  /* REALTIME was stepped */
    CU_ASSERT_EQUAL(kernel_wait(&made, 4, 1100, 7000020), 80);
    pair(&made, 2000, 9999999, 1000); /* interrupted: not believed */
    CU_ASSERT_EQUAL(kernel_wait(&made, 5, 2100, 7001080), 20);
    for (uint32_t i = 0; i < 5; i++)
        pair(&made, 3000 + i, 8000000 + i, 1000); /* but where all are like that, it is */
    CU_ASSERT_EQUAL(kernel_wait(&made, 6, 3100, 8000060), 40);
    CU_ASSERT_EQUAL(kernel_wait(&made, 7, 3200, 8000230), -30);
    CU_ASSERT_EQUAL(span(&made, "kernel", "rx_got")->negative, 1);
    end(&made);
}

/* ---- percentiles ---- */

static int ascending(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;

    return (*x > *y) - (*x < *y);
}

static void check_percentile(double found, uint64_t exact)
{
    CU_ASSERT(found >= (double)exact && found <= (double)exact * (1 + 1.0 / 64));
}

static void test_percentiles(void)
{
    enum { COUNT = 5000 };
    static uint64_t ticks[COUNT];
    struct fixture made;
    uint64_t at = 0;
    uint64_t random = 1;
    make(&made);
    for (uint32_t i = 0; i < COUNT; i++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        ticks[i] = (random >> 24) >> (random >> 59); /* over many octaves */
        at += ticks[i] + 10;
        put_pair(&made, i + 1, at - ticks[i], ticks[i]);
        if (i % 100 == 0)
            latency_read(made.latency, UINT64_MAX);
    }
    read_all(&made);
    qsort(ticks, COUNT, sizeof(ticks[0]), ascending);
    CU_ASSERT_EQUAL(pairs(&made)->count, COUNT);
    check_percentile(pairs(&made)->p50, ticks[COUNT / 2 - 1]);
    check_percentile(pairs(&made)->p99, ticks[COUNT / 100 * 99 - 1]);
    CU_ASSERT_EQUAL(pairs(&made)->max, (double)ticks[COUNT - 1]);
    end(&made);
}

/* A percentile with fewer than ten records beyond it is not told. */
static void test_few(void)
{
    struct fixture made;
    make(&made);
    for (uint64_t r = 1; r <= 19; r++)
        put_pair(&made, r, 100 * r, 1000000);
    read_all(&made);
    CU_ASSERT(isnan(pairs(&made)->p50));
    CU_ASSERT_EQUAL(pairs(&made)->max, 1000000);
    for (uint64_t r = 20; r < 1020; r++) {
        put_pair(&made, r, 2000000 * r, 1000000);
        if (r % 100 == 0)
            latency_read(made.latency, UINT64_MAX);
    }
    read_all(&made);
    /* Never above the longest, whatever the bucket's end. */
    CU_ASSERT_EQUAL(pairs(&made)->p50, 1000000);
    CU_ASSERT_EQUAL(pairs(&made)->p99, 1000000);
    end(&made);
}

/* ---- reuse ---- */

/* A reader that keeps up counts each once, lap after lap. */
static void test_laps(void)
{
    struct fixture made;
    uint64_t counted = 0;
    uint64_t requests = 3 * LANE_SUBBUFFERS * PAIRS + 100;
    make(&made);
    for (uint64_t r = 1; r <= requests; r++) {
        put_pair(&made, r, 10 * r, 7);
        if (r % 337 == 0) {
            read_all(&made);
            counted += pairs(&made)->count;
            CU_ASSERT_EQUAL(pairs(&made)->max, 7);
        }
    }
    read_all(&made);
    CU_ASSERT_EQUAL(counted + pairs(&made)->count, requests);
    end(&made);
}

/* One that fell behind reads what is safe, and no more. */
static void test_behind(void)
{
    struct fixture made;
    uint64_t requests = 2 * LANE_SUBBUFFERS * PAIRS + 100;
    make(&made);
    for (uint64_t r = 1; r <= requests; r++)
        put_pair(&made, r, 20000 * r, r);
    read_all(&made);
    CU_ASSERT_EQUAL(pairs(&made)->count, (KEPT - 1) * PAIRS + 100);
    CU_ASSERT_EQUAL(pairs(&made)->max, (double)requests);
    end(&made);
}

/*
 * Reuse in the middle of a copy, at a known record: the page under the reader cannot be read until
 * its first touch, and that touch lets the owner write on.
 */
static struct {
    struct fixture made;
    uint8_t *page;
    uint64_t written;
    uint64_t more;
    uint32_t touches;
} ambush;

static void write_on(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        ambush.written++;
        put_pair(&ambush.made, ambush.written, 10 * ambush.written, 7);
    }
}

static void on_touch(int number, siginfo_t *info, void *context)
{
    uint8_t *at = info->si_addr;

    (void)context;
    if (at < ambush.page || at >= ambush.page + PAGE_BYTES) {
        signal(number, SIG_DFL);
        return;
    }
    ambush.touches++;
    mprotect(ambush.page, PAGE_BYTES, PROT_READ);
    write_on(ambush.more);
}

/* The owner writes so many sub-buffers while page `page` of the first one is being copied; what is
 * counted then. */
static uint64_t counted_after(uint32_t page, uint64_t subbuffers)
{
    const struct sigaction touch = {.sa_sigaction = on_touch, .sa_flags = SA_SIGINFO};
    struct sigaction before;
    struct lane lane;

    memset(&ambush, 0, sizeof(ambush));
    make(&ambush.made);
    write_on(PAIRS); /* the first is full */
    CU_ASSERT_EQUAL_FATAL(lane_find(&lane, &ambush.made.seen, "rx"), 0);
    ambush.page = lane_payload(&lane, 0) + (size_t)page * PAGE_BYTES;
    ambush.more = subbuffers * PAIRS;
    sigaction(SIGSEGV, &touch, &before);
    mprotect(ambush.page, PAGE_BYTES, PROT_NONE);
    read_all(&ambush.made);
    sigaction(SIGSEGV, &before, NULL);
    CU_ASSERT_EQUAL(ambush.touches, 1);
    uint64_t count = pairs(&ambush.made)->count;
    CU_ASSERT(count == 0 || pairs(&ambush.made)->max == 7);
    CU_ASSERT_EQUAL(pairs(&ambush.made)->negative, 0);
    end(&ambush.made);
    return count;
}

static void test_reused_while_read(void)
{
    for (uint32_t page = 0; page < 2; page++) {
        /* Not yet near: everything. Sub-buffers 0 … 14, of which the last is open. */
        CU_ASSERT_EQUAL(counted_after(page, 14), 15 * PAIRS);
        /* The owner may open its place at any moment: 14 of 16. */
        CU_ASSERT_EQUAL(counted_after(page, 15), KEPT * PAIRS);
        /* Overwritten, by one lap and by two. */
        CU_ASSERT_EQUAL(counted_after(page, 16), KEPT * PAIRS);
        CU_ASSERT_EQUAL(counted_after(page, 17), KEPT * PAIRS);
        CU_ASSERT_EQUAL(counted_after(page, 33), KEPT * PAIRS);
    }
}

static _Atomic uint64_t hammered;

static void *hammer(void *argument)
{
    struct fixture *made = argument;

    for (uint64_t r = 1; r <= 200000; r++) {
        put_pair(made, r, 10 * r, 7);
        store_relaxed(&hammered, r);
    }
    return NULL;
}

/* At full speed beside its owner: nothing torn, nothing twice. */
static void test_beside_its_owner(void)
{
    struct fixture made;
    pthread_t owner;
    uint64_t counted = 0;
    make(&made);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&owner, NULL, hammer, &made), 0);
    bool more = true;
    while (more) {
        more = load_relaxed(&hammered) < 200000;
        read_all(&made);
        counted += pairs(&made)->count;
        CU_ASSERT(pairs(&made)->count == 0 || pairs(&made)->max == 7);
        CU_ASSERT_EQUAL(pairs(&made)->negative, 0);
    }
    pthread_join(owner, NULL);
    read_all(&made);
    counted += pairs(&made)->count;
    CU_ASSERT(counted > 0 && counted <= 200000);
    end(&made);
}

int main(void)
{
    static CU_TestInfo spans[] = {
        {"every span of a request", test_spans},
        {"records read at different times", test_on_its_way},
        {"from then to now", test_from_then_to_now},
        {"high bits of the request", test_high_bits},
        {"kernel time", test_kernel_time},
        CU_TEST_INFO_NULL,
    };
    static CU_TestInfo figures[] = {
        {"percentiles", test_percentiles},
        {"few records", test_few},
        CU_TEST_INFO_NULL,
    };
    static CU_TestInfo reuse[] = {
        {"laps", test_laps},
        {"falling behind", test_behind},
        {"reused while it is read", test_reused_while_read},
        {"beside its owner", test_beside_its_owner},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {
        {"spans", NULL, NULL, NULL, NULL, spans},
        {"figures", NULL, NULL, NULL, NULL, figures},
        {"reuse", NULL, NULL, NULL, NULL, reuse},
        CU_SUITE_INFO_NULL,
    };

    return unit_run(suites);
}
