/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CTF 1.8: the form of the files that the tracer writes (Common Trace Format, diamon.org/ctf).
 * babeltrace2 and Trace Compass read them as they are.
 *
 * A stream file is one empty packet of a page, then packet k at 4096 + k * packet bytes. Each
 * packet begins with a page of its own, so that events lie page-aligned in file and memory:
 *
 *   offset  bytes  field                     offset  bytes  field
 *        0      4  magic 0xC1FC1FC1              56      8  packet_seq_num
 *        4     16  uuid                          64      8  events_discarded, of the lane so far
 *       20      4  stream_id (0)                 72      4  cpu_id
 *       24      8  timestamp_begin               76      4  generation
 *       32      8  timestamp_end                 80      4  request_high
 *       40      8  content_size, bits            84      4  checksum: CRC32C of the events
 *       48      8  packet_size, bits             88   4008  reserved, zero
 *
 * The empty packet in front says that nothing was discarded yet; without it the first discards
 * would have no number.
 */
#ifndef TICKLINE_TRACER_CTF_H
#define TICKLINE_TRACER_CTF_H

#include "shm/lane.h"
#include "stage/clock.h"

#include <stdint.h>
#include <stdio.h>

enum { CTF_MAGIC = 0xC1FC1FC1u, CTF_HEADER_BYTES = PAGE_BYTES };

struct ctf_header {
    uint32_t magic;
    uint8_t uuid[16];
    uint32_t stream_id;
    uint64_t timestamp_begin;
    uint64_t timestamp_end;
    uint64_t content_bits;
    uint64_t packet_bits;
    uint64_t sequence;
    uint64_t discarded;
    uint32_t cpu;
    uint32_t generation;
    uint32_t request_high;
    uint32_t checksum;
    uint8_t reserved[CTF_HEADER_BYTES - 88];
};
static_assert(sizeof(struct ctf_header) == CTF_HEADER_BYTES, "one page");
static_assert(offsetof(struct ctf_header, timestamp_begin) == 24, "drawn above");
static_assert(offsetof(struct ctf_header, checksum) == 84, "drawn above");

struct ctf_uuid {
    uint8_t byte[16];
};

/* One uuid a launch, made of its epoch, so that a restarted tracer continues the same trace. */
struct ctf_uuid ctf_uuid(uint64_t epoch);

struct ctf_facts {
    struct ctf_uuid uuid;
    const char *run; /* name of the run */
    struct clock clock;
    struct clock_pair pair;     /* ties ticks to REALTIME */
    const struct region *arena; /* knows the handler's own points; or NULL */
};

/* The metadata file (TSDL text). 0 or -errno of the stream. */
int ctf_write_metadata(FILE *out, const struct ctf_facts *facts);

/* The same into the open directory: written beside and renamed, so that a reader never meets half of it. */
int ctf_save_metadata(int folder, const struct ctf_facts *facts);

/* What the file in the open directory says of uuid and clock (pair: tick 0). -ENOENT, or -EPROTO where it is none
 * of ours; facts->run is not set. */
int ctf_read_metadata(int folder, struct ctf_facts *facts);

/* CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected; RFC 3720 appendix B.4), by the CPU's
 * instruction where there is one. */
uint32_t crc32c(const void *data, size_t bytes);

#endif
