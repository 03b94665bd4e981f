/* SPDX-License-Identifier: Apache-2.0 */
/* What this host gives of counters. */
#include "stage/pmu.h"

#include "shm/region.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int open_event(struct perf_event_attr *attr, int group)
{
#if defined(__x86_64__)
    long fd = syscall(SYS_perf_event_open, attr, 0, -1, group, PERF_FLAG_FD_CLOEXEC);

    return fd < 0 ? -errno : (int)fd;
#else
    (void)attr;
    (void)group;
    return -EOPNOTSUPP; /* read by rdpmc, which is x86-64's */
#endif
}

static struct perf_event_mmap_page *map_event(int fd)
{
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);

    return page == MAP_FAILED ? NULL : page;
}

static void close_event(int fd, struct perf_event_mmap_page *page)
{
    if (page)
        munmap(page, PAGE_BYTES);
    close(fd);
}

static uint64_t read_counter(uint32_t counter)
{
#if defined(__x86_64__)
    return (uint64_t)__builtin_ia32_rdpmc((int)counter);
#else
    (void)counter;
    return 0;
#endif
}

static int thread_usage(struct rusage *usage)
{
    return getrusage(RUSAGE_THREAD, usage) < 0 ? -errno : 0;
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec ts = {0};

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

const struct pmu_host pmu_linux = {
    .open = open_event,
    .map = map_event,
    .close = close_event,
    .rdpmc = read_counter,
    .usage = thread_usage,
    .cpu_ns = thread_cpu_ns,
};
