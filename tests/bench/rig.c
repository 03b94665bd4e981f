/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/rig.h"

#include "stage/control.h"
#include "stage/cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONTROL_FD = 100, PATIENCE_MS = 10000, EPOCH = 0x7ac, RIG_INI_MAX = 1024 };

void rig_build_folder(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);

    path[length > 0 ? length : 0] = '\0';
    for (int up = 0; up < 2; up++) { /* …/build/bench/hop → …/build */
        char *slash = strrchr(path, '/');
        if (slash)
            *slash = '\0';
    }
}

/* ---- open ---- */

static int write_config(struct rig *rig, const char *ini, struct bench_result *result)
{
    char error[CONFIG_ERROR_MAX];

    char text[RIG_INI_MAX];

    /* Callbacks of a benchmark's own do what is in no stage's table. */
    int length = snprintf(text, sizeof(text), "[isolate]\nsandbox = no\n%s", ini);
    int err = config_parse(&rig->config, text, (size_t)length, "bench", error);
    if (err < 0)
        return bench_fail(result, err, "%s", error);
    rig->config_fd = memfd_create("bench-config", MFD_CLOEXEC);
    FILE *out = rig->config_fd < 0 ? NULL : fdopen(dup(rig->config_fd), "w");
    err = out ? config_write(&rig->config, out) : -errno;
    if (out)
        fclose(out);
    return err < 0 ? bench_fail(result, err, "configuration: %s", strerror(-err)) : 0;
}

static int make_regions(struct rig *rig, uint64_t lane_bytes)
{
    const struct region_place place = {.numa_node = -1};
    const struct lane_plan plan[] = {
        {"rx", LANE_TRACE, 0, lane_bytes},
        {"worker0", LANE_TRACE, 0, lane_bytes},
        {"tx", LANE_TRACE, 0, lane_bytes},
        {"ingress", LANE_PLAIN, sizeof(struct ingress_record), lane_bytes / 2},
    };
    uint32_t slot = rig->config.ring.slot_bytes ? rig->config.ring.slot_bytes : 128;

    int err = cells_create(&rig->cells_region, rig->epoch, &place);
    if (err == 0)
        err = ring_create(&rig->to_worker, "bench-to_worker", rig->config.ring.depth, slot, 0,
                          rig->epoch, &place);
    if (err == 0)
        err = ring_create(&rig->to_tx, "bench-to_tx", rig->config.ring.depth, slot, 0, rig->epoch,
                          &place);
    if (err == 0)
        err = arena_create(&rig->arena, &place, plan, sizeof(plan) / sizeof(plan[0]), rig->epoch);
    return err;
}

