/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real ring: its edges by hand, its recovery by killing at every step, and two processes that
 * pass millions of messages. TICKLINE_TEST_THREADS=1: threads instead, and fewer messages, for the
 * thread sanitizer.
 */
#include "shm/ring.h"
#include "stage/cpu.h"
#include "tests/unit.h"

#include <errno.h>
#include <pthread.h>

static const struct region_place anywhere = {.numa_node = -1};
enum { SLOT = 64, CAPACITY = 24, EPOCH = 9 };

struct pair {
    struct region region;
    struct ring_producer producer;
    struct ring_consumer consumer;
};

static void attach(struct pair *pair)
{
    struct region_mismatch mismatch;
    CU_ASSERT_EQUAL_FATAL(ring_producer_attach(&pair->producer, &pair->region, &mismatch), 0);
    CU_ASSERT_EQUAL_FATAL(ring_consumer_attach(&pair->consumer, &pair->region, &mismatch), 0);
}

static void make(struct pair *pair, uint32_t depth, uint64_t start)
{
    CU_ASSERT_EQUAL_FATAL(ring_create(&pair->region, "test", depth, SLOT, start, EPOCH, &anywhere),
                          0);
    attach(pair);
}

/* Publishes one message that says `value`. */
static bool put(struct pair *pair, uint64_t value)
{
    struct ring_slot *slot = ring_claim(&pair->producer);
    if (!slot)
        return false;
    slot->request = value;
    slot->length = 8;
    memcpy(slot->payload, &value, 8);
    ring_publish(&pair->producer);
    return true;
}

/* Reads one message without committing it; UINT64_MAX: there is none. */
static uint64_t take(struct pair *pair)
{
    const struct ring_slot *slot = ring_peek(&pair->consumer);
    uint64_t value = UINT64_MAX;
    if (!slot)
        return value;
    memcpy(&value, slot->payload, 8);
    CU_ASSERT_EQUAL(slot->length, 8);
    CU_ASSERT_EQUAL(slot->request, value);
    ring_next(&pair->consumer);
    return value;
}

/* ---- geometry ---- */

static void test_geometry(void)
{
    static const struct {
        uint32_t depth, slot;
        int result;
    } tried[] = {
        {0, 64, -EINVAL},
        {1, 64, -EINVAL},
        {3, 64, -EINVAL},
        {1000, 64, -EINVAL},
        {131072, 64, -EINVAL},
        {0x80000000, 64, -EINVAL},
        {4, 0, -EINVAL},
        {4, 32, -EINVAL},
        {4, 63, -EINVAL},
        {4, 65, -EINVAL},
        {4, 100, -EINVAL},
        {4, 65728, -EINVAL},
        {4, UINT32_MAX - 63, -EINVAL},
        {2, 64, 0},
        {65536, 64, 0},
        {2, 65664, 0},
    };
    for (size_t i = 0; i < sizeof(tried) / sizeof(tried[0]); i++) {
        struct region region = {.fd = -1};
        CU_ASSERT_EQUAL(
            ring_create(&region, "test", tried[i].depth, tried[i].slot, 0, 1, &anywhere),
            tried[i].result);
        region_close(&region);
    }
    CU_ASSERT_EQUAL(ring_capacity(64), 24);
    CU_ASSERT_EQUAL(ring_capacity(65664), 65624);
}

/* A header that cannot be is refused by both ends, with what stands in it. */
static void test_geometry_attached(void)
{
    static const struct {
        int index;
        uint64_t value;
        const char *field;
        uint64_t expected, found;
    } wrong[] = {
        {0, 3, "geometry[0]", 65536, 3},
        {0, 0, "geometry[0]", 65536, 0},
        {0, 1ULL << 40, "geometry[0]", 65536, 1ULL << 40},
        {1, 96, "geometry[1]", 64, 96},
        {1, 0, "geometry[1]", 64, 0},
        {0, 128, "size", 8192 + 128 * 64, 8192 + 64 * 64},
        {1, 128, "size", 8192 + 64 * 128, 8192 + 64 * 64},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct pair pair;
        struct ring_positions positions;
        struct region_mismatch mismatch = {0};
        make(&pair, 64, 0);
        pair.region.header->geometry[wrong[i].index] = wrong[i].value;
        CU_ASSERT_EQUAL(ring_producer_attach(&pair.producer, &pair.region, &mismatch), -EPROTO);
        CU_ASSERT_STRING_EQUAL(mismatch.field, wrong[i].field);
        CU_ASSERT_EQUAL(mismatch.expected, wrong[i].expected);
        CU_ASSERT_EQUAL(mismatch.found, wrong[i].found);
        mismatch = (struct region_mismatch){0};
        CU_ASSERT_EQUAL(ring_consumer_attach(&pair.consumer, &pair.region, &mismatch), -EPROTO);
        CU_ASSERT_STRING_EQUAL(mismatch.field, wrong[i].field);
        CU_ASSERT_EQUAL(ring_positions(&pair.region, &positions), -EPROTO);
        region_close(&pair.region);
    }
}

