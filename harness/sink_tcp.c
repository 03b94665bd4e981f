/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "sink_tcp.h"

#include <errno.h>
#include <unistd.h>

enum {
    SLOW_RCVBUF = 32 << 10, /* bytes: what a slow reader has not read must wait at the sender's */
};

int sink_tcp_open(struct sink_tcp *tcp, const struct sockaddr *address, socklen_t size, int *rcvbuf)
{
    int on = 1, bytes = SLOW_RCVBUF;
    socklen_t length = sizeof *rcvbuf;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    for (size_t i = 0; i < SINK_CONNECTIONS_MAX; i++)
        tcp->connection[i].fd = -1;
    tcp->listener = fd;
    if (fd < 0)
        return -errno;
    /* What the listener has, its connections inherit. */
    if (tcp->slow.rate)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(fd, address, size) == 0 && listen(fd, SINK_CONNECTIONS_MAX) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_RCVBUF, rcvbuf, &length) == 0)
        return 0;
    int error = errno;
    close(fd);
    return -error;
}

static void accept_all(struct sink_tcp *tcp)
{
    for (size_t i = 0; i < SINK_CONNECTIONS_MAX; i++) {
        if (tcp->connection[i].fd >= 0)
            continue;
        tcp->connection[i].fd = accept4(tcp->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (tcp->connection[i].fd < 0)
            return;
        tcp->accepted++;
        tcp->open++;
    }
}

int64_t sink_tcp_receive(struct sink_tcp *tcp, stream_take *take, void *context)
{
    int64_t sum = 0;

    accept_all(tcp);
    for (size_t i = 0; i < SINK_CONNECTIONS_MAX; i++) {
        if (tcp->connection[i].fd < 0)
            continue;
        int64_t got = stream_receive(&tcp->connection[i].stream, tcp->connection[i].fd, &tcp->slow,
                                     tcp->length, take, context);
        if (got == -EAGAIN)
            continue;
        if (got == -ENOMEM)
            return got;
        if (got < 0) { /* ended, or reset */
            close(tcp->connection[i].fd);
            tcp->connection[i].fd = -1;
            tcp->open--;
            stream_free(&tcp->connection[i].stream);
            continue;
        }
        sum += got;
    }
    return sum;
}

void sink_tcp_close(struct sink_tcp *tcp)
{
    for (size_t i = 0; i < SINK_CONNECTIONS_MAX; i++) {
        if (tcp->connection[i].fd >= 0)
            close(tcp->connection[i].fd);
        stream_free(&tcp->connection[i].stream);
    }
    close(tcp->listener);
}
