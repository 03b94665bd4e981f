/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/pipeline.h"

#include <errno.h>
#include <fcntl.h>
#include <numa.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { CALIBRATION_NS = 50000000, POLL_NS = 500000 };

__attribute__((format(printf, 3, 4))) static int fail(struct pipeline *pipeline, int err,
                                                      const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(pipeline->error, sizeof(pipeline->error), format, arguments);
    va_end(arguments);
    return err;
}

static void nap(uint64_t ns)
{
    const struct timespec ts = {.tv_nsec = (long)ns};

    nanosleep(&ts, NULL);
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* ---- create ---- */

/* What one stamp costs here: the real function on a lane of its own. */
static void measure_stamp(struct pipeline *pipeline)
{
    enum { STAMPS = 20000 };
    const struct region_place anywhere = {.numa_node = -1};
    const struct lane_plan plan = {"cost", LANE_TRACE, 0, 1 << 20};
    struct region arena;
    struct lane lane;
    struct trace trace;

    if (arena_create(&arena, &anywhere, &plan, 1, pipeline->epoch) < 0)
        return;
    if (lane_open(&lane, &arena, 0) == 0) {
        trace_open(&trace, &lane, 1, 1, 0);
        uint64_t began = tsc_read();
        for (uint32_t i = 0; i < STAMPS; i++)
            trace_stamp(&trace, POINT_rx_put, 0, i);
        pipeline->stamp_cost_ns = (double)(tsc_read() - began) / STAMPS * 1e9 / pipeline->clock.hz;
    }
    region_close(&arena);
}

/* The largest offset between the counters of the CPUs in use. */
static void measure_skew(struct pipeline *pipeline)
{
    const struct placement *placement = pipeline->placement;
    int base = placement->stage[0].cpu;

    for (uint32_t i = 0; i <= placement->stages; i++) {
        int cpu = i < placement->stages ? placement->stage[i].cpu : placement->sink;
        double skew;
        double error;
        if (cpu == base || (i > 0 && i < placement->stages && cpu == placement->stage[i - 1].cpu))
            continue;
        if (clock_skew(&pipeline->clock, base, cpu, &skew, &error) == 0 &&
            skew + error > pipeline->skew_ns + pipeline->skew_error_ns) {
            pipeline->skew_ns = skew;
            pipeline->skew_error_ns = error;
        }
    }
}

static void calibrate(struct pipeline *pipeline)
{
    struct clock_pair last = clock_pair_read(NULL);

    if (last.raw_ns - pipeline->first.raw_ns < CALIBRATION_NS) {
        nap(CALIBRATION_NS - (last.raw_ns - pipeline->first.raw_ns));
        last = clock_pair_read(NULL);
    }
    pipeline->clock = clock_from_pairs(&pipeline->first, &last);
}

static struct region_place ring_place(const struct pipeline *pipeline, uint16_t consumer_cpu)
{
    const struct config *config = pipeline->config;
    struct region_place place = {.numa_node = config->memory.numa,
                                 .huge = config->memory.pages != PAGES_4K};

    /* Near its consumer, who polls it. */
    if (place.numa_node < 0)
        place.numa_node = numa_available() < 0 ? -1 : numa_node_of_cpu(consumer_cpu);
    return place;
}

static int create_ring(struct pipeline *pipeline, struct region *region, const char *kind,
                       uint32_t number, uint16_t consumer_cpu)
{
    const struct config *config = pipeline->config;
    struct region_place place = ring_place(pipeline, consumer_cpu);
    uint32_t slot = config->ring.slot_bytes ? config->ring.slot_bytes : RING_SLOT_AUTO_BYTES;
    char name[48];

    snprintf(name, sizeof(name), "tickline-%s.%u", kind, number);
    int err = ring_create(region, name, config->ring.depth, slot, 0, pipeline->epoch, &place);
    if (err < 0)
        return fail(pipeline, err,
                    "ring %s: no memory for %u slots of %u bytes: %s; make ring.depth smaller",
                    name, config->ring.depth, slot, strerror(-err));
    if (config->memory.pages == PAGES_NEED_2M && region->page_bytes == PAGE_BYTES &&
        region->size >= 2 << 20)
        return fail(pipeline, -ENOMEM,
                    "memory.pages = need-2m: no 2 MiB pages are free; try: sysctl -w "
                    "vm.nr_hugepages=%u",
                    4 * config->worker.count);
    return 0;
}

static int create_rings(struct pipeline *pipeline)
{
    const struct placement *placement = pipeline->placement;

    for (uint32_t i = 0; i < pipeline->config->worker.count; i++) {
        int err = create_ring(pipeline, &pipeline->to_worker[i], "to_worker", i,
                              placement->stage[1 + i].cpu);
        if (err == 0)
            err = create_ring(pipeline, &pipeline->to_tx[i], "to_tx", i,
                              placement->stage[placement->stages - 1].cpu);
        if (err < 0)
            return err;
    }
    return 0;
}

static int create_arena(struct pipeline *pipeline)
{
    const struct config *config = pipeline->config;
    struct lane_plan plan[LANE_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < pipeline->placement->stages; i++)
        plan[count++] = (struct lane_plan){pipeline->placement->stage[i].name, LANE_TRACE, 0,
                                           config->trace.lane_bytes};
    plan[count++] = (struct lane_plan){"ingress", LANE_PLAIN, sizeof(struct ingress_record),
                                       config->trace.lane_bytes / 2};
    const struct region_place place = {.numa_node = -1,
                                       .huge = config->memory.pages != PAGES_4K,
                                       .path = pipeline->runfile->arena};
    int err = arena_create(&pipeline->arena, &place, plan, count, pipeline->epoch);
    if (err == -ENOSPC)
        return fail(pipeline, err,
                    "%s: no room for %u trace lanes of %llu bytes; make trace.lane smaller or: "
                    "mount -o remount,size=50%% /dev/shm",
                    pipeline->runfile->arena, count, (unsigned long long)config->trace.lane_bytes);
    return err < 0 ? fail(pipeline, err,
                          "%s: %s; is /dev/shm a tmpfs that can be written? try: "
                          "mount -t tmpfs tmpfs /dev/shm",
                          pipeline->runfile->arena, strerror(-err))
                   : 0;
}

static int create_config(struct pipeline *pipeline)
{
    pipeline->config_fd = memfd_create("tickline-config", MFD_CLOEXEC);
    FILE *out = pipeline->config_fd < 0 ? NULL : fdopen(dup(pipeline->config_fd), "w");
    int err = out ? config_write(pipeline->config, out) : -errno;

    if (out && fclose(out) != 0 && err == 0)
        err = -errno;
    return err < 0 ? fail(pipeline, err, "configuration: %s", strerror(-err)) : 0;
}

int pipeline_create(struct pipeline *pipeline)
{
    const struct region_place anywhere = {.numa_node = -1};

    pipeline->config_fd = -1;
    pipeline->notes = json_object();
    if (getrandom(&pipeline->epoch, sizeof(pipeline->epoch), 0) < 0)
        return fail(pipeline, -errno, "getrandom: %s", strerror(errno));
    pipeline->epoch |= 1;
    int err = cells_create(&pipeline->cells_region, pipeline->epoch, &anywhere);
    if (err < 0)
        return fail(pipeline, err, "stage cells: %s", strerror(-err));
    pipeline->cells = cells_of(&pipeline->cells_region);
    err = create_rings(pipeline);
    if (err == 0)
        err = create_arena(pipeline);
    if (err == 0)
        err = create_config(pipeline);
    if (err < 0)
        return err;
    calibrate(pipeline);
    measure_stamp(pipeline);
    measure_skew(pipeline);
    return 0;
}

/* ---- start ---- */

static void set_process(struct pipeline *pipeline, const char *name, const char *program,
                        uint32_t cell, int cpu)
{
    struct process *process = &pipeline->process[pipeline->count++];

    *process =
        (struct process){.program = program, .cell = cell, .cpu = cpu, .pidfd = -1, .control = -1};
    snprintf(process->name, sizeof(process->name), "%s", name);
    struct cell *stage = &pipeline->cells->cell[cell];
    snprintf(stage->name, sizeof(stage->name), "%s", name);
    store_relaxed(&stage->used, 1u);
}

static void plan_processes(struct pipeline *pipeline)
{
    const struct placement *placement = pipeline->placement;
    uint32_t last = placement->stages - 1;

    set_process(pipeline, "rx", "rx", CELL_RX, placement->stage[0].cpu);
    for (uint32_t i = 1; i < last; i++)
        set_process(pipeline, placement->stage[i].name, "worker", CELL_WORKER + i - 1,
                    placement->stage[i].cpu);
    set_process(pipeline, "tx", "tx", CELL_TX, placement->stage[last].cpu);
    set_process(pipeline, "tracer", "tracer", CELL_TRACER, placement->tracer);
}

/* Cells of the stages that share this CPU, in pipeline order: "0,3,1". */
static void rotation_text(const struct pipeline *pipeline, int cpu, char *out, size_t size)
{
    const struct placement *placement = pipeline->placement;
    size_t at = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < placement->rotations; i++) {
        const struct placement_rotation *rotation = &placement->rotation[i];
        for (uint32_t k = 0; rotation->cpu == cpu && k < rotation->count && at < size; k++)
            at += (size_t)snprintf(out + at, size - at, "%s%u", k ? "," : "",
                                   pipeline->process[rotation->stage[k]].cell);
    }
}