/* ---- one process, by hand ---- */

static void test_empty(void)
{
    static const uint64_t starts[] = {0, 1, 1000, UINT64_MAX, UINT64_MAX - 1};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        struct pair pair;
        struct ring_positions positions;
        make(&pair, 2, starts[i]);
        CU_ASSERT_PTR_NULL(ring_peek(&pair.consumer));
        CU_ASSERT_PTR_NULL(ring_last_published(&pair.producer));
        CU_ASSERT(ring_drained(&pair.producer));
        CU_ASSERT_EQUAL(ring_positions(&pair.region, &positions), 0);
        CU_ASSERT_EQUAL(positions.published, 0);
        CU_ASSERT_EQUAL(positions.consumed, 0);
        region_close(&pair.region);
    }
}

static void test_full(void)
{
    struct pair pair;
    make(&pair, 4, 0);
    for (uint64_t i = 0; i < 4; i++)
        CU_ASSERT(put(&pair, i));
    CU_ASSERT(!put(&pair, 4));
    CU_ASSERT_EQUAL(ring_refresh(&pair.producer), 0);
    CU_ASSERT(!ring_drained(&pair.producer));
    CU_ASSERT_EQUAL(take(&pair), 0);
    CU_ASSERT_EQUAL(take(&pair), 1);
    CU_ASSERT(!put(&pair, 4)); /* read is not committed */
    ring_commit(&pair.consumer);
    CU_ASSERT_EQUAL(ring_refresh(&pair.producer), 2);
    CU_ASSERT(put(&pair, 4));
    CU_ASSERT(put(&pair, 5));
    CU_ASSERT(!put(&pair, 6));
    for (uint64_t i = 2; i < 6; i++)
        CU_ASSERT_EQUAL(take(&pair), i);
    CU_ASSERT_EQUAL(take(&pair), UINT64_MAX);
    CU_ASSERT(!ring_drained(&pair.producer));
    ring_commit(&pair.consumer);
    CU_ASSERT(ring_drained(&pair.producer));
    region_close(&pair.region);
}

/* Where the bytes of a slot stand, in memory that another build maps as well. */
static void test_layout(void)
{
    static const uint8_t expected[SLOT] = {
        4,    0,    0,    0,    0,    0,    0,    0,    0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
        0x18, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36,
        0x37, 0x38, 5,    0,    3,    6,    1,    2,    0x41, 0x42, 'h',  'e',  'l',  'l',  'o',
    };
    struct pair pair;
    make(&pair, 4, 0);
    for (uint64_t i = 0; i < 3; i++)
        CU_ASSERT(put(&pair, 0));
    struct ring_slot *slot = ring_claim(&pair.producer);
    slot->source = 0x1817161514131211;
    slot->request = 0x2827262524232221;
    slot->ingress = 0x3837363534333231;
    slot->length = 5;
    slot->kind = RING_REJECTED;
    slot->reason = 6;
    slot->part = 1;
    slot->parts = 2;
    slot->flow = 0x4241;
    memcpy(slot->payload, "hello", 5);
    ring_publish(&pair.producer);
    CU_ASSERT(memcmp(region_at(&pair.region, 8192 + 3 * SLOT), expected, SLOT) == 0);
    CU_ASSERT_EQUAL(take(&pair), 0);
    ring_commit(&pair.consumer);
    CU_ASSERT_EQUAL(*(uint64_t *)region_at(&pair.region, 4096), 1); /* the tail */
    region_close(&pair.region);
}

