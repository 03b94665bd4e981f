/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    CONTROL_BYTES = 64, /* room for one SCM_TIMESTAMPNS or SCM_TIMESTAMPING */
    NAME_BYTES = 32,    /* room for a struct sockaddr_in6 */
    /* Not a power of two, so that the starts of the buffers do not compete for the same cache sets.
     */
    BUFFER_BYTES = 65536 + 256 + CONTROL_BYTES + NAME_BYTES,
    BUFFER_GROUP = 1,
};

struct receiver {
    bool uring;
    bool sources;
    uint32_t sockets;
    uint32_t burst;
    uint32_t buffers;
    uint8_t *memory;
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
    uint32_t held; /* buffers lent to the caller by the last poll */
    uint16_t *held_id;
    bool armed[RECEIVER_SOCKETS_MAX];
};

/* The NIC's stamp where there is one, else the kernel's. */
static uint64_t stamp_of(struct msghdr *header)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        struct timespec ts[3] = {0}; /* SCM_TIMESTAMPING: kernel, nothing, NIC */
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_TIMESTAMPNS)
            memcpy(ts, CMSG_DATA(c), sizeof(ts[0]));
        else if (c->cmsg_type == SCM_TIMESTAMPING)
            memcpy(ts, CMSG_DATA(c), sizeof(ts));
        else
            continue;
        const struct timespec *best = ts[2].tv_sec != 0 ? &ts[2] : &ts[0];
        return (uint64_t)best->tv_sec * 1000000000ULL + (uint64_t)best->tv_nsec;
    }
    return 0;
}

/* Address and port of the sender, multiplied and folded (Fibonacci hashing). */
static uint16_t source_of(const void *name, size_t length)
{
    uint32_t words[NAME_BYTES / 4] = {0};
    uint64_t hash = 0;

    memcpy(words, name, length < sizeof(words) ? length : sizeof(words));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
    return (uint16_t)(hash >> 48);
}

static uint8_t *buffer_at(const struct receiver *receiver, uint32_t index)
{
    return receiver->memory + (size_t)index * BUFFER_BYTES;
}

/* ---- plain calls ---- */

static int plain_open(struct receiver *receiver)
{
    receiver->epoll = -1;
    receiver->messages = calloc(receiver->burst, sizeof(*receiver->messages));
    receiver->iovs = calloc(receiver->burst, sizeof(*receiver->iovs));
    if (!receiver->messages || !receiver->iovs)
        return -ENOMEM;
    for (uint32_t i = 0; i < receiver->burst; i++) {
        uint8_t *buffer = buffer_at(receiver, i);
        receiver->iovs[i] = (struct iovec){.iov_base = buffer + CONTROL_BYTES + NAME_BYTES,
                                           .iov_len = RECEIVER_DATAGRAM_MAX};
        receiver->messages[i].msg_hdr = (struct msghdr){
            .msg_iov = &receiver->iovs[i],
            .msg_iovlen = 1,
            .msg_control = buffer,
            .msg_controllen = CONTROL_BYTES,
            .msg_name = receiver->sources ? buffer + CONTROL_BYTES : NULL,
            .msg_namelen = receiver->sources ? NAME_BYTES : 0,
        };
    }
    if (receiver->sockets == 1)
        return 0;
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

static int plain_take(struct receiver *receiver, uint32_t socket, uint32_t from)
{
    int got = recvmmsg(receiver->socket[socket], receiver->messages + from, receiver->burst - from,
                       MSG_DONTWAIT, NULL);

    if (got < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED ? 0 : -errno;
    for (uint32_t i = from; i < from + (uint32_t)got; i++) {
        struct mmsghdr *message = &receiver->messages[i];
        receiver->batch[i] = (struct received){
            .data = receiver->iovs[i].iov_base,
            .length = message->msg_len,
            .socket = (uint16_t)socket,
            .kernel_ns = stamp_of(&message->msg_hdr),
        };
        message->msg_hdr.msg_controllen = CONTROL_BYTES;
        if (receiver->sources) {
            receiver->batch[i].source =
                source_of(message->msg_hdr.msg_name, message->msg_hdr.msg_namelen);
            message->msg_hdr.msg_namelen = NAME_BYTES;
        }
    }
    return got;
}

static int plain_poll(struct receiver *receiver)
{
    struct epoll_event ready[RECEIVER_SOCKETS_MAX];
    uint32_t total = 0;

    if (receiver->epoll < 0)
        return plain_take(receiver, 0, 0);
    int count = epoll_wait(receiver->epoll, ready, RECEIVER_SOCKETS_MAX, 0);
    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count && total < receiver->burst; i++) {
        int got = plain_take(receiver, ready[i].data.u32, total);
        if (got < 0)
            return got;
        total += (uint32_t)got;
    }
    return (int)total;
}

/* ---- io_uring: one multishot receive a socket, buffers lent by the ring ---- */

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

static int uring_open(struct receiver *receiver)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE,
        .cq_entries = 4096,
    };

    receiver->held_id = calloc(receiver->burst, sizeof(*receiver->held_id));
    if (!receiver->held_id)
        return -ENOMEM;
    receiver->template = (struct msghdr){
        .msg_controllen = CONTROL_BYTES,
        .msg_namelen = receiver->sources ? NAME_BYTES : 0,
    };
    int err = io_uring_queue_init_params(2 * RECEIVER_SOCKETS_MAX, &receiver->ring, &params);
    if (err < 0)
        return err;
    receiver->uring = true;

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
    for (uint32_t i = 0; i < receiver->buffers; i++)
        lend(receiver, (uint16_t)i, (int)i);
    io_uring_buf_ring_advance(receiver->buf_ring, (int)receiver->buffers);
    for (uint32_t i = 0; i < receiver->sockets; i++) {
        err = arm(receiver, i);
        if (err < 0)
            return err;
    }
    err = io_uring_submit(&receiver->ring);
    return err < 0 ? err : 0;
}

