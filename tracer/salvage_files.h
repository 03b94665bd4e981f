/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A salvage under way, and its part that goes over the files of the run directory: all of trace/ and snapshots/, and
 * wire/ingress.bin. Functions return 0 or -errno.
 */
#ifndef TICKLINE_TRACER_SALVAGE_FILES_H
#define TICKLINE_TRACER_SALVAGE_FILES_H

#include "tracer/repair.h"

enum { SALVAGE_LANES_MAX = LANE_MAX, SALVAGE_LINES_MAX = 256, SALVAGE_LINE_BYTES = 200 };

struct salvage_lane {
    char name[16];
    bool plain;
    bool torn;
    struct repair done; /* of all its files together */
};

struct salvage {
    const char *run_directory;
    const char *arena_path; /* empty: none */
    const char *name;
    bool quiet;
    struct region arena; /* header NULL: none */
    int run_folder;
    int trace_folder;
    int wire_folder; /* -1: none */
    struct ctf_facts facts;
    struct clock_pair pair[2]; /* first and last of the trace; tsc 0: none */
    uint32_t lanes;
    struct salvage_lane lane[SALVAGE_LANES_MAX];
    uint32_t lines;
    char line[SALVAGE_LINES_MAX][SALVAGE_LINE_BYTES]; /* what was lost, one a file */
};

/* The lane of this name, made where it is new; NULL: there are too many. */
struct salvage_lane *salvage_lane(struct salvage *salvage, const char *name, size_t length);

/* The uuid of any packet in trace/. */
int salvage_find_uuid(const struct salvage *salvage, struct ctf_uuid *uuid);

/* Repairs and counts. */
int salvage_files(struct salvage *salvage);

#endif