static const char *wait_text(const struct pipeline *pipeline, const struct process *process,
                             uint64_t *park_after)
{
    const struct config *config = pipeline->config;
    uint32_t index = (uint32_t)(process - pipeline->process);

    *park_after = 0;
    if (process->cell == CELL_TRACER) {
        *park_after = 1; /* as soon as it is idle: nobody waits for it */
        return "park";
    }
    const struct placement_stage *stage = &pipeline->placement->stage[index];
    if (stage->wait == WAIT_PARK)
        *park_after = 1;
    else if (stage->may_park)
        *park_after = config->sched.park_after_ns;
    return stage->wait == WAIT_SPIN ? "spin" : stage->wait == WAIT_YIELD ? "yield" : "park";
}

static int upstream_cpu(const struct pipeline *pipeline, const struct process *process)
{
    uint32_t index = (uint32_t)(process - pipeline->process);
    uint32_t upstream = process->cell == CELL_TX ? index - 1 : 0;

    return pipeline->process[upstream].cpu;
}

static int open_log(const struct pipeline *pipeline, const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "log/%s.log", name);
    return openat(pipeline->run_folder, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int give_all(struct pipeline *pipeline, struct process *process)
{
    char name[CONTROL_NAME_MAX];
    int err = process_give(process, "cells", pipeline->cells_region.fd);

    if (err == 0)
        err = process_give(process, "arena", pipeline->arena.fd);
    if (err == 0)
        err = process_give(process, "config", pipeline->config_fd);
    if (err == 0 && process->cell == CELL_TRACER)
        err = process_give(process, "run", pipeline->run_folder);
    for (uint32_t i = 0; err == 0 && i < pipeline->config->worker.count; i++) {
        bool mine = process->cell == CELL_WORKER + i;
        if (process->cell == CELL_RX || mine) {
            snprintf(name, sizeof(name), "to_worker.%u", i);
            err = process_give(process, name, pipeline->to_worker[i].fd);
        }
        if (err == 0 && (process->cell == CELL_TX || mine)) {
            snprintf(name, sizeof(name), "to_tx.%u", i);
            err = process_give(process, name, pipeline->to_tx[i].fd);
        }
    }
    for (uint32_t i = 0; err == 0 && i < process->stored; i++)
        err = process_give(process, process->store[i].name, process->store[i].fd);
    return err < 0 ? err : process_start(process, pipeline->epoch);
}

static int spawn(struct pipeline *pipeline, struct process *process)
{
    struct cell *cell = &pipeline->cells->cell[process->cell];
    char index[16];
    char worker[16];
    char cpu[16];
    char upstream[16];
    char park[24];
    char rotation[CELL_MAX * 4];
    char hz[32];
    uint64_t park_after;

    const char *wait = wait_text(pipeline, process, &park_after);
    snprintf(index, sizeof(index), "%u", process->cell);
    snprintf(worker, sizeof(worker), "%u",
             process->cell >= CELL_WORKER ? process->cell - CELL_WORKER : 0);
    snprintf(cpu, sizeof(cpu), "%d", process->cpu);
    snprintf(upstream, sizeof(upstream), "%d", upstream_cpu(pipeline, process));
    snprintf(park, sizeof(park), "%llu", (unsigned long long)park_after);
    snprintf(hz, sizeof(hz), "%.6f", pipeline->clock.hz);
    rotation_text(pipeline, process->cell == CELL_RX ? process->cpu : -1, rotation,
                  sizeof(rotation));
    const char *const arguments[] = {
        "--name",     process->name,    "--cell", index,    "--worker", worker,         "--cpu",
        cpu,          "--upstream-cpu", upstream, "--wait", wait,       "--park-after", park,
        "--rotation", rotation,         "--hz",   hz,       NULL,
    };

    store_release(&cell->generation, load_relaxed(&cell->generation) + 1);
    (void)cell_move(cell, CELL_STARTING, CELL_BY_LAUNCHER);
    int log = open_log(pipeline, process->name);
    if (log < 0)
        return fail(pipeline, -errno, "log/%s.log: %s", process->name, strerror(errno));
    int err = process_spawn(process, (char *const *)(uintptr_t)arguments, log);
    close(log);
    if (err == 0)
        err = give_all(pipeline, process);
    return err < 0 ? fail(pipeline, err, "%s does not start: %s", process->name, strerror(-err))
                   : 0;
}

static struct process *find_process(struct pipeline *pipeline, const char *name, size_t length)
{
    for (uint32_t i = 0; i < pipeline->count; i++) {
        if (strlen(pipeline->process[i].name) == length &&
            memcmp(pipeline->process[i].name, name, length) == 0)
            return &pipeline->process[i];
    }
    return NULL;
}

static int spawn_in_order(struct pipeline *pipeline, const char *order)
{
    while (*order) {
        size_t length = strcspn(order, ",");
        struct process *process = find_process(pipeline, order, length);
        if (!process || process->pid)
            return fail(pipeline, -EINVAL,
                        "--start-order: %.*s: expected each of the stages once, such as "
                        "tracer,tx,worker0,rx",
                        (int)length, order);
        int err = spawn(pipeline, process);
        if (err < 0)
            return err;
        /* In order means that the scheduler sees them in this order, too. */
        while (cell_state(&pipeline->cells->cell[process->cell]) < CELL_READY &&
               !process_reap(process))
            nap(POLL_NS);
        order += length + (order[length] == ',');
    }
    return 0;
}

static int spawn_all(struct pipeline *pipeline, const char *order)
{
    int err = order ? spawn_in_order(pipeline, order) : 0;

    /* Consumers first: the last in the pipeline's order is the tracer, then tx. */
    for (uint32_t i = pipeline->count; err == 0 && i-- > 0;) {
        if (pipeline->process[i].pid == 0)
            err = spawn(pipeline, &pipeline->process[i]);
    }
    return err;
}

static int stage_failed(struct pipeline *pipeline, struct process *process)
{
    struct cell *cell = &pipeline->cells->cell[process->cell];
    char ending[64];

    cell->error[CELL_ERROR_MAX - 1] = '\0';
    process_ending(process, ending, sizeof(ending));
    if (cell_state(cell) == CELL_FAILED && cell->error[0])
        return fail(pipeline, -ECHILD, "%s: %s", process->name, cell->error);
    (void)cell_move(cell, CELL_DEAD, CELL_BY_LAUNCHER);
    return fail(pipeline, -ECHILD, "%s ended unasked: %s; see log/%s.log", process->name, ending,
                process->name);
}

int pipeline_tend(struct pipeline *pipeline)
{
    int err = 0;

    for (uint32_t i = 0; i < pipeline->count; i++) {
        struct process *process = &pipeline->process[i];
        bool running = process->pid != 0;
        process_receive(process, pipeline->notes);
        if (running && process_reap(process) && err == 0)
            err = stage_failed(pipeline, process);
    }
    return err;
}

static bool all_ready(const struct pipeline *pipeline, const char **who)
{
    for (uint32_t i = 0; i < pipeline->count; i++) {
        const struct process *process = &pipeline->process[i];
        if (cell_state(&pipeline->cells->cell[process->cell]) != CELL_READY) {
            *who = process->name;
            return false;
        }
    }
    return true;
}

static int await_ready(struct pipeline *pipeline)
{
    uint64_t deadline = now_ns() + pipeline->config->supervise.ready_timeout_ns;
    const char *who = "";

    while (!all_ready(pipeline, &who)) {
        int err = pipeline_tend(pipeline);
        if (err < 0)
            return err;
        if (now_ns() > deadline)
            return fail(pipeline, -ETIMEDOUT,
                        "%s is not ready within supervise.ready_timeout; see log/%s.log", who, who);
        nap(POLL_NS);
    }
    return pipeline_tend(pipeline);
}

static void want(struct pipeline *pipeline, const struct process *process, enum cell_wanted wanted)
{
    store_release(&pipeline->cells->cell[process->cell].wanted, (uint32_t)wanted);
}

int pipeline_start(struct pipeline *pipeline, const char *order)
{
    plan_processes(pipeline);
    int err = spawn_all(pipeline, order);
    if (err == 0)
        err = await_ready(pipeline);
    if (err < 0) {
        pipeline_kill(pipeline);
        return err;
    }
    for (uint32_t i = pipeline->count; i-- > 0;)
        want(pipeline, &pipeline->process[i], CELL_WANT_RUN);
    return 0;
}

/* ---- end ---- */

static int drain_one(struct pipeline *pipeline, struct process *process)
{
    uint64_t deadline = now_ns() + pipeline->config->supervise.drain_timeout_ns;

    want(pipeline, process, CELL_WANT_DRAIN);
    while (!process_reap(process)) {
        process_receive(process, pipeline->notes);
        if (now_ns() > deadline) {
            kill(process->pid, SIGKILL);
            while (!process_reap(process))
                nap(POLL_NS);
            (void)cell_move(&pipeline->cells->cell[process->cell], CELL_DEAD, CELL_BY_LAUNCHER);
            return fail(pipeline, -ETIMEDOUT,
                        "%s did not drain within supervise.drain_timeout and was killed",
                        process->name);
        }
        nap(POLL_NS);
    }
    process_receive(process, pipeline->notes);
    return process->status == 0 ? 0 : stage_failed(pipeline, process);
}

int pipeline_drain(struct pipeline *pipeline)
{
    int first = 0;

    for (uint32_t i = 0; i < pipeline->count; i++) {
        struct process *process = &pipeline->process[i];
        bool running = process->pid != 0;
        int err = running ? drain_one(pipeline, process) : 0;
        if (first == 0)
            first = err;
    }
    return first;
}

void pipeline_kill(struct pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->count; i++) {
        if (pipeline->process[i].pid)
            kill(pipeline->process[i].pid, SIGKILL);
    }
    for (uint32_t i = 0; i < pipeline->count; i++) {
        while (!process_reap(&pipeline->process[i]))
            nap(POLL_NS);
    }
}

void pipeline_destroy(struct pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->count; i++)
        process_close(&pipeline->process[i]);
    for (uint32_t i = 0; i < CELL_WORKERS_MAX; i++) {
        if (pipeline->to_worker[i].header)
            region_close(&pipeline->to_worker[i]);
        if (pipeline->to_tx[i].header)
            region_close(&pipeline->to_tx[i]);
    }
    if (pipeline->arena.header)
        region_close(&pipeline->arena);
    if (pipeline->cells_region.header)
        region_close(&pipeline->cells_region);
    if (pipeline->config_fd >= 0)
        close(pipeline->config_fd);
    json_decref(pipeline->notes);
}

uint64_t pipeline_shm_bytes(const struct pipeline *pipeline)
{
    uint64_t bytes = pipeline->cells_region.size + pipeline->arena.size;

    for (uint32_t i = 0; i < CELL_WORKERS_MAX; i++)
        bytes += pipeline->to_worker[i].size + pipeline->to_tx[i].size;
    return bytes;
}
