/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/e2e_loopback.h"

#include "shm/atomic.h"
#include "stage/cpu.h"
#include "stage/wait.h"
#include "tests/bench/e2e_socket.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PACE_NS = 10000, TIMEOUT_NS = 1000000000 };

struct loopback {
    int in;
    int out;
    uint64_t warm;
    uint64_t rounds;
    _Atomic uint64_t taken; /* by the receiver, which pairs with await() */
    uint32_t samples[];
};

static struct loopback *open_loopback(const struct bench *bench)
{
    uint64_t rounds = bench->quick ? 20000 : 200000;
    struct loopback *loopback = bench_shared(sizeof(*loopback) + rounds * sizeof(uint32_t));
    uint16_t port = 0;

    loopback->rounds = rounds;
    loopback->warm = rounds / 10;
    loopback->in = e2e_socket_bound(true, &port);
    loopback->out = e2e_socket_connected(port);
    return loopback;
}

static int close_loopback(const struct bench *bench, struct loopback *loopback, int err,
                          struct bench_result *result)
{
    close(loopback->in);
    close(loopback->out);
    if (err < 0)
        return bench_fail(result, err, "loopback: %s", strerror(-err));
    bench_spread(bench, result, loopback->samples, loopback->rounds, 1);
    return 0;
}

/* The request carries the time it was sent at. */
static int send_now(struct loopback *loopback, uint64_t *began)
{
    char request[23] = {0};

    *began = tsc_read();
    memcpy(request, began, sizeof(*began));
    return send(loopback->out, request, sizeof(request), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno
                                                                                          : 0;
}

static void note_sample(struct loopback *loopback, uint64_t round, uint64_t ticks)
{
    if (round >= loopback->warm)
        loopback->samples[round - loopback->warm] = bench_ticks32(ticks);
}

int loopback_one(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    struct loopback *loopback = open_loopback(bench);
    char reply[64];

    (void)parameter;
    int err = cpu_pin(bench->cpu[1]);
    for (uint64_t i = 0; err == 0 && i < loopback->rounds + loopback->warm; i++) {
        uint64_t began;
        err = send_now(loopback, &began);
        if (err == 0 && e2e_socket_take(loopback->in, reply, sizeof(reply)) < 0)
            err = -errno;
        note_sample(loopback, i, tsc_read() - began);
    }
    return close_loopback(bench, loopback, err, result);
}

static int receive(void *argument)
{
    struct loopback *loopback = argument;
    char request[64];
    uint64_t began;

    for (uint64_t i = 0; i < loopback->rounds + loopback->warm; i++) {
        while (e2e_socket_take(loopback->in, request, sizeof(request)) < 0) {
        }
        uint64_t now = tsc_read();
        memcpy(&began, request, sizeof(began));
        note_sample(loopback, i, now - began);
        store_release(&loopback->taken, i + 1);
    }
    return 0;
}

/* Until the receiver has it, and a moment more, as at a rate that is no strain. */
static int await(const struct bench *bench, struct loopback *loopback, uint64_t count,
                 uint64_t began)
{
    uint64_t pace = clock_ticks(&bench->clock, PACE_NS);
    uint64_t patience = clock_ticks(&bench->clock, TIMEOUT_NS);

    while (load_acquire(&loopback->taken) < count || tsc_read() - began < pace) {
        if (tsc_read() - began > patience)
            return -ETIMEDOUT;
        wait_pause();
    }
    return 0;
}

int loopback_two(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    int err = 0;

    (void)parameter;
    if (bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    struct loopback *loopback = open_loopback(bench);
    pid_t child = bench_child(bench->cpu[1], receive, loopback);
    for (uint64_t i = 0; err == 0 && i < loopback->rounds + loopback->warm; i++) {
        uint64_t began;
        err = send_now(loopback, &began);
        if (err == 0)
            err = await(bench, loopback, i + 1, began);
    }
    if (err < 0)
        kill(child, SIGKILL);
    int waited = bench_wait(child);
    return close_loopback(bench, loopback, err < 0 ? err : waited, result);
}
