/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking after the processes of a pipeline: who was killed gets a successor, in the end all are drained.
 *
 * Death is what waitid says: a slow process is left alone. A process that was killed by a signal is
 * replaced, one that ended by itself has said why and is not; nor are those that a check of their own
 * (SIGABRT) or the sandbox (SIGSYS) has ended: the next one would meet the same. A handler that has crashed
 * (state failed, by a signal; worker/crash.h) is replaced too: its worker knows what to do with the request. A
 * successor finds everything where it was, in rings, lanes, cells and the descriptors left here.
 *
 * An element of `restarts`, and of counters.json:
 *
 *   { "stage", "generation", "cause", "last_tick", "noticed", "back": tsc, 0 until it runs,
 *     "waiting": messages in its rings, "first", "last": their request numbers }
 */
#include "launch/pipeline_own.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

static void want(struct pipeline *pipeline, const struct process *process, enum cell_wanted wanted)
{
    store_release(&cell_of(pipeline, process)->wanted, (uint32_t)wanted);
}

/* ---- death ---- */

/* Gone for good: `error` says why, and the others are told that nobody will take what is his. */
static int give_up(struct pipeline *pipeline, struct process *process, const char *why)
{
    struct cell *cell = cell_of(pipeline, process);
    char ending[64];

    process->gone = true;
    want(pipeline, process, CELL_WANT_STOP);
    cell_mend(cell);
    cell->error[CELL_ERROR_MAX - 1] = '\0';
    process_ending(process, ending, sizeof(ending));
    if (cell_state(cell) == CELL_FAILED && cell->error[0])
        return pipeline_fail(pipeline, -ECHILD, "%s: %s%s", process->name, cell->error, why);
    (void)cell_move(cell, CELL_DEAD, CELL_BY_LAUNCHER);
    return pipeline_fail(pipeline, -ECHILD, "%s ended unasked: %s%s; see log/%s.log", process->name,
                         ending, why, process->name);
}

/* A handler has ended it, and `error` of its cell says how: then abort() counts like the others. */
static bool has_crashed(const struct cell *cell, const struct process *process)
{
    return process->cell >= CELL_WORKER && process->status > 128 &&
           process->status != 128 + SIGSYS && cell_state(cell) == CELL_FAILED;
}

static bool was_killed(const struct cell *cell, const struct process *process)
{
    return has_crashed(cell, process) ||
           (process->status > 128 && process->status != 128 + SIGABRT &&
            process->status != 128 + SIGSYS);
}

/* One more restart now: is it within the budget? */
static bool spend(struct pipeline *pipeline)
{
    const struct config *config = pipeline->config;
    uint64_t now = clock_monotonic_ns();
    uint32_t recent = 0;
    uint64_t *oldest = &pipeline->restarted_ns[0];

    for (uint32_t i = 0; i < PIPELINE_RESTARTS_MAX; i++) {
        uint64_t at = pipeline->restarted_ns[i];
        recent += at && now - at < config->supervise.window_ns;
        if (at < *oldest)
            oldest = &pipeline->restarted_ns[i];
    }
    *oldest = now;
    return recent < config->supervise.max_restarts;
}

/* What waits for a dead stage. */
static struct ring_waiting waiting_for(const struct pipeline *pipeline,
                                       const struct process *process)
{
    struct ring_waiting all = {0};
    bool tx = process->cell == CELL_TX;
    uint32_t first = tx ? 0 : process->cell - CELL_WORKER;
    uint32_t count = tx ? pipeline->config->worker.count : process->cell >= CELL_WORKER;

    for (uint32_t i = first; i < first + count; i++) {
        struct ring_waiting one = {0};
        const struct region *ring = tx ? &pipeline->to_tx[i] : &pipeline->to_worker[i];
        if (ring_waiting(ring, &one) < 0 || one.count == 0)
            continue;
        all.first = all.count == 0 || one.first < all.first ? one.first : all.first;
        all.last = one.last > all.last ? one.last : all.last;
        all.count += one.count;
    }
    return all;
}

/* The cell of a dead process is the launcher's: what it may have written there must not end us. */
static void mend_state(struct cell *cell)
{
    if (load_relaxed(&cell->state) >= CELL_STATE_COUNT)
        store_relaxed(&cell->state, (uint32_t)CELL_FAILED);
}

