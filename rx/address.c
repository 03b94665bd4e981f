/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

int address_parse(const struct config_endpoint *endpoint, union address *address, socklen_t *length)
{
    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, endpoint->address, &address->v4.sin_addr) == 1) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons(endpoint->port);
        *length = sizeof(address->v4);
        return 0;
    }
    if (inet_pton(AF_INET6, endpoint->address, &address->v6.sin6_addr) == 1) {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons(endpoint->port);
        *length = sizeof(address->v6);
        return 0;
    }
    return -EINVAL;
}

const char *address_hint(int err, const char *in_use)
{
    switch (err) {
    case -EADDRINUSE:
        return in_use;
    case -EADDRNOTAVAIL:
        return "; expected an address of this host: ip address";
    case -EACCES:
        return "; ports below net.ipv4.ip_unprivileged_port_start are root's";
    default:
        return "";
    }
}
