/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/watch.h"
#include "tests/unit.h"

#include <math.h>

struct fixture {
    struct region cells_region;
    struct cells *cells;
    struct view view;
    struct runfile runfile;
    struct watch_figures figures;
    struct page page;
};

static struct fixture made;

static void make_cell(uint32_t index, const char *name, int cpu)
{
    struct cell *cell = &made.cells->cell[index];

    snprintf(cell->name, sizeof(cell->name), "%s", name);
    store_relaxed(&cell->used, 1);
    store_relaxed(&cell->cpu, cpu);
    store_relaxed(&cell->generation, 1);
    store_relaxed(&cell->state, (uint32_t)CELL_RUNNING);
    made.figures.now.lazy[index].regime_ticks[REGIME_WORK] = 10 + index;
    made.figures.now.lazy[index].regime_ticks[REGIME_IDLE] = 90 - index;
}

static void make(uint32_t workers)
{
    const struct region_place place = {.numa_node = -1};
    static const char *const names[] = {"kernel",        "rx_got",      "rx_put",     "worker_got",
                                        "worker_parsed", "worker_done", "worker_put", "tx_got",
                                        "tx_sent",       "tx_complete"};

    memset(&made, 0, sizeof(made));
    CU_ASSERT_EQUAL_FATAL(cells_create(&made.cells_region, 1, &place), 0);
    made.cells = cells_of(&made.cells_region);
    made.view = (struct view){.cells = made.cells, .workers = workers, .hz = 1e9};
    made.runfile = (struct runfile){.name = "isolated", .pid = 4194304, .run_directory = "runs/x"};
    made.figures.runfile = &made.runfile;
    made.figures.view = &made.view;
    made.figures.seconds = 1;
    make_cell(CELL_RX, "rx", 1);
    make_cell(CELL_TX, "tx", 2);
    make_cell(CELL_TRACER, "tracer", 0);
    for (uint32_t i = 0; i < workers; i++) {
        char name[16];
        snprintf(name, sizeof(name), "worker%u", i);
        make_cell(CELL_WORKER + i, name, 3 + (int)i);
        made.figures.to_worker[i] = (struct view_ring){65536, i};
        made.figures.to_tx[i] = (struct view_ring){65536, 0};
    }
    made.figures.spans = 10;
    for (uint32_t i = 0; i < 10; i++)
        made.figures.span[i] = (struct latency_figures){.from = names[i == 9 ? 0 : i],
                                                        .to = names[i == 9 ? 9 : i + 1],
                                                        .kind = i == 9 ? "" : "work",
                                                        .p50 = NAN,
                                                        .p99 = NAN};
}

static void end(void)
{
    region_close(&made.cells_region);
}

static uint32_t width(const char *line)
{
    uint32_t count = 0;

    for (; *line; line++)
        count += ((uint8_t)*line & 0xc0) != 0x80;
    return count;
}

static const char *line_with(const char *text)
{
    for (uint32_t i = 0; i < made.page.count; i++) {
        if (strstr(made.page.line[i], text))
            return made.page.line[i];
    }
    return NULL;
}

static void check_size(uint32_t rows, uint32_t columns)
{
    CU_ASSERT(made.page.count <= rows);
    for (uint32_t i = 0; i < made.page.count; i++) {
        if (width(made.page.line[i]) > columns)
            printf("[%s] ", made.page.line[i]);
        CU_ASSERT(width(made.page.line[i]) <= columns);
    }
}

/* Every number of workers there can be, with figures as small and as large as they get. */
static void test_fits(void)
{
    for (uint32_t workers = 1; workers <= CELL_WORKERS_MAX; workers++) {
        for (int utf8 = 0; utf8 < 2; utf8++) {
            make(workers);
            page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, utf8);
            check_size(PAGE_ROWS, PAGE_COLUMNS);
            made.figures.now.issued = 9999999999;
            made.figures.now.completed = 4999999999;
            made.figures.now.dropped = 4000000000;
            made.figures.now.discarded = 9999999999;
            made.figures.socket_drops = 9999999;
            for (uint32_t i = 0; i < workers; i++)
                made.figures.to_worker[i].used = made.figures.to_tx[i].used = 65536;
            for (uint32_t i = 0; i < CELL_MAX; i++) {
                struct cell_gaps *gaps = &made.figures.now.lazy[i].gaps;
                gaps->count = gaps->bucket[95] = 99999;
                gaps->total_ticks = 1000000000;
                gaps->max_ticks = 999999999;
            }
            for (uint32_t i = 0; i < 10; i++) {
                made.figures.span[i].count = 99999999;
                made.figures.span[i].p50 = made.figures.span[i].p99 = 999999999;
                made.figures.span[i].max = 99999999999;
            }
            page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, utf8);
            check_size(PAGE_ROWS, PAGE_COLUMNS);
            CU_ASSERT_PTR_NOT_NULL(line_with("100.0%"));
            CU_ASSERT(workers < 16 || line_with("all 1,048,576/1,048,576"));
            page_make(&made.page, &made.figures, 100, 120, utf8);
            check_size(100, 120);
            end();
        }
    }
}

