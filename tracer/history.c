/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/history.h"

#include "tracer/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PARTS = 8, AFTERMATH_NS = 100000000, SETTLE_NS = 40000000 };
#define PAUSE_NS UINT64_C(1000000000)

static int folder_of(const struct history *history, const struct history_lane *lane)
{
    return lane->plain ? history->plain_folder : history->trace_folder;
}

static const char *name_of(const struct history_lane *lane)
{
    return lane->file.lane.entry->name;
}

/* ---- chunks ---- */

static void remove_oldest(struct history *history, struct history_lane *lane)
{
    char name[CHUNK_NAME_BYTES];

    chunk_name(name_of(lane), lane->old[0].first, name);
    unlinkat(folder_of(history, lane), name, 0);
    lane->old_count--;
    memmove(lane->old, lane->old + 1, lane->old_count * sizeof(lane->old[0]));
}

static int begin_chunk(const struct history *history, struct history_lane *lane)
{
    char name[CHUNK_NAME_BYTES];

    chunk_name(name_of(lane), lane->file.written, name);
    return file_next(&lane->file, folder_of(history, lane), name);
}

/* Ends the open chunk and begins the next; an empty one goes on. */
static int next_chunk(struct history *history, struct history_lane *lane, uint64_t now)
{
    if (lane->file.fd < 0 || lane->file.written == lane->file.first)
        return 0;
    int err = file_finish(&lane->file, false);
    if (lane->old_count == HISTORY_CHUNKS)
        remove_oldest(history, lane);
    lane->old[lane->old_count++] =
        (struct history_chunk){lane->file.first, lane->file.bytes, lane->file.end};
    lane->began = now;
    return err < 0 ? err : begin_chunk(history, lane);
}

/* ---- what a predecessor left ---- */

/* Their files carry the time of day at which they were ended. */
static void list_old(const struct history *history, struct history_lane *lane,
                     const struct chunks *chunks, uint32_t count, const struct clock *clock)
{
    struct clock_pair now = clock_pair_read(NULL);
    char name[CHUNK_NAME_BYTES];
    struct stat st;

    for (uint32_t i = 0; i < count; i++) {
        chunk_name(name_of(lane), chunks->first[i], name);
        if (fstatat(folder_of(history, lane), name, &st, 0) < 0)
            continue;
        uint64_t ended_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec;
        uint64_t ago_ns = ended_ns < now.real_ns ? now.real_ns - ended_ns : 0;
        lane->old[lane->old_count++] = (struct history_chunk){
            .first = chunks->first[i],
            .bytes = (uint64_t)st.st_size,
            .end = clock ? now.tsc - clock_ticks(clock, ago_ns) : 0,
        };
    }
}

static int open_number(const struct history *history, struct history_lane *mine,
                       const struct lane *lane, const struct history_plan *plan, uint64_t first)
{
    char name[CHUNK_NAME_BYTES];

    chunk_name(lane->entry->name, first, name);
    return file_open_from(&mine->file, folder_of(history, mine), name, lane, &plan->uuid, first);
}

/* Begins `first`, of which a predecessor made no more than the name: from the chunk before it, or as it is. */
static int begin_again(struct history *history, struct history_lane *mine, const struct lane *lane,
                       const struct history_plan *plan, const struct chunks *before)
{
    close(mine->file.fd);
    free(mine->file.header);
    if (before->count == 0) {
        mine->file.end = tsc_read();
        return begin_chunk(history, mine);
    }
    int err = open_number(history, mine, lane, plan, before->first[before->count - 1]);
    return err < 0 ? err : next_chunk(history, mine, mine->began);
}

/* The highest chunk is the open one. */
static int open_chunk(struct history *history, struct history_lane *mine, const struct lane *lane,
                      const struct history_plan *plan)
{
    struct chunks chunks;
    uint64_t drained = load_relaxed(&lane->control->drained);

    int err = chunk_list(folder_of(history, mine), lane->entry->name, &chunks);
    if (err < 0)
        return err;
    uint64_t first = chunks.count ? chunks.first[--chunks.count] : drained;
    if (first > drained)
        return -EINVAL;
    err = open_number(history, mine, lane, plan, first);
    if (err != -EPROTO || first != drained) {
        list_old(history, mine, &chunks, chunks.count, plan->clock);
        return err;
    }
    list_old(history, mine, &chunks, chunks.count ? chunks.count - 1 : 0, plan->clock);
    return begin_again(history, mine, lane, plan, &chunks);
}

/* LANE.bin, made of the chunks, in wire/ingress/ while it is worked on, and its place in wire/. */
static void whole_names(const struct history_lane *lane, char name[CHUNK_NAME_BYTES],
                        char up[CHUNK_NAME_BYTES])
{
    snprintf(name, CHUNK_NAME_BYTES, "%.32s.bin", name_of(lane));
    snprintf(up, CHUNK_NAME_BYTES, "../%.32s.bin", name_of(lane));
}

/* A tracer that has become another user may not write to wire/: then the launcher does it when it takes
 * the folder back. */
static void move_up(const struct history *history, const struct history_lane *lane)
{
    char name[CHUNK_NAME_BYTES], up[CHUNK_NAME_BYTES];

    whole_names(lane, name, up);
    (void)renameat(history->plain_folder, name, history->plain_folder, up);
}

/* What a predecessor had moved up is worked on again. */
static void move_down(const struct history *history, const struct history_lane *lane)
{
    char name[CHUNK_NAME_BYTES], up[CHUNK_NAME_BYTES];

    whole_names(lane, name, up);
    (void)renameat(history->plain_folder, up, history->plain_folder, name);
}

