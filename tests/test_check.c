/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preflight on a made-up /proc and /sys: one host where all is well, then one thing wrong at a
 * time.
 */
#include "launch/check.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <fts.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/test_checkXXXXXX";
static const struct host host = {root};

/* Writes a file of the made-up host, its folders included; NULL removes it. */
static void put(const char *path, const char *text)
{
    char full[512];
    int used = snprintf(full, sizeof(full), "%s%s", root, path);
    if (text == NULL) {
        unlink(full);
        return;
    }
    for (char *slash = full + sizeof(root); used > 0 && (slash = strchr(slash, '/')) != NULL;
         slash++) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fputs(text, file);
    fclose(file);
}

#define CPU    "/sys/devices/system/cpu"
#define CLOCK  "/sys/devices/system/clocksource/clocksource0"
#define HUGE   "/sys/kernel/mm/hugepages/hugepages-2048kB"
#define STATUS "Name:\ttest\nCapEff:\t%s\nCpus_allowed_list:\t%s\n"

static const char no_rights[] = "0000000000000000", all_rights[] = "000001ffffffffff";

static void put_status(const char *rights, const char *allowed)
{
    char text[256];
    snprintf(text, sizeof(text), STATUS, rights, allowed);
    put("/proc/self/status", text);
}

/* Four CPUs, 1-3 kept free for us. */
static void put_quiet_host(void)
{
    put_status(all_rights, "0");
    put("/proc/self/uid_map", "         0          0 4294967295\n");
    put("/proc/self/cgroup", "0::/user/me\n");
    put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu constant_tsc nonstop_tsc sse\n");
    put("/proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n");
    put("/proc/swaps", "Filename Type Size Used Priority\n");
    put("/proc/sys/kernel/seccomp/actions_avail", "kill_process kill_thread trap errno allow\n");
    put("/proc/irq/24/smp_affinity_list", "0-3\n");
    put("/proc/irq/24/effective_affinity_list", "0\n");
    put("/proc/irq/25/smp_affinity_list", "0\n");
    put("/proc/sys/net/core/rmem_max", "212992\n");
    put("/proc/sys/kernel/io_uring_disabled", "0\n");
    put(CPU "/online", "0-3\n");
    put(CPU "/isolated", "1-3\n");
    put(CPU "/nohz_full", "1-3\n");
    put(CLOCK "/current_clocksource", "tsc\n");
    put(CLOCK "/available_clocksource", "tsc hpet acpi_pm \n");
    put(HUGE "/nr_hugepages", "16\n");
    put(HUGE "/free_hugepages", "16\n");
    put(HUGE "/resv_hugepages", "0\n");
    put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    put("/sys/fs/cgroup/user/cpu.max", "max 100000\n");
    put("/dev/shm/here", "");
    for (int cpu = '0'; cpu < '4'; cpu++) {
        char path[128], text[8] = {(char)cpu, '\n'};
        snprintf(path, sizeof(path), CPU "/cpu%c/topology/thread_siblings_list", cpu);
        put(path, text);
        snprintf(path, sizeof(path), CPU "/cpu%c/cpufreq/scaling_governor", cpu);
        put(path, "performance\n");
    }
}

static struct check_result results[CHECK_MAX];
static struct placement placement;
static uint32_t count;

/* Plans and checks the made-up host; `first` and `second` are overrides or NULL. */
static void run(const char *first, const char *second)
{
    static struct host_topology topology;
    struct config config;
    struct config_override overrides[] = {{first, false}, {second, false}};
    char error[CONFIG_ERROR_MAX];
    size_t given = (size_t)(first != NULL) + (second != NULL);
    CU_ASSERT_EQUAL_FATAL(config_load(&config, "/dev/null", overrides, given, error), 0);
    CU_ASSERT_EQUAL_FATAL(host_topology_read(&host, &topology), 0);
    CU_ASSERT_EQUAL_FATAL(placement_plan(&config, &topology, &placement, error), 0);
    count = check_run(&host, &config, &topology, &placement, results);
    config_free(&config);
}

static const struct check_result *result_of(const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(results[i].name, name) == 0)
            return &results[i];
    }
    return NULL;
}

