/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/run.h"

#include "launch/counters.h"
#include "launch/folders.h"
#include "launch/salvage.h"
#include "launch/serve.h"
#include "stage/cpu.h"
#include "stage/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEND_MS = 20, RESTART_MS = 1, COMMAND_MAX = 256, COUNTERS_BYTES = 65536 };
#define FAILED_NS UINT64_C(5000000000)

struct run {
    struct pipeline pipeline;
    struct runfile runfile;
    const struct run_options *options;
    json_t *mark;
    uint64_t measured_from;
    char command[COMMAND_MAX];
    size_t command_length;
    int signals;                        /* signalfd */
    int listener;                       /* for `tickline status` */
    int counters;                       /* counters.json.new, with room reserved for it */
    int signalled;                      /* number of the first signal, or 0 */
    int status;                         /* to exit with */
    char reason[CONFIG_ERROR_MAX + 32]; /* why it ended */
    bool draining;
    bool stdin_open;
};

static void answer(const struct run *run, json_t *event)
{
    if (run->options->json && event) {
        json_dumpf(event, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
        putchar('\n');
        fflush(stdout);
    }
    json_decref(event);
}

static int complain(const struct run *run, const char *message, int status)
{
    fprintf(stderr, "tickline: %s\n", message);
    answer(run, json_pack("{s:s, s:s, s:i}", "event", "error", "message", message, "exit", status));
    return status;
}

/* ---- run directory ---- */

static int open_run_directory(const char *path, const struct config *config)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return -errno;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int err = folders_make(fd, config);
    if (err < 0) {
        close(fd);
        return err;
    }
    return fd;
}

static int complain_of_directory(const struct run *run, int err)
{
    char message[RUNFILE_PATH_MAX + 128];

    snprintf(message, sizeof(message),
             "%s: %s: expected a run directory that can be made; choose another by --run-dir",
             run->options->run_directory, strerror(-err));
    return complain(run, message, err == -ENOSPC || err == -EROFS ? 4 : 2);
}

