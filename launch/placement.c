/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/placement.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { NOWHERE = UINT16_MAX };

struct plan {
    const struct config *config;
    const struct host_topology *topology;
    struct placement *out;
    struct host_set taken;    /* CPUs the configuration gives to stages */
    struct host_set reserved; /* CPUs it gives to the tracer and the lab */
    uint32_t wanted;          /* CPUs to find for the other stages */
    uint16_t rest;            /* CPU kept for what is no stage, or NOWHERE */
};

static const struct host_cpu *find_cpu(const struct host_topology *topology, unsigned cpu)
{
    for (uint32_t i = 0; i < topology->count; i++) {
        if (topology->at[i].cpu == cpu)
            return &topology->at[i];
    }
    return NULL;
}

static uint16_t last_cpu(const struct host_topology *topology)
{
    return topology->at[topology->count - 1].cpu;
}

/* 1. What the configuration says. */

static int check_cpus(const struct plan *plan, const char *key, const struct config_cpus *cpus,
                      char *error)
{
    struct host_set allowed = {0};
    char list[64];
    for (uint32_t i = 0; i < plan->topology->count; i++)
        host_set_add(&allowed, plan->topology->at[i].cpu);
    host_set_format(&allowed, list, sizeof(list));
    for (uint32_t i = 0; i < cpus->count; i++) {
        if (host_set_has(&allowed, cpus->cpu[i]))
            continue;
        return config_blame(plan->config, key, error,
                            "CPU %u is not %s; expected CPUs of %s; try %u", cpus->cpu[i],
                            host_set_has(&plan->topology->online, cpus->cpu[i])
                                ? "allowed for this process (taskset, cpuset)"
                                : "online",
                            list, last_cpu(plan->topology));
    }
    return 0;
}

static int check_all(const struct plan *plan, char *error)
{
    const struct config *config = plan->config;
    const struct {
        const char *key;
        const struct config_cpus *cpus;
    } lists[] = {{"rx.cpu", &config->rx.cpu},
                 {"worker.cpu", &config->worker.cpu},
                 {"tx.cpu", &config->tx.cpu},
                 {"tracer.cpu", &config->tracer.cpu},
                 {"lab.cpu", &config->lab.cpu}};
    char nodes[64];
    int result = 0;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]) && result == 0; i++)
        result = check_cpus(plan, lists[i].key, lists[i].cpus, error);
    if (result == 0 && config->memory.numa >= 0 &&
        !host_set_has(&plan->topology->nodes, (unsigned)config->memory.numa)) {
        host_set_format(&plan->topology->nodes, nodes, sizeof(nodes));
        result = config_blame(config, "memory.numa", error,
                              "there is no such node; expected one of %s; try auto", nodes);
    }
    return result;
}

static uint16_t named_cpu(const struct config_cpus *cpus, uint32_t index)
{
    if (cpus->count == 0)
        return NOWHERE;
    return cpus->cpu[cpus->count > 1 ? index : 0];
}

static void name_stages(struct plan *plan)
{
    const struct config *config = plan->config;
    struct placement *out = plan->out;
    out->stages = config->worker.count + 2;
    for (uint32_t i = 0; i < out->stages; i++) {
        struct placement_stage *stage = &out->stage[i];
        if (i == 0) {
            snprintf(stage->name, sizeof(stage->name), "rx");
            stage->cpu = named_cpu(&config->rx.cpu, 0);
        } else if (i == out->stages - 1) {
            snprintf(stage->name, sizeof(stage->name), "tx");
            stage->cpu = named_cpu(&config->tx.cpu, 0);
        } else {
            snprintf(stage->name, sizeof(stage->name), "worker%u", (uint16_t)(i - 1));
            stage->cpu = named_cpu(&config->worker.cpu, i - 1);
        }
        if (stage->cpu != NOWHERE)
            host_set_add(&plan->taken, stage->cpu);
    }
    out->tracer = named_cpu(&config->tracer.cpu, 0);
    out->player = named_cpu(&config->lab.cpu, 0);
    out->sink = named_cpu(&config->lab.cpu, 1);
    const uint16_t others[] = {out->tracer, out->player, out->sink};
    for (size_t i = 0; i < 3; i++) {
        if (others[i] != NOWHERE)
            host_set_add(&plan->reserved, others[i]);
    }
}

