/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/tap.h"

#include <linux/if_packet.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

static const char socket_name[] = "rx.tap ";

/* Only this process reads them, from one thread. */
static void add_statistics(struct tapped *tapped, int fd)
{
    struct tpacket_stats_v3 fresh = {0};
    socklen_t length = sizeof(fresh);

    if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &fresh, &length) < 0)
        return;
    tapped->packets += fresh.tp_packets;
    tapped->drops += fresh.tp_drops;
}

/* Does the kernel say that something lies in the ring? */
static bool has_unread(int fd)
{
    struct pollfd ring = {.fd = fd, .events = POLLIN};

    return poll(&ring, 1, 0) > 0 && (ring.revents & POLLIN);
}

/* The socket and the region that rx has left here. */
static int find(const struct pipeline *pipeline, struct tap_figures *figures, int *memory)
{
    const struct process *rx = &pipeline->process[0];
    int fd = -1;

    *memory = -1;
    for (uint32_t i = 0; i < rx->store.count; i++) {
        const struct store_item *deposit = &rx->store.item[i];
        if (strcmp(deposit->name, "rx.tapped") == 0)
            *memory = deposit->fd;
        if (strncmp(deposit->name, socket_name, sizeof(socket_name) - 1) == 0) {
            fd = deposit->fd;
            figures->interface = deposit->name + sizeof(socket_name) - 1;
        }
    }
    return fd;
}

bool tap_figures(const struct pipeline *pipeline, struct tap_figures *figures)
{
    const struct region_want want = tapped_want(pipeline->epoch);
    const struct process *rx = &pipeline->process[0];
    struct region_mismatch mismatch;
    struct region region;
    struct tap_step step;
    int memory;

    memset(figures, 0, sizeof(*figures));
    int fd = find(pipeline, figures, &memory);
    if (fd < 0 || memory < 0 || region_attach(&region, memory, &want, true, &mismatch) < 0)
        return false;
    struct tapped *tapped = tapped_of(&region);
    add_statistics(tapped, fd);
    bool read = tapped_read(tapped, &step) == 0;
    figures->counts = step.counts;
    figures->packets = tapped->packets;
    figures->drops = tapped->drops;
    figures->ring_bytes = pipeline->config->rx.socket_bytes;
    figures->waiting = tapped->packets - tapped->drops - step.counts.frames;
    figures->unread = rx->gone && has_unread(fd) ? figures->waiting : 0;
    munmap(region.header, region.size);
    return read;
}

uint64_t tap_waiting(const struct pipeline *pipeline)
{
    struct tap_figures figures;

    return tap_figures(pipeline, &figures) ? figures.waiting : 0;
}

json_t *tap_json(const struct pipeline *pipeline)
{
    struct tap_figures figures;

    if (!tap_figures(pipeline, &figures))
        return NULL;
    json_t *counts = json_object();

#define X(name, what)                                                                              \
    json_object_set_new(counts, #name, json_integer((json_int_t)figures.counts.name));
    TAP_COUNTS(X)
#undef X
    return counts;
}
