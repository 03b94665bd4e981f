/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/watch.h"

#include "stage/clock.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <ncurses.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Ten short readings a second hold up nobody on our CPU for long, and lose little of a short lane.
 */
enum { LOOK_MS = 100, FIRST_DRAW_MS = 300, DRAW_MS = 1000, NICE = 5 };

struct watch {
    struct runfile runfile;
    struct view view;
    struct latency *latency;
    struct watch_figures figures;
    struct page page;
    SCREEN *screen; /* NULL: no terminal */
    int signals;    /* signalfd */
    int launcher;   /* pidfd */
    int keys;       /* stdin, -1: none */
    uint64_t drawn_ms;
    int signalled;
    bool utf8;
    bool quit;
    bool ended; /* the run has */
};

static uint64_t now_ms(void)
{
    return clock_monotonic_ns() / 1000000;
}

/* ---- which run ---- */

struct search {
    const char *name;
    struct runfile found;
    uint32_t count;
    char names[256];
};

static void look_for(struct runfile *runfile, void *context)
{
    struct search *search = context;
    size_t used = strlen(search->names);

    if (!runfile->alive)
        return;
    snprintf(search->names + used, sizeof(search->names) - used, "%s%s", used ? ", " : "",
             runfile->name);
    if (search->name && strcmp(search->name, runfile->name) != 0)
        return;
    search->found = *runfile;
    search->count++;
}

/* The exit status. */
static int find_run(const char *name, struct runfile *runfile)
{
    struct search search = {.name = name};

    int seen = runfile_each(look_for, &search);
    if (seen < 0) {
        fprintf(stderr, "tickline: run files: %s\n", strerror(-seen));
        return 1;
    }
    *runfile = search.found;
    if (search.count == 1)
        return 0;
    if (!search.names[0])
        fputs("tickline: no run to watch; start one, for example: ./launch.sh "
              "configs/isolated.ini --serve\n",
              stderr);
    else if (search.count == 0)
        fprintf(stderr, "tickline: %s: no such run; expected %s\n", name, search.names);
    else
        fprintf(stderr, "tickline: several runs; name one of %s: tickline status --watch NAME\n",
                search.names);
    return 2;
}

struct leftover {
    const char *path;
    bool found;
};

static void look_for_leftover(struct runfile *runfile, void *context)
{
    struct leftover *leftover = context;

    if (!runfile->alive && strcmp(runfile->path, leftover->path) == 0)
        leftover->found = true;
}

/* A run that ends removes its file; a killed one cannot. */
static bool was_killed(const struct runfile *runfile)
{
    struct leftover leftover = {.path = runfile->path};

    return runfile_each(look_for_leftover, &leftover) > 0 && leftover.found;
}

/* ---- our own place ---- */

/* The CPUs allowed to us without those of the stages; of the tracer too, where that leaves any. */
static bool free_cpus(const struct view *view, bool tracer_too, cpu_set_t *set)
{
    if (sched_getaffinity(0, sizeof(*set), set) < 0)
        return false;
    for (uint32_t i = 0; i < CELL_MAX; i++) {
        const struct cell *cell = &view->cells->cell[i];
        int cpu = load_relaxed(&cell->cpu);
        if (load_relaxed(&cell->used) && cpu >= 0 && cpu < CPU_SETSIZE &&
            (tracer_too || i != CELL_TRACER))
            CPU_CLR((unsigned)cpu, set);
    }
    return CPU_COUNT(set) > 0;
}

/* Where every CPU is a stage's we stay where we are. */
static void step_aside(const struct view *view)
{
    cpu_set_t set;

    if (free_cpus(view, true, &set) || free_cpus(view, false, &set))
        (void)sched_setaffinity(0, sizeof(set), &set);
    (void)setpriority(PRIO_PROCESS, 0, NICE);
}

/* ---- terminal ---- */

static void start_colours(void)
{
    static const short colour[PAGE_STYLE_COUNT] = {
        [PAGE_GOOD] = COLOR_GREEN,  [PAGE_WARN] = COLOR_YELLOW, [PAGE_BAD] = COLOR_RED,
        [PAGE_WAIT] = COLOR_YELLOW, [PAGE_WORK] = COLOR_CYAN,
    };
    const char *none = getenv("NO_COLOR");

    if ((none && none[0]) || !has_colors() || start_color() == ERR)
        return;
    short back = use_default_colors() == OK ? -1 : COLOR_BLACK;
    for (int i = 0; i < PAGE_STYLE_COUNT; i++) {
        if (colour[i])
            init_pair((short)i, colour[i], back);
    }
}