static bool says(const char *name, enum check_verdict verdict, const char *found,
                 const char *remedy)
{
    const struct check_result *result = result_of(name);
    if (result != NULL && result->verdict == verdict && strcmp(result->found, found) == 0 &&
        strcmp(result->remedy, remedy) == 0)
        return true;
    fprintf(stderr, "\n  %s: found \"%s\", remedy \"%s\", verdict %d\n", name,
            result != NULL ? result->found : "nothing", result != NULL ? result->remedy : "",
            result != NULL ? (int)result->verdict : -1);
    return false;
}

static void test_quiet(void)
{
    put_quiet_host();
    run(NULL, NULL);
    CU_ASSERT_EQUAL(placement.stage[0].cpu, 1);
    CU_ASSERT_TRUE(placement.own_cpu);
    for (uint32_t i = 0; i < count; i++) {
        /* What is asked of the running system itself may be missing where the test runs. */
        if (strcmp(results[i].name, "io_uring") != 0 && strcmp(results[i].name, "lab tools") != 0)
            CU_ASSERT(says(results[i].name, CHECK_OK, results[i].found, ""));
    }
    CU_ASSERT(says("CPUs", CHECK_OK, "0-3 online, 0-3 allowed; each stage alone", ""));
    CU_ASSERT(says("isolation", CHECK_OK, "CPU 1-3 isolated and without timer tick", ""));
    CU_ASSERT(says("interrupts", CHECK_OK, "0 of 2 may come to CPU 1-3", ""));
}

