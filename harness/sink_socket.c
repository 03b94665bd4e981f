/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "sink_socket.h"

#include "sink_stream.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    BURST = 32,        /* replies taken by one system call */
    REPLY_MAX = 65536, /* bytes */
    RCVBUF = 64 << 20, /* bytes asked for */
};

union control {
    char space[CMSG_SPACE(sizeof(struct timespec))];
    struct cmsghdr align;
};

static struct mmsghdr message[BURST];
static struct iovec vector[BURST];
static union control control[BURST];
static uint8_t reply[BURST][REPLY_MAX];

static int ask_for_buffer(int fd)
{
    int bytes = RCVBUF;
    socklen_t size = sizeof bytes;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes); /* cut at rmem_max */
    return getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, &size) == 0 ? bytes : -errno;
}

static void prepare_burst(void)
{
    for (size_t i = 0; i < BURST; i++) {
        vector[i] = (struct iovec){reply[i], REPLY_MAX};
        message[i].msg_hdr.msg_iov = &vector[i];
        message[i].msg_hdr.msg_iovlen = 1;
        message[i].msg_hdr.msg_control = &control[i];
        message[i].msg_hdr.msg_controllen = sizeof control[i];
    }
    memset(reply, 0xff, sizeof reply);
}

int socket_open(const struct sockaddr *address, socklen_t size, int *rcvbuf)
{
    int on = 1;
    int fd = socket(address->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    int rc = ask_for_buffer(fd);
    *rcvbuf = rc;
    if (rc >= 0)
        rc = setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) == 0 ? 0 : -errno;
    if (rc >= 0)
        rc = bind(fd, address, size) == 0 ? 0 : -errno;
    if (rc < 0) {
        close(fd);
        return rc;
    }
    prepare_burst();
    return fd;
}

int socket_receive(int fd, socket_take *take, void *context)
{
    int got = recvmmsg(fd, message, BURST, MSG_DONTWAIT, NULL);

    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    for (int i = 0; i < got; i++) {
        take(context, reply[i], message[i].msg_len, stream_stamp(&message[i].msg_hdr));
        message[i].msg_hdr.msg_controllen = sizeof control[i];
    }
    return got;
}

uint32_t socket_drops(int fd)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof info;

    getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size);
    return info[SK_MEMINFO_DROPS];
}
