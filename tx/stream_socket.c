/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/stream.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int acknowledged(int fd, uint64_t *bytes)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
        return -errno;
    *bytes = info.tcpi_bytes_acked;
    return 0;
}

/* Acknowledgements come at any time: what is under way belongs to the count before it, where that is the
 * same after it. */
int stream_kernel_bytes(int fd, uint64_t *bytes)
{
    uint64_t before = 0;
    uint64_t after = 0;
    int waits = 0;

    int err = acknowledged(fd, &after);
    do {
        before = after;
        if (err == 0 && ioctl(fd, SIOCOUTQ, &waits) < 0)
            err = -errno;
        if (err == 0)
            err = acknowledged(fd, &after);
    } while (err == 0 && before != after);
    *bytes = after + (uint64_t)waits;
    return err;
}

uint64_t stream_unacknowledged(int fd)
{
    int waits;

    return ioctl(fd, SIOCOUTQ, &waits) == 0 && waits > 0 ? (uint64_t)waits : 0;
}

void stream_options(const struct config *config, int fd)
{
    const int on = config->tx.nodelay;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}
