/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/chunk.h"

#include "tracer/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIGITS = 12 };

void chunk_name(const char *lane, uint64_t first, char name[CHUNK_NAME_BYTES])
{
    snprintf(name, CHUNK_NAME_BYTES, "%.32s.%0*" PRIu64, lane, DIGITS, first);
}

bool chunk_parse(const char *name, size_t *stem, uint64_t *first)
{
    const char *dot = strchr(name, '.');

    if (!dot || strlen(dot + 1) != DIGITS || strspn(dot + 1, "0123456789") != DIGITS)
        return false;
    *stem = (size_t)(dot - name);
    *first = strtoull(dot + 1, NULL, 10);
    return true;
}

/* Where all places are taken, the oldest goes. */
static void insert(struct chunks *chunks, uint64_t first)
{
    if (chunks->count == CHUNKS_MAX) {
        if (first < chunks->first[0])
            return;
        chunks->count--;
        memmove(chunks->first, chunks->first + 1, chunks->count * sizeof(first));
    }
    uint32_t at = chunks->count++;
    for (; at > 0 && chunks->first[at - 1] > first; at--)
        chunks->first[at] = chunks->first[at - 1];
    chunks->first[at] = first;
}

int chunk_list(int folder, const char *lane, struct chunks *chunks)
{
    int copy = openat(folder, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    const struct dirent *entry;
    size_t stem;
    uint64_t first;

    *chunks = (struct chunks){0};
    if (!entries)
        return -errno;
    while ((entry = readdir(entries)) != NULL) {
        if (chunk_parse(entry->d_name, &stem, &first) &&
            (!lane || (strlen(lane) == stem && memcmp(lane, entry->d_name, stem) == 0)))
            insert(chunks, first);
    }
    closedir(entries);
    return 0;
}

static int append(int folder, const char *name, int out, struct plain_tail *tail)
{
    int in = openat(folder, name, O_RDONLY | O_CLOEXEC);

    if (in < 0)
        return errno == ENOENT ? 0 : -errno;
    int err = plain_append(in, UINT64_MAX, out, tail);
    close(in);
    return err;
}

int chunk_join_plain(int folder, const char *lane)
{
    char name[CHUNK_NAME_BYTES], whole[CHUNK_NAME_BYTES], fresh[CHUNK_NAME_BYTES];
    struct plain_tail tail = {0};
    struct chunks chunks;

    snprintf(whole, sizeof(whole), "%.32s.bin", lane);
    snprintf(fresh, sizeof(fresh), "%.32s.bin.new", lane);
    int err = chunk_list(folder, lane, &chunks);
    if (err < 0 || chunks.count == 0)
        return err;
    int out = openat(folder, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out < 0)
        return -errno;
    err = append(folder, whole, out, &tail);
    for (uint32_t i = 0; err == 0 && i < chunks.count; i++) {
        chunk_name(lane, chunks.first[i], name);
        err = append(folder, name, out, &tail);
    }
    close(out);
    if (err == 0 && renameat(folder, fresh, folder, whole) < 0)
        err = -errno;
    if (err < 0) /* no room, perhaps: the chunks are there still */
        unlinkat(folder, fresh, 0);
    for (uint32_t i = 0; err == 0 && i < chunks.count; i++) {
        chunk_name(lane, chunks.first[i], name);
        unlinkat(folder, name, 0);
    }
    return err;
}
