/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/socket.h"

#include "rx/address.h"
#include "stage/control.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A socket listens on a port: on its only address, or on all where several addresses share it. */
struct listener {
    const struct config_endpoint *endpoint;
    int family;
    uint32_t addresses;
    bool multicast_only;
};

static bool is_multicast(const union address *address)
{
    return address->any.sa_family == AF_INET ? IN_MULTICAST(ntohl(address->v4.sin_addr.s_addr))
                                             : IN6_IS_ADDR_MULTICAST(&address->v6.sin6_addr);
}

/* On the interface of this index; 0: where the routes lead. */
static int join(int fd, const union address *group, unsigned interface)
{
    if (group->any.sa_family == AF_INET) {
        struct ip_mreqn request = {.imr_multiaddr = group->v4.sin_addr,
                                   .imr_ifindex = (int)interface};
        return setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof(request));
    }
    struct ipv6_mreq request = {.ipv6mr_multiaddr = group->v6.sin6_addr,
                                .ipv6mr_interface = interface};
    return setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &request, sizeof(request));
}

static int set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* The largest buffer the host grants; a privileged process may exceed rmem_max. */
static void ask_buffer(struct stage *stage, int fd)
{
    char asked[32];
    char obtained[32];
    int granted = 0;
    socklen_t length = sizeof(granted);
    int bytes = (int)(stage->config.rx.socket_bytes / 2); /* the kernel doubles it */

    bool forced = set(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes) == 0;
    if (!forced)
        (void)set(fd, SOL_SOCKET, SO_RCVBUF, bytes);
    getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &granted, &length);
    snprintf(asked, sizeof(asked), "%llu", (unsigned long long)stage->config.rx.socket_bytes);
    snprintf(obtained, sizeof(obtained), "%d", granted);
    stage_note(stage, "rx.socket_buffer", asked, obtained,
               forced ? "" : "not privileged: bounded by sysctl net.core.rmem_max");
}

/* Does the NIC stamp every packet it receives? Its settings are its owner's: they are only read. */
static bool stamps_in_hardware(int fd, const char *interface, char why[64])
{
    struct hwtstamp_config now = {0};
    struct ifreq request = {.ifr_data = (char *)&now};

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
    if (ioctl(fd, SIOCGHWTSTAMP, &request) < 0)
        snprintf(why, 64, "%s: %s", interface,
                 errno == EOPNOTSUPP ? "has no clock that stamps" : strerror(errno));
    else if (now.rx_filter != HWTSTAMP_FILTER_ALL)
        snprintf(why, 64, "off; hwstamp_ctl -i %s -r 1", interface);
    else
        return true;
    return false;
}

static int ask_timestamps(struct stage *stage, int fd)
{
    enum {
        HARDWARE = SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE,
        SOFTWARE = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE,
    };
    char why[64] = "";

    if (stage->config.rx.timestamps == TIMESTAMPS_SOFTWARE)
        return set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
    bool hardware = stamps_in_hardware(fd, stage->config.rx.interface, why);
    stage_note(stage, "rx.timestamps", "hardware", hardware ? "hardware" : "software", why);
    return hardware ? set(fd, SOL_SOCKET, SO_TIMESTAMPING, HARDWARE | SOFTWARE)
                    : set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
}

static int ask_busy_poll(struct stage *stage, int fd)
{
    uint64_t us = (stage->config.rx.busy_poll_ns + 999) / 1000;

    return us ? set(fd, SOL_SOCKET, SO_BUSY_POLL, (int)us) : 0;
}

