/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/pmu.h"

#include "shm/lane.h"
#include "stage/control.h"
#include "stage/stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CALIBRATE = 32, CALIBRATE_ROUNDS = 16 };

static const uint64_t events[PMU_EVENTS] = {
    [COUNTER_instructions] = PERF_COUNT_HW_INSTRUCTIONS,
    [COUNTER_cycles] = PERF_COUNT_HW_CPU_CYCLES,
    [COUNTER_cache_misses] = PERF_COUNT_HW_CACHE_MISSES,
    [COUNTER_branch_misses] = PERF_COUNT_HW_BRANCH_MISSES,
};

/* ---- one event ---- */

/* Ticks since the page's times were noted, in ns (cap_user_time). */
static uint64_t page_delta_ns(const struct perf_event_mmap_page *page, uint64_t tsc)
{
    uint64_t whole = tsc >> page->time_shift;
    uint64_t rest = tsc & (((uint64_t)1 << page->time_shift) - 1);

    return page->time_offset + whole * page->time_mult +
           ((rest * page->time_mult) >> page->time_shift);
}

bool pmu_page_read(const struct perf_event_mmap_page *page, uint64_t (*rdpmc)(uint32_t counter),
                   uint64_t tsc, struct pmu_value *value)
{
    uint32_t sequence;
    uint32_t index;

    do {
        sequence = __atomic_load_n(&page->lock, __ATOMIC_ACQUIRE);
        index = page->index;
        value->count = (uint64_t)page->offset;
        value->enabled_ns = page->time_enabled;
        value->running_ns = page->time_running;
        if (page->cap_user_time && value->enabled_ns != value->running_ns) {
            uint64_t delta = page_delta_ns(page, tsc);
            value->enabled_ns += delta;
            value->running_ns += index ? delta : 0;
        }
        if (page->cap_user_rdpmc && index) {
            unsigned spare = 64u - page->pmc_width;
            value->count += (uint64_t)((int64_t)(rdpmc(index - 1) << spare) >> spare);
        }
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while ((sequence & 1) || __atomic_load_n(&page->lock, __ATOMIC_RELAXED) != sequence);
    return page->cap_user_rdpmc && index;
}

uint64_t pmu_scaled(const struct pmu_value *value)
{
    if (value->running_ns >= value->enabled_ns)
        return value->count;
    if (value->running_ns == 0)
        return 0;
    return (uint64_t)((double)value->count *
                      ((double)value->enabled_ns / (double)value->running_ns));
}

/* ---- all of them ---- */

/* Why the hardware's are not to be had; where a setting would help, which one. */
static bool refuse(struct pmu *pmu, char why[PMU_WHY_MAX], int err, const char *what)
{
    const char *hint =
        err == -ENOENT || err == -EOPNOTSUPP ? "the CPU offers no counters to this machine"
        : err == -EACCES || err == -EPERM    ? "needs CAP_PERFMON or kernel.perf_event_paranoid=1"
                                             : strerror(-err);

    snprintf(why, PMU_WHY_MAX, "hardware: %s (%s: %s)", hint, what, strerrorname_np(-err));
    pmu_close(pmu);
    return false;
}

static int open_event(const struct pmu *pmu, uint64_t event, bool with_kernel)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_HARDWARE,
        .size = sizeof(attr),
        .config = event,
        .pinned = pmu->fd[0] < 0,
        .exclude_kernel = !with_kernel,
        .exclude_hv = 1,
    };

    return pmu->host->open(&attr, pmu->fd[0]);
}

bool pmu_open_hardware(struct pmu *pmu, const struct pmu_host *host, char why[PMU_WHY_MAX])
{
    static const char *const names[PMU_EVENTS] = {"instructions", "cycles", "cache misses",
                                                  "branch misses"};
    bool with_kernel = true;
    struct pmu_value value;

    *pmu = (struct pmu){.host = host, .fd = {-1, -1, -1, -1}};
    for (int i = 0; i < PMU_EVENTS; i++) {
        int fd = open_event(pmu, events[i], with_kernel);
        if (i == 0 && (fd == -EACCES || fd == -EPERM)) {
            with_kernel = false;
            fd = open_event(pmu, events[i], with_kernel);
        }
        if (fd < 0)
            return refuse(pmu, why, fd, names[i]);
        pmu->fd[i] = fd;
        pmu->page[i] = host->map(fd);
        if (!pmu->page[i])
            return refuse(pmu, why, -errno, "mmap");
    }
    for (int i = 0; i < PMU_EVENTS; i++) {
        if (!pmu_page_read(pmu->page[i], host->rdpmc, tsc_read(), &value)) {
            bool allowed = pmu->page[i]->cap_user_rdpmc;
            pmu_close(pmu);
            snprintf(why, PMU_WHY_MAX, "hardware: %s",
                     allowed ? "others keep the CPU's counters busy"
                             : "this kernel lets no process read them (cap_user_rdpmc 0)");
            return false;
        }
    }
    snprintf(why, PMU_WHY_MAX, "%s", with_kernel ? "" : "without the kernel's part");
    return true;
}

void pmu_close(struct pmu *pmu)
{
    for (int i = PMU_EVENTS; i-- > 0;) {
        if (pmu->fd[i] >= 0)
            pmu->host->close(pmu->fd[i], pmu->page[i]);
        pmu->fd[i] = -1;
        pmu->page[i] = NULL;
    }
}

