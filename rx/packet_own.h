/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of rx.source = packet: what packet.c and packet_open.c share. */
#ifndef TICKLINE_RX_PACKET_OWN_H
#define TICKLINE_RX_PACKET_OWN_H

#include "rx/follow.h"
#include "rx/packet_bind.h"
#include "rx/packet_ring.h"
#include "rx/put.h"

struct packet {
    int socket;
    uint32_t burst;
    struct packet_ring ring;
    struct packet_bind bind;
    struct region region;
    struct tapped *tapped;
    struct follow follow;
    /* the step at hand */
    struct tap_step step; /* what it makes of the one before */
    uint64_t done;        /* the steps before it */
    uint64_t again;       /* requests still to be passed over */
    struct rx_request request;
    struct stage *stage;
    struct rx *rx;
    bool given_up; /* draining, and a worker takes nothing any more */
};

/* The source's open(). */
int packet_open(struct stage *stage, struct rx *rx);

/* A request of a TCP stream; `self` is the packet. */
int packet_put(void *self, const uint8_t *data, const struct frame *frame);

#endif
