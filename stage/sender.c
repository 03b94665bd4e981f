/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/io.h"

#include "stage/io_restrict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sender {
    bool uring;
    int socket;
    uint32_t depth;
    uint32_t queued;    /* not yet submitted */
    uint32_t in_flight; /* submitted or queued, not yet reaped */
    struct io_uring ring;
};

int sender_open(struct sender **result, bool uring, int socket, uint32_t depth)
{
    static const uint8_t operations[] = {IORING_OP_SEND};
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED};
    struct sender *sender = calloc(1, sizeof(*sender));

    if (!sender)
        return -ENOMEM;
    sender->socket = socket;
    sender->depth = depth;
    if (uring) {
        int err = io_uring_queue_init_params(depth, &sender->ring, &params);
        if (err < 0) {
            free(sender);
            return err;
        }
        sender->uring = true;
        err = io_restrict(&sender->ring, operations, sizeof(operations));
        if (err < 0) {
            sender_close(sender);
            return err;
        }
    }
    *result = sender;
    return 0;
}

/* An ICMP answer to an earlier datagram is reported on the next send: that one is innocent, so once
 * more. */
static int plain_send(const struct sender *sender, const void *data, uint32_t length)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        if (send(sender->socket, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 1;
        if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR)
            return -EAGAIN;
        if (errno != ECONNREFUSED)
            break;
    }
    return -errno;
}

int sender_send(struct sender *sender, const void *data, uint32_t length, uint64_t tag)
{
    if (!sender->uring)
        return plain_send(sender, data, length);
    struct io_uring_sqe *sqe =
        sender->in_flight < sender->depth ? io_uring_get_sqe(&sender->ring) : NULL;
    if (!sqe)
        return -EAGAIN;
    io_uring_prep_send(sqe, sender->socket, data, length, MSG_NOSIGNAL);
    io_uring_sqe_set_data64(sqe, tag);
    sender->queued++;
    sender->in_flight++;
    return 0;
}

int sender_submit(struct sender *sender)
{
    if (!sender->uring || !sender->in_flight)
        return 0;
    int err = sender->queued ? io_uring_submit_and_get_events(&sender->ring)
                             : io_uring_get_events(&sender->ring);
    if (sender->queued && err > 0)
        sender->queued -= (uint32_t)err;
    return err < 0 && err != -EBUSY && err != -EINTR ? err : 0;
}

int sender_reap(struct sender *sender, uint64_t *tag, int *result)
{
    struct io_uring_cqe *cqe;

    if (!sender->in_flight || io_uring_peek_cqe(&sender->ring, &cqe) < 0)
        return 0;
    *tag = io_uring_cqe_get_data64(cqe);
    *result = cqe->res;
    io_uring_cqe_seen(&sender->ring, cqe);
    sender->in_flight--;
    return 1;
}

void sender_close(struct sender *sender)
{
    if (sender->uring)
        io_uring_queue_exit(&sender->ring);
    free(sender);
}
