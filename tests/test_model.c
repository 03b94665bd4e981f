/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery, exhaustively: the real rings, compiled with crash points; all interleavings of rx,
 * workers and tx, all kills of each of them at each point (model/roles.h says what they do and what is
 * checked).
 *
 * Bounds: 2 to 5 inputs, rings of 2 and 4 slots; one worker with 2 kills an execution (5 inputs: 1),
 * two workers with 1. About 14 million states, 15 seconds.
 */
#include "shm/crash.h"
#include "tests/model/roles.h"
#include "tests/unit.h"

#ifdef __SANITIZE_ADDRESS__
enum { LARGE = 0 }; /* with the sanitizers the largest is left out */
#else
enum { LARGE = 1 };
#endif

static struct explore_result result;

static void explore_this(const struct setup *setup)
{
    explore_pipeline(setup, &result);
    printf("\n    %-5s workers %u, depth %u, burst %u, %s, full: %s, kills %u: %9llu states, "
           "%9llu steps, %8llu kills, %5llu ends%s%s ",
           setup->inputs, setup->workers, setup->depth, setup->burst,
           setup->together ? "together" : "one by one", setup->drop ? "drop" : "wait", setup->kills,
           (unsigned long long)result.states, (unsigned long long)result.steps,
           (unsigned long long)result.kills, (unsigned long long)result.executions,
           result.violation ? ": " : "", result.violation ? result.violation : "");
    fflush(stdout);
}

static void holds(const struct setup *setup)
{
    explore_this(setup);
    CU_ASSERT_PTR_NULL(result.violation);
    if (result.violation)
        printf("\n%s", result.path);
    CU_ASSERT(result.executions > 0);
    CU_ASSERT(setup->kills == 0 || result.kills > 0);
}

static void test_one_worker(void)
{
    static const struct setup setups[] = {
        {.inputs = "12rf", .workers = 1, .depth = 2, .burst = 1, .drop = true, .kills = 2},
        {.inputs = "13r", .workers = 1, .depth = 2, .burst = 2, .kills = 2},
        {.inputs = "12f", .workers = 1, .depth = 4, .burst = 2, .together = true, .kills = 2},
        {.inputs = "1rf21", .workers = 1, .depth = 2, .burst = 2, .drop = true, .kills = 1},
    };

    for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++)
        holds(&setups[i]);
}

static void test_two_workers(void)
{
    static const struct setup setups[] = {
        {.inputs = "12", .workers = 2, .depth = 2, .burst = 1, .kills = 1},
        {.inputs = "1rf", .workers = 2, .depth = 2, .burst = 1, .drop = true, .kills = 1},
    };

    for (size_t i = 0; i < 1 + LARGE; i++)
        holds(&setups[i]);
}

/* The explorer's short cuts leave out no way to an end. */
static void test_short_cuts(void)
{
    static const struct setup setups[] = {
        {.inputs = "2r", .workers = 1, .depth = 2, .burst = 2, .drop = true, .kills = 1},
        {.inputs = "111", .workers = 1, .depth = 2, .burst = 1, .kills = 1},
        {.inputs = "11", .workers = 2, .depth = 2, .burst = 1, .kills = 0},
    };

    for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++) {
        struct setup slow = setups[i];
        slow.no_short_cuts = true;
        holds(&slow);
        uint64_t ends = result.executions;
        uint64_t states = result.states;
        holds(&setups[i]);
        CU_ASSERT_EQUAL(result.executions, ends);
        CU_ASSERT(result.states < states);
    }
}

/* With a rule broken, the explorer must find out: else the tests above say nothing. */
static void test_broken_rules(void)
{
    static const struct {
        enum broken_rule rule;
        const char *violation;
        bool without_kills;
    } broken[] = {
        {RESUMES_FROM_TAIL, "a part came out twice", false},
        {CLAIMS_A_LAP, "an input was lost", false},
        {COMMITS_FIRST, "an input was lost", false},
        {COUNTS_LATE, "outcomes are not the position of the ring", false},
        {IGNORES_COUNTED, "what was counted was sent again", false},
        {ISSUES_LATE, "not every input has a number", false},
        {NEVER_REDOES, "an input was lost", false},
        {ASKS_LATE, "an input was lost", true},
    };

    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct setup setup = {.inputs = "22",
                              .workers = 1,
                              .depth = 2,
                              .burst = 2,
                              .together = broken[i].rule == CLAIMS_A_LAP,
                              .kills = 1,
                              .broken = broken[i].rule};
        explore_this(&setup);
        CU_ASSERT_PTR_NOT_NULL_FATAL(result.violation);
        CU_ASSERT_STRING_EQUAL(result.violation, broken[i].violation);
        setup.kills = 0;
        explore_this(&setup);
        CU_ASSERT_EQUAL(result.violation != NULL, broken[i].without_kills);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"broken rules are found out", test_broken_rules},
        {"short cuts leave nothing out", test_short_cuts},
        {"one worker", test_one_worker},
        {"two workers", test_two_workers},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "model", .pTests = tests}, CU_SUITE_INFO_NULL};

    crash_hook = explore_yield;
    return unit_run(suites);
}
