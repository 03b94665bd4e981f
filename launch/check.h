/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preflight: what the configuration asks of this host, what was found, and the command that mends
 * it.
 *
 * Reads /proc, /sys, limits and free space; changes nothing. A check fails only where something is
 * demanded (`need`, or always) and cannot be had; what is merely wanted is a warning.
 */
#ifndef TICKLINE_LAUNCH_CHECK_H
#define TICKLINE_LAUNCH_CHECK_H

#include <stdio.h>

#include "launch/placement.h"

enum { CHECK_MAX = 32 };

enum check_verdict { CHECK_OK, CHECK_WARN, CHECK_FAIL };

struct check_result {
    const char *name;
    const char *asked; /* no, want, need, always */
    enum check_verdict verdict;
    char found[256];
    char remedy[256]; /* a command to type; empty where all is well */
};

/* Bytes of shared memory a run takes, estimated from above. */
struct check_demand {
    uint64_t ring_bytes;  /* all rings (memfds) */
    uint64_t arena_bytes; /* all trace lanes (a file in /dev/shm) */
    uint64_t tcp_bytes;   /* receive buffers of all connections (a memfd); 0 without TCP */
    uint64_t huge_pages;  /* 2 MiB pages, if rings stand on such */
};
void check_demand(const struct config *config, struct check_demand *demand);

/* Fills `results`; how many. */
uint32_t check_run(const struct host *host, const struct config *config,
                   const struct host_topology *topology, const struct placement *placement,
                   struct check_result results[CHECK_MAX]);

/* The worst of them. CHECK_FAIL is exit status 4. */
enum check_verdict check_worst(const struct check_result *results, uint32_t count);

/* A table of at most 80 columns, placement first. 0 or -EIO. */
int check_print(const struct check_result *results, uint32_t count,
                const struct placement *placement, FILE *out);

/*
 * {"verdict":"warn","placement":{"stages":{"rx":{"cpu":1,"wait":"yield"},…},"tracer":0,"player":0,
 *  "sink":0,"launcher":0,"own_cpu":false,"rotations":[{"cpu":1,"order":["rx","worker0","tx"]}],
 *  "degraded":["…"]},"checks":[{"name":"…","asked":"want","verdict":"ok","found":"…","remedy":"…"},…]}
 * 0, -ENOMEM or -EIO.
 */
int check_print_json(const struct check_result *results, uint32_t count,
                     const struct placement *placement, FILE *out);

#endif
