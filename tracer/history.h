/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the trace stays on disk.
 *
 * trace.keep = all: one file a lane, as long as the run. Else (keep = last 10s, or max_bytes set) each lane is written in chunks, files of
 * their own called LANE.NNNNNNNNNNNN by the sub-buffer they begin with, each a whole CTF stream; a new one begins every eighth of the time
 * or of the bytes, and the oldest are removed. So a pipeline can be up for weeks. Chunks of ingress stand in wire/ingress/.
 *
 * A successor finds the chunks by their names: the highest is the open one. It goes on from whatever its predecessor left, between any two
 * steps of all this; a snapshot that was not whole is dropped.
 *
 * A snapshot (trace.snapshot_over) has every owner seal what is open, ends the chunks, and links all of them into
 * snapshots/NNN-request-R beside the trace: nothing is copied, and they stay when the chunks are removed.
 *
 * Functions return 0 or -errno. One thread; file_drain() goes on while a snapshot waits for the owners.
 */
#ifndef TICKLINE_TRACER_HISTORY_H
#define TICKLINE_TRACER_HISTORY_H

#include "shm/cell.h"
#include "stage/config.h"
#include "tracer/chunk.h"
#include "tracer/file.h"

enum { HISTORY_CHUNKS = CHUNKS_MAX - 1 };

struct history_chunk {
    uint64_t first; /* sub-buffer it begins with, and the number in its name */
    uint64_t bytes;
    uint64_t end; /* newest tsc in it */
};

struct history_lane {
    struct trace_file file;
    bool plain;
    uint64_t began;     /* tsc at which it was opened */
    uint32_t old_count; /* whole chunks still on disk, oldest first */
    struct history_chunk old[HISTORY_CHUNKS];
};

struct history {
    struct history_lane lane[LANE_MAX];
    uint32_t lanes;
    int trace_folder;
    int plain_folder;    /* wire/, or wire/ingress/ for chunks */
    int snapshot_folder; /* -1: there is none */
    bool bounded;
    bool direct;         /* all files take O_DIRECT */
    uint64_t keep_ticks; /* 0: any age */
    uint64_t max_bytes;  /* 0: any size */
    uint64_t chunk_ticks;
    uint64_t chunk_bytes;

    /* flight recorder */
    const struct cell_slow *slow; /* NULL: off */
    uint64_t slow_seen;
    uint64_t request; /* that triggered the snapshot under way */
    uint64_t seal_at; /* tsc; 0: no snapshot under way */
    uint64_t link_at;
    uint64_t not_before;
    uint64_t aftermath_ticks;
    uint64_t settle_ticks;
    uint64_t pause_ticks;
    uint32_t snapshots;
    uint32_t snapshots_max;
};

struct history_plan {
    const struct config *config; /* NULL, to salvage: as the files are */
    const struct clock *clock;   /* as config */
    const struct region *arena;
    const struct cells *cells; /* as config */
    struct ctf_uuid uuid;
    int run_folder;
};

/* To salvage, a file whose end is not where it must be (-EPROTO otherwise) is gone on with. */
int history_open(struct history *history, const struct history_plan *plan);

/* One turn over all lanes: sub-buffers written, or 0. Where a write fails the others are done all the same, and
 * the next turn tries again. */
int history_drain(struct history *history);

/* Records that lanes had no room for, so far. */
uint64_t history_discarded(const struct history *history);

/* After all owners have ended: what is left, last discards, whole files. */
int history_close(struct history *history);

#endif