static void note_death(struct pipeline *pipeline, struct process *process)
{
    struct cell *cell = cell_of(pipeline, process);
    struct ring_waiting waiting = waiting_for(pipeline, process);
    struct cell_lazy lazy = {0};
    char ending[CELL_ERROR_MAX + 64];

    cell_mend(cell);
    (void)cell_read(cell, &lazy);
    process_ending(process, ending, sizeof(ending));
    if (has_crashed(cell, process)) {
        cell->error[CELL_ERROR_MAX - 1] = '\0';
        for (char *c = cell->error; *c; c++)
            *c = *c >= ' ' && *c <= '~' ? *c : '?';
        size_t used = strlen(ending);
        snprintf(ending + used, sizeof(ending) - used, ": %s", cell->error);
    }
    process->restart =
        json_pack("{s:s, s:I, s:s, s:I, s:I, s:i, s:I, s:I, s:I}", "stage", process->name,
                  "generation", (json_int_t)load_relaxed(&cell->generation) + 1, "cause", ending,
                  "last_tick", (json_int_t)lazy.heartbeat, "noticed", (json_int_t)tsc_read(),
                  "back", 0, "waiting", (json_int_t)waiting.count, "first",
                  (json_int_t)waiting.first, "last", (json_int_t)waiting.last);
    json_array_append_new(pipeline->restarts, process->restart);
}

static int replace(struct pipeline *pipeline, struct process *process)
{
    if (!pipeline->config->supervise.restart)
        return give_up(pipeline, process, " (supervise.restart = off)");
    if (!spend(pipeline))
        return give_up(pipeline, process, ", and supervise.max_restarts is spent");
    note_death(pipeline, process);
    (void)cell_move(cell_of(pipeline, process), CELL_DEAD, CELL_BY_LAUNCHER);
    process_forget(process);
    return pipeline_spawn(pipeline, process);
}

static int ended(struct pipeline *pipeline, struct process *process)
{
    struct cell *cell = cell_of(pipeline, process);

    mend_state(cell);
    if (cell_state(cell) == CELL_DONE && load_relaxed(&cell->wanted) >= CELL_WANT_DRAIN) {
        process->gone = true;
        return 0;
    }
    if (pipeline->running && was_killed(cell, process) && cell_state(cell) != CELL_DONE)
        return replace(pipeline, process);
    return give_up(pipeline, process, "");
}

/* A successor is back, or takes too long. */
static int follow_restart(struct pipeline *pipeline, struct process *process)
{
    if (cell_state(cell_of(pipeline, process)) >= CELL_RUNNING) {
        json_object_set_new(process->restart, "back", json_integer((json_int_t)tsc_read()));
        json_array_append(pipeline->news, process->restart);
        process->restart = NULL;
    } else if (clock_monotonic_ns() - process->started_ns >
               pipeline->config->supervise.ready_timeout_ns) {
        process->restart = NULL;
        kill(process->pid, SIGKILL);
        while (!process_reap(process))
            (void)ring_nap(PIPELINE_POLL_NS);
        return give_up(pipeline, process, ", not ready within supervise.ready_timeout");
    }
    return 0;
}

bool pipeline_forwards(const struct pipeline *pipeline)
{
    return strcmp(pipeline->config->tx.sink, "reply") == 0;
}

bool pipeline_forwards_item(const struct pipeline *pipeline, const struct store_item *item)
{
    return pipeline->peers.header ? store_is_socket(item) : store_is_connection(item);
}

/* Gives tx the connections that are new. What it does not take now it is given at the next turn, and all of
 * them where it is started anew. */
static void forward(struct pipeline *pipeline)
{
    struct store *store = &pipeline->process[0].store;
    struct process *tx = &pipeline->process[pipeline->placement->stages - 1];
    bool takes = tx->control >= 0;

    for (uint32_t i = 0; takes && i < store->count; i++) {
        struct store_item *item = &store->item[i];
        if (item->given || !pipeline_forwards_item(pipeline, item))
            continue;
        takes = process_offer(tx, item) == 0;
        item->given = takes;
    }
}

