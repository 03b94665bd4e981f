/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A script: what to do on which connection, and when. Mapped whole before the first operation, so that no
 * disk is read in between. Little-endian; made by harness/ticklab/script.py.
 *
 *   offset  bytes
 *        0      8  magic "ticklscr"
 *        8      4  operations
 *       12      4  connections
 *       16      8  bytes of data
 *       24      8  zero
 *       32         u32 port of each connection, a zero one more where their number is odd
 *                  struct operation, each
 *                  data
 *
 * Operations stand in the order of their times. Those of one connection are done one after the other.
 */
#ifndef TICKLINE_HARNESS_CLIENT_SCRIPT_H
#define TICKLINE_HARNESS_CLIENT_SCRIPT_H

#include <stddef.h>
#include <stdint.h>

enum operation_kind {
    OPERATION_DATA,  /* write `length` bytes from `at` */
    OPERATION_OPEN,  /* connect; a connection whose first operation is another is open beforehand */
    OPERATION_CLOSE, /* no more is written; what the other side still says is read to its end */
    OPERATION_RESET, /* gone at once, with a reset */
    OPERATION_KINDS,
};

struct operation {
    int64_t planned_ns; /* from the first operation of the replay, as captured */
    uint64_t at;        /* of its bytes in the data */
    uint32_t connection;
    uint32_t length; /* bytes; 0 for all but data */
    uint32_t kind;   /* enum operation_kind */
    uint32_t unused;
};
_Static_assert(sizeof(struct operation) == 32, "an operation has 32 bytes in a script");

enum { SCRIPT_CONNECTIONS_MAX = 1 << 20 };
#define OPERATION_NONE UINT32_MAX

struct script {
    const struct operation *operation;
    const uint32_t *port;
    const uint8_t *data;
    uint32_t operations;
    uint32_t connections;
    uint32_t *next; /* of each operation: the next one of its connection, or OPERATION_NONE */
    void *map;
    size_t map_bytes;
};

/* Maps `path`, with every page of it in memory, and checks it. 0, or -errno; -EBADMSG: not a script, or
 * one that contradicts itself. Free with script_close after success. */
int script_open(struct script *script, const char *path);
void script_close(struct script *script);

#endif