static void test_abandon(void)
{
    struct pair pair;
    make(&pair, 4, 0);
    struct ring_slot *first = ring_claim(&pair.producer);
    CU_ASSERT_PTR_NOT_EQUAL(ring_claim(&pair.producer), first);
    ring_abandon(&pair.producer);
    CU_ASSERT_PTR_NULL(ring_peek(&pair.consumer));
    CU_ASSERT_PTR_EQUAL(ring_claim(&pair.producer), first);
    ring_abandon(&pair.producer);
    ring_publish(&pair.producer); /* nothing */
    CU_ASSERT_PTR_NULL(ring_peek(&pair.consumer));
    CU_ASSERT(put(&pair, 7));
    CU_ASSERT_EQUAL(take(&pair), 7);
    region_close(&pair.region);
}

/* Claims of several become visible together, oldest first; a commit may stop in between. */
static void test_bursts(void)
{
    struct pair pair;
    make(&pair, 8, UINT64_MAX - 20);
    uint64_t written = 0, read = 0;
    for (int round = 0; round < 50; round++) {
        uint64_t burst = (uint64_t)round % 8 + 1;
        for (uint64_t i = 0; i < burst; i++) {
            struct ring_slot *slot = ring_claim(&pair.producer);
            CU_ASSERT_PTR_NOT_NULL_FATAL(slot);
            slot->request = written;
            slot->length = 8;
            memcpy(slot->payload, &written, 8);
            written++;
        }
        CU_ASSERT_PTR_NULL(ring_peek(&pair.consumer));
        ring_publish(&pair.producer);
        uint64_t begin = pair.consumer.next;
        for (uint64_t i = 0; i < burst; i++)
            CU_ASSERT_EQUAL(take(&pair), read++);
        CU_ASSERT_EQUAL(take(&pair), UINT64_MAX);
        ring_commit_to(&pair.consumer, begin + burst / 2);
        CU_ASSERT_EQUAL(ring_refresh(&pair.producer), 8 - (burst - burst / 2));
        ring_commit(&pair.consumer);
    }
    region_close(&pair.region);
}

/* Each end finds its place again wherever it and the other one stood, also across 2^64. */
static void test_reattach(void)
{
    static const uint64_t starts[] = {0, 5, UINT64_MAX, UINT64_MAX - 6};
    for (size_t s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
        for (uint64_t published = 0; published <= 13; published++) {
            for (uint64_t waiting = 0; waiting <= 4 && waiting <= published; waiting++) {
                struct pair pair;
                struct ring_positions positions;
                uint64_t consumed = published - waiting;
                make(&pair, 4, starts[s]);
                for (uint64_t i = 0; i < published; i++) {
                    CU_ASSERT_FATAL(put(&pair, i));
                    if (i < consumed)
                        CU_ASSERT_EQUAL(take(&pair), i);
                    ring_commit(&pair.consumer);
                }
                (void)take(&pair);                /* read, not committed */
                (void)ring_claim(&pair.producer); /* claimed, not published */
                attach(&pair);
                CU_ASSERT_EQUAL(pair.producer.head, starts[s] + published);
                CU_ASSERT_EQUAL(pair.consumer.next, starts[s] + consumed);
                CU_ASSERT_EQUAL(ring_refresh(&pair.producer), 4 - waiting);
                CU_ASSERT_EQUAL(ring_positions(&pair.region, &positions), 0);
                CU_ASSERT_EQUAL(positions.published, published);
                CU_ASSERT_EQUAL(positions.consumed, consumed);
                const struct ring_slot *last = ring_last_published(&pair.producer);
                CU_ASSERT_EQUAL_FATAL(last != NULL, published > 0);
                CU_ASSERT(!last || last->request == published - 1);
                for (uint64_t i = 0; i < 6; i++) { /* and goes on as if nothing had been */
                    CU_ASSERT_EQUAL(put(&pair, published + i), i < 4 - waiting);
                }
                for (uint64_t i = consumed; i < published + 4 - waiting; i++)
                    CU_ASSERT_EQUAL(take(&pair), i);
                CU_ASSERT_EQUAL(take(&pair), UINT64_MAX);
                region_close(&pair.region);
            }
        }
    }
}

