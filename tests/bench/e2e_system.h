/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands between the client's two sockets: it receives at a port of 127.0.0.1 and sends what it
 * makes of it to another one, or back on the same connection. All of it runs on bench->cpu[1], but for what a pipeline
 * keeps away from its stages.
 */
#ifndef TICKLINE_TESTS_BENCH_E2E_SYSTEM_H
#define TICKLINE_TESTS_BENCH_E2E_SYSTEM_H

#include "tests/bench/bench.h"
#include "tests/bench/e2e_child.h"
#include "tests/bench/e2e_client.h"

/* What a system knows of the requests it was sent. */
struct system_account {
    bool known;
    uint64_t socket_drops; /* its receive buffer was full */
    uint64_t received;
    uint64_t dropped; /* inside of it, counted with a reason */
    uint64_t transmitted;
    double work_ns;           /* median of one receive and send; 0: not known */
    uint64_t rotation_mended; /* tries to put the turns of its stages right */
    bool rotation_wrong;      /* at the end they still were not */
};

struct system {
    const struct bench *bench;
    const struct system_kind *kind;
    uint16_t port; /* where it receives; set by start */
    uint16_t to;   /* where it sends; 0: back on the connection */
    pid_t pid;
    struct system_account account;
    struct e2e_folder folder; /* of a program that writes files */
    int commands;             /* pipeline: its stdin and stdout */
    int events;
    struct forwarder *forwarder;
    struct relay *relay;
};

struct system_kind {
    const char *reply; /* payload of the reply to `abcdefgh` */
    enum client_way way;
    bool awaited; /* UDP: it does not say when it is ready: ask until it answers */

    /* Sets the port and starts it. 0, or -errno said in the result's note. */
    int (*start)(struct system *system, struct bench_result *result);

    /* Lets it finish what is under way and fills in the account. 0, or -errno said in the note. */
    int (*finish)(struct system *system, struct bench_result *result);
};

extern const struct system_kind system_forwarder; /* one process of ours that spins */
extern const struct system_kind system_pipeline;  /* tickline run configs/isolated.ini */
extern const struct system_kind system_nginx;
extern const struct system_kind system_socat;
/* over TCP */
extern const struct system_kind system_relay;        /* one process of ours that spins */
extern const struct system_kind system_echo;         /* the same, back on the same connection */
extern const struct system_kind system_gateway;      /* tickline run, rx.source and tx.sink tcp */
extern const struct system_kind system_answering;    /* the same with tx.sink = reply */
extern const struct system_kind system_haproxy;      /* as it comes */
extern const struct system_kind system_haproxy_busy; /* with busy-polling */
extern const struct system_kind system_nginx_tcp;

/* 0, or -errno said in the note; system_close is due in both cases. */
int system_start(struct system *system, const struct bench *bench, const struct system_kind *kind,
                 uint16_t to, struct bench_result *result);
int system_finish(struct system *system, struct bench_result *result);

/* Ends what still runs and gives everything back. */
void system_close(struct system *system);

#endif
