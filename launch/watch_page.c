/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/watch.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TEXT_BYTES = 32, BAR_BYTES = 160, SECTIONS_ROWS = 9, WIDE_BAR = 40, NARROW_BAR = 8 };

/* ---- text ---- */

struct text {
    char s[TEXT_BYTES];
};

static uint32_t characters(const char *s)
{
    uint32_t count = 0;

    for (; *s; s++)
        count += ((uint8_t)*s & 0xc0) != 0x80;
    return count;
}

/* Names come from outside: nothing in them may move the cursor, and no line may wrap. */
static void tame(char *s, uint32_t columns, bool utf8)
{
    for (char *c = s; *c; c++) {
        if ((uint8_t)*c < 0x20 || *c == 0x7f || (!utf8 && (uint8_t)*c >= 0x80))
            *c = '?';
    }
    for (uint32_t seen = 0; *s; s++) {
        seen += ((uint8_t)*s & 0xc0) != 0x80;
        if (seen > columns)
            *s-- = '\0';
    }
}

__attribute__((format(printf, 3, 4))) static void put(struct page *page, enum page_style style,
                                                      const char *format, ...)
{
    va_list arguments;

    if (page->count == PAGE_LINES_MAX)
        return;
    char *line = page->line[page->count];
    va_start(arguments, format);
    vsnprintf(line, PAGE_LINE_BYTES, format, arguments);
    va_end(arguments);
    tame(line, page->columns, page->utf8);
    for (size_t end = strlen(line); end > 0 && line[end - 1] == ' '; end--)
        line[end - 1] = '\0';
    page->style[page->count++] = style;
}

/* 1,234,567 */
static struct text grouped(uint64_t value)
{
    struct text digits;
    struct text out;
    size_t at = 0;

    int length = snprintf(digits.s, sizeof(digits.s), "%" PRIu64, value);
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out.s[at++] = ',';
        out.s[at++] = digits.s[i];
    }
    out.s[at] = '\0';
    return out;
}

/* Microseconds, with the ns where they matter. */
static struct text us(double ns)
{
    struct text out = {"-"};
    double figure = fabs(ns) / 1000;
    const char *sign = ns < 0 ? "-" : "";

    if (isnan(ns))
        return out;
    if (figure < 10) {
        snprintf(out.s, sizeof(out.s), "%s%.3f", sign, figure);
    } else if (figure < 1e4) {
        uint64_t hundredths = (uint64_t)llround(figure * 100);
        snprintf(out.s, sizeof(out.s), "%s%.12s.%02u", sign, grouped(hundredths / 100).s,
                 (unsigned)(hundredths % 100));
    } else {
        snprintf(out.s, sizeof(out.s), "%s%.24s", sign, grouped((uint64_t)llround(figure)).s);
    }
    return out;
}

static struct text per_second(uint64_t before, uint64_t now, double seconds)
{
    struct text out = {"0/s"};

    if (now > before && seconds > 0)
        snprintf(out.s, sizeof(out.s), "%.24s/s",
                 grouped((uint64_t)llround((double)(now - before) / seconds)).s);
    return out;
}

static struct text duration(int64_t seconds)
{
    struct text out;

    seconds = seconds < 0 ? 0 : seconds;
    if (seconds < 86400)
        snprintf(out.s, sizeof(out.s), "%d:%02d:%02d", (int)(seconds / 3600),
                 (int)(seconds / 60 % 60), (int)(seconds % 60));
    else
        snprintf(out.s, sizeof(out.s), "%d d %d h", (int)(seconds / 86400),
                 (int)(seconds / 3600 % 24));
    return out;
}

