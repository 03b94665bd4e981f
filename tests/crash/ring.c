/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of a ring, and a stage between two rings that makes several parts of an input. */
#include "shm/ring.h"

#include "tests/crash/campaign.h"

enum { MESSAGES = 60, DEPTH = 8, SLOT = 64, BURST = 3, PARTS = 3, LIVES = 3 };

static const struct region_place anywhere = {.numa_node = -1};

/* What the outside has seen. */
static struct {
    uint64_t produced;        /* by the partner */
    uint64_t consumed;        /* by the partner */
    uint64_t wrong;           /* messages that were not the ones expected */
    uint64_t taken[MESSAGES]; /* by the child: how often */
} * seen;
static struct region in;
static struct region out;
static struct ring_producer source;
static struct ring_consumer sink;

static void attach_producer(struct ring_producer *producer, const struct region *region)
{
    struct region_mismatch mismatch;

    CU_ASSERT_EQUAL_FATAL(ring_producer_attach(producer, region, &mismatch), 0);
}

static void attach_consumer(struct ring_consumer *consumer, const struct region *region)
{
    struct region_mismatch mismatch;

    CU_ASSERT_EQUAL_FATAL(ring_consumer_attach(consumer, region, &mismatch), 0);
    ring_awake(consumer);
}

static void make(void)
{
    if (!seen)
        seen = campaign_shared(sizeof(*seen));
    memset(seen, 0, sizeof(*seen));
    CU_ASSERT_EQUAL_FATAL(ring_create(&in, "crash-in", DEPTH, SLOT, UINT64_MAX - 5, 1, &anywhere),
                          0);
    CU_ASSERT_EQUAL_FATAL(ring_create(&out, "crash-out", DEPTH, SLOT, UINT64_MAX - 9, 1, &anywhere),
                          0);
    attach_producer(&source, &in);
    attach_consumer(&sink, &out);
}

static void unmake(void)
{
    region_close(&in);
    region_close(&out);
}

static void fill(struct ring_slot *slot, uint64_t number)
{
    slot->request = number;
    slot->length = 8;
    slot->parts = 1;
    slot->part = 0;
    memcpy(slot->payload, &number, 8);
}

static bool holds(const struct ring_slot *slot, uint64_t number)
{
    return slot->request == number && slot->length == 8 && memcmp(slot->payload, &number, 8) == 0;
}

static void feed(void)
{
    struct ring_slot *slot;

    while (seen->produced < MESSAGES && (slot = ring_claim(&source)) != NULL) {
        fill(slot, seen->produced++);
        ring_publish(&source);
    }
}

/* Parts of an input follow each other; a plain message is its only part. */
static void drain(uint64_t parts)
{
    const struct ring_slot *slot;

    while ((slot = ring_peek(&sink)) != NULL) {
        uint64_t number = seen->consumed++;
        seen->wrong += !holds(slot, number / parts) || slot->part != number % parts;
        ring_next(&sink);
        ring_commit(&sink);
    }
}

/* ---- producer: in bursts, rings the bell now and then ---- */

static int produce(void)
{
    struct ring_producer mine;
    struct ring_slot *slot;

    attach_producer(&mine, &out);
    for (uint64_t number = mine.head - mine.start; number < MESSAGES;) {
        if (mine.next - mine.head == BURST || !(slot = ring_claim(&mine))) {
            ring_publish(&mine);
            if (number % 2)
                ring_ring_bell(&mine);
            continue;
        }
        fill(slot, number++);
    }
    ring_publish(&mine);
    return 0;
}

static void drain_messages(void)
{
    drain(1);
}

static void check_drained(uint64_t parts)
{
    struct ring_positions positions;

    drain(parts);
    CU_ASSERT_EQUAL(seen->wrong, 0);
    CU_ASSERT_EQUAL(seen->consumed, MESSAGES * parts);
    CU_ASSERT_EQUAL(ring_positions(&out, &positions), 0);
    CU_ASSERT_EQUAL(positions.published, MESSAGES * parts);
}

static void check_produced(void)
{
    check_drained(1);
}

static const char *const producer_labels[] = {
    "ring:producer_attached", "ring:credit_out",     "ring:claimed",
    "ring:before_publish",    "ring:word_published", "ring:hint_stored",
    "ring:after_publish",     "ring:bell_stored",    NULL,
};

