/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/counters.h"

#include <string.h>

#include <linux/sockios.h>
#include <sys/ioctl.h>

/* Bytes that lie in the sockets, once nobody reads them any more. */
static uint64_t unread(const struct process *rx)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; rx->gone && i < rx->store.count; i++) {
        int bytes = 0;
        if (store_is_connection(&rx->store.item[i]) &&
            ioctl(rx->store.item[i].fd, SIOCINQ, &bytes) == 0)
            sum += (uint64_t)bytes;
    }
    return sum;
}

json_t *counters_connections(const struct pipeline *pipeline)
{
    uint64_t open = 0;

    if (!pipeline->connections.header)
        return NULL;
    const struct connections *table = connections_of(&pipeline->connections);
    json_t *json = json_object();
    for (uint32_t i = 0; i < CONNECTION_FIGURE_COUNT; i++)
        json_object_set_new(json, connection_figure_name[i],
                            json_integer((json_int_t)load_relaxed(&table->figure[i])));
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++)
        open += load_relaxed(&table->place[i].state) == CONNECTION_OPEN;
    json_object_set_new(json, "open", json_integer((json_int_t)open));
    json_object_set_new(json, "cut_bytes",
                        json_integer((json_int_t)load_relaxed(&table->cut_bytes)));
    json_object_set_new(json, "held_bytes",
                        json_integer((json_int_t)load_relaxed(&table->held_bytes)));
    json_object_set_new(json, "unread_bytes",
                        json_integer((json_int_t)unread(&pipeline->process[0])));
    return json;
}

json_t *counters_replies(const struct pipeline *pipeline)
{
    const struct cell_streams *streams = &pipeline->cells->streams;

    if (strcmp(pipeline->config->tx.sink, "udp") == 0)
        return NULL;
    json_t *json = json_object();
#define FIGURE(name)                                                                               \
    json_object_set_new(json, #name, json_integer((json_int_t)load_relaxed(&streams->name)))
    FIGURE(lost);
    FIGURE(back);
    FIGURE(refused);
    FIGURE(unacknowledged_bytes);
    FIGURE(discarded_bytes);
#undef FIGURE
    json_t *undelivered = json_object();
    for (uint32_t i = 0; i < CELL_UNDELIVERED_COUNT; i++)
        json_object_set_new(undelivered, cell_undelivered_name[i],
                            json_integer((json_int_t)load_relaxed(&streams->undelivered[i])));
    json_object_set_new(json, "undelivered", undelivered);
    return json;
}