/* One file of the quiet host changed, and what the check then says. */
static const struct {
    const char *path, *text, *set, *check;
    enum check_verdict verdict;
    const char *found, *remedy;
} troubles[] = {
    {CLOCK "/current_clocksource", "hpet\n", NULL, "clock source", CHECK_WARN, "hpet",
     "echo tsc | sudo tee " CLOCK "/current_clocksource"},
    {"/proc/cpuinfo", "flags : fpu constant_tsc hypervisor\n", NULL, "TSC", CHECK_WARN,
     "constant, may stop in deep idle (no nonstop_tsc); a virtual machine",
     "run on a CPU with an invariant TSC, or let the hypervisor pass it on"},
    {"/proc/cpuinfo", "Features : fp asimd\n", NULL, "TSC", CHECK_OK,
     "counter of the architecture, invariant", ""},
    {CPU "/nohz_full", "2-3\n", "isolate.own_cpu=no", "isolation", CHECK_OK,
     "not isolated: none; with timer tick: 1", ""},
    {CPU "/nohz_full", "2-3\n", NULL, "isolation", CHECK_WARN,
     "not isolated: none; with timer tick: 1",
     "boot with: isolcpus=1-3 nohz_full=1-3 rcu_nocbs=1-3"},
    {CPU "/cpu3/topology/thread_siblings_list", "0,3\n", NULL, "SMT", CHECK_WARN,
     "siblings of the stages' CPUs: 0", "echo off | sudo tee /sys/devices/system/cpu/smt/control"},
    {CPU "/cpu2/cpufreq/scaling_governor", "powersave\n", NULL, "governor", CHECK_WARN,
     "powersave on CPU 2", "sudo cpupower -c 2 frequency-set -g performance"},
    {CPU "/cpu1/cpuidle/state0/latency", "130\n", NULL, "idle states", CHECK_OK,
     "deepest takes 130 us to leave; the stages spin and never enter it", ""},
    {CPU "/cpu1/cpuidle/state0/latency", "130\n", "sched.wait=park", "idle states", CHECK_WARN,
     "deepest takes 130 us to leave", "sudo cpupower -c 1 idle-set -D 2"},
    {"/sys/fs/cgroup/user/cpu.max", "250000 100000\n", NULL, "CPU quota", CHECK_WARN,
     "2.50 CPUs of time; 4 will be busy: the kernel stops us for up to 100 ms at a time",
     "lift the limit: docker run without --cpus, cpu.max = max"},
    {"/sys/fs/cgroup/user/cpu.max", "800000 100000\n", NULL, "CPU quota", CHECK_OK,
     "8.00 CPUs of time; 4 will be busy", ""},
    {"/proc/irq/24/effective_affinity_list", "2\n", NULL, "interrupts", CHECK_WARN,
     "1 of 2 may come to CPU 1-3", "echo 0 | sudo tee /proc/irq/[0-9]*/smp_affinity_list"},
    {"/proc/meminfo", "MemAvailable: 20000 kB\n", NULL, "memory", CHECK_FAIL,
     "36 MiB for rings and lanes, 20 MiB free", "--set trace.lane=1MiB, or more memory"},
    {"/proc/meminfo", "MemAvailable: 20000 kB\n", "rx.source=tcp", "memory", CHECK_FAIL,
     "68 MiB for rings, lanes and connections, 20 MiB free",
     "--set trace.lane=1MiB, or more memory"},
    {HUGE "/free_hugepages", "3\n", NULL, "huge pages", CHECK_WARN,
     "3 of 16 pages of 2 MiB free, the rings take 4", "sudo sysctl -w vm.nr_hugepages=17"},
    {HUGE "/free_hugepages", "3\n", "memory.pages=need-2m", "huge pages", CHECK_FAIL,
     "3 of 16 pages of 2 MiB free, the rings take 4", "sudo sysctl -w vm.nr_hugepages=17"},
    {HUGE "/free_hugepages", "3\n", "memory.pages=4k", "huge pages", CHECK_OK,
     "3 of 16 pages of 2 MiB free, the rings take 4", ""},
    {HUGE "/resv_hugepages", "14\n", NULL, "huge pages", CHECK_WARN,
     "2 of 16 pages of 2 MiB free, the rings take 4", "sudo sysctl -w vm.nr_hugepages=18"},
    {"/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n", NULL, "THP",
     CHECK_WARN, "always: the kernel moves pages while we run",
     "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"},
    {"/proc/swaps", "Filename Type\n/dev/vda2 partition\n", "memory.lock=no", "swap", CHECK_WARN,
     "on", "sudo swapoff -a, or --set memory.lock=want"},
    {"/proc/swaps", "Filename Type\n/dev/vda2 partition\n", NULL, "swap", CHECK_OK,
     "on; memory is to be locked", ""},
    {"/proc/self/uid_map", "0 1000 1\n", "isolate.user=daemon", "sandbox", CHECK_WARN,
     "calls filtered, no capabilities; cannot become daemon", "run it as root (sudo)"},
    {"/proc/self/uid_map", "0 1000 1\n1 100000 65536\n", "isolate.user=daemon", "sandbox", CHECK_OK,
     "user daemon, no capabilities, calls filtered", ""},
    {"/proc/self/uid_map", "0 1000 1\n", "isolate.sandbox=need", "sandbox", CHECK_FAIL,
     "calls filtered, no capabilities; cannot become nobody", "run it as root (sudo)"},
    {"/proc/self/uid_map", "0 1000 1\n", "isolate.sandbox=no", "sandbox", CHECK_OK,
     "stages keep the rights they are started with", ""},
    {"/proc/sys/kernel/seccomp/actions_avail", "kill_thread\n", "isolate.sandbox=need", "sandbox",
     CHECK_FAIL, "the kernel has no seccomp filters", "boot a kernel with CONFIG_SECCOMP_FILTER=y"},
    {"/proc/self/uid_map", "0 1000 1\n", NULL, "socket buffer", CHECK_WARN,
     "64 MiB asked, rmem_max 208 KiB", "sudo sysctl -w net.core.rmem_max=67108864"},
    {"/proc/self/uid_map", "0 1000 1\n", "rx.socket_buffer=128KiB", "socket buffer", CHECK_OK,
     "128 KiB asked, rmem_max 208 KiB", ""},
};

static void test_troubles(void)
{
    for (size_t i = 0; i < sizeof(troubles) / sizeof(troubles[0]); i++) {
        put_quiet_host();
        put(troubles[i].path, troubles[i].text);
        run(troubles[i].set, NULL);
        CU_ASSERT(
            says(troubles[i].check, troubles[i].verdict, troubles[i].found, troubles[i].remedy));
    }
    put(CPU "/cpu1/cpuidle/state0/latency", NULL);
}

