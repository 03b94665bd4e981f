/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptors that a stage has left with the launcher, by name: for its successor, for the account, and
 * connections of rx for tx as well. As in systemd's descriptor store.
 */
#ifndef TICKLINE_LAUNCH_STORE_H
#define TICKLINE_LAUNCH_STORE_H

#include "shm/connection.h"
#include "stage/config.h"
#include "stage/control.h"

/* All connections, all sockets, and a few more; a stage that has gone mad leaves no others. */
enum { STORE_MAX = CONNECTIONS_MAX + CONFIG_ENDPOINTS_MAX + 8 };

struct store_item {
    char name[CONTROL_NAME_MAX];
    uint64_t value; /* as it came with it */
    int fd;
    bool given; /* to tx, too */
};

struct store {
    uint32_t count;
    uint32_t room;
    struct store_item *item; /* in no order */
};

/* Takes `fd` over, instead of what has that name; closes it where there is no room. */
void store_put(struct store *store, const char *name, uint64_t value, int fd);

void store_remove(struct store *store, const char *name);

void store_close(struct store *store);

/* An accepted connection of rx? One of its sockets? */
bool store_is_connection(const struct store_item *item);
bool store_is_socket(const struct store_item *item);

/* The most descriptors that the launcher or a stage has open at once. */
uint64_t store_descriptors(const struct config *config, uint32_t stages);

/* Raises RLIMIT_NOFILE of this process and its children to that, as far as the host lets it. */
void store_make_room(uint64_t descriptors);

#endif
