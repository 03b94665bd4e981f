/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel has for waking a process that sleeps, beside our hop/park: pipe, eventfd, unix
 * socket (SOCK_SEQPACKET), futex.
 *
 * A hop is from just before the producer's call to the return of the consumer's, which has slept. The
 * next one follows when the consumer has said that it goes to sleep again: on one CPU when it has
 * given the CPU back, on two GAP_NS later, so that its CPU is idle by then. `waker_ns` is what the
 * call costs the producer (p50); on one CPU the consumer's turn is in it where the kernel switches
 * at once.
 */
#include "stage/cpu.h"
#include "stage/wait.h"
#include "tests/bench/bench.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GAP_NS = 50000, WARM_HOPS = 100 };

enum way { PIPE, EVENTFD, UNIX, FUTEX };

struct kind {
    enum way way;
    bool one; /* both processes on one CPU */
};

struct shared {
    enum way way;
    int wake_fd; /* the producer's end, but for the futex */
    int sleep_fd;
    uint64_t hops;
    uint32_t *samples;                                 /* the consumer's */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t asleep; /* consumer: before which hop it sleeps */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t rung;   /* producer: tsc before the call */
    _Atomic uint32_t bell;                             /* producer: the futex, counts hops */
};

static int open_way(struct shared *shared)
{
    int ends[2];
    int err = 0;

    switch (shared->way) {
    case PIPE:
        err = pipe(ends);
        break;
    case UNIX:
        err = socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends);
        break;
    case EVENTFD:
        ends[0] = ends[1] = err = eventfd(0, 0);
        break;
    case FUTEX:
    default:
        ends[0] = ends[1] = -1;
    }
    if (err < 0)
        return -errno;
    shared->sleep_fd = ends[0];
    shared->wake_fd = ends[1];
    return 0;
}

static void close_way(const struct shared *shared)
{
    if (shared->way == FUTEX)
        return;
    close(shared->sleep_fd);
    if (shared->wake_fd != shared->sleep_fd)
        close(shared->wake_fd);
}

static bool ring_bell(struct shared *shared, uint64_t hop)
{
    if (shared->way == FUTEX) {
        store_release(&shared->bell, (uint32_t)hop);
        return syscall(SYS_futex, &shared->bell, FUTEX_WAKE, 1, NULL, NULL, 0) >= 0;
    }
    return write(shared->wake_fd, &hop, sizeof(hop)) == sizeof(hop);
}

static bool sleep_until(struct shared *shared, uint64_t hop)
{
    uint64_t message;

    if (shared->way != FUTEX)
        return read(shared->sleep_fd, &message, sizeof(message)) == sizeof(message);
    while (load_acquire(&shared->bell) != (uint32_t)hop)
        (void)syscall(SYS_futex, &shared->bell, FUTEX_WAIT, (uint32_t)hop - 1, NULL, NULL, 0);
    return true;
}

static int consume(void *argument)
{
    struct shared *shared = argument;

    for (uint64_t hop = 1; hop <= shared->hops; hop++) {
        store_release(&shared->asleep, hop);
        if (!sleep_until(shared, hop))
            return 1;
        uint64_t now = tsc_read();
        shared->samples[hop - 1] = bench_ticks32(now - load_relaxed(&shared->rung));
    }
    return 0;
}

/* Until the consumer sleeps before `hop`. */
static void await_sleep(const struct bench *bench, const struct shared *shared, uint64_t hop,
                        bool one)
{
    while (load_acquire(&shared->asleep) != hop) {
        if (one)
            sched_yield();
        else
            wait_pause();
    }
    /* It may have been interrupted between saying so and doing so. */
    if (one)
        sched_yield();
    uint64_t until = tsc_read() + (one ? 0 : clock_ticks(&bench->clock, GAP_NS));
    while (tsc_read() < until)
        wait_pause();
}

static int produce(const struct bench *bench, struct shared *shared, bool one, uint32_t *costs)
{
    for (uint64_t hop = 1; hop <= shared->hops; hop++) {
        await_sleep(bench, shared, hop, one);
        uint64_t began = tsc_read();
        store_relaxed(&shared->rung, began);
        if (!ring_bell(shared, hop))
            return -errno;
        costs[hop - 1] = bench_ticks32(tsc_read() - began);
    }
    return 0;
}

static struct shared *make(const struct bench *bench, const struct kind *kind)
{
    const uint64_t slow = bench->quick ? 2000 : 20000;
    struct shared *shared = bench_shared(sizeof(*shared));

    shared->way = kind->way;
    shared->hops = WARM_HOPS + (kind->one ? 10 * slow : slow);
    shared->samples = bench_shared(shared->hops * sizeof(*shared->samples));
    return shared;
}

static int run_hop(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    const struct kind *kind = parameter;
    struct shared *shared = make(bench, kind);
    uint32_t *costs = bench_shared(shared->hops * sizeof(*costs));
    struct bench_result waker = {0};

    if (!kind->one && bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    int err = open_way(shared);
    if (err < 0)
        return bench_fail(result, err, "cannot be opened: %s", strerror(-err));
    pid_t child = bench_child(bench->cpu[1], consume, shared);
    if (kind->one)
        err = cpu_pin(bench->cpu[1]);
    if (err == 0)
        err = produce(bench, shared, kind->one, costs);
    if (err < 0)
        kill(child, SIGKILL); /* it would sleep for ever */
    close_way(shared);
    int waited = bench_wait(child);
    if (err < 0 || waited < 0)
        return err < 0 ? err : waited;
    uint64_t count = shared->hops - WARM_HOPS;
    bench_spread(bench, result, shared->samples + WARM_HOPS, count, 1);
    bench_spread(bench, &waker, costs + WARM_HOPS, count, 1);
    bench_extra(result, "waker_ns", waker.p50);
    return 0;
}

#define HOP(way, one_cpu)                                                                          \
    run_hop, &(const struct kind)                                                                  \
    {                                                                                              \
        way, one_cpu                                                                               \
    }

static const struct bench_case cases[] = {
    {"peer/pipe/hop/park/one", HOP(PIPE, true)},
    {"peer/pipe/hop/park/two", HOP(PIPE, false)},
    {"peer/eventfd/hop/park/one", HOP(EVENTFD, true)},
    {"peer/eventfd/hop/park/two", HOP(EVENTFD, false)},
    {"peer/unix/hop/park/one", HOP(UNIX, true)},
    {"peer/unix/hop/park/two", HOP(UNIX, false)},
    {"peer/futex/hop/park/one", HOP(FUTEX, true)},
    {"peer/futex/hop/park/two", HOP(FUTEX, false)},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
