/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions: pieces of shared memory that say what they are.
 *
 * The launcher creates a region, processes attach to it through an inherited descriptor. The first
 * page is a header; an attach compares every field of it with what the caller was built for and
 * says which one differs, with both values. Memory is reserved at creation, so that a full machine
 * is an error here and never a SIGBUS later. A region's size is sealed (SHRINK, GROW, SEAL); it
 * stays mappable for writing, because a restarted process must be able to map it again.
 *
 *   offset  bytes  field
 *        0      8  magic      "tickline" as a little-endian word
 *        8      4  abi        REGION_ABI
 *       12      4  kind       enum region_kind
 *       16      8  layout     hash of the structures inside (ring_layout() and the like)
 *       24      8  size       bytes, header included
 *       32      8  epoch      one number for all regions of a launch
 *       40     32  geometry   four numbers whose meaning the kind defines
 *       72      8  page_bytes what its creator got: 4096 or 2 MiB
 *       80   4016  zero
 *
 * Functions return 0 or -errno; a mismatch is -EPROTO and fills `mismatch`. Not for the hot path.
 */
#ifndef TICKLINE_SHM_REGION_H
#define TICKLINE_SHM_REGION_H

#include "shm/atomic.h"

#include <stdbool.h>
#include <stddef.h>

#define REGION_MAGIC 0x656e696c6b636974ULL /* "tickline" */
#define REGION_ABI   2

enum region_kind {
    REGION_RING = 1,
    REGION_CELLS = 2,
    REGION_ARENA = 3,
    REGION_RECEIVED = 4,
    REGION_CONNECTIONS = 5,
    REGION_STREAMS = 6,
    REGION_PEERS = 7,
    REGION_STATE = 8,
    REGION_TAPPED = 9,
    REGION_FLOWS = 10,
};

struct region_header {
    uint64_t magic;
    uint32_t abi;
    uint32_t kind;
    uint64_t layout;
    uint64_t size;
    uint64_t epoch;
    uint64_t geometry[4];
    uint64_t page_bytes;
};

/* A mapped region. Owner: the process that created or attached it; region_close unmaps and closes.
 */
struct region {
    struct region_header *header;
    size_t size;
    int fd;
    uint32_t page_bytes; /* granted: 4096 or 2 MiB */
};

struct region_want {
    enum region_kind kind;
    uint64_t layout;
    uint64_t epoch; /* 0 at attach: any */
    uint64_t geometry[4];
    bool any_geometry; /* attach only: take the geometry found */
    uint64_t size_min; /* attach only: what is laid out in it needs so many bytes */
};

struct region_place {
    int numa_node; /* -1: where the first toucher runs */
    bool huge;     /* try 2 MiB pages: reserved ones, else small ones put together; else 4 KiB */
    const char
        *path; /* NULL: anonymous memfd; else a file to create there (mode 0600, must not exist) */
};

struct region_mismatch {
    const char *field; /* magic, abi, kind, layout, size, epoch, geometry[0..3] */
    uint64_t expected;
    uint64_t found;
};

/*
 * Creates, reserves, binds, maps (zeroed, prefaulted) and seals a region of `size` bytes, header
 * included. A named file cannot be sealed, its mode and its owner protect it; it is locked (flock) as
 * long as this descriptor or a copy of it lives in any process. -ENOSPC or -ENOMEM: not enough memory.
 */
int region_create(struct region *region, const char *name, const struct region_want *want,
                  const struct region_place *place, size_t size);

/* Maps the region behind `fd` (which stays the caller's until success, then the region's). */
int region_attach(struct region *region, int fd, const struct region_want *want, bool writable,
                  struct region_mismatch *mismatch);

void region_close(struct region *region);

/*
 * Maps `bytes` from `offset` on once more, for writing: what its user may write of a region that it
 * has attached read-only. A mapping of its own, so that the pages of the other keep their size; where
 * they are reserved ones of 2 MiB, the whole page around is writable here. The address of `offset`,
 * or NULL with errno. It lives as long as the process.
 */
void *region_writable(const struct region *region, size_t offset, size_t bytes);

/* The byte `offset` of the region; the caller keeps within size. */
static inline void *region_at(const struct region *region, size_t offset)
{
    return (char *)region->header + offset;
}

/* FNV-1a over numbers: how a module hashes its sizes and offsets into `layout`. */
uint64_t region_hash(const uint64_t *values, size_t count);

/*
 * Shared memory holds what must not be there: prints one line with both values to stderr and
 * aborts. The only answer to a broken invariant between processes; input from outside is never
 * checked with it.
 */
_Noreturn void region_corrupt(const char *what, uint64_t expected, uint64_t found);

#endif