int rig_open(struct rig *rig, const struct bench *bench, const struct rig_plan *plan,
             struct bench_result *result)
{
    *rig = (struct rig){
        .config_fd = -1,
        .run_folder = -1,
        .memory = plan->memory ? plan->memory : -1,
        .epoch = EPOCH,
        .hz = bench->clock.hz,
    };
    if (plan->run) {
        rig->run_folder = open(plan->run, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
        if (rig->run_folder < 0)
            return bench_fail(result, -errno, "%s: %s", plan->run, strerror(errno));
        (void)mkdirat(rig->run_folder, "trace", 0755);
        (void)mkdirat(rig->run_folder, "wire", 0755);
    }
    int err = write_config(rig, plan->ini, result);
    if (err < 0)
        return err;
    err = make_regions(rig, plan->lane_bytes ? plan->lane_bytes : rig->config.trace.lane_bytes);
    if (err < 0)
        return bench_fail(result, err, "regions: %s", strerror(-err));
    rig->cells = cells_of(&rig->cells_region);
    result->page_bytes = (int)rig->to_worker.page_bytes;
    return 0;
}

/* ---- start ---- */

static _Noreturn void become(const struct rig_stage *stage, char *argv[], int control)
{
    char path[512];
    int argc = 0;

    /* dup2 clears close-on-exec. */
    if (dup2(control, CONTROL_FD) < 0 || cpu_pin(stage->cpu) < 0)
        _exit(126);
    if (stage->ops) {
        while (argv[argc])
            argc++;
        _exit(stage_main(argc, argv, stage->ops, stage->self));
    }
    rig_build_folder(path, sizeof(path));
    strncat(path, "/", sizeof(path) - strlen(path) - 1);
    strncat(path, stage->program, sizeof(path) - strlen(path) - 1);
    execv(path, argv);
    _exit(127);
}

static int give(struct rig *rig, int control)
{
    const struct {
        const char *name;
        int fd;
    } gifts[] = {
        {"cells", rig->cells_region.fd}, {"arena", rig->arena.fd},
        {"config", rig->config_fd},      {"to_worker.0", rig->to_worker.fd},
        {"to_tx.0", rig->to_tx.fd},      {"run", rig->run_folder},
        {"bench", rig->memory},
    };
    const struct control_message start = {.type = CONTROL_START, .value = rig->epoch};

    for (size_t i = 0; i < sizeof(gifts) / sizeof(gifts[0]); i++) {
        struct control_message message = {.type = CONTROL_GIVE};
        if (gifts[i].fd < 0)
            continue;
        snprintf(message.name, sizeof(message.name), "%s", gifts[i].name);
        int err = control_send(control, &message, gifts[i].fd);
        if (err < 0)
            return err;
    }
    return control_send(control, &start, -1);
}

struct arguments {
    char cell[16];
    char control[16];
    char cpu[16];
    char upstream[16];
    char park[24];
    char hz[32];
    const char *argv[21];
};

static void write_arguments(struct arguments *arguments, const struct rig *rig,
                            const struct rig_stage *stage, int control)
{
    snprintf(arguments->cell, sizeof(arguments->cell), "%u", stage->cell);
    snprintf(arguments->control, sizeof(arguments->control), "%d", control);
    snprintf(arguments->cpu, sizeof(arguments->cpu), "%d", stage->cpu);
    snprintf(arguments->upstream, sizeof(arguments->upstream), "%d", stage->upstream_cpu);
    snprintf(arguments->park, sizeof(arguments->park), "%llu",
             (unsigned long long)stage->park_after_ns);
    snprintf(arguments->hz, sizeof(arguments->hz), "%.6f", rig->hz);
    const char *const argv[] = {
        stage->name,
        "--name",
        stage->name,
        "--cell",
        arguments->cell,
        "--worker",
        "0",
        "--control",
        arguments->control,
        "--cpu",
        arguments->cpu,
        "--upstream-cpu",
        arguments->upstream,
        "--wait",
        stage->wait,
        "--park-after",
        arguments->park,
        "--rotation",
        stage->rotation ? stage->rotation : "",
        "--hz",
        arguments->hz,
    };
    static_assert(sizeof(argv) == sizeof(arguments->argv), "all of them");
    memcpy(arguments->argv, argv, sizeof(argv));
}

/* The next process of the rig with its end of a control socket; the stage's end, or -errno. */
static int begin(struct rig *rig, const struct rig_stage *stage, struct bench_result *result)
{
    struct rig_process *process = &rig->process[rig->count];
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return bench_fail(result, -errno, "socketpair: %s", strerror(errno));
    process->control = pair[0];
    process->cell = &rig->cells->cell[stage->cell];
    rig->count++;
    snprintf(process->cell->name, sizeof(process->cell->name), "%s", stage->name);
    store_release(&process->cell->generation, 1u);
    (void)cell_move(process->cell, CELL_STARTING, CELL_BY_LAUNCHER);
    int err = give(rig, process->control);
    if (err < 0)
        return bench_fail(result, err, "%s: %s", stage->name, strerror(-err));
    return pair[1];
}

int rig_start(struct rig *rig, const struct rig_stage *stage, struct bench_result *result)
{
    struct arguments arguments;
    char *argv[sizeof(arguments.argv) / sizeof(arguments.argv[0]) + 1] = {NULL};

    int control = begin(rig, stage, result);
    if (control < 0)
        return control;
    write_arguments(&arguments, rig, stage, CONTROL_FD);
    memcpy(argv, arguments.argv, sizeof(arguments.argv));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(stage, argv, control);
    close(control);
    rig->process[rig->count - 1].pid = pid;
    return pid < 0 ? bench_fail(result, -EAGAIN, "fork failed") : 0;
}

int rig_prepare(struct rig *rig, const struct rig_stage *plan, struct stage *stage,
                struct bench_result *result)
{
    struct arguments arguments;
    char *argv[sizeof(arguments.argv) / sizeof(arguments.argv[0]) + 1] = {NULL};

