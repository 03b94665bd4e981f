/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/stage.h"

#include "shm/crash.h"
#include "stage/control.h"
#include "stage/cpu.h"
#include "stage/log.h"
#include "stage/pmu.h"
#include "stage/sandbox.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct stage_descriptor {
    char name[CONTROL_NAME_MAX];
    uint64_t value;
    int fd;
};

static volatile sig_atomic_t told_to_end;

static void on_signal(int number)
{
    (void)number;
    told_to_end = 1;
}

int stage_error(struct stage *stage, int err, const char *format, ...)
{
    va_list arguments;

    /* The first is the cause, what follows are its effects. */
    if (stage->error[0])
        return err;
    va_start(arguments, format);
    vsnprintf(stage->error, sizeof(stage->error), format, arguments);
    va_end(arguments);
    stage->error_code = err;
    return err;
}

/* ---- start ---- */

static const struct option options[] = {
    {"name", required_argument, NULL, 'n'},
    {"cell", required_argument, NULL, 'i'},
    {"worker", required_argument, NULL, 'w'},
    {"control", required_argument, NULL, 'c'},
    {"cpu", required_argument, NULL, 'p'},
    {"upstream-cpu", required_argument, NULL, 'u'},
    {"wait", required_argument, NULL, 'k'},
    {"park-after", required_argument, NULL, 'a'},
    {"rotation", required_argument, NULL, 'r'},
    {"hz", required_argument, NULL, 'z'},
    {"user", required_argument, NULL, 's'}, /* UID:GID, or empty */
    {NULL, 0, NULL, 0},
};

static void parse_rotation(struct wait_plan *plan, const char *text)
{
    char *end;

    for (; *text && plan->rotation_count < CELL_MAX; text = *end == ',' ? end + 1 : end) {
        unsigned long cell = strtoul(text, &end, 10);
        if (end == text || cell >= CELL_MAX)
            return;
        plan->rotation[plan->rotation_count++] = (uint8_t)cell;
    }
}

/* Written by the launcher, not by a person; --control is what tells the two apart. */
static int parse_arguments(struct stage *stage, int argc, char **argv)
{
    int option;

    stage->control = -1;
    stage->uid = stage->gid = -1;
    opterr = 0;
    optind = 0; /* also where getopt was in use before */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'n':
            strncpy(stage->name, optarg, sizeof(stage->name) - 1);
            break;
        case 'i':
            stage->cell_index = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'w':
            stage->worker = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'c':
            stage->control = (int)strtol(optarg, NULL, 10);
            break;
        case 'p':
            stage->cpu = (int)strtol(optarg, NULL, 10);
            break;
        case 'u':
            stage->upstream_cpu = (int)strtol(optarg, NULL, 10);
            break;
        case 'k':
            stage->wait.kind = strcmp(optarg, "spin") == 0    ? WAIT_BY_SPIN
                               : strcmp(optarg, "yield") == 0 ? WAIT_BY_YIELD
                                                              : WAIT_BY_PARK;
            break;
        case 'a':
            stage->wait.park_after_ns = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            parse_rotation(&stage->wait, optarg);
            break;
        case 'z':
            stage->clock = clock_from_hz(strtod(optarg, NULL));
            break;
        case 's':
            if (sscanf(optarg, "%" SCNd64 ":%" SCNd64, &stage->uid, &stage->gid) != 2)
                stage->uid = -1;
            break;
        default:
            return -EINVAL;
        }
    }
    stage->upstream_near = stage->upstream_cpu == stage->cpu;
    return stage->control >= 0 && stage->cell_index < CELL_MAX && stage->clock.hz > 0 ? 0 : -EINVAL;
}

