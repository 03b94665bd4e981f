/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of rx: what rx.c and the sources share. */
#ifndef TICKLINE_RX_RX_OWN_H
#define TICKLINE_RX_RX_OWN_H

#include "rx/source.h"

struct rx {
    const struct rx_source *source;
    void *own; /* the source's state, made by its open() */
    struct ring_producer to_worker[CELL_WORKERS_MAX];
    struct trace ingress;
    uint64_t issued;    /* request numbers given out: 1 … issued */
    uint64_t published; /* into all rings */
    uint32_t workers;
    enum config_schema schema;
    enum config_dispatch dispatch;
    bool drop;     /* of a full ring the newest; else it waits */
    bool bells;    /* consumers may be parked */
    bool was_idle; /* the source found nothing in its last turn */
    /* clock pairs */
    uint32_t ticks;
    struct clock_pair pair;
};

/*
 * For a successor, at open: requests 1 … rx->issued have numbers, those up to the answer are in a ring
 * or counted as dropped. The two differ by at most one: the request that a killed rx had issued and
 * not put, which its source puts again under the same number (rx->issued is set back by one first).
 */
uint64_t rx_done_with(const struct stage *stage, const struct rx *rx);

/* Draining, and a worker that there is no room for will never make any. */
bool rx_is_in_vain(const struct stage *stage, const struct rx *rx);

#endif
