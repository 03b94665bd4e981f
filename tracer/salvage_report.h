/* SPDX-License-Identifier: Apache-2.0 */
/* What a salvage has found: for people on stdout, and as salvage.json in the run directory. */
#ifndef TICKLINE_TRACER_SALVAGE_REPORT_H
#define TICKLINE_TRACER_SALVAGE_REPORT_H

#include "tracer/salvage_files.h"

/*
 * salvage.json, schema 1; absent what is not known:
 *
 *   { "schema", "run", "tsc_hz", "records", "last_tsc", "last_ns" (REALTIME), "lost": [line],
 *     "lanes": { name: { "records", "packets", "discarded", "lost_packets", "torn", "last_tsc", "last_ns" } },
 *     "points": as `tickline points --json` }
 *
 * What an earlier salvage found torn or lost stays in it. 0 or -errno.
 */
int salvage_report(const struct salvage *salvage);

/* Exit status for -errno. */
int salvage_status(int err);

#endif