static int receive_descriptors(struct stage *stage)
{
    struct control_message message;
    int fd;

    for (;;) {
        int err = control_receive(stage->control, &message, &fd, 1);
        if (err < 0)
            return err;
        if (message.type == CONTROL_START) {
            stage->epoch = message.value;
            return 0;
        }
        if (message.type != CONTROL_GIVE || fd < 0)
            return -EPROTO;
        struct stage_descriptor *grown =
            realloc(stage->descriptors, (stage->descriptor_count + 1) * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        stage->descriptors = grown;
        struct stage_descriptor *place = &grown[stage->descriptor_count++];
        *place = (struct stage_descriptor){.value = message.value, .fd = fd};
        memcpy(place->name, message.name, CONTROL_NAME_MAX);
    }
}

static void give(struct stage *stage, const char *name, uint64_t value, int fd)
{
    if (!stage->ops->given || !stage->ops->given(stage, name, value, fd))
        close(fd);
}

/* What a predecessor was given while it ran. */
static void give_again(struct stage *stage)
{
    for (uint32_t i = 0; i < stage->descriptor_count; i++) {
        const struct stage_descriptor *descriptor = &stage->descriptors[i];
        if (descriptor->value)
            give(stage, descriptor->name, descriptor->value, descriptor->fd);
    }
}

bool stage_receive(struct stage *stage)
{
    struct control_message message;
    int fd;
    int err;

    while ((err = control_receive(stage->control, &message, &fd, 0)) == 0) {
        if (fd >= 0)
            give(stage, message.name, message.value, fd);
    }
    return err != -ECONNRESET;
}

int stage_descriptor(const struct stage *stage, const char *name)
{
    for (uint32_t i = 0; i < stage->descriptor_count; i++) {
        if (strcmp(stage->descriptors[i].name, name) == 0)
            return stage->descriptors[i].fd;
    }
    return -ENOENT;
}

static int mismatch_error(struct stage *stage, const char *name,
                          const struct region_mismatch *mismatch)
{
    return stage_error(stage, -EPROTO, "%s: %s: expected %#llx, found %#llx", name, mismatch->field,
                       (unsigned long long)mismatch->expected, (unsigned long long)mismatch->found);
}

int stage_attach(struct stage *stage, struct region *region, const char *name,
                 const struct region_want *want, bool writable)
{
    struct region_mismatch mismatch = {0};
    int fd = stage_descriptor(stage, name);

    if (fd < 0)
        return stage_error(stage, fd, "the launcher gave no %s", name);
    int err = region_attach(region, fd, want, writable, &mismatch);
    if (err == -EPROTO)
        return mismatch_error(stage, name, &mismatch);
    if (err < 0)
        return stage_error(stage, err, "%s: %s", name, strerror(-err));
    return 0;
}

static int attach_ring(struct stage *stage, struct region *region, const char *format,
                       uint32_t number, bool writable, char name[CONTROL_NAME_MAX])
{
    struct region_want want = ring_want(stage->epoch);

    /* The formats are the two names of rings, "to_worker.%u" and "to_tx.%u". */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, CONTROL_NAME_MAX, format, number);
#pragma GCC diagnostic pop
    return stage_attach(stage, region, name, &want, writable);
}

int stage_producer(struct stage *stage, struct ring_producer *producer, const char *format,
                   uint32_t number)
{
    struct region region;
    struct region_mismatch mismatch;
    char name[CONTROL_NAME_MAX];

    int err = attach_ring(stage, &region, format, number, true, name);
    if (err < 0)
        return err;
    err = ring_producer_attach(producer, &region, &mismatch);
    return err < 0 ? mismatch_error(stage, name, &mismatch) : 0;
}

int stage_consumer(struct stage *stage, struct ring_consumer *consumer, const char *format,
                   uint32_t number)
{
    struct region region;
    struct region_mismatch mismatch;
    char name[CONTROL_NAME_MAX];

    int err = attach_ring(stage, &region, format, number, false, name);
    if (err < 0)
        return err;
    err = ring_consumer_attach(consumer, &region, &mismatch);
    if (err < 0)
        return mismatch_error(stage, name, &mismatch);
    consumer->control = region_writable(&region, RING_CONTROL_OFFSET, PAGE_BYTES);
    if (!consumer->control)
        return stage_error(stage, -errno, "%s: %s", name, strerror(errno));
    ring_awake(consumer);
    return 0;
}

int stage_deposit(struct stage *stage, const char *name, int fd)
{
    struct control_message message = {.type = CONTROL_DEPOSIT};

    strncpy(message.name, name, sizeof(message.name) - 1);
    return control_send(stage->control, &message, fd);
}

int stage_offer(struct stage *stage, const char *name, uint64_t value, int fd)
{
    struct control_message message = {
        .type = fd < 0 ? CONTROL_RELEASE : CONTROL_DEPOSIT,
        .value = value,
    };

    strncpy(message.name, name, sizeof(message.name) - 1);
    return control_offer(stage->control, &message, fd);
}

