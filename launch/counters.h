/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counters.json: every count of a run, as the rings, cells, lanes and sockets hold it. A snapshot
 * is taken at the mark (the begin of the measured phase) and at the end; readers subtract.
 */
#ifndef TICKLINE_LAUNCH_COUNTERS_H
#define TICKLINE_LAUNCH_COUNTERS_H

#include "launch/pipeline.h"

/* All counts of this moment; the caller owns the reference. NULL: no memory. */
json_t *counters_snapshot(const struct pipeline *pipeline);

/* The short answer to `stats`: datagrams, received, completed, in_flight, dropped, discarded,
 * socket_drops. */
json_t *counters_stats(const struct pipeline *pipeline);

/* The sockets of rx with bind address, drops and granted buffer. */
json_t *counters_sockets(const struct pipeline *pipeline);

/*
 * rx.source = tcp, else NULL: connections by what became of them (shm/connection.h) and `open` now; bytes
 * received that will be of no request (`cut_bytes`) or are of none yet (`held_bytes`); those that nobody has
 * received, once rx has ended (`unread_bytes`).
 */
json_t *counters_connections(const struct pipeline *pipeline);

/* tx.sink = tcp or reply, else NULL: what befell tx's connections, and replies that none of them took
 * (struct cell_streams). */
json_t *counters_replies(const struct pipeline *pipeline);

/* Order of turns on a shared CPU and how often it was mended; NULL where no CPU is shared. */
json_t *counters_rotation(const struct pipeline *pipeline);

/* Calibration, errors and skew. */
json_t *counters_clock(const struct pipeline *pipeline);

#endif
