/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the launcher knows of the handler of a run: its worker's own program tells it
 * (`worker --describe`), in a process that may crash.
 */
#ifndef TICKLINE_LAUNCH_HANDLER_H
#define TICKLINE_LAUNCH_HANDLER_H

#include "shm/lane.h"
#include "stage/config.h"

#include <jansson.h>

struct handler_facts {
    uint64_t state_bytes; /* of the block that outlives a worker; 0: none */
    bool state_lost;      /* what it knows of earlier requests dies with a worker */
    uint32_t points;
    struct lane_point point[LANE_POINTS_MAX];
    json_t *json; /* all of it, as it was told; see worker/describe.h */
};

/*
 * Asks; every mistake in the handler's section is found. 0, or -EINVAL with one line in `error`
 * (config_blame), or another -errno where the program cannot be asked. Release by handler_free.
 */
int handler_ask(const struct config *config, struct handler_facts *facts,
                char error[CONFIG_ERROR_MAX]);
void handler_free(struct handler_facts *facts);

/* For a person. */
void handler_print(const struct config *config, const struct handler_facts *facts);

#endif
