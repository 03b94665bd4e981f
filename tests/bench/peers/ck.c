/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Concurrency Kit's ck_ring, one producer and one consumer, beside our ring: items by value in the
 * ring (CK_RING_PROTOTYPE), written where they will lie (reserve and commit). It has no bulk
 * operations, and one slot of it always stays empty.
 */
#include "tests/bench/queue.h"

#include <ck_ring.h>
#include <string.h>

struct item8 {
    uint64_t word[1];
};
struct item64 {
    _Alignas(64) uint64_t word[8];
};

CK_RING_PROTOTYPE(item8, item8)
CK_RING_PROTOTYPE(item64, item64)

enum { DEPTH = 1024, SHORT_DEPTH = 16 };

struct ring8 {
    ck_ring_t ring;
    _Alignas(64) struct item8 slots[DEPTH];
};
struct ring64 {
    ck_ring_t ring;
    struct item64 slots[DEPTH]; /* or fewer of them */
};

static void make(void *memory)
{
    ck_ring_init(memory, DEPTH);
}

static void make_short(void *memory)
{
    ck_ring_init(memory, SHORT_DEPTH);
}

QUEUE_INLINE void put8(void *queue, uint64_t number, const uint64_t *payload, enum queue_wait wait,
                       uint64_t *waits)
{
    struct ring8 *ring = queue;
    struct item8 *slot;

    while ((slot = ck_ring_enqueue_reserve_spsc_item8(&ring->ring, ring->slots)) == NULL)
        queue_pass(wait, waits);
    queue_fill(slot->word, 1, number, payload);
    ck_ring_enqueue_commit_spsc(&ring->ring);
}

QUEUE_INLINE void put64(void *queue, uint64_t number, const uint64_t *payload, enum queue_wait wait,
                        uint64_t *waits)
{
    struct ring64 *ring = queue;
    struct item64 *slot;

    while ((slot = ck_ring_enqueue_reserve_spsc_item64(&ring->ring, ring->slots)) == NULL)
        queue_pass(wait, waits);
    queue_fill(slot->word, 8, number, payload);
    ck_ring_enqueue_commit_spsc(&ring->ring);
}

QUEUE_INLINE uint32_t take8(void *queue, queue_accept *accept, void *context)
{
    struct ring8 *ring = queue;
    struct item8 item;

    if (!ck_ring_dequeue_spsc_item8(&ring->ring, ring->slots, &item))
        return 0;
    accept(context, item.word, 1);
    return 1;
}

QUEUE_INLINE uint32_t take64(void *queue, queue_accept *accept, void *context)
{
    struct ring64 *ring = queue;
    struct item64 item;

    if (!ck_ring_dequeue_spsc_item64(&ring->ring, ring->slots, &item))
        return 0;
    accept(context, item.word, 8);
    return 1;
}

QUEUE_ROUND_TRIP(rtt_8, put8, take8);
QUEUE_ROUND_TRIP(rtt_64, put64, take64);
QUEUE_THROUGHPUT(single, 1, put64, take64);

static const struct queue_case cases[] = {
    {"peer/ck/ring/rtt/8", &rtt_8, sizeof(struct ring8), make, false},
    {"peer/ck/ring/rtt/64", &rtt_64, sizeof(struct ring64), make, false},
    {"peer/ck/ring/rtt/64/d16", &rtt_64, sizeof(struct ring64), make_short, false},
    {"peer/ck/ring/throughput/64/single", &single, sizeof(struct ring64), make, false},
};

int main(int argc, char **argv)
{
    return queue_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
