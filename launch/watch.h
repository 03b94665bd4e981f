/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tickline status --watch`: one run, looked at once a second. watch.c is its life (which run, the
 * terminal, signals), watch_page.c what stands on the screen.
 */
#ifndef TICKLINE_LAUNCH_WATCH_H
#define TICKLINE_LAUNCH_WATCH_H

#include "launch/latency.h"
#include "launch/runfile.h"
#include "launch/view.h"

/*
 * Shows the run called `name` (NULL: the only one) until q, a signal or its end: a screen on a
 * terminal, else a block of lines a second. The exit status: 0, 1 where the run was killed, 2 where
 * there is no such run, 128+n.
 */
int watch_run(const char *name);

/* ---- the page ---- */

/* The figures of one refresh. */
struct watch_figures {
    const struct runfile *runfile;
    const struct view *view;
    struct view_sample before;
    struct view_sample now;
    double seconds; /* between the two */
    int64_t socket_drops_before;
    int64_t socket_drops;                         /* -1: not to be seen */
    struct view_ring to_worker[CELL_WORKERS_MAX]; /* the fullest that each was seen in that time */
    struct view_ring to_tx[CELL_WORKERS_MAX];
    uint32_t spans;
    struct latency_figures span[LATENCY_SPANS_MAX];
};

enum { PAGE_COLUMNS = 80, PAGE_ROWS = 24, PAGE_LINES_MAX = 96, PAGE_LINE_BYTES = 400 };

enum page_style {
    PAGE_PLAIN,
    PAGE_TITLE,
    PAGE_HEADING,
    PAGE_GOOD,
    PAGE_WARN,
    PAGE_BAD,
    PAGE_WAIT,
    PAGE_WORK,
    PAGE_STYLE_COUNT,
};

struct page {
    uint32_t count;
    enum page_style style[PAGE_LINES_MAX];
    char line[PAGE_LINES_MAX][PAGE_LINE_BYTES]; /* at most `columns` characters each */
    uint32_t columns;
    bool utf8;
};

/* The page for so many rows and columns; with `utf8` in more than ASCII. Where the workers do not
 * fit, the busiest one and the fullest rings stand for them; below 24 rows it is longer than the
 * screen. */
void page_make(struct page *page, const struct watch_figures *figures, uint32_t rows,
               uint32_t columns, bool utf8);

#endif
