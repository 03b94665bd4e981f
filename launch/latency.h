/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live spans: reads the trace lanes of a running pipeline while their owners write them, joins the
 * records by request, and says how long each span took.
 *
 * The lanes are only read. Sub-buffers are reused while we read: a batch of records is copied
 * first, and believed only where its sub-buffer cannot have been reopened meanwhile. The reader
 * that falls behind skips ahead; what it skipped is missing in the counts, and in nothing else.
 *
 * A span is counted when the later of its two records is read. `kernel` (REALTIME) becomes ticks by
 * the newest clock pair in rx's lane, which is at most about 10 ms old.
 */
#ifndef TICKLINE_LAUNCH_LATENCY_H
#define TICKLINE_LAUNCH_LATENCY_H

#include "shm/lane.h"

struct latency;

/*
 * Follows the trace lanes of the arena (mapped at least for reading; it must outlive us) from `now`
 * on, a tsc. `hz`: ticks a second. 0 or -errno.
 */
int latency_open(struct latency **latency, const struct region *arena, double hz, uint64_t now);

/* Reads what the lanes have got since, up to the tsc `now`. Never blocks. */
void latency_read(struct latency *latency, uint64_t now);

struct latency_figures {
    const char *from; /* points */
    const char *to;
    const char *kind;  /* wait, work, or empty: through, the whole way */
    uint64_t count;    /* 0: the figures below say nothing */
    uint64_t negative; /* of these; clocks that disagree */
    /* ns; at most 1/64 above the nearest rank. NAN: fewer than ten records lie beyond. */
    double p50;
    double p99;
    double max; /* exact */
};

enum { LATENCY_SPANS_MAX = 24 };

/* The spans in the order of a request, `through` last; returns how many, and begins anew. */
uint32_t latency_take(struct latency *latency, struct latency_figures figures[LATENCY_SPANS_MAX]);

void latency_close(struct latency *latency);

#endif
