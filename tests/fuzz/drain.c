/* SPDX-License-Identifier: Apache-2.0 */
/* The tracer on an arena into which somebody writes, before and between its turns. First byte: bit 0 a bounded
 * trace, the others how many patches (fuzz.h) come before. */
#include "tests/fuzz/arena.h"
#include "tracer/history.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct work {
    struct fuzz_input before;
    struct fuzz_input input;
    struct region *arena;
    struct history_plan plan;
    struct history history;
};

static int run_folder;
enum { FOLDERS = 3 };
static int folder[FOLDERS];
static const char *const names[FOLDERS] = {"trace", "wire", "wire/ingress"};

static void sweep(void)
{
    for (int i = FOLDERS; i-- > 0;) {
        fuzz_sweep(folder[i]);
        unlinkat(run_folder, names[i], AT_REMOVEDIR);
    }
}

static void make_folders(void)
{
    char path[64];

    run_folder = fuzz_folder(path);
    for (int i = 0; i < FOLDERS; i++) {
        fuzz_require(mkdirat(run_folder, names[i], 0700) == 0);
        folder[i] = openat(run_folder, names[i], O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    }
    atexit(sweep);
}

static void act(void *context)
{
    struct work *work = context;

    fuzz_patch(&work->before, work->arena->header, work->arena->size);
    if (history_open(&work->history, &work->plan) < 0)
        return;
    (void)history_drain(&work->history);
    fuzz_patch(&work->input, region_at(work->arena, (size_t)2 * PAGE_BYTES),
               work->arena->size - (size_t)2 * PAGE_BYTES);
    for (int turn = 0; turn < 2 * LANE_SUBBUFFERS && history_drain(&work->history) > 0; turn++)
        continue;
    (void)history_close(&work->history);
}

/* What is under way when it stops ends with its process: no leak. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    static struct cells cells;
    static struct work work;
    struct clock clock = clock_from_hz(1e9);
    struct fuzz_open open;

    if (!run_folder)
        make_folders();
    fuzz_note_open(&open);
    work = (struct work){.input = {data, size}, .arena = arena_fresh()};
    uint32_t form = (uint32_t)fuzz_number(&work.input, 1);
    size_t first = 10 * (size_t)(form >> 1);
    work.before = work.input;
    work.before.left = first < work.input.left ? first : work.input.left;
    work.input.at += work.before.left;
    work.input.left -= work.before.left;
    config.trace.max_bytes = form & 1 ? 1 << 20 : 0;
    work.plan = (struct history_plan){.config = &config,
                                      .clock = &clock,
                                      .arena = work.arena,
                                      .cells = &cells,
                                      .run_folder = run_folder};
    (void)fuzz_stops(act, &work);
    (void)fuzz_close_new(&open);
    for (int i = 0; i < FOLDERS; i++)
        fuzz_sweep(folder[i]);
    return 0;
}
