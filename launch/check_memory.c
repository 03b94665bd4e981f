/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preflight of memory: room, locking, page sizes, paging out.
 */
#include "launch/check_probe.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

enum { CAPABILITY_IPC_LOCK = 14 };

bool check_cgroup(const struct check_context *context, const char *controller, unsigned level,
                  char *out, size_t size)
{
    char text[4096], name[64];
    const char *found = NULL;
    bool old = false; /* version 1 */
    size_t length = 0;
    if (!host_read(context->host, text, sizeof(text), "/proc/self/cgroup"))
        return false;
    for (char *line = strtok(text, "\n"); line != NULL && !old; line = strtok(NULL, "\n")) {
        char *names = strchr(line, ':');
        char *path = names != NULL ? strchr(names + 1, ':') : NULL;
        if (path == NULL)
            continue;
        snprintf(name, sizeof(name), ",%.*s,", (int)(path - names - 1), names + 1);
        char *at = strstr(name, controller);
        old = at != NULL && at[-1] == ',' && at[strlen(controller)] == ',';
        if (old || path == names + 1) /* version 2 has no names */
            found = path + 1;
    }
    if (found == NULL)
        return false;
    length = strlen(found);
    for (unsigned up = 0; up < level; up++) {
        if (length <= 1)
            return false;
        while (length > 0 && found[--length] != '/')
            ;
    }
    snprintf(out, size, "/sys/fs/cgroup%s%s%.*s", old ? "/" : "", old ? controller : "",
             (int)(length > 1 ? length : 0), found);
    return true;
}

static long long meminfo_bytes(const struct check_context *context, const char *name)
{
    char text[64];
    unsigned long long kib;
    if (!host_field(context->host, "/proc/meminfo", name, text, sizeof(text)) ||
        sscanf(text, "%llu", &kib) != 1)
        return -1;
    return (long long)kib * 1024;
}

/* Free memory, and the room in our cgroups where that is less; -1 where nobody says. */
static long long free_bytes(const struct check_context *context, bool *limited)
{
    long long free = meminfo_bytes(context, "MemAvailable");
    char folder[1024];
    *limited = false;
    for (unsigned level = 0; check_cgroup(context, "memory", level, folder, sizeof(folder));
         level++) {
        long long most = host_number(context->host, -1, "%s/memory.max", folder);
        long long used = host_number(context->host, -1, "%s/memory.current", folder);
        if (most < 0)
            most = host_number(context->host, -1, "%s/memory.limit_in_bytes", folder);
        if (used < 0)
            used = host_number(context->host, -1, "%s/memory.usage_in_bytes", folder);
        if (most >= 0 && used >= 0 && (free < 0 || most - used < free)) {
            free = most > used ? most - used : 0;
            *limited = true;
        }
    }
    return free;
}

static void memory(const struct check_context *context, struct check_result *result)
{
    bool limited;
    const struct check_demand *demand = &context->demand;
    uint64_t needed = demand->ring_bytes + demand->arena_bytes + demand->tcp_bytes;
    const char *what = demand->tcp_bytes ? "rings, lanes and connections" : "rings and lanes";
    long long free = free_bytes(context, &limited);
    char need[32], have[32];
    check_bytes(needed, need);
    check_bytes(free > 0 ? (uint64_t)free : 0, have);
    if (free < 0) {
        check_found(result, "%s for %s; free memory unknown", need, what);
        return;
    }
    check_found(result, "%s for %s, %s free%s", need, what, have,
                limited ? " in this container" : "");
    if ((uint64_t)free < needed)
        check_missing(result, WISH_NEED, "--set %s, or more memory%s",
                      demand->tcp_bytes > demand->arena_bytes ? "rx.connection_buffer=4KiB"
                                                              : "trace.lane=1MiB",
                      limited ? " (docker run --memory)" : "");
    result->asked = "always";
}

