/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "client_script.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct header {
    char magic[8];
    uint32_t operations;
    uint32_t connections;
    uint64_t bytes;
    uint64_t zero;
};

static int map(struct script *script, const char *path)
{
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &stat) != 0 ? -errno : 0;
    if (rc == 0 && (uint64_t)stat.st_size < sizeof(struct header))
        rc = -EBADMSG;
    if (rc == 0) {
        script->map_bytes = (size_t)stat.st_size;
        script->map = mmap(NULL, script->map_bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
        rc = script->map == MAP_FAILED ? -errno : 0;
    }
    close(fd);
    return rc;
}

/* Where the parts stand; false where they do not fill the file. */
static bool lay_out(struct script *script)
{
    const struct header *header = script->map;
    const uint8_t *at = (const uint8_t *)(header + 1);

    if (memcmp(header->magic, "ticklscr", sizeof header->magic) != 0 || header->zero != 0 ||
        header->connections > SCRIPT_CONNECTIONS_MAX || header->operations == OPERATION_NONE ||
        header->bytes > script->map_bytes)
        return false;
    size_t ports = ((size_t)header->connections + 1) / 2 * 2 * sizeof *script->port;
    size_t table = header->operations * sizeof *script->operation;
    script->operations = header->operations;
    script->connections = header->connections;
    script->port = (const uint32_t *)at;
    script->operation = (const struct operation *)(at + ports);
    script->data = at + ports + table;
    return sizeof *header + ports + table + header->bytes == script->map_bytes;
}

static bool is_right(const struct script *script, const struct operation *operation)
{
    const struct header *header = script->map;

    return operation->connection < script->connections && operation->kind < OPERATION_KINDS &&
           (operation->length == 0 || operation->kind == OPERATION_DATA) &&
           operation->at <= header->bytes && operation->length <= header->bytes - operation->at;
}

/* Checks every operation and links those of each connection. */
static int link_up(struct script *script)
{
    uint32_t *last = malloc(((size_t)script->connections + 1) * sizeof *last);
    int rc = 0;

    script->next = malloc(((size_t)script->operations + 1) * sizeof *script->next);
    if (!last || !script->next) {
        free(last);
        return -ENOMEM;
    }
    memset(last, 0xff, ((size_t)script->connections + 1) * sizeof *last);
    for (uint32_t i = 0; i < script->connections; i++)
        if (script->port[i] == 0 || script->port[i] > UINT16_MAX)
            rc = -EBADMSG;
    for (uint32_t i = script->operations; rc == 0 && i-- > 0;) {
        const struct operation *operation = &script->operation[i];
        if (!is_right(script, operation) ||
            (i > 0 && operation[-1].planned_ns > operation->planned_ns)) {
            rc = -EBADMSG;
            break;
        }
        script->next[i] = last[operation->connection];
        last[operation->connection] = i;
    }
    free(last);
    return rc;
}

int script_open(struct script *script, const char *path)
{
    *script = (struct script){0};
    int rc = map(script, path);

    if (rc == 0)
        rc = lay_out(script) ? link_up(script) : -EBADMSG;
    if (rc != 0)
        script_close(script);
    return rc;
}

void script_close(struct script *script)
{
    if (script->map && script->map != MAP_FAILED)
        munmap(script->map, script->map_bytes);
    free(script->next);
    *script = (struct script){0};
}