/* ---- recovery of a stage between two rings ---- */

static void test_resume(void)
{
    static const struct {
        uint64_t tail; /* of the input */
        bool any;      /* something was published */
        uint64_t source;
        uint8_t part, parts;
        uint64_t next; /* expected */
        uint8_t next_part;
    } cases[] = {
        {5, false, 0, 0, 0, 5, 0}, /* nothing done yet */
        {5, true, 3, 0, 1, 5, 0},  /* filtered ones in between */
        {5, true, 4, 0, 1, 5, 0},  /* killed after the commit */
        {5, true, 5, 0, 1, 6, 0},  /* killed before it */
        {5, true, 8, 0, 1, 9, 0},  /* a burst before it */
        {5, true, 5, 0, 3, 5, 1},  /* between parts */
        {5, true, 5, 1, 3, 5, 2},
        {5, true, 5, 2, 3, 6, 0}, /* after the last part */
        {5, true, 7, 0, 2, 7, 1}, /* between parts, a burst on */
        {5, true, 4, 0, 2, 5, 0}, /* committed all the same */
        {5, true, 6, 254, 255, 7, 0},
        {5, true, 6, 253, 255, 6, 254},
        {UINT64_MAX, true, UINT64_MAX, 0, 1, 0, 0},
        {UINT64_MAX, true, 0, 0, 1, 1, 0},
        {UINT64_MAX - 1, true, 1, 1, 3, 1, 2},
        {1, true, UINT64_MAX, 0, 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair in, out;
        make(&in, 8, cases[i].tail);
        make(&out, 4, 100);
        if (cases[i].any) {
            struct ring_slot *slot = ring_claim(&out.producer);
            slot->source = cases[i].source;
            slot->part = cases[i].part;
            slot->parts = cases[i].parts;
            ring_publish(&out.producer);
            attach(&out);
        }
        CU_ASSERT_EQUAL(ring_resume(&in.consumer, &out.producer), cases[i].next_part);
        CU_ASSERT_EQUAL(in.consumer.next, cases[i].next);
        CU_ASSERT_EQUAL(load_relaxed(&in.consumer.control->tail), cases[i].next);
        region_close(&in.region);
        region_close(&out.region);
    }
}

/*
 * A stage in steps: each input becomes `parts` outputs, at most `burst` inputs a commit. It can be
 * stopped after any step; then everything it knew is gone and a successor takes over.
 */
struct stepper {
    struct pair *in, *out;
    uint8_t parts;
    uint64_t burst;
    int left; /* steps until it is killed */
};

static bool killed(struct stepper *stepper)
{
    return stepper->left-- == 0;
}

/* One generation: true where it ended by having nothing more to do. */
static bool generation(struct stepper *stepper)
{
    struct pair in = *stepper->in, out = *stepper->out;
    const struct ring_slot *slot;
    uint64_t read = 0;

    attach(&in);
    attach(&out);
    uint8_t part = ring_resume(&in.consumer, &out.producer);
    while ((slot = ring_peek(&in.consumer)) != NULL) {
        for (; part < stepper->parts; part++) {
            struct ring_slot *made = ring_claim(&out.producer);
            if (!made)
                return false; /* downstream must read first */
            if (killed(stepper))
                return false;
            made->source = in.consumer.next;
            made->request = slot->request;
            made->part = part;
            made->parts = stepper->parts;
            if (killed(stepper))
                return false;
            ring_publish(&out.producer);
            if (killed(stepper))
                return false;
        }
        part = 0;
        ring_next(&in.consumer);
        if (++read % stepper->burst == 0)
            ring_commit(&in.consumer);
        if (killed(stepper))
            return false;
    }
    ring_commit(&in.consumer);
    return true;
}

enum { INPUTS = 5 };

/* Passes INPUTS requests, killed after `first` and again after `second` steps: each part once. */
static bool exactly_once(uint32_t depth, uint8_t parts, uint64_t burst, int first, int second)
{
    struct pair in, out;
    uint64_t given = 0, seen = 0;
    make(&in, 8, UINT64_MAX - 2);
    make(&out, depth, UINT64_MAX - 2);
    for (; given < INPUTS; given++)
        CU_ASSERT_FATAL(put(&in, given));

    struct stepper stepper = {&in, &out, parts, burst, first};
    for (int round = 0; round < 40 && seen < (uint64_t)INPUTS * parts; round++) {
        (void)generation(&stepper);
        if (stepper.left < 0)
            stepper.left = round == 0 ? second : 1000000;
        const struct ring_slot *slot;
        while ((slot = ring_peek(&out.consumer)) != NULL) {
            if (slot->request != seen / parts || slot->part != seen % parts)
                break;
            seen++;
            ring_next(&out.consumer);
            ring_commit(&out.consumer);
        }
    }
    stepper.left = 1000000;
    bool right = generation(&stepper) && seen == (uint64_t)INPUTS * parts &&
                 ring_peek(&out.consumer) == NULL && ring_drained(&in.producer);
    region_close(&in.region);
    region_close(&out.region);
    return right;
}

static void test_killed_at_every_step(void)
{
    unsigned int wrong = 0;
    for (uint32_t depth = 2; depth <= 4; depth *= 2) {
        for (uint8_t parts = 1; parts <= 2; parts++) {
            for (uint64_t burst = 1; burst <= 2; burst++) {
                for (int first = 0; first < 24; first++) {
                    for (int second = 0; second < 24; second++)
                        wrong += !exactly_once(depth, parts, burst, first, second);
                }
            }
        }
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* ---- what must not be there ---- */

static int child_peek(void *pair)
{
    return ring_peek(&((struct pair *)pair)->consumer) != NULL;
}

static int child_claim(void *pair)
{
    return ring_claim(&((struct pair *)pair)->producer) != NULL;
}

static void test_corrupted(void)
{
    struct pair pair;
    make(&pair, 2, 0);
    CU_ASSERT(put(&pair, 1));
    struct ring_slot *slot = ring_peek(&pair.consumer);
    slot->length = CAPACITY;
    CU_ASSERT_PTR_NOT_NULL(ring_peek(&pair.consumer));
    slot->length = CAPACITY + 1;
    unit_dies(child_peek, &pair, SIGABRT,
              "shared memory is corrupt: ring slot length: expected 24 (0x18), found 25 (0x19)\n");
    slot->length = 8;
    CU_ASSERT(put(&pair, 2));
    /* A tail ahead of what was ever published, and one further behind than the ring is deep. */
    store_release(&pair.producer.control->tail, 3);
    unit_dies(child_claim, &pair, SIGABRT,
              "shared memory is corrupt: ring tail: expected 2 (0x2), found 3 (0x3)\n");
    store_release(&pair.producer.control->tail, UINT64_MAX);
    unit_dies(child_claim, &pair, SIGABRT,
              "shared memory is corrupt: ring tail: expected 2 (0x2), found 18446744073709551615 "
              "(0xffffffffffffffff)\n");
    region_close(&pair.region);
}

/* ---- parking ---- */

enum { LONG_NS = 900000000 };

struct sleeper {
    struct pair *pair;
    bool near;
    bool slept;
    double seconds;
};

static void *sleep_on_ring(void *argument)
{
    struct sleeper *sleeper = argument;
    double begin = unit_seconds();
    sleeper->slept = ring_park(&sleeper->pair->consumer, sleeper->near, LONG_NS);
    sleeper->seconds = unit_seconds() - begin;
    return NULL;
}

/* Parks a thread, publishes, wakes as told; true where ring_wake rang. */
static bool wake_parked(struct sleeper *sleeper, bool was_idle)
{
    struct ring_control *control = sleeper->pair->producer.control;
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_on_ring, sleeper);
    while (load_acquire(&control->parked) == RING_AWAKE)
        sched_yield();
    CU_ASSERT_EQUAL(load_acquire(&control->parked),
                    sleeper->near ? RING_PARKED_NEAR : RING_PARKED_FAR);
    ring_nap(5000000);
    CU_ASSERT(put(sleeper->pair, 1));
    bool rang = ring_wake(&sleeper->pair->producer, was_idle);
    if (!rang)
        ring_ring_bell(&sleeper->pair->producer);
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(load_acquire(&control->parked), RING_AWAKE);
    CU_ASSERT(sleeper->slept);
    CU_ASSERT(sleeper->seconds < 0.8);
    CU_ASSERT_EQUAL(take(sleeper->pair), 1);
    ring_commit(&sleeper->pair->consumer);
    return rang;
}

static void test_parking(void)
{
    struct pair pair;
    make(&pair, 4, 0);
    CU_ASSERT(!ring_wake(&pair.producer, true)); /* nobody sleeps */
    double begin = unit_seconds();
    CU_ASSERT(ring_park(&pair.consumer, true, 2000000));
    CU_ASSERT(unit_seconds() - begin >= 0.002);
    begin = unit_seconds();
    CU_ASSERT(ring_nap(2000000));
    CU_ASSERT(unit_seconds() - begin >= 0.002);
    CU_ASSERT(put(&pair, 1));
    begin = unit_seconds();
    CU_ASSERT(!ring_park(&pair.consumer, true, LONG_NS)); /* a message is there */
    CU_ASSERT(unit_seconds() - begin < 0.5);
    CU_ASSERT_EQUAL(load_relaxed(&pair.producer.control->parked), RING_AWAKE);
    CU_ASSERT_EQUAL(take(&pair), 1);
    ring_commit(&pair.consumer);

    CU_ASSERT(wake_parked(&(struct sleeper){.pair = &pair, .near = true}, false));
    CU_ASSERT(wake_parked(&(struct sleeper){.pair = &pair, .near = true}, true));
    CU_ASSERT(wake_parked(&(struct sleeper){.pair = &pair, .near = false}, true));
    CU_ASSERT(!wake_parked(&(struct sleeper){.pair = &pair, .near = false}, false));
    region_close(&pair.region);
}

/* ---- two processes ---- */

struct stream {
    struct pair pair;
    uint64_t messages;
    uint64_t burst;
    double deadline;
};

static uint64_t mixed(uint64_t n)
{
    n = (n ^ (n >> 31)) * 0x9e3779b97f4a7c15ULL;
    return n ^ (n >> 29);
}

/* Gives way; false where the time is up. */
static bool keep_waiting(const struct stream *stream, uint64_t *waits)
{
    sched_yield();
    return ++*waits % 4096 != 0 || unit_seconds() < stream->deadline;
}

static void fill(struct ring_slot *slot, uint64_t n)
{
    slot->source = n;
    slot->request = ~n;
    slot->ingress = mixed(n);
    slot->length = (uint16_t)(n % (CAPACITY + 1));
    slot->kind = (uint8_t)(n % 4 + 1);
    slot->flow = (uint16_t)n;
    for (int i = 0; i < CAPACITY / 8; i++) {
        uint64_t word = mixed(n + (uint64_t)i);
        memcpy(slot->payload + (size_t)8 * (size_t)i, &word, 8);
    }
}

static bool is_message(const struct ring_slot *slot, uint64_t n)
{
    bool right = slot->source == n && slot->request == ~n && slot->ingress == mixed(n) &&
                 slot->length == n % (CAPACITY + 1) && slot->kind == n % 4 + 1 &&
                 slot->flow == (uint16_t)n;
    for (int i = 0; i < CAPACITY / 8; i++) {
        uint64_t word;
        memcpy(&word, slot->payload + (size_t)8 * (size_t)i, 8);
        right = right && word == mixed(n + (uint64_t)i);
    }
    return right;
}

/* Both ends return 0, 1: a message was wrong, 2: out of time. */
static int produce(struct stream *stream)
{
    struct ring_producer *producer = &stream->pair.producer;
    uint64_t waits = 0;
    for (uint64_t n = 0; n < stream->messages; n++) {
        struct ring_slot *slot;
        while (!(slot = ring_claim(producer))) {
            ring_publish(producer);
            if (!keep_waiting(stream, &waits))
                return 2;
        }
        fill(slot, n);
        if (n % stream->burst == 0)
            ring_publish(producer);
    }
    ring_publish(producer);
    return 0;
}

static int consume(struct stream *stream)
{
    struct ring_consumer *consumer = &stream->pair.consumer;
    uint64_t waits = 0;
    for (uint64_t n = 0; n < stream->messages; n++) {
        const struct ring_slot *slot;
        while (!(slot = ring_peek(consumer))) {
            ring_commit(consumer);
            if (!keep_waiting(stream, &waits))
                return 2;
        }
        if (!is_message(slot, n))
            return 1;
        ring_next(consumer);
        if (n % stream->burst == 0)
            ring_commit(consumer);
    }
    ring_commit(consumer);
    return ring_peek(consumer) ? 1 : 0;
}

static void *produce_thread(void *stream)
{
    return (void *)(intptr_t)produce(stream);
}

static void *consume_thread(void *stream)
{
    return (void *)(intptr_t)consume(stream);
}

static void run_threads(struct stream *stream)
{
    pthread_t producer, consumer;
    void *status[2];
    pthread_create(&consumer, NULL, consume_thread, stream);
    pthread_create(&producer, NULL, produce_thread, stream);
    pthread_join(producer, &status[0]);
    pthread_join(consumer, &status[1]);
    CU_ASSERT_PTR_NULL(status[0]);
    CU_ASSERT_PTR_NULL(status[1]);
}

static pid_t start(struct stream *stream, int cpu, int (*end)(struct stream *))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (cpu >= 0)
            (void)cpu_pin(cpu);
        _exit(end(stream));
    }
    return pid;
}

