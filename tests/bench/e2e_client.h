/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open-loop client: requests leave at the times of a schedule whatever became of those before,
 * and a latency counts from the time a request was meant to leave. So what a stall delays shows,
 * however late its own send was.
 *
 * A request is v1, |NNNNNNNN|0008|abcdefgh, and its number finds its intended time again. The
 * client spins on the CPU of its caller: it sends when a time has come, and else polls for replies.
 */
#ifndef TICKLINE_TESTS_BENCH_E2E_CLIENT_H
#define TICKLINE_TESTS_BENCH_E2E_CLIENT_H

#include "tests/bench/bench.h"

struct client {
    const struct bench *bench;
    const char *payload; /* of a right reply, 8 bytes */
    int in;
    int out;
    uint16_t port;      /* where replies are expected */
    uint32_t *answered; /* by number: latency in ticks (top: 1); 0: no reply yet */
    uint32_t capacity;
    /* the schedule */
    uint64_t start;
    double interval; /* ticks; 0: there is none */
    uint32_t first;  /* number of the first measured request; those before it warm up */
    /* what happened, warm-up and all */
    uint64_t sent;
    uint64_t delivered;
    uint64_t
        corrupted; /* replies that are wrong, or answer what was not asked or has been answered */
    uint64_t late; /* measured sends that began more than 1 µs after their time */
};

/* Opens the receiving socket, with room for `capacity` requests. 0 or -errno. */
int client_open(struct client *client, const struct bench *bench, const char *payload,
                uint32_t capacity);

/* Where requests go: 127.0.0.1:port. 0 or -errno. */
int client_connect(struct client *client, uint16_t port);

/* Asks every 10 ms until a reply comes; neither side of it is counted. -ETIMEDOUT after 5 s. */
int client_await(struct client *client);

/* `warm` requests and then `measured` ones at `rate` a second. */
void client_run(struct client *client, double rate, uint32_t warm, uint32_t measured);

/* As many as can be sent in `ns`, in bursts; how many replies came meanwhile, and in how many ticks.
 * Then it settles. */
uint64_t client_top(struct client *client, uint64_t ns, uint64_t *ticks);

/* Takes replies until all are there, or none came for 200 ms. */
void client_settle(struct client *client);

/* Datagrams that our own receive buffer had no room for. */
uint64_t client_drops(const struct client *client);

/* Latencies of the measured requests that were answered, gathered at the front of `answered`. */
uint64_t client_latencies(struct client *client);

void client_close(struct client *client);

#endif