/* Without a terminal, or with one that cannot move its cursor, there is no screen. */
static void open_screen(struct watch *watch)
{
    if (!isatty(STDOUT_FILENO) || !getenv("TERM"))
        return;
    watch->screen = newterm(NULL, stdout, stdin);
    if (!watch->screen)
        return;
    if (!tigetstr("cup")) {
        endwin();
        delscreen(watch->screen);
        watch->screen = NULL;
        return;
    }
    cbreak();
    noecho();
    nodelay(stdscr, TRUE);
    (void)curs_set(0);
    start_colours();
    watch->keys = STDIN_FILENO;
}

static void close_screen(struct watch *watch)
{
    if (!watch->screen)
        return;
    endwin();
    delscreen(watch->screen);
    watch->screen = NULL;
}

static attr_t attribute_of(enum page_style style)
{
    if (style == PAGE_TITLE)
        return A_REVERSE;
    if (style == PAGE_HEADING)
        return A_BOLD;
    return (style == PAGE_BAD ? A_BOLD : A_NORMAL) | (attr_t)COLOR_PAIR(style);
}

static void draw_screen(const struct page *page)
{
    erase();
    for (uint32_t i = 0; i < page->count && (int)i < LINES; i++) {
        attrset((int)attribute_of(page->style[i]));
        mvaddstr((int)i, 0, page->line[i]);
    }
    refresh();
}

static void print_block(const struct page *page)
{
    for (uint32_t i = 0; i < page->count; i++)
        puts(page->line[i]);
    putchar('\n');
    fflush(stdout);
}

static void draw(struct watch *watch)
{
    bool screen = watch->screen;

    page_make(&watch->page, &watch->figures, screen ? (uint32_t)LINES : PAGE_LINES_MAX,
              screen ? (uint32_t)COLS : PAGE_COLUMNS, watch->utf8);
    if (screen)
        draw_screen(&watch->page);
    else
        print_block(&watch->page);
}

static void resize(struct watch *watch)
{
    struct winsize size;

    if (!watch->screen || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_row ||
        !size.ws_col)
        return;
    resizeterm(size.ws_row, size.ws_col);
    draw(watch);
}

/* ---- looking ---- */

static void look_at_rings(struct view_ring *most, const struct region *region, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct view_ring ring = view_ring(&region[i]);
        if (ring.used >= most[i].used)
            most[i] = ring;
    }
}

static void look(struct watch *watch)
{
    struct view *view = &watch->view;

    latency_read(watch->latency, tsc_read());
    look_at_rings(watch->figures.to_worker, view->to_worker, view->workers);
    look_at_rings(watch->figures.to_tx, view->to_tx, view->workers);
}

/* A successor that counts from nought has nothing before this interval. */
static void forget_predecessors(struct watch_figures *figures)
{
    for (uint32_t i = 0; i < CELL_MAX; i++) {
        if (figures->now.lazy[i].turns < figures->before.lazy[i].turns)
            figures->before.lazy[i] = (struct cell_lazy){0};
    }
}

/* Closes the interval, shows it, and begins the next. */
static void show(struct watch *watch)
{
    struct watch_figures *figures = &watch->figures;
    uint64_t now = now_ms();

    figures->seconds = (double)(now - watch->drawn_ms) / 1000;
    view_sample(&watch->view, &figures->now);
    forget_predecessors(figures);
    figures->socket_drops = view_socket_drops(&watch->view);
    figures->spans = latency_take(watch->latency, figures->span);
    draw(watch);
    figures->before = figures->now;
    figures->socket_drops_before = figures->socket_drops;
    memset(figures->to_worker, 0, sizeof(figures->to_worker));
    memset(figures->to_tx, 0, sizeof(figures->to_tx));
    watch->drawn_ms = now;
}

