/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which system calls a stage may make once it is sandboxed. For sandbox.c and its tests.
 */
#ifndef TICKLINE_STAGE_SANDBOX_TABLE_H
#define TICKLINE_STAGE_SANDBOX_TABLE_H

#include "stage/config.h"

/* What the call may be made with. Only calls that are rare have a condition: for the others the
 * kernel answers from a bitmap, without running the filter. */
enum sandbox_argument {
    SANDBOX_ANY,
    SANDBOX_STDERR,  /* argument 0 is descriptor 2 */
    SANDBOX_SELF,    /* argument 0 is our process, or 0 */
    SANDBOX_PRIVATE, /* mmap: private and not executable */
    SANDBOX_FLAGS,   /* fcntl: F_GETFL, F_SETFL or F_SETFD */
    SANDBOX_OUTQ,    /* ioctl: SIOCOUTQ */
};

struct sandbox_call {
    int number; /* below 0: this architecture has no such call */
    enum sandbox_argument argument;
};

struct sandbox_list {
    const struct sandbox_call *call;
    uint32_t count;
};

struct sandbox_table {
    const char *program;        /* rx, worker, tx, tracer */
    struct sandbox_list all;    /* of every stage */
    struct sandbox_list itself; /* of this one */
    struct sandbox_list more;   /* of this one with its source or its sink */
    struct sandbox_list memory; /* where it allocates (stage->allocates) */
};

/* Of the stage in this cell (enum cell_index), so configured. */
struct sandbox_table sandbox_table(uint32_t cell_index, const struct config *config);

#endif
