/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/connection.h"

const char *const connection_figure_name[CONNECTION_FIGURE_COUNT] = {
#define FIGURE_NAME(name, sentence) [CONNECTION_##name] = #name,
    CONNECTION_FIGURES(FIGURE_NAME)
#undef FIGURE_NAME
};

struct region_want connections_want(uint64_t epoch)
{
    const uint64_t parts[] = {
        sizeof(struct connection),
        offsetof(struct connection, state),
        offsetof(struct connection, released),
        offsetof(struct connection, written_before),
        sizeof(struct connections),
    };
    return (struct region_want){
        .kind = REGION_CONNECTIONS,
        .layout = region_hash(parts, sizeof(parts) / sizeof(parts[0])),
        .epoch = epoch,
        .geometry = {CONNECTIONS_MAX, 0, 0, 0},
        .size_min = CONNECTIONS_OFFSET + sizeof(struct connections),
    };
}

int connections_create(struct region *region, uint64_t epoch, const struct region_place *place)
{
    const struct region_want want = connections_want(epoch);

    return region_create(region, "tickline-connections", &want, place,
                         CONNECTIONS_OFFSET + sizeof(struct connections));
}