int pipeline_tend(struct pipeline *pipeline)
{
    uint64_t now = clock_monotonic_ns();
    int first = 0;

    for (uint32_t i = 0; i < pipeline->count; i++) {
        struct process *process = &pipeline->process[i];
        int err = 0;
        if (process->gone)
            continue;
        /* In this order nothing is missed of what a dead one has left. */
        bool dead = process_reap(process);
        process_receive(process, pipeline->notes, pipeline->told);
        if (dead)
            err = ended(pipeline, process);
        else if (process->restart)
            err = follow_restart(pipeline, process);
        else if (pipeline->running)
            pipeline_mind_still(pipeline, process, now);
        first = first ? first : err;
    }
    if (pipeline_forwards(pipeline))
        forward(pipeline);
    pipeline->tended_ns = now;
    return first;
}

bool pipeline_restarting(const struct pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->count; i++) {
        if (pipeline->process[i].restart)
            return true;
    }
    return false;
}

uint32_t pipeline_watch(const struct pipeline *pipeline, struct pollfd fds[PIPELINE_WATCH_MAX])
{
    uint32_t count = 0;

    if (pipeline->connections.header && pipeline->process[0].control >= 0)
        fds[count++] = (struct pollfd){.fd = pipeline->process[0].control, .events = POLLIN};

    for (uint32_t i = 0; i < pipeline->count; i++) {
        if (pipeline->process[i].pid)
            fds[count++] = (struct pollfd){.fd = pipeline->process[i].pidfd, .events = POLLIN};
    }
    return count;
}

/* ---- start ---- */

static bool all_ready(const struct pipeline *pipeline, const char **who)
{
    for (uint32_t i = 0; i < pipeline->count; i++) {
        const struct process *process = &pipeline->process[i];
        if (cell_state(cell_of(pipeline, process)) != CELL_READY) {
            *who = process->name;
            return false;
        }
    }
    return true;
}

static int await_ready(struct pipeline *pipeline)
{
    uint64_t deadline = clock_monotonic_ns() + pipeline->config->supervise.ready_timeout_ns;
    const char *who = "";

    while (!all_ready(pipeline, &who)) {
        int err = pipeline_tend(pipeline);
        if (err < 0)
            return err;
        if (clock_monotonic_ns() > deadline)
            return pipeline_fail(pipeline, -ETIMEDOUT,
                                 "%s is not ready within supervise.ready_timeout; see log/%s.log",
                                 who, who);
        (void)ring_nap(PIPELINE_POLL_NS);
    }
    return pipeline_tend(pipeline);
}

int pipeline_start(struct pipeline *pipeline, const char *order)
{
    pipeline_plan(pipeline);
    int err = pipeline_spawn_all(pipeline, order);
    if (err == 0)
        err = await_ready(pipeline);
    if (err < 0) {
        pipeline_kill(pipeline);
        return err;
    }
    for (uint32_t i = pipeline->count; i-- > 0;)
        want(pipeline, &pipeline->process[i], CELL_WANT_RUN);
    pipeline->running = true;
    return 0;
}

/* ---- end ---- */

/* Kills it for good. */
static int kill_one(struct pipeline *pipeline, struct process *process)
{
    kill(process->pid, SIGKILL);
    while (!process_reap(process))
        (void)ring_nap(PIPELINE_POLL_NS);
    (void)give_up(pipeline, process, "");
    return pipeline_fail(pipeline, -ETIMEDOUT,
                         "%s did not drain within supervise.drain_timeout and was killed",
                         process->name);
}

static int drain_one(struct pipeline *pipeline, struct process *process)
{
    uint64_t deadline = clock_monotonic_ns() + pipeline->config->supervise.drain_timeout_ns;

    if (!process->gone)
        want(pipeline, process, CELL_WANT_DRAIN);
    while (!process->gone) {
        int err = pipeline_tend(pipeline);
        if (err < 0)
            return err;
        if (clock_monotonic_ns() > deadline)
            return kill_one(pipeline, process);
        if (!process->gone)
            (void)ring_nap(PIPELINE_POLL_NS);
    }
    return 0;
}

int pipeline_drain(struct pipeline *pipeline)
{
    int first = 0;

    for (uint32_t i = 0; i < pipeline->count; i++) {
        /* Another one's end does not end the draining of this one. */
        while (!pipeline->process[i].gone) {
            int err = drain_one(pipeline, &pipeline->process[i]);
            first = first ? first : err;
        }
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
            (void)ring_nap(PIPELINE_POLL_NS);
    }
}