static void bar(char out[BAR_BYTES], uint64_t used, uint64_t depth, uint32_t width, bool utf8)
{
    static const char *const eighth[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    uint32_t eighths = depth ? (uint32_t)(used * 8 * width / depth) : 0;
    size_t at = 0;

    /* A single message is seen, too. */
    eighths = used && !eighths ? 1 : eighths > 8 * width ? 8 * width : eighths;
    for (uint32_t i = 0; i < width; i++) {
        uint32_t here = eighths > 8 * i ? eighths - 8 * i : 0;
        const char *cell = here >= 8 ? "█" : here ? eighth[here] : "░";
        if (!utf8)
            cell = here ? "#" : ".";
        at += (size_t)snprintf(out + at, BAR_BYTES - at, "%s", cell);
    }
}

/* ---- title and counts ---- */

static void put_title(struct page *page, const struct watch_figures *figures)
{
    const struct runfile *runfile = figures->runfile;
    const char *ellipsis = page->utf8 ? "…" : "...";
    const char *directory = runfile->run_directory;
    char left[160];

    snprintf(left, sizeof(left), "tickline %s  pid %d  up %s  ", runfile->name, runfile->pid,
             duration(time(NULL) - runfile->started).s);
    uint32_t taken = characters(left) + (uint32_t)strlen("  q ends");
    uint32_t room = page->columns > taken + 4 ? page->columns - taken : 4;
    uint32_t length = characters(directory);
    if (length <= room)
        ellipsis = "";
    /* The end of the path tells runs apart. */
    for (uint32_t cut = length > room ? length - room + characters(ellipsis) : 0; cut > 0; cut--) {
        do
            directory++;
        while (((uint8_t)*directory & 0xc0) == 0x80);
    }
    put(page, PAGE_TITLE, "%s%s%s  q ends", left, ellipsis, directory);
}

static uint32_t restarts(const struct view *view)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < CELL_MAX; i++) {
        uint32_t generation = load_relaxed(&view->cells->cell[i].generation);
        sum += generation > 1 ? generation - 1 : 0;
    }
    return sum;
}

static void put_counts(struct page *page, const struct watch_figures *figures)
{
    static const char row[] = "%-10s %11s %13s    %-15s %11s %12s";
    const struct view_sample *before = &figures->before;
    const struct view_sample *now = &figures->now;
    bool seen = figures->socket_drops >= 0 && figures->socket_drops_before >= 0;
    uint64_t socket_before = seen ? (uint64_t)figures->socket_drops_before : 0;
    uint64_t socket_now = seen ? (uint64_t)figures->socket_drops : 0;
    double s = figures->seconds;
    char left[64];

    put(page, now->dropped > before->dropped ? PAGE_BAD : PAGE_PLAIN, row, "received",
        per_second(before->issued, now->issued, s).s, grouped(now->issued).s, "dropped.ring",
        per_second(before->dropped, now->dropped, s).s, grouped(now->dropped).s);
    put(page, socket_now > socket_before ? PAGE_BAD : PAGE_PLAIN, row, "completed",
        per_second(before->completed, now->completed, s).s, grouped(now->completed).s,
        "dropped.socket", seen ? per_second(socket_before, socket_now, s).s : "-",
        seen ? grouped(socket_now).s : "not seen");
    snprintf(left, sizeof(left), "in flight %.20s, restarts %u",
             grouped(now->issued - now->completed - now->dropped).s, restarts(figures->view));
    put(page, now->discarded > before->discarded ? PAGE_WARN : PAGE_PLAIN,
        "%-36s    %-15s %11s %12s", left, "trace discards",
        per_second(before->discarded, now->discarded, s).s, grouped(now->discarded).s);
}

/* ---- stages ---- */

static enum page_style style_of(enum cell_state state)
{
    if (state == CELL_RUNNING)
        return PAGE_PLAIN;
    return state == CELL_FAILED || state == CELL_DEAD ? PAGE_BAD : PAGE_WARN;
}

static void put_stage_row(struct page *page, enum page_style style, const char *name,
                          const char *cpu, const char *state, uint32_t generation,
                          const double share[REGIME_COUNT])
{
    put(page, style, "%-11s %4s  %-11s %4u %8.1f%% %8.1f%% %8.1f%% %12.1f%%", name, cpu, state,
        generation, 100 * share[REGIME_WORK], 100 * share[REGIME_IDLE], 100 * share[REGIME_BLOCKED],
        100 * share[REGIME_HOUSEKEEPING]);
}

static void put_stage(struct page *page, const struct watch_figures *figures, uint32_t index)
{
    const struct cell *cell = &figures->view->cells->cell[index];
    double share[REGIME_COUNT];
    struct text cpu;

    if (!load_relaxed(&cell->used))
        return;
    (void)view_regimes(&figures->before.lazy[index], &figures->now.lazy[index], share);
    snprintf(cpu.s, sizeof(cpu.s), "%d", load_relaxed(&cell->cpu));
    enum cell_state state = cell_state(cell);
    put_stage_row(page, style_of(state), cell_name(cell).s, cpu.s, cell_state_name(state),
                  load_relaxed(&cell->generation), share);
}

static double busy(const struct watch_figures *figures, uint32_t worker)
{
    double share[REGIME_COUNT];
    uint32_t index = CELL_WORKER + worker;

    (void)view_regimes(&figures->before.lazy[index], &figures->now.lazy[index], share);
    return share[REGIME_WORK] + share[REGIME_BLOCKED];
}

