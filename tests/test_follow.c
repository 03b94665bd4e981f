/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP connections followed: segments cut, shuffled, repeated, overlapping, lost and wrapped at random, from
 * fixed seeds, against what was said. Every step may be refused or forgotten at any request, as by a
 * full ring or a kill, and every flow is looked for again by a successor now and then.
 */
#include "rx/follow.h"
#include "tests/unit.h"

#include <errno.h>

enum {
    HEADER = 15, /* of a request */
    STREAM_BYTES = 60000,
    SEGMENTS_MAX = 4000,
    REQUESTS_MAX = 8000,
    KEEP = 8192,
    REORDER = 6000,
};

static uint64_t seed;

static uint32_t below(uint32_t bound)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(seed >> 33) % bound;
}

/* ---- what is said: requests of schema v1, numbered from 1 ---- */

static uint8_t said[STREAM_BYTES];
static uint32_t said_bytes;
static uint32_t said_requests;
static uint32_t said_at[REQUESTS_MAX + 1]; /* where request i + 1 begins; behind the last the end */

static void say(void)
{
    said_bytes = said_requests = 0;
    while (said_bytes < STREAM_BYTES - 700 && said_requests < REQUESTS_MAX) {
        uint8_t *at = said + said_bytes;
        uint32_t length = below(20) == 0 ? below(600) : below(40);
        said_at[said_requests++] = said_bytes;
        snprintf((char *)at, HEADER + 1, "|%08u|%04u|", said_requests % 100000000, length % 10000);
        for (uint32_t i = 0; i < length; i++)
            at[HEADER + i] = (uint8_t)below(256);
        said_bytes += HEADER + length;
    }
    said_at[said_requests] = said_bytes;
}

/* ---- what is heard ---- */

struct world {
    struct follow follow;
    struct follow_plan plan;
    struct tap_counts counts;
    struct tap_counts now; /* of the step at hand */
    uint64_t done;
    uint64_t put;   /* requests, by all steps that are done */
    uint64_t tried; /* and by this one so far */
    uint64_t again;
    uint32_t refuse; /* one in so many requests; 0: none */
    uint32_t heard_count;
    uint32_t heard[REQUESTS_MAX];
    bool wrong; /* a request that was not said */
};

static int hear(void *self, const uint8_t *data, const struct frame *frame)
{
    struct world *world = self;
    uint64_t id = frame->id;

    if (world->again) {
        world->again--;
        world->tried++;
        return 0;
    }
    if (world->refuse && below(world->refuse) == 0)
        return -EAGAIN;
    world->tried++;
    if (!frame->well_formed || id == 0 || id > said_requests ||
        frame->length != said_at[id] - said_at[id - 1] ||
        memcmp(data, said + said_at[id - 1], frame->length) != 0)
        world->wrong = true;
    if (world->heard_count < REQUESTS_MAX)
        world->heard[world->heard_count++] = (uint32_t)id;
    return 0;
}

static void begin(struct world *world, uint32_t connections)
{
    memset(world, 0, sizeof(*world));
    world->plan = (struct follow_plan){
        .connections = connections,
        .keep_bytes = KEEP,
        .reorder_bytes = REORDER,
        .schema = SCHEMA_V1,
        .memory = -1,
        .counts = &world->now,
        .put = hear,
        .self = world,
    };
    CU_ASSERT_EQUAL_FATAL(follow_open(&world->follow, &world->plan), 0);
}

/* A successor: another mapping of the region, nothing else of what was. */
static void succeed(struct world *world)
{
    world->plan.memory = dup(world->follow.flows.region.fd);
    world->plan.done = world->done;
    follow_close(&world->follow);
    CU_ASSERT_EQUAL_FATAL(follow_open(&world->follow, &world->plan), 0);
}

/* One step, taken until it is not refused; `segment` NULL: of the end. */
static int step(struct world *world, const struct decoded *segment)
{
    int err;

    do {
        world->now = world->counts;
        world->again = world->tried;
        world->tried = 0;
        follow_begin(&world->follow);
        err = segment ? follow_segment(&world->follow, segment) : follow_flush(&world->follow);
        if (err == -EAGAIN && below(2))
            succeed(world);
        /* Killed after it was written and before it was done. */
        if (err >= 0 && world->refuse && below(world->refuse) == 0) {
            follow_store(&world->follow, world->done + 1);
            succeed(world);
            err = -EAGAIN;
        }
    } while (err == -EAGAIN);
    CU_ASSERT_EQUAL(world->again, 0);
    world->done++;
    follow_store(&world->follow, world->done);
    follow_done(&world->follow);
    world->counts = world->now;
    world->put += world->tried;
    world->tried = 0;
    return err;
}

