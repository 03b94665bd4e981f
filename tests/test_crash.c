/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What survives a kill: each role of the shared memory, in a real child that is killed at each crash
 * point it passes, and a successor that finishes (crash/campaign.h). The real code, compiled with
 * crash points.
 */
#include "shm/crash.h"
#include "tests/crash/campaign.h"

/* ---- TICKLINE_CRASH ---- */

struct choice {
    const char *text;
    const char *process;
    unsigned int generation;
    int status; /* exit status, or - signal */
};

static int pass_five_times(void *argument)
{
    const struct choice *choice = argument;

    setenv("TICKLINE_CRASH", choice->text, 1);
    crash_process(choice->process, choice->generation);
    for (int i = 0; i < 5; i++) {
        crash_point("ring:claimed");
        crash_point("ring:peeked");
    }
    return 0;
}

static void test_environment(void)
{
    static struct choice choices[] = {
        {"ring:claimed:5", "tx", 1, -SIGKILL},   {"ring:claimed:6", "tx", 1, 0},
        {"tx/ring:peeked:1", "tx", 1, -SIGKILL}, {"tx/ring:peeked:1", "worker0", 1, 0},
        {"tx/ring:peeked:1", "tx", 2, 0},        {"cell:copied:1", "tx", 1, 0},
        {"tx/ring:claimd:1", "tx", 1, 2},        {"ring:claimed", "tx", 1, 2},
        {"ring:claimed:0", "tx", 1, 2},          {"", "tx", 1, 2},
    };
    char text[256];

    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        int status = unit_child(pass_five_times, &choices[i], text, sizeof(text));
        CU_ASSERT_EQUAL(WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status),
                        choices[i].status);
        CU_ASSERT_EQUAL(strstr(text, ": expected [PROCESS/]LABEL:N") != NULL,
                        choices[i].status == 2);
    }
}

/* ---- roles ---- */

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
    campaign(&crash_worker_undo);
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
        {"TICKLINE_CRASH", test_environment},
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
