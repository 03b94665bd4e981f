/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage: what rx, worker, tx and tracer have in common.
 *
 * A program fills struct stage_ops and calls stage_main(), which does the rest in this order:
 *
 *   arguments, regions from the launcher
 *   open (privileged: sockets, buffers; may allocate), sandbox, READY, wait for RUN
 *   turns of { poll, now and then tick, wait }; told to drain, the same until drained() says so
 *   close, DONE
 *
 * poll() is one non-blocking turn: it returns how many messages it moved, 0 idle, -EAGAIN blocked
 * because there is no room downstream, or another -errno, which ends the stage. It allocates
 * nothing, logs nothing, and makes no system call but the stage's own I/O. All callbacks run on one
 * thread.
 */
#ifndef TICKLINE_STAGE_STAGE_H
#define TICKLINE_STAGE_STAGE_H

#include "shm/cell.h"
#include "shm/lane.h"
#include "shm/ring.h"
#include "stage/clock.h"
#include "stage/config.h"
#include "stage/wait.h"

#include <stdbool.h>
#include <stdint.h>

struct stage;

struct stage_ops {
    int (*open)(struct stage *stage);
    int (*poll)(struct stage *stage);
    void (*tick)(struct stage *stage, uint64_t now); /* about 1 kHz; may be NULL */
    bool (*drained)(struct stage *stage);            /* asked before each turn while draining */
    void (*close)(struct stage *stage);
    /* Sleeps until there may be input, at most `ns`. Returns whether it slept.
     */
    bool (*park)(struct stage *stage, uint64_t ns);
    /* Is anything that this stage has published still on its way? Source only (rotation); else
     * NULL. */
    bool (*in_flight)(const struct stage *stage);
    /*
     * The launcher has given a descriptor with a value other than 0: while the stage runs, or at its
     * start, then after open(). True: it is the program's now; else it is closed. May be NULL.
     */
    bool (*given)(struct stage *stage, const char *name, uint64_t value, int fd);
};

struct stage {
    /* set by stage_main before open() */
    const struct stage_ops *ops;
    void *self; /* the program's own state */
    char name[16];
    uint32_t cell_index;
    uint32_t worker; /* number of this worker */
    uint32_t generation;
    int cpu;
    int upstream_cpu;
    bool upstream_near; /* the producer that feeds us runs on our CPU */
    int64_t uid;        /* to become once all is open (stage/sandbox.h); -1: stays who it is */
    int64_t gid;
    struct config config;
    struct clock clock;
    struct cells *cells;
    struct cell *cell;
    struct trace trace;
    struct region arena; /* read-only; lane_writable gives what one may write of it */
    struct wait_plan wait;
    bool allocates; /* set by open(): it goes on calling malloc, which its sandbox allows */
    bool draining;
    bool orphaned; /* the launcher is gone */

    /* the loop's own, published by its tick; programs add to theirs */
    struct cell_lazy figures;

    struct pmu *pmu; /* stage/pmu.h; NULL: nothing is counted */

    /* private to stage.c */
    int control;
    uint64_t born; /* tsc */
    uint64_t epoch;
    struct region cells_region;
    struct stage_descriptor *descriptors;
    uint32_t descriptor_count;
    char error[CELL_ERROR_MAX];
    int error_code; /* -errno of that error */
};

/* Runs the whole life of a stage; the exit status of the program. `self` is for ops whose open()
 * makes no state of its own. */
int stage_main(int argc, char **argv, const struct stage_ops *ops, void *self);

/*
 * Its first part, for who drives several stages in one process: everything up to READY. `stage` is
 * zeroed before. 0, or -errno with the reason in stage->error (-EINVAL without one: not the arguments
 * of a launcher).
 */
int stage_prepare(struct stage *stage, int argc, char **argv, const struct stage_ops *ops,
                  void *self);

/* ---- for open() ---- */

/* One line that says what went wrong (the first is kept); returns `err` so that one can `return
 * stage_error(…)`. */
__attribute__((format(printf, 3, 4))) int stage_error(struct stage *stage, int err,
                                                      const char *format, ...);

/* The descriptor given under this name (a region, or a predecessor's socket); -ENOENT. Stays the
 * stage's. */
int stage_descriptor(const struct stage *stage, const char *name);

/* Attaches a region of another kind by name. Errors are said by stage_error. The mapping lives as long as the
 * process. */
int stage_attach(struct stage *stage, struct region *region, const char *name,
                 const struct region_want *want, bool writable);

/* Attaches a ring by name; errors are said by stage_error. The mapping lives as long as the
 * process; of a consumer's only the control page can be written. */
int stage_producer(struct stage *stage, struct ring_producer *producer, const char *format,
                   uint32_t number);
int stage_consumer(struct stage *stage, struct ring_consumer *consumer, const char *format,
                   uint32_t number);

/* Leaves a descriptor with the launcher, for our successor and for the account. */
int stage_deposit(struct stage *stage, const char *name, int fd);

/* The same while the stage runs, without waiting: -EAGAIN where the launcher takes none now. `fd` -1: the
 * launcher is to forget that name. */
int stage_offer(struct stage *stage, const char *name, uint64_t value, int fd);

/* Records what was obtained of what was asked; ends up in the run's manifest. */
void stage_note(struct stage *stage, const char *name, const char *asked, const char *obtained,
                const char *why);

/* One line for the person at the terminal, while the stage runs; it stands in the stage's log as well. Never
 * waits: where the launcher takes none, the log has it alone. Not from the hot path. */
__attribute__((format(printf, 2, 3))) void stage_tell(struct stage *stage, const char *format, ...);

/* ---- for the loop ---- */

void stage_loop(struct stage *stage);

/* False once the launcher is gone or somebody told this process to end: drain. */
bool stage_wanted(struct stage *stage);

/* Takes what the launcher has sent meanwhile, each by given(), without waiting. It is done ten times a second
 * anyway; a program calls it that misses a descriptor now. False: the launcher is gone. */
bool stage_receive(struct stage *stage);

/* This stage has ended and gets no successor: nothing more will come from it, and what is published for it
 * will not be taken. */
bool stage_ended(const struct stage *stage, uint32_t cell_index);

#endif
