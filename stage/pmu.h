/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of this thread (trace.counters): instructions, cycles, cache misses and branch misses where
 * the CPU gives them to this machine and the kernel lets a process read them by itself (rdpmc), and page
 * faults, context switches and CPU time, which there are everywhere.
 *
 * `stage` adds them up from the tick, so it costs a request nothing. `span` also reads four of them
 * before each stamp of a request and writes what was counted since the stamp before, as a record
 * `counters`: the hardware's, or else faults and switches. What stands between two stamps of one
 * request is told only where the stage did nothing else in between.
 *
 * Opened while the stage is privileged; then it needs no right, and of the system calls getrusage and
 * clock_gettime (for software only).
 *
 * Measured on a virtual machine without hardware counters: getrusage(RUSAGE_THREAD) 160 ns, a read of a
 * perf group of five software events 415 ns. Those give migrations besides, and a pinned stage has none.
 */
#ifndef TICKLINE_STAGE_PMU_H
#define TICKLINE_STAGE_PMU_H

#include "shm/cell.h"

#include <linux/perf_event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

struct stage;
struct trace;

enum { PMU_EVENTS = 4, PMU_WHY_MAX = 96 };

/* Which four a record `counters` holds: its argument. */
enum pmu_set { PMU_HARDWARE, PMU_SOFTWARE };

/* What the host gives; a test gives its own. */
struct pmu_host {
    /* A descriptor of the event for this thread, or -errno. `group`: its leader's; -1: it is one. */
    int (*open)(struct perf_event_attr *attr, int group);
    /* Its first page, or NULL with errno. */
    struct perf_event_mmap_page *(*map)(int fd);
    void (*close)(int fd, struct perf_event_mmap_page *page);
    uint64_t (*rdpmc)(uint32_t counter);
    int (*usage)(struct rusage *usage); /* 0 or -errno */
    uint64_t (*cpu_ns)(void);
};

extern const struct pmu_host pmu_linux;

/* One event as its page tells it. */
struct pmu_value {
    uint64_t count;
    uint64_t enabled_ns; /* since it was opened */
    uint64_t running_ns; /* of that, on the hardware; less: it had to share, or lost its place */
};

struct pmu {
    const struct pmu_host *host;
    int fd[PMU_EVENTS];
    struct perf_event_mmap_page *page[PMU_EVENTS]; /* all or none */
    uint32_t cost_ns;                              /* of a reading of four */
    /* span: what was counted when, for whom */
    uint64_t request;
    uint64_t base[PMU_EVENTS];
    /* stage: what was counted at the last tick */
    uint64_t last[COUNTER_COUNT];
};

/*
 * The count of an event by rdpmc, after the protocol of linux/perf_event.h: the page is read again while the
 * kernel changes it; a counter narrower than 64 bits is extended by its sign. False: it is not on the
 * hardware now; `value` has what it had counted before.
 */
bool pmu_page_read(const struct perf_event_mmap_page *page, uint64_t (*rdpmc)(uint32_t counter),
                   uint64_t tsc, struct pmu_value *value);

/* A count scaled up by how long it could not run; 0 where it never ran. */
uint64_t pmu_scaled(const struct pmu_value *value);

/* Opens the hardware's events as one group. False: `why` says which one failed, and of what. */
bool pmu_open_hardware(struct pmu *pmu, const struct pmu_host *host, char why[PMU_WHY_MAX]);
void pmu_close(struct pmu *pmu);

/* The four that a span is told by, in the order of enum counter. */
void pmu_read(const struct pmu *pmu, uint64_t count[PMU_EVENTS]);

/* Adds what was counted since the last call; sets which counters are known. */
void pmu_add(struct pmu *pmu, struct cell_counters *counters);

/* As trace.counters asks; noted in the manifest. For a stage's open, before the sandbox. */
void pmu_start(struct stage *stage);

/* From the tick: into the stage's figures. */
void pmu_tick(struct stage *stage);

#endif