static void test_unprivileged(void)
{
    struct rlimit before, tight;
    getrlimit(RLIMIT_MEMLOCK, &before);
    tight = before;
    tight.rlim_cur = 64 << 10;
    put_quiet_host();
    put_status(no_rights, "0");
    put("/proc/sys/user/max_user_namespaces", "0\n");
    CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_MEMLOCK, &tight), 0);
    run(NULL, NULL);
    CU_ASSERT(says("locking", CHECK_WARN, "36 MiB to lock, at most 64 KiB a process",
                   "sudo prlimit --memlock=unlimited --pid $$"));
    CU_ASSERT(says("namespaces", CHECK_WARN, "unprivileged; user namespaces forbidden",
                   "sudo sysctl -w user.max_user_namespaces=1024"));
    CU_ASSERT_EQUAL(check_worst(results, count), CHECK_WARN);
    run("memory.lock=need", NULL);
    CU_ASSERT(says("locking", CHECK_FAIL, "36 MiB to lock, at most 64 KiB a process",
                   "sudo prlimit --memlock=unlimited --pid $$"));
    CU_ASSERT_EQUAL(check_worst(results, count), CHECK_FAIL);
    run("memory.lock=no", NULL);
    CU_ASSERT(says("locking", CHECK_OK, "36 MiB to lock, at most 64 KiB a process", ""));
    setrlimit(RLIMIT_MEMLOCK, &before);
    put("/proc/sys/user/max_user_namespaces", NULL);
}

