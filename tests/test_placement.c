/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement on hosts that are made up: `0 1 2/3` is a list of cores, the CPUs of one core joined by
 * `/`;
 * `|` begins the next NUMA node, `*` marks an isolated CPU.
 */
#include "launch/placement.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_cpu(const void *a, const void *b)
{
    return ((const struct host_cpu *)a)->cpu - ((const struct host_cpu *)b)->cpu;
}

static void host_of(const char *drawing, struct host_topology *topology)
{
    uint16_t node = 0, core = 0;
    bool joined = false;
    memset(topology, 0, sizeof(*topology));
    host_set_add(&topology->nodes, 0);
    while (*drawing != '\0') {
        char *end;
        if (*drawing == '|')
            host_set_add(&topology->nodes, ++node);
        if (*drawing < '0' || *drawing > '9') {
            joined = *drawing == '/';
            drawing++;
            continue;
        }
        uint16_t cpu = (uint16_t)strtoul(drawing, &end, 10);
        core = joined ? core : cpu;
        topology->at[topology->count++] =
            (struct host_cpu){.cpu = cpu, .core = core, .node = node, .isolated = *end == '*'};
        host_set_add(&topology->online, cpu);
        drawing = end + (*end == '*');
    }
    qsort(topology->at, topology->count, sizeof(topology->at[0]), by_cpu);
}

/* `rx1+ w2+ x3+ t0 p0 s0`: CPU of rx, workers, tx, tracer, player, sink; `+` spins, `~` yields, `_`
 * parks. */
static void outcome(const struct placement *placement, char *out, size_t size)
{
    size_t used = 0;
    for (uint32_t i = 0; i < placement->stages; i++) {
        const struct placement_stage *stage = &placement->stage[i];
        used += (size_t)snprintf(out + used, size - used, "%s%u%c ",
                                 i == 0                       ? "rx"
                                 : i == placement->stages - 1 ? "tx"
                                                              : "w",
                                 stage->cpu, "?+~_"[stage->wait]);
    }
    snprintf(out + used, size - used, "t%u p%u s%u", placement->tracer, placement->player,
             placement->sink);
}

/* Plans for the host with overrides (NULL ends them) on top of the defaults. */
static int plan(const char *drawing, struct placement *placement, char error[CONFIG_ERROR_MAX], ...)
{
    static struct host_topology topology;
    struct config config;
    struct config_override overrides[8];
    size_t count = 0;
    va_list arguments;
    va_start(arguments, error);
    for (const char *text; (text = va_arg(arguments, const char *)) != NULL;)
        overrides[count++] = (struct config_override){text, false};
    va_end(arguments);
    host_of(drawing, &topology);
    CU_ASSERT_EQUAL_FATAL(config_load(&config, "/dev/null", overrides, count, error), 0);
    int result = placement_plan(&config, &topology, placement, error);
    config_free(&config);
    return result;
}

static bool same(const char *found, const char *expected)
{
    if (strcmp(found, expected) == 0)
        return true;
    fprintf(stderr, "\n  expected: %s\n  found:    %s\n", expected, found);
    return false;
}

