/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preflight of input and output: sockets, descriptors, io_uring, and what the lab needs.
 */
#include "launch/check_probe.h"
#include "launch/store.h"
#include "launch/user.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CAPABILITY_NET_ADMIN = 12, CAPABILITY_SYS_ADMIN = 21 };

static void socket_buffer(const struct check_context *context, struct check_result *result)
{
    long long most = host_number(context->host, -1, "/proc/sys/net/core/rmem_max");
    char asked[32], granted[32];
    uint64_t wanted = context->config->rx.socket_bytes;
    result->asked = "want";
    check_bytes(wanted, asked);
    check_bytes(most > 0 ? (uint64_t)most : 0, granted);
    if (host_capable(context->host, CAPABILITY_NET_ADMIN)) {
        check_found(result, "%s; privileged, no limit", asked);
        return;
    }
    check_found(result, "%s asked, rmem_max %s", asked, most < 0 ? "unknown" : granted);
    if (most >= 0 && (uint64_t)most < wanted)
        check_warn(result, "sudo sysctl -w net.core.rmem_max=%llu", (unsigned long long)wanted);
}

static void descriptors(const struct check_context *context, struct check_result *result)
{
    struct rlimit limit = {0};
    unsigned long long needed = store_descriptors(context->config, context->placement->stages);
    getrlimit(RLIMIT_NOFILE, &limit); /* the launcher takes what it may */
    check_found(result, "%llu needed, %llu allowed", needed, (unsigned long long)limit.rlim_max);
    if (limit.rlim_max < needed)
        check_missing(result, WISH_NEED, "ulimit -Hn %llu", needed);
    result->asked = "always";
}

/* Asks the kernel for a ring as the stages would; 0 or -errno. */
static int probe_uring(void)
{
    struct io_uring ring;
    struct io_uring_params params = {.flags =
                                         IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    int result = io_uring_queue_init_params(8, &ring, &params);
    if (result == 0)
        io_uring_queue_exit(&ring);
    return result;
}

static void uring(const struct check_context *context, struct check_result *result)
{
    static const enum config_wish wishes[] = {
        [IO_AUTO] = WISH_WANT, [IO_URING] = WISH_NEED, [IO_PLAIN] = WISH_NO};
    enum config_wish rx = wishes[context->config->rx.io], tx = wishes[context->config->tx.io];
    enum config_wish wish = rx > tx ? rx : tx;
    long long disabled = host_number(context->host, 0, "/proc/sys/kernel/io_uring_disabled");
    int probed = probe_uring();
    result->asked = check_wish(wish);
    if (probed == 0) {
        check_found(result, "available");
    } else if (disabled > 0) {
        check_found(result, "kernel.io_uring_disabled = %lld", disabled);
        check_missing(result, wish, "sudo sysctl -w kernel.io_uring_disabled=0");
    } else if (probed == -EPERM || probed == -EACCES) {
        check_found(result, "refused (%s), perhaps by the container", strerror(-probed));
        check_missing(result, wish, "docker run --security-opt seccomp=unconfined, or io = plain");
    } else {
        check_found(result, "not as needed: %s%s", strerror(-probed),
                    probed == -EINVAL ? " (kernel before 6.1)" : "");
        check_missing(result, wish, "--set rx.io=plain --set tx.io=plain");
    }
}

static bool in_path(const char *program)
{
    char list[4096], file[4200];
    const char *path = getenv("PATH");
    snprintf(list, sizeof(list), "%s:/usr/sbin:/sbin", path != NULL ? path : "/usr/bin:/bin");
    for (char *folder = strtok(list, ":"); folder != NULL; folder = strtok(NULL, ":")) {
        snprintf(file, sizeof(file), "%s/%s", folder, program);
        if (access(file, X_OK) == 0)
            return true;
    }
    return false;
}

static void lab_tools(const struct check_context *context, struct check_result *result)
{
    static const struct {
        const char *program, *package;
    } tools[] = {{"tcpreplay", "tcpreplay"}, {"ip", "iproute2"}, {"nsenter", "util-linux"}};
    char missing[64] = "", packages[64] = "";
    (void)context;
    for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++) {
        if (in_path(tools[i].program))
            continue;
        size_t length = strlen(missing), other = strlen(packages);
        snprintf(missing + length, sizeof(missing) - length, " %s", tools[i].program);
        snprintf(packages + other, sizeof(packages) - other, " %s", tools[i].package);
    }
    result->asked = "want";
    check_found(result, "%s%s", missing[0] != '\0' ? "missing:" : "tcpreplay, ip, nsenter",
                missing);
    if (missing[0] != '\0')
        check_warn(result, "sudo apt-get install -y%s", packages);
}

