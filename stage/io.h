/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O helper: datagrams in and out, by plain system calls or by io_uring, behind one interface.
 *
 * Which of the two is used is decided once, at open, and named with its reason: `io = auto` takes
 * plain calls where they are known to win (one socket in, one datagram a turn out) and io_uring
 * where many sockets would each cost a call a turn; a ring that the host refuses is reported as
 * what it is. The ring is set up with SINGLE_ISSUER and DEFER_TASKRUN: without the latter a busy
 * loop spends its time in interrupts of its own making.
 *
 * Nothing here blocks except receiver_park(). Errors are -errno. One thread.
 */
#ifndef TICKLINE_STAGE_IO_H
#define TICKLINE_STAGE_IO_H

#include "stage/config.h"

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct io_choice {
    bool uring;
    const char *why;
};

/* `asked` uring where the host has none: -ENOSYS or what io_uring_setup answered; `why` says it. */
int io_choose(enum config_io asked, uint32_t sockets, struct io_choice *choice);

/* ---- receiving ---- */

enum { RECEIVER_SOCKETS_MAX = CONFIG_ENDPOINTS_MAX, RECEIVER_DATAGRAM_MAX = 65535 };

/* One datagram; the bytes stay valid until the next receiver_poll. */
struct received {
    const uint8_t *data;
    uint32_t length;
    uint16_t socket;    /* index of the socket it came to */
    uint16_t source;    /* its sender's address and port, folded; 0 where not asked for */
    uint64_t kernel_ns; /* REALTIME at which the kernel took it from the interface; 0: none given */
    const struct sockaddr *name; /* that address and port; NULL where not asked for */
};

struct receiver;

/*
 * A datagram that the kernel has handed over exists nowhere else. So the buffers, and what the kernel
 * writes about them, stand in a region of shared memory, and a successor finishes the batch that a
 * killed process had begun: nothing is lost. (stage/receiver_memory.h says how.)
 */
struct receiver_plan {
    bool uring;
    bool sources; /* tell senders apart: a little dearer */
    bool huge;    /* 2 MiB pages for the buffers where they can be had */
    const int *sockets;
    uint32_t count;
    uint32_t buffers; /* of the ring, a power of two */
    uint32_t burst;
    uint64_t epoch; /* of the launch; 0: any */
    int memory;     /* a predecessor's region, which becomes the receiver's; -1: make one */
};

/* Where a batch begins. */
struct receiver_mark {
    uint64_t tag;       /* what the caller said at the poll that took it */
    uint64_t datagrams; /* all received before it */
    uint64_t bytes;
};

/* Takes over reading from the sockets, which stay the caller's. Receives nothing yet. */
int receiver_open(struct receiver **receiver, const struct receiver_plan *plan);

/* Descriptor of the region; the receiver's. */
int receiver_memory(const struct receiver *receiver);

/*
 * After receiver_open with a predecessor's memory, before the first poll: how many datagrams it had
 * taken and not given back, perhaps none; `mark` is where they begin. They are the current batch.
 */
uint32_t receiver_recover(struct receiver *receiver, struct receiver_mark *mark,
                          struct received **batch);

/* For the account of a dead receiver without a successor: datagrams that it had taken from the kernel,
 * by its region. 0 or -errno. */
int receiver_taken(int memory, uint64_t *datagrams);

/*
 * Gives the last batch back and takes up to `burst` datagrams of this moment; 0: none. `tag` is what
 * the caller wants to be told by receiver_recover, were it killed before the next call.
 */
int receiver_poll(struct receiver *receiver, uint64_t tag, struct received **batch);

/* Sleeps until a datagram waits or `ns` have passed. */
void receiver_park(struct receiver *receiver, uint64_t ns);

void receiver_close(struct receiver *receiver);

/* ---- sending ---- */

struct sender;

int sender_open(struct sender **sender, bool uring, int socket, uint32_t depth);

/*
 * Hands one datagram to the kernel; `data` must stay until sender_reap has returned its `tag`. 1:
 * it is complete already (plain calls). 0: in flight. -EAGAIN: no room now. Another -errno: this
 * datagram cannot be sent.
 */
int sender_send(struct sender *sender, const void *data, uint32_t length, uint64_t tag);

/* Submits what sender_send has queued; plain calls have nothing to submit. */
int sender_submit(struct sender *sender);

/* Next completion: 1 and its tag and result (bytes or -errno), or 0: none yet. */
int sender_reap(struct sender *sender, uint64_t *tag, int *result);

void sender_close(struct sender *sender);

#endif
