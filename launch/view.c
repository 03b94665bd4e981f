/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/view.h"

#include "stage/control.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { SOCKETS_MAX = 64, PROC_PATH_MAX = 64 };

/* ---- open ---- */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval patience = {.tv_sec = 2};

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* Takes the descriptor over, also where it is of no use. */
static int attach(struct view *view, const char *name, int fd, bool trace)
{
    struct region_want want = ring_want(0);
    struct region_mismatch mismatch;
    struct region *region = NULL;
    unsigned number;

    if (strcmp(name, "cells") == 0) {
        region = &view->cells_region;
        want = cells_want(0);
    } else if (strcmp(name, "arena") == 0) {
        region = trace ? &view->arena : NULL;
        want = arena_want(0);
    } else if (sscanf(name, "to_worker.%u", &number) == 1 && number < CELL_WORKERS_MAX) {
        region = &view->to_worker[number];
    } else if (sscanf(name, "to_tx.%u", &number) == 1 && number < CELL_WORKERS_MAX) {
        region = &view->to_tx[number];
    }
    int err = region ? region_attach(region, fd, &want, false, &mismatch) : 0;
    if (!region || err < 0)
        close(fd);
    return err;
}

static int launcher_of(int socket)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.pid : 0;
}

static bool is_whole(const struct view *view, bool trace)
{
    for (uint32_t i = 0; i < view->workers; i++) {
        if (!view->to_tx[i].header)
            return false;
    }
    return view->cells_region.header && view->workers > 0 && (!trace || view->arena.header);
}

int view_open(struct view *view, const char *path, bool trace)
{
    struct control_message message;
    int fd = -1;

    *view = (struct view){0};
    int socket = connect_to(path);
    if (socket < 0)
        return socket;
    int err;
    while ((err = control_receive(socket, &message, &fd, 1)) == 0 && message.type == CONTROL_GIVE &&
           fd >= 0) {
        err = attach(view, message.name, fd, trace);
        if (err < 0)
            break;
    }
    view->launcher = launcher_of(socket);
    close(socket);
    while (view->workers < CELL_WORKERS_MAX && view->to_worker[view->workers].header)
        view->workers++;
    if (err == 0 && (message.type != CONTROL_START || !is_whole(view, trace)))
        err = -EPROTO;
    if (err < 0) {
        view_close(view);
        return err;
    }
    view->cells = cells_of(&view->cells_region);
    view->hz = strtod(message.asked, NULL);
    return 0;
}

static void close_mapped(struct region *region)
{
    if (region->header)
        region_close(region);
}

void view_close(struct view *view)
{
    close_mapped(&view->cells_region);
    close_mapped(&view->arena);
    for (uint32_t i = 0; i < CELL_WORKERS_MAX; i++) {
        close_mapped(&view->to_worker[i]);
        close_mapped(&view->to_tx[i]);
    }
}

/* ---- counts ---- */

static uint64_t discarded(const struct view *view)
{
    uint64_t sum = 0;
    struct lane lane;

    if (!view->arena.header)
        return 0;
    for (uint32_t i = 0; lane_open(&lane, &view->arena, i) == 0; i++)
        sum += load_acquire(&lane.control->discarded);
    return sum;
}

void view_sample(const struct view *view, struct view_sample *sample)
{
    const struct cells *cells = view->cells;

    for (uint32_t i = 0; i < CELL_MAX; i++) {
        struct cell_lazy lazy;
        if (load_relaxed(&cells->cell[i].used) && cell_read(&cells->cell[i], &lazy) == 0)
            sample->lazy[i] = lazy;
    }
    /* Downstream first: what has left must have come. */
    sample->completed = load_acquire(&cells->cell[CELL_TX].completed);
    sample->dropped = 0;
    for (uint32_t i = 0; i < CELL_WORKERS_MAX; i++)
        sample->dropped += load_acquire(&cells->dropped[i]);
    sample->issued = load_acquire(&cells->cell[CELL_RX].issued);
    sample->discarded = discarded(view);
}

bool view_regimes(const struct cell_lazy *before, const struct cell_lazy *now,
                  double share[REGIME_COUNT])
{
    double whole = 0;

    for (int i = 0; i < REGIME_COUNT; i++) {
        share[i] = (double)position_diff(now->regime_ticks[i], before->regime_ticks[i]);
        whole += share[i];
    }
    for (int i = 0; i < REGIME_COUNT; i++)
        share[i] = whole > 0 ? share[i] / whole : 0;
    return whole > 0;
}

struct view_ring view_ring(const struct region *region)
{
    struct ring_positions positions = {0};

    if (ring_positions(region, &positions) < 0)
        return (struct view_ring){0};
    return (struct view_ring){
        .depth = region->header->geometry[0],
        .used = positions.published - positions.consumed,
    };
}

/* ---- socket drops ---- */

static uint32_t sockets_of(int pid, uint64_t inode[SOCKETS_MAX])
{
    char path[PROC_PATH_MAX];
    uint32_t count = 0;
    struct dirent *entry;

    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *folder = opendir(path);
    if (!folder)
        return 0;
    while (count < SOCKETS_MAX && (entry = readdir(folder)) != NULL) {
        char target[PROC_PATH_MAX] = "";
        if (readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1) > 0 &&
            sscanf(target, "socket:[%" SCNu64 "]", &inode[count]) == 1)
            count++;
    }
    closedir(folder);
    return count;
}

/* Adds up the column `drops` of these sockets; returns how many were found. */
static uint32_t add_drops(int pid, const char *table, const uint64_t *inode, uint32_t count,
                          int64_t *sum)
{
    char path[PROC_PATH_MAX];
    char line[512];
    uint32_t found = 0;

    snprintf(path, sizeof(path), "/proc/%d/net/%s", pid, table);
    FILE *in = fopen(path, "re");
    if (!in)
        return 0;
    while (fgets(line, sizeof(line), in)) {
        uint64_t owner;
        int64_t drops;
        if (sscanf(line, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64 " %*s %*s %" SCNd64, &owner,
                   &drops) != 2)
            continue;
        for (uint32_t i = 0; i < count; i++) {
            if (inode[i] == owner) {
                *sum += drops;
                found++;
            }
        }
    }
    fclose(in);
    return found;
}

int64_t view_socket_drops(const struct view *view)
{
    int pid = load_relaxed(&view->cells->cell[CELL_RX].pid);
    uint64_t inode[SOCKETS_MAX];
    int64_t sum = 0;

    uint32_t count = sockets_of(pid, inode);
    uint32_t found = add_drops(pid, "udp", inode, count, &sum);
    found += add_drops(pid, "udp6", inode, count, &sum);
    return found ? sum : -1;
}
