/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says about this host in /proc and /sys. Reads only.
 *
 * Every path goes through a root, so that a test can put a made-up tree in its place. Not for the
 * hot path; may be called by the launcher from one thread.
 */
#ifndef TICKLINE_LAUNCH_HOST_H
#define TICKLINE_LAUNCH_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stage/config.h"

enum { HOST_TEXT_MAX = 16384 };

struct host {
    const char *root; /* in front of every path: "" for this host */
};

/* A set of CPUs (or nodes), one bit each. */
struct host_set {
    uint64_t bits[CONFIG_CPUS_MAX / 64];
};

static inline void host_set_add(struct host_set *set, unsigned id)
{
    set->bits[id / 64] |= UINT64_C(1) << id % 64;
}

static inline bool host_set_has(const struct host_set *set, unsigned id)
{
    return id < CONFIG_CPUS_MAX && (set->bits[id / 64] >> id % 64 & 1) != 0;
}

unsigned host_set_count(const struct host_set *set);

/* `1,3-5`; "none" for the empty set. */
void host_set_format(const struct host_set *set, char *out, size_t size);

/* Reads `1,3-5\n`; ids beyond CONFIG_CPUS_MAX are left out. False where it is not such a list. */
bool host_set_parse(struct host_set *set, const char *text);

/* A CPU this process may run on. */
struct host_cpu {
    uint16_t cpu;
    uint16_t core; /* the lowest CPU of the same core */
    uint16_t node; /* NUMA node */
    bool isolated; /* by isolcpus: the scheduler puts nothing there unasked */
};

struct host_topology {
    struct host_set online;
    struct host_set nodes; /* online NUMA nodes */
    uint32_t count;
    struct host_cpu at[CONFIG_CPUS_MAX]; /* allowed and online, ascending */
};

/*
 * Allowed is what the process inherited (affinity, cpuset). Where that is simply every CPU that is
 * not isolated, the isolated ones count as allowed too: they can be had for the asking. 0, or
 * -ENOENT where /proc or /sys do not say.
 */
int host_topology_read(const struct host *host, struct host_topology *topology);

/* First `size - 1` bytes of a file, without the newline at the end; false where it cannot be read.
 */
bool host_read(const struct host *host, char *out, size_t size, const char *path, ...)
    __attribute__((format(printf, 4, 5)));

/* A file that holds one number (or begins with it); `fallback` where there is none. */
long long host_number(const struct host *host, long long fallback, const char *path, ...)
    __attribute__((format(printf, 3, 4)));

/* The value behind `name` in a file of `name: value` lines, such as /proc/self/status. */
bool host_field(const struct host *host, const char *path, const char *name, char *out,
                size_t size);

/* May this process do what needs the capability (its number) on the host, not in a container alone?
 */
bool host_capable(const struct host *host, unsigned capability);

#endif
