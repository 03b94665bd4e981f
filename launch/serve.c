/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int serve_listen(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path);
    mode_t before = umask(0077);
    int bound = bind(fd, (const struct sockaddr *)&address, sizeof(address));
    umask(before);
    if (bound < 0 || listen(fd, 8) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* The descriptor itself would let the receiver write; one opened anew for reading does not. */
static int give_readonly(int to, const char *name, int fd)
{
    struct control_message message = {.type = CONTROL_GIVE};
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int readonly = open(path, O_RDONLY | O_CLOEXEC);
    if (readonly < 0)
        return -errno;
    snprintf(message.name, sizeof(message.name), "%s", name);
    int err = control_send(to, &message, readonly);
    close(readonly);
    return err;
}

static void give_everything(int to, const struct pipeline *pipeline)
{
    struct control_message last = {.type = CONTROL_START, .value = pipeline->epoch};
    char name[CONTROL_NAME_MAX];
    int err = give_readonly(to, "cells", pipeline->cells_region.fd);

    if (err == 0)
        err = give_readonly(to, "arena", pipeline->arena.fd);
    for (uint32_t i = 0; err == 0 && i < pipeline->config->worker.count; i++) {
        snprintf(name, sizeof(name), "to_worker.%u", i);
        err = give_readonly(to, name, pipeline->to_worker[i].fd);
        if (err < 0)
            break;
        snprintf(name, sizeof(name), "to_tx.%u", i);
        err = give_readonly(to, name, pipeline->to_tx[i].fd);
    }
    if (err < 0)
        return;
    snprintf(last.asked, sizeof(last.asked), "%.6f", pipeline->clock.hz);
    (void)control_send(to, &last, -1);
}

void serve_status(int listener, const struct pipeline *pipeline)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
        (peer.uid == geteuid() || peer.uid == 0))
        give_everything(fd, pipeline);
    close(fd);
}
