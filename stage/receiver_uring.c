/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving by io_uring: one multishot receive a socket, buffers lent by the ring. */
#include "shm/crash.h"
#include "stage/io_restrict.h"
#include "stage/receiver_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { BUFFER_GROUP = 1 };

static struct io_uring_recvmsg_out *header_of(const struct receiver *receiver, uint32_t id)
{
    return (struct io_uring_recvmsg_out *)(void *)buffer_at(receiver, id);
}

static void lend(struct receiver *receiver, uint16_t id, int offset)
{
    io_uring_buf_ring_add(receiver->buf_ring, buffer_at(receiver, id), BUFFER_BYTES - 64, id,
                          io_uring_buf_ring_mask(receiver->buffers), offset);
}

static int arm(struct receiver *receiver, uint32_t socket)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&receiver->ring);

    if (!sqe)
        return -EAGAIN;
    io_uring_prep_recvmsg_multishot(sqe, receiver->socket[socket], &receiver->template, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    io_uring_sqe_set_data64(sqe, socket);
    receiver->armed[socket] = true;
    return 0;
}

static int open_ring(struct receiver *receiver)
{
    static const uint8_t operations[] = {IORING_OP_RECVMSG, IORING_OP_TIMEOUT};
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED,
        .cq_entries = 4096,
    };
    int err = io_uring_queue_init_params(2 * RECEIVER_SOCKETS_MAX, &receiver->ring, &params);
    if (err < 0) {
        receiver->ring.ring_fd = -1;
        return err;
    }
    size_t bytes = receiver->buffers * sizeof(struct io_uring_buf);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    receiver->buf_ring = memory;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)memory,
        .ring_entries = receiver->buffers,
        .bgid = BUFFER_GROUP,
    };
    err = io_uring_register_buf_ring(&receiver->ring, &reg, 0);
    if (err < 0)
        return err;
    io_uring_buf_ring_init(receiver->buf_ring);
    return io_restrict(&receiver->ring, operations, sizeof(operations));
}

static void clear(struct receiver *receiver)
{
    for (uint32_t i = 0; i < receiver->held; i++)
        header_of(receiver, receiver->journal->order[i].first)->payloadlen = UNTAKEN;
}

/* The datagram in buffer `id`, as far as the kernel has said how long it is. */
static bool describe(struct receiver *receiver, uint32_t id, uint32_t socket,
                     struct received *datagram)
{
    struct io_uring_recvmsg_out *out = header_of(receiver, id);
    uint32_t head = (uint32_t)sizeof(*out) + NAME_BYTES * receiver->sources + CONTROL_BYTES;
    struct msghdr control = {
        .msg_control = (uint8_t *)(out + 1) + receiver->template.msg_namelen,
        .msg_controllen = out->controllen < CONTROL_BYTES ? out->controllen : CONTROL_BYTES,
    };

    if (out->payloadlen > BUFFER_BYTES - 64 - head)
        return false;
    *datagram = (struct received){
        .data = io_uring_recvmsg_payload(out, &receiver->template),
        .length = out->payloadlen,
        .socket = (uint16_t)socket,
        .kernel_ns = kernel_stamp(&control),
        .source = receiver->sources ? source_of(out + 1, out->namelen) : (uint16_t)0,
        .name = receiver->sources ? (const struct sockaddr *)(const void *)(out + 1) : NULL,
    };
    return true;
}

/* ---- what a predecessor has left ---- */

static int by_stamp(const void *a, const void *b)
{
    const struct received *x = a, *y = b;

    return x->kernel_ns < y->kernel_ns ? -1 : x->kernel_ns > y->kernel_ns;
}

static uint32_t buffer_of(const struct receiver *receiver, const struct received *datagram)
{
    return (uint32_t)((size_t)(datagram->data - receiver->memory) / BUFFER_BYTES);
}

static bool in_batch(const struct receiver *receiver, uint32_t id)
{
    for (uint32_t i = 0; i < receiver->held; i++) {
        if (receiver->journal->order[i].first == id)
            return true;
    }
    return false;
}

/*
 * Buffers that the kernel had filled and nobody had looked at: in the order of their arrival, behind
 * those of the batch. Which socket they came to went with the ring; it is taken for the first.
 */
static void add_unseen(struct receiver *receiver)
{
    struct receiver_journal *journal = receiver->journal;
    uint32_t seen = receiver->held;
    uint32_t count = seen;

    for (uint32_t id = 0; id < receiver->buffers; id++) {
        if (!in_batch(receiver, id) && describe(receiver, id, 0, &receiver->batch[count]))
            count++;
    }
    qsort(receiver->batch + seen, count - seen, sizeof(*receiver->batch), by_stamp);
    for (uint32_t i = seen; i < count; i++) {
        struct received datagram = receiver->batch[i];
        journal->order[i] = (struct receiver_order){(uint16_t)buffer_of(receiver, &datagram), 0};
        hold(receiver, i, &datagram);
    }
    store_release(&journal->count, receiver->held);
    if (receiver->held)
        enter_phase(receiver, batch_number(receiver), RECEIVER_HELD);
}

