/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring into which somebody has written: attach of both ends, recovery, use, and the account's look at it.
 * First byte: what the ring held, second byte: whether the writing comes before the attach or behind it; then
 * patches (fuzz.h).
 */
#include "shm/ring.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

enum { DEPTH = 4, SLOT_BYTES = 128, BYTES = 3 * PAGE_BYTES };

static struct region_header *memory;
static struct region region;

struct work {
    struct fuzz_input input;
    bool late;
    struct ring_producer producer;
    struct ring_consumer consumer;
};

static void make(uint64_t start, uint32_t published, uint32_t consumed)
{
    static struct region fresh;
    const struct region_place place = {.numa_node = -1};
    struct region_mismatch mismatch;
    struct ring_producer producer;
    struct ring_consumer consumer;

    if (!memory)
        memory = fuzz_pages(BYTES);
    fuzz_require(ring_create(&fresh, "fuzz", DEPTH, SLOT_BYTES, start, 1, &place) == 0);
    fuzz_require(ring_producer_attach(&producer, &fresh, &mismatch) == 0);
    fuzz_require(ring_consumer_attach(&consumer, &fresh, &mismatch) == 0);
    for (uint32_t i = 0; i < published && i - consumed < DEPTH; i++) {
        struct ring_slot *slot = ring_claim(&producer);
        fuzz_require(slot);
        slot->source = i;
        slot->length = (uint16_t)i;
        slot->parts = 1;
        ring_publish(&producer);
        if (i < consumed && ring_peek(&consumer)) {
            ring_next(&consumer);
            ring_commit(&consumer);
        }
    }
    fuzz_require(fresh.size == BYTES);
    memcpy(memory, fresh.header, BYTES);
    region_close(&fresh);
    region = (struct region){.header = memory, .size = BYTES, .fd = -1, .page_bytes = PAGE_BYTES};
}

/* Every byte that a slot says it has, and every byte that may be written. */
static void use(void *context)
{
    struct work *work = context;
    uint32_t sum = 0;

    for (int i = 0; i < 3 * DEPTH; i++) {
        const struct ring_slot *in = ring_peek(&work->consumer);
        if (in) {
            for (uint32_t k = 0; k < in->length; k++)
                sum += in->payload[k];
            ring_next(&work->consumer);
            if (i % 3 == 0)
                ring_commit(&work->consumer);
        }
        struct ring_slot *out = ring_claim(&work->producer);
        if (out)
            memset(out->payload, (int)sum, ring_capacity(work->producer.slot_bytes));
        if (i % 2)
            ring_publish(&work->producer);
    }
    (void)ring_drained(&work->producer);
}

static void attach_and_use(void *context)
{
    struct work *work = context;
    struct region_mismatch mismatch = {0};

    if (!work->late)
        fuzz_patch(&work->input, memory, BYTES);
    if (ring_producer_attach(&work->producer, &region, &mismatch) < 0 ||
        ring_consumer_attach(&work->consumer, &region, &mismatch) < 0) {
        fuzz_require(mismatch.field);
        return;
    }
    if (work->late)
        fuzz_patch(&work->input, memory, BYTES);
    uint64_t before = work->consumer.next;
    (void)ring_last_published(&work->producer);
    (void)ring_resume(&work->consumer, &work->producer);
    fuzz_require(work->consumer.next - before <= DEPTH);
    use(work);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct work work = {.input = {data, size}};
    struct ring_positions positions;

    uint32_t held = (uint32_t)fuzz_number(&work.input, 1);
    work.late = fuzz_number(&work.input, 1) & 1;
    make(held & 1 ? UINT64_MAX - 2 : 0, held >> 4, (held >> 1) % 8);
    (void)fuzz_stops(attach_and_use, &work);
    if (ring_positions(&region, &positions) == 0)
        fuzz_require(positions.published - positions.consumed <= memory->geometry[0]);
    return 0;
}