/* All workers but one, by their means. */
static void put_other_workers(struct page *page, const struct watch_figures *figures, uint32_t but)
{
    uint32_t others = figures->view->workers - 1;
    double mean[REGIME_COUNT] = {0};
    enum page_style style = PAGE_PLAIN;
    uint32_t generation = 0;
    uint32_t running = 0;
    struct text name;
    struct text state;

    for (uint32_t i = 0; i <= others; i++) {
        const struct cell *cell = &figures->view->cells->cell[CELL_WORKER + i];
        double share[REGIME_COUNT];
        if (i == but)
            continue;
        (void)view_regimes(&figures->before.lazy[CELL_WORKER + i],
                           &figures->now.lazy[CELL_WORKER + i], share);
        for (int r = 0; r < REGIME_COUNT; r++)
            mean[r] += share[r] / others;
        uint32_t its = load_relaxed(&cell->generation);
        generation = its > generation ? its : generation;
        enum page_style its_style = style_of(cell_state(cell));
        style = its_style > style ? its_style : style;
        running += cell_state(cell) == CELL_RUNNING;
    }
    snprintf(name.s, sizeof(name.s), "+%u more", others);
    snprintf(state.s, sizeof(state.s), "%u running", running);
    put_stage_row(page, style, name.s, "mean", state.s, generation, mean);
}

static void put_stages(struct page *page, const struct watch_figures *figures, bool condensed)
{
    uint32_t workers = figures->view->workers;
    uint32_t worst = 0;

    put(page, PAGE_HEADING, "%-11s %4s  %-11s %4s %9s %9s %9s %13s", "stage", "cpu", "state", "gen",
        "work", "idle", "blocked", "housekeeping");
    put_stage(page, figures, CELL_RX);
    for (uint32_t i = 1; i < workers && condensed; i++)
        worst = busy(figures, i) > busy(figures, worst) ? i : worst;
    for (uint32_t i = condensed ? worst : 0; i < (condensed ? worst + 1 : workers); i++)
        put_stage(page, figures, CELL_WORKER + i);
    if (condensed)
        put_other_workers(page, figures, worst);
    put_stage(page, figures, CELL_TX);
    put_stage(page, figures, CELL_TRACER);
}

/* ---- noise ---- */

struct noise {
    int cpu;
    uint64_t count;
    uint64_t ticks;
    double max_ns; /* exact where it is the longest ever, else the lower end of its bucket */
};

static void add_noise(struct noise *noise, const struct cell_gaps *before,
                      const struct cell_gaps *now, double hz)
{
    double longest = 0;

    noise->count += now->count - before->count;
    noise->ticks += now->total_ticks - before->total_ticks;
    for (uint32_t i = 0; i < CELL_GAP_BUCKETS; i++) {
        if (now->bucket[i] > before->bucket[i])
            longest = (double)cell_gap_low_ns(i);
    }
    if (now->max_ticks > before->max_ticks)
        longest = (double)now->max_ticks * 1e9 / hz;
    noise->max_ns = longest > noise->max_ns ? longest : noise->max_ns;
}

/* By CPU, the noisiest first; returns how many. */
static uint32_t noise_by_cpu(const struct watch_figures *figures, struct noise noise[CELL_MAX])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < CELL_MAX; i++) {
        const struct cell *cell = &figures->view->cells->cell[i];
        int cpu = load_relaxed(&cell->cpu);
        uint32_t at = 0;
        if (!load_relaxed(&cell->used))
            continue;
        while (at < count && noise[at].cpu != cpu)
            at++;
        if (at == count)
            noise[count++] = (struct noise){.cpu = cpu};
        add_noise(&noise[at], &figures->before.lazy[i].gaps, &figures->now.lazy[i].gaps,
                  figures->view->hz);
    }
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t k = i; k > 0 && noise[k].ticks > noise[k - 1].ticks; k--) {
            struct noise other = noise[k];
            noise[k] = noise[k - 1];
            noise[k - 1] = other;
        }
    }
    return count;
}

static void put_noise(struct page *page, const struct watch_figures *figures)
{
    struct noise noise[CELL_MAX];
    char line[PAGE_LINE_BYTES] = "noise";
    uint32_t count = noise_by_cpu(figures, noise);
    double whole = figures->seconds * figures->view->hz;

    for (uint32_t i = 0; i < count; i++) {
        char item[96];
        snprintf(item, sizeof(item), "  cpu %d: %s gaps %.2f%% max %s %s", noise[i].cpu,
                 grouped(noise[i].count).s, 100 * (double)noise[i].ticks / whole,
                 us(noise[i].max_ns).s, page->utf8 ? "µs" : "us");
        size_t used = strlen(line);
        uint32_t reserve = i + 1 < count ? 10 : 0;
        if (i > 0 && characters(line) + characters(item) + reserve > page->columns) {
            snprintf(line + used, sizeof(line) - used, "  +%u more", count - i);
            break;
        }
        snprintf(line + used, sizeof(line) - used, "%s", item);
    }
    put(page, PAGE_PLAIN, "%s", line);
}

