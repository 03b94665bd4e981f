/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of rx.source = tcp: what its files share.
 *
 *   tcp.c         turns: which connections are looked at
 *   tcp_serve.c   a look at one: requests found and put, and a read
 *   tcp_accept.c  listening sockets, new connections, what a killed rx has left
 *   tcp_end.c     how a connection ends and its place becomes free
 *   tcp_memory.c  what outlives rx
 */
#ifndef TICKLINE_RX_TCP_OWN_H
#define TICKLINE_RX_TCP_OWN_H

#include "rx/rx_own.h"
#include "rx/socket.h"
#include "rx/tcp_memory.h"

/* In epoll's data: from here on it is the number of a listening socket, not a place. */
enum { TCP_LISTENER = 1 << 16 };

/* What one turn at a place came to. */
enum served {
    SERVED_DRY,   /* nothing more is there */
    SERVED_AGAIN, /* something may be */
    SERVED_FULL,  /* the worker's ring has no room */
};

/* This process's own of a place. */
struct tcp_connection {
    int fd;
    uint32_t needed; /* bytes from which on the next look at them is worth it */
    uint64_t heard;  /* tsc of the last read (rx.idle) */
    bool live;
    bool queued;
    bool to_the_end; /* a read that brings less than it could is not the last one */
    bool failed;     /* the last read found an error */
};

/* Places first in, first out. */
struct tcp_queue {
    uint32_t head;
    uint32_t count;
    uint16_t place[CONNECTIONS_MAX];
};

struct tcp {
    struct tcp_memory memory;
    struct connections *table;
    struct tcp_connection connection[CONNECTIONS_MAX];
    struct tcp_queue ready; /* worth a look */
    uint32_t live_count;    /* open ones */
    uint16_t live[CONNECTIONS_MAX];
    uint32_t leaving_count; /* ended ones, whose place is not free yet */
    uint16_t leaving[CONNECTIONS_MAX];
    uint32_t free_count;
    uint16_t free[CONNECTIONS_MAX]; /* the last one is next */
    uint64_t number;                /* of the newest connection */
    int epoll;
    uint32_t listeners;
    int listener[SOCKETS_MAX];
    uint32_t
        pending;  /* place of the accepted one that the launcher has not taken yet; TCP_NOWHERE */
    bool answers; /* tx.sink = reply: a place is free when tx says so, too */
    bool quickack;
    uint64_t idle_ticks; /* 0: never */
    uint32_t turns;
    uint32_t
        moved; /* in this turn: requests put, reads that brought something or an end, new ones */
    uint64_t held; /* bytes received, of no request yet */
};

/* ---- tcp.c ---- */

/* A look at this place is worth it. */
void tcp_wake(struct tcp *tcp, uint32_t place);

/* ---- tcp_serve.c ---- */

/* Puts what stands whole at the place, reads once, puts what that brought. */
enum served tcp_serve(struct stage *stage, struct rx *rx, uint32_t place);

/* Puts the first `length` bytes at the place as a request, which `frame` describes. 0 or -EAGAIN. */
int tcp_put(struct stage *stage, struct rx *rx, uint32_t place, const struct frame *frame,
            uint32_t length);

/* ---- tcp_accept.c ---- */

/* Listening sockets and epoll; those of a predecessor where there are some. 0 or -errno, said. */
int tcp_listen(struct stage *stage, struct tcp *tcp);

/* Takes new connections, a bounded number of them. */
void tcp_accept(struct stage *stage, struct rx *rx, uint32_t listener);

/* Tries to leave the accepted one with the launcher, and opens it. */
void tcp_deposit(struct stage *stage, struct rx *rx);

/* The connections of a predecessor go on; without one all places are free. 0 or -errno, said. */
int tcp_take_over(struct stage *stage, struct rx *rx);

/* ---- tcp_end.c ---- */

/*
 * The connection will end so. Of the bytes that are left the first `length` are one malformed request, which is
 * put before; the others are of none. Nothing is read any more.
 */
void tcp_doom(struct tcp *tcp, uint32_t place, enum connection_figure fate, uint32_t length);

/* Ends it, once what is left is put. SERVED_FULL: not yet. */
enum served tcp_end(struct stage *stage, struct rx *rx, uint32_t place);

/* Frees the places of ended ones that nobody needs any more. */
void tcp_free(struct stage *stage, struct tcp *tcp);

/* rx.idle: dooms those that have been silent for too long. */
void tcp_mind_idle(struct tcp *tcp, uint64_t now);

#endif
