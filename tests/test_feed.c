/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/feed.h"
#include "tests/unit.h"

#include <string.h>

static struct feeds feeds;
static uint64_t number;

static void note(uint32_t session, uint64_t first, uint32_t messages)
{
    feed_note(&feeds, &(struct feed_datagram){++number, first, messages, 7, session, 0x8003});
}

static struct feed_figures figures(void)
{
    struct feed_figures figures = {0};
    CU_ASSERT(feed_read(&feeds, 0, &figures));
    return figures;
}

static void begin(void)
{
    memset(&feeds, 0, sizeof(feeds));
    number = 0;
}

/* What the figures are after all of that: messages, gaps, missing, repeated, resets, next. */
static void check(uint64_t messages, uint64_t gaps, uint64_t missing, uint64_t repeated,
                  uint64_t resets, uint64_t next)
{
    struct feed_figures now = figures();
    CU_ASSERT_EQUAL(now.messages, messages);
    CU_ASSERT_EQUAL(now.gaps, gaps);
    CU_ASSERT_EQUAL(now.missing, missing);
    CU_ASSERT_EQUAL(now.repeated, repeated);
    CU_ASSERT_EQUAL(now.resets, resets);
    CU_ASSERT_EQUAL(now.next, next);
}

static void test_in_order(void)
{
    begin();
    note(1, 100, 0); /* a heartbeat says what comes next */
    note(1, 100, 3);
    note(1, 103, 0);
    note(1, 103, 2);
    check(5, 0, 0, 0, 0, 105);
    CU_ASSERT_EQUAL(figures().began, 100);
    CU_ASSERT_EQUAL(figures().channel, 7);
    CU_ASSERT_EQUAL(figures().protocol, 0x8003);
}

static void test_gaps(void)
{
    begin();
    note(1, 100, 3);
    note(1, 110, 1); /* 103 … 109 */
    note(1, 121, 0); /* 111 … 120, told by a heartbeat */
    note(1, 121, 1);
    check(5, 2, 17, 0, 0, 122);
}

static void test_repeats(void)
{
    begin();
    note(1, 100, 3);
    note(1, 100, 3); /* the other line */
    note(1, 103, 2);
    note(1, 104, 3); /* half of it */
    note(1, 103, 0); /* an old heartbeat */
    check(11, 0, 0, 4, 0, 107);
    note(1, 110, 1);
    note(1, 107, 3); /* late: missing at first, repeated then */
    check(15, 1, 3, 7, 0, 111);
}

static void test_resets(void)
{
    begin();
    note(1, 100, 3);
    note(2, 1, 1); /* another session */
    note(2, 2, 5);
    check(9, 0, 0, 0, 1, 7);
    note(2, 1, 2); /* from its beginning again */
    note(2, 3, 1);
    check(12, 0, 0, 0, 2, 4);
    note(1, 103, 1);
    check(13, 0, 0, 0, 3, 104);
}

/* After a kill the same datagram may be noted again. */
static void test_once(void)
{
    begin();
    note(1, 100, 3);
    note(1, 110, 1);
    number--;
    note(1, 110, 1);
    check(4, 1, 7, 0, 0, 111);
    /* Killed in the middle: what was being written does not hold. */
    feeds.feed[0].figures[(feeds.feed[0].version + 1) % 2].missing = 999;
    check(4, 1, 7, 0, 0, 111);
    note(1, 111, 1);
    check(5, 1, 7, 0, 0, 112);
}

/* A channel each, and who finds no place is counted all the same. */
static void test_many(void)
{
    struct feed_figures now;
    begin();
    for (uint32_t i = 0; i < FEEDS_MAX + 3; i++)
        feed_note(&feeds, &(struct feed_datagram){++number, 10 * i, 2, i, 1, 0x8004});
    for (uint32_t i = 0; i < FEEDS_MAX; i++) {
        CU_ASSERT_FATAL(feed_read(&feeds, i, &now));
        CU_ASSERT(now.channel == i && now.messages == 2 && now.gaps == 0);
    }
    CU_ASSERT_FATAL(feed_read(&feeds, FEEDS_MAX, &now));
    CU_ASSERT(now.messages == 6 && now.gaps == 0 && now.resets == 0);
    begin();
    CU_ASSERT(!feed_read(&feeds, 0, &now));
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"in order", test_in_order}, {"gaps", test_gaps},         {"repeats", test_repeats},
        {"resets", test_resets},     {"counted once", test_once}, {"many channels", test_many},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "feed", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
