/* SPDX-License-Identifier: Apache-2.0 */
/* A cell's owner: its state is always one of the table, its figures always of one moment. */
#include "shm/cell.h"

#include "tests/crash/campaign.h"

enum { COPIES = 12, WORDS = sizeof(struct cell_lazy) / sizeof(uint64_t) };

static const struct region_place anywhere = {.numa_node = -1};
static struct region region;
static struct cell *cell;

static void make(void)
{
    CU_ASSERT_EQUAL_FATAL(cells_create(&region, 1, &anywhere), 0);
    cell = &cells_of(&region)->cell[CELL_RX];
    CU_ASSERT_EQUAL_FATAL(cell_move(cell, CELL_STARTING, CELL_BY_LAUNCHER), 0);
}

static void unmake(void)
{
    region_close(&region);
}

/* All words of a copy say the same number, one more in each. */
static int own(void)
{
    static const enum cell_state way[] = {CELL_OPENING, CELL_READY, CELL_RUNNING, CELL_DRAINING};
    uint64_t words[WORDS];
    struct cell_lazy figures;

    for (size_t i = 0; i < sizeof(way) / sizeof(way[0]); i++) {
        if (cell_move(cell, way[i], CELL_BY_STAGE) < 0)
            return 1;
    }
    (void)cell_read(cell, &figures);
    uint64_t number = figures.heartbeat;
    for (int i = 0; i < COPIES; i++) {
        number++;
        for (size_t k = 0; k < WORDS; k++)
            words[k] = number;
        memcpy(&figures, words, sizeof(words));
        cell_publish(cell, &figures);
    }
    return cell_move(cell, CELL_DONE, CELL_BY_STAGE) < 0 ? 1 : 0;
}

static bool of_one_moment(uint64_t *number)
{
    struct cell_lazy figures;
    uint64_t words[WORDS];

    if (cell_read(cell, &figures) < 0)
        return false;
    memcpy(words, &figures, sizeof(words));
    for (size_t k = 0; k < WORDS; k++)
        CU_ASSERT_EQUAL(words[k], words[0]);
    *number = words[0];
    return true;
}

static void died(void)
{
    uint64_t number;
    bool in_the_copy = load_relaxed(&cell->lazy_sequence) % 2 == 1;

    CU_ASSERT_EQUAL(of_one_moment(&number), !in_the_copy);
    if (cell_state(cell) ==
        CELL_DONE) { /* all was done: nobody starts it again, but for this test */
        store_relaxed(&cell->state, (uint32_t)CELL_DRAINING);
    }
    CU_ASSERT_EQUAL(cell_move(cell, CELL_DEAD, CELL_BY_LAUNCHER), 0);
    CU_ASSERT_EQUAL(cell_move(cell, CELL_STARTING, CELL_BY_LAUNCHER), 0);
}

static void check(void)
{
    uint64_t number = 0;

    CU_ASSERT(of_one_moment(&number));
    CU_ASSERT(number >= 12); /* the last life's own; with what it found there */
    CU_ASSERT_EQUAL(cell_state(cell), CELL_DONE);
}

static const char *const cell_labels[] = {
    "cell:before_move", "cell:after_move", "cell:copy_begun", "cell:copied", "cell:published", NULL,
};

const struct crash_role crash_cell = {
    .name = "cell",
    .labels = cell_labels,
    .first_label = "cell:copied",
    .first_pass = 3,
    .make = make,
    .live = own,
    .died = died,
    .check = check,
    .unmake = unmake,
};
