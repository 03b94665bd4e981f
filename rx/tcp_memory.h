/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of rx.source = tcp outlives rx: a buffer and a few positions for each place in the table of
 * connections, and a journal of what is under way. Bytes that the kernel has handed over exist nowhere else.
 *
 * Positions count the bytes received at a place, over all connections that ever stood there, and never run
 * back. What lies from `consumed` to `filled` is of no request yet; the byte at position p stands at offset
 * p - base of the buffer, so a request is always in one piece. The buffer is twice as large as the largest
 * request: what moves to its beginning, once the first half is consumed, lands beside itself.
 *
 *   read   place, before and number noted; recvmmsg, the kernel stores `msg_len` last;
 *          filled = before + msg_len; reads = number; msg_len = UNTAKEN
 *   put    place, end and count noted under the request's number; the number issued; the request published;
 *          consumed = end
 *
 * A system call that has begun is completed also where SIGKILL waits, so `msg_len` says what the kernel has
 * taken from the socket. Each step may be done again with the same result: a successor (tcp_memory_recover)
 * finishes the read and the put that its predecessor was killed in. Two entries for puts, of even and odd
 * numbers: that of request n is whole before n is issued, and stays until n + 1 is done with.
 *
 *   page 0 region header | page 1 journal | places | buffers
 *
 * One thread. No function blocks, allocates or makes a system call but tcp_memory_open.
 */
#ifndef TICKLINE_RX_TCP_MEMORY_H
#define TICKLINE_RX_TCP_MEMORY_H

#include "shm/connection.h"
#include "stage/kernel_stamp.h"

enum { TCP_UNTAKEN = UINT32_MAX, TCP_NOWHERE = UINT32_MAX };

struct tcp_place {
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t filled;
    _Atomic uint64_t consumed;  /* release, after `count` */
    _Atomic uint64_t base;      /* position of the buffer's first byte */
    _Atomic uint64_t count;     /* requests of this connection that are done with */
    _Atomic uint64_t kernel_ns; /* REALTIME of the newest read; 0: not known */
    /* how it ends (rx/tcp_end.c) */
    _Atomic uint64_t last;  /* end of a malformed request that is still to be put */
    _Atomic uint64_t tally; /* what its figure in the table becomes by it; 0: not counted */
    _Atomic uint64_t cut;   /* and `cut_bytes` there */
    _Atomic uint64_t freed; /* number of the connection that was the last to leave here */
    _Atomic uint32_t fate;  /* release, after `last`: enum connection_figure; 0: none */
};

struct tcp_put {
    _Atomic uint64_t request; /* release, after the others */
    _Atomic uint64_t end;
    _Atomic uint64_t count;
    _Atomic uint32_t place;
};

struct tcp_journal {
    struct tcp_put put[2];
    _Atomic uint32_t place; /* of the read */
    _Atomic uint64_t before;
    _Atomic uint64_t number;
    _Atomic uint64_t reads; /* done */
    struct mmsghdr
        message; /* the addresses in it are of one process; what the kernel wrote stays */
    uint8_t control[KERNEL_STAMP_BYTES];
};

struct tcp_memory {
    struct region region;
    struct tcp_journal *journal;
    struct tcp_place *place;
    uint8_t *buffers;
    uint32_t places;
    uint32_t bytes; /* of the largest request */
    struct iovec iov;
};

/* `fd` -1: makes one. Else a predecessor's, which becomes the memory's. 0 or -errno. */
int tcp_memory_open(struct tcp_memory *memory, uint32_t places, uint32_t bytes, uint64_t epoch,
                    bool huge, int fd);

void tcp_memory_close(struct tcp_memory *memory);

/*
 * For a successor, before anything else: requests 1 … `done` are published. The place whose request is to be
 * put next, under the number that it may have already; TCP_NOWHERE: any.
 */
uint32_t tcp_memory_recover(struct tcp_memory *memory, uint64_t done);

/* Bytes of no request yet, and where they begin. */
static inline uint32_t tcp_available(const struct tcp_place *place)
{
    return (uint32_t)(load_relaxed(&place->filled) - load_relaxed(&place->consumed));
}

const uint8_t *tcp_bytes(const struct tcp_memory *memory, uint32_t index);

/* Before a recvmmsg with journal->message: makes room at this place, for one whole request at least where it
 * holds the beginning of one. The most that it will bring. */
uint32_t tcp_read_begin(struct tcp_memory *memory, uint32_t index);

/* After it: the bytes it brought; 0 where it brought none. */
uint32_t tcp_read_end(struct tcp_memory *memory);

/* Around rx_put: the first `length` bytes at the place are request number `request`. */
void tcp_put_begin(struct tcp_memory *memory, uint32_t index, uint64_t request, uint32_t length);
void tcp_put_end(struct tcp_memory *memory, uint64_t request);

/* Another connection begins here: nothing is left of the one before. */
void tcp_place_clear(struct tcp_place *place);

#endif
