/* SPDX-License-Identifier: Apache-2.0 */
/* From the plan of a pipeline to its processes: names, arguments, what each is given. */
#include "launch/pipeline_own.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

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

void pipeline_plan(struct pipeline *pipeline)
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

/* Those that rx has left here: tx answers on them. */
static int give_connections(struct pipeline *pipeline, struct process *tx)
{
    struct store *store = &pipeline->process[0].store;
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < store->count; i++) {
        if (!pipeline_forwards_item(pipeline, &store->item[i]))
            continue;
        err = process_give_item(tx, &store->item[i]);
        store->item[i].given = err == 0;
    }
    return err;
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
        if (err == 0 && mine && pipeline->state[i].header) {
            snprintf(name, sizeof(name), "state.%u", i);
            err = process_give(process, name, pipeline->state[i].fd);
        }
        if (err == 0 && (process->cell == CELL_TX || mine)) {
            snprintf(name, sizeof(name), "to_tx.%u", i);
            err = process_give(process, name, pipeline->to_tx[i].fd);
        }
    }
    if (err == 0 && pipeline->connections.header &&
        (process->cell == CELL_RX || process->cell == CELL_TX))
        err = process_give(process, "connections", pipeline->connections.fd);
    if (err == 0 && pipeline->peers.header &&
        (process->cell == CELL_RX || process->cell == CELL_TX))
        err = process_give(process, "peers", pipeline->peers.fd);
    if (err == 0 && process->cell == CELL_TX && pipeline_forwards(pipeline))
        err = give_connections(pipeline, process);
    for (uint32_t i = 0; err == 0 && i < process->store.count; i++)
        err = process_give(process, process->store.item[i].name, process->store.item[i].fd);
    return err < 0 ? err : process_start(process, pipeline->epoch);
}

int pipeline_spawn(struct pipeline *pipeline, struct process *process)
{
    struct cell *cell = &pipeline->cells->cell[process->cell];
    char index[16];
    char worker[16];
    char cpu[16];
    char upstream[16];
    char park[24];
    char rotation[CELL_MAX * 4];
    char hz[32];
    char user[32] = "";
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
    if (process->cell != CELL_TRACER || pipeline->folders_lent)
        snprintf(user, sizeof(user), "%u:%u", pipeline->user.uid, pipeline->user.gid);
    const char *const arguments[] = {
        "--name",     process->name,    "--cell", index,    "--worker", worker,         "--cpu",
        cpu,          "--upstream-cpu", upstream, "--wait", wait,       "--park-after", park,
        "--rotation", rotation,         "--hz",   hz,       "--user",   user,           NULL,
    };

    store_release(&cell->generation, load_relaxed(&cell->generation) + 1);
    (void)cell_move(cell, CELL_STARTING, CELL_BY_LAUNCHER);
    int log = open_log(pipeline, process->name);
    if (log < 0)
        return pipeline_fail(pipeline, -errno, "log/%s.log: %s", process->name, strerror(errno));
    process->started_ns = clock_monotonic_ns();
    int err = process_spawn(process, (char *const *)(uintptr_t)arguments, log);
    close(log);
    if (err == 0)
        err = give_all(pipeline, process);
    if (err == -ECONNRESET) /* it has ended already: waitid says how */
        return 0;
    return err < 0 ? pipeline_fail(pipeline, err, "%s does not start: %s", process->name,
                                   strerror(-err))
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
            return pipeline_fail(pipeline, -EINVAL,
                                 "--start-order: %.*s: expected each of the stages once, such as "
                                 "tracer,tx,worker0,rx",
                                 (int)length, order);
        int err = pipeline_spawn(pipeline, process);
        if (err < 0)
            return err;
        /* In order means that the scheduler sees them in this order, too. */
        while (cell_state(&pipeline->cells->cell[process->cell]) < CELL_READY &&
               !process_reap(process))
            (void)ring_nap(PIPELINE_POLL_NS);
        order += length + (order[length] == ',');
    }
    return 0;
}

int pipeline_spawn_all(struct pipeline *pipeline, const char *order)
{
    int err = order ? spawn_in_order(pipeline, order) : 0;

    /* Consumers first: the last in the pipeline's order is the tracer, then tx. */
    for (uint32_t i = pipeline->count; err == 0 && i-- > 0;) {
        if (pipeline->process[i].pid == 0)
            err = pipeline_spawn(pipeline, &pipeline->process[i]);
    }
    return err;
}
