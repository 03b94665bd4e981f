/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SEND_BUFFER_BYTES = 4 << 20 };

static int connect_to(const struct config_endpoint *to)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_DGRAM};
    struct addrinfo *info;
    char port[8];

    snprintf(port, sizeof(port), "%u", to->port);
    if (getaddrinfo(to->address, port, &hints, &info) != 0)
        return -EINVAL;
    int fd = socket(info->ai_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err = fd < 0 ? -errno : 0;
    if (err == 0 && connect(fd, info->ai_addr, info->ai_addrlen) < 0)
        err = -errno;
    freeaddrinfo(info);
    if (err < 0 && fd >= 0)
        close(fd);
    return err < 0 ? err : fd;
}

int socket_open(struct stage *stage)
{
    const struct config_endpoint *to = &stage->config.tx.to;

    int fd = stage_descriptor(stage, "tx.socket");
    if (fd >= 0)
        return fd;
    if (to->port == 0)
        return stage_error(stage, -EINVAL,
                           "tx.to = auto: there is no lab to take it from; write tx.to = "
                           "ADDRESS:PORT");
    fd = connect_to(to);
    if (fd < 0)
        return stage_error(stage, fd, "tx.to = %s:%u: %s", to->address, to->port, strerror(-fd));
    int bytes = SEND_BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    int err = stage_deposit(stage, "tx.socket", fd);
    return err < 0 ? stage_error(stage, err, "cannot leave the socket with the launcher") : fd;
}
