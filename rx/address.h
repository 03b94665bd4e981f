/* SPDX-License-Identifier: Apache-2.0 */
/* The addresses of rx.bind, as the kernel takes them. */
#ifndef TICKLINE_RX_ADDRESS_H
#define TICKLINE_RX_ADDRESS_H

#include "stage/config.h"

#include <netinet/in.h>
#include <sys/socket.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* -EINVAL: neither IPv4 nor IPv6. */
int address_parse(const struct config_endpoint *endpoint, union address *address,
                  socklen_t *length);

/* What to try where bind(2) answered `err`: `in_use` where somebody has the port; "": nothing. */
const char *address_hint(int err, const char *in_use);

#endif