static int open_lane(struct history *history, const struct lane *lane,
                     const struct history_plan *plan)
{
    struct history_lane *mine = &history->lane[history->lanes];
    char name[CHUNK_NAME_BYTES];
    int err;

    *mine = (struct history_lane){.plain = lane->entry->kind == LANE_PLAIN, .began = tsc_read()};
    mine->file.lane = *lane;
    snprintf(name, sizeof(name), "%s%s", lane->entry->name, mine->plain ? ".bin" : "");
    if (history->bounded && mine->plain)
        move_down(history, mine);
    if (history->bounded)
        err = open_chunk(history, mine, lane, plan);
    else
        err = file_open(&mine->file, folder_of(history, mine), name, lane, &plan->uuid);
    if (err < 0 && (err != -EPROTO || plan->config))
        return err;
    history->direct = history->direct && mine->file.direct;
    history->lanes++;
    return 0;
}

static void plan_bounds(struct history *history, const struct history_plan *plan)
{
    const struct config *config = plan->config;

    history->bounded = config->trace.keep_ns || config->trace.max_bytes;
    history->keep_ticks = clock_ticks(plan->clock, config->trace.keep_ns);
    history->max_bytes = config->trace.max_bytes;
    history->slow = config->trace.snapshot_over_ns ? &plan->cells->slow : NULL;
    history->aftermath_ticks = clock_ticks(plan->clock, AFTERMATH_NS);
    history->settle_ticks = clock_ticks(plan->clock, SETTLE_NS);
    history->pause_ticks = clock_ticks(plan->clock, PAUSE_NS);
    history->snapshots_max = config->trace.snapshots;
}

/* Opens it, and makes it first where it is not there. */
static int open_folder(int at, const char *name)
{
    if (mkdirat(at, name, 0755) < 0 && errno != EEXIST)
        return -errno;
    int fd = openat(at, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

static int open_folders(struct history *history, const struct history_plan *plan)
{
    struct chunks chunks;

    history->trace_folder = open_folder(plan->run_folder, "trace");
    if (history->trace_folder < 0)
        return history->trace_folder;
    if (plan->config)
        plan_bounds(history, plan);
    else
        history->bounded =
            chunk_list(history->trace_folder, NULL, &chunks) == 0 && chunks.count > 0;
    history->plain_folder =
        open_folder(plan->run_folder, history->bounded ? "wire/ingress" : "wire");
    if (history->plain_folder < 0)
        return history->plain_folder;
    history->snapshot_folder =
        history->slow ? open_folder(plan->run_folder, "snapshots")
                      : openat(plan->run_folder, "snapshots", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    return history->slow && history->snapshot_folder < 0 ? history->snapshot_folder : 0;
}

int history_open(struct history *history, const struct history_plan *plan)
{
    struct lane lane;

    *history = (struct history){.direct = true};
    int err = open_folders(history, plan);
    if (err == 0)
        err = snapshot_recover(history);
    for (uint32_t i = 0; err == 0 && lane_open(&lane, plan->arena, i) == 0; i++) {
        err = lane_writable(&lane, plan->arena, false);
        if (err == 0)
            err = open_lane(history, &lane, plan);
    }
    history->chunk_ticks = history->keep_ticks / PARTS;
    if (history->lanes)
        history->chunk_bytes = history->max_bytes / PARTS / history->lanes;
    if (history->slow)
        history->slow_seen = load_acquire(&history->slow->count);
    return err;
}

/* ---- how much stays ---- */

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
    int first = 0;

    for (uint32_t i = 0; i < history->lanes; i++) {
        struct history_lane *lane = &history->lane[i];
        bool old = history->chunk_ticks && now - lane->began > history->chunk_ticks;
        bool big = history->chunk_bytes && lane->file.bytes > history->chunk_bytes;
        int err = old || big ? next_chunk(history, lane, now) : 0;
        first = first ? first : err;
    }
    trim(history, now);
    return first;
}

/* ---- snapshots ---- */

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
        return snapshot_link(history);
    }
    return 0;
}

/* ---- turns ---- */

static int drain_lane(const struct history *history, struct history_lane *lane)
{
    int err = lane->file.fd < 0 ? begin_chunk(history, lane) : 0;

    return err < 0 ? err : file_drain(&lane->file);
}

int history_drain(struct history *history)
{
    int moved = 0;
    int first = 0;

    for (uint32_t i = 0; i < history->lanes; i++) {
        int done = drain_lane(history, &history->lane[i]);
        if (done < 0)
            first = first ? first : done;
        else
            moved += done;
    }
    if (!history->bounded)
        return first ? first : moved;
    /* Also where the disk is full: what is trimmed makes room. */
    uint64_t now = tsc_read();
    int err = tend_chunks(history, now);
    if (err == 0 && history->slow)
        err = tend_snapshot(history, now);
    first = first ? first : err;
    return first ? first : moved;
}

uint64_t history_discarded(const struct history *history)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < history->lanes; i++)
        sum += load_acquire(&history->lane[i].file.lane.control->discarded);
    return sum;
}

static int close_lane(struct history *history, struct history_lane *lane)
{
    int err;

    /* An owner that died left its last sub-buffer open. */
    lane_close_abandoned(&lane->file.lane, tsc_read());
    while ((err = drain_lane(history, lane)) > 0)
        continue;
    int finished = file_finish(&lane->file, true);
    err = err < 0 ? err : finished;
    if (err < 0 || !history->bounded || !lane->plain)
        return err;
    lane->old_count = 0;
    err = chunk_join_plain(history->plain_folder, name_of(lane));
    if (err == 0)
        move_up(history, lane);
    return err;
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
