/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/packet_ring.h"

#include "shm/atomic.h"
#include "shm/crash.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum {
    BLOCK_BYTES = 1 << 18, /* holds four of the longest frames */
    BLOCK_MS = 1,          /* the kernel knows nothing shorter */
    /* Before the frame: header, address, and what makes IP's header stand at a multiple of 16. */
    HEADROOM = 80,
    TAKEN = 1 << 24, /* in tp_status, where the kernel has no bit: we are done with this frame */
};

/* The kernel stores and loads these words with barriers of its own. */
static uint32_t load_status(const uint32_t *status)
{
    return __atomic_load_n(status, __ATOMIC_ACQUIRE);
}

static void store_status(uint32_t *status, uint32_t value)
{
    __atomic_store_n(status, value, __ATOMIC_RELEASE);
}

/* ---- open ---- */

void packet_ring_plan(struct packet_ring *ring, bool blocks, uint64_t bytes, uint32_t frame_bytes)
{
    uint32_t lines = (HEADROOM + frame_bytes + LINE_BYTES - 1) / LINE_BYTES;

    /* An odd number of lines, so that the starts of the places do not compete for the same cache sets. */
    *ring = (struct packet_ring){
        .blocks = blocks,
        .block_bytes = BLOCK_BYTES,
        .frame_bytes = blocks ? 2048 : (lines | 1) * LINE_BYTES,
    };
    uint64_t count = bytes / ring->block_bytes;
    ring->block_count = count < 2 ? 2 : (uint32_t)count;
    ring->frames_in_block = ring->block_bytes / ring->frame_bytes;
}

int packet_ring_make(const struct packet_ring *ring, int fd)
{
    int version = ring->blocks ? TPACKET_V3 : TPACKET_V2;
    struct tpacket_req3 request = {
        .tp_block_size = ring->block_bytes,
        .tp_block_nr = ring->block_count,
        .tp_frame_size = ring->frame_bytes,
        .tp_frame_nr = ring->block_count * ring->frames_in_block,
        .tp_retire_blk_tov = BLOCK_MS,
    };
    socklen_t length = ring->blocks ? sizeof(request) : sizeof(struct tpacket_req);

    return setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) < 0 ||
                   setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, length) < 0
               ? -errno
               : 0;
}

/* ---- places ---- */

static struct tpacket_block_desc *block_at(const struct packet_ring *ring, uint64_t block)
{
    return (void *)(ring->memory + (size_t)(block % ring->block_count) * ring->block_bytes);
}

static struct tpacket2_hdr *place_at(const struct packet_ring *ring, uint64_t frame)
{
    uint64_t place = frame % ((uint64_t)ring->block_count * ring->frames_in_block);

    return (void *)(ring->memory + place / ring->frames_in_block * ring->block_bytes +
                    place % ring->frames_in_block * ring->frame_bytes);
}

/* Blocks are numbered from 1 on by the kernel. */
static bool is_given(const struct packet_ring *ring, uint64_t block)
{
    const struct tpacket_hdr_v1 *header = &block_at(ring, block)->hdr.bh1;

    return (load_status(&header->block_status) & TP_STATUS_USER) && header->seq_num == block + 1;
}

int packet_ring_map(struct packet_ring *ring, int fd, uint64_t block, uint64_t frame)
{
    size_t bytes = (size_t)ring->block_count * ring->block_bytes;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);

    if (memory == MAP_FAILED)
        return -errno;
    ring->memory = memory;
    ring->block = block;
    ring->frame = frame;
    ring->offset = 0;
    /* A predecessor may have moved the position, and not yet given back. */
    if (ring->blocks && block > 0 && is_given(ring, block - 1))
        store_status(&block_at(ring, block - 1)->hdr.bh1.block_status, TP_STATUS_KERNEL);
    if (!ring->blocks && frame > 0 && (load_status(&place_at(ring, frame - 1)->tp_status) & TAKEN))
        store_status(&place_at(ring, frame - 1)->tp_status, TP_STATUS_KERNEL);
    return 0;
}

