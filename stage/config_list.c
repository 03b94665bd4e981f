/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of CPUs and of addresses.
 */
#include "stage/config_table.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool cpu_read(const char **text, unsigned long *cpu)
{
    char *end;
    if (!isdigit((unsigned char)**text))
        return false;
    *cpu = strtoul(*text, &end, 10);
    *text = end;
    return *cpu < CONFIG_CPUS_MAX;
}

int config_cpus_parse(const struct config_key *key, const char *text, struct config_cpus *field,
                      char *why)
{
    field->count = 0;
    for (;; text++) {
        unsigned long first, last;
        if (!cpu_read(&text, &first))
            return config_refuse(key, NULL, why);
        last = first;
        if (*text == '-') {
            text++;
            if (!cpu_read(&text, &last) || last < first)
                return config_refuse(key, NULL, why);
        }
        for (; first <= last; first++) {
            if (field->count == key->max)
                return config_refuse(key, NULL, why);
            field->cpu[field->count++] = (uint16_t)first;
        }
        if (*text == '\0')
            return 0;
        if (*text != ',')
            return config_refuse(key, NULL, why);
        text += strspn(text + 1, " ");
    }
}

/* `1.2.3.4:9000` or `[::1]:9000`, `length` characters of it. */
bool config_endpoint_read(const char *text, size_t length, struct config_endpoint *endpoint)
{
    char copy[sizeof(endpoint->address) + 8];
    unsigned char binary[sizeof(struct in6_addr)];
    if (length >= sizeof(copy))
        return false;
    snprintf(copy, sizeof(copy), "%.*s", (int)length, text);
    char *colon = strrchr(copy, ':');
    if (colon == NULL || strlen(colon) < 2 || strlen(colon) > 6 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return false;
    unsigned long port = strtoul(colon + 1, NULL, 10);
    bool brackets = copy[0] == '[' && colon > copy && colon[-1] == ']';
    *(brackets ? colon - 1 : colon) = '\0';
    const char *address = copy + (brackets ? 1 : 0);
    if (inet_pton(brackets ? AF_INET6 : AF_INET, address, binary) != 1 || port == 0 || port > 65535)
        return false;
    inet_ntop(brackets ? AF_INET6 : AF_INET, binary, endpoint->address, sizeof(endpoint->address));
    endpoint->port = (uint16_t)port;
    return true;
}

struct config_endpoint *config_endpoints_list(const void *count)
{
    return (struct config_endpoint *)((uintptr_t)count + offsetof(struct config, rx.bind) -
                                      offsetof(struct config, rx.bind_count));
}

int config_endpoints_parse(const struct config_key *key, const char *text, void *field, char *why)
{
    uint32_t *count = field;
    struct config_endpoint *list = config_endpoints_list(field);
    for (*count = 0;; text++) {
        text += strspn(text, " ");
        size_t length = strcspn(text, ", ");
        struct config_endpoint *next = &list[*count];
        if (*count == CONFIG_ENDPOINTS_MAX || !config_endpoint_read(text, length, next))
            return config_refuse(key, "0.0.0.0:9000", why);
        for (uint32_t i = 0; i < *count; i++) {
            if (next->port == list[i].port && strcmp(next->address, list[i].address) == 0)
                return config_refuse(key, "each once", why);
        }
        ++*count;
        text += length;
        text += strspn(text, " ");
        if (*text == '\0')
            return 0;
        if (*text != ',')
            return config_refuse(key, "0.0.0.0:9000", why);
    }
}

/* Neighbours that count upwards are written as a range. */
void config_cpus_format(const struct config_cpus *cpus, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < cpus->count && used < size; i++) {
        uint16_t first = cpus->cpu[i];
        used += (size_t)snprintf(out + used, size - used, "%s%u", i > 0 ? "," : "", first);
        uint32_t last = i;
        while (last + 1 < cpus->count && cpus->cpu[last + 1] == cpus->cpu[last] + 1)
            last++;
        if (last > i && used < size)
            used += (size_t)snprintf(out + used, size - used, "-%u", cpus->cpu[last]);
        i = last;
    }
}

void config_endpoints_format(const struct config_endpoint *list, uint32_t count, char *out,
                             size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < count && used < size; i++) {
        bool v6 = strchr(list[i].address, ':') != NULL;
        used += (size_t)snprintf(out + used, size - used, "%s%s%s%s:%u", i > 0 ? "," : "",
                                 v6 ? "[" : "", list[i].address, v6 ? "]" : "", list[i].port);
    }
}
