/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/address.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int address_of_to(struct stage *stage, struct sockaddr_storage *address, socklen_t *length)
{
    const struct config_endpoint *to = &stage->config.tx.to;
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_DGRAM};
    struct addrinfo *info;
    char port[8];

    if (to->port == 0)
        return stage_error(stage, -EINVAL,
                           "tx.to = auto: there is no lab to take it from; write tx.to = "
                           "ADDRESS:PORT");
    snprintf(port, sizeof(port), "%u", to->port);
    if (getaddrinfo(to->address, port, &hints, &info) != 0)
        return stage_error(stage, -EINVAL, "tx.to = %s:%u: %s", to->address, to->port,
                           strerror(EINVAL));
    memcpy(address, info->ai_addr, info->ai_addrlen);
    *length = info->ai_addrlen;
    freeaddrinfo(info);
    return 0;
}
