/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a run as they grow: a lane's sub-buffers, each at a place that its number alone decides,
 * so that a restarted tracer writes the same bytes to the same place.
 *
 *   trace lane  4096-byte empty packet, then sub-buffer k at 4096 + k * sub-buffer bytes, with a
 *               CTF header page (k counts from the first of the file)
 *   plain lane  the payload of sub-buffer k at k * payload bytes; at the end the gaps that an early
 *               seal left are closed, so that the file is an array of records
 *
 * Writes go past the page cache (O_DIRECT) where the file system lets them. Functions return 0 or
 * -errno.
 */
#ifndef TICKLINE_TRACER_FILE_H
#define TICKLINE_TRACER_FILE_H

#include "tracer/ctf.h"

#include <stdbool.h>

struct trace_file {
    int fd; /* -1: none is open */
    bool direct;
    bool ragged;         /* plain: a payload was not full, gaps must be closed */
    uint32_t generation; /* plain: of the newest payload */
    struct lane lane;    /* what it drains */
    uint64_t first;      /* number of the sub-buffer that the file begins with */
    uint64_t written;    /* sub-buffers, from the lane's first on */
    uint64_t bytes;      /* length that the file will have */
    uint64_t discarded;  /* last count that stands in the file */
    uint64_t end;        /* newest tsc in the file */
    struct ctf_uuid uuid;
    struct ctf_header *header; /* page-aligned */
};

/*
 * `folder` is an open directory. Creates the file, or continues one that a predecessor left.
 * -EPROTO: the predecessor's last packet is not where it must be; the file can be gone on with all
 * the same, and has a hole there.
 */
int file_open(struct trace_file *file, int folder, const char *name, const struct lane *lane,
              const struct ctf_uuid *uuid);

/* The same for a file that begins with sub-buffer `first`, which is one of those already drained or
 * the next. */
int file_open_from(struct trace_file *file, int folder, const char *name, const struct lane *lane,
                   const struct ctf_uuid *uuid, uint64_t first);

/* After file_finish: goes on in another file, with the sub-buffer that comes next. Where that fails, no file
 * is open, and it may be tried again. */
int file_next(struct trace_file *file, int folder, const char *name);

/* Writes the oldest sealed sub-buffer and gives it back to the owner. 1, 0: none is sealed. Where that
 * fails it may be tried again: the same bytes at the same place. */
int file_drain(struct trace_file *file);

/* Makes the file whole, also after a write that failed, and closes it: cut to what is written. `last`: nothing follows in this lane, so what was
 * discarded after its last record is written too (before that, the next sub-buffer says it). */
int file_finish(struct trace_file *file, bool last);

/* An array of ingress records as it is written: `at` bytes long, `last` its newest request. */
struct plain_tail {
    uint64_t at;
    uint64_t last;
};

/* Appends to `to` what of the first `bytes` of `from` has rising numbers: a gap has none, and a
 * doublet has its predecessor's. `to` may be `from` itself. */
int plain_append(int from, uint64_t bytes, int to, struct plain_tail *tail);

#endif
