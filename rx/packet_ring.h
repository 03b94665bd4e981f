/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring of a packet socket (AF_PACKET), into which the kernel writes the frames of an interface: mapped
 * memory of the socket itself, so it lives as long as a descriptor of it, and a successor maps it again.
 *
 *   frames  TPACKET_V2: places of one size, each given over as soon as its frame stands there
 *   blocks  TPACKET_V3: frames one behind the other, given over by the block, when it is full or 1 ms old
 *
 * The next frame is at (block, frame), both counted from the first ever (of frames alone: block 0). Whoever
 * reads keeps that position, and moves it *before* the place is given back: a successor finds what its
 * predecessor was done with and has not given back.
 *
 * No copies, no system calls but at open. Errors are -errno.
 */
#ifndef TICKLINE_RX_PACKET_RING_H
#define TICKLINE_RX_PACKET_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct packet_ring {
    bool blocks;
    uint32_t block_bytes;
    uint32_t block_count;
    uint32_t frame_bytes;     /* frames: of a place */
    uint32_t frames_in_block; /* frames */
    uint64_t block;           /* the position */
    uint64_t frame;
    uint32_t offset; /* blocks: of the frame in its block; 0: not known yet */
    uint8_t *memory;
};

struct packet_frame {
    const uint8_t *data;
    uint32_t length;    /* bytes that stand there */
    uint64_t kernel_ns; /* REALTIME */
    bool outgoing;      /* this host sends it */
};

/* What the ring of a socket is to be: at most `bytes` in all, room for frames of `frame_bytes`. */
void packet_ring_plan(struct packet_ring *ring, bool blocks, uint64_t bytes, uint32_t frame_bytes);

/* Asks the kernel for the ring as planned. */
int packet_ring_make(const struct packet_ring *ring, int fd);

/* Maps it, and goes on at this position. */
int packet_ring_map(struct packet_ring *ring, int fd, uint64_t block, uint64_t frame);

/* The frame at the position; false: there is none yet. It stays until packet_ring_done. */
bool packet_ring_next(struct packet_ring *ring, struct packet_frame *frame);

/* The position behind the frame that packet_ring_next has given; then, once that stands where a successor
 * looks, packet_ring_done goes there and gives back what lies before. */
void packet_ring_behind(const struct packet_ring *ring, uint64_t *block, uint64_t *frame);
void packet_ring_done(struct packet_ring *ring);

/* Nothing lies in it, neither given over nor in a block that is still being filled. */
bool packet_ring_empty(struct packet_ring *ring);

void packet_ring_close(struct packet_ring *ring);

#endif
