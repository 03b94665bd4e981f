/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running pipeline seen from outside: what its launcher's socket hands out, mapped for reading
 * only. Nothing is asked of the stages and nothing of theirs is written.
 */
#ifndef TICKLINE_LAUNCH_VIEW_H
#define TICKLINE_LAUNCH_VIEW_H

#include "shm/cell.h"
#include "shm/lane.h"
#include "shm/ring.h"

struct view {
    struct region cells_region;
    struct region to_worker[CELL_WORKERS_MAX];
    struct region to_tx[CELL_WORKERS_MAX];
    struct region arena; /* header NULL: not asked for */
    const struct cells *cells;
    uint32_t workers;
    int launcher; /* its pid, 0 where it lives in a PID namespace that we do not see */
    double hz;
};

/*
 * Connects to the launcher's socket at `path`. `trace`: maps the trace arena too. 0 or -errno;
 * -EAGAIN: the launcher does not answer, as while it starts and drains.
 */
int view_open(struct view *view, const char *path, bool trace);
void view_close(struct view *view);

/* The counts of one moment. */
struct view_sample {
    struct cell_lazy lazy[CELL_MAX];
    uint64_t issued;
    uint64_t completed;
    uint64_t dropped;
    uint64_t discarded; /* trace records; 0 without the arena */
};

/* Fills in what can be read; what cannot (a stage died while it published) stays as it was. */
void view_sample(const struct view *view, struct view_sample *sample);

/* The part of each regime in the time between two samples; false where no time was booked. */
bool view_regimes(const struct cell_lazy *before, const struct cell_lazy *now,
                  double share[REGIME_COUNT]);

/* Depth of a ring, and how much of it holds messages. */
struct view_ring {
    uint64_t depth;
    uint64_t used;
};

struct view_ring view_ring(const struct region *region);

/* Datagrams that the kernel dropped at rx's sockets, by /proc; -1 where that cannot be seen. */
int64_t view_socket_drops(const struct view *view);

#endif
