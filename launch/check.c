/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/check.h"
#include "launch/check_probe.h"
#include "shm/ring.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <string.h>

static const char *const verdicts[] = {"ok", "warn", "FAIL"};
static const char *const waits[] = {"auto", "spin", "yield", "park"};

void check_found(struct check_result *result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(result->found, sizeof(result->found), format, arguments);
    va_end(arguments);
}

static void set_remedy(struct check_result *result, enum check_verdict verdict, const char *format,
                       va_list arguments)
{
    result->verdict = verdict;
    vsnprintf(result->remedy, sizeof(result->remedy), format, arguments);
}

void check_missing(struct check_result *result, enum config_wish wish, const char *remedy, ...)
{
    va_list arguments;
    result->asked = check_wish(wish);
    if (wish == WISH_NO)
        return;
    va_start(arguments, remedy);
    set_remedy(result, wish == WISH_NEED ? CHECK_FAIL : CHECK_WARN, remedy, arguments);
    va_end(arguments);
}

void check_warn(struct check_result *result, const char *remedy, ...)
{
    va_list arguments;
    va_start(arguments, remedy);
    set_remedy(result, CHECK_WARN, remedy, arguments);
    va_end(arguments);
}

const char *check_wish(enum config_wish wish)
{
    static const char *const wishes[] = {"no", "want", "need"};
    return wishes[wish];
}

void check_bytes(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    for (; value >= 1024 && unit < 4; unit++)
        value /= 1024;
    snprintf(out, 32, "%.*f %s", value < 10 && unit > 0 ? 1 : 0, value, units[unit]);
}

void check_demand(const struct config *config, struct check_demand *demand)
{
    enum { HUGE = 2 << 20, HEADER = 16384 };
    uint64_t slot = config->ring.slot_bytes > 0 ? config->ring.slot_bytes : RING_SLOT_AUTO_BYTES;
    uint64_t ring = config->ring.depth * slot + HEADER;
    uint64_t rings = 2 * (uint64_t)config->worker.count;
    uint64_t lanes = config->worker.count + 3; /* rx, workers, tx and ingress */
    demand->ring_bytes = rings * ring;
    demand->huge_pages = rings * ((ring + HUGE - 1) / HUGE);
    demand->tcp_bytes = strcmp(config->rx.source, "tcp") == 0
                            ? 2 * (uint64_t)config->rx.connections * config->rx.connection_bytes
                            : 0;
    demand->arena_bytes = lanes * (config->trace.lane_bytes + 4 * HEADER);
}

uint32_t check_run(const struct host *host, const struct config *config,
                   const struct host_topology *topology, const struct placement *placement,
                   struct check_result results[CHECK_MAX])
{
    const struct check *const lists[] = {check_cpu_list, check_memory_list, check_system_list};
    struct check_context context = {
        .host = host, .config = config, .topology = topology, .placement = placement};
    uint32_t count = 0;
    check_demand(config, &context.demand);
    for (uint32_t i = 0; i < placement->stages; i++)
        host_set_add(&context.stages, placement->stage[i].cpu);
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        for (const struct check *check = lists[i]; check->name != NULL && count < CHECK_MAX;
             check++) {
            struct check_result *result = &results[count++];
            *result = (struct check_result){.name = check->name, .asked = "always"};
            check->run(&context, result);
        }
    }
    return count;
}

enum check_verdict check_worst(const struct check_result *results, uint32_t count)
{
    enum check_verdict worst = CHECK_OK;
    for (uint32_t i = 0; i < count; i++)
        worst = results[i].verdict > worst ? results[i].verdict : worst;
    return worst;
}

