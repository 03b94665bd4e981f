/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/host.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool read_text(const struct host *host, char *out, size_t size, const char *path,
                      va_list arguments)
{
    char full[4096];
    int used = snprintf(full, sizeof(full), "%s", host->root);
    if (used < 0 || (size_t)used >= sizeof(full))
        return false;
    vsnprintf(full + used, sizeof(full) - (size_t)used, path, arguments);
    FILE *file = fopen(full, "re");
    if (file == NULL)
        return false;
    size_t length = fread(out, 1, size - 1, file);
    bool failed = ferror(file) != 0;
    fclose(file);
    while (length > 0 && isspace((unsigned char)out[length - 1]))
        length--;
    out[length] = '\0';
    return !failed;
}

bool host_read(const struct host *host, char *out, size_t size, const char *path, ...)
{
    va_list arguments;
    va_start(arguments, path);
    bool read = read_text(host, out, size, path, arguments);
    va_end(arguments);
    return read;
}

long long host_number(const struct host *host, long long fallback, const char *path, ...)
{
    char text[64], *end;
    va_list arguments;
    va_start(arguments, path);
    bool read = read_text(host, text, sizeof(text), path, arguments);
    va_end(arguments);
    long long number = read ? strtoll(text, &end, 10) : 0;
    return read && end != text ? number : fallback;
}

bool host_field(const struct host *host, const char *path, const char *name, char *out, size_t size)
{
    char text[HOST_TEXT_MAX];
    size_t length = strlen(name);
    if (!host_read(host, text, sizeof(text), "%s", path))
        return false;
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += line[0] == '\n';
        if (strncmp(line, name, length) != 0)
            continue;
        const char *value = line + length + strspn(line + length, " \t");
        if (*value != ':')
            continue;
        value += 1 + strspn(value + 1, " \t");
        snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
        return true;
    }
    return false;
}

bool host_capable(const struct host *host, unsigned capability)
{
    char effective[64], map[128];
    unsigned long first, outside, count;
    if (!host_field(host, "/proc/self/status", "CapEff", effective, sizeof(effective)) ||
        (strtoull(effective, NULL, 16) >> capability & 1) == 0)
        return false;
    /* Inside a user namespace a capability does not reach the host's limits. */
    return !host_read(host, map, sizeof(map), "/proc/self/uid_map") ||
           (sscanf(map, "%lu %lu %lu", &first, &outside, &count) == 3 && first == 0 &&
            outside == 0 && count == UINT32_MAX);
}

unsigned host_set_count(const struct host_set *set)
{
    unsigned count = 0;
    for (size_t i = 0; i < CONFIG_CPUS_MAX / 64; i++)
        count += (unsigned)__builtin_popcountll(set->bits[i]);
    return count;
}

void host_set_format(const struct host_set *set, char *out, size_t size)
{
    size_t used = 0;
    snprintf(out, size, "none");
    for (unsigned id = 0; id < CONFIG_CPUS_MAX && used < size; id++) {
        if (!host_set_has(set, id))
            continue;
        unsigned last = id;
        while (host_set_has(set, last + 1))
            last++;
        used += (size_t)snprintf(out + used, size - used, "%s%u", used > 0 ? "," : "", id);
        if (last > id && used < size)
            used += (size_t)snprintf(out + used, size - used, "-%u", last);
        id = last;
    }
}

bool host_set_parse(struct host_set *set, const char *text)
{
    *set = (struct host_set){0};
    while (*text != '\0' && *text != '\n') {
        char *end;
        if (!isdigit((unsigned char)*text))
            return false;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-' && isdigit((unsigned char)end[1]))
            last = strtoul(end + 1, &end, 10);
        for (; first <= last && first < CONFIG_CPUS_MAX; first++)
            host_set_add(set, (unsigned)first);
        if (*end != ',' && *end != '\0' && *end != '\n')
            return false;
        text = end + (*end == ',');
    }
    return true;
}

static bool read_set(const struct host *host, struct host_set *set, const char *path)
{
    char text[HOST_TEXT_MAX];
    *set = (struct host_set){0};
    return host_read(host, text, sizeof(text), "%s", path) && host_set_parse(set, text);
}

static uint16_t core_of(const struct host *host, uint16_t cpu)
{
    struct host_set siblings;
    char path[128];
    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list",
             cpu);
    if (!read_set(host, &siblings, path) || !host_set_has(&siblings, cpu))
        return cpu;
    uint16_t lowest = 0;
    while (!host_set_has(&siblings, lowest))
        lowest++;
    return lowest;
}

static uint16_t node_of(const struct host *host, const struct host_set *nodes, uint16_t cpu)
{
    for (uint16_t node = 0; node < CONFIG_CPUS_MAX; node++) {
        struct host_set cpus;
        char path[96];
        if (!host_set_has(nodes, node))
            continue;
        snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist", node);
        if (read_set(host, &cpus, path) && host_set_has(&cpus, cpu))
            return node;
    }
    return 0;
}

static bool allowed_cpus(const struct host *host, const struct host_set *online,
                         const struct host_set *isolated, struct host_set *allowed)
{
    char text[HOST_TEXT_MAX];
    bool inherited = true;
    if (!host_field(host, "/proc/self/status", "Cpus_allowed_list", text, sizeof(text)) ||
        !host_set_parse(allowed, text))
        return false;
    for (size_t i = 0; i < CONFIG_CPUS_MAX / 64; i++) {
        allowed->bits[i] &= online->bits[i];
        inherited = inherited && allowed->bits[i] == (online->bits[i] & ~isolated->bits[i]);
    }
    if (inherited)
        *allowed = *online;
    return true;
}

int host_topology_read(const struct host *host, struct host_topology *topology)
{
    struct host_set isolated, allowed;
    memset(topology, 0, sizeof(*topology));
    if (!read_set(host, &topology->online, "/sys/devices/system/cpu/online"))
        return -ENOENT;
    read_set(host, &isolated, "/sys/devices/system/cpu/isolated");
    for (size_t i = 0; i < CONFIG_CPUS_MAX / 64; i++)
        isolated.bits[i] &= topology->online.bits[i];
    if (!allowed_cpus(host, &topology->online, &isolated, &allowed))
        return -ENOENT;
    if (!read_set(host, &topology->nodes, "/sys/devices/system/node/online"))
        host_set_add(&topology->nodes, 0);
    for (uint16_t cpu = 0; cpu < CONFIG_CPUS_MAX; cpu++) {
        if (!host_set_has(&allowed, cpu))
            continue;
        topology->at[topology->count++] =
            (struct host_cpu){.cpu = cpu,
                              .core = core_of(host, cpu),
                              .node = node_of(host, &topology->nodes, cpu),
                              .isolated = host_set_has(&isolated, cpu)};
    }
    return topology->count > 0 ? 0 : -ENOENT;
}