/* ---- rings ---- */

static enum page_style ring_style(uint64_t used, uint64_t depth)
{
    return used * 10 >= depth * 9 ? PAGE_BAD : used * 2 >= depth ? PAGE_WARN : PAGE_GOOD;
}

static void put_ring(struct page *page, const char *kind, uint32_t number,
                     const struct view_ring *ring, const char *rest)
{
    uint64_t used = ring->used;
    uint64_t depth = ring->depth;
    char drawn[BAR_BYTES];
    char name[32];
    char fill[72];

    bar(drawn, used, depth, rest ? NARROW_BAR : WIDE_BAR, page->utf8);
    snprintf(name, sizeof(name), "%s.%u", kind, number);
    snprintf(fill, sizeof(fill), "%s/%s", grouped(used).s, grouped(depth).s);
    put(page, ring_style(used, depth), "%-12s %13s  %s %5.1f%%%s", name, fill, drawn,
        depth ? 100 * (double)used / (double)depth : 0, rest ? rest : "");
}

static void put_rings(struct page *page, const char *kind, const struct view_ring *ring,
                      uint32_t count, bool condensed)
{
    uint32_t fullest = 0;
    struct view_ring sum = {0};
    char rest[96];

    for (uint32_t i = 0; i < count; i++) {
        sum.used += ring[i].used;
        sum.depth += ring[i].depth;
        fullest = ring[i].used > ring[fullest].used ? i : fullest;
        if (!condensed)
            put_ring(page, kind, i, &ring[i], NULL);
    }
    if (!condensed)
        return;
    snprintf(rest, sizeof(rest), "  +%u more, all %s/%s", count - 1, grouped(sum.used).s,
             grouped(sum.depth).s);
    put_ring(page, kind, fullest, &ring[fullest], rest);
}

/* ---- spans ---- */

static void put_spans(struct page *page, const struct watch_figures *figures)
{
    char title[64];

    snprintf(title, sizeof(title), "span, last %.2f s", figures->seconds);
    put(page, PAGE_HEADING, "%-27s %4s %11s %10s %10s %10s %s", title, "", "n", "p50", "p99", "max",
        page->utf8 ? "µs" : "us");
    for (uint32_t i = 0; i < figures->spans; i++) {
        const struct latency_figures *span = &figures->span[i];
        bool through = span->kind[0] == '\0';
        char name[64];
        snprintf(name, sizeof(name), "%s..%s", span->from, span->to);
        put(page,
            through                           ? PAGE_HEADING
            : strcmp(span->kind, "wait") == 0 ? PAGE_WAIT
                                              : PAGE_WORK,
            "%-27s %4s %11s %10s %10s %10s", through ? "through" : name, span->kind,
            grouped(span->count).s, us(span->p50).s, us(span->p99).s,
            span->count ? us(span->max).s : "-");
    }
}

/* ---- the page ---- */

/* An empty line, where there is room for it. */
static void part(struct page *page, uint32_t *spare)
{
    if (*spare == 0)
        return;
    --*spare;
    put(page, PAGE_PLAIN, " ");
}

void page_make(struct page *page, const struct watch_figures *figures, uint32_t rows,
               uint32_t columns, bool utf8)
{
    uint32_t workers = figures->view->workers;
    /* Title, counts, heading, rx, tx, tracer, noise; then the spans and their heading. */
    uint32_t fixed = SECTIONS_ROWS + figures->spans + 1;
    bool condensed = workers > 1 && fixed + 3 * workers > rows;
    uint32_t needed = fixed + (condensed ? 4 : 3 * workers);
    uint32_t spare = rows > needed ? rows - needed : 0;

    page->count = 0;
    page->columns = columns;
    page->utf8 = utf8;
    put_title(page, figures);
    put_counts(page, figures);
    part(page, &spare);
    put_stages(page, figures, condensed);
    put_noise(page, figures);
    part(page, &spare);
    put_rings(page, "to_worker", figures->to_worker, workers, condensed);
    put_rings(page, "to_tx", figures->to_tx, workers, condensed);
    part(page, &spare);
    put_spans(page, figures);
}