const struct crash_role crash_producer = {
    .name = "producer",
    .labels = producer_labels,
    .first_label = "ring:word_published",
    .first_pass = 20,
    .make = make,
    .live = produce,
    .partner = drain_messages,
    .check = check_produced,
    .unmake = unmake,
};

/* ---- consumer: each message at least once, a burst at most again ---- */

static int consume(void)
{
    struct ring_consumer mine;
    const struct ring_slot *slot;

    attach_consumer(&mine, &in);
    while (mine.next - mine.start < MESSAGES) {
        for (int n = 0; n < BURST && (slot = ring_peek(&mine)) != NULL; n++) {
            uint64_t number = mine.next - mine.start;
            if (!holds(slot, number))
                return 1;
            seen->taken[number]++;
            ring_next(&mine);
        }
        ring_commit(&mine);
        (void)ring_park(&mine, true, 1000);
    }
    return 0;
}

static void check_consumed(void)
{
    struct ring_positions positions;
    uint64_t repeated = 0;

    for (uint64_t i = 0; i < MESSAGES; i++) {
        CU_ASSERT(seen->taken[i] >= 1);
        repeated += seen->taken[i] - 1;
    }
    CU_ASSERT(repeated <= (uint64_t)(LIVES - 1) * BURST);
    CU_ASSERT_EQUAL(ring_positions(&in, &positions), 0);
    CU_ASSERT_EQUAL(positions.consumed, MESSAGES);
    CU_ASSERT_EQUAL(load_relaxed(&source.control->parked), RING_AWAKE);
}

static const char *const consumer_labels[] = {
    "ring:consumer_attached", "ring:peeked", "ring:before_commit",
    "ring:after_commit",      "ring:parked", NULL,
};

const struct crash_role crash_consumer = {
    .name = "consumer",
    .labels = consumer_labels,
    .first_label = "ring:before_commit",
    .first_pass = 4,
    .make = make,
    .live = consume,
    .partner = feed,
    .check = check_consumed,
    .unmake = unmake,
};

/* ---- a stage: each part of each input once ---- */

static void make_parts(struct ring_consumer *from, struct ring_producer *to, uint32_t part)
{
    const struct ring_slot *input =
        ring_slot_at(from->slots, from->mask, from->slot_bytes, from->next);
    struct ring_slot *slot;

    for (; part < PARTS; part++) {
        while (!(slot = ring_claim(to))) {
            ring_publish(to);
            sched_yield();
        }
        fill(slot, input->request);
        slot->source = from->next;
        slot->part = (uint8_t)part;
        slot->parts = PARTS;
    }
    ring_publish(to);
}

static int pass_on(void)
{
    struct ring_consumer from;
    struct ring_producer to;

    attach_consumer(&from, &in);
    attach_producer(&to, &out);
    uint32_t part = ring_resume(&from, &to);
    while (from.next - from.start < MESSAGES) {
        uint64_t n = 0;
        for (; n < BURST && ring_peek(&from); n++, part = 0) {
            make_parts(&from, &to, part);
            ring_next(&from);
        }
        if (n)
            ring_commit(&from);
        else
            sched_yield();
    }
    return 0;
}

static void feed_and_drain(void)
{
    feed();
    drain(PARTS);
}

static void check_passed_on(void)
{
    struct ring_positions positions;

    check_drained(PARTS);
    CU_ASSERT_EQUAL(ring_positions(&in, &positions), 0);
    CU_ASSERT_EQUAL(positions.consumed, MESSAGES);
}

static const char *const stage_labels[] = {
    "ring:producer_attached",
    "ring:consumer_attached",
    "ring:resumed",
    "ring:credit_out",
    "ring:claimed",
    "ring:before_publish",
    "ring:word_published",
    "ring:hint_stored",
    "ring:after_publish",
    "ring:peeked",
    "ring:before_commit",
    "ring:after_commit",
    NULL,
};

const struct crash_role crash_stage = {
    .name = "stage",
    .labels = stage_labels,
    .first_label = "ring:word_published",
    .first_pass = 20,
    .make = make,
    .live = pass_on,
    .partner = feed_and_drain,
    .check = check_passed_on,
    .unmake = unmake,
};