static void dev_shm(const struct check_context *context, struct check_result *result)
{
    char path[4096], need[32], have[32];
    struct statvfs room;
    uint64_t needed = context->demand.arena_bytes;
    snprintf(path, sizeof(path), "%s/dev/shm", context->host->root);
    check_bytes(needed, need);
    if (statvfs(path, &room) != 0) {
        check_found(result, "%s for trace lanes, but there is no /dev/shm", need);
        check_missing(result, WISH_NEED, "sudo mount -t tmpfs tmpfs /dev/shm");
    } else {
        uint64_t free = (uint64_t)room.f_bavail * room.f_frsize;
        check_bytes(free, have);
        check_found(result, "%s for trace lanes, %s free", need, have);
        if (free < needed)
            check_missing(
                result, WISH_NEED,
                "sudo mount -o remount,size=%lluM /dev/shm, or --set trace.lane=1MiB",
                (unsigned long long)(((uint64_t)room.f_blocks * room.f_frsize + needed) >> 20));
    }
    result->asked = "always";
}

static void lock(const struct check_context *context, struct check_result *result)
{
    struct rlimit limit = {0};
    uint64_t needed =
        context->demand.ring_bytes + context->demand.arena_bytes + context->demand.tcp_bytes;
    char need[32], have[32];
    enum config_wish wish = context->config->memory.lock;
    result->asked = check_wish(wish);
    getrlimit(RLIMIT_MEMLOCK, &limit);
    check_bytes(needed, need);
    check_bytes(limit.rlim_cur, have);
    if (limit.rlim_cur == RLIM_INFINITY || host_capable(context->host, CAPABILITY_IPC_LOCK)) {
        check_found(result, "%s to lock, no limit", need);
        return;
    }
    check_found(result, "%s to lock, at most %s a process", need, have);
    if (limit.rlim_cur < needed)
        check_missing(result, wish, "sudo prlimit --memlock=unlimited --pid $$");
}

static void huge_pages(const struct check_context *context, struct check_result *result)
{
    static const enum config_wish wishes[] = {WISH_NO, WISH_WANT, WISH_NEED};
    const char *folder = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    enum config_wish wish = wishes[context->config->memory.pages];
    long long free = host_number(context->host, 0, "%s/free_hugepages", folder);
    long long reserved = host_number(context->host, 0, "%s/resv_hugepages", folder);
    long long all = host_number(context->host, 0, "%s/nr_hugepages", folder);
    unsigned long long needed = context->demand.huge_pages;
    result->asked = check_wish(wish);
    free = free > reserved ? free - reserved : 0;
    check_found(result, "%lld of %lld pages of 2 MiB free, the rings take %llu", free, all, needed);
    if ((unsigned long long)free < needed)
        check_missing(result, wish, "sudo sysctl -w vm.nr_hugepages=%llu",
                      (unsigned long long)all + needed - (unsigned long long)free);
}

static void transparent(const struct check_context *context, struct check_result *result)
{
    char text[128] = "";
    const char *path = "/sys/kernel/mm/transparent_hugepage/enabled";
    const char *open, *close;
    result->asked = "want";
    if (!host_read(context->host, text, sizeof(text), "%s", path) ||
        (open = strchr(text, '[')) == NULL || (close = strchr(open, ']')) == NULL) {
        check_found(result, "none in this kernel");
        return;
    }
    bool always = strncmp(open, "[always]", 8) == 0;
    check_found(result, "%.*s%s", (int)(close - open - 1), open + 1,
                always ? ": the kernel moves pages while we run" : "");
    if (always)
        check_warn(result, "echo madvise | sudo tee %s", path);
}

static void swap(const struct check_context *context, struct check_result *result)
{
    char text[4096] = "";
    host_read(context->host, text, sizeof(text), "/proc/swaps");
    bool any = strchr(text, '\n') != NULL; /* behind the line of titles */
    bool locked = context->config->memory.lock != WISH_NO;
    result->asked = "want";
    check_found(result, "%s", !any ? "off" : (locked ? "on; memory is to be locked" : "on"));
    if (any && !locked)
        check_warn(result, "sudo swapoff -a, or --set memory.lock=want");
}

const struct check check_memory_list[] = {
    {"memory", memory},   {"/dev/shm", dev_shm}, {"locking", lock}, {"huge pages", huge_pages},
    {"THP", transparent}, {"swap", swap},        {NULL, NULL},
};
