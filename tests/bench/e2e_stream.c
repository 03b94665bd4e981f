/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/e2e_stream.h"

#include "tests/bench/bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 4 << 20, AGAIN_MS = 10 };

static int opened(int fd)
{
    const int bytes = BUFFER_BYTES;
    const int on = 1;

    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static int made(void)
{
    return opened(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

static int failed(int fd, int err)
{
    close(fd);
    return err;
}

int e2e_stream_listening(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = made();

    if (fd < 0)
        return fd;
    if (bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return failed(fd, -errno);
    *port = ntohs(address.sin_port);
    return fd;
}

/* 0 or -errno; -ECONNREFUSED while nobody listens. */
static int try_connect(int fd, uint16_t port, int ms)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    int err = 0;
    socklen_t length = sizeof(err);

    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    if (poll(&writable, 1, ms) != 1)
        return -ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &length) < 0 ? -errno : -err;
}

int e2e_stream_connected(uint16_t port, int ms)
{
    for (;; ms -= AGAIN_MS) {
        int fd = made();
        if (fd < 0)
            return fd;
        int err = try_connect(fd, port, ms);
        if (err == 0)
            return fd;
        close(fd);
        if (err != -ECONNREFUSED || ms <= 0)
            return err;
        bench_nap_ms(AGAIN_MS);
    }
}

int e2e_stream_accepted(int listener, int ms)
{
    struct pollfd readable = {.fd = listener, .events = POLLIN};

    if (poll(&readable, 1, ms) != 1)
        return -ETIMEDOUT;
    return opened(accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

uint16_t e2e_stream_free_port(void)
{
    uint16_t port = 0;
    int fd = e2e_stream_listening(&port);

    if (fd >= 0)
        close(fd);
    return port;
}

bool e2e_stream_send(int fd, const void *data, size_t length)
{
    const uint8_t *next = data;

    while (length > 0) {
        ssize_t sent = send(fd, next, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent > 0) {
            next += sent;
            length -= (size_t)sent;
        }
    }
    return true;
}
