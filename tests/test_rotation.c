/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/lane.h"
#include "stage/cpu.h"
#include "stage/rotation.h"
#include "tests/unit.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/utsname.h>

enum { STAGES_MAX = 5, ROUNDS_MAX = 20000, ROUNDS_AFTER = 4000 };

/* Processes that do nothing but take turns, forked in an order that differs with `turn`. */
struct fixture {
    struct cells *cells;
    struct wait_plan plan;
    pid_t pid[STAGES_MAX];
};

static _Noreturn void take_turns(struct cell *cell)
{
    uint32_t seen = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        if (!rotation_obey(cell, &seen))
            wait_yield(cell);
    }
}

static void make(struct fixture *made, uint32_t count, uint32_t turn)
{
    *made = (struct fixture){.plan = {.rotation_count = count}};
    made->cells = mmap(NULL, sizeof(*made->cells), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CU_ASSERT_PTR_NOT_EQUAL_FATAL(made->cells, MAP_FAILED);
    for (uint32_t i = 0; i < count; i++)
        made->plan.rotation[i] = (uint8_t)i;
    for (uint32_t k = 1; k < count; k++) {
        uint32_t i = 1 + (k + turn) % (count - 1);
        made->pid[i] = fork();
        if (made->pid[i] == 0)
            take_turns(&made->cells->cell[i]);
        for (int yield = 0; yield < 50; yield++)
            sched_yield();
    }
}

static void unmake(struct fixture *made)
{
    for (uint32_t i = 1; i < made->plan.rotation_count; i++) {
        kill(made->pid[i], SIGKILL);
        waitpid(made->pid[i], NULL, 0);
    }
    munmap(made->cells, sizeof(*made->cells));
}

/* Rounds until the verdict is `right`, or ROUNDS_MAX. */
static uint32_t rounds_until_right(struct fixture *made, struct rotation *rotation)
{
    uint32_t place;

    for (uint32_t round = 0; round < ROUNDS_MAX; round++) {
        uint64_t began = tsc_read();
        wait_yield(&made->cells->cell[0]);
        if (rotation_vote(rotation, &made->plan, made->cells, began, &place) == ROTATION_RIGHT)
            return round;
    }
    return ROUNDS_MAX;
}

/* Share of rounds in which everybody had a turn in order, with nothing mended meanwhile. */
static double share_right(struct fixture *made)
{
    uint32_t right = 0;

    for (uint32_t round = 0; round < ROUNDS_AFTER; round++) {
        uint64_t last = tsc_read();
        bool ordered = true;
        wait_yield(&made->cells->cell[0]);
        for (uint32_t i = 1; i < made->plan.rotation_count; i++) {
            uint64_t resumed = load_relaxed(&made->cells->cell[i].resumed);
            ordered = ordered && position_diff(resumed, last) > 0;
            last = resumed;
        }
        right += ordered;
    }
    return (double)right / ROUNDS_AFTER;
}

/* Slices of one's own came with Linux 6.12. */
static bool kernel_has_slices(void)
{
    struct utsname uts;
    int major = 0;
    int minor = 0;

    return uname(&uts) == 0 && sscanf(uts.release, "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 12));
}

static void test_settles(void)
{
    cpu_set_t before;

    if (!kernel_has_slices()) {
        UNIT_SKIP("slices of one's own: needs Linux 6.12");
        return;
    }
    sched_getaffinity(0, sizeof(before), &before);
    int cpu = sched_getcpu();
    CU_ASSERT_EQUAL_FATAL(cpu_pin(cpu), 0);
    for (uint32_t count = 3; count <= 4; count++) {
        for (uint32_t turn = 0; turn < 6; turn++) {
            struct fixture made;
            struct rotation rotation = {
                .stale_ticks = UINT64_MAX / 4, .rest_ticks = 1000000, .random = turn};
            make(&made, count, turn);
            CU_ASSERT(rounds_until_right(&made, &rotation) < ROUNDS_MAX);
            /* A task of somebody else's may disturb it, but not for most of the time. */
            CU_ASSERT(share_right(&made) > 0.5);
            unmake(&made);
        }
    }
    sched_setaffinity(0, sizeof(before), &before);
}

/* A stage that never has a turn is parked: it neither counts as wrong nor is asked to move. */
static void test_parked(void)
{
    struct fixture made = {.plan = {.rotation_count = 2, .rotation = {0, 1}}};
    struct rotation rotation = {.stale_ticks = 1000, .rest_ticks = 1000000};
    uint32_t place;

    made.cells =
        mmap(NULL, sizeof(*made.cells), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_PTR_NOT_EQUAL_FATAL(made.cells, MAP_FAILED);
    store_relaxed(&made.cells->cell[1].resumed, tsc_read() - 1000000);
    for (int round = 0; round < 1000; round++)
        CU_ASSERT_EQUAL_FATAL(rotation_vote(&rotation, &made.plan, made.cells, tsc_read(), &place),
                              ROTATION_OPEN);
    CU_ASSERT_EQUAL(load_relaxed(&made.cells->cell[1].move_asked), 0);
    munmap(made.cells, sizeof(*made.cells));
}

/* Who had no turn is asked to move at most so often, then there is a rest. */
static void test_rests(void)
{
    struct fixture made = {.plan = {.rotation_count = 3, .rotation = {0, 1, 2}}};
    struct rotation rotation = {.stale_ticks = UINT64_MAX / 4, .rest_ticks = UINT64_MAX / 4};
    uint32_t place = 0;
    uint32_t wrong = 0;

    made.cells =
        mmap(NULL, sizeof(*made.cells), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_PTR_NOT_EQUAL_FATAL(made.cells, MAP_FAILED);
    store_relaxed(&made.cells->cell[1].resumed, tsc_read());
    store_relaxed(&made.cells->cell[2].resumed, tsc_read());
    for (int round = 0; round < 10000; round++)
        wrong +=
            rotation_vote(&rotation, &made.plan, made.cells, tsc_read(), &place) == ROTATION_WRONG;
    CU_ASSERT_EQUAL(place, 3);
    CU_ASSERT(wrong > 9 && wrong < 100);
    CU_ASSERT_EQUAL((load_relaxed(&made.cells->cell[1].move_asked) >> 8) +
                        (load_relaxed(&made.cells->cell[2].move_asked) >> 8),
                    wrong);
    munmap(made.cells, sizeof(*made.cells));
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"settles from any order", test_settles},
        {"who is parked does not count", test_parked},
        {"rests after many tries", test_rests},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "rotation", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