static const struct {
    const char *host, *first, *second, *outcome;
    const char *reason; /* the first one; NULL: not degraded */
} placed[] = {
    /* enough CPUs: one each, the lowest for the rest */
    {"0 1 2 3", NULL, NULL, "rx1+ w2+ tx3+ t0 p0 s0", NULL},
    {"0 1 2 3 4 5 6 7", NULL, NULL, "rx1+ w2+ tx3+ t0 p4 s5", NULL},
    {"0 1 2 3 4", NULL, NULL, "rx1+ w2+ tx3+ t0 p4 s0", NULL},
    {"4 5 6 7", NULL, NULL, "rx5+ w6+ tx7+ t4 p4 s4", NULL},
    {"0 1 2 3 4 5 6 7", "worker.count=4", NULL, "rx1+ w2+ w3+ w4+ w5+ tx6+ t0 p7 s0", NULL},
    /* fewer: the stages share, but for the CPU of the rest */
    {"0", NULL, NULL, "rx0~ w0~ tx0~ t0 p0 s0",
     "rx, worker0, tx, tracer, player and sink share CPU 0"},
    {"0 1", NULL, NULL, "rx1~ w1~ tx1~ t0 p0 s0", "rx, worker0 and tx share CPU 1"},
    {"0 1", "worker.count=3", NULL, "rx1~ w1~ w1~ w1~ tx1~ t0 p0 s0",
     "rx, worker0, worker1, worker2 and tx share CPU 1"},
    {"0 1 2", NULL, NULL, "rx1~ w2+ tx1~ t0 p0 s0", "rx and tx share CPU 1"},
    {"0 1 2 3", "worker.count=2", NULL, "rx1~ w2+ w3+ tx1~ t0 p0 s0", "rx and tx share CPU 1"},
    {"0 1 2 3", "worker.count=4", NULL, "rx1~ w1~ w2~ w2~ w3~ tx3~ t0 p0 s0",
     "rx and worker0 share CPU 1"},
    /* cores and siblings */
    {"0/4 1/5 2/6 3/7", NULL, NULL, "rx1+ w2+ tx3+ t0 p4 s0", NULL},
    {"0/1 2/3 4/5 6/7", NULL, NULL, "rx2+ w4+ tx6+ t0 p1 s0", NULL},
    {"0/1 2/3", NULL, NULL, "rx2+ w1+ tx3+ t0 p0 s0", NULL},
    {"0/2 1/3", NULL, NULL, "rx1+ w2+ tx3+ t0 p0 s0", NULL},
    /* NUMA nodes */
    {"0 1 2 3|4 5 6 7", NULL, NULL, "rx4+ w5+ tx6+ t0 p1 s2", NULL},
    {"0 1 2 3|4 5 6 7", "memory.numa=0", NULL, "rx1+ w2+ tx3+ t0 p4 s5", NULL},
    {"0 1 2 3 4|5 6 7", "rx.cpu=6", NULL, "rx6+ w5+ tx7+ t0 p1 s2", NULL},
    /* isolated CPUs are for stages */
    {"0 1 2 3 4 5* 6* 7*", NULL, NULL, "rx5+ w6+ tx7+ t0 p1 s2", NULL},
    {"0* 1* 2* 3", NULL, NULL, "rx0+ w1+ tx2+ t3 p3 s3", NULL},
    {"0 1 2 3*", NULL, NULL, "rx3+ w1+ tx2+ t0 p0 s0", NULL},
    /* what the configuration says */
    {"0 1 2 3", "rx.cpu=0", NULL, "rx0+ w2+ tx3+ t1 p1 s1", NULL},
    {"0 1 2 3", "tracer.cpu=3", NULL, "rx0+ w1+ tx2+ t3 p3 s3", NULL},
    {"0 1 2 3 4 5 6 7", "tracer.cpu=3", NULL, "rx1+ w2+ tx4+ t3 p5 s6", NULL},
    {"0 1 2 3 4 5 6 7", "lab.cpu=2,1", NULL, "rx3+ w4+ tx5+ t0 p2 s1", NULL},
    {"0 1 2 3 4 5 6 7", "lab.cpu=2", NULL, "rx1+ w3+ tx4+ t0 p2 s2", NULL},
    {"0 1 2 3", "rx.cpu=2", "tx.cpu=2", "rx2~ w1+ tx2~ t0 p3 s0", "rx and tx share CPU 2"},
    {"0 1 2 3 4 5", "worker.count=2", "worker.cpu=5,4", "rx1+ w5+ w4+ tx2+ t0 p3 s0", NULL},
    {"0 1 2 3 4 5", "worker.count=2", "worker.cpu=4", "rx1+ w4~ w4~ tx2+ t0 p3 s5",
     "worker0 and worker1 share CPU 4"},
    {"0 1", "rx.cpu=1", NULL, "rx1~ w1~ tx1~ t0 p0 s0", "rx, worker0 and tx share CPU 1"},
    {"0 1", "rx.cpu=0", NULL, "rx0~ w0~ tx0~ t1 p1 s1", "rx, worker0 and tx share CPU 0"},
    {"0 1 2 3", "tracer.cpu=1", "rx.cpu=1", "rx1~ w2+ tx3+ t1 p0 s0", "rx and tracer share CPU 1"},
    /* waiting */
    {"0 1 2 3", "sched.wait=yield", NULL, "rx1~ w2~ tx3~ t0 p0 s0", NULL},
    {"0 1 2 3", "sched.wait=park", NULL, "rx1_ w2_ tx3_ t0 p0 s0", NULL},
    {"0 1 2", "sched.wait=spin", NULL, "rx1~ w2+ tx1~ t0 p0 s0", "rx and tx share CPU 1"},
    /* no CPU of their own */
    {"0 1 2 3", "isolate.own_cpu=no", NULL, "rx1~ w1~ tx1~ t0 p2 s3",
     "rx, worker0 and tx share CPU 1"},
    {"0 1 2 3", "isolate.own_cpu=no", "rx.cpu=3", "rx3~ w3~ tx3~ t0 p1 s2",
     "rx, worker0 and tx share CPU 3"},
};

