/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring through its real API, measured as queue.h says: between two processes on two CPUs, and
 * taking turns on one.
 *
 * An item is a slot with its header: `64` is a whole slot of 64 bytes. The consumer hands on what is
 * there, up to a burst, and commits once for all of it, as the stages do.
 */
#include "shm/ring.h"

#include "tests/bench/queue.h"

#include <stdlib.h>
#include <string.h>

/* The two ends are private to a process each and stand on lines of their own. */
struct queue {
    struct region region;
    _Alignas(LINE_PAIR_BYTES) struct ring_producer out;
    _Alignas(LINE_PAIR_BYTES) struct ring_consumer in;
};

static void make(void *memory, uint32_t depth, uint32_t slot_bytes)
{
    struct queue *queue = memory;
    const struct region_place place = {.numa_node = -1};
    struct region_mismatch mismatch;

    if (ring_create(&queue->region, "bench", depth, slot_bytes, 0, 1, &place) < 0 ||
        ring_producer_attach(&queue->out, &queue->region, &mismatch) < 0 ||
        ring_consumer_attach(&queue->in, &queue->region, &mismatch) < 0)
        abort();
}

#define MAKE(depth, slot)                                                                          \
    static void make_##depth##_##slot(void *memory)                                                \
    {                                                                                              \
        make(memory, depth, slot);                                                                 \
    }

MAKE(16, 64)
MAKE(1024, 64)
MAKE(1024, 128)
MAKE(1024, 256)
MAKE(65536, 64)

QUEUE_INLINE struct ring_slot *claim(struct queue *queue, enum queue_wait wait, uint64_t *waits)
{
    struct ring_slot *slot;

    while ((slot = ring_claim(&queue->out)) == NULL)
        queue_pass(wait, waits);
    return slot;
}

QUEUE_INLINE void fill(struct ring_slot *slot, uint64_t number, const uint64_t *payload,
                       const uint16_t bytes)
{
    slot->source = number;
    slot->request = number;
    slot->ingress = number;
    slot->length = bytes;
    slot->kind = RING_REQUEST;
    slot->reason = 0;
    slot->part = 0;
    slot->parts = 1;
    slot->flow = 0;
    for (uint16_t at = 0; at < bytes; at += 8)
        memcpy(slot->payload + at, payload + at / 8 % QUEUE_PAYLOAD_WORDS, 8);
}

#define OPERATIONS(name, bytes)                                                                    \
    QUEUE_INLINE void put_##name(void *ring, uint64_t number, const uint64_t *payload,             \
                                 enum queue_wait wait, uint64_t *waits)                            \
    {                                                                                              \
        struct queue *queue = ring;                                                                \
        static const uint64_t none[QUEUE_PAYLOAD_WORDS];                                           \
        fill(claim(queue, wait, waits), number, payload ? payload : none, bytes);                  \
        ring_publish(&queue->out);                                                                 \
    }                                                                                              \
    QUEUE_INLINE void put_burst_##name(void *ring, uint64_t number, const uint64_t *payload,       \
                                       enum queue_wait wait, uint64_t *waits)                      \
    {                                                                                              \
        struct queue *queue = ring;                                                                \
        for (uint64_t i = 0; i < QUEUE_BURST; i++)                                                 \
            fill(claim(queue, wait, waits), number + i, payload, bytes);                           \
        ring_publish(&queue->out);                                                                 \
    }                                                                                              \
    QUEUE_INLINE uint32_t take_##name(void *ring, queue_accept *accept, void *context)             \
    {                                                                                              \
        struct queue *queue = ring;                                                                \
        const struct ring_slot *slot;                                                              \
        uint32_t taken = 0;                                                                        \
        while (taken < QUEUE_BURST && (slot = ring_peek(&queue->in)) != NULL) {                    \
            accept(context, (const uint64_t *)(const void *)slot,                                  \
                   (RING_SLOT_HEADER_BYTES + (bytes)) / 8);                                        \
            ring_next(&queue->in);                                                                 \
            taken++;                                                                               \
        }                                                                                          \
        if (taken)                                                                                 \
            ring_commit(&queue->in);                                                               \
        return taken;                                                                              \
    }

OPERATIONS(8, 8)
OPERATIONS(64, 24)
OPERATIONS(128, 64)
OPERATIONS(256, 216)

QUEUE_ROUND_TRIP(rtt_8, put_8, take_8);
QUEUE_ROUND_TRIP(rtt_64, put_64, take_64);
QUEUE_ROUND_TRIP(rtt_128, put_128, take_128);
QUEUE_ROUND_TRIP(rtt_256, put_256, take_256);
QUEUE_THROUGHPUT(single_64, 1, put_64, take_64);
QUEUE_THROUGHPUT(single_128, 1, put_128, take_128);
QUEUE_THROUGHPUT(single_256, 1, put_256, take_256);
QUEUE_THROUGHPUT(burst_64, QUEUE_BURST, put_burst_64, take_64);
QUEUE_THROUGHPUT(burst_128, QUEUE_BURST, put_burst_128, take_128);
QUEUE_THROUGHPUT(burst_256, QUEUE_BURST, put_burst_256, take_256);

#define CASE(name, loops, depth, slot, one)                                                        \
    {                                                                                              \
        "ring/" name, &(loops), sizeof(struct queue), make_##depth##_##slot, one                   \
    }

static const struct queue_case cases[] = {
    CASE("rtt/8", rtt_8, 1024, 64, false),
    CASE("rtt/64", rtt_64, 1024, 64, false),
    CASE("rtt/64/d16", rtt_64, 16, 64, false),
    CASE("rtt/64/d65536", rtt_64, 65536, 64, false),
    CASE("rtt/64/one", rtt_64, 1024, 64, true),
    CASE("rtt/128", rtt_128, 1024, 128, false),
    CASE("rtt/256", rtt_256, 1024, 256, false),
    CASE("throughput/64/single", single_64, 1024, 64, false),
    CASE("throughput/64/single/d16", single_64, 16, 64, false),
    CASE("throughput/64/single/d65536", single_64, 65536, 64, false),
    CASE("throughput/64/single/one", single_64, 1024, 64, true),
    CASE("throughput/64/burst32", burst_64, 1024, 64, false),
    CASE("throughput/64/burst32/d65536", burst_64, 65536, 64, false),
    CASE("throughput/64/burst32/one", burst_64, 1024, 64, true),
    CASE("throughput/128/single", single_128, 1024, 128, false),
    CASE("throughput/128/burst32", burst_128, 1024, 128, false),
    CASE("throughput/256/single", single_256, 1024, 256, false),
    CASE("throughput/256/burst32", burst_256, 1024, 256, false),
};

int main(int argc, char **argv)
{
    return queue_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
