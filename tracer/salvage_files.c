/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/salvage_files.h"

#include "tracer/chunk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct salvage_lane *salvage_lane(struct salvage *salvage, const char *name, size_t length)
{
    for (uint32_t i = 0; i < salvage->lanes; i++) {
        struct salvage_lane *lane = &salvage->lane[i];
        if (strlen(lane->name) == length && memcmp(lane->name, name, length) == 0)
            return lane;
    }
    if (salvage->lanes == SALVAGE_LANES_MAX || length >= sizeof(salvage->lane[0].name))
        return NULL;
    struct salvage_lane *lane = &salvage->lane[salvage->lanes++];
    *lane = (struct salvage_lane){0};
    memcpy(lane->name, name, length);
    return lane;
}

__attribute__((format(printf, 2, 3))) static void say(struct salvage *salvage, const char *format,
                                                      ...)
{
    va_list arguments;

    if (salvage->lines == SALVAGE_LINES_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(salvage->line[salvage->lines++], SALVAGE_LINE_BYTES, format, arguments);
    va_end(arguments);
}

/* ---- trace/ ---- */

/* A stream is named by its process, with a chunk's number behind a dot. */
static bool is_stream(const char *name, size_t *stem, uint64_t *first)
{
    if (strcmp(name, "metadata") == 0)
        return false;
    *first = 0;
    *stem = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return *stem > 0 && (name[*stem] == '\0' || chunk_parse(name, stem, first));
}

static int only_streams(const struct dirent *entry)
{
    size_t stem;
    uint64_t first;

    return is_stream(entry->d_name, &stem, &first);
}

static void say_what_was_lost(struct salvage *salvage, const char *folder, const char *name,
                              const struct repair *done)
{
    char first[64] = "", lost[96] = "", cut[96] = "";

    if (done->first_made)
        snprintf(first, sizeof(first), "; its first, empty packet was written again");
    if (done->lost_packets)
        snprintf(lost, sizeof(lost), "; %" PRIu64 " packets are lost at byte %" PRIu64,
                 done->lost_packets, done->lost_at);
    if (done->cut_bytes)
        snprintf(cut, sizeof(cut), "; %" PRIu64 " bytes behind the last whole packet were cut off",
                 done->cut_bytes);
    if (first[0] || lost[0] || cut[0])
        say(salvage, "%s/%s: %" PRIu64 " records are whole%s%s%s", folder, name, done->records,
            first, lost, cut);
}

static void add(struct repair *sum, const struct repair *part)
{
    sum->packets += part->packets;
    sum->records += part->records;
    sum->lost_packets += part->lost_packets;
    sum->cut_bytes += part->cut_bytes;
    if (part->discarded > sum->discarded)
        sum->discarded = part->discarded;
    if (sum->begin == 0)
        sum->begin = part->begin;
    if (part->end)
        sum->end = part->end;
}

static void add_pairs(struct salvage *salvage, const struct repair *done)
{
    if (salvage->pair[0].tsc == 0 && done->pair[0].tsc)
        salvage->pair[0] = done->pair[0];
    if (done->pair[1].tsc)
        salvage->pair[1] = done->pair[1];
}

/* `counted`: these are the trace itself and no snapshot of it. */
static int repair_streams(struct salvage *salvage, int folder, const char *path, bool counted)
{
    struct dirent **entries;
    struct repair done;
    int err = 0;

    int count = scandirat(folder, ".", &entries, only_streams, alphasort);
    if (count < 0)
        return -errno;
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        size_t stem = 0;
        uint64_t first = 0;
        (void)is_stream(name, &stem, &first);
        int this = err == 0 ? repair_stream(folder, name, &salvage->facts.uuid, first, &done) : err;
        if (this == -ESTALE) {
            say(salvage, "%s/%s: is another trace's and was left as it is", path, name);
        } else if (this < 0) {
            err = this;
        } else {
            say_what_was_lost(salvage, path, name, &done);
            struct salvage_lane *lane = counted ? salvage_lane(salvage, name, stem) : NULL;
            if (lane) {
                add(&lane->done, &done);
                add_pairs(salvage, &done);
            }
        }
        free(entries[i]);
    }
    free(entries);
    return err;
}

int salvage_find_uuid(const struct salvage *salvage, struct ctf_uuid *uuid)
{
    struct dirent **entries;
    int err = -ENOENT;

    int count = scandirat(salvage->trace_folder, ".", &entries, only_streams, alphasort);
    for (int i = 0; i < count; i++) {
        if (err < 0)
            err = repair_find_uuid(salvage->trace_folder, entries[i]->d_name, uuid);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return err;
}

/* ---- snapshots/ ---- */

static int only_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int repair_snapshots(struct salvage *salvage)
{
    struct dirent **entries;
    int err = 0;

    int count = scandirat(salvage->run_folder, "snapshots", &entries, only_visible, alphasort);
    if (count < 0)
        return errno == ENOENT ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        char path[300];
        snprintf(path, sizeof(path), "snapshots/%s", entries[i]->d_name);
        int folder =
            openat(salvage->run_folder, path, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (folder >= 0) {
            if (err == 0)
                err = repair_streams(salvage, folder, path, false);
            close(folder);
        }
        free(entries[i]);
    }
    free(entries);
    return err;
}

/* ---- wire/ ---- */

/* Chunks of a bounded run become the one array. */
static int gather_ingress(int wire)
{
    int folder = openat(wire, "ingress", O_DIRECTORY | O_RDONLY | O_CLOEXEC);

    unlinkat(wire, "ingress.bin.new", 0);
    if (folder < 0)
        return errno == ENOENT ? 0 : -errno;
    unlinkat(folder, "ingress.bin.new", 0);
    /* What was joined before comes first. */
    (void)renameat(wire, "ingress.bin", folder, "ingress.bin");
    int err = chunk_join_plain(folder, "ingress");
    close(folder);
    if (err == 0 && renameat(wire, "ingress/ingress.bin", wire, "ingress.bin") < 0 &&
        errno != ENOENT)
        err = -errno;
    if (err == 0)
        (void)unlinkat(wire, "ingress", AT_REMOVEDIR);
    return err;
}

static int repair_ingress(struct salvage *salvage)
{
    struct repair done;

    int err = gather_ingress(salvage->wire_folder);
    if (err < 0)
        return err;
    err = repair_plain(salvage->wire_folder, "ingress.bin", &done);
    if (err < 0)
        return err == -ENOENT ? 0 : err;
    if (done.cut_bytes)
        say(salvage,
            "wire/ingress.bin: %" PRIu64 " records are whole; %" PRIu64 " bytes between and "
            "behind them were cut off",
            done.records, done.cut_bytes);
    struct salvage_lane *lane = salvage_lane(salvage, "ingress", strlen("ingress"));
    if (lane) {
        lane->plain = true;
        lane->done = done;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct salvage_lane *)a)->name, ((const struct salvage_lane *)b)->name);
}

int salvage_files(struct salvage *salvage)
{
    unlinkat(salvage->trace_folder, "metadata.new", 0);
    int err = repair_streams(salvage, salvage->trace_folder, "trace", true);
    if (err == 0)
        err = repair_snapshots(salvage);
    if (err == 0 && salvage->wire_folder >= 0)
        err = repair_ingress(salvage);
    qsort(salvage->lane, salvage->lanes, sizeof(salvage->lane[0]), by_name);
    return err;
}