/* Prints `text` from column `indent` on, broken between words before column 80. */
static void print_wrapped(FILE *out, int indent, const char *text)
{
    int column = indent;
    while (*text != '\0') {
        int word = (int)strcspn(text, " ");
        if (column > indent && column + 1 + word > 79) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", word, text);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_placement(const struct placement *placement, FILE *out)
{
    struct host_set said = {0};
    for (uint32_t i = 0; i < placement->stages; i++) {
        const struct placement_stage *stage = &placement->stage[i];
        char names[256];
        if (host_set_has(&said, stage->cpu))
            continue;
        host_set_add(&said, stage->cpu);
        placement_names(placement, stage->cpu, names, sizeof(names));
        fprintf(out, "CPU %-4u %-6s ", stage->cpu, waits[stage->wait]);
        print_wrapped(out, 16, names);
    }
    const uint16_t others[] = {placement->tracer, placement->player, placement->sink};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        char names[256];
        if (host_set_has(&said, others[i]))
            continue;
        host_set_add(&said, others[i]);
        placement_names(placement, others[i], names, sizeof(names));
        fprintf(out, "CPU %-4u        ", others[i]);
        print_wrapped(out, 16, names);
    }
    for (uint32_t i = 0; i < placement->reasons; i++) {
        fprintf(out, "degraded ");
        print_wrapped(out, 9, placement->reason[i]);
    }
}

int check_print(const struct check_result *results, uint32_t count,
                const struct placement *placement, FILE *out)
{
    enum { FOUND = 30 };
    print_placement(placement, out);
    fprintf(out, "\n%-15s %-7s%-6s %s\n", "check", "asked", "", "found");
    for (uint32_t i = 0; i < count; i++) {
        const struct check_result *result = &results[i];
        fprintf(out, "%-15s %-7s%-6s ", result->name, result->asked, verdicts[result->verdict]);
        print_wrapped(out, FOUND, result->found);
        if (result->remedy[0] != '\0')
            fprintf(out, "    mend: %s\n", result->remedy);
    }
    return ferror(out) ? -EIO : 0;
}

static json_t *placement_json(const struct placement *placement)
{
    json_t *stages = json_object(), *rotations = json_array(), *degraded = json_array();
    for (uint32_t i = 0; i < placement->stages; i++) {
        const struct placement_stage *stage = &placement->stage[i];
        json_object_set_new(
            stages, stage->name,
            json_pack("{s:i, s:s}", "cpu", (int)stage->cpu, "wait", waits[stage->wait]));
    }
    for (uint32_t i = 0; i < placement->rotations; i++) {
        const struct placement_rotation *rotation = &placement->rotation[i];
        json_t *order = json_array();
        for (uint32_t j = 0; j < rotation->count; j++)
            json_array_append_new(order, json_string(placement->stage[rotation->stage[j]].name));
        json_array_append_new(rotations,
                              json_pack("{s:i, s:o}", "cpu", (int)rotation->cpu, "order", order));
    }
    for (uint32_t i = 0; i < placement->reasons; i++)
        json_array_append_new(degraded, json_string(placement->reason[i]));
    return json_pack("{s:o, s:i, s:i, s:i, s:i, s:b, s:o, s:o}", "stages", stages, "tracer",
                     (int)placement->tracer, "player", (int)placement->player, "sink",
                     (int)placement->sink, "launcher", (int)placement->launcher, "own_cpu",
                     (int)placement->own_cpu, "rotations", rotations, "degraded", degraded);
}

int check_print_json(const struct check_result *results, uint32_t count,
                     const struct placement *placement, FILE *out)
{
    static const char *const words[] = {"ok", "warn", "fail"};
    json_t *checks = json_array();
    for (uint32_t i = 0; i < count; i++) {
        const struct check_result *result = &results[i];
        json_array_append_new(checks,
                              json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", result->name, "asked",
                                        result->asked, "verdict", words[result->verdict], "found",
                                        result->found, "remedy", result->remedy));
    }
    json_t *all = json_pack("{s:s, s:o, s:o}", "verdict", words[check_worst(results, count)],
                            "placement", placement_json(placement), "checks", checks);
    int result = all != NULL ? 0 : -ENOMEM;
    if (all != NULL && (json_dumpf(all, out, JSON_INDENT(1)) != 0 || fputc('\n', out) == EOF))
        result = -EIO;
    json_decref(all);
    return result;
}
