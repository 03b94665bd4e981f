/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What survives a kill: each role of the shared memory, in a real child that is killed at each crash
 * point it passes, and a successor that finishes (crash/campaign.h). The real code, compiled with
 * crash points.
 */
#include "tests/crash/campaign.h"

static void test_producer(void)
{
    campaign(&crash_producer);
}

static void test_consumer(void)
{
    campaign(&crash_consumer);
}

static void test_stage(void)
{
    campaign(&crash_stage);
}

static void test_worker(void)
{
    campaign(&crash_worker);
}

static void test_cell(void)
{
    campaign(&crash_cell);
}

static void test_lane(void)
{
    campaign(&crash_lane);
}

static void test_plain(void)
{
    campaign(&crash_plain);
}

static void test_drainer(void)
{
    campaign(&crash_drainer);
}

static void test_plain_drainer(void)
{
    campaign(&crash_plain_drainer);
}

static void test_all_labels(void)
{
    const char *missed = campaign_missed();

    if (missed)
        printf("nobody was killed at %s ", missed);
    CU_ASSERT_PTR_NULL(missed);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"ring, producer", test_producer},
        {"ring, consumer", test_consumer},
        {"a stage with parts", test_stage},
        {"worker", test_worker},
        {"cell", test_cell},
        {"lane", test_lane},
        {"plain lane, to its file", test_plain},
        {"tracer, a trace lane", test_drainer},
        {"tracer, a plain lane", test_plain_drainer},
        {"no label was left out", test_all_labels},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "crash", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
