/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/control.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

union descriptor_buffer {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static int send_message(int socket, const struct control_message *message, int fd, int flags)
{
    union descriptor_buffer buffer = {.bytes = {0}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)message, .iov_len = sizeof(*message)};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        header.msg_control = buffer.bytes;
        header.msg_controllen = sizeof(buffer.bytes);
        struct cmsghdr *control = CMSG_FIRSTHDR(&header);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(control), &fd, sizeof(int));
    }
    while (sendmsg(socket, &header, MSG_NOSIGNAL | flags) < 0) {
        if (errno != EINTR)
            return errno == EPIPE ? -ECONNRESET : -errno;
    }
    return 0;
}

/* There is room for two where one is expected: the buffer is padded. Nobody may fill our table with what we
 * never close. */
static int take_descriptor(struct msghdr *header, bool wanted)
{
    int taken = -1;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + at, sizeof(int));
            if (wanted && taken < 0)
                taken = fd;
            else
                close(fd);
        }
    }
    return taken;
}

int control_send(int socket, const struct control_message *message, int fd)
{
    return send_message(socket, message, fd, 0);
}

int control_offer(int socket, const struct control_message *message, int fd)
{
    int err = send_message(socket, message, fd, MSG_DONTWAIT);

    /* Too many descriptors are under way to somebody who has not taken them. */
    return err == -ETOOMANYREFS || err == -ENOBUFS ? -EAGAIN : err;
}

int control_receive(int socket, struct control_message *message, int *fd, int wait)
{
    union descriptor_buffer buffer = {.bytes = {0}};
    struct iovec iov = {.iov_base = message, .iov_len = sizeof(*message)};
    struct msghdr header = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = buffer.bytes,
        .msg_controllen = sizeof(buffer.bytes),
    };
    ssize_t got;

    *fd = -1;
    do {
        got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    bool whole = got == sizeof(*message) && !(header.msg_flags & MSG_TRUNC);
    *fd = take_descriptor(&header, whole);
    if (!whole)
        return got == 0 ? -ECONNRESET : -EPROTO;
    /* Text from another process ends where its field does. */
    message->name[CONTROL_NAME_MAX - 1] = '\0';
    message->text[sizeof(message->text) - 1] = '\0';
    if (message->type == CONTROL_TELL)
        return 0;
    message->asked[CONTROL_TEXT_MAX - 1] = '\0';
    message->obtained[CONTROL_TEXT_MAX - 1] = '\0';
    return 0;
}
