/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot: snapshots/NNN-request-R in the run directory, links to all whole chunks of a history. Functions
 * return 0 or -errno.
 */
#ifndef TICKLINE_TRACER_SNAPSHOT_H
#define TICKLINE_TRACER_SNAPSHOT_H

#include "tracer/history.h"

/* Linked under a name of its own first, so that a reader never meets half of it. */
int snapshot_link(struct history *history);

/* Drops what a killed predecessor had half linked, and numbers on behind its others. */
int snapshot_recover(struct history *history);

#endif
