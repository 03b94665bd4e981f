/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources: where rx takes requests from (rx.source). A source owns its sockets and buffers, finds the
 * requests in what it receives (rx/frame.h) and puts each by rx_put (rx/put.h); what is the same for all sources
 * (numbers, rings, dispatch, ingress records, clock pairs) is rx.c's.
 */
#ifndef TICKLINE_RX_SOURCE_H
#define TICKLINE_RX_SOURCE_H

#include "rx/frame.h"
#include "stage/stage.h"

struct rx;

struct rx_source {
    const char *name; /* as rx.source has it */
    /*
     * Opens all it needs while rx is privileged; after a kill it goes on where its predecessor was
     * (rx_done_with). 0 or -errno, said by stage_error.
     */
    int (*open)(struct stage *stage, struct rx *rx);
    /* As stage_ops has them. */
    int (*poll)(struct stage *stage, struct rx *rx);
    void (*tick)(struct stage *stage, struct rx *rx, uint64_t now); /* may be NULL */
    bool (*drained)(struct stage *stage, struct rx *rx);            /* NULL: at once */
    void (*park)(struct stage *stage, struct rx *rx, uint64_t ns);
    void (*close)(struct stage *stage, struct rx *rx);
};

extern const struct rx_source rx_udp;
extern const struct rx_source rx_tcp;
extern const struct rx_source rx_packet;

#endif