/* Looks on from outside while they run: what it sees must make sense at any moment. */
static void run_processes(struct stream *stream)
{
    struct ring_positions now = {0};
    uint64_t before = 0;
    unsigned int wrong = 0;
    int running = 2;
    pid_t pids[] = {start(stream, unit_cpu(1) < 0 ? -1 : unit_cpu(0), consume),
                    start(stream, unit_cpu(1), produce)};
    while (running > 0) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid > 0) {
            CU_ASSERT(pid == pids[0] || pid == pids[1]);
            CU_ASSERT_EQUAL(status, 0);
            running--;
            continue;
        }
        wrong += ring_positions(&stream->pair.region, &now) < 0 || now.consumed < before ||
                 now.published < now.consumed ||
                 now.published - now.consumed > (uint64_t)stream->pair.producer.mask + 1;
        before = now.consumed;
        sched_yield();
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

static void pass(uint32_t depth, uint64_t burst, uint64_t messages)
{
    struct stream stream = {
        .messages = unit_threads() ? messages / 100 : messages,
        .burst = burst,
        .deadline = unit_seconds() + 60,
    };
    struct ring_positions positions;
    make(&stream.pair, depth, UINT64_MAX - 5);
    if (unit_threads())
        run_threads(&stream);
    else
        run_processes(&stream);
    CU_ASSERT_EQUAL(ring_positions(&stream.pair.region, &positions), 0);
    CU_ASSERT_EQUAL(positions.published, stream.messages);
    CU_ASSERT_EQUAL(positions.consumed, stream.messages);
    region_close(&stream.pair.region);
}

