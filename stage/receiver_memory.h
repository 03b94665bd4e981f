/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the receiver: what outlives its process, and the parts that both ways of receiving share.
 * For receiver*.c alone.
 *
 * The region holds a journal and the buffers. A batch goes through three phases, all in one word that is
 * stored with release:
 *
 *   TAKING  buffers that are marked untaken are empty; all others hold datagrams of this batch
 *           (plain calls), or datagrams that no batch has yet (io_uring)
 *   HELD    io_uring alone: the batch is what `order` says
 *   SPENT   the caller is done with the batch: its buffers are being marked untaken again
 *
 * "Taken" is written by the kernel itself: plain calls store msg_len last, io_uring the header of the
 * buffer. A system call that has begun is completed also where SIGKILL waits (nothing here sleeps or
 * faults), so what the kernel took from the socket is known to the last datagram.
 *
 *   page 0 region header | page 1 journal, order | messages (plain) | buffers
 */
#ifndef TICKLINE_STAGE_RECEIVER_MEMORY_H
#define TICKLINE_STAGE_RECEIVER_MEMORY_H

#include "shm/region.h"
#include "stage/io.h"
#include "stage/kernel_stamp.h"

enum {
    CONTROL_BYTES = KERNEL_STAMP_BYTES,
    NAME_BYTES = 32, /* room for a struct sockaddr_in6 */
    /* Not a power of two, so that the starts of the buffers do not compete for the same cache sets.
     */
    BUFFER_BYTES = 65536 + 256 + CONTROL_BYTES + NAME_BYTES,
    UNTAKEN = UINT32_MAX, /* as a length: longer than any datagram */
};

enum receiver_phase { RECEIVER_TAKING, RECEIVER_HELD, RECEIVER_SPENT, RECEIVER_PHASES };

/* Plain: the messages from `first` on came from `socket`. io_uring: buffer `first` came from it. */
struct receiver_order {
    uint16_t first;
    uint16_t socket;
};

struct receiver_journal {
    _Atomic uint64_t batch; /* number * RECEIVER_PHASES + phase */
    /* Of the batches with even and odd numbers: the next one's is written while this one still holds. */
    struct receiver_mark mark[2];
    _Atomic uint64_t made;  /* 1: all buffers were marked untaken once */
    _Atomic uint64_t count; /* in `order` */
    struct receiver_order order[];
};

struct receiver {
    bool uring;
    bool sources;
    uint32_t sockets;
    uint32_t burst;
    uint32_t buffers;
    uint32_t held; /* datagrams of the current batch */
    uint64_t held_bytes;
    struct region region;
    struct receiver_journal *journal;
    uint8_t *memory; /* the buffers */
    struct received *batch;
    int socket[RECEIVER_SOCKETS_MAX];

    /* plain */
    int epoll; /* -1 with a single socket */
    struct mmsghdr *messages;
    struct iovec *iovs;

    /* io_uring */
    struct io_uring ring;
    struct io_uring_buf_ring *buf_ring;
    struct msghdr template;
    bool armed[RECEIVER_SOCKETS_MAX];
};

static inline uint8_t *buffer_at(const struct receiver *receiver, uint32_t index)
{
    return receiver->memory + (size_t)index * BUFFER_BYTES;
}

static inline uint64_t batch_number(const struct receiver *receiver)
{
    return load_relaxed(&receiver->journal->batch) / RECEIVER_PHASES;
}

static inline void enter_phase(struct receiver *receiver, uint64_t number,
                               enum receiver_phase phase)
{
    store_release(&receiver->journal->batch, number * RECEIVER_PHASES + phase);
}

/* Adds a datagram to the current batch. */
static inline void hold(struct receiver *receiver, uint32_t index, const struct received *datagram)
{
    receiver->batch[index] = *datagram;
    receiver->held = index + 1;
    receiver->held_bytes += datagram->length;
}

/* The batch is done with: its number grows by one. `clear` marks its buffers untaken. */
void receiver_spend(struct receiver *receiver, uint64_t tag, void (*clear)(struct receiver *));

/* Address and port of the sender, folded. */
uint16_t source_of(const void *name, size_t length);

/* Both ways: what a predecessor has left becomes the current batch. */
int plain_open(struct receiver *receiver);
int plain_poll(struct receiver *receiver, uint64_t tag);

int uring_open(struct receiver *receiver);

/* Length of the datagram in a buffer; UNTAKEN: there is none. */
static inline uint32_t uring_length(const struct receiver *receiver, uint32_t id)
{
    return ((const struct io_uring_recvmsg_out *)(const void *)buffer_at(receiver, id))->payloadlen;
}

int uring_poll(struct receiver *receiver, uint64_t tag);

#endif
