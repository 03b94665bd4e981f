/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/packet_socket.h"

#include "stage/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TAGS_BYTES = 4 * 4 }; /* that VLAN tags add to a frame */

static int set(int fd, int name, int value)
{
    return setsockopt(fd, SOL_PACKET, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* Is it one whose frames are Ethernet's? And the longest of them. */
static int look_at_interface(struct stage *stage, int fd, uint32_t *frame_bytes)
{
    const char *name = stage->config.rx.interface;
    struct ifreq request = {0};

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
        return stage_error(stage, -EINVAL,
                           "rx.interface = %s: no such interface; expected one of: ip -brief link",
                           name);
    int kind = request.ifr_hwaddr.sa_family;
    if (kind != ARPHRD_ETHER && kind != ARPHRD_LOOPBACK)
        return stage_error(stage, -EINVAL,
                           "rx.interface = %s: its frames are not Ethernet's (kind %d); expected "
                           "one of: ip -brief link show type veth, or a NIC",
                           name, kind);
    if (ioctl(fd, SIOCGIFMTU, &request) < 0)
        return stage_error(stage, -errno, "rx.interface = %s: %s", name, strerror(errno));
    *frame_bytes = stage->config.rx.frame_bytes
                       ? stage->config.rx.frame_bytes
                       : (uint32_t)request.ifr_mtu + (uint32_t)ETH_HLEN + TAGS_BYTES;
    return 0;
}

static void ask_hardware_stamps(struct stage *stage, int fd)
{
    if (stage->config.rx.timestamps != TIMESTAMPS_HARDWARE)
        return;
    int err = set(fd, PACKET_TIMESTAMP, SOF_TIMESTAMPING_RAW_HARDWARE);
    stage_note(stage, "rx.timestamps", "hardware", err ? "software" : "hardware",
               err ? strerror(-err) : "where the NIC gives them, else the kernel's");
}

/* Frames the NIC would not take for itself. */
static int ask_membership(struct stage *stage, int fd, int interface)
{
    const struct packet_mreq request = {
        .mr_ifindex = interface,
        .mr_type = stage->config.rx.promiscuous ? PACKET_MR_PROMISC : PACKET_MR_ALLMULTI,
    };

    if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request)) < 0)
        return stage_error(stage, -errno, "rx.promiscuous: %s: %s", stage->config.rx.interface,
                           strerror(errno));
    return 0;
}

/* Frames come from bind() on: by then all else is set. */
static int set_up(struct stage *stage, int fd, const struct packet_ring *ring)
{
    int interface = (int)if_nametoindex(stage->config.rx.interface);
    const struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = interface};
    char bytes[32];

    /* Kernels before 4.20 give them all the same; they are told by their kind then. */
    (void)set(fd, PACKET_IGNORE_OUTGOING, 1);
    ask_hardware_stamps(stage, fd);
    int err = packet_ring_make(ring, fd);
    if (err < 0)
        return stage_error(stage, err, "rx.socket_buffer: a ring of %u blocks of %u bytes: %s",
                           ring->block_count, ring->block_bytes, strerror(-err));
    err = ask_membership(stage, fd, interface);
    if (err < 0)
        return err;
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return stage_error(stage, -errno, "rx.interface = %s: %s", stage->config.rx.interface,
                           strerror(errno));
    snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)stage->config.rx.socket_bytes);
    char granted[32];
    snprintf(granted, sizeof(granted), "%llu",
             (unsigned long long)ring->block_count * ring->block_bytes);
    stage_note(stage, "rx.socket_buffer", bytes, granted, ring->blocks ? "blocks" : "frames");
    return 0;
}

int packet_socket_open(struct stage *stage, struct packet_ring *ring, uint64_t block,
                       uint64_t frame)
{
    const struct config *config = &stage->config;
    char name[CONTROL_NAME_MAX];
    uint32_t frame_bytes = 0;

    snprintf(name, sizeof(name), "rx.tap %s", config->rx.interface);
    int fd = stage_descriptor(stage, name);
    bool fresh = fd < 0;
    if (fresh)
        fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return stage_error(stage, -errno, "rx.source = packet: %s%s", strerror(errno),
                           errno == EPERM ? "; it needs CAP_NET_RAW: start it as root" : "");
    int err = look_at_interface(stage, fd, &frame_bytes);
    if (err < 0)
        return err;
    packet_ring_plan(ring, config->rx.blocks, config->rx.socket_bytes, frame_bytes);
    err = fresh ? set_up(stage, fd, ring) : 0;
    if (err < 0)
        return err;
    err = packet_ring_map(ring, fd, block, frame);
    if (err < 0)
        return stage_error(stage, err, "the ring of the packet socket: %s", strerror(-err));
    err = fresh ? stage_deposit(stage, name, fd) : 0;
    return err < 0 ? stage_error(stage, err, "cannot leave a socket with the launcher") : fd;
}
