/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run files: which runs there are on this host, and what a killed one has left behind.
 *
 * A run file is JSON in /run/tickline (without root: $XDG_RUNTIME_DIR/tickline, else
 * /tmp/tickline-UID), one for each launcher, locked (flock) while it lives: a file that can be
 * locked belongs to a dead one. It names the one thing that may outlive a kill -9 of everything,
 * the trace arena.
 *
 *   { "name", "pid", "run_directory", "arena", "socket", "started" }
 */
#ifndef TICKLINE_LAUNCH_RUNFILE_H
#define TICKLINE_LAUNCH_RUNFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RUNFILE_PATH_MAX = 512 };

struct runfile {
    char name[64];
    int pid;
    char path[RUNFILE_PATH_MAX];          /* of the run file itself */
    char run_directory[RUNFILE_PATH_MAX]; /* empty: none yet */
    char arena[RUNFILE_PATH_MAX];
    char socket[RUNFILE_PATH_MAX];
    int64_t started; /* seconds since 1970 */
    bool alive;
    int fd; /* the lock, with the run's own file; else -1 */
};

/* The folder, created where it is missing. 0 or -errno. */
int runfile_folder(char path[RUNFILE_PATH_MAX]);

/*
 * Claims `name` for this process: writes and locks its run file and fills in the paths of arena and
 * socket. -EEXIST: a live run has that name (then *runfile describes it).
 */
int runfile_claim(struct runfile *runfile, const char *name, const char *run_directory);

/* Removes run file, arena and socket. */
void runfile_remove(struct runfile *runfile);

/*
 * Reads the run file at `path`. What it does not hold is empty, and so is a path that no launcher would have
 * written: an arena elsewhere than in /dev/shm, a socket elsewhere than beside the run file. 0, or -errno of
 * open(2).
 */
int runfile_load(struct runfile *runfile, const char *path);

/* Calls `visit` for each run file; returns how many, or -errno. */
int runfile_each(void (*visit)(struct runfile *runfile, void *context), void *context);

#endif