static void take(struct world *world, const struct decoded *segment)
{
    while (step(world, segment) == REASSEMBLY_AGAIN) {
    }
}

static void finish(struct world *world)
{
    while (step(world, NULL) == REASSEMBLY_AGAIN) {
    }
}

/* ---- segments ---- */

static struct decoded segments[SEGMENTS_MAX];
static uint32_t segment_count;

static void add(uint32_t first, uint32_t begin_at, uint32_t length, uint8_t flags)
{
    if (segment_count == SEGMENTS_MAX)
        return;
    segments[segment_count++] = (struct decoded){
        .data = said + begin_at,
        .length = length,
        .sequence = first + begin_at,
        .flags = flags,
        .ends = {.source = {1}, .destination = {2}, .source_port = 3, .destination_port = 4},
    };
}

/* The stream in order, `first` the number of its first byte; now and then a piece again. */
static void cut(uint32_t first, uint32_t longest, uint32_t repeats)
{
    segment_count = 0;
    add(first - 1, 0, 0, TCP_SYN);
    segments[0].sequence = first - 1;
    for (uint32_t at = 0; at < said_bytes;) {
        uint32_t length = 1 + below(longest);
        length = length < said_bytes - at ? length : said_bytes - at;
        add(first, at, length, 0);
        at += length;
        if (repeats && below(repeats) == 0) {
            uint32_t back = below(at < 3000 ? at : 3000);
            length = 1 + below(back + 1);
            add(first, at - back, length < said_bytes - at + back ? length : back, 0);
        }
    }
    add(first, said_bytes, 0, TCP_FIN);
}

/* Moves each segment (but the SYN) at most `most` places: by insertion, ordered by place + chance. */
static void shuffle(uint32_t most)
{
    static uint32_t key[SEGMENTS_MAX];

    for (uint32_t i = 1; i < segment_count; i++) {
        struct decoded moved = segments[i];
        uint32_t own = i + below(most + 1), at = i;
        for (; at > 1 && key[at - 1] > own; at--) {
            segments[at] = segments[at - 1];
            key[at] = key[at - 1];
        }
        segments[at] = moved;
        key[at] = own;
    }
}

static void check_all_heard(const struct world *world)
{
    CU_ASSERT_FALSE(world->wrong);
    CU_ASSERT_EQUAL(world->heard_count, said_requests);
    for (uint32_t i = 0; i < world->heard_count; i++) {
        if (world->heard[i] != i + 1) {
            CU_ASSERT_EQUAL(world->heard[i], i + 1);
            return;
        }
    }
}

/* ---- tests ---- */

static void run_all(struct world *world)
{
    for (uint32_t i = 0; i < segment_count; i++)
        take(world, &segments[i]);
    finish(world);
}

static void run_whole(uint32_t first, uint32_t longest, uint32_t repeats, uint32_t most,
                      uint32_t refuse)
{
    struct world *world = malloc(sizeof(*world));

    say();
    cut(first, longest, repeats);
    shuffle(most);
    begin(world, 2);
    world->refuse = refuse;
    run_all(world);
    check_all_heard(world);
    CU_ASSERT_EQUAL(world->counts.gaps, 0);
    CU_ASSERT_EQUAL(world->counts.skipped_bytes, 0);
    CU_ASSERT_EQUAL(world->counts.differing_bytes, 0);
    CU_ASSERT_EQUAL(world->counts.segments, segment_count);
    CU_ASSERT_EQUAL(world->counts.flows, 1);
    follow_close(&world->follow);
    free(world);
}

static void test_any_cut(void)
{
    static const uint32_t longest[] = {1, 2, 13, 100, 1460, STREAM_BYTES};

    for (seed = 1; seed < 40; seed++)
        run_whole(below(UINT32_MAX), longest[seed % 6] < 16 ? 40 : longest[seed % 6], 0, 0, 0);
}

static void test_shuffled_and_repeated(void)
{
    for (uint64_t s = 1; s < 150; s++) {
        seed = s * 7919;
        run_whole(below(UINT32_MAX), 400, 4, 8, 0);
    }
}