/* Limits of a container, as version 1 and version 2 of cgroups tell them. */
static void test_container(void)
{
    put_quiet_host();
    put("/sys/fs/cgroup/memory.max", "31457280\n");
    put("/sys/fs/cgroup/memory.current", "1048576\n");
    run(NULL, NULL);
    CU_ASSERT(says("memory", CHECK_FAIL,
                   "36 MiB for rings and lanes, 29 MiB free in this container",
                   "--set trace.lane=1MiB, or more memory (docker run --memory)"));
    put("/sys/fs/cgroup/memory.max", NULL);
    put("/proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
    run(NULL, NULL);
    CU_ASSERT(
        says("CPU quota", CHECK_WARN,
             "0.50 CPUs of time; 4 will be busy: the kernel stops us for up to 100 ms at a time",
             "lift the limit: docker run without --cpus, cpu.max = max"));
    CU_ASSERT(says("memory", CHECK_OK, "36 MiB for rings and lanes, 7.6 GiB free", ""));
}

static void test_no_shm(void)
{
    put_quiet_host();
    put("/dev/shm/here", NULL);
    char path[64];
    snprintf(path, sizeof(path), "%s/dev/shm", root);
    rmdir(path);
    run(NULL, NULL);
    CU_ASSERT(says("/dev/shm", CHECK_FAIL, "32 MiB for trace lanes, but there is no /dev/shm",
                   "sudo mount -t tmpfs tmpfs /dev/shm"));
}

static void test_topology(void)
{
    static struct host_topology topology;
    put_quiet_host();
    CU_ASSERT_EQUAL(host_topology_read(&host, &topology), 0);
    CU_ASSERT_EQUAL(topology.count, 4); /* isolated CPUs can be had */
    CU_ASSERT_FALSE(topology.at[0].isolated);
    CU_ASSERT_TRUE(topology.at[3].isolated);
    put_status(all_rights, "0,2"); /* somebody chose */
    put(CPU "/cpu2/topology/thread_siblings_list", "0,2\n");
    put("/sys/devices/system/node/online", "0-1\n");
    put("/sys/devices/system/node/node1/cpulist", "2-3\n");
    CU_ASSERT_EQUAL(host_topology_read(&host, &topology), 0);
    CU_ASSERT_EQUAL(topology.count, 2);
    CU_ASSERT_EQUAL(topology.at[1].cpu, 2);
    CU_ASSERT_EQUAL(topology.at[1].core, 0);
    CU_ASSERT_EQUAL(topology.at[1].node, 1);
    CU_ASSERT_EQUAL(host_set_count(&topology.nodes), 2);
    put(CPU "/online", NULL);
    CU_ASSERT_EQUAL(host_topology_read(&host, &topology), -ENOENT);
    put("/sys/devices/system/node/online", NULL);
}

static void test_sets(void)
{
    struct host_set set;
    char text[64];
    CU_ASSERT_TRUE(host_set_parse(&set, "0,2-4,1023\n"));
    CU_ASSERT_EQUAL(host_set_count(&set), 5);
    host_set_format(&set, text, sizeof(text));
    CU_ASSERT_STRING_EQUAL(text, "0,2-4,1023");
    CU_ASSERT_TRUE(host_set_parse(&set, ""));
    host_set_format(&set, text, sizeof(text));
    CU_ASSERT_STRING_EQUAL(text, "none");
    CU_ASSERT_FALSE(host_set_parse(&set, "ff"));
    CU_ASSERT_FALSE(host_set_parse(&set, "1-x"));
}

/* The table keeps within 80 columns but for commands, which are to be copied whole. */
static void test_printed(void)
{
    char *text = NULL;
    size_t length = 0;
    put_quiet_host();
    put("/sys/fs/cgroup/user/cpu.max", "250000 100000\n");
    put_status(no_rights, "0-1");
    run("worker.count=16", NULL);
    FILE *out = open_memstream(&text, &length);
    CU_ASSERT_EQUAL(check_print(results, count, &placement, out), 0);
    fclose(out);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "clock source    always ok     tsc\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "CPU 1    yield  rx, worker0, worker1,"));
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        CU_ASSERT(strlen(line) < 80 || strstr(line, "mend: ") != NULL);
    free(text);
}

static void test_json(void)
{
    char *text = NULL;
    size_t length = 0;
    const char *verdict, *wait;
    int cpu, own;
    put_quiet_host();
    put_status(no_rights, "0-1");
    run(NULL, NULL);
    FILE *out = open_memstream(&text, &length);
    CU_ASSERT_EQUAL(check_print_json(results, count, &placement, out), 0);
    fclose(out);
    json_t *all = json_loads(text, 0, NULL);
    CU_ASSERT_EQUAL_FATAL(json_unpack(all, "{s:s, s:{s:{s:{s:i, s:s}}, s:b}}", "verdict", &verdict,
                                      "placement", "stages", "worker0", "cpu", &cpu, "wait", &wait,
                                      "own_cpu", &own),
                          0);
    CU_ASSERT_STRING_EQUAL(verdict, "warn");
    CU_ASSERT_STRING_EQUAL(wait, "yield");
    CU_ASSERT_EQUAL(cpu, 1);
    CU_ASSERT_FALSE(own);
    CU_ASSERT_EQUAL(json_array_size(json_object_get(all, "checks")), count);
    json_decref(all);
    free(text);
}

static void remove_tree(void)
{
    char *const paths[] = {root, NULL};
    FTS *tree = fts_open(paths, FTS_PHYSICAL, NULL);
    for (FTSENT *entry; tree != NULL && (entry = fts_read(tree)) != NULL;) {
        if (entry->fts_info != FTS_D)
            remove(entry->fts_accpath);
    }
    if (tree != NULL)
        fts_close(tree);
}

int main(void)
{
    if (mkdtemp(root) == NULL || CU_initialize_registry() != CUE_SUCCESS)
        return 1;
    CU_pSuite suite = CU_add_suite("check", NULL, NULL);
    CU_add_test(suite, "a quiet host", test_quiet);
    CU_add_test(suite, "one trouble at a time", test_troubles);
    CU_add_test(suite, "without privilege", test_unprivileged);
    CU_add_test(suite, "container", test_container);
    CU_add_test(suite, "no /dev/shm", test_no_shm);
    CU_add_test(suite, "topology", test_topology);
    CU_add_test(suite, "sets of CPUs", test_sets);
    CU_add_test(suite, "table", test_printed);
    CU_add_test(suite, "JSON", test_json);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    remove_tree();
    return failed > 0 ? 1 : 0;
}
