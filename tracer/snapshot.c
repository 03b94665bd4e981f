/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int link_lane(const struct history *history, const struct history_lane *lane, int folder)
{
    char name[CHUNK_NAME_BYTES];

    for (uint32_t k = 0; k < lane->old_count; k++) {
        chunk_name(lane->file.lane.entry->name, lane->old[k].first, name);
        if (linkat(history->trace_folder, name, folder, name, 0) < 0)
            return -errno;
    }
    return 0;
}

int snapshot_link(struct history *history)
{
    int snapshots = history->snapshot_folder;
    char name[CHUNK_NAME_BYTES];

    if (mkdirat(snapshots, "new", 0755) < 0 && errno != EEXIST)
        return -errno;
    int folder = openat(snapshots, "new", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (folder < 0)
        return -errno;
    int err = 0;
    if (linkat(history->trace_folder, "metadata", folder, "metadata", 0) < 0)
        err = -errno;
    for (uint32_t i = 0; err == 0 && i < history->lanes; i++) {
        if (!history->lane[i].plain)
            err = link_lane(history, &history->lane[i], folder);
    }
    close(folder);
    snprintf(name, sizeof(name), "%03u-request-%" PRIu64, history->snapshots, history->request);
    if (err == 0 && renameat(snapshots, "new", snapshots, name) < 0)
        err = -errno;
    history->snapshots += err == 0;
    return err;
}

/* A snapshot whose links were not all made. */
static int drop_half(int snapshots)
{
    int folder = openat(snapshots, "new", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    const struct dirent *entry;

    if (!entries)
        return errno == ENOENT ? 0 : -errno;
    while ((entry = readdir(entries)) != NULL)
        unlinkat(folder, entry->d_name, 0);
    closedir(entries);
    return unlinkat(snapshots, "new", AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* Number of the next snapshot: one more than the newest. */
static uint32_t count(int snapshots)
{
    int folder = openat(snapshots, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    const struct dirent *entry;
    uint32_t next = 0;

    if (!entries)
        return 0;
    while ((entry = readdir(entries)) != NULL) {
        unsigned long number = strtoul(entry->d_name, NULL, 10);
        if (strstr(entry->d_name, "-request-") && number >= next)
            next = (uint32_t)number + 1;
    }
    closedir(entries);
    return next;
}

int snapshot_recover(struct history *history)
{
    if (history->snapshot_folder < 0)
        return 0;
    history->snapshots = count(history->snapshot_folder);
    return drop_half(history->snapshot_folder);
}