void stage_note(struct stage *stage, const char *name, const char *asked, const char *obtained,
                const char *why)
{
    struct control_message message = {.type = CONTROL_NOTE};

    strncpy(message.name, name, sizeof(message.name) - 1);
    strncpy(message.asked, asked, sizeof(message.asked) - 1);
    strncpy(message.obtained, obtained, sizeof(message.obtained) - 1);
    strncpy(message.why, why, sizeof(message.why) - 1);
    (void)control_send(stage->control, &message, -1);
}

void stage_tell(struct stage *stage, const char *format, ...)
{
    struct control_message message = {.type = CONTROL_TELL};
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message.text, sizeof(message.text), format, arguments);
    va_end(arguments);
    log_line("%s", message.text);
    (void)control_offer(stage->control, &message, -1);
}

static int load_config(struct stage *stage)
{
    struct stat st;
    char error[CONFIG_ERROR_MAX];
    int fd = stage_descriptor(stage, "config");

    if (fd < 0 || fstat(fd, &st) < 0)
        return stage_error(stage, -ENOENT, "the launcher gave no configuration");
    char *text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (text == MAP_FAILED)
        return stage_error(stage, -errno, "configuration: %s", strerror(errno));
    int err = config_parse(&stage->config, text, (size_t)st.st_size, "config", error);
    munmap(text, (size_t)st.st_size);
    return err < 0 ? stage_error(stage, err, "%s", error) : 0;
}

static int open_trace(struct stage *stage)
{
    struct region_want want = arena_want(stage->epoch);
    struct region_mismatch mismatch;
    struct lane lane;

    int err = stage_attach(stage, &stage->arena, "arena", &want, false);
    if (err < 0)
        return err;
    if (arena_check(&stage->arena, &mismatch) < 0)
        return mismatch_error(stage, "arena", &mismatch);
    err = lane_find(&lane, &stage->arena, stage->name);
    if (err == -ENOENT)
        return 0; /* the tracer writes no lane */
    if (err < 0)
        return stage_error(stage, err, "the arena's directory is not valid");
    err = lane_writable(&lane, &stage->arena, true);
    if (err < 0)
        return stage_error(stage, err, "arena: %s", strerror(-err));
    uint32_t sample = stage->config.trace.stamps ? stage->config.trace.sample : 0;
    trace_open(&stage->trace, &lane, sample, stage->generation, (uint32_t)stage->cpu);
    return 0;
}

static void lock_memory(struct stage *stage)
{
    static const char *const asked[] = {"no", "want", "need"};

    if (stage->config.memory.lock == WISH_NO)
        return;
    /* All that is needed on the way of a request is there. What comes later is not locked: a stage
     * that has given up its rights could get none beyond RLIMIT_MEMLOCK. */
    int err = mlockall(MCL_CURRENT) < 0 ? errno : 0;
    stage_note(stage, "memory.lock", asked[stage->config.memory.lock], err ? "no" : "yes",
               err ? strerror(err) : "");
    if (err)
        (void)munlockall();
}

static int start(struct stage *stage)
{
    struct region_want want;

    int err = receive_descriptors(stage);
    if (err < 0)
        return stage_error(stage, err, "control socket: %s", strerror(-err));
    want = cells_want(stage->epoch);
    err = stage_attach(stage, &stage->cells_region, "cells", &want, true);
    if (err < 0)
        return err;
    stage->cells = cells_of(&stage->cells_region);
    stage->cell = &stage->cells->cell[stage->cell_index];
    stage->generation = load_acquire(&stage->cell->generation);
    /* A successor goes on counting; open() may know better, where figures must be exact. */
    (void)cell_read(stage->cell, &stage->figures);
    crash_process(stage->name, stage->generation);
    store_relaxed(&stage->cell->pid, (int32_t)getpid());
    store_relaxed(&stage->cell->cpu, (int32_t)stage->cpu);
    err = cell_move(stage->cell, CELL_OPENING, CELL_BY_STAGE);
    if (err < 0)
        return stage_error(stage, err, "state is %s, expected starting",
                           cell_state_name(cell_state(stage->cell)));
    err = cpu_pin(stage->cpu);
    if (err < 0)
        return stage_error(stage, err, "cannot pin to CPU %d: %s", stage->cpu, strerror(-err));
    err = load_config(stage);
    if (err == 0)
        err = open_trace(stage);
    if (err == 0)
        err = stage->ops->open(stage);
    if (err < 0)
        return stage_error(stage, err, "open: %s", strerror(-err));
    give_again(stage);
    pmu_start(stage);
    lock_memory(stage);
    return sandbox_enter(stage);
}

