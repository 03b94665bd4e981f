/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of a thread: what every host has is counted exactly; the hardware's, which a virtual machine
 * may not have, are read from pages that a test fills in the kernel's place.
 */
#include "stage/pmu.h"
#include "tests/unit.h"

#include <errno.h>
#include <sys/mman.h>

enum { PAGES = 1000, YIELD_S = 20, NOBODY = 65534 };

/* ---- faults and switches ---- */

static int refuse_all(struct perf_event_attr *attr, int group)
{
    (void)attr;
    (void)group;
    return -ENOENT;
}

static struct pmu software(void)
{
    static struct pmu_host host;
    struct pmu pmu;
    char why[PMU_WHY_MAX];

    host = pmu_linux;
    host.open = refuse_all;
    CU_ASSERT_FALSE(pmu_open_hardware(&pmu, &host, why));
    CU_ASSERT_STRING_EQUAL(why, "hardware: the CPU offers no counters to this machine "
                                "(instructions: ENOENT)");
    return pmu;
}

/* Not instrumented: what a sanitizer touches beside each store would fault, too. */
__attribute__((no_sanitize("address", "thread"))) static void touch(volatile uint8_t *memory,
                                                                    size_t page, uint8_t value)
{
    for (size_t i = 0; i < PAGES; i++)
        memory[i * page] = value;
}