/* ---- frames ---- */

/* The address stands behind the header, at a multiple of 16. */
static bool is_outgoing(const void *header, size_t header_bytes)
{
    const uint8_t *at = (const uint8_t *)header + (header_bytes + 15) / 16 * 16;

    return ((const struct sockaddr_ll *)(const void *)at)->sll_pkttype == PACKET_OUTGOING;
}

static bool next_place(const struct packet_ring *ring, struct packet_frame *frame)
{
    const struct tpacket2_hdr *place = place_at(ring, ring->frame);

    if (!(load_status(&place->tp_status) & TP_STATUS_USER))
        return false;
    *frame = (struct packet_frame){
        .data = (const uint8_t *)place + place->tp_mac,
        .length = place->tp_snaplen,
        .kernel_ns = place->tp_sec * 1000000000ULL + place->tp_nsec,
        .outgoing = is_outgoing(place, sizeof(*place)),
    };
    return true;
}

static struct tpacket3_hdr *header_at(const struct packet_ring *ring)
{
    return (void *)((uint8_t *)block_at(ring, ring->block) + ring->offset);
}

/* The offset of a frame within its block, after a start or a new block. */
static void find_offset(struct packet_ring *ring)
{
    ring->offset = block_at(ring, ring->block)->hdr.bh1.offset_to_first_pkt;
    for (uint64_t i = 0; i < ring->frame; i++)
        ring->offset += header_at(ring)->tp_next_offset;
}

static bool next_in_block(struct packet_ring *ring, struct packet_frame *frame)
{
    if (!is_given(ring, ring->block))
        return false;
    if (ring->offset == 0)
        find_offset(ring);
    const struct tpacket3_hdr *header = header_at(ring);
    *frame = (struct packet_frame){
        .data = (const uint8_t *)header + header->tp_mac,
        .length = header->tp_snaplen,
        .kernel_ns = header->tp_sec * 1000000000ULL + header->tp_nsec,
        .outgoing = is_outgoing(header, sizeof(*header)),
    };
    return true;
}

bool packet_ring_next(struct packet_ring *ring, struct packet_frame *frame)
{
    return ring->blocks ? next_in_block(ring, frame) : next_place(ring, frame);
}

void packet_ring_behind(const struct packet_ring *ring, uint64_t *block, uint64_t *frame)
{
    bool last = ring->blocks && ring->frame + 1 == block_at(ring, ring->block)->hdr.bh1.num_pkts;

    *block = ring->block + last;
    *frame = last ? 0 : ring->frame + 1;
    /* Of a place alone one could not tell later whether the kernel has filled it again. */
    if (!ring->blocks)
        store_status(&place_at(ring, ring->frame)->tp_status, TP_STATUS_USER | TAKEN);
}

void packet_ring_done(struct packet_ring *ring)
{
    if (!ring->blocks) {
        store_status(&place_at(ring, ring->frame++)->tp_status, TP_STATUS_KERNEL);
    } else if (ring->frame + 1 < block_at(ring, ring->block)->hdr.bh1.num_pkts) {
        ring->offset += header_at(ring)->tp_next_offset;
        ring->frame++;
    } else {
        store_status(&block_at(ring, ring->block)->hdr.bh1.block_status, TP_STATUS_KERNEL);
        ring->block++;
        ring->frame = ring->offset = 0;
    }
    crash_point("packet:given_back");
}

bool packet_ring_empty(struct packet_ring *ring)
{
    if (!ring->blocks)
        return !(load_status(&place_at(ring, ring->frame)->tp_status) & TP_STATUS_USER);
    const struct tpacket_hdr_v1 *header = &block_at(ring, ring->block)->hdr.bh1;
    return header->seq_num != ring->block + 1 ||
           __atomic_load_n(&header->num_pkts, __ATOMIC_RELAXED) == 0;
}

void packet_ring_close(struct packet_ring *ring)
{
    if (ring->memory)
        munmap(ring->memory, (size_t)ring->block_count * ring->block_bytes);
}