/* ---- run ---- */

/* Ten times a second. */
static bool launcher_died(struct stage *stage)
{
    uint64_t tenth = (uint64_t)(stage->clock.hz / 10);

    if (stage->orphaned || stage->figures.heartbeat / tenth == tsc_read() / tenth)
        return stage->orphaned;
    return !stage_receive(stage);
}

bool stage_wanted(struct stage *stage)
{
    stage->orphaned = launcher_died(stage);
    return !stage->orphaned && !told_to_end && load_acquire(&stage->cell->wanted) < CELL_WANT_DRAIN;
}

bool stage_ended(const struct stage *stage, uint32_t cell_index)
{
    const struct cell *cell = &stage->cells->cell[cell_index];
    enum cell_state state = cell_state(cell);
    bool killed = state == CELL_DEAD || state == CELL_FAILED;

    return state == CELL_DONE ||
           (killed && (stage->orphaned || load_acquire(&cell->wanted) == CELL_WANT_STOP));
}

static void await_run(struct stage *stage)
{
    const struct timespec nap = {.tv_nsec = 200000};

    while (load_acquire(&stage->cell->wanted) == CELL_WANT_READY && stage_wanted(stage)) {
        stage->figures.heartbeat = tsc_read();
        nanosleep(&nap, NULL);
    }
}

/* The figures are those of the predecessor still. */
static void note_restart(struct stage *stage)
{
    if (stage->generation > 1 && stage->trace.lane.control)
        trace_event(&stage->trace, tsc_read(), POINT_restarted, (uint16_t)stage->generation,
                    stage->figures.heartbeat, stage->born);
}

static void arm_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    sigaction(SIGTERM, &action, NULL);
    /* A terminal's Ctrl-C goes to the whole group; the launcher decides what it means. */
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

/* The exit statuses of the whole project: a mistake, a host that cannot, anything else. */
static int exit_status(int err)
{
    switch (err) {
    case -EINVAL:
    case -EADDRINUSE:
    case -EADDRNOTAVAIL:
        return 2;
    case -EPERM:
    case -EACCES:
    case -ENOSYS:
    case -ENOMEM:
    case -ENOSPC:
    case -EDQUOT:
    case -EROFS:
        return 4;
    default:
        return 1;
    }
}

static int fail(struct stage *stage, int err)
{
    log_line("%s", stage->error);
    if (stage->cell) {
        memcpy(stage->cell->error, stage->error, sizeof(stage->error));
        (void)cell_move(stage->cell, CELL_FAILED, CELL_BY_STAGE);
    }
    return exit_status(err);
}

int stage_prepare(struct stage *stage, int argc, char **argv, const struct stage_ops *ops,
                  void *self)
{
    stage->ops = ops;
    stage->self = self;
    stage->born = tsc_read();
    int err = parse_arguments(stage, argc, argv);
    if (err < 0)
        return err;
    log_name(stage->name);
    arm_signals();
    /* Also where the launcher is killed: its control socket closes, and this does not wait for a
     * tick. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1UL);
    err = start(stage);
    return err < 0 ? err : cell_move(stage->cell, CELL_READY, CELL_BY_STAGE);
}

int stage_main(int argc, char **argv, const struct stage_ops *ops, void *self)
{
    struct stage *stage = calloc(1, sizeof(*stage));

    if (!stage)
        return 1;
    int err = stage_prepare(stage, argc, argv, ops, self);
    if (err == -EINVAL && !stage->error[0]) {
        fprintf(stderr,
                "%s: a stage of the pipeline, not started by hand; try: tickline run CONFIG\n",
                argv[0]);
        free(stage);
        return 2;
    }
    if (err < 0)
        return fail(stage, err);
    await_run(stage);
    (void)cell_move(stage->cell, CELL_RUNNING, CELL_BY_STAGE);
    note_restart(stage);
    stage_loop(stage);
    if (stage->trace.lane.control)
        trace_close(&stage->trace);
    ops->close(stage);
    if (stage->error[0])
        return fail(stage, stage->error_code);
    return cell_move(stage->cell, CELL_DONE, CELL_BY_STAGE) < 0 ? 1 : 0;
}
