/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sink leaves behind: wire/delivered.bin, a record a reply, and the first replies
 * themselves.
 *
 * Both are kept in memory and written in one piece, at record_flush() or when the memory is full,
 * so that a reply costs a store and the disk is never waited for. A write that fails (a full disk)
 * ends the recording: record_error() says so, and everything else goes on.
 */
#ifndef TICKLINE_HARNESS_SINK_RECORD_H
#define TICKLINE_HARNESS_SINK_RECORD_H

#include <stddef.h>
#include <stdint.h>

/* wire/delivered.bin, little-endian. */
struct record {
    uint64_t id;
    uint64_t kernel_ns; /* CLOCK_REALTIME at the socket */
    uint64_t reply_hash;
    uint32_t length; /* bytes */
    uint32_t status; /* enum check_status */
};
_Static_assert(sizeof(struct record) == 32, "delivered.bin has 32 bytes a reply");

struct record_files {
    const char *out;     /* path of delivered.bin */
    const char *replies; /* path of replies.bin, or NULL: none are kept */
    size_t replies_max;  /* bytes of replies.bin */
};

struct recorder;

/*
 * Creates (or empties) the files; room for `expected` records (at most 64 MiB of them) is touched
 * before this returns. 0, or -errno with the path concerned in `*where`.
 */
int record_open(struct recorder **recorder, const struct record_files *files, size_t expected,
                const char **where);

void record_add(struct recorder *recorder, const struct record *record, const uint8_t *reply);

/* Forgets every record, in memory and in the files. */
void record_reset(struct recorder *recorder);

/* Writes what is in memory. */
void record_flush(struct recorder *recorder);

/* 0, or the -errno of the first write that failed, with its path in `*where`. */
int record_error(const struct recorder *recorder, const char **where);

void record_close(struct recorder *recorder);

#endif
