/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limit of a forwarder in user space: one process that spins on a receive and sends what it got
 * on a connected socket, with the options of the pipeline's sockets.
 */
#include "shm/atomic.h"
#include "tests/bench/e2e_socket.h"
#include "tests/bench/e2e_system.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

/* One request in so many is timed, so that the clock costs nothing on average. */
enum { TIMED = 16, TIMES_MAX = 1 << 18, DATAGRAM_MAX = 65536 };

struct forwarder {
    int in;
    int out;
    _Atomic uint32_t stop;
    /* by the child, read when it has ended */
    uint64_t received;
    uint64_t transmitted;
    uint64_t times;
    uint32_t time[TIMES_MAX]; /* ticks of a receive that got something and its send */
};

static int forward(void *argument)
{
    static uint8_t data[DATAGRAM_MAX];
    struct forwarder *forwarder = argument;

    for (;;) {
        bool timed = forwarder->received % TIMED == 0 && forwarder->times < TIMES_MAX;
        uint64_t began = timed ? tsc_read() : 0;
        int got = e2e_socket_take(forwarder->in, data, sizeof(data));
        if (got < 0) {
            if (load_relaxed(&forwarder->stop))
                return 0;
            continue;
        }
        forwarder->received++;
        if (send(forwarder->out, data, (size_t)got, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            forwarder->transmitted++;
        if (timed)
            forwarder->time[forwarder->times++] = bench_ticks32(tsc_read() - began);
    }
}

static int start(struct system *system, struct bench_result *result)
{
    struct forwarder *forwarder = bench_shared(sizeof(*forwarder));

    system->forwarder = forwarder;
    forwarder->in = e2e_socket_bound(true, &system->port);
    forwarder->out = e2e_socket_connected(system->to);
    if (forwarder->in < 0 || forwarder->out < 0)
        return bench_fail(result, forwarder->in < 0 ? forwarder->in : forwarder->out,
                          "the forwarder's sockets cannot be made");
    system->pid = bench_child(system->bench->cpu[1], forward, forwarder);
    return 0;
}

static int finish(struct system *system, struct bench_result *result)
{
    struct forwarder *forwarder = system->forwarder;
    struct bench_result time;

    store_relaxed(&forwarder->stop, 1u);
    int err = bench_wait(system->pid);
    system->pid = 0;
    if (err < 0)
        return bench_fail(result, err, "the forwarder failed");
    system->account = (struct system_account){
        .known = true,
        .socket_drops = e2e_socket_drops(forwarder->in),
        .received = forwarder->received,
        .dropped = forwarder->received - forwarder->transmitted,
        .transmitted = forwarder->transmitted,
    };
    if (forwarder->times) {
        bench_spread(system->bench, &time, forwarder->time, forwarder->times, 1);
        system->account.work_ns = time.p50;
    }
    close(forwarder->in);
    close(forwarder->out);
    return 0;
}

const struct system_kind system_forwarder = {
    .reply = "abcdefgh",
    .start = start,
    .finish = finish,
};