static void test_placed(void)
{
    for (size_t i = 0; i < sizeof(placed) / sizeof(placed[0]); i++) {
        static struct placement placement;
        char error[CONFIG_ERROR_MAX], found[256];
        CU_ASSERT_EQUAL(
            plan(placed[i].host, &placement, error, placed[i].first, placed[i].second, NULL), 0);
        outcome(&placement, found, sizeof(found));
        CU_ASSERT(same(found, placed[i].outcome));
        CU_ASSERT_EQUAL(placement.own_cpu, placed[i].reason == NULL);
        CU_ASSERT_EQUAL(placement.reasons > 0, placed[i].reason != NULL);
        CU_ASSERT(same(placement.reason[0], placed[i].reason != NULL ? placed[i].reason : ""));
    }
}

/* Whatever the host: a stage spins only where it is alone, and rotations hold each shared stage
 * once. */
static void test_always(void)
{
    for (unsigned cpus = 1; cpus <= 24; cpus++) {
        for (unsigned workers = 1; workers <= CONFIG_WORKERS_MAX; workers++) {
            static struct placement placement;
            char host[256] = "", count[32], error[CONFIG_ERROR_MAX];
            unsigned shared = 0, alone = 0;
            for (unsigned cpu = 0; cpu < cpus; cpu++)
                snprintf(host + strlen(host), sizeof(host) - strlen(host), "%u ", cpu);
            snprintf(count, sizeof(count), "worker.count=%u", workers);
            CU_ASSERT_EQUAL(plan(host, &placement, error, count, NULL), 0);
            CU_ASSERT_EQUAL(placement.own_cpu, cpus >= workers + 3);
            for (uint32_t i = 0; i < placement.stages; i++) {
                alone += placement.stage[i].alone;
                CU_ASSERT_EQUAL(placement.stage[i].wait == WAIT_SPIN, placement.stage[i].alone);
                CU_ASSERT_EQUAL(placement.stage[i].may_park, !placement.stage[i].alone);
                CU_ASSERT(placement.stage[i].cpu != 0 || cpus == 1);
            }
            for (uint32_t i = 0; i < placement.rotations; i++) {
                const struct placement_rotation *rotation = &placement.rotation[i];
                shared += rotation->count;
                for (uint32_t j = 1; j < rotation->count; j++)
                    CU_ASSERT(rotation->stage[j - 1] < rotation->stage[j]);
            }
            CU_ASSERT_EQUAL(shared + alone, workers + 2);
        }
    }
}

static void test_rotation(void)
{
    static struct placement placement;
    char error[CONFIG_ERROR_MAX];
    CU_ASSERT_EQUAL(plan("0 1 2 3", &placement, error, "worker.count=4", NULL), 0);
    CU_ASSERT_EQUAL(placement.rotations, 3);
    CU_ASSERT_EQUAL(placement.rotation[0].cpu, 1);
    CU_ASSERT_EQUAL(placement.rotation[0].count, 2);
    CU_ASSERT(same(placement.stage[placement.rotation[0].stage[0]].name, "rx"));
    CU_ASSERT(same(placement.stage[placement.rotation[0].stage[1]].name, "worker0"));
    CU_ASSERT(same(placement.stage[placement.rotation[2].stage[1]].name, "tx"));
    CU_ASSERT_EQUAL(plan("0 1 2 3", &placement, error, NULL), 0);
    CU_ASSERT_EQUAL(placement.rotations, 0);
}

