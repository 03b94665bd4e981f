/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tracer's second way to be started: for a run of which every process was killed.
 *
 *   tracer --salvage RUN_DIR [--arena FILE] [--name NAME] [--quiet]
 *
 * With the arena that the run left, all stamps in it are written to the run directory as the tracer would have
 * done it. Then, and without an arena at once, the trace's files are repaired (tracer/repair.h), metadata is made where it
 * is missing, and RUN_DIR/salvage.json says what was found. The arena is left to whoever asked. A second
 * time changes nothing, and ends what a first one that was killed has begun.
 */
#ifndef TICKLINE_TRACER_SALVAGE_H
#define TICKLINE_TRACER_SALVAGE_H

/* The exit status: 0, 1 damaged beyond repair, 2 no such run or one that is still alive, 4 no room, or not allowed to. */
int salvage_main(int argc, char **argv);

#endif
