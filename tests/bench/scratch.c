/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/scratch.h"

#include "tests/bench/rig.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN_MAX_FOLDERS = 8 };

int scratch_make(struct scratch *scratch, const char *parent, struct bench_result *result)
{
    char build[sizeof(scratch->path) - sizeof("/bench-run-XXXXXX")];

    if (!parent) {
        rig_build_folder(build, sizeof(build));
        parent = build;
    }
    int length = snprintf(scratch->path, sizeof(scratch->path), "%s/bench-run-XXXXXX", parent);
    if (length >= (int)sizeof(scratch->path))
        return bench_fail(result, -ENAMETOOLONG, "%s: too long a path", parent);
    if (!mkdtemp(scratch->path))
        return bench_fail(result, -errno, "%s: %s", scratch->path, strerror(errno));
    return 0;
}

static uint64_t total;

static int add(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)path;
    (void)at;
    if (kind == FTW_F)
        total += (uint64_t)st->st_size;
    return 0;
}

uint64_t scratch_bytes(const struct scratch *scratch)
{
    total = 0;
    (void)nftw(scratch->path, add, OPEN_MAX_FOLDERS, FTW_PHYS);
    return total;
}

static int drop(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    (void)remove(path);
    return 0;
}

void scratch_remove(const struct scratch *scratch)
{
    (void)nftw(scratch->path, drop, OPEN_MAX_FOLDERS, FTW_PHYS | FTW_DEPTH);
}