    int control = begin(rig, plan, result);
    if (control < 0)
        return control;
    write_arguments(&arguments, rig, plan, control);
    memcpy(argv, arguments.argv, sizeof(arguments.argv));
    int err = stage_prepare(stage, (int)(sizeof(arguments.argv) / sizeof(arguments.argv[0])), argv,
                            plan->ops, plan->self);
    return err < 0 ? bench_fail(result, err, "%s: %s", plan->name, stage->error) : 0;
}

/* ---- run ---- */

/* Reads what a stage says (deposits, notes), so that its socket never fills. */
static void hear(const struct rig_process *process)
{
    struct control_message message;
    int fd;

    while (control_receive(process->control, &message, &fd, 0) == 0) {
        if (fd >= 0)
            close(fd);
    }
}

/* Whether its state got as far as `state` before patience ended. */
static bool await(const struct rig_process *process, enum cell_state state)
{
    for (int ms = 0; ms < PATIENCE_MS && cell_state(process->cell) < state; ms++) {
        hear(process);
        if (waitpid(process->pid, NULL, WNOHANG | WNOWAIT) > 0 && cell_state(process->cell) < state)
            return false;
        bench_nap_ms(1);
    }
    hear(process);
    return cell_state(process->cell) >= state;
}

int rig_run(struct rig *rig, struct bench_result *result)
{
    for (uint32_t i = 0; i < rig->count; i++) {
        const struct cell *cell = rig->process[i].cell;
        if (!await(&rig->process[i], CELL_READY) || cell_state(cell) != CELL_READY)
            return bench_fail(result, -EIO, "%s: not ready: %s", cell->name, cell->error);
    }
    for (uint32_t i = 0; i < rig->count; i++)
        store_release(&rig->process[i].cell->wanted, (uint32_t)CELL_WANT_RUN);
    return 0;
}

int rig_start_tracer(struct rig *rig, const struct bench *bench, struct bench_result *result)
{
    const struct rig_stage tracer = {
        .name = "tracer",
        .cell = CELL_TRACER,
        .cpu = bench->cpu[0],
        .upstream_cpu = bench->cpu[1],
        .wait = "park",
        .park_after_ns = 1,
        .program = "tracer",
    };

    return rig_start(rig, &tracer, result);
}

int rig_drain(struct rig *rig, struct bench_result *result)
{
    struct cell *tx = &rig->cells->cell[CELL_TX];
    int first = 0;

    /* The tracer ends when tx has; where there is none, it has. */
    if (cell_state(tx) == CELL_ABSENT)
        store_release(&tx->state, (uint32_t)CELL_DONE);
    /* Consumers were started first. */
    for (uint32_t i = rig->count; i-- > 0;) {
        struct rig_process *process = &rig->process[i];
        store_release(&process->cell->wanted, (uint32_t)CELL_WANT_DRAIN);
        if (!await(process, CELL_DONE) || cell_state(process->cell) != CELL_DONE) {
            first = bench_fail(result, -EIO, "%s: did not end: %s", process->cell->name,
                               process->cell->error);
            break;
        }
        int err = bench_wait(process->pid);
        process->pid = 0;
        if (err < 0 && first == 0)
            first = bench_fail(result, err, "%s failed", process->cell->name);
    }
    return first;
}

void rig_close(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->count; i++) {
        struct rig_process *process = &rig->process[i];
        if (process->pid > 0) {
            kill(process->pid, SIGKILL);
            (void)bench_wait(process->pid);
        }
        close(process->control);
    }
    struct region *const regions[] = {&rig->cells_region, &rig->to_worker, &rig->to_tx,
                                      &rig->arena};
    for (size_t i = 0; i < sizeof(regions) / sizeof(regions[0]); i++) {
        if (regions[i]->header)
            region_close(regions[i]);
    }
    if (rig->config_fd >= 0)
        close(rig->config_fd);
    if (rig->run_folder >= 0)
        close(rig->run_folder);
}