static void test_wrap(void)
{
    for (uint64_t s = 1; s < 60; s++) {
        seed = s * 104729;
        run_whole(0u - below(STREAM_BYTES), 400, 4, 8, 0);
    }
}

static void test_refused_and_killed(void)
{
    for (uint64_t s = 1; s < 60; s++) {
        seed = s * 15485863;
        run_whole(0u - below(STREAM_BYTES), 400, 4, 8, 10);
    }
}

/* Of segments that never come the account is exact, and what is heard was said, in order, once. */
static void run_lossy(uint32_t refuse)
{
    struct world *world = malloc(sizeof(*world));
    uint64_t missing = 0;
    uint32_t kept = 0;

    say();
    cut(0u - below(STREAM_BYTES), 1000, 0);
    for (uint32_t i = 0; i < segment_count; i++) {
        bool lost = i > 0 && i + 1 < segment_count && below(12) == 0;
        missing += lost ? segments[i].length : 0;
        if (!lost)
            segments[kept++] = segments[i];
    }
    segment_count = kept;
    uint64_t behind = segment_count > 2 ? (uint32_t)(segments[segment_count - 1].sequence -
                                                     segments[segment_count - 2].sequence) -
                                              segments[segment_count - 2].length
                                        : 0;
    shuffle(3);
    begin(world, 2);
    world->refuse = refuse;
    run_all(world);
    CU_ASSERT_FALSE(world->wrong);
    uint64_t heard_bytes = 0;
    for (uint32_t i = 0; i < world->heard_count; i++) {
        uint32_t id = world->heard[i];
        heard_bytes += said_at[id] - said_at[id - 1];
        if (i > 0 && id <= world->heard[i - 1])
            CU_ASSERT(id > world->heard[i - 1]);
    }
    /* Nobody says that something is missing where nothing follows. */
    CU_ASSERT_EQUAL(world->counts.gap_bytes, missing - behind);
    const struct flow *flow = flows_at(&world->follow.flows, 0);
    for (uint32_t i = 1; !flow->open && i < world->follow.flows.count; i++)
        flow = flows_at(&world->follow.flows, i);
    CU_ASSERT_EQUAL(heard_bytes + world->counts.skipped_bytes + world->counts.gap_bytes + behind +
                        (flow->next - flow->begun),
                    said_bytes);
    follow_close(&world->follow);
    free(world);
}

static void test_lossy(void)
{
    for (uint64_t s = 1; s < 150; s++) {
        seed = s * 32452843;
        run_lossy(s % 2 ? 0 : 10);
    }
}

static struct decoded segment_of(uint16_t port, uint32_t sequence, uint8_t flags,
                                 const uint8_t *data, uint32_t length)
{
    return (struct decoded){.data = data,
                            .length = length,
                            .sequence = sequence,
                            .flags = flags,
                            .ends = {.source = {1}, .source_port = port}};
}

static void tell(struct world *world, uint16_t port, uint32_t sequence, uint8_t flags,
                 uint32_t from, uint32_t to)
{
    struct decoded segment =
        segment_of(port, sequence, flags, said + said_at[from], said_at[to] - said_at[from]);

    take(world, &segment);
}

/* The first byte that came counts; that others came for it is counted. */
static void test_first_wins(void)
{
    struct world *world = malloc(sizeof(*world));
    uint8_t other[STREAM_BYTES];

    seed = 5;
    say();
    memcpy(other, said, sizeof(other));
    other[said_at[3] + 5] ^= 0xff;
    begin(world, 2);
    tell(world, 1, 99, TCP_SYN, 0, 0);
    tell(world, 1, 100 + said_at[2], 0, 2, 5); /* held */
    struct decoded lie =
        segment_of(1, 100 + said_at[1], 0, other + said_at[1], said_at[6] - said_at[1]);
    take(world, &lie);
    tell(world, 1, 100, 0, 0, 2);
    CU_ASSERT_FALSE(world->wrong);
    CU_ASSERT_EQUAL(world->heard_count, 6);
    CU_ASSERT_EQUAL(world->counts.differing_bytes, 1);
    CU_ASSERT_EQUAL(world->counts.out_of_order, 2);
    CU_ASSERT_EQUAL(world->counts.retransmitted_bytes,
                    said_at[5] - said_at[2] + said_at[2] - said_at[1]);
    follow_close(&world->follow);
    free(world);
}

