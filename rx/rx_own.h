/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of rx: what rx.c and takeover.c share. */
#ifndef TICKLINE_RX_RX_OWN_H
#define TICKLINE_RX_RX_OWN_H

#include "rx/frame.h"
#include "rx/socket.h"
#include "stage/io.h"
#include "stage/stage.h"

struct rx {
    int sockets[SOCKETS_MAX];
    struct receiver *receiver;
    struct ring_producer to_worker[CELL_WORKERS_MAX];
    struct trace ingress;
    uint64_t issued;    /* request numbers given out: 1 … issued */
    uint64_t published; /* into all rings */
    uint32_t workers;
    uint32_t socket_count;
    enum config_schema schema;
    enum config_dispatch dispatch;
    bool drop;
    bool bells; /* consumers may be parked */
    bool was_idle;
    /* where a full ring made us stop in the batch (ring.full = wait) */
    struct received *batch;
    uint32_t batch_count;
    uint32_t batch_next;
    uint32_t offset;
    /* clock pairs */
    uint32_t ticks;
    struct clock_pair pair;
};

/* On to the next request of the datagram; true where that was the last, which completes it. */
static inline bool rx_pass_frame(struct stage *stage, struct rx *rx,
                                 const struct received *datagram, const struct frame *frame)
{
    rx->offset += frame->length;
    if (rx->offset < datagram->length)
        return false;
    rx->offset = 0;
    stage->figures.datagrams++;
    stage->figures.bytes += datagram->length;
    return true;
}

/* Opens the receiver, and goes on where a predecessor was killed. 0 or -errno, said by stage_error. */
int rx_take_over(struct stage *stage, struct rx *rx);

#endif