/* The lab's network: private namespaces, which take privilege or user namespaces. */
static void namespaces(const struct check_context *context, struct check_result *result)
{
    long long most = host_number(context->host, 1, "/proc/sys/user/max_user_namespaces");
    long long clone = host_number(context->host, 1, "/proc/sys/kernel/unprivileged_userns_clone");
    long long restricted =
        host_number(context->host, 0, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    result->asked = "want";
    if (host_capable(context->host, CAPABILITY_SYS_ADMIN)) {
        check_found(result, "privileged");
        return;
    }
    check_found(result, "unprivileged; user namespaces %s",
                most > 0 && clone > 0 && restricted == 0 ? "allowed" : "forbidden");
    if (most <= 0)
        check_warn(result, "sudo sysctl -w user.max_user_namespaces=1024");
    else if (clone <= 0)
        check_warn(result, "sudo sysctl -w kernel.unprivileged_userns_clone=1");
    else if (restricted != 0)
        check_warn(result, "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
}

/* Is this user one of our user namespace? */
static bool is_mapped(const struct host *host, uid_t uid)
{
    unsigned long first, outside, count;
    char map[4096];
    if (!host_read(host, map, sizeof(map), "/proc/self/uid_map"))
        return true;
    for (char *line = strtok(map, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (sscanf(line, "%lu %lu %lu", &first, &outside, &count) == 3 && uid >= first &&
            uid - first < count)
            return true;
    }
    return false;
}

/* May we make a process this user's, and the tracer's folders? */
static bool may_become(const struct host *host, uid_t uid)
{
    enum { NEEDED = 1 << 0 | 1 << 6 | 1 << 7 }; /* CAP_CHOWN, CAP_SETGID, CAP_SETUID */
    char effective[64];
    return uid == geteuid() ||
           (host_field(host, "/proc/self/status", "CapEff", effective, sizeof(effective)) &&
            (strtoull(effective, NULL, 16) & NEEDED) == NEEDED && is_mapped(host, uid));
}

static void sandbox(const struct check_context *context, struct check_result *result)
{
    enum config_wish wish = context->config->isolate.sandbox;
    const char *name = context->config->isolate.user;
    char error[CONFIG_ERROR_MAX], actions[256];
    struct user user;
    result->asked = check_wish(wish);
    if (wish == WISH_NO || user_find(context->config, &user, error) < 0) {
        check_found(result, "stages keep the rights they are started with");
    } else if (!host_read(context->host, actions, sizeof(actions),
                          "/proc/sys/kernel/seccomp/actions_avail") ||
               strstr(actions, "trap") == NULL) {
        check_found(result, "the kernel has no seccomp filters");
        check_missing(result, wish, "boot a kernel with CONFIG_SECCOMP_FILTER=y");
    } else if (!may_become(context->host, user.uid)) {
        check_found(result, "calls filtered, no capabilities; cannot become %s", name);
        check_missing(result, wish, "run it as root (sudo)");
    } else {
        check_found(result, "user %s, no capabilities, calls filtered", name);
    }
}

const struct check check_system_list[] = {
    {"socket buffer", socket_buffer},
    {"descriptors", descriptors},
    {"io_uring", uring},
    {"lab tools", lab_tools},
    {"namespaces", namespaces},
    {"sandbox", sandbox},
    {NULL, NULL},
};
