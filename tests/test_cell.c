/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/cell.h"
#include "tests/unit.h"

#include <errno.h>
#include <pthread.h>

static const struct region_place anywhere = {.numa_node = -1};

static struct cells *make(struct region *region)
{
    CU_ASSERT_EQUAL_FATAL(cells_create(region, 3, &anywhere), 0);
    return cells_of(region);
}

static void test_attach(void)
{
    struct region region, other;
    struct region_mismatch mismatch;
    struct region_want want = cells_want(3), later = cells_want(4);
    struct cells *cells = make(&region);
    CU_ASSERT_EQUAL(cell_state(&cells->cell[CELL_MAX - 1]), CELL_ABSENT);
    CU_ASSERT_EQUAL_FATAL(region_attach(&other, dup(region.fd), &want, true, &mismatch), 0);
    store_relaxed(&cells_of(&other)->cell[CELL_TX].completed, (uint64_t)5);
    CU_ASSERT_EQUAL(load_relaxed(&cells->cell[CELL_TX].completed), 5);
    region_close(&other);
    CU_ASSERT_EQUAL(region_attach(&other, region.fd, &later, true, &mismatch), -EPROTO);
    CU_ASSERT_STRING_EQUAL(mismatch.field, "epoch");
    region_close(&region);
}

/* ---- states ---- */

/* From row to column, in the order of enum cell_state; s: by the stage, l: by the launcher. */
static const char *const moves[CELL_STATE_COUNT] = {
    /* A S O R U D N F X */
    ". l . . . . . . .", /* absent */
    ". . s . . . . s l", /* starting */
    ". . . s . . . s l", /* opening */
    ". . . . s s . s l", /* ready */
    ". . . . . s . s l", /* running */
    ". . . . . . s s l", /* draining */
    ". . . . . . . . .", /* done */
    ". . . . . . . . l", /* failed */
    "l l . . . . . . .", /* dead */
};

static void test_moves(void)
{
    struct region region;
    struct cell *cell = &make(&region)->cell[CELL_RX];
    for (uint32_t from = 0; from < CELL_STATE_COUNT; from++) {
        for (uint32_t to = 0; to < CELL_STATE_COUNT; to++) {
            for (int mover = CELL_BY_STAGE; mover <= CELL_BY_LAUNCHER; mover++) {
                bool allowed = moves[from][2 * to] == (mover == CELL_BY_STAGE ? 's' : 'l');
                store_relaxed(&cell->state, from);
                CU_ASSERT_EQUAL(cell_move(cell, (enum cell_state)to, (enum cell_mover)mover),
                                allowed ? 0 : -EPERM);
                CU_ASSERT_EQUAL(load_relaxed(&cell->state), allowed ? to : from);
            }
        }
    }
    region_close(&region);
}

static void test_names(void)
{
    static const char *const names[] = {"absent",   "starting", "opening", "ready", "running",
                                        "draining", "done",     "failed",  "dead"};
    for (int state = 0; state < CELL_STATE_COUNT; state++)
        CU_ASSERT_STRING_EQUAL(cell_state_name((enum cell_state)state), names[state]);
    CU_ASSERT_STRING_EQUAL(cell_state_name(CELL_STATE_COUNT), "unknown");
    CU_ASSERT_STRING_EQUAL(cell_state_name((enum cell_state) - 1), "unknown");
}

static int child_move(void *cell)
{
    return cell_move(cell, CELL_DEAD, CELL_BY_LAUNCHER);
}

static void test_corrupted(void)
{
    struct region region;
    struct cell *cell = &make(&region)->cell[CELL_RX];
    store_relaxed(&cell->state, 9u);
    unit_dies(child_move, cell, SIGABRT,
              "shared memory is corrupt: stage state: expected 8 (0x8), found 9 (0x9)\n");
    region_close(&region);
}

/* ---- figures ---- */

enum { PUBLISHED = 100000 };

/* All words the same, so that a torn copy shows. */
static void publish(struct cell *cell, uint64_t n)
{
    struct cell_lazy figures;
    uint64_t words[sizeof(figures) / 8] = {0};
    for (size_t i = 0; i < sizeof(words) / 8; i++)
        words[i] = n;
    memcpy(&figures, words, sizeof(figures));
    cell_publish(cell, &figures);
}

