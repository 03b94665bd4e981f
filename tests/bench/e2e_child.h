/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that a benchmark starts, and the folder they may write to: neither outlives it, however
 * it ends. */
#ifndef TICKLINE_TESTS_BENCH_E2E_CHILD_H
#define TICKLINE_TESTS_BENCH_E2E_CHILD_H

#include "tests/bench/scratch.h"

#include <sys/types.h>

/* How a program is started. */
struct e2e_program {
    char *const *argv; /* argv[0]: where it is; NULL ends it */
    const int *cpu;    /* it is confined to these */
    int cpus;
    int in;  /* its stdin; -1: /dev/null */
    int out; /* its stdout; -1: /dev/null */
};

/* Its pid or -errno. It is sent SIGTERM when we die. */
pid_t e2e_child_start(const struct e2e_program *program);

/* Waits `ms` for it to end; sends `signal` first where that is not 0, and SIGKILL after. 0, or -EIO: it did not end
 * by itself, or with a status other than 0. */
int e2e_child_end(pid_t pid, int signal, int ms);

/* A scratch folder that goes even where we are killed. */
struct e2e_folder {
    struct scratch scratch;
    int held; /* it stands as long as anybody lives who has inherited this */
    pid_t remover;
};

/* 0, or -errno said in the note. */
int e2e_folder_open(struct e2e_folder *folder, struct bench_result *result);

/* Returns when it is removed: so all who could write to it must have ended. */
void e2e_folder_close(struct e2e_folder *folder);

#endif