static int open_socket(struct stage *stage, const struct listener *listener)
{
    const struct config_endpoint *endpoint = listener->endpoint;
    union address address;
    socklen_t length;

    int err = address_parse(endpoint, &address, &length);
    if (err < 0)
        return stage_error(stage, err, "rx.bind = %s: not an IPv4 or IPv6 address",
                           endpoint->address);
    int fd = socket(listener->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return stage_error(stage, -errno, "socket: %s", strerror(errno));
    if (listener->addresses > 1) {
        if (listener->family == AF_INET)
            address.v4.sin_addr.s_addr = INADDR_ANY;
        else
            address.v6.sin6_addr = in6addr_any;
    }
    if (listener->family == AF_INET)
        (void)set(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
    else
        (void)set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    /* Several programs may listen to a group, never to our unicast port. */
    if (is_multicast(&address))
        (void)set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    ask_buffer(stage, fd);
    err = ask_timestamps(stage, fd);
    if (err == 0)
        err = ask_busy_poll(stage, fd);
    if (err == 0 && bind(fd, &address.any, length) < 0)
        err = -errno;
    if (err < 0) {
        close(fd);
        return stage_error(stage, err, "rx.bind = %s:%u: %s%s", endpoint->address, endpoint->port,
                           strerror(-err), address_hint(err, "; see who holds it: ss -lunp"));
    }
    return fd;
}

/* One listener a port and family, in the order of rx.bind. */
static uint32_t plan(const struct config *config, struct listener listeners[SOCKETS_MAX])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < config->rx.bind_count; i++) {
        const struct config_endpoint *endpoint = &config->rx.bind[i];
        int family = strchr(endpoint->address, ':') ? AF_INET6 : AF_INET;
        uint32_t at = 0;
        while (at < count &&
               (listeners[at].endpoint->port != endpoint->port || listeners[at].family != family))
            at++;
        if (at == count)
            listeners[count++] = (struct listener){.endpoint = endpoint, .family = family};
        listeners[at].addresses++;
    }
    return count;
}

static int join_groups(struct stage *stage, const struct listener *listener, int fd,
                       unsigned interface)
{
    const struct config *config = &stage->config;

    for (uint32_t i = 0; i < config->rx.bind_count; i++) {
        const struct config_endpoint *endpoint = &config->rx.bind[i];
        union address group;
        socklen_t length;
        if (endpoint->port != listener->endpoint->port ||
            address_parse(endpoint, &group, &length) < 0 ||
            group.any.sa_family != listener->family || !is_multicast(&group))
            continue;
        if (join(fd, &group, interface) < 0)
            return stage_error(stage, -errno, "rx.bind = %s:%u: cannot join the group: %s%s",
                               endpoint->address, endpoint->port, strerror(errno),
                               errno == ENODEV ? "; no route leads to it, write rx.interface" : "");
    }
    return 0;
}

int sockets_open(struct stage *stage, int sockets[SOCKETS_MAX])
{
    struct listener listeners[SOCKETS_MAX];
    uint32_t count = plan(&stage->config, listeners);
    const char *name_of_nic = stage->config.rx.interface;
    unsigned interface = if_nametoindex(name_of_nic);

    if (interface == 0 && strcmp(name_of_nic, "any") != 0)
        return stage_error(stage, -EINVAL,
                           "rx.interface = %s: no such interface; expected one of: ip -brief link",
                           name_of_nic);

    if (count == 0)
        return stage_error(stage, -EINVAL,
                           "rx.bind = auto: no capture to take the address from; write rx.bind = "
                           "ADDRESS:PORT");
    for (uint32_t i = 0; i < count; i++) {
        char name[CONTROL_NAME_MAX];
        snprintf(name, sizeof(name), "rx.socket.%u", i);
        sockets[i] = stage_descriptor(stage, name);
        if (sockets[i] >= 0)
            continue;
        sockets[i] = open_socket(stage, &listeners[i]);
        if (sockets[i] < 0)
            return sockets[i];
        int err = join_groups(stage, &listeners[i], sockets[i], interface);
        if (err < 0)
            return err;
        err = stage_deposit(stage, name, sockets[i]);
        if (err < 0)
            return stage_error(stage, err, "cannot leave a socket with the launcher");
    }
    return (int)count;
}