static void test_workers(void)
{
    make(16);
    made.figures.to_worker[5].used = 40000;
    page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, false);
    /* The busiest for all, the fullest for all. */
    CU_ASSERT_PTR_NOT_NULL(line_with("worker15 "));
    CU_ASSERT_PTR_NULL(line_with("worker0 "));
    CU_ASSERT_PTR_NOT_NULL_FATAL(line_with("+15 more    mean"));
    CU_ASSERT_PTR_NOT_NULL(strstr(line_with("+15 more    mean"), "15 running"));
    CU_ASSERT_PTR_NOT_NULL_FATAL(line_with("to_worker.5"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(line_with("to_worker.5"),
               "40,000/65,536  #####...  61.0%  +15 more, all 40,115/1,048,576"));
    store_relaxed(&made.cells->cell[CELL_WORKER + 3].state, (uint32_t)CELL_DEAD);
    page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, false);
    CU_ASSERT_PTR_NOT_NULL(strstr(line_with("+15 more    mean"), "14 running"));
    /* With rows enough, each. */
    page_make(&made.page, &made.figures, 80, PAGE_COLUMNS, false);
    CU_ASSERT_PTR_NULL(line_with("+15 more"));
    CU_ASSERT_PTR_NOT_NULL(line_with("worker0 "));
    CU_ASSERT_PTR_NOT_NULL(line_with("to_tx.15"));
    end();
}

static void test_counts(void)
{
    make(1);
    made.figures.before.issued = 1000000;
    made.figures.now.issued = 1020294;
    made.figures.now.completed = 1020000;
    made.figures.now.dropped = 4;
    made.figures.seconds = 2;
    store_relaxed(&made.cells->cell[CELL_WORKER].generation, 3);
    page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(line_with("received"));
    CU_ASSERT_STRING_EQUAL(line_with("received"),
                           "received      10,147/s     1,020,294    dropped.ring            2/s    "
                           "        4");
    CU_ASSERT_PTR_NOT_NULL(line_with("in flight 290, restarts 2"));
    CU_ASSERT_PTR_NULL(line_with("not seen"));
    made.figures.socket_drops = -1;
    page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, false);
    CU_ASSERT_PTR_NOT_NULL(line_with("not seen"));
    end();
}

static void test_spans(void)
{
    make(1);
    made.figures.span[0] = (struct latency_figures){.from = "kernel",
                                                    .to = "rx_got",
                                                    .kind = "wait",
                                                    .count = 1234,
                                                    .p50 = 9999.4,
                                                    .p99 = NAN,
                                                    .max = 12345678};
    made.figures.span[1].count = 1;
    made.figures.span[1].max = -1500;
    page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(line_with("kernel..rx_got"));
    CU_ASSERT_STRING_EQUAL(line_with("kernel..rx_got"),
                           "kernel..rx_got              wait       1,234      9.999          -     "
                           "12,346");
    CU_ASSERT_PTR_NOT_NULL(strstr(line_with("rx_got..rx_put"), " -1.500"));
    CU_ASSERT_PTR_NOT_NULL_FATAL(line_with("through"));
    end();
}

/* A name cannot move the cursor; the end of a long path is what is shown. */
static void test_names(void)
{
    make(1);
    snprintf(made.runfile.name, sizeof(made.runfile.name), "a\033[2J\nb");
    snprintf(made.runfile.run_directory, sizeof(made.runfile.run_directory),
             "/a/very/long/path/that/does/not/fit/into/the/line/runs/é-20261121T032200Z");
    page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, true);
    CU_ASSERT_PTR_NOT_NULL(strstr(made.page.line[0], "tickline a?[2J?b "));
    CU_ASSERT_PTR_NOT_NULL(strstr(made.page.line[0], "é-20261121T032200Z  q ends"));
    CU_ASSERT_EQUAL(width(made.page.line[0]), PAGE_COLUMNS);
    page_make(&made.page, &made.figures, PAGE_ROWS, PAGE_COLUMNS, false);
    CU_ASSERT_PTR_NOT_NULL(strstr(made.page.line[0], "..."));
    for (const char *c = made.page.line[0]; *c; c++)
        CU_ASSERT((uint8_t)*c >= 0x20 && (uint8_t)*c < 0x7f);
    for (uint32_t columns = 1; columns < 100; columns += 7) {
        page_make(&made.page, &made.figures, 5, columns, true);
        check_size(PAGE_ROWS, columns);
    }
    end();
}

int main(void)
{
    static CU_TestInfo page[] = {
        {"fits 80x24", test_fits}, {"many workers", test_workers}, {"counts", test_counts},
        {"spans", test_spans},     {"names", test_names},          CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {
        {"page", NULL, NULL, NULL, NULL, page},
        CU_SUITE_INFO_NULL,
    };

    return unit_run(suites);
}