/* Phase HELD: the batch, then what nobody had seen; TAKING: the latter alone. */
static void recover(struct receiver *receiver)
{
    struct receiver_journal *journal = receiver->journal;
    uint64_t number = batch_number(receiver);
    uint64_t phase = load_acquire(&journal->batch) % RECEIVER_PHASES;
    uint32_t count = (uint32_t)load_acquire(&journal->count);
    struct received datagram;

    if (phase == RECEIVER_SPENT) {
        receiver->held = count;
        clear(receiver);
        receiver->held = 0;
        enter_phase(receiver, number + 1, RECEIVER_TAKING);
    }
    for (uint32_t i = 0; phase == RECEIVER_HELD && i < count; i++) {
        if (describe(receiver, journal->order[i].first, journal->order[i].socket, &datagram))
            hold(receiver, i, &datagram);
    }
    add_unseen(receiver);
}

static void make_buffers(struct receiver *receiver)
{
    for (uint32_t i = 0; i < receiver->buffers; i++)
        header_of(receiver, i)->payloadlen = UNTAKEN;
    store_release(&receiver->journal->made, 1);
}

int uring_open(struct receiver *receiver)
{
    uint32_t lent = 0;

    receiver->template = (struct msghdr){
        .msg_controllen = CONTROL_BYTES,
        .msg_namelen = receiver->sources ? NAME_BYTES : 0,
    };
    int err = open_ring(receiver);
    if (err < 0)
        return err;
    if (load_acquire(&receiver->journal->made))
        recover(receiver);
    else
        make_buffers(receiver);
    for (uint32_t i = 0; i < receiver->buffers; i++) {
        if (uring_length(receiver, i) == UNTAKEN)
            lend(receiver, (uint16_t)i, (int)lent++);
    }
    io_uring_buf_ring_advance(receiver->buf_ring, (int)lent);
    return 0;
}

/* ---- polling ---- */

/* Gives the buffers of the last batch back and arms again what had run out of them. */
static int give_back(struct receiver *receiver, uint64_t tag)
{
    bool rearmed = false;

    if (receiver->held) {
        uint32_t count = receiver->held;
        receiver_spend(receiver, tag, clear);
        for (uint32_t i = 0; i < count; i++)
            lend(receiver, receiver->journal->order[i].first, (int)i);
        io_uring_buf_ring_advance(receiver->buf_ring, (int)count);
    }
    for (uint32_t i = 0; i < receiver->sockets; i++) {
        if (!receiver->armed[i] && arm(receiver, i) == 0)
            rearmed = true;
    }
    int err = rearmed ? io_uring_submit(&receiver->ring) : 0;
    return err < 0 ? err : 0;
}

/* A completion without a buffer only ends its multishot receive: out of buffers, or an error to
 * report. */
static int take(struct receiver *receiver, const struct io_uring_cqe *cqe, uint32_t index)
{
    uint32_t socket = (uint32_t)io_uring_cqe_get_data64(cqe);
    struct received datagram;

    if (!(cqe->flags & IORING_CQE_F_MORE))
        receiver->armed[socket] = false;
    if (!(cqe->flags & IORING_CQE_F_BUFFER))
        return cqe->res == -ENOBUFS || cqe->res == -ECONNREFUSED || cqe->res >= 0 ? 0 : cqe->res;

    uint32_t id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    if (!io_uring_recvmsg_validate(buffer_at(receiver, id), cqe->res, &receiver->template) ||
        !describe(receiver, id, socket, &datagram))
        return -EPROTO;
    receiver->journal->order[index] = (struct receiver_order){(uint16_t)id, (uint16_t)socket};
    hold(receiver, index, &datagram);
    return 1;
}

int uring_poll(struct receiver *receiver, uint64_t tag)
{
    struct io_uring_cqe *cqe;
    uint32_t count = 0;
    int err;

    err = give_back(receiver, tag);
    if (err < 0)
        return err;
    /* Work waits in the kernel only where the ring says so: an idle turn makes no system call. */
    if (*receiver->ring.sq.kflags & IORING_SQ_TASKRUN) {
        err = io_uring_get_events(&receiver->ring);
        if (err < 0)
            return err;
    }
    while (count < receiver->burst && io_uring_peek_cqe(&receiver->ring, &cqe) == 0) {
        err = take(receiver, cqe, count);
        io_uring_cqe_seen(&receiver->ring, cqe);
        if (err < 0)
            return err;
        count += (uint32_t)err;
    }
    if (count) {
        crash_point("receiver:received");
        store_relaxed(&receiver->journal->count, count);
        enter_phase(receiver, batch_number(receiver), RECEIVER_HELD);
        crash_point("receiver:held");
    }
    return (int)count;
}
