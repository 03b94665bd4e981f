/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/region.h"
#include "tests/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

static const struct region_want want = {
    .kind = REGION_CELLS,
    .layout = 0x1122334455667788,
    .epoch = 42,
    .geometry = {3, 5, 7, 11},
};
static const struct region_place anywhere = {.numa_node = -1};

static void make(struct region *region)
{
    CU_ASSERT_EQUAL_FATAL(region_create(region, "test", &want, &anywhere, 5000), 0);
}

static void test_header(void)
{
    static const uint8_t first[40] = {
        't', 'i', 'c',  'k',  'l',  'i',  'n',  'e',  2,    0,    0, 0,    2, 0,
        0,   0,   0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0x20, 0, 0,
        0,   0,   0,    0,    42,   0,    0,    0,    0,    0,    0, 0,
    };
    struct region region;
    make(&region);
    const uint8_t *bytes = region_at(&region, 0);
    CU_ASSERT(memcmp(bytes, first, sizeof(first)) == 0);
    for (int i = 0; i < 4; i++)
        CU_ASSERT_EQUAL(region.header->geometry[i], want.geometry[i]);
    for (size_t i = 80; i < region.size; i++)
        CU_ASSERT_EQUAL_FATAL(bytes[i], 0);
    CU_ASSERT_EQUAL(region.size, 8192);
    region_close(&region);
    CU_ASSERT_PTR_NULL(region.header);
    CU_ASSERT_EQUAL(region.fd, -1);
}

