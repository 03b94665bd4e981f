/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose traffic a tap takes: what is sent to an endpoint of rx.bind, a wildcard address for all of its
 * family; all of it where rx.bind names none. Never what goes to tx.to or comes from there: our own replies.
 */
#ifndef TICKLINE_RX_PACKET_BIND_H
#define TICKLINE_RX_PACKET_BIND_H

#include "rx/decode.h"
#include "stage/config.h"

struct packet_end {
    uint8_t address[16];
    uint16_t port;
    bool any; /* address */
    bool six; /* of which family */
};

struct packet_bind {
    uint32_t count; /* 0: all */
    struct packet_end end[CONFIG_ENDPOINTS_MAX];
    struct packet_end replies; /* port 0: none */
    uint64_t ports[1024];      /* a bit for each that stands in `end` */
};

/* 0, or -EINVAL where rx.bind[*wrong] is no address. */
int packet_bind_open(struct packet_bind *bind, const struct config *config, uint32_t *wrong);

bool packet_bind_takes(const struct packet_bind *bind, const struct decode_ends *ends);

#endif
