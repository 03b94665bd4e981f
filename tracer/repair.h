/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a trace that nobody writes any more, cut or with holes from writes that were in flight: makes them
 * valid up to their last whole packet, and counts what stands in them.
 *
 * A packet is believed by its magic, uuid, place, sizes, order and the CRC32C of its events. What is not becomes
 * padding of the packet in front, so the numbers skip and readers report the loss; what follows the last
 * packet is cut off. A file that is whole is not written to. Whoever is killed in here is followed by another
 * that ends it.
 *
 * The content of the files is not trusted. Functions return 0 or -errno; `folder` is an open directory.
 */
#ifndef TICKLINE_TRACER_REPAIR_H
#define TICKLINE_TRACER_REPAIR_H

#include "tracer/ctf.h"

#include <stdbool.h>

struct repair {
    uint64_t packets; /* with events */
    uint64_t records;
    uint64_t discarded;        /* the owner's own count */
    uint64_t lost_packets;     /* not believed, with believed ones behind them */
    uint64_t lost_at;          /* byte of the first of those */
    uint64_t cut_bytes;        /* behind the last packet: what was not padding */
    bool first_made;           /* the empty packet in front had to be written again */
    uint64_t begin;            /* tsc of the first record, 0: none */
    uint64_t end;              /* tsc of the last record, 0: none */
    struct clock_pair pair[2]; /* first and last narrow clock pair; tsc 0: none */
};

/* A stream file of the trace `uuid` whose first sub-buffer has the number `first`. -ESTALE: it is another
 * trace's, and stays as it is. */
int repair_stream(int folder, const char *name, const struct ctf_uuid *uuid, uint64_t first,
                  struct repair *done);

/* An array of ingress records: whole ones, with rising numbers. `end` and `begin` are 0. */
int repair_plain(int folder, const char *name, struct repair *done);

/* The uuid of the first packet of a stream file that can be believed; -ENOENT: there is none. */
int repair_find_uuid(int folder, const char *name, struct ctf_uuid *uuid);

#endif