static void read_software(const struct pmu *pmu, uint64_t count[PMU_EVENTS])
{
    struct rusage usage = {0};

    (void)pmu->host->usage(&usage);
    count[0] = (uint64_t)usage.ru_minflt;
    count[1] = (uint64_t)usage.ru_majflt;
    count[2] = (uint64_t)usage.ru_nvcsw;
    count[3] = (uint64_t)usage.ru_nivcsw;
}

static void read_hardware(const struct pmu *pmu, uint64_t count[PMU_EVENTS])
{
    struct pmu_value value;

    for (int i = 0; i < PMU_EVENTS; i++) {
        (void)pmu_page_read(pmu->page[i], pmu->host->rdpmc, 0, &value);
        count[i] = value.count;
    }
}

void pmu_read(const struct pmu *pmu, uint64_t count[PMU_EVENTS])
{
    if (pmu->page[0])
        read_hardware(pmu, count);
    else
        read_software(pmu, count);
}

/* All that there is. */
static void read_all(const struct pmu *pmu, uint64_t now[COUNTER_COUNT])
{
    struct pmu_value value;

    for (int i = 0; pmu->page[0] && i < PMU_EVENTS; i++) {
        (void)pmu_page_read(pmu->page[i], pmu->host->rdpmc, tsc_read(), &value);
        now[i] = pmu_scaled(&value);
    }
    read_software(pmu, now + COUNTER_minor_faults);
    now[COUNTER_cpu_ns] = pmu->host->cpu_ns();
}

void pmu_add(struct pmu *pmu, struct cell_counters *counters)
{
    uint64_t now[COUNTER_COUNT] = {0};

    read_all(pmu, now);
    for (int i = 0; i < COUNTER_COUNT; i++) {
        /* An estimate of a shared counter may fall back a little. */
        if (now[i] > pmu->last[i])
            counters->count[i] += now[i] - pmu->last[i];
        pmu->last[i] = now[i];
    }
    counters->known = pmu->page[0] ? (1u << COUNTER_COUNT) - 1
                                   : ((1u << COUNTER_COUNT) - 1) & ~((1u << PMU_EVENTS) - 1);
}

/* ---- a stage's ---- */

static uint64_t half(uint64_t now, uint64_t before)
{
    return now - before > UINT32_MAX ? UINT32_MAX : now - before;
}

/* Before a stamp. The record has the time of the one in front of it: it moves none. */
static void count_span(struct trace *trace, enum point point, uint64_t request)
{
    struct pmu *pmu = trace->counting;
    const bool begins = point == POINT_rx_got || point == POINT_worker_got || point == POINT_tx_got;
    uint64_t now[PMU_EVENTS];

    /* tx stamps these two when the send is done, of which it took the beginning itself. */
    if (point == POINT_tx_sent || (point == POINT_tx_got && pmu->request == request))
        return;
    pmu_read(pmu, now);
    const uint64_t *base = pmu->base;
    if (!begins && pmu->request == request)
        trace_wide(trace, trace->last, POINT_counters, pmu->page[0] ? PMU_HARDWARE : PMU_SOFTWARE,
                   request, half(now[0], base[0]) | half(now[1], base[1]) << 32,
                   half(now[2], base[2]) | half(now[3], base[3]) << 32);
    memcpy(pmu->base, now, sizeof(now));
    pmu->request = request;
}

/* The least of some rounds: what it takes where nobody interrupts. */
static void calibrate(struct pmu *pmu, const struct clock *clock)
{
    uint64_t count[PMU_EVENTS];
    uint64_t least = UINT64_MAX;

    for (int round = 0; round < CALIBRATE_ROUNDS; round++) {
        uint64_t began = tsc_read();
        for (int i = 0; i < CALIBRATE; i++)
            pmu_read(pmu, count);
        uint64_t took = tsc_read() - began;
        least = took < least ? took : least;
    }
    pmu->cost_ns = (uint32_t)(clock_ns(clock, least) / CALIBRATE);
}

void pmu_start(struct stage *stage)
{
    static const char *const asked[] = {"off", "stage", "span"};
    enum config_counters wish = stage->config.trace.counters;
    struct cell_counters ignored = {0};
    char why[PMU_WHY_MAX];
    char text[CONTROL_TEXT_MAX];

    if (wish == COUNTERS_OFF)
        return;
    struct pmu *pmu = calloc(1, sizeof(*pmu));
    if (!pmu)
        return;
    bool hardware = pmu_open_hardware(pmu, &pmu_linux, why);
    calibrate(pmu, &stage->clock);
    pmu_add(pmu, &ignored);
    stage->pmu = pmu;
    if (wish == COUNTERS_SPAN && stage->trace.lane.control)
        trace_count_by(&stage->trace, count_span, pmu);
    snprintf(text, sizeof(text), "%s%sa reading takes %u ns", why, why[0] ? "; " : "",
             pmu->cost_ns);
    stage_note(stage, "trace.counters", asked[wish], hardware ? "hardware" : "software", text);
}

void pmu_tick(struct stage *stage)
{
    if (stage->pmu)
        pmu_add(stage->pmu, &stage->figures.counters);
}