static bool is_whole(const struct cell_lazy *figures)
{
    uint64_t words[sizeof(*figures) / 8];
    memcpy(words, figures, sizeof(words));
    for (size_t i = 1; i < sizeof(words) / 8; i++) {
        if (words[i] != words[0])
            return false;
    }
    return true;
}

static void *publish_many(void *cell)
{
    for (uint64_t n = 1; n <= PUBLISHED; n++) {
        publish(cell, n);
        if (n % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void test_figures(void)
{
    struct region region;
    struct cell *cell = &make(&region)->cell[CELL_RX];
    struct cell_lazy figures = {0};
    uint64_t before = 0;
    unsigned int torn = 0, backward = 0;
    pthread_t writer;

    CU_ASSERT_EQUAL(cell_read(cell, &figures), 0); /* before the first: zeros */
    CU_ASSERT_EQUAL(figures.heartbeat, 0);
    pthread_create(&writer, NULL, publish_many, cell);
    while (before != PUBLISHED) {
        if (cell_read(cell, &figures) < 0)
            continue;
        torn += !is_whole(&figures);
        backward += figures.heartbeat < before;
        before = figures.heartbeat;
    }
    pthread_join(writer, NULL);
    CU_ASSERT_EQUAL(torn, 0);
    CU_ASSERT_EQUAL(backward, 0);
    region_close(&region);
}

/* A stage that dies in the copy leaves nothing to be believed, until its successor publishes. */
static void test_figures_of_the_dead(void)
{
    struct region region;
    struct cell *cell = &make(&region)->cell[CELL_RX];
    struct cell_lazy figures;
    publish(cell, 5);
    store_relaxed(&cell->lazy_sequence, load_relaxed(&cell->lazy_sequence) | 1);
    CU_ASSERT_EQUAL(cell_read(cell, &figures), -EAGAIN);
    publish(cell, 6);
    CU_ASSERT_EQUAL(cell_read(cell, &figures), 0);
    CU_ASSERT_EQUAL(figures.heartbeat, 6);
    CU_ASSERT_EQUAL(figures.gaps.bucket[CELL_GAP_BUCKETS - 1], 6);
    region_close(&region);
}

static void test_gap_buckets(void)
{
    static const struct {
        uint64_t ns;
        uint32_t bucket;
        uint64_t low;
    } known[] = {
        {0, 0, 1024},
        {1023, 0, 1024},
        {1024, 0, 1024},
        {1279, 0, 1024},
        {1280, 1, 1280},
        {1536, 2, 1536},
        {1792, 3, 1792},
        {2047, 3, 1792},
        {2048, 4, 2048},
        {10000, 12, 8192},
        {1000000, 39, 917504},
        {1000000000, 79, 939524096},
        {1ULL << 33, 92, 1ULL << 33},
        {1ULL << 34, 95, 15032385536},
        {UINT64_MAX, 95, 15032385536},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        CU_ASSERT_EQUAL(cell_gap_bucket(known[i].ns), known[i].bucket);
        CU_ASSERT_EQUAL(cell_gap_low_ns(known[i].bucket), known[i].low);
    }
    for (uint32_t bucket = 0; bucket < CELL_GAP_BUCKETS - 1; bucket++) {
        CU_ASSERT_EQUAL(cell_gap_bucket(cell_gap_low_ns(bucket)), bucket);
        CU_ASSERT_EQUAL(cell_gap_bucket(cell_gap_low_ns(bucket + 1) - 1), bucket);
    }
}

static void test_counted(void)
{
    struct region region;
    struct cells *cells = make(&region);
    for (uint32_t i = 0; i < OUTCOME_COUNT; i++) {
        store_relaxed(&cells->outcome[3][i], (uint64_t)1 << i);
        store_relaxed(&cells->outcome[4][i], (uint64_t)1000);
    }
    CU_ASSERT_EQUAL(cells_counted(cells, 3), ((uint64_t)1 << OUTCOME_COUNT) - 1);
    CU_ASSERT_EQUAL(cells_counted(cells, 4), 1000 * OUTCOME_COUNT);
    CU_ASSERT_EQUAL(cells_counted(cells, 0), 0);
    region_close(&region);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"attach", test_attach},
        {"every move, allowed and forbidden", test_moves},
        {"names", test_names},
        {"corrupted", test_corrupted},
        {"figures beside a writer", test_figures},
        {"figures of the dead", test_figures_of_the_dead},
        {"gap buckets", test_gap_buckets},
        {"outcomes counted", test_counted},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "cell", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
