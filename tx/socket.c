/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/socket.h"

#include "tx/address.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { SEND_BUFFER_BYTES = 4 << 20 };

static int connect_to(const struct sockaddr_storage *address, socklen_t length)
{
    int fd = socket(address->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, length) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

int socket_open(struct stage *stage)
{
    const struct config_endpoint *to = &stage->config.tx.to;
    struct sockaddr_storage address;
    socklen_t length;

    int fd = stage_descriptor(stage, "tx.socket");
    if (fd >= 0)
        return fd;
    int err = address_of_to(stage, &address, &length);
    if (err < 0)
        return err;
    fd = connect_to(&address, length);
    if (fd < 0)
        return stage_error(stage, fd, "tx.to = %s:%u: %s", to->address, to->port, strerror(-fd));
    int bytes = SEND_BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    err = stage_deposit(stage, "tx.socket", fd);
    return err < 0 ? stage_error(stage, err, "cannot leave the socket with the launcher") : fd;
}