static bool is_free(const struct plan *plan, const struct host_cpu *at)
{
    return at->cpu != plan->rest && !host_set_has(&plan->taken, at->cpu) &&
           !host_set_has(&plan->reserved, at->cpu);
}

/* How many CPUs the stages without one should get. */
static uint32_t count_wanted(const struct plan *plan)
{
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < plan->out->stages; i++)
        wanted += plan->out->stage[i].cpu == NOWHERE;
    if (plan->config->isolate.own_cpu == WISH_NO && wanted > 0)
        return host_set_count(&plan->taken) > 0 ? 0 : 1;
    return wanted;
}

/*
 * The CPU kept for what is no stage: the lowest that no stage was given. One that tracer or lab
 * were given serves where the stages need all others.
 */
static uint16_t pick_rest(const struct plan *plan)
{
    const struct host_topology *topology = plan->topology;
    uint32_t free = 0;
    for (uint32_t i = 0; i < topology->count; i++)
        free += is_free(plan, &topology->at[i]);
    for (int round = free > plan->wanted ? 1 : 0; round < 4; round++) {
        for (uint32_t i = 0; i < topology->count; i++) {
            const struct host_cpu *at = &topology->at[i];
            bool reserved = host_set_has(&plan->reserved, at->cpu);
            bool suits = round == 0   ? reserved
                         : round == 1 ? !reserved && !at->isolated
                         : round == 2 ? !reserved
                                      : true;
            if (suits && !host_set_has(&plan->taken, at->cpu))
                return at->cpu;
        }
    }
    return topology->at[0].cpu;
}

/* 2. CPUs for the stages that have none yet. */

/* Cores that are free on a node; isolated ones outweigh all others. */
static unsigned node_weight(const struct plan *plan, unsigned node)
{
    struct host_set cores = {0}, isolated = {0};
    for (uint32_t i = 0; i < plan->topology->count; i++) {
        const struct host_cpu *at = &plan->topology->at[i];
        if (at->node == node && is_free(plan, at))
            host_set_add(at->isolated ? &isolated : &cores, at->core);
    }
    return host_set_count(&isolated) * CONFIG_CPUS_MAX + host_set_count(&cores);
}

/* The node the stages should stand on: as asked, where a stage stands already, or where there is
 * room. */
static unsigned pick_node(const struct plan *plan)
{
    unsigned best = 0;
    if (plan->config->memory.numa >= 0)
        return (unsigned)plan->config->memory.numa;
    for (uint32_t i = 0; i < plan->out->stages; i++) {
        if (plan->out->stage[i].cpu != NOWHERE)
            return find_cpu(plan->topology, plan->out->stage[i].cpu)->node;
    }
    for (unsigned node = 1; node < CONFIG_CPUS_MAX; node++) {
        if (host_set_has(&plan->topology->nodes, node) &&
            node_weight(plan, node) > node_weight(plan, best))
            best = node;
    }
    return best;
}

/* The free CPU that suits a stage best, which is then taken; NOWHERE where none is left. */
static uint16_t take_cpu(struct plan *plan, unsigned node, struct host_set *cores)
{
    const struct host_cpu *best = NULL;
    unsigned best_cost = UINT32_MAX;
    uint16_t rest_core = find_cpu(plan->topology, plan->rest)->core;
    for (uint32_t i = 0; i < plan->topology->count; i++) {
        const struct host_cpu *at = &plan->topology->at[i];
        unsigned cost = (at->isolated ? 0U : 8U) + (at->node == node ? 0U : 4U) +
                        (host_set_has(cores, at->core) ? 2U : 0U) +
                        (at->core == rest_core ? 1U : 0U);
        if (is_free(plan, at) && cost < best_cost) {
            best = at;
            best_cost = cost;
        }
    }
    if (best == NULL)
        return NOWHERE;
    host_set_add(&plan->taken, best->cpu);
    host_set_add(cores, best->core);
    return best->cpu;
}

