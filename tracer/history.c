/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/history.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 64, PARTS = 8, AFTERMATH_NS = 100000000, SETTLE_NS = 40000000 };
#define PAUSE_NS UINT64_C(1000000000)

static int folder_of(const struct history *history, const struct history_lane *lane)
{
    return lane->plain ? history->wire_folder : history->trace_folder;
}

static void chunk_name(const struct history_lane *lane, uint32_t number, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "%s.%06u", lane->file.lane.entry->name, number);
}

static int open_lane(struct history *history, const struct lane *lane, const struct ctf_uuid *uuid)
{
    struct history_lane *mine = &history->lane[history->lanes];
    char name[NAME_BYTES];

    *mine = (struct history_lane){.plain = lane->entry->kind == LANE_PLAIN, .began = tsc_read()};
    if (history->bounded)
        snprintf(name, sizeof(name), "%s.%06u", lane->entry->name, mine->chunk);
    else
        snprintf(name, sizeof(name), "%s%s", lane->entry->name, mine->plain ? ".bin" : "");
    int err = file_open(&mine->file, folder_of(history, mine), name, lane, uuid);
    if (err < 0)
        return err;
    history->direct = history->direct && mine->file.direct;
    history->lanes++;
    return 0;
}

int history_open(struct history *history, const struct history_plan *plan)
{
    const struct config *config = plan->config;
    struct lane lane;
    int err = 0;

    *history = (struct history){
        .run_folder = plan->run_folder,
        .trace_folder = openat(plan->run_folder, "trace", O_DIRECTORY | O_RDONLY | O_CLOEXEC),
        .wire_folder = openat(plan->run_folder, "wire", O_DIRECTORY | O_RDONLY | O_CLOEXEC),
        .bounded = config->trace.keep_ns || config->trace.max_bytes,
        .direct = true,
        .keep_ticks = clock_ticks(plan->clock, config->trace.keep_ns),
        .max_bytes = config->trace.max_bytes,
        .slow = config->trace.snapshot_over_ns ? &plan->cells->slow : NULL,
        .aftermath_ticks = clock_ticks(plan->clock, AFTERMATH_NS),
        .settle_ticks = clock_ticks(plan->clock, SETTLE_NS),
        .pause_ticks = clock_ticks(plan->clock, PAUSE_NS),
        .snapshots_max = config->trace.snapshots,
    };
    if (history->trace_folder < 0 || history->wire_folder < 0)
        return -errno;
    for (uint32_t i = 0; err == 0 && lane_open(&lane, plan->arena, i) == 0; i++)
        err = open_lane(history, &lane, &plan->uuid);
    history->chunk_ticks = history->keep_ticks / PARTS;
    if (history->lanes)
        history->chunk_bytes = history->max_bytes / PARTS / history->lanes;
    if (history->slow)
        history->slow_seen = load_acquire(&history->slow->count);
    return err;
}

/* ---- chunks ---- */

static void remove_oldest(struct history *history, struct history_lane *lane)
{
    char name[NAME_BYTES];

    chunk_name(lane, lane->old[0].number, name);
    unlinkat(folder_of(history, lane), name, 0);
    lane->old_count--;
    memmove(lane->old, lane->old + 1, lane->old_count * sizeof(lane->old[0]));
}

/* Ends the open chunk and begins the next; an empty one goes on. */
static int next_chunk(struct history *history, struct history_lane *lane, uint64_t now)
{
    char name[NAME_BYTES];

    if (lane->file.written == lane->file.first)
        return 0;
    int err = file_finish(&lane->file, false);
    if (err < 0)
        return err;
    if (lane->old_count == HISTORY_CHUNKS)
        remove_oldest(history, lane);
    lane->old[lane->old_count++] =
        (struct history_chunk){lane->chunk, lane->file.bytes, lane->file.end};
    lane->chunk++;
    lane->began = now;
    chunk_name(lane, lane->chunk, name);
    return file_next(&lane->file, folder_of(history, lane), name);
}

static uint64_t bytes_on_disk(const struct history *history)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < history->lanes; i++) {
        const struct history_lane *lane = &history->lane[i];
        bytes += lane->file.bytes;
        for (uint32_t k = 0; k < lane->old_count; k++)
            bytes += lane->old[k].bytes;
    }
    return bytes;
}

static struct history_lane *lane_with_oldest(struct history *history)
{
    struct history_lane *oldest = NULL;

    for (uint32_t i = 0; i < history->lanes; i++) {
        struct history_lane *lane = &history->lane[i];
        if (lane->old_count && (!oldest || position_diff(lane->old[0].end, oldest->old[0].end) < 0))
            oldest = lane;
    }
    return oldest;
}

/* Too old goes first; then, where it still is too much, the oldest of all. */
static void trim(struct history *history, uint64_t now)
{
    struct history_lane *oldest;

    while (history->keep_ticks && (oldest = lane_with_oldest(history)) != NULL &&
           now - oldest->old[0].end > history->keep_ticks)
        remove_oldest(history, oldest);
    while (history->max_bytes && bytes_on_disk(history) > history->max_bytes &&
           (oldest = lane_with_oldest(history)) != NULL)
        remove_oldest(history, oldest);
}

