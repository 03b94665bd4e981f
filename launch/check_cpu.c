/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preflight of clock and CPUs.
 */
#include "launch/check_probe.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { LATENCY_US = 2 }; /* an idle state that takes longer to leave is felt */

#define CPU_PATH "/sys/devices/system/cpu"

static bool has_word(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) {
        if ((at == text || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    }
    return false;
}

static void clock_source(const struct check_context *context, struct check_result *result)
{
    char now[64] = "unknown", available[256] = "";
    const char *folder = "/sys/devices/system/clocksource/clocksource0";
    host_read(context->host, now, sizeof(now), "%s/current_clocksource", folder);
    host_read(context->host, available, sizeof(available), "%s/available_clocksource", folder);
    check_found(result, "%s", now);
    if (strcmp(now, "tsc") == 0 || strcmp(now, "arch_sys_counter") == 0)
        return;
    if (has_word(available, "tsc"))
        check_warn(result, "echo tsc | sudo tee %s/current_clocksource", folder);
    else
        check_warn(result, "boot with: clocksource=tsc tsc=reliable");
}

static void tsc(const struct check_context *context, struct check_result *result)
{
    char flags[8192];
    if (!host_field(context->host, "/proc/cpuinfo", "flags", flags, sizeof(flags))) {
        check_found(result, "counter of the architecture, invariant");
        return;
    }
    bool constant = has_word(flags, "constant_tsc"), nonstop = has_word(flags, "nonstop_tsc");
    check_found(result, "%s, %s%s", constant ? "constant" : "rate may change (no constant_tsc)",
                nonstop ? "nonstop" : "may stop in deep idle (no nonstop_tsc)",
                has_word(flags, "hypervisor") ? "; a virtual machine" : "");
    if (!constant || !nonstop)
        check_warn(result, "run on a CPU with an invariant TSC, or let the hypervisor pass it on");
}

static void cpus(const struct check_context *context, struct check_result *result)
{
    struct host_set allowed = {0};
    char online[64], mine[64];
    for (uint32_t i = 0; i < context->topology->count; i++)
        host_set_add(&allowed, context->topology->at[i].cpu);
    host_set_format(&context->topology->online, online, sizeof(online));
    host_set_format(&allowed, mine, sizeof(mine));
    check_found(result, "%s online, %s allowed; %s", online, mine,
                context->placement->own_cpu ? "each stage alone" : "stages share");
    result->asked = check_wish(context->config->isolate.own_cpu);
    if (!context->placement->own_cpu)
        check_missing(result, context->config->isolate.own_cpu,
                      "give %u CPUs: one for each stage and one for the rest",
                      context->placement->stages + 1);
}

/* Of the stages' CPUs those not in the list of a file of the kernel's. */
static struct host_set stages_without(const struct check_context *context, const char *path)
{
    char text[4096] = "";
    struct host_set set = {0}, without = {0};
    host_read(context->host, text, sizeof(text), "%s", path);
    host_set_parse(&set, text);
    for (unsigned cpu = 0; cpu < CONFIG_CPUS_MAX; cpu++) {
        if (host_set_has(&context->stages, cpu) && !host_set_has(&set, cpu))
            host_set_add(&without, cpu);
    }
    return without;
}

/* Host settings that only matter where the stages shall have their CPUs for themselves are wanted
 * then. */
static enum config_wish wish_quiet(const struct check_context *context)
{
    return context->config->isolate.own_cpu == WISH_NO ? WISH_NO : WISH_WANT;
}

static void isolation(const struct check_context *context, struct check_result *result)
{
    struct host_set scheduled = stages_without(context, CPU_PATH "/isolated");
    struct host_set ticking = stages_without(context, CPU_PATH "/nohz_full");
    char others[64], ticks[64], all[64];
    host_set_format(&scheduled, others, sizeof(others));
    host_set_format(&ticking, ticks, sizeof(ticks));
    host_set_format(&context->stages, all, sizeof(all));
    result->asked = check_wish(wish_quiet(context));
    if (host_set_count(&scheduled) == 0 && host_set_count(&ticking) == 0) {
        check_found(result, "CPU %s isolated and without timer tick", all);
        return;
    }
    check_found(result, "not isolated: %s; with timer tick: %s", others, ticks);
    check_missing(result, wish_quiet(context), "boot with: isolcpus=%s nohz_full=%s rcu_nocbs=%s",
                  all, all, all);
}

/* Online CPUs that share a core with a stage's CPU. */
static void siblings(const struct check_context *context, struct check_result *result)
{
    struct host_set shared = {0};
    char names[64], text[1024];
    for (unsigned cpu = 0; cpu < CONFIG_CPUS_MAX; cpu++) {
        struct host_set core;
        if (!host_set_has(&context->stages, cpu) ||
            !host_read(context->host, text, sizeof(text),
                       CPU_PATH "/cpu%u/topology/thread_siblings_list", cpu) ||
            !host_set_parse(&core, text))
            continue;
        for (unsigned other = 0; other < CONFIG_CPUS_MAX; other++) {
            if (other != cpu && host_set_has(&core, other) &&
                host_set_has(&context->topology->online, other))
                host_set_add(&shared, other);
        }
    }
    result->asked = check_wish(wish_quiet(context));
    host_set_format(&shared, names, sizeof(names));
    check_found(result, "siblings of the stages' CPUs: %s", names);
    if (host_set_count(&shared) > 0)
        check_missing(result, wish_quiet(context),
                      "echo off | sudo tee /sys/devices/system/cpu/smt/control");
}

static void governor(const struct check_context *context, struct check_result *result)
{
    struct host_set slow = {0};
    char name[64] = "", last[64] = "", list[64];
    bool any = false;
    for (unsigned cpu = 0; cpu < CONFIG_CPUS_MAX; cpu++) {
        if (!host_set_has(&context->stages, cpu) ||
            !host_read(context->host, name, sizeof(name),
                       CPU_PATH "/cpu%u/cpufreq/scaling_governor", cpu))
            continue;
        any = true;
        if (strcmp(name, "performance") != 0) {
            host_set_add(&slow, cpu);
            snprintf(last, sizeof(last), "%s", name);
        }
    }
    result->asked = "want";
    host_set_format(&slow, list, sizeof(list));
    if (!any)
        check_found(result, "none: the frequency is not set from here");
    else if (host_set_count(&slow) == 0)
        check_found(result, "performance");
    else
        check_found(result, "%s on CPU %s", last, list);
    if (host_set_count(&slow) > 0)
        check_warn(result, "sudo cpupower -c %s frequency-set -g performance", list);
}

/* The longest wake-up among the idle states that a CPU may enter, in us. */
static long long deepest_idle(const struct check_context *context, unsigned cpu)
{
    long long deepest = 0;
    for (unsigned state = 0; state < 16; state++) {
        long long latency =
            host_number(context->host, -1, CPU_PATH "/cpu%u/cpuidle/state%u/latency", cpu, state);
        long long disabled =
            host_number(context->host, 0, CPU_PATH "/cpu%u/cpuidle/state%u/disable", cpu, state);
        if (latency < 0)
            break;
        if (disabled == 0 && latency > deepest)
            deepest = latency;
    }
    return deepest;
}

static void idle_states(const struct check_context *context, struct check_result *result)
{
    struct host_set slow = {0};
    long long deepest = 0;
    bool spins = true;
    char list[64];
    for (uint32_t i = 0; i < context->placement->stages; i++) {
        const struct placement_stage *stage = &context->placement->stage[i];
        long long latency = deepest_idle(context, stage->cpu);
        spins = spins && stage->wait == WAIT_SPIN;
        deepest = latency > deepest ? latency : deepest;
        if (latency > LATENCY_US)
            host_set_add(&slow, stage->cpu);
    }
    host_set_format(&slow, list, sizeof(list));
    result->asked = spins ? "no" : "want";
    check_found(result, "deepest takes %lld us to leave%s", deepest,
                spins ? "; the stages spin and never enter it" : "");
    if (!spins && host_set_count(&slow) > 0)
        check_warn(result, "sudo cpupower -c %s idle-set -D %d", list, LATENCY_US);
}

/* The tightest limit of CPU time on the way up, in CPUs; 0 where there is none. */
static double tightest_quota(const struct check_context *context)
{
    double tightest = 0;
    char folder[1024], text[64];
    for (unsigned level = 0; check_cgroup(context, "cpu", level, folder, sizeof(folder)); level++) {
        long long quota = -1, period = 100000;
        if (host_read(context->host, text, sizeof(text), "%s/cpu.max", folder)) {
            if (sscanf(text, "%lld %lld", &quota, &period) != 2)
                quota = -1; /* max */
        } else {
            quota = host_number(context->host, -1, "%s/cpu.cfs_quota_us", folder);
            period = host_number(context->host, 100000, "%s/cpu.cfs_period_us", folder);
        }
        double share = quota > 0 && period > 0 ? (double)quota / (double)period : 0;
        if (share > 0 && (tightest <= 0 || share < tightest))
            tightest = share;
    }
    return tightest;
}

static void quota(const struct check_context *context, struct check_result *result)
{
    double limit = tightest_quota(context);
    unsigned busy = host_set_count(&context->stages) + 1;
    if (limit <= 0) {
        check_found(result, "no limit of CPU time");
        return;
    }
    check_found(result, "%.2f CPUs of time; %u will be busy%s", limit, busy,
                limit < busy ? ": the kernel stops us for up to 100 ms at a time" : "");
    if (limit < busy)
        check_warn(result, "lift the limit: docker run without --cpus, cpu.max = max");
}

/* May the interrupt come to a stage's CPU? What the kernel uses, else what it may use. */
static bool interrupt_hits(const struct check_context *context, const char *number)
{
    struct host_set set;
    char text[4096];
    bool known = host_read(context->host, text, sizeof(text),
                           "/proc/irq/%.16s/effective_affinity_list", number) &&
                 text[0] != '\0';
    if (!known &&
        !host_read(context->host, text, sizeof(text), "/proc/irq/%.16s/smp_affinity_list", number))
        return false;
    if (!host_set_parse(&set, text))
        return false;
    for (size_t i = 0; i < CONFIG_CPUS_MAX / 64; i++) {
        if ((set.bits[i] & context->stages.bits[i]) != 0)
            return true;
    }
    return false;
}

static void interrupts(const struct check_context *context, struct check_result *result)
{
    char path[4096], list[64];
    unsigned all = 0, hits = 0;
    snprintf(path, sizeof(path), "%s/proc/irq", context->host->root);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        all++;
        hits += interrupt_hits(context, entry->d_name);
    }
    if (folder != NULL)
        closedir(folder);
    host_set_format(&context->stages, list, sizeof(list));
    result->asked = check_wish(wish_quiet(context));
    check_found(result, "%u of %u may come to CPU %s", hits, all, list);
    if (hits > 0)
        check_missing(result, wish_quiet(context),
                      "echo %u | sudo tee /proc/irq/[0-9]*/smp_affinity_list",
                      context->placement->launcher);
}

const struct check check_cpu_list[] = {
    {"clock source", clock_source},
    {"TSC", tsc},
    {"CPUs", cpus},
    {"isolation", isolation},
    {"SMT", siblings},
    {"governor", governor},
    {"idle states", idle_states},
    {"CPU quota", quota},
    {"interrupts", interrupts},
    {NULL, NULL},
};