/*
 * Spreads `count` stages (in pipeline order) over `cpus` CPUs: neighbours share; but where every
 * worker can have a CPU of its own, rx and tx share, so that all workers have it equally good.
 */
static void spread(struct placement *out, const uint8_t *stage, uint32_t count, const uint16_t *cpu,
                   uint32_t cpus)
{
    bool ends =
        count > 2 && cpus == count - 1 && stage[0] == 0 && stage[count - 1] == out->stages - 1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = ends ? i % (count - 1) : i * cpus / count;
        out->stage[stage[i]].cpu = cpu[at];
    }
}

static void place_stages(struct plan *plan)
{
    struct placement *out = plan->out;
    uint8_t stage[PLACEMENT_STAGES_MAX];
    uint16_t cpu[PLACEMENT_STAGES_MAX];
    uint32_t count = 0, cpus = 0;
    struct host_set cores = {0};
    unsigned node = pick_node(plan);
    for (uint32_t i = 0; i < out->stages; i++) {
        if (out->stage[i].cpu == NOWHERE)
            stage[count++] = (uint8_t)i;
        else
            host_set_add(&cores, find_cpu(plan->topology, out->stage[i].cpu)->core);
    }
    uint16_t beside = NOWHERE; /* a CPU that a stage was given, for those that find none */
    for (unsigned id = 0; id < CONFIG_CPUS_MAX; id++) {
        if (host_set_has(&plan->taken, id))
            beside = (uint16_t)id;
    }
    while (cpus < plan->wanted && (cpu[cpus] = take_cpu(plan, node, &cores)) != NOWHERE)
        cpus++;
    if (cpus == 0 && count > 0)
        cpu[cpus++] = beside != NOWHERE ? beside : last_cpu(plan->topology);
    if (count > 0)
        spread(out, stage, count, cpu, cpus);
}

/* 3. Everything else: away from the stages' cores where possible, the player by itself. */

static void place_rest(struct plan *plan)
{
    struct placement *out = plan->out;
    struct host_set stages = {0}, cores = {0};
    uint16_t spare[3] = {plan->rest, plan->rest, plan->rest};
    uint32_t count = 1;
    for (uint32_t i = 0; i < out->stages; i++) {
        host_set_add(&stages, out->stage[i].cpu);
        host_set_add(&cores, find_cpu(plan->topology, out->stage[i].cpu)->core);
    }
    for (uint32_t i = 0; i < plan->topology->count && count < 3; i++) {
        const struct host_cpu *at = &plan->topology->at[i];
        if (at->cpu != plan->rest && !host_set_has(&stages, at->cpu) &&
            !host_set_has(&plan->reserved, at->cpu) && !host_set_has(&cores, at->core) &&
            !at->isolated)
            spare[count++] = at->cpu;
    }
    out->launcher = plan->rest;
    if (out->player == NOWHERE) {
        out->player = spare[count > 1 ? 1 : 0];
        out->sink = spare[count > 2 ? 2 : 0];
    }
    if (out->tracer == NOWHERE)
        out->tracer = plan->rest;
}

static int refuse_sharing(const struct plan *plan, char *error)
{
    uint32_t needed = plan->out->stages + 1, count = plan->topology->count;
    config_blame(plan->config, "isolate.own_cpu", error,
                 "%s; expected %u CPUs (one a stage, one for the rest), %u allowed; try %s",
                 plan->out->reason[0], needed, count, count < needed ? "want" : "cpu = auto");
    return -EBUSY;
}

int placement_plan(const struct config *config, const struct host_topology *topology,
                   struct placement *placement, char error[CONFIG_ERROR_MAX])
{
    struct plan plan = {.config = config, .topology = topology, .out = placement, .rest = NOWHERE};
    memset(placement, 0, sizeof(*placement));
    error[0] = '\0';
    int result = check_all(&plan, error);
    if (result != 0)
        return result;
    name_stages(&plan);
    plan.wanted = count_wanted(&plan);
    plan.rest = pick_rest(&plan);
    place_stages(&plan);
    place_rest(&plan);
    placement_conclude(config, placement);
    if (config->isolate.own_cpu == WISH_NEED && !placement->own_cpu)
        return refuse_sharing(&plan, error);
    return 0;
}
