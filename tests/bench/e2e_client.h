/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open-loop client: requests leave at the times of a schedule whatever became of those before,
 * and a latency counts from the time a request was meant to leave. So what a stall delays shows,
 * however late its own send was.
 *
 * A request over UDP is v1, |NNNNNNNN|0008|abcdefgh; over TCP it is v2, of 64 bytes. Its number finds its
 * intended time again. The client spins on the CPU of its caller: it sends when a time has come, and
 * else polls for replies.
 */
#ifndef TICKLINE_TESTS_BENCH_E2E_CLIENT_H
#define TICKLINE_TESTS_BENCH_E2E_CLIENT_H

#include "tests/bench/bench.h"

/* How requests go and replies come. */
enum client_way {
    CLIENT_UDP,       /* a datagram each, to one port and from another */
    CLIENT_TCP,       /* on one connection of ours, back on one that we accept */
    CLIENT_TCP_REPLY, /* both on the one */
};

enum { E2E_STREAM_BYTES = 64, E2E_REQUEST_MAX = 64 };

struct client {
    const struct bench *bench;
    enum client_way way;
    uint32_t bytes;                 /* of a request, and of a reply */
    uint32_t header;                /* of them */
    uint8_t right[E2E_REQUEST_MAX]; /* a reply as it must be, but for its number */
    int listener;
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
    /* of a stream: what came of the reply that is not whole yet */
    uint32_t held;
    uint8_t part[16 * 1024];
};

/* Opens the receiving socket, with room for `capacity` requests; the payload of a right reply is these 8
 * bytes, over and over. 0 or -errno. */
int client_open(struct client *client, const struct bench *bench, enum client_way way,
                const char *payload, uint32_t capacity);

/* Where requests go: 127.0.0.1:port. Of a stream: waits at most 5 s until all of it is connected. 0 or
 * -errno. */
int client_connect(struct client *client, uint16_t port);

/* UDP: asks every 10 ms until a reply comes; neither side of it is counted. -ETIMEDOUT after 5 s. */
int client_await(struct client *client);

/* `warm` requests and then `measured` ones at `rate` a second. */
void client_run(struct client *client, double rate, uint32_t warm, uint32_t measured);

/* UDP: as many as can be sent in `ns`, in bursts; how many replies came meanwhile, and in how many ticks.
 * Then it settles. */
uint64_t client_top(struct client *client, uint64_t ns, uint64_t *ticks);

/* Takes replies until all are there, or none came for 200 ms (5 s of a stream). */
void client_settle(struct client *client);

/* Datagrams that our own receive buffer had no room for. */
uint64_t client_drops(const struct client *client);

/* Latencies of the measured requests that were answered, gathered at the front of `answered`. */
uint64_t client_latencies(struct client *client);

void client_close(struct client *client);

#endif