static void test_sealed(void)
{
    struct region region;
    struct stat st;
    make(&region);
    CU_ASSERT_EQUAL(fcntl(region.fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    CU_ASSERT(ftruncate(region.fd, 4096) < 0 && errno == EPERM);
    CU_ASSERT(ftruncate(region.fd, 16384) < 0 && errno == EPERM);
    CU_ASSERT(fcntl(region.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0 && errno == EPERM);
    CU_ASSERT_EQUAL(fstat(region.fd, &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 07777, 0600);
    region_close(&region);
}

static void test_attach(void)
{
    struct region owner, other, reader;
    struct region_mismatch mismatch;
    struct region_want any = want;
    make(&owner);
    *(uint64_t *)region_at(&owner, 4096) = 77;
    CU_ASSERT_EQUAL_FATAL(region_attach(&other, dup(owner.fd), &want, true, &mismatch), 0);
    CU_ASSERT_EQUAL(*(uint64_t *)region_at(&other, 4096), 77);
    *(uint64_t *)region_at(&other, 8184) = 78;
    CU_ASSERT_EQUAL(*(uint64_t *)region_at(&owner, 8184), 78);
    any.epoch = 0;
    any.any_geometry = true;
    memset(any.geometry, 0xff, sizeof(any.geometry));
    CU_ASSERT_EQUAL_FATAL(region_attach(&reader, dup(owner.fd), &any, false, &mismatch), 0);
    CU_ASSERT_EQUAL(*(uint64_t *)region_at(&reader, 8184), 78);
    CU_ASSERT_EQUAL(reader.size, 8192);
    region_close(&reader);
    region_close(&other);
    region_close(&owner);
}

/* Every field is compared, and the answer says which one and what stands there. */
static void test_mismatch(void)
{
    static const struct {
        size_t offset;
        size_t bytes;
        uint64_t found;
        const char *field;
        uint64_t expected;
    } wrong[] = {
        {0, 8, 0x656e696c6b636975, "magic", 0x656e696c6b636974},
        {8, 4, 3, "abi", 2},
        {12, 4, 3, "kind", 2},
        {16, 8, 1, "layout", 0x1122334455667788},
        {24, 8, 4096, "size", 8192},
        {32, 8, 43, "epoch", 42},
        {40, 8, 30, "geometry[0]", 3},
        {48, 8, 50, "geometry[1]", 5},
        {56, 8, 70, "geometry[2]", 7},
        {64, 8, 110, "geometry[3]", 11},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct region owner, other;
        struct region_mismatch mismatch = {0};
        make(&owner);
        memcpy(region_at(&owner, wrong[i].offset), &wrong[i].found, wrong[i].bytes);
        CU_ASSERT_EQUAL(region_attach(&other, owner.fd, &want, true, &mismatch), -EPROTO);
        CU_ASSERT_PTR_NOT_NULL_FATAL(mismatch.field);
        CU_ASSERT_STRING_EQUAL(mismatch.field, wrong[i].field);
        CU_ASSERT_EQUAL(mismatch.expected, wrong[i].expected);
        CU_ASSERT_EQUAL(mismatch.found, wrong[i].found);
        CU_ASSERT(fcntl(owner.fd, F_GETFD) >= 0); /* refused: the descriptor stays the caller's */
        region_close(&owner);
    }
}

static void test_file(void)
{
    char folder[] = "/tmp/tickline-test-XXXXXX";
    char path[64];
    struct region owner, other;
    struct region_mismatch mismatch;
    struct stat st;
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/arena", folder);
    struct region_place place = {.numa_node = -1, .path = path};
    CU_ASSERT_EQUAL_FATAL(region_create(&owner, "test", &want, &place, 5000), 0);
    CU_ASSERT_EQUAL(stat(path, &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 07777, 0600);
    CU_ASSERT_EQUAL(region_create(&other, "test", &want, &place, 5000), -EEXIST);
    CU_ASSERT_EQUAL(access(path, F_OK), 0); /* what was there stays there */

    CU_ASSERT_EQUAL(ftruncate(owner.fd, 4096), 0);
    CU_ASSERT_EQUAL(region_attach(&other, owner.fd, &want, true, &mismatch), -EPROTO);
    CU_ASSERT_STRING_EQUAL(mismatch.field, "size");
    CU_ASSERT_EQUAL(mismatch.expected, 4096);
    CU_ASSERT_EQUAL(mismatch.found, 8192);
    CU_ASSERT_EQUAL(ftruncate(owner.fd, 100), 0);
    CU_ASSERT_EQUAL(region_attach(&other, owner.fd, &want, true, &mismatch), -EPROTO);
    CU_ASSERT_STRING_EQUAL(mismatch.field, "size");
    CU_ASSERT_EQUAL(mismatch.expected, 4096);
    CU_ASSERT_EQUAL(mismatch.found, 100);
    region_close(&owner);
    unlink(path);

    CU_ASSERT_EQUAL(symlink("/dev/null", path), 0);
    CU_ASSERT_EQUAL(region_create(&other, "test", &want, &place, 5000), -EEXIST);
    unlink(path);
    rmdir(folder);
}

static int child_limited(void *unused)
{
    const struct rlimit limit = {65536, 65536};
    struct region region;

    (void)unused;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    return region_create(&region, "test", &want, &anywhere, 1 << 20) == -EFBIG ? 0 : 1;
}

/* In a mount namespace of its own, so nothing remains. 3: the host lets us have none. */
static int child_full(void *folder)
{
    struct region region;
    char path[64];
    snprintf(path, sizeof(path), "%s/arena", (const char *)folder);
    struct region_place place = {.numa_node = -1, .path = path};

    if ((unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", folder, "tmpfs", 0, "size=64k") < 0)
        return 3;
    if (region_create(&region, "test", &want, &place, 1 << 20) != -ENOSPC)
        return 1;
    return access(path, F_OK) < 0 && errno == ENOENT ? 0 : 2;
}

/* Too little memory is an error at creation, not a SIGBUS when it is touched. */
static void test_no_memory(void)
{
    char folder[] = "/tmp/tickline-test-XXXXXX";
    char text[64];
    CU_ASSERT_EQUAL(unit_child(child_limited, NULL, text, sizeof(text)), 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
    int status = unit_child(child_full, folder, text, sizeof(text));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
        UNIT_SKIP("full tmpfs: no mount namespace without root here");
    else
        CU_ASSERT_EQUAL(status, 0);
    rmdir(folder);
}

static int child_write(void *region)
{
    *(volatile uint64_t *)region_at(region, 4096) = 1;
    return 0;
}

static void test_read_only(void)
{
    struct region owner, reader;
    struct region_mismatch mismatch;
    make(&owner);
    CU_ASSERT_EQUAL_FATAL(region_attach(&reader, dup(owner.fd), &want, false, &mismatch), 0);
    unit_dies(child_write, &reader, SIGSEGV, "");
    CU_ASSERT_EQUAL(*(uint64_t *)region_at(&owner, 4096), 0);
    region_close(&reader);
    region_close(&owner);
}

static int child_write_window(void *window)
{
    *(volatile uint64_t *)window = 1;
    return 0;
}

/* What may be written of a region attached read-only: these pages by their own mapping, no other. */
static void test_writable(void)
{
    struct region owner, reader;
    struct region_mismatch mismatch;
    make(&owner);
    CU_ASSERT_EQUAL_FATAL(region_attach(&reader, dup(owner.fd), &want, false, &mismatch), 0);
    uint8_t *window = region_writable(&reader, 4096, 4096);
    CU_ASSERT_PTR_NOT_NULL_FATAL(window);
    window[8] = 77;
    CU_ASSERT_EQUAL(*(uint8_t *)region_at(&owner, 4104), 77);
    CU_ASSERT_EQUAL(*(uint8_t *)region_at(&reader, 4104), 77);
    unit_dies(child_write, &reader, SIGSEGV, "");
    unit_dies(child_write_window, window - 4096, SIGSEGV, "");
    unit_dies(child_write_window, window + 4096, SIGSEGV, "");
    munmap(window, 4096);
    CU_ASSERT_PTR_NULL(region_writable(&(struct region){.fd = -1}, 4096, 4096));
    CU_ASSERT_EQUAL(errno, EBADF);
    region_close(&reader);
    region_close(&owner);
}

/* KiB of the mapping at `base` that stand on large pages. */
static long huge_kib(const void *base)
{
    char start[32];
    char line[256];
    bool inside = false;
    long kib = 0;
    long got;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    snprintf(start, sizeof(start), "%lx-", (unsigned long)(uintptr_t)base);
    while (smaps && fgets(line, sizeof(line), smaps)) {
        if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' '))
            inside = strncmp(line, start, strlen(start)) == 0;
        else if (inside && (sscanf(line, "ShmemPmdMapped: %ld", &got) == 1 ||
                            sscanf(line, "Shared_Hugetlb: %ld", &got) == 1))
            kib += got;
    }
    if (smaps)
        fclose(smaps);
    return kib;
}

static void test_huge(void)
{
    const struct region_place huge = {.numa_node = -1, .huge = true};
    struct region owner, other;
    struct region_mismatch mismatch;
    CU_ASSERT_EQUAL_FATAL(region_create(&owner, "test", &want, &huge, 3 << 20), 0);
    CU_ASSERT(owner.page_bytes == 4096 || owner.page_bytes == 2 << 20);
    CU_ASSERT(owner.size == 3 << 20 || owner.size == 4 << 20);
    CU_ASSERT_EQUAL_FATAL(region_attach(&other, dup(owner.fd), &want, true, &mismatch), 0);
    CU_ASSERT_EQUAL(other.page_bytes, owner.page_bytes);
    if (owner.page_bytes == 4096) {
        UNIT_SKIP("2 MiB pages: none are free, and the kernel makes none of small ones");
    } else {
        CU_ASSERT(huge_kib(owner.header) >= 2048);
        CU_ASSERT(huge_kib(other.header) >= 2048);
        CU_ASSERT_PTR_NOT_NULL(region_writable(&other, 4096, 4096)); /* as for 2 MiB pages, too */
        CU_ASSERT(huge_kib(other.header) >= 2048);
    }
    region_close(&other);
    region_close(&owner);
}

static void test_hash(void)
{
    const uint64_t one[] = {0x3837363534333231}; /* the text 12345678 */
    CU_ASSERT_EQUAL(region_hash(one, 0), 0xcbf29ce484222325);
    CU_ASSERT_EQUAL(region_hash(one, 1), 0x173932c41a90a42d);
}

static int child_corrupt(void *unused)
{
    (void)unused;
    region_corrupt("ring tail", 5, 255);
}

static void test_corrupt(void)
{
    unit_dies(child_corrupt, NULL, SIGABRT,
              "shared memory is corrupt: ring tail: expected 5 (0x5), found 255 (0xff)\n");
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"header, byte by byte", test_header},
        {"sealed and private", test_sealed},
        {"attach", test_attach},
        {"each mismatch is named", test_mismatch},
        {"named file", test_file},
        {"no memory", test_no_memory},
        {"read-only attach", test_read_only},
        {"a part to write", test_writable},
        {"2 MiB pages", test_huge},
        {"hash", test_hash},
        {"corruption ends the process", test_corrupt},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "region", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
