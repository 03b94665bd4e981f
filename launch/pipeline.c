/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/pipeline_own.h"

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

enum { CALIBRATION_NS = 50000000 };

int pipeline_fail(struct pipeline *pipeline, int err, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(pipeline->error, sizeof(pipeline->error), format, arguments);
    va_end(arguments);
    return err;
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
        (void)ring_nap(CALIBRATION_NS - (last.raw_ns - pipeline->first.raw_ns));
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
        return pipeline_fail(
            pipeline, err,
            "ring %s: no memory for %u slots of %u bytes: %s; make ring.depth smaller", name,
            config->ring.depth, slot, strerror(-err));
    if (config->memory.pages == PAGES_NEED_2M && region->page_bytes == PAGE_BYTES &&
        region->size >= 2 << 20)
        return pipeline_fail(pipeline, -ENOMEM,
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

/* Where replies go: tx reads it, and says of connections what it has answered. */
static int create_connections(struct pipeline *pipeline)
{
    const struct region_place anywhere = {.numa_node = -1};
    const struct config *config = pipeline->config;
    int err = 0;

    if (strcmp(config->rx.source, "tcp") == 0)
        err = connections_create(&pipeline->connections, pipeline->epoch, &anywhere);
    else if (strcmp(config->rx.source, "udp") == 0 && strcmp(config->tx.sink, "reply") == 0)
        err = peers_create(&pipeline->peers, pipeline->epoch, &anywhere);
    return err < 0 ? pipeline_fail(pipeline, err, "table of connections: %s", strerror(-err)) : 0;
}

/* What a worker's handler keeps, near its worker. */
static int create_states(struct pipeline *pipeline)
{
    uint64_t bytes = pipeline->handler->state_bytes;
    char name[48];

    for (uint32_t i = 0; bytes && i < pipeline->config->worker.count; i++) {
        struct region_place place = ring_place(pipeline, pipeline->placement->stage[1 + i].cpu);
        snprintf(name, sizeof(name), "tickline-state.%u", i);
        int err = state_create(&pipeline->state[i], name, bytes, pipeline->epoch, &place);
        if (err < 0)
            return pipeline_fail(pipeline, err, "%s: no memory for twice %llu bytes: %s", name,
                                 (unsigned long long)bytes, strerror(-err));
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
        return pipeline_fail(
            pipeline, err,
            "%s: no room for %u trace lanes of %llu bytes; make trace.lane smaller or: "
            "mount -o remount,size=50%% /dev/shm",
            pipeline->runfile->arena, count, (unsigned long long)config->trace.lane_bytes);
    if (err == 0)
        arena_name_points(&pipeline->arena, pipeline->handler->point, pipeline->handler->points);
    return err < 0 ? pipeline_fail(pipeline, err,
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
    return err < 0 ? pipeline_fail(pipeline, err, "configuration: %s", strerror(-err)) : 0;
}

int pipeline_create(struct pipeline *pipeline)
{
    const struct region_place anywhere = {.numa_node = -1};

    pipeline->config_fd = -1;
    store_make_room(store_descriptors(pipeline->config, pipeline->placement->stages));
    pipeline->notes = json_object();
    pipeline->restarts = json_array();
    pipeline->news = json_array();
    pipeline->told = json_array();
    if (getrandom(&pipeline->epoch, sizeof(pipeline->epoch), 0) < 0)
        return pipeline_fail(pipeline, -errno, "getrandom: %s", strerror(errno));
    pipeline->epoch |= 1;
    int err = user_find(pipeline->config, &pipeline->user, pipeline->error);
    if (err < 0)
        return err;
    err = cells_create(&pipeline->cells_region, pipeline->epoch, &anywhere);
    if (err < 0)
        return pipeline_fail(pipeline, err, "stage cells: %s", strerror(-err));
    pipeline->cells = cells_of(&pipeline->cells_region);
    err = create_rings(pipeline);
    if (err == 0)
        err = create_connections(pipeline);
    if (err == 0)
        err = create_states(pipeline);
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

void pipeline_destroy(struct pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->count; i++)
        process_close(&pipeline->process[i]);
    for (uint32_t i = 0; i < CELL_WORKERS_MAX; i++) {
        if (pipeline->to_worker[i].header)
            region_close(&pipeline->to_worker[i]);
        if (pipeline->to_tx[i].header)
            region_close(&pipeline->to_tx[i]);
        if (pipeline->state[i].header)
            region_close(&pipeline->state[i]);
    }
    if (pipeline->arena.header)
        region_close(&pipeline->arena);
    if (pipeline->cells_region.header)
        region_close(&pipeline->cells_region);
    if (pipeline->connections.header)
        region_close(&pipeline->connections);
    if (pipeline->peers.header)
        region_close(&pipeline->peers);
    if (pipeline->config_fd >= 0)
        close(pipeline->config_fd);
    json_decref(pipeline->notes);
    json_decref(pipeline->restarts);
    json_decref(pipeline->news);
    json_decref(pipeline->told);
}

uint64_t pipeline_shm_bytes(const struct pipeline *pipeline)
{
    uint64_t bytes = pipeline->cells_region.size + pipeline->arena.size +
                     pipeline->connections.size + pipeline->peers.size;

    for (uint32_t i = 0; i < CELL_WORKERS_MAX; i++)
        bytes += pipeline->to_worker[i].size + pipeline->to_tx[i].size + pipeline->state[i].size;
    return bytes;
}