/* Gives the buffers of the last batch back and arms again what had run out of them. */
static int uring_return(struct receiver *receiver)
{
    bool rearmed = false;

    if (receiver->held) {
        for (uint32_t i = 0; i < receiver->held; i++)
            lend(receiver, receiver->held_id[i], (int)i);
        io_uring_buf_ring_advance(receiver->buf_ring, (int)receiver->held);
        receiver->held = 0;
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
static int uring_datagram(struct receiver *receiver, const struct io_uring_cqe *cqe, uint32_t index)
{
    uint32_t socket = (uint32_t)io_uring_cqe_get_data64(cqe);

    if (!(cqe->flags & IORING_CQE_F_MORE))
        receiver->armed[socket] = false;
    if (!(cqe->flags & IORING_CQE_F_BUFFER))
        return cqe->res == -ENOBUFS || cqe->res == -ECONNREFUSED || cqe->res >= 0 ? 0 : cqe->res;

    uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    receiver->held_id[index] = id;
    receiver->held = index + 1;
    struct io_uring_recvmsg_out *out =
        io_uring_recvmsg_validate(buffer_at(receiver, id), cqe->res, &receiver->template);
    if (!out)
        return -EPROTO;
    struct msghdr control = {
        .msg_control = (uint8_t *)(out + 1) + receiver->template.msg_namelen,
        .msg_controllen = out->controllen,
    };
    receiver->batch[index] = (struct received){
        .data = io_uring_recvmsg_payload(out, &receiver->template),
        .length = io_uring_recvmsg_payload_length(out, cqe->res, &receiver->template),
        .socket = (uint16_t)socket,
        .kernel_ns = stamp_of(&control),
        .source = receiver->sources ? source_of(out + 1, out->namelen) : (uint16_t)0,
    };
    return 1;
}

static int uring_poll(struct receiver *receiver)
{
    struct io_uring_cqe *cqe;
    uint32_t count = 0;
    int err;

    err = uring_return(receiver);
    if (err < 0)
        return err;
    /* Work waits in the kernel only where the ring says so: an idle turn makes no system call. */
    if (*receiver->ring.sq.kflags & IORING_SQ_TASKRUN) {
        err = io_uring_get_events(&receiver->ring);
        if (err < 0)
            return err;
    }
    while (count < receiver->burst && io_uring_peek_cqe(&receiver->ring, &cqe) == 0) {
        err = uring_datagram(receiver, cqe, count);
        io_uring_cqe_seen(&receiver->ring, cqe);
        if (err < 0)
            return err;
        count += (uint32_t)err;
    }
    return (int)count;
}

/* ---- both ---- */

int receiver_open(struct receiver **result, const struct receiver_plan *plan)
{
    struct receiver *receiver = calloc(1, sizeof(*receiver));

    if (!receiver)
        return -ENOMEM;
    receiver->epoll = -1;
    receiver->sources = plan->sources;
    receiver->sockets = plan->count;
    receiver->burst = plan->burst;
    receiver->buffers = plan->uring ? plan->buffers : plan->burst;
    memcpy(receiver->socket, plan->sockets, plan->count * sizeof(*plan->sockets));
    receiver->batch = calloc(plan->burst, sizeof(*receiver->batch));
    size_t bytes = (size_t)receiver->buffers * BUFFER_BYTES;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    receiver->memory = memory == MAP_FAILED ? NULL : memory;
    int err = receiver->batch && receiver->memory ? 0 : -ENOMEM;
    /* Datagrams are mostly short: the first page or two of each buffer, not all of it. */
    for (uint32_t i = 0; err == 0 && i < receiver->buffers; i++)
        memset(buffer_at(receiver, i), 0, 2048);
    if (err == 0)
        err = plan->uring ? uring_open(receiver) : plain_open(receiver);
    if (err < 0) {
        receiver_close(receiver);
        return err;
    }
    *result = receiver;
    return 0;
}

int receiver_poll(struct receiver *receiver, struct received **batch)
{
    *batch = receiver->batch;
    return receiver->uring ? uring_poll(receiver) : plain_poll(receiver);
}

void receiver_park(struct receiver *receiver, uint64_t ns)
{
    const struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000ULL),
                                     .tv_nsec = (long)(ns % 1000000000ULL)};
    struct pollfd fds[RECEIVER_SOCKETS_MAX];
    nfds_t count = receiver->sockets;

    if (receiver->uring) {
        struct __kernel_timespec limit = {.tv_sec = timeout.tv_sec, .tv_nsec = timeout.tv_nsec};
        struct io_uring_cqe *cqe;
        (void)io_uring_wait_cqe_timeout(&receiver->ring, &cqe, &limit);
        return;
    }
    for (nfds_t i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = receiver->socket[i], .events = POLLIN};
    (void)ppoll(fds, count, &timeout, NULL);
}

void receiver_close(struct receiver *receiver)
{
    if (receiver->uring)
        io_uring_queue_exit(&receiver->ring);
    if (receiver->buf_ring)
        munmap(receiver->buf_ring, receiver->buffers * sizeof(struct io_uring_buf));
    if (receiver->epoll >= 0)
        close(receiver->epoll);
    if (receiver->memory)
        munmap(receiver->memory, (size_t)receiver->buffers * BUFFER_BYTES);
    free(receiver->held_id);
    free(receiver->messages);
    free(receiver->iovs);
    free(receiver->batch);
    free(receiver);
}