static void test_spin_on_shared(void)
{
    static struct placement placement;
    char error[CONFIG_ERROR_MAX];
    CU_ASSERT_EQUAL(plan("0 1", &placement, error, "sched.wait=spin", NULL), 0);
    CU_ASSERT_EQUAL(placement.reasons, 2);
    CU_ASSERT(same(placement.reason[1], "sched.wait = spin is yield on CPU 1: it is shared"));
    CU_ASSERT_FALSE(placement.stage[0].may_park);
}

static const struct {
    const char *host, *first, *second;
    int status;
    const char *error;
} refused[] = {
    {"0 1", "rx.cpu=7", NULL, -EINVAL,
     "command line: rx.cpu = 7: CPU 7 is not online; expected CPUs of 0-1; try 1"},
    {"0 1 2 3", "worker.count=2", "worker.cpu=3-4", -EINVAL,
     "command line: worker.cpu = 3-4: CPU 4 is not online; expected CPUs of 0-3; try 3"},
    {"0 1", "lab.cpu=0,9", NULL, -EINVAL,
     "command line: lab.cpu = 0,9: CPU 9 is not online; expected CPUs of 0-1; try 1"},
    {"0 1|2 3", "memory.numa=2", NULL, -EINVAL,
     "command line: memory.numa = 2: there is no such node; expected one of 0-1; try auto"},
    {"0 1", "isolate.own_cpu=need", NULL, -EBUSY,
     "command line: isolate.own_cpu = need: rx, worker0 and tx share CPU 1; expected 4 CPUs (one "
     "a stage, one for the rest), 2 allowed; try want"},
    {"0 1 2 3", "isolate.own_cpu=need", "worker.cpu=0", 0, ""},
    {"0 1 2 3 4", "isolate.own_cpu=need", "worker.cpu=0", 0, ""},
    {"0 1 2 3", "isolate.own_cpu=need", "lab.cpu=0,1", -EBUSY,
     "command line: isolate.own_cpu = need: rx and tx share CPU 2; expected 4 CPUs (one a stage, "
     "one for the rest), 4 allowed; try cpu = auto"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        static struct placement placement;
        char error[CONFIG_ERROR_MAX];
        CU_ASSERT_EQUAL(
            plan(refused[i].host, &placement, error, refused[i].first, refused[i].second, NULL),
            refused[i].status);
        CU_ASSERT(same(error, refused[i].error));
    }
}

/* Online, but not for this process. */
static void test_not_allowed(void)
{
    static struct host_topology topology;
    static struct placement placement;
    struct config config;
    struct config_override override = {"tx.cpu=3", false};
    char error[CONFIG_ERROR_MAX];
    host_of("0 1", &topology);
    host_set_add(&topology.online, 3);
    CU_ASSERT_EQUAL_FATAL(config_load(&config, "/dev/null", &override, 1, error), 0);
    CU_ASSERT_EQUAL(placement_plan(&config, &topology, &placement, error), -EINVAL);
    CU_ASSERT(same(error, "command line: tx.cpu = 3: CPU 3 is not allowed for this process "
                          "(taskset, cpuset); expected CPUs of 0-1; try 1"));
    config_free(&config);
}

int main(void)
{
    if (CU_initialize_registry() != CUE_SUCCESS)
        return 1;
    CU_pSuite suite = CU_add_suite("placement", NULL, NULL);
    CU_add_test(suite, "who goes where", test_placed);
    CU_add_test(suite, "what always holds", test_always);
    CU_add_test(suite, "rotation", test_rotation);
    CU_add_test(suite, "spin on a shared CPU", test_spin_on_shared);
    CU_add_test(suite, "refused", test_refused);
    CU_add_test(suite, "online but not allowed", test_not_allowed);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    return failed > 0 ? 1 : 0;
}