/* SYN, FIN and RST, and what comes again of them. */
static void test_life(void)
{
    struct world *world = malloc(sizeof(*world));

    seed = 6;
    say();
    begin(world, 2);
    tell(world, 1, 99, TCP_SYN, 0, 0);
    tell(world, 1, 99, TCP_SYN, 0, 0); /* again */
    tell(world, 1, 100, 0, 0, 1);
    CU_ASSERT_EQUAL(world->counts.flows, 1);
    tell(world, 1, 100 + said_at[1], TCP_FIN, 1, 2);
    CU_ASSERT_EQUAL(world->heard_count, 2);
    tell(world, 1, 100 + said_at[1], TCP_FIN, 1, 2); /* the end again */
    tell(world, 1, 100, 0, 0, 1);
    CU_ASSERT_EQUAL(world->heard_count, 2);
    CU_ASSERT_EQUAL(world->counts.flows, 1);
    tell(world, 1, 99, TCP_SYN, 0, 0); /* the same ends and number: another one */
    tell(world, 1, 100, 0, 0, 1);
    CU_ASSERT_EQUAL(world->heard_count, 3);
    CU_ASSERT_EQUAL(world->counts.flows, 2);
    tell(world, 1, 100 + said_at[2], 0, 2, 3); /* held */
    tell(world, 1, 0, TCP_RST, 0, 0);          /* gives it up */
    CU_ASSERT_EQUAL(world->heard_count, 4);
    CU_ASSERT_EQUAL(world->counts.gaps, 1);
    tell(world, 1, 7000, 0, 4, 5); /* from the middle, at a request */
    CU_ASSERT_EQUAL(world->heard_count, 5);
    tell(world, 1, 0, TCP_RST, 0, 0);
    struct decoded inside = segment_of(1, 7000, 0, said + said_at[4] + 1, 30);
    take(world, &inside); /* from the middle of one */
    CU_ASSERT_EQUAL(world->heard_count, 5);
    CU_ASSERT_EQUAL(world->counts.skipped_bytes, 30);
    tell(world, 1, 7030, 0, 5, 6);
    CU_ASSERT_EQUAL(world->heard_count, 6);
    CU_ASSERT_FALSE(world->wrong);
    follow_close(&world->follow);
    free(world);
}

/* More flows than there is room for: the one longest silent goes, of those that have ended first. */
static void test_room(void)
{
    struct world *world = malloc(sizeof(*world));

    seed = 7;
    say();
    begin(world, 2); /* four flows */
    for (uint16_t port = 1; port <= 4; port++)
        tell(world, port, 99, TCP_SYN, 0, 0);
    tell(world, 1, 100, 0, 0, 1);
    tell(world, 3, 100, TCP_FIN, 0, 1);
    tell(world, 5, 99, TCP_SYN, 0, 0); /* in the place of 3, which has ended */
    CU_ASSERT_EQUAL(world->counts.evicted, 0);
    tell(world, 6, 99, TCP_SYN, 0, 0); /* of 2, silent longest */
    CU_ASSERT_EQUAL(world->counts.evicted, 1);
    tell(world, 1, 100 + said_at[1], 0, 1, 2);
    tell(world, 4, 100, 0, 0, 1);
    tell(world, 5, 100, 0, 0, 1);
    tell(world, 6, 100, 0, 0, 1);
    CU_ASSERT_EQUAL(world->heard_count, 6);
    CU_ASSERT_EQUAL(world->counts.flows, 6);
    succeed(world);
    tell(world, 1, 100 + said_at[2], 0, 2, 3);
    CU_ASSERT_EQUAL(world->heard_count, 7);
    CU_ASSERT_EQUAL(world->counts.evicted, 1);
    CU_ASSERT_FALSE(world->wrong);
    follow_close(&world->follow);
    free(world);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"cut anywhere", test_any_cut},
        {"shuffled, repeated, overlapping", test_shuffled_and_repeated},
        {"sequence numbers that wrap", test_wrap},
        {"steps refused, and killed", test_refused_and_killed},
        {"segments that never come", test_lossy},
        {"the first byte wins", test_first_wins},
        {"SYN, FIN, RST, and what comes again", test_life},
        {"more flows than there is room for", test_room},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{"follow", NULL, NULL, NULL, NULL, tests}, CU_SUITE_INFO_NULL};

    return unit_run(suites);
}
