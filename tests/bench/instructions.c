/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot path in one process, for counting instructions (valgrind --tool=callgrind): rx, worker and
 * tx with a source and a sink in memory, each polled once a round by hand, so that nothing ever polls
 * in vain. The difference between two numbers of requests is free of what the start costs.
 *
 *   instructions --filter NAME --requests N        instructions --list
 */
#include "rx/rx.h"
#include "tests/bench/memory/memory.h"
#include "tests/bench/rig.h"
#include "tx/tx.h"
#include "worker/worker.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct variant {
    const char *name;
    const char *ini;
};

#define RING "[ring]\nslot = 128\nfull = wait\n[trace]\nlane = 4MiB\n"

static const struct variant variants[] = {
    {"instructions/v1", "[pipeline]\nschema = v1\n" RING "stamps = off\n"},
    {"instructions/v2", "[pipeline]\nschema = v2\n" RING "stamps = off\n"},
    {"instructions/v2/stamps", "[pipeline]\nschema = v2\n" RING},
};

enum { VARIANTS = sizeof(variants) / sizeof(variants[0]), LANES = 4 };

static int drive(struct rig *rig, uint64_t requests, struct bench_result *result)
{
    static struct stage rx;
    static struct stage worker;
    static struct stage tx;
    const struct rig_stage plan[] = {
        {.name = "tx", .cell = CELL_TX, .wait = "spin", .ops = &tx_ops},
        {.name = "worker0", .cell = CELL_WORKER, .wait = "spin", .ops = &worker_ops},
        {.name = "rx", .cell = CELL_RX, .wait = "spin", .ops = &rx_ops},
    };
    struct stage *const stages[] = {&tx, &worker, &rx};
    struct lane lanes[LANES];
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < LANES; i++)
        err = lane_open(&lanes[i], &rig->arena, i);
    for (int i = 0; err == 0 && i < 3; i++)
        err = rig_prepare(rig, &plan[i], stages[i], result);
    while (err == 0 && load_relaxed(&tx.cell->completed) < requests) {
        for (int i = 2; err == 0 && i >= 0; i--) {
            int moved = stages[i]->ops->poll(stages[i]);
            if (moved <= 0)
                err = bench_fail(result, -EIO, "%s had nothing to do", stages[i]->name);
        }
        for (int i = 0; i < LANES; i++)
            rig_recycle(&lanes[i]);
    }
    return err;
}

static int run(const struct variant *variant, uint64_t requests)
{
    struct bench bench = {.clock = clock_from_hz(2.6e9)};
    struct bench_result *result = bench_memory(sizeof(*result));
    struct rig *rig = bench_memory(sizeof(*rig));
    int fd = memfd_create("bench-memory", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, sizeof(struct memory)) < 0)
        return 4;
    const struct rig_plan plan = {.ini = variant->ini, .memory = fd};
    int err = rig_open(rig, &bench, &plan, result);
    if (err == 0)
        err = drive(rig, requests, result);
    if (err < 0)
        fprintf(stderr, "%s: %s\n", variant->name, result->note);
    rig_close(rig);
    close(fd);
    return err < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"filter", required_argument, NULL, 'f'},
        {"requests", required_argument, NULL, 'n'},
        {"list", no_argument, NULL, 'l'},
        {NULL, 0, NULL, 0},
    };
    const char *name = NULL;
    uint64_t requests = 64;
    int option;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (option == 'f')
            name = optarg;
        else if (option == 'n')
            requests = strtoull(optarg, NULL, 10);
        else if (option == 'l')
            for (int i = 0; i < VARIANTS; i++)
                puts(variants[i].name);
        else
            return 2;
    }
    for (int i = 0; name && i < VARIANTS; i++) {
        if (strcmp(variants[i].name, name) == 0)
            return run(&variants[i], requests);
    }
    if (name)
        fprintf(stderr, "%s: %s: no such variant; see --list\n", argv[0], name);
    return name ? 2 : 0;
}
