/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the preflight: what a single check gets and how it answers. For check*.c alone.
 */
#ifndef TICKLINE_LAUNCH_CHECK_PROBE_H
#define TICKLINE_LAUNCH_CHECK_PROBE_H

#include "launch/check.h"

struct check_context {
    const struct host *host;
    const struct config *config;
    const struct host_topology *topology;
    const struct placement *placement;
    struct check_demand demand;
    struct host_set stages; /* the CPUs of the stages */
};

/* One check: fills found, and asked (preset `always`), verdict (preset ok) and remedy where due. */
struct check {
    const char *name;
    void (*run)(const struct check_context *context, struct check_result *result);
};

extern const struct check check_cpu_list[];
extern const struct check check_memory_list[];
extern const struct check check_system_list[]; /* each ends with a name of NULL */

void check_found(struct check_result *result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Sets asked; what is missing fails where it is needed, is a warning where it is wanted. */
void check_missing(struct check_result *result, enum config_wish wish, const char *remedy, ...)
    __attribute__((format(printf, 3, 4)));

/* A warning, whatever was asked. */
void check_warn(struct check_result *result, const char *remedy, ...)
    __attribute__((format(printf, 2, 3)));

const char *check_wish(enum config_wish wish);

/* `12.5 MiB` */
void check_bytes(uint64_t bytes, char out[32]);

/*
 * The folder of this process's cgroup that holds `file` of the (v1) controller or of v2, upwards
 * from `level` 0; false beyond the top.
 */
bool check_cgroup(const struct check_context *context, const char *controller, unsigned level,
                  char *out, size_t size);

#endif
