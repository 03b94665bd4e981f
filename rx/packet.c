/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rx.source = packet: frames off an interface, as a tap takes them; datagrams, and the requests in TCP
 * streams put together again.
 *
 * rx goes in steps (shm/tap.h), a frame each, and one more for each gap that is given up. A step that finds a
 * ring full, or that a killed predecessor had begun, is taken again from its beginning: the requests
 * that it has put already, issued - step.issued, are passed over. Frames stay in the kernel's ring until
 * their step is done, flows and counts are what they were before. So nothing is lost with rx.
 */
#include "rx/datagram.h"
#include "rx/hash.h"
#include "rx/packet_own.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* ---- steps ---- */

static void begin_step(struct rx *rx, struct packet *packet)
{
    packet->step = packet->tapped->step[packet->done % 2];
    packet->again = rx->issued - packet->step.issued;
    rx->issued = packet->step.issued;
    follow_begin(&packet->follow);
}

static void end_step(struct rx *rx, struct packet *packet)
{
    if (packet->again)
        region_corrupt("requests of a step", rx->issued + packet->again, rx->issued);
    packet->done++;
    packet->step.issued = rx->issued;
    packet->tapped->step[packet->done % 2] = packet->step;
    crash_point("packet:noted");
    follow_store(&packet->follow, packet->done);
    crash_point("packet:stored");
    store_release(&packet->tapped->done, packet->done);
    crash_point("packet:stepped");
    follow_done(&packet->follow);
}

/* ---- requests ---- */

int packet_put(void *self, const uint8_t *data, const struct frame *frame)
{
    struct packet *packet = self;

    if (packet->again) {
        packet->again--;
        packet->rx->issued++;
        return 0;
    }
    packet->request.data = data;
    packet->request.frame = *frame;
    packet->request.flow = packet->follow.flow.hash;
    return rx_put(packet->stage, packet->rx, &packet->request);
}

static int take_datagram(struct packet *packet, const struct decoded *decoded)
{
    const struct rx_datagram datagram = {
        .data = decoded->data,
        .length = decoded->length,
        .kernel_ns = packet->request.kernel_ns,
        .flow = (uint16_t)hash_ends(&decoded->ends),
        .place = packet->request.place,
    };
    struct rx_cursor cursor = {0};

    if (packet->again) {
        uint32_t passed =
            rx_skip(packet->rx->schema, datagram.data, datagram.length, packet->again, &cursor);
        packet->again -= passed;
        packet->rx->issued += passed;
    }
    bool whole = packet->rx->issued > packet->step.issued && cursor.offset == 0;
    int err = whole ? 0 : rx_put_datagram(packet->stage, packet->rx, &datagram, &cursor);
    packet->step.counts.datagrams += err == 0;
    return err;
}

/* ---- frames ---- */

static int take_payload(struct packet *packet, const struct decoded *decoded, bool tcp)
{
    struct tap_counts *counts = &packet->step.counts;

    if (!packet_bind_takes(&packet->bind, &decoded->ends)) {
        counts->other++;
        return 0;
    }
    int err = tcp ? follow_segment(&packet->follow, decoded) : take_datagram(packet, decoded);
    counts->bytes += err == 0 ? decoded->length : 0;
    return err;
}

static int take_frame(struct packet *packet, const struct packet_frame *frame)
{
    struct tap_counts *counts = &packet->step.counts;
    struct decoded decoded;
    int err = 0;

    packet->request.kernel_ns = frame->kernel_ns;
    enum decode_kind kind = decode_frame(frame->data, frame->length, &decoded);
    if (kind == DECODE_UDP || kind == DECODE_TCP)
        err = take_payload(packet, &decoded, kind == DECODE_TCP);
    counts->other += kind == DECODE_OTHER;
    counts->fragments += kind == DECODE_FRAGMENT;
    counts->bad_length += kind == DECODE_BAD_LENGTH;
    counts->frames += err == 0;
    return err;
}

/* A step, or as many as the frame needs. 0 or -EAGAIN. */
static int pass_frame(struct stage *stage, struct rx *rx, const struct packet_frame *frame)
{
    struct packet *packet = rx->own;
    int err;

    do {
        begin_step(rx, packet);
        err = frame->outgoing ? 0 : take_frame(packet, frame);
        if (err < 0)
            return err;
        if (err == 0)
            packet_ring_behind(&packet->ring, &packet->step.block, &packet->step.frame);
        end_step(rx, packet);
    } while (err == REASSEMBLY_AGAIN);
    stage->figures.datagrams = packet->step.counts.frames;
    stage->figures.bytes = packet->step.counts.bytes;
    packet_ring_done(&packet->ring);
    return 0;
}

/* At the end: what is held behind gaps, a step each. The frame that it came with is gone. */
static int flush(struct rx *rx, struct packet *packet)
{
    begin_step(rx, packet);
    packet->request.kernel_ns = 0;
    packet->request.place = 0;
    int err = packet->step.flushing ? follow_flush(&packet->follow) : REASSEMBLY_AGAIN;
    packet->step.flushing = true;
    if (err == REASSEMBLY_AGAIN)
        end_step(rx, packet);
    return err;
}

static int blocked(struct stage *stage, struct rx *rx)
{
    struct packet *packet = rx->own;

    packet->given_up = rx_is_in_vain(stage, rx);
    return packet->given_up ? 0 : -EAGAIN;
}

static int packet_poll(struct stage *stage, struct rx *rx)
{
    struct packet *packet = rx->own;
    struct packet_frame frame;
    uint32_t moved = 0;

    if (unlikely(stage->draining) &&
        (packet->step.flushing || packet_ring_empty(&packet->ring) || packet->given_up)) {
        int flushed = packet->given_up ? 0 : flush(rx, packet);
        return flushed < 0 ? blocked(stage, rx) : flushed;
    }
    for (; moved < packet->burst && packet_ring_next(&packet->ring, &frame); moved++) {
        packet->request.place = (uint16_t)moved;
        if (pass_frame(stage, rx, &frame) < 0)
            return moved ? (int)moved : blocked(stage, rx);
    }
    rx->was_idle = moved == 0;
    return (int)moved;
}

/* ---- the source ---- */

static bool packet_drained(struct stage *stage, struct rx *rx)
{
    struct packet *packet = rx->own;

    (void)stage;
    return packet->given_up || packet->step.flushing;
}

static void packet_park(struct stage *stage, struct rx *rx, uint64_t ns)
{
    const struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000ULL),
                                     .tv_nsec = (long)(ns % 1000000000ULL)};
    const struct packet *packet = rx->own;
    struct pollfd fd = {.fd = packet->socket, .events = POLLIN};

    (void)stage;
    (void)ppoll(&fd, 1, &timeout, NULL);
}

static void packet_close(struct stage *stage, struct rx *rx)
{
    struct packet *packet = rx->own;

    (void)stage;
    packet_ring_close(&packet->ring);
    follow_close(&packet->follow);
    region_close(&packet->region);
}

const struct rx_source rx_packet = {
    .name = "packet",
    .open = packet_open,
    .poll = packet_poll,
    .drained = packet_drained,
    .park = packet_park,
    .close = packet_close,
};
