/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/e2e_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* rx.socket_buffer, of which the kernel is asked for half because it doubles it; and tx's. */
enum { RECEIVE_BUFFER_BYTES = 64 << 20, SEND_BUFFER_BYTES = 4 << 20, CONTROL_BYTES = 64 };

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

static void ask_buffer(int fd, int forced, int plain, int bytes)
{
    if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

int e2e_socket_bound(bool stamped, uint16_t *port)
{
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof(address);
    int on = 1;
    int off = 0;

    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof(off));
    ask_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, RECEIVE_BUFFER_BYTES / 2);
    if ((stamped && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0) ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

int e2e_socket_connected(uint16_t port)
{
    struct sockaddr_in address = loopback(port);

    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    ask_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, SEND_BUFFER_BYTES);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

uint16_t e2e_socket_free_port(void)
{
    uint16_t port;
    int fd = e2e_socket_bound(false, &port);

    if (fd < 0)
        return 0;
    close(fd);
    return port;
}

uint64_t e2e_socket_drops(int fd)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof(info);

    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) == 0 ? info[SK_MEMINFO_DROPS] : 0;
}

int e2e_socket_take(int fd, void *data, uint32_t capacity)
{
    uint8_t control[CONTROL_BYTES];
    struct iovec iov = {.iov_base = data, .iov_len = capacity};
    struct msghdr header = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };

    return (int)recvmsg(fd, &header, MSG_DONTWAIT);
}
