/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline as its launcher holds it: regions, processes, clock; and the steps of its life.
 *
 *   create → start (consumers first) → ready → run → … → drain (upstream first) → destroy
 *
 * The launcher reads no traffic. Errors are -errno with one line in `error`.
 */
#ifndef TICKLINE_LAUNCH_PIPELINE_H
#define TICKLINE_LAUNCH_PIPELINE_H

#include "launch/handler.h"
#include "launch/placement.h"
#include "launch/process.h"
#include "launch/runfile.h"
#include "launch/user.h"
#include "shm/cell.h"
#include "shm/connection.h"
#include "shm/lane.h"
#include "shm/peer.h"
#include "shm/ring.h"
#include "shm/state.h"
#include "stage/clock.h"
#include "stage/config.h"

#include <jansson.h>
#include <poll.h>

enum {
    PIPELINE_RESTARTS_MAX = 64, /* that the budget can speak of */
    PIPELINE_WATCH_MAX = CELL_MAX + 1,
};

struct pipeline {
    const struct config *config;
    const struct placement *placement;
    const struct handler_facts *handler;
    const struct runfile *runfile;
    int run_folder;    /* open run directory */
    struct user user;  /* whom the stages become */
    bool folders_lent; /* and the tracer's folders belong to (launch/folders.h) */
    uint64_t epoch;

    struct clock_pair first; /* taken when the launcher began */
    struct clock clock;
    double stamp_cost_ns;
    double skew_ns;
    double skew_error_ns;

    struct region cells_region;
    struct cells *cells;
    struct region to_worker[CELL_WORKERS_MAX];
    struct region to_tx[CELL_WORKERS_MAX];
    struct region state[CELL_WORKERS_MAX]; /* where the handler has one */
    struct region arena;
    struct region connections; /* rx.source = tcp */
    struct region peers;       /* rx.source = udp, tx.sink = reply */
    int config_fd;

    /* In pipeline order: rx, worker0 …, tx, tracer. */
    uint32_t count;
    struct process process[CELL_MAX];
    json_t *notes; /* what the stages obtained of what they asked */

    bool running;     /* all were READY once: from here on a killed stage gets a successor */
    json_t *restarts; /* one object each: see supervise.c */
    json_t *news; /* those of them that are back and not yet told; whoever tells them clears it */
    json_t *told; /* lines of stages and about them, { "stage", "message" }; the same */
    uint64_t tended_ns;                           /* MONOTONIC, of the last pipeline_tend */
    uint64_t restarted_ns[PIPELINE_RESTARTS_MAX]; /* when the newest of them were, a circle */
    char error[CONFIG_ERROR_MAX];
};

/* Calibrates the clock and makes every region. `pipeline` holds config, placement, runfile,
 * run_folder. */
int pipeline_create(struct pipeline *pipeline);

/*
 * Starts the processes in this order of names (NULL: consumers first), waits until all are READY
 * and lets them run. On failure all are ended.
 */
int pipeline_start(struct pipeline *pipeline, const char *order);

/*
 * Looks after the processes: messages, deaths. Who was killed is replaced, within the budget of
 * [supervise]. 0, or -ECHILD where one has ended for good (`error`): who is left must be drained.
 */
int pipeline_tend(struct pipeline *pipeline);

/* A successor has been started and does not run yet. */
bool pipeline_restarting(const struct pipeline *pipeline);

/* For poll(2): becomes readable where a process has ended, or rx has left a connection that tx is to answer
 * on. Fills at most PIPELINE_WATCH_MAX; how many. */
uint32_t pipeline_watch(const struct pipeline *pipeline, struct pollfd fds[PIPELINE_WATCH_MAX]);

/* Ends them in order, each within the configured time, replacing who is killed meanwhile; -ETIMEDOUT
 * where one had to be killed. */
int pipeline_drain(struct pipeline *pipeline);

/* Kills what still runs. */
void pipeline_kill(struct pipeline *pipeline);

void pipeline_destroy(struct pipeline *pipeline);

/* Bytes of shared memory of the whole pipeline. */
uint64_t pipeline_shm_bytes(const struct pipeline *pipeline);

#endif
