/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HUGE_BYTES = 2 << 20 };

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; younger than Debian 12's headers */
#endif

static_assert(sizeof(struct region_header) == 80, "drawn in region.h");
static_assert(offsetof(struct region_header, layout) == 16, "drawn in region.h");
static_assert(offsetof(struct region_header, geometry) == 40, "drawn in region.h");

uint64_t region_hash(const uint64_t *values, size_t count)
{
    uint64_t hash = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < count; i++) {
        for (int byte = 0; byte < 8; byte++) {
            hash ^= (values[i] >> (8 * byte)) & 0xff;
            hash *= 0x100000001b3ULL;
        }
    }
    return hash;
}

_Noreturn void region_corrupt(const char *what, uint64_t expected, uint64_t found)
{
    fprintf(stderr,
            "shared memory is corrupt: %s: expected %" PRIu64 " (%#" PRIx64 "), found %" PRIu64
            " (%#" PRIx64 ")\n",
            what, expected, expected, found, found);
    abort();
}

/* posix_fallocate would write byte by byte where the file system cannot reserve; tmpfs and
 * hugetlbfs can. */
static int reserve(int fd, size_t size)
{
    while (fallocate(fd, 0, 0, (off_t)size) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

/* Maps so that multiples of 2 MiB in the file are such in memory, without which no large page could
 * be used. MAP_FAILED with errno. */
static void *map_aligned(int fd, size_t offset, size_t size, int prot)
{
    size_t room = size + HUGE_BYTES;
    uint8_t *hole = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (hole == MAP_FAILED)
        return MAP_FAILED;
    size_t before = (offset - (uintptr_t)hole) & (HUGE_BYTES - 1);
    void *base = mmap(hole + before, size, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)offset);
    if (base == MAP_FAILED) {
        munmap(hole, room);
        return MAP_FAILED;
    }
    size_t behind = before + ((size + PAGE_BYTES - 1) & ~((size_t)PAGE_BYTES - 1));
    if (before)
        munmap(hole, before);
    if (behind < room)
        munmap(hole + behind, room - behind);
    return base;
}

/*
 * Has the kernel put the small pages of tmpfs together, as many as fill whole large ones: no
 * reservation, no right and no setting of the host is needed for it (Linux 6.1, madvise(2)). True
 * where it did.
 */
static bool collapse(void *base, size_t size)
{
    size_t whole = size & ~((size_t)HUGE_BYTES - 1);

    return whole > 0 && madvise(base, whole, MADV_COLLAPSE) == 0;
}

/*
 * Maps, binds to the node, then reserves: the pages must not exist before the policy that places
 * them.
 */
static int map_new(struct region *region, int fd, const struct region_place *place)
{
    int err;

    if (ftruncate(fd, (off_t)region->size) < 0)
        return -errno;
    void *base = map_aligned(fd, 0, region->size, PROT_READ | PROT_WRITE);
    if (base == MAP_FAILED)
        return -errno;
    if (place->numa_node >= 0 && place->numa_node < 64) {
        unsigned long mask = 1UL << place->numa_node;
        /* A machine without NUMA refuses; memory is local there anyway. */
        (void)mbind(base, region->size, MPOL_BIND, &mask, 65, 0);
    }
    err = reserve(fd, region->size);
    if (err == 0 && madvise(base, region->size, MADV_POPULATE_WRITE) < 0 && errno != EINVAL)
        err = -errno;
    if (err < 0) {
        munmap(base, region->size);
        return err;
    }
    if (place->huge && region->page_bytes == PAGE_BYTES && collapse(base, region->size))
        region->page_bytes = HUGE_BYTES;
    region->header = base;
    return 0;
}

static int create_memfd(struct region *region, const char *name, const struct region_place *place,
                        bool huge)
{
    unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int err;

    if (huge)
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    int fd = memfd_create(name, flags);
    if (fd < 0)
        return -errno;
    region->page_bytes = huge ? HUGE_BYTES : PAGE_BYTES;
    if (huge)
        region->size = (region->size + HUGE_BYTES - 1) & ~((size_t)HUGE_BYTES - 1);
    /* Else any process of any user could reopen it for writing through /proc. */
    err = fchmod(fd, 0600) < 0 ? -errno : map_new(region, fd, place);
    if (err < 0) {
        close(fd);
        return err;
    }
    region->fd = fd;
    return 0;
}

static int create_file(struct region *region, const struct region_place *place)
{
    int fd = open(place->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    region->page_bytes = PAGE_BYTES;
    int err = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : map_new(region, fd, place);
    if (err < 0) {
        close(fd);
        unlink(place->path);
        return err;
    }
    region->fd = fd;
    return 0;
}

int region_create(struct region *region, const char *name, const struct region_want *want,
                  const struct region_place *place, size_t size)
{
    int err = -1;

    *region =
        (struct region){.size = (size + PAGE_BYTES - 1) & ~((size_t)PAGE_BYTES - 1), .fd = -1};
    if (place->path) {
        err = create_file(region, place);
    } else {
        size_t wanted = region->size;
        if (place->huge && wanted >= HUGE_BYTES / 2)
            err = create_memfd(region, name, place, true);
        if (err < 0) {
            region->size = wanted;
            err = create_memfd(region, name, place, false);
        }
    }
    if (err < 0)
        return err;

    struct region_header *header = region->header;
    header->abi = REGION_ABI;
    header->kind = want->kind;
    header->layout = want->layout;
    header->size = region->size;
    header->epoch = want->epoch;
    memcpy(header->geometry, want->geometry, sizeof(header->geometry));
    header->page_bytes = region->page_bytes;
    header->magic = REGION_MAGIC;

    if (!place->path &&
        fcntl(region->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        err = -errno;
        region_close(region);
        return err;
    }
    return 0;
}

static bool differs(struct region_mismatch *mismatch, const char *field, uint64_t expected,
                    uint64_t found)
{
    if (expected == found)
        return false;
    *mismatch = (struct region_mismatch){field, expected, found};
    return true;
}

static bool header_differs(const struct region_header *header, const struct region_want *want,
                           size_t size, struct region_mismatch *mismatch)
{
    static const char *const geometry[4] = {"geometry[0]", "geometry[1]", "geometry[2]",
                                            "geometry[3]"};

    if (differs(mismatch, "magic", REGION_MAGIC, header->magic) ||
        differs(mismatch, "abi", REGION_ABI, header->abi) ||
        differs(mismatch, "kind", want->kind, header->kind) ||
        differs(mismatch, "layout", want->layout, header->layout) ||
        differs(mismatch, "size", size, header->size))
        return true;
    if (size < want->size_min)
        return differs(mismatch, "size", want->size_min, size);
    if (want->epoch && differs(mismatch, "epoch", want->epoch, header->epoch))
        return true;
    for (int i = 0; i < 4 && !want->any_geometry; i++) {
        if (differs(mismatch, geometry[i], want->geometry[i], header->geometry[i]))
            return true;
    }
    return false;
}

int region_attach(struct region *region, int fd, const struct region_want *want, bool writable,
                  struct region_mismatch *mismatch)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size < PAGE_BYTES) {
        *mismatch = (struct region_mismatch){"size", PAGE_BYTES, (uint64_t)st.st_size};
        return -EPROTO;
    }
    size_t size = (size_t)st.st_size;
    int prot = PROT_READ | (writable ? PROT_WRITE : 0);
    void *base = map_aligned(fd, 0, size, prot);
    if (base == MAP_FAILED)
        return -errno;
    if (header_differs(base, want, size, mismatch)) {
        munmap(base, size);
        return -EPROTO;
    }
    /* Page tables now, not one fault a page in the middle of a run. */
    (void)madvise(base, size, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    *region = (struct region){
        .header = base,
        .size = size,
        .fd = fd,
        .page_bytes = ((const struct region_header *)base)->page_bytes == HUGE_BYTES ? HUGE_BYTES
                                                                                     : PAGE_BYTES,
    };
    return 0;
}

void *region_writable(const struct region *region, size_t offset, size_t bytes)
{
    uint8_t *base = MAP_FAILED;
    size_t before = 0;

    /* Reserved large pages can only be mapped whole. */
    for (size_t page = PAGE_BYTES; base == MAP_FAILED && page <= HUGE_BYTES;
         page *= HUGE_BYTES / PAGE_BYTES) {
        before = offset & (page - 1);
        size_t size = (before + bytes + page - 1) & ~(page - 1);
        base = map_aligned(region->fd, offset - before, size, PROT_READ | PROT_WRITE);
        if (base != MAP_FAILED)
            (void)madvise(base, size, MADV_POPULATE_WRITE);
    }
    return base == MAP_FAILED ? NULL : base + before;
}

void region_close(struct region *region)
{
    if (region->header)
        munmap(region->header, region->size);
    if (region->fd >= 0)
        close(region->fd);
    *region = (struct region){.fd = -1};
}
