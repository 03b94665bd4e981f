/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving by plain calls: recvmmsg, and epoll where there are several sockets. */
#include "shm/crash.h"
#include "stage/receiver_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* The addresses are of this process; what the kernel wrote, the lengths, stays. */
static void point_message(struct receiver *receiver, uint32_t i)
{
    struct msghdr *header = &receiver->messages[i].msg_hdr;
    uint8_t *buffer = buffer_at(receiver, i);

    receiver->iovs[i] = (struct iovec){.iov_base = buffer + CONTROL_BYTES + NAME_BYTES,
                                       .iov_len = RECEIVER_DATAGRAM_MAX};
    header->msg_iov = &receiver->iovs[i];
    header->msg_iovlen = 1;
    header->msg_control = buffer;
    header->msg_name = receiver->sources ? buffer + CONTROL_BYTES : NULL;
}

static void empty_message(struct receiver *receiver, uint32_t i)
{
    struct mmsghdr *message = &receiver->messages[i];

    message->msg_hdr.msg_controllen = CONTROL_BYTES;
    message->msg_hdr.msg_namelen = receiver->sources ? NAME_BYTES : 0;
    message->msg_len = UNTAKEN;
}

static void clear(struct receiver *receiver)
{
    for (uint32_t i = 0; i < receiver->held; i++)
        empty_message(receiver, i);
}

static int open_epoll(struct receiver *receiver)
{
    receiver->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (receiver->epoll < 0)
        return -errno;
    for (uint32_t i = 0; i < receiver->sockets; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(receiver->epoll, EPOLL_CTL_ADD, receiver->socket[i], &event) < 0)
            return -errno;
    }
    return 0;
}

/* What the kernel has put into message `i`. */
static void take(struct receiver *receiver, uint32_t i, uint32_t socket)
{
    struct mmsghdr *message = &receiver->messages[i];
    const struct received datagram = {
        .data = receiver->iovs[i].iov_base,
        .length = message->msg_len,
        .socket = (uint16_t)socket,
        .kernel_ns = kernel_stamp(&message->msg_hdr),
        .source = receiver->sources
                      ? source_of(message->msg_hdr.msg_name, message->msg_hdr.msg_namelen)
                      : (uint16_t)0,
        .name = message->msg_hdr.msg_name,
    };

    hold(receiver, i, &datagram);
}

/* Phase TAKING: what stands in the messages is the batch. SPENT: nobody needs them any more. */
static void recover(struct receiver *receiver)
{
    struct receiver_journal *journal = receiver->journal;
    uint64_t number = batch_number(receiver);
    uint64_t calls = load_acquire(&journal->count);
    uint64_t call = 0;

    if (load_acquire(&journal->batch) % RECEIVER_PHASES == RECEIVER_SPENT) {
        receiver->held = receiver->burst;
        clear(receiver);
        receiver->held = 0;
        enter_phase(receiver, number + 1, RECEIVER_TAKING);
        return;
    }
    for (uint32_t i = 0; i < receiver->burst && receiver->messages[i].msg_len != UNTAKEN; i++) {
        while (call + 1 < calls && journal->order[call + 1].first <= i)
            call++;
        take(receiver, i, journal->order[call].socket);
    }
}

static void make_messages(struct receiver *receiver)
{
    for (uint32_t i = 0; i < receiver->burst; i++)
        empty_message(receiver, i);
    /* The first call of a batch, of the first socket. */
    store_relaxed(&receiver->journal->count, 1);
    store_release(&receiver->journal->made, 1);
}

int plain_open(struct receiver *receiver)
{
    receiver->iovs = calloc(receiver->burst, sizeof(*receiver->iovs));
    if (!receiver->iovs)
        return -ENOMEM;
    for (uint32_t i = 0; i < receiver->burst; i++)
        point_message(receiver, i);
    if (load_acquire(&receiver->journal->made))
        recover(receiver);
    else
        make_messages(receiver);
    return receiver->sockets > 1 ? open_epoll(receiver) : 0;
}

static int receive(struct receiver *receiver, uint32_t socket, uint32_t from)
{
    int got = recvmmsg(receiver->socket[socket], receiver->messages + from, receiver->burst - from,
                       MSG_DONTWAIT, NULL);

    if (got < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED ? 0 : -errno;
    crash_point("receiver:received");
    for (uint32_t i = from; i < from + (uint32_t)got; i++)
        take(receiver, i, socket);
    return got;
}

/* Several sockets: a call for each that is ready, and a note of which messages are whose. */
static int receive_ready(struct receiver *receiver)
{
    struct receiver_journal *journal = receiver->journal;
    struct epoll_event ready[RECEIVER_SOCKETS_MAX];
    uint32_t total = 0;
    int count = epoll_wait(receiver->epoll, ready, RECEIVER_SOCKETS_MAX, 0);

    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count && total < receiver->burst; i++) {
        uint64_t call = total == 0 ? 0 : load_relaxed(&journal->count);
        journal->order[call] =
            (struct receiver_order){(uint16_t)total, (uint16_t)ready[i].data.u32};
        store_release(&journal->count, call + 1);
        int got = receive(receiver, ready[i].data.u32, total);
        if (got < 0)
            return got;
        total += (uint32_t)got;
    }
    return (int)total;
}

int plain_poll(struct receiver *receiver, uint64_t tag)
{
    if (receiver->held)
        receiver_spend(receiver, tag, clear);
    return receiver->epoll < 0 ? receive(receiver, 0, 0) : receive_ready(receiver);
}