static void test_faults(void)
{
    struct pmu pmu = software();
    uint64_t before[PMU_EVENTS];
    uint64_t after[PMU_EVENTS];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    volatile uint8_t *memory =
        mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_PTR_NOT_EQUAL_FATAL((void *)memory, MAP_FAILED);
    (void)madvise((void *)memory, PAGES * page, MADV_NOHUGEPAGE);
    pmu_read(&pmu, after); /* whatever code and stack it needs is there now */
    pmu_read(&pmu, before);
    touch(memory, page, 1);
    pmu_read(&pmu, after);
    CU_ASSERT_EQUAL(after[0] - before[0], PAGES);
    CU_ASSERT_EQUAL(after[1], before[1]);
    touch(memory, page, 2);
    pmu_read(&pmu, before);
    CU_ASSERT_EQUAL(before[0], after[0]);
    munmap((void *)memory, PAGES * page);
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* Who yields to somebody loses the CPU without having slept; who sleeps gives it away. */
static void test_switches(void)
{
    struct pmu pmu = software();
    const struct timespec nap = {.tv_nsec = 100000};
    const double until = unit_seconds() + YIELD_S;
    uint64_t before[PMU_EVENTS];
    uint64_t now[PMU_EVENTS];
    cpu_set_t allowed;

    sched_getaffinity(0, sizeof(allowed), &allowed);
    pin(unit_cpu(0));
    pid_t peer = fork();
    if (peer == 0) {
        alarm(60);
        for (;;)
            sched_yield();
    }
    pmu_read(&pmu, before);
    do {
        sched_yield();
        pmu_read(&pmu, now);
    } while (now[3] - before[3] < 10 && unit_seconds() < until);
    CU_ASSERT_TRUE(now[3] - before[3] >= 10);
    kill(peer, SIGKILL);
    waitpid(peer, NULL, 0);
    pmu_read(&pmu, before);
    nanosleep(&nap, NULL);
    pmu_read(&pmu, now);
    CU_ASSERT_TRUE(now[2] > before[2]);
    sched_setaffinity(0, sizeof(allowed), &allowed);
}

static int count_as_nobody(void *argument)
{
    struct pmu pmu;
    char why[PMU_WHY_MAX];
    uint64_t count[PMU_EVENTS] = {0};

    (void)argument;
    if (geteuid() == 0 && setresuid(NOBODY, NOBODY, NOBODY) < 0)
        return 1;
    if (!pmu_open_hardware(&pmu, &pmu_linux, why) && strncmp(why, "hardware: ", 10) != 0)
        return 2;
    pmu_read(&pmu, count);
    return count[0] > 0 ? 0 : 3;
}

static void test_without_rights(void)
{
    char text[256];
    int status = unit_child(count_as_nobody, NULL, text, sizeof(text));

    CU_ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- a page ---- */

static struct perf_event_mmap_page page;
static uint64_t raw;       /* what the counter says */
static uint32_t asked;     /* counter that was read */
static unsigned readings;  /* so often */
static unsigned disturbed; /* the kernel changes the page in so many of them */

static uint64_t read_raw(uint32_t counter)
{
    asked = counter;
    readings++;
    if (disturbed && disturbed--) {
        page.offset += 500;
        page.lock += page.lock & 1 ? 1 : 2;
    }
    return raw;
}

static void reset_page(void)
{
    page = (struct perf_event_mmap_page){
        .cap_user_rdpmc = 1, .index = 3, .pmc_width = 48, .offset = 1000};
    raw = 7;
    readings = disturbed = 0;
}

static uint64_t count_of_page(void)
{
    struct pmu_value value;

    CU_ASSERT_TRUE(pmu_page_read(&page, read_raw, 0, &value));
    return value.count;
}

static void test_width(void)
{
    reset_page();
    CU_ASSERT_EQUAL(count_of_page(), 1007);
    CU_ASSERT_EQUAL(asked, 2);
    raw = ((uint64_t)1 << 48) - 16; /* counts up to an overflow: -16 */
    CU_ASSERT_EQUAL(count_of_page(), 984);
    raw = (uint64_t)1 << 47;
    page.offset = (int64_t)1 << 47;
    CU_ASSERT_EQUAL(count_of_page(), 0);
    page.pmc_width = 32;
    page.offset = 0;
    raw = 0x7fffffff;
    CU_ASSERT_EQUAL(count_of_page(), 0x7fffffff);
    raw = 0xabcd00000005; /* what stands above the width is nothing */
    CU_ASSERT_EQUAL(count_of_page(), 5);
    page.pmc_width = 64;
    page.offset = -1;
    raw = UINT64_MAX;
    CU_ASSERT_EQUAL(count_of_page(), UINT64_MAX - 1);
}

static void test_changed_while_read(void)
{
    reset_page();
    disturbed = 3;
    CU_ASSERT_EQUAL(count_of_page(), 1000 + 3 * 500 + 7);
    CU_ASSERT_EQUAL(readings, 4);
    reset_page();
    page.lock = 1; /* the kernel is at it */
    disturbed = 1;
    CU_ASSERT_EQUAL(count_of_page(), 1507);
    CU_ASSERT_EQUAL(readings, 2);
}

static void test_not_on_the_hardware(void)
{
    struct pmu_value value;

    reset_page();
    page.index = 0;
    CU_ASSERT_FALSE(pmu_page_read(&page, read_raw, 0, &value));
    CU_ASSERT_EQUAL(value.count, 1000);
    reset_page();
    page.cap_user_rdpmc = 0;
    CU_ASSERT_FALSE(pmu_page_read(&page, read_raw, 0, &value));
    CU_ASSERT_EQUAL(value.count, 1000);
    CU_ASSERT_EQUAL(readings, 0);
}

static void test_shared_counter(void)
{
    struct pmu_value value;

    reset_page();
    page.time_enabled = 1000;
    page.time_running = 400;
    page.cap_user_time = 1;
    page.time_offset = 5;
    page.time_shift = 4;
    page.time_mult = 8; /* a tick is half a ns */
    CU_ASSERT_TRUE(pmu_page_read(&page, read_raw, 203, &value));
    CU_ASSERT_EQUAL(value.enabled_ns, 1000 + 5 + 101);
    CU_ASSERT_EQUAL(value.running_ns, 400 + 5 + 101);
    page.index = 0;
    CU_ASSERT_FALSE(pmu_page_read(&page, read_raw, 203, &value));
    CU_ASSERT_EQUAL(value.enabled_ns, 1106);
    CU_ASSERT_EQUAL(value.running_ns, 400);

    CU_ASSERT_EQUAL(pmu_scaled(&(struct pmu_value){1000, 200, 50}), 4000);
    CU_ASSERT_EQUAL(pmu_scaled(&(struct pmu_value){1000, 200, 200}), 1000);
    CU_ASSERT_EQUAL(pmu_scaled(&(struct pmu_value){1000, 200, 0}), 0);
    CU_ASSERT_EQUAL(pmu_scaled(&(struct pmu_value){(uint64_t)1 << 62, 1u << 31, 1u << 30}),
                    (uint64_t)1 << 63);
}

/* ---- opening them ---- */

static struct {
    int fail_at;   /* number of the call that fails; -1: none */
    int err;       /* with this */
    int user_only; /* the kernel's part is refused */
    int no_map;    /* so many mappings succeed; -1: all */
    int opened;    /* descriptors */
    int closed;    /* of these */
    int leaders;   /* pinned, without a group */
    bool kernel;   /* the last one counts the kernel's part */
} fake;

static int fake_open(struct perf_event_attr *attr, int group)
{
    CU_ASSERT_EQUAL(attr->type, PERF_TYPE_HARDWARE);
    CU_ASSERT_EQUAL(attr->pinned, group < 0);
    fake.kernel = !attr->exclude_kernel;
    if (fake.opened == fake.fail_at)
        return fake.err;
    if (fake.user_only && fake.kernel)
        return -EACCES;
    fake.leaders += group < 0;
    return 100 + fake.opened++;
}

static struct perf_event_mmap_page *fake_map(int fd)
{
    if (fd - 100 == fake.no_map) {
        errno = ENOMEM;
        return NULL;
    }
    return &page;
}

static void fake_close(int fd, struct perf_event_mmap_page *given)
{
    (void)given;
    CU_ASSERT_TRUE(fd >= 100);
    fake.closed++;
}

static int fake_usage(struct rusage *usage)
{
    usage->ru_minflt = 11;
    usage->ru_nivcsw = 13;
    return 0;
}

static uint64_t fake_cpu_ns(void)
{
    return 5000;
}

static const struct pmu_host fake_host = {.open = fake_open,
                                          .map = fake_map,
                                          .close = fake_close,
                                          .rdpmc = read_raw,
                                          .usage = fake_usage,
                                          .cpu_ns = fake_cpu_ns};

static bool open_fake(struct pmu *pmu, char why[PMU_WHY_MAX])
{
    reset_page();
    fake.opened = fake.closed = fake.leaders = 0;
    return pmu_open_hardware(pmu, &fake_host, why);
}

static void refused(const char *expected)
{
    struct pmu pmu;
    char why[PMU_WHY_MAX];

    CU_ASSERT_FALSE(open_fake(&pmu, why));
    CU_ASSERT_STRING_EQUAL(why, expected);
    CU_ASSERT_EQUAL(fake.closed, fake.opened);
    CU_ASSERT_PTR_NULL(pmu.page[0]);
}

static void test_refusals(void)
{
    fake.no_map = -1;
    fake.fail_at = 0;
    fake.err = -EACCES;
    refused("hardware: needs CAP_PERFMON or kernel.perf_event_paranoid=1 (instructions: EACCES)");
    fake.fail_at = 2;
    fake.err = -ENOENT;
    refused("hardware: the CPU offers no counters to this machine (cache misses: ENOENT)");
    fake.err = -EMFILE;
    refused("hardware: Too many open files (cache misses: EMFILE)");
    fake.fail_at = -1;
    fake.no_map = 1;
    refused("hardware: Cannot allocate memory (mmap: ENOMEM)");
    fake.no_map = -1;
}

static void test_opened(void)
{
    struct pmu pmu;
    char why[PMU_WHY_MAX];
    uint64_t count[PMU_EVENTS];

    fake.fail_at = fake.no_map = -1;
    CU_ASSERT_TRUE(open_fake(&pmu, why));
    CU_ASSERT_STRING_EQUAL(why, "");
    CU_ASSERT_EQUAL(fake.opened, PMU_EVENTS);
    CU_ASSERT_EQUAL(fake.leaders, 1);
    CU_ASSERT_TRUE(fake.kernel);
    pmu_read(&pmu, count);
    for (int i = 0; i < PMU_EVENTS; i++)
        CU_ASSERT_EQUAL(count[i], 1007);
    pmu_close(&pmu);
    CU_ASSERT_EQUAL(fake.closed, PMU_EVENTS);

    fake.user_only = 1;
    CU_ASSERT_TRUE(open_fake(&pmu, why));
    CU_ASSERT_STRING_EQUAL(why, "without the kernel's part");
    CU_ASSERT_FALSE(fake.kernel);
    pmu_close(&pmu);
    fake.user_only = 0;
}

static void test_kernel_lets_nobody_read(void)
{
    struct pmu pmu;
    char why[PMU_WHY_MAX];

    fake.fail_at = fake.no_map = -1;
    fake.opened = fake.closed = 0;
    reset_page();
    page.cap_user_rdpmc = 0;
    CU_ASSERT_FALSE(pmu_open_hardware(&pmu, &fake_host, why));
    CU_ASSERT_STRING_EQUAL(why,
                           "hardware: this kernel lets no process read them (cap_user_rdpmc 0)");
    page.cap_user_rdpmc = 1;
    page.index = 0;
    CU_ASSERT_FALSE(pmu_open_hardware(&pmu, &fake_host, why));
    CU_ASSERT_STRING_EQUAL(why, "hardware: others keep the CPU's counters busy");
    CU_ASSERT_EQUAL(fake.closed, fake.opened);
}

static void test_sums(void)
{
    struct cell_counters counters = {.count = {[COUNTER_instructions] = 50}}; /* a predecessor's */
    struct pmu pmu;
    char why[PMU_WHY_MAX];

    fake.fail_at = fake.no_map = -1;
    CU_ASSERT_TRUE(open_fake(&pmu, why));
    pmu_add(&pmu, &counters);
    CU_ASSERT_EQUAL(counters.known, (1u << COUNTER_COUNT) - 1);
    CU_ASSERT_EQUAL(counters.count[COUNTER_instructions], 1057);
    CU_ASSERT_EQUAL(counters.count[COUNTER_minor_faults], 11);
    CU_ASSERT_EQUAL(counters.count[COUNTER_involuntary_switches], 13);
    CU_ASSERT_EQUAL(counters.count[COUNTER_cpu_ns], 5000);
    page.offset += 100;
    pmu_add(&pmu, &counters);
    CU_ASSERT_EQUAL(counters.count[COUNTER_instructions], 1157);
    page.offset -= 60; /* an estimate may fall back */
    pmu_add(&pmu, &counters);
    CU_ASSERT_EQUAL(counters.count[COUNTER_instructions], 1157);
    CU_ASSERT_EQUAL(counters.count[COUNTER_cpu_ns], 5000);
    pmu_close(&pmu);
    struct cell_counters plain = {0};
    pmu_add(&pmu, &plain);
    CU_ASSERT_EQUAL(plain.known & 15, 0);
    CU_ASSERT_EQUAL(plain.known >> 4, 31);
}

int main(void)
{
    CU_TestInfo everywhere[] = {
        {"page faults are counted exactly", test_faults},
        {"switches, by yielding to a peer and by sleeping", test_switches},
        {"without any right", test_without_rights},
        CU_TEST_INFO_NULL,
    };
    CU_TestInfo hardware[] = {
        {"width and sign of a counter", test_width},
        {"a page that is changed while it is read", test_changed_while_read},
        {"an event that is not on the hardware", test_not_on_the_hardware},
        {"a counter that is shared", test_shared_counter},
        {"each refusal, with its reason", test_refusals},
        {"one pinned group, with or without the kernel", test_opened},
        {"a kernel that lets nobody read", test_kernel_lets_nobody_read},
        {"sums go on where a predecessor was", test_sums},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {
        {"faults and switches", NULL, NULL, NULL, NULL, everywhere},
        {"the hardware's", NULL, NULL, NULL, NULL, hardware},
        CU_SUITE_INFO_NULL,
    };
    return unit_run(suites);
}
