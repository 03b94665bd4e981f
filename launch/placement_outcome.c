/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from a placement: who takes turns with whom, who waits how, what the run lacks.
 */
#include "launch/placement.h"

#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 2, 3))) static void degrade(struct placement *out, const char *format,
                                                          ...)
{
    va_list arguments;
    if (out->reasons == PLACEMENT_REASONS_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(out->reason[out->reasons++], sizeof(out->reason[0]), format, arguments);
    va_end(arguments);
}

void placement_names(const struct placement *placement, unsigned cpu, char *out, size_t size)
{
    const char *name[PLACEMENT_STAGES_MAX + 3];
    uint32_t count = 0;
    size_t used = 0;
    for (uint32_t i = 0; i < placement->stages; i++) {
        if (placement->stage[i].cpu == cpu)
            name[count++] = placement->stage[i].name;
    }
    if (placement->tracer == cpu)
        name[count++] = "tracer";
    if (placement->player == cpu)
        name[count++] = "player";
    if (placement->sink == cpu)
        name[count++] = "sink";
    out[0] = '\0';
    for (uint32_t i = 0; i < count && used < size; i++) {
        const char *joint = i == 0 ? "" : (i == count - 1 ? " and " : ", ");
        used += (size_t)snprintf(out + used, size - used, "%s%s", joint, name[i]);
    }
}

static void find_rotations(struct placement *out)
{
    for (uint32_t i = 0; i < out->stages; i++) {
        struct placement_rotation next = {.cpu = out->stage[i].cpu};
        bool first = true;
        for (uint32_t j = 0; j < out->stages; j++) {
            if (out->stage[j].cpu != next.cpu)
                continue;
            first = first && j >= i;
            next.stage[next.count++] = (uint8_t)j;
        }
        if (first && next.count > 1)
            out->rotation[out->rotations++] = next;
    }
}

static void choose_wait(const struct config *config, struct placement *out)
{
    out->own_cpu = true;
    for (uint32_t i = 0; i < out->stages; i++) {
        struct placement_stage *stage = &out->stage[i];
        stage->alone =
            stage->cpu != out->tracer && stage->cpu != out->player && stage->cpu != out->sink;
        for (uint32_t j = 0; j < out->stages; j++)
            stage->alone = stage->alone && (j == i || out->stage[j].cpu != stage->cpu);
        out->own_cpu = out->own_cpu && stage->alone;
        stage->may_park = config->sched.wait == WAIT_AUTO && !stage->alone;
        stage->wait = config->sched.wait;
        if (config->sched.wait == WAIT_AUTO || (config->sched.wait == WAIT_SPIN && !stage->alone))
            stage->wait = stage->alone ? WAIT_SPIN : WAIT_YIELD;
    }
}

/* One sentence for each CPU that a stage does not have for itself. */
static void find_reasons(const struct config *config, struct placement *out)
{
    struct host_set said = {0};
    for (uint32_t i = 0; i < out->stages; i++) {
        const struct placement_stage *stage = &out->stage[i];
        char names[224];
        if (stage->alone || host_set_has(&said, stage->cpu))
            continue;
        host_set_add(&said, stage->cpu);
        placement_names(out, stage->cpu, names, sizeof(names));
        degrade(out, "%s share CPU %u", names, stage->cpu);
        if (config->sched.wait == WAIT_SPIN)
            degrade(out, "sched.wait = spin is yield on CPU %u: it is shared", stage->cpu);
    }
}

void placement_conclude(const struct config *config, struct placement *placement)
{
    find_rotations(placement);
    choose_wait(config, placement);
    find_reasons(config, placement);
}