static void test_stream(void)
{
    pass(1024, 1, 10000000);
}

static void test_stream_bursts(void)
{
    pass(1024, 32, 2000000);
    pass(16, 1, 2000000);
    pass(16, 16, 2000000);
}

static void test_stream_shallow(void)
{
    pass(2, 1, 500000);
    pass(2, 2, 500000);
}

int main(void)
{
    CU_TestInfo edges[] = {
        {"geometry at creation", test_geometry},
        {"geometry at attach", test_geometry_attached},
        {"empty", test_empty},
        {"full", test_full},
        {"slot, byte by byte", test_layout},
        {"abandon", test_abandon},
        {"bursts", test_bursts},
        {"corrupted", test_corrupted},
        {"parking", test_parking},
        CU_TEST_INFO_NULL,
    };
    CU_TestInfo recovery[] = {
        {"both ends attach again", test_reattach},
        {"where a stage goes on", test_resume},
        {"killed at every step, twice", test_killed_at_every_step},
        CU_TEST_INFO_NULL,
    };
    CU_TestInfo streams[] = {
        {"depth 1024, ten million", test_stream},
        {"depth 1024 and 16, bursts", test_stream_bursts},
        {"depth 2", test_stream_shallow},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {
        {.pName = "ring: edges", .pTests = edges},
        {.pName = "ring: recovery", .pTests = recovery},
        {.pName = "ring: two processes", .pTests = streams},
        CU_SUITE_INFO_NULL,
    };
    return unit_run(suites);
}
