/* SPDX-License-Identifier: Apache-2.0 */
/* rx.source = packet: all it needs, made or taken over from a predecessor. */
#include "rx/packet_own.h"
#include "rx/packet_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int open_tapped(struct stage *stage, struct rx *rx, struct packet *packet)
{
    const struct region_want want = tapped_want(stage->arena.header->epoch);
    struct region_mismatch mismatch;
    int memory = stage_descriptor(stage, "rx.tapped");

    int err = memory >= 0 ? region_attach(&packet->region, memory, &want, true, &mismatch)
                          : tapped_create(&packet->region, want.epoch);
    if (err == 0 && memory < 0)
        err = stage_deposit(stage, "rx.tapped", packet->region.fd);
    if (err < 0)
        return stage_error(stage, err, "the tap's counts: %s", strerror(-err));
    packet->tapped = tapped_of(&packet->region);
    packet->done = load_acquire(&packet->tapped->done);
    packet->step = packet->tapped->step[packet->done % 2];
    stage->figures.datagrams = packet->step.counts.frames;
    stage->figures.bytes = packet->step.counts.bytes;
    rx->issued = rx_done_with(stage, rx);
    return 0;
}

static int open_follow(struct stage *stage, struct packet *packet)
{
    const struct config *config = &stage->config;
    const struct follow_plan plan = {
        .connections = config->rx.connections,
        .keep_bytes = config->rx.connection_bytes,
        .reorder_bytes = config->rx.reorder_bytes,
        .schema = config->pipeline.schema,
        .huge = config->memory.pages != PAGES_4K,
        .epoch = stage->arena.header->epoch,
        .done = packet->done,
        .memory = stage_descriptor(stage, "rx.flows"),
        .counts = &packet->step.counts,
        .put = packet_put,
        .self = packet,
    };

    int err = follow_open(&packet->follow, &plan);
    if (err == 0 && plan.memory < 0)
        err = stage_deposit(stage, "rx.flows", packet->follow.flows.region.fd);
    return err < 0 ? stage_error(stage, err, "rx.connections = %u: buffers of the flows: %s",
                                 plan.connections, strerror(-err))
                   : 0;
}

int packet_open(struct stage *stage, struct rx *rx)
{
    struct packet *packet = calloc(1, sizeof(*packet));
    uint32_t wrong;

    if (!packet)
        return -ENOMEM;
    rx->own = packet;
    packet->stage = stage;
    packet->rx = rx;
    packet->burst = stage->config.rx.burst;
    if (packet_bind_open(&packet->bind, &stage->config, &wrong) < 0)
        return stage_error(stage, -EINVAL, "rx.bind = %s: expected an IPv4 or IPv6 address",
                           stage->config.rx.bind[wrong].address);
    int err = open_tapped(stage, rx, packet);
    if (err == 0)
        err = open_follow(stage, packet);
    if (err < 0)
        return err;
    packet->socket =
        packet_socket_open(stage, &packet->ring, packet->step.block, packet->step.frame);
    return packet->socket < 0 ? packet->socket : 0;
}
