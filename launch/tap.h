/* SPDX-License-Identifier: Apache-2.0 */
/* A tap (rx.source = packet) as the launcher sees it: by what rx has left with it. */
#ifndef TICKLINE_LAUNCH_TAP_H
#define TICKLINE_LAUNCH_TAP_H

#include "launch/pipeline.h"
#include "shm/tap.h"

struct tap_figures {
    struct tap_counts counts; /* by rx */
    uint64_t packets;         /* by the kernel: frames that came, dropped ones too */
    uint64_t drops;           /* by the kernel: the ring was full */
    uint64_t waiting;         /* frames in the ring, that rx has not taken yet */
    uint64_t unread;          /* the same, once rx is gone */
    uint64_t ring_bytes;
    const char *interface;
};

/* False where there is no tap. Adds what the kernel has counted since the last time: it forgets with each
 * reading, and counts in 32 bits. */
bool tap_figures(const struct pipeline *pipeline, struct tap_figures *figures);

/* Frames that lie in the ring at this moment; 0 where there is no tap. */
uint64_t tap_waiting(const struct pipeline *pipeline);

/* The counts by name, as counters.json has them; NULL where there is no tap. */
json_t *tap_json(const struct pipeline *pipeline);

#endif