static int tend_chunks(struct history *history, uint64_t now)
{
    for (uint32_t i = 0; i < history->lanes; i++) {
        struct history_lane *lane = &history->lane[i];
        bool old = history->chunk_ticks && now - lane->began > history->chunk_ticks;
        bool big = history->chunk_bytes && lane->file.bytes > history->chunk_bytes;
        int err = old || big ? next_chunk(history, lane, now) : 0;
        if (err < 0)
            return err;
    }
    trim(history, now);
    return 0;
}

/* ---- snapshots ---- */

static int link_lane(const struct history *history, const struct history_lane *lane, int folder)
{
    char name[NAME_BYTES];

    for (uint32_t k = 0; k < lane->old_count; k++) {
        chunk_name(lane, lane->old[k].number, name);
        if (linkat(folder_of(history, lane), name, folder, name, 0) < 0)
            return -errno;
    }
    return 0;
}

static int make_folder(int at, const char *name)
{
    return mkdirat(at, name, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* snapshots/NNN-request-R: linked under a name of its own first, so that a reader never meets half of it. */
static int link_snapshot(struct history *history)
{
    char name[NAME_BYTES];

    int err = make_folder(history->run_folder, "snapshots");
    if (err == 0)
        err = make_folder(history->run_folder, "snapshots/new");
    if (err < 0)
        return err;
    int folder = openat(history->run_folder, "snapshots/new", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (folder < 0)
        return -errno;
    if (linkat(history->trace_folder, "metadata", folder, "metadata", 0) < 0)
        err = -errno;
    for (uint32_t i = 0; err == 0 && i < history->lanes; i++) {
        if (!history->lane[i].plain)
            err = link_lane(history, &history->lane[i], folder);
    }
    close(folder);
    snprintf(name, sizeof(name), "snapshots/%03u-request-%" PRIu64, history->snapshots,
             history->request);
    if (err == 0 && renameat(history->run_folder, "snapshots/new", history->run_folder, name) < 0)
        err = -errno;
    history->snapshots += err == 0;
    return err;
}

static void ask_seals(const struct history *history)
{
    for (uint32_t i = 0; i < history->lanes; i++) {
        _Atomic uint64_t *asked = &history->lane[i].file.lane.control->seal_asked;
        store_release(asked, load_relaxed(asked) + 1);
    }
}

/* Triggered → (aftermath) → owners seal → (settle) → chunks end and are linked. */
static int tend_snapshot(struct history *history, uint64_t now)
{
    if (!history->seal_at && !history->link_at) {
        uint64_t count = load_acquire(&history->slow->count);
        if (count == history->slow_seen || now < history->not_before ||
            history->snapshots == history->snapshots_max)
            return 0;
        history->slow_seen = count;
        history->request = load_relaxed(&history->slow->request);
        history->seal_at = now + history->aftermath_ticks;
    } else if (history->seal_at && now > history->seal_at) {
        ask_seals(history);
        history->seal_at = 0;
        history->link_at = now + history->settle_ticks;
    } else if (history->link_at && now > history->link_at) {
        history->link_at = 0;
        history->not_before = now + history->pause_ticks;
        history->slow_seen = load_acquire(&history->slow->count);
        for (uint32_t i = 0; i < history->lanes; i++) {
            int err = next_chunk(history, &history->lane[i], now);
            if (err < 0)
                return err;
        }
        return link_snapshot(history);
    }
    return 0;
}

/* ---- turns ---- */

int history_drain(struct history *history)
{
    int moved = 0;

    for (uint32_t i = 0; i < history->lanes; i++) {
        int done = file_drain(&history->lane[i].file);
        if (done < 0)
            return done;
        moved += done;
    }
    if (!history->bounded)
        return moved;
    uint64_t now = tsc_read();
    int err = tend_chunks(history, now);
    if (err == 0 && history->slow)
        err = tend_snapshot(history, now);
    return err < 0 ? err : moved;
}

/* The chunks of a plain lane become the one array that readers expect. */
static int join_plain(struct history *history, struct history_lane *lane)
{
    char name[NAME_BYTES];
    char whole[NAME_BYTES];

    snprintf(whole, sizeof(whole), "%s.bin", lane->file.lane.entry->name);
    int out = openat(history->wire_folder, whole, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int err = out < 0 ? -errno : 0;
    while (err == 0 && lane->old_count) {
        chunk_name(lane, lane->old[0].number, name);
        int in = openat(history->wire_folder, name, O_RDONLY | O_CLOEXEC);
        ssize_t copied = 1;
        while (in >= 0 && copied > 0)
            copied = copy_file_range(in, NULL, out, NULL, 1 << 30, 0);
        if (in < 0 || copied < 0)
            err = -errno;
        if (in >= 0)
            close(in);
        remove_oldest(history, lane);
    }
    if (out >= 0)
        close(out);
    return err;
}

static int close_lane(struct history *history, struct history_lane *lane)
{
    int err;

    /* An owner that died left its last sub-buffer open. */
    lane_seal_abandoned(&lane->file.lane, tsc_read());
    while ((err = file_drain(&lane->file)) > 0)
        continue;
    if (err == 0)
        err = file_finish(&lane->file, true);
    if (err < 0 || !history->bounded || !lane->plain)
        return err;
    if (lane->old_count == HISTORY_CHUNKS)
        remove_oldest(history, lane);
    lane->old[lane->old_count++].number = lane->chunk;
    return join_plain(history, lane);
}

int history_close(struct history *history)
{
    int first = 0;

    for (uint32_t i = 0; i < history->lanes; i++) {
        int err = close_lane(history, &history->lane[i]);
        first = first ? first : err;
    }
    return first;
}