static void take_signal(struct watch *watch)
{
    struct signalfd_siginfo info;

    if (read(watch->signals, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH)
        resize(watch);
    else
        watch->signalled = (int)info.ssi_signo;
}

static void take_keys(struct watch *watch)
{
    int key = getch();

    /* Readable, and yet nothing there: its end. */
    if (key == ERR)
        watch->keys = -1;
    for (; key != ERR; key = getch())
        watch->quit = watch->quit || key == 'q' || key == 'Q';
}

static void wait_for_events(struct watch *watch, uint64_t until_ms)
{
    struct pollfd fds[] = {
        {.fd = watch->signals, .events = POLLIN},
        {.fd = watch->launcher, .events = POLLIN},
        {.fd = watch->keys, .events = POLLIN},
    };
    uint64_t now = now_ms();

    if (poll(fds, sizeof(fds) / sizeof(fds[0]), until_ms > now ? (int)(until_ms - now) : 0) <= 0)
        return;
    if (fds[0].revents)
        take_signal(watch);
    if (fds[1].revents)
        watch->ended = true;
    if (fds[2].revents)
        take_keys(watch);
}

static void live(struct watch *watch)
{
    uint64_t next_look = now_ms() + LOOK_MS;
    uint64_t next_show = now_ms() + FIRST_DRAW_MS;

    while (!watch->quit && !watch->signalled && !watch->ended) {
        wait_for_events(watch, next_look);
        uint64_t now = now_ms();
        if (now < next_look || watch->ended)
            continue;
        look(watch);
        next_look = now + LOOK_MS;
        if (now < next_show)
            continue;
        show(watch);
        next_show = now + DRAW_MS;
    }
}

/* ---- life ---- */

/* Blocked, so that a signal meets the terminal at no other place than take_signal. */
static int open_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaddset(&set, numbers[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int open_watch(struct watch *watch)
{
    watch->signals = open_signals();
    int err = watch->signals < 0 ? -errno : view_open(&watch->view, watch->runfile.socket, true);
    if (err < 0)
        return err;
    step_aside(&watch->view);
    watch->launcher = (int)syscall(SYS_pidfd_open, watch->view.launcher, 0);
    if (watch->launcher < 0)
        return -errno;
    err = latency_open(&watch->latency, &watch->view.arena, watch->view.hz, tsc_read());
    if (err < 0)
        return err;
    watch->figures.runfile = &watch->runfile;
    watch->figures.view = &watch->view;
    view_sample(&watch->view, &watch->figures.before);
    watch->figures.now = watch->figures.before;
    watch->figures.socket_drops_before = view_socket_drops(&watch->view);
    watch->drawn_ms = now_ms();
    return 0;
}

static int finish(struct watch *watch)
{
    const struct runfile *runfile = &watch->runfile;

    if (watch->signalled)
        return 128 + watch->signalled;
    if (!watch->ended)
        return 0;
    if (was_killed(runfile)) {
        fprintf(stderr, "run %s (%s) was killed; `tickline salvage` saves its trace\n",
                runfile->name, runfile->run_directory);
        return 1;
    }
    fprintf(stderr, "run %s has ended: %s\n", runfile->name, runfile->run_directory);
    return 0;
}

static void close_watch(struct watch *watch)
{
    if (watch->latency)
        latency_close(watch->latency);
    view_close(&watch->view);
    if (watch->launcher >= 0)
        close(watch->launcher);
    if (watch->signals >= 0)
        close(watch->signals);
}

int watch_run(const char *name)
{
    static struct watch watch = {.signals = -1, .launcher = -1, .keys = -1};

    setlocale(LC_ALL, "");
    setlocale(LC_NUMERIC, "C");
    watch.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    int status = find_run(name, &watch.runfile);
    if (status)
        return status;
    int err = open_watch(&watch);
    if (err == -EAGAIN)
        fprintf(stderr, "tickline: run %s (pid %d) does not answer; it starts or ends\n",
                watch.runfile.name, watch.runfile.pid);
    else if (err < 0)
        fprintf(stderr, "tickline: run %s (pid %d) cannot be seen: %s\n", watch.runfile.name,
                watch.runfile.pid, strerror(-err));
    if (err < 0) {
        close_watch(&watch);
        return 1;
    }
    open_screen(&watch);
    live(&watch);
    close_screen(&watch);
    status = finish(&watch);
    close_watch(&watch);
    return status;
}