static FILE *create_in(const struct run *run, const char *name)
{
    int fd = openat(run->pipeline.run_folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    return fd < 0 ? NULL : fdopen(fd, "w");
}

static int write_config(const struct run *run)
{
    FILE *out = create_in(run, "config.ini");
    int err = out ? config_write(run->pipeline.config, out) : -errno;

    if (out && fclose(out) != 0 && err == 0)
        err = -errno;
    return err;
}

static int reserve_counters(struct run *run)
{
    run->counters = openat(run->pipeline.run_folder, "counters.json.new",
                           O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (run->counters < 0)
        return -errno;
    int err = fallocate(run->counters, FALLOC_FL_KEEP_SIZE, 0, COUNTERS_BYTES) < 0 ? -errno : 0;
    return err == -EOPNOTSUPP ? 0 : err;
}

/* Into the room reserved: whatever has filled the disk meanwhile, the account is told. */
static int save_counters(struct run *run, const json_t *json)
{
    int folder = run->pipeline.run_folder;
    int err = json_dumpfd(json, run->counters, JSON_INDENT(1) | JSON_PRESERVE_ORDER) < 0
                  ? -(errno ? errno : EIO)
                  : 0;
    off_t end = lseek(run->counters, 0, SEEK_CUR);

    if (err == 0 && (end < 0 || ftruncate(run->counters, end) < 0 ||
                     renameat(folder, "counters.json.new", folder, "counters.json") < 0))
        err = -errno;
    return err;
}

static int write_counters(struct run *run, bool complete, const char *reason)
{
    struct pipeline *pipeline = &run->pipeline;
    struct clock_pair last = clock_pair_read(&pipeline->clock);
    json_t *rotation = counters_rotation(pipeline);

    /* The whole run is a better base line than the calibration at its start. */
    if (last.raw_ns - pipeline->first.raw_ns > 1000000000ULL)
        pipeline->clock = clock_from_pairs(&pipeline->first, &last);
    json_t *json =
        json_pack("{s:i, s:I, s:f, s:f, s:o, s:b, s:s, s:o}", "schema", 1, "measured_from",
                  (json_int_t)run->measured_from, "tsc_hz", pipeline->clock.hz, "stamp_cost_ns",
                  pipeline->stamp_cost_ns, "clock", counters_clock(pipeline), "complete", complete,
                  "reason", reason, "end", counters_snapshot(pipeline));
    json_object_set(json, "restarts", pipeline->restarts);
    if (run->mark)
        json_object_set(json, "mark", run->mark);
    if (rotation)
        json_object_set_new(json, "rotation", rotation);
    int err = save_counters(run, json);
    json_decref(json);
    return err;
}

/* ---- what the lab and people read ---- */

static json_t *ready_event(const struct run *run)
{
    const struct pipeline *pipeline = &run->pipeline;
    const struct placement *placement = pipeline->placement;
    json_t *pids = json_object();
    json_t *cpus = json_object();
    json_t *degraded = json_array();

    for (uint32_t i = 0; i < pipeline->count; i++) {
        json_object_set_new(pids, pipeline->process[i].name,
                            json_integer(pipeline->process[i].pid));
        json_object_set_new(cpus, pipeline->process[i].name,
                            json_integer(pipeline->process[i].cpu));
    }
    for (uint32_t i = 0; i < placement->reasons; i++)
        json_array_append_new(degraded, json_string(placement->reason[i]));
    json_t *event =
        json_pack("{s:s, s:o, s:o, s:o, s:o, s:O, s:I}", "event", "ready", "pids", pids, "cpus",
                  cpus, "sockets", counters_sockets(pipeline), "degraded", degraded, "obtained",
                  pipeline->notes, "shm_bytes", (json_int_t)pipeline_shm_bytes(pipeline));
    json_t *rotation = counters_rotation(pipeline);
    if (rotation)
        json_object_set_new(event, "rotation", rotation);
    return event;
}

static void note_obtained(struct run *run)
{
    struct pipeline *pipeline = &run->pipeline;
    const struct config *config = pipeline->config;
    static const char *const wish[] = {"no", "want", "need"};
    static const char *const pages[] = {"4k", "want-2m", "need-2m"};
    bool huge = pipeline->to_worker[0].page_bytes > PAGE_BYTES;

    json_object_set_new(pipeline->notes, "isolate.own_cpu",
                        json_pack("{s:s, s:s, s:s}", "asked", wish[config->isolate.own_cpu],
                                  "obtained", pipeline->placement->own_cpu ? "yes" : "no", "why",
                                  pipeline->placement->own_cpu ? "" : "too few CPUs"));
    json_object_set_new(
        pipeline->notes, "memory.pages",
        json_pack("{s:s, s:s, s:s}", "asked", pages[config->memory.pages], "obtained",
                  huge ? "2m" : "4k", "why",
                  huge || config->memory.pages == PAGES_4K
                      ? ""
                      : "no 2 MiB pages are free (vm.nr_hugepages), or the rings are "
                        "smaller than one"));
}

static void print_account(const struct run *run)
{
    json_t *stats = counters_stats(&run->pipeline);
    const char *const keys[] = {"datagrams", "received",  "completed",   "in_flight",
                                "dropped",   "discarded", "socket_drops"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        printf("%-14s %lld\n", keys[i],
               (long long)json_integer_value(json_object_get(stats, keys[i])));
    json_decref(stats);
}

static void print_started(const struct run *run)
{
    const struct pipeline *pipeline = &run->pipeline;

    for (uint32_t i = 0; i < pipeline->count; i++)
        fprintf(stderr, "%-10s pid %d on CPU %d\n", pipeline->process[i].name,
                pipeline->process[i].pid, pipeline->process[i].cpu);
    fprintf(stderr, "running; Ctrl-C drains and writes %s\n", run->options->run_directory);
}

/* ---- commands ---- */

static void obey(struct run *run, const char *command)
{
    if (strcmp(command, "stats") == 0) {
        answer(run, counters_stats(&run->pipeline));
    } else if (strcmp(command, "mark") == 0) {
        json_decref(run->mark);
        run->mark = counters_snapshot(&run->pipeline);
        run->measured_from = load_acquire(&run->pipeline.cells->cell[CELL_RX].issued) + 1;
        answer(run, json_pack("{s:s, s:I}", "event", "mark", "measured_from",
                              (json_int_t)run->measured_from));
    } else if (strcmp(command, "drain") == 0) {
        run->draining = true;
    } else if (command[0]) {
        answer(run, json_pack("{s:s, s:s, s:i}", "event", "error", "message",
                              "unknown command; expected stats, mark or drain", "exit", 2));
    }
}

static void read_commands(struct run *run)
{
    ssize_t got = read(STDIN_FILENO, run->command + run->command_length,
                       sizeof(run->command) - 1 - run->command_length);

    if (got <= 0) {
        run->stdin_open = false;
        run->draining = true;
        return;
    }
    run->command_length += (size_t)got;
    run->command[run->command_length] = '\0';
    char *line = run->command;
    for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        obey(run, line);
    }
    run->command_length = strlen(line);
    memmove(run->command, line, run->command_length + 1);
    if (run->command_length == sizeof(run->command) - 1)
        run->command_length = 0;
}

static void take_signal(struct run *run)
{
    struct signalfd_siginfo info;

    if (read(run->signals, &info, sizeof(info)) != sizeof(info))
        return;
    run->signalled = (int)info.ssi_signo;
    run->draining = true;
}

/* The run that a second signal ends at once; only what a signal handler may do. */
static struct run *ending;

static void on_second_signal(int number)
{
    for (uint32_t i = 0; i < ending->pipeline.count; i++) {
        if (ending->pipeline.process[i].pid)
            kill(ending->pipeline.process[i].pid, SIGKILL);
    }
    folders_take_back(ending->pipeline.run_folder);
    unlink(ending->runfile.arena);
    unlink(ending->runfile.socket);
    unlink(ending->runfile.path);
    _exit(128 + number);
}

static void arm_second_signal(struct run *run)
{
    struct sigaction action = {.sa_handler = on_second_signal};
    sigset_t none;

    ending = run;
    sigfillset(&action.sa_mask); /* a third one does not meet it half way */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- life ---- */

/* A line and an event for each successor that is back, and for what stages tell. */
static void tell_news(struct run *run)
{
    const struct pipeline *pipeline = &run->pipeline;
    json_t *restart;
    size_t i;

    json_array_foreach(pipeline->news, i, restart)
    {
        const char *stage = json_string_value(json_object_get(restart, "stage"));
        json_int_t last = json_integer_value(json_object_get(restart, "last_tick"));
        json_int_t back = json_integer_value(json_object_get(restart, "back"));
        double gone_ms = (double)(back - last) * 1e3 / pipeline->clock.hz;
        fprintf(stderr, "tickline: %s was %s; its successor is back after %.1f ms, %lld waited\n",
                stage, json_string_value(json_object_get(restart, "cause")), gone_ms,
                (long long)json_integer_value(json_object_get(restart, "waiting")));
        answer(run, json_pack("{s:s, s:s, s:f, s:O}", "event", "restart", "stage", stage, "gone_ms",
                              gone_ms, "restart", restart));
    }
    json_array_clear(pipeline->news);
    json_t *told;
    json_array_foreach(pipeline->told, i, told)
    {
        fprintf(stderr, "tickline: %s\n", json_string_value(json_object_get(told, "message")));
        json_object_set_new(told, "event", json_string("told"));
        answer(run, json_incref(told));
    }
    json_array_clear(pipeline->told);
}

/* Of a run that failed: 4 where a stage found the host unable (a full disk), else 1. */
static int end_status(const struct pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->count; i++) {
        if (pipeline->process[i].status == 4)
            return 4;
    }
    return 1;
}

/*
 * A stage has ended for good: tells it. A program that reads us stops its traffic first and then says
 * `drain`; it has a moment for that. For a person there is nothing to wait for.
 */
static uint64_t tell_failure(struct run *run)
{
    snprintf(run->reason, sizeof(run->reason), "stage failed: %s", run->pipeline.error);
    run->status = complain(run, run->reason, end_status(&run->pipeline));
    return run->options->json ? clock_monotonic_ns() + FAILED_NS : 0;
}

/* Until somebody wants it to end, or a stage has ended for good (-errno). */
static int supervise(struct run *run)
{
    uint64_t until = UINT64_MAX;
    int failed = 0;

    while (!run->draining && clock_monotonic_ns() < until) {
        struct pollfd fds[3 + PIPELINE_WATCH_MAX] = {
            {.fd = run->signals, .events = POLLIN},
            {.fd = run->listener, .events = POLLIN},
            {.fd = run->options->json && run->stdin_open ? STDIN_FILENO : -1, .events = POLLIN},
        };
        int ms = pipeline_restarting(&run->pipeline) ? RESTART_MS : TEND_MS;
        (void)poll(fds, 3 + pipeline_watch(&run->pipeline, fds + 3), ms);
        if (fds[0].revents)
            take_signal(run);
        if (fds[1].revents)
            serve_status(run->listener, &run->pipeline);
        if (fds[2].revents)
            read_commands(run);
        int err = pipeline_tend(&run->pipeline);
        tell_news(run);
        if (err < 0 && !failed) {
            failed = err;
            until = tell_failure(run);
        }
    }
    return failed;
}

static int complain_of_counters(const struct run *run, int err)
{
    char message[RUNFILE_PATH_MAX + 128];

    snprintf(message, sizeof(message),
             "%s/counters.json: %s; make room there, or choose another by --run-dir",
             run->options->run_directory, strerror(-err));
    return complain(run, message, err == -ENOSPC || err == -EDQUOT ? 4 : 1);
}

/* Where the tracer is gone for good, what it had not written stands in the arena still. */
static void save_trace(struct run *run)
{
    struct pipeline *pipeline = &run->pipeline;
    const struct process *tracer = &pipeline->process[pipeline->count - 1];

    if (tracer->status <= 128)
        return;
    region_close(&pipeline->arena); /* it is locked while somebody holds it */
    folders_take_back(pipeline->run_folder);
    (void)salvage_own(&run->runfile);
}

static int finish(struct run *run, int failed)
{
    struct pipeline *pipeline = &run->pipeline;

    arm_second_signal(run);
    if (!failed)
        snprintf(run->reason, sizeof(run->reason), run->signalled ? "signal" : "drained");
    int drained = pipeline_drain(pipeline);
    tell_news(run);
    if (!failed && drained < 0) {
        failed = drained;
        (void)tell_failure(run);
    }
    int written = write_counters(run, !failed, run->reason);
    if (written < 0)
        run->status = complain_of_counters(run, written);
    if (!run->options->json)
        print_account(run);
    save_trace(run);
    answer(run, json_pack("{s:s, s:i}", "event", "done", "exit", run->status));
    return run->status;
}

static int start_status(const struct process *process, uint32_t count, int err)
{
    for (uint32_t i = 0; i < count; i++) {
        if (process[i].status >= 2 && process[i].status <= 4)
            return process[i].status;
    }
    switch (err) {
    case -EINVAL:
        return 2;
    case -ENOMEM:
    case -ENOSPC:
    case -ENOENT: /* no /dev/shm */
    case -EROFS:
    case -EACCES:
    case -EPERM:
        return 4;
    default:
        return 1;
    }
}

static int live(struct run *run)
{
    struct pipeline *pipeline = &run->pipeline;

    int err = pipeline_create(pipeline);
    if (err < 0)
        return complain(run, pipeline->error, start_status(NULL, 0, err));
    err = write_config(run);
    if (err == 0)
        err = reserve_counters(run);
    if (err < 0)
        return complain_of_directory(run, err);
    pipeline->folders_lent = pipeline->config->isolate.sandbox != WISH_NO &&
                             folders_lend(pipeline->run_folder, &pipeline->user) == 0;
    (void)cpu_pin(pipeline->placement->launcher);
    err = pipeline_start(pipeline, run->options->start_order);
    if (err < 0)
        return complain(run, pipeline->error,
                        start_status(pipeline->process, pipeline->count, err));
    note_obtained(run);
    if (run->options->json)
        answer(run, ready_event(run));
    else
        print_started(run);
    err = supervise(run);
    return finish(run, err);
}

static int claim(struct run *run, const struct config *config)
{
    char message[RUNFILE_PATH_MAX + 256];

    int err = runfile_claim(&run->runfile, config->pipeline.name, run->options->run_directory);
    if (err == 0)
        return 0;
    if (err == -EEXIST)
        snprintf(message, sizeof(message),
                 "a run named %s is already up (pid %d, %s); end it, or choose another name with "
                 "--name",
                 config->pipeline.name, run->runfile.pid, run->runfile.run_directory);
    else
        snprintf(message, sizeof(message), "run file: %s", strerror(-err));
    return complain(run, message, err == -EEXIST ? 2 : 1);
}

static void name_stale(struct runfile *runfile, void *context)
{
    (void)context;
    if (!runfile->alive)
        fprintf(
            stderr,
            "tickline: run %s (pid %d, %s) was killed and has left %s; `tickline salvage` saves "
            "its trace, `tickline clean` removes it\n",
            runfile->name, runfile->pid, runfile->run_directory, runfile->arena);
}

int run_pipeline(const struct config *config, const struct placement *placement,
                 const struct run_options *options)
{
    struct run *run = calloc(1, sizeof(*run));
    sigset_t signals;

    if (!run)
        return 1;
    run->options = options;
    run->stdin_open = true;
    run->pipeline = (struct pipeline){.config = config,
                                      .placement = placement,
                                      .handler = options->handler,
                                      .first = clock_pair_read(NULL)};
    /* Blocked before anything exists that a signal could leave behind. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    run->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    (void)runfile_each(name_stale, NULL);
    int status = claim(run, config);
    if (status)
        return status;
    run->pipeline.runfile = &run->runfile;
    run->pipeline.run_folder = open_run_directory(options->run_directory, config);
    run->listener = serve_listen(run->runfile.socket);
    if (run->pipeline.run_folder < 0) {
        status = complain_of_directory(run, run->pipeline.run_folder);
    } else {
        status = live(run);
        folders_take_back(run->pipeline.run_folder);
        /* Of a run that came to nothing. */
        (void)unlinkat(run->pipeline.run_folder, "counters.json.new", 0);
        pipeline_destroy(&run->pipeline);
    }
    runfile_remove(&run->runfile);
    int signalled = run->signalled;
    json_decref(run->mark);
    free(run);
    return status == 0 && signalled && !options->json ? 128 + signalled : status;
}
