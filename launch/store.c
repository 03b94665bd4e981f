/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct store_item *find(const struct store *store, const char *name)
{
    for (uint32_t i = 0; i < store->count; i++) {
        if (strcmp(store->item[i].name, name) == 0)
            return &store->item[i];
    }
    return NULL;
}

/* A new last item, or NULL. */
static struct store_item *append(struct store *store)
{
    if (store->count == STORE_MAX)
        return NULL;
    if (store->count == store->room) {
        uint32_t room = store->room ? 2 * store->room : 16;
        struct store_item *grown = realloc(store->item, room * sizeof(*grown));
        if (!grown)
            return NULL;
        store->item = grown;
        store->room = room;
    }
    return &store->item[store->count++];
}

void store_put(struct store *store, const char *name, uint64_t value, int fd)
{
    struct store_item *item = find(store, name);

    if (item)
        close(item->fd);
    else
        item = append(store);
    if (!item) {
        close(fd);
        return;
    }
    *item = (struct store_item){.value = value, .fd = fd};
    snprintf(item->name, sizeof(item->name), "%s", name);
}

void store_remove(struct store *store, const char *name)
{
    struct store_item *item = find(store, name);

    if (!item)
        return;
    close(item->fd);
    *item = store->item[--store->count];
}

void store_close(struct store *store)
{
    for (uint32_t i = 0; i < store->count; i++)
        close(store->item[i].fd);
    free(store->item);
    *store = (struct store){0};
}

bool store_is_connection(const struct store_item *item)
{
    return strncmp(item->name, "connection.", 11) == 0;
}

bool store_is_socket(const struct store_item *item)
{
    return strncmp(item->name, "rx.socket.", 10) == 0;
}

uint64_t store_descriptors(const struct config *config, uint32_t stages)
{
    enum { BASE = 64, EACH = 16 };
    bool in = strcmp(config->rx.source, "tcp") == 0;
    bool out = strcmp(config->tx.sink, "tcp") == 0;

    return BASE + config->rx.bind_count + EACH * (uint64_t)stages +
           (in ? config->rx.connections : 0) + (out ? config->tx.connections : 0);
}

void store_make_room(uint64_t descriptors)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= descriptors)
        return;
    limit.rlim_cur = descriptors < limit.rlim_max ? descriptors : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}
