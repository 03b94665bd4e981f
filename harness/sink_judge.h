/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done with every reply, wherever it came from: it is judged, counted and recorded. For the
 * sink, and for the client where the replies come to it. One thread; dies where a file is not as it
 * must be, at start.
 */
#ifndef TICKLINE_HARNESS_SINK_JUDGE_H
#define TICKLINE_HARNESS_SINK_JUDGE_H

#include "sink_check.h"
#include "sink_record.h"

#include <stdint.h>
#include <stdio.h>

struct judge_files {
    struct check_files expected;
    struct record_files records;
};

struct judge {
    struct check *check;
    struct recorder *recorder;
    uint64_t delivered; /* replies of any status since the last reset */
    uint64_t status[CHECK_STATUSES];
    uint64_t misordered;
};

void judge_open(struct judge *judge, const struct judge_files *files, enum check_schema schema);

/* `kernel_ns` is CLOCK_REALTIME; `flow`: see check_reply(). */
void judge_take(struct judge *judge, uint32_t flow, const uint8_t *reply, uint32_t length,
                uint64_t kernel_ns);

/* Forgets what came so far. */
void judge_reset(struct judge *judge);

/* The counts as members of a JSON object, without its braces. */
void judge_tell(const struct judge *judge, FILE *out);

/* Writes the records and frees everything; 1 where they could not be written (said on stderr). */
int judge_close(struct judge *judge);

/* `name` as on the command line; dies where it is none. */
enum check_schema judge_schema(const char *name);

#endif
