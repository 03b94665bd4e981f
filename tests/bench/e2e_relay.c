/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limit of a TCP gateway in user space: one process that spins on a receive and sends on what it
 * got, on a second connection (relay) or on the same one (echo).
 */
#include "shm/atomic.h"
#include "tests/bench/e2e_stream.h"
#include "tests/bench/e2e_system.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* One receive in so many is timed, so that the clock costs nothing on average. */
enum { TIMED = 16, TIMES_MAX = 1 << 18, TAKEN_MAX = 65536, CONNECT_MS = 5000 };

struct relay {
    int listener;
    uint16_t to; /* 0: back to where it came from */
    _Atomic uint32_t stop;
    /* by the child, read when it has ended */
    uint64_t received; /* bytes */
    uint64_t transmitted;
    uint64_t times;
    uint32_t time[TIMES_MAX]; /* ticks of a receive that got something and its send */
};

static int carry(struct relay *relay, int in, int out)
{
    static uint8_t data[TAKEN_MAX];

    for (uint64_t turn = 0;;) {
        bool timed = turn % TIMED == 0 && relay->times < TIMES_MAX;
        uint64_t began = timed ? tsc_read() : 0;
        ssize_t got = recv(in, data, sizeof(data), MSG_DONTWAIT);
        if (got == 0)
            return 0;
        if (got < 0) {
            if (load_relaxed(&relay->stop))
                return 0;
            continue;
        }
        turn++;
        relay->received += (uint64_t)got;
        if (!e2e_stream_send(out, data, (size_t)got))
            return 1;
        relay->transmitted += (uint64_t)got;
        if (timed)
            relay->time[relay->times++] = bench_ticks32(tsc_read() - began);
    }
}

static int act(void *argument)
{
    struct relay *relay = argument;
    int in = e2e_stream_accepted(relay->listener, CONNECT_MS);
    int out = relay->to ? e2e_stream_connected(relay->to, CONNECT_MS) : in;

    return in < 0 || out < 0 ? 1 : carry(relay, in, out);
}

static int start_relay(struct system *system, struct bench_result *result)
{
    struct relay *relay = bench_shared(sizeof(*relay));

    system->relay = relay;
    relay->to = system->to;
    relay->listener = e2e_stream_listening(&system->port);
    if (relay->listener < 0)
        return bench_fail(result, relay->listener, "the relay's socket cannot be made");
    system->pid = bench_child(system->bench->cpu[1], act, relay);
    return 0;
}

static int finish(struct system *system, struct bench_result *result)
{
    struct relay *relay = system->relay;
    struct bench_result time;

    store_relaxed(&relay->stop, 1u);
    int err = bench_wait(system->pid);
    system->pid = 0;
    close(relay->listener);
    if (err < 0)
        return bench_fail(result, err, "the relay failed");
    system->account = (struct system_account){
        .known = true,
        .received = relay->received / E2E_STREAM_BYTES,
        .transmitted = relay->transmitted / E2E_STREAM_BYTES,
    };
    if (relay->times) {
        bench_spread(system->bench, &time, relay->time, relay->times, 1);
        system->account.work_ns = time.p50;
    }
    return 0;
}

const struct system_kind system_relay = {
    .reply = "abcdefgh", .way = CLIENT_TCP, .start = start_relay, .finish = finish};

const struct system_kind system_echo = {
    .reply = "abcdefgh", .way = CLIENT_TCP_REPLY, .start = start_relay, .finish = finish};
