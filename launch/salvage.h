/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tickline salvage`: saves the trace of runs of which every process was killed. It finds them; their
 * arenas are read by `tracer --salvage`, which writes them to the run directory.
 */
#ifndef TICKLINE_LAUNCH_SALVAGE_H
#define TICKLINE_LAUNCH_SALVAGE_H

#include "launch/runfile.h"

#include <stdbool.h>

/*
 * `which`: name of a killed run, or a run directory, of which the arena may be long gone; NULL: all killed runs.
 * What is left of them in memory is removed where all of it is on disk. The exit status.
 */
int salvage_runs(const char *which, bool json);

/* For a launcher whose tracer is gone for good: writes out what its own arena holds, once it has closed
 * it and all stages have ended. Exit status of the tracer. */
int salvage_own(const struct runfile *runfile);

#endif
