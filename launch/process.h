/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage's process as the launcher holds it: its pidfd, its control socket, and the descriptors
 * that it has left here (launch/store.h).
 */
#ifndef TICKLINE_LAUNCH_PROCESS_H
#define TICKLINE_LAUNCH_PROCESS_H

#include "launch/store.h"
#include "shm/cell.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

/* How long it has not moved, as the launcher sees it (launch/still.c). */
struct still {
    uint64_t sequence;       /* of its figures, when last seen */
    uint64_t since_ns;       /* MONOTONIC, when that was new; 0: not seen yet */
    uint64_t quiet_until_ns; /* who is slow again and again is told of now and then */
    bool told;
};

struct process {
    char name[16];
    const char *program; /* rx, worker, tx, tracer */
    uint32_t cell;
    int cpu;
    pid_t pid; /* 0: not started, or reaped */
    int pidfd;
    int control;
    int status;          /* of waitid, once reaped */
    bool gone;           /* ended, and gets no successor */
    uint64_t started_ns; /* MONOTONIC */
    struct still still;
    json_t *restart; /* of this successor, until it runs; borrowed */
    struct store store;
};

/* Where a program is: they stand beside this one. 0 or -errno. */
int process_path(const char *program, char *out, size_t size);

/*
 * Starts build/PROGRAM with the given arguments (NULL-terminated, without argv[0] and --control),
 * pinned to its CPU before the first page of it is touched; stdout and stderr go to `log`. 0 or
 * -errno.
 */
int process_spawn(struct process *process, char *const arguments[], int log);

/* Gives it a descriptor by name; process_start says that this was all. */
int process_give(struct process *process, const char *name, int fd);
int process_give_item(struct process *process, const struct store_item *item);
int process_start(struct process *process, uint64_t epoch);

/* The same while it runs, without waiting; else -EAGAIN. */
int process_offer(struct process *process, const struct store_item *item);

/* Takes what has arrived: deposits into the store, notes into `notes`, what it tells into `told`. */
void process_receive(struct process *process, json_t *notes, json_t *told);

/* Appends a line about this process to `told`: { "stage", "message" }. */
__attribute__((format(printf, 3, 4))) void process_tell(const struct process *process, json_t *told,
                                                        const char *format, ...);

/* Reaps it where it has ended: true, and `status` is set. Never blocks. */
bool process_reap(struct process *process);

/* One phrase for how it ended: "exit status 1", "killed by signal 9". */
void process_ending(const struct process *process, char *out, size_t size);

/* Of a dead one: its control socket. What it has left here stays. */
void process_forget(struct process *process);

void process_close(struct process *process);

#endif
