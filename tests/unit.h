/* SPDX-License-Identifier: Apache-2.0 */
/* What the CUnit programs share: their main, a child that may die, a skip that says what is
 * missing.
 */
#ifndef TICKLINE_TESTS_UNIT_H
#define TICKLINE_TESTS_UNIT_H

#include <CUnit/Basic.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Runs the suites, prints CUnit's summary; what main returns. */
static inline int unit_run(CU_SuiteInfo *suites)
{
    if (CU_initialize_registry() != CUE_SUCCESS || CU_register_suites(suites) != CUE_SUCCESS) {
        fprintf(stderr, "CUnit: %s\n", CU_get_error_msg());
        return 1;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    unsigned int failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    return failed > 0;
}

#define UNIT_SKIP(...) (printf("skipped: " __VA_ARGS__), printf(" "))

/*
 * Calls act(argument) in a child, which returns by exit status. Gives its wait status, and the
 * beginning of what it wrote to stderr.
 */
static inline int unit_child(int (*act)(void *), void *argument, char *text, size_t size)
{
    int ends[2];
    int status = -1;
    size_t used = 0;
    ssize_t got;

    fflush(NULL);
    if (pipe(ends) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        const struct rlimit none = {0, 0};
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL); /* a sanitizer would answer it otherwise */
        alarm(120);
        _exit(act(argument));
    }
    close(ends[1]);
    while (used + 1 < size && (got = read(ends[0], text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    close(ends[0]);
    return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

/* The child ends by this signal and says so on stderr with this text. */
static inline void unit_dies(int (*act)(void *), void *argument, int signal_number,
                             const char *expected)
{
    char text[512];
    int status = unit_child(act, argument, text, sizeof(text));

    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == signal_number);
    CU_ASSERT_STRING_EQUAL(text, expected);
}

/* TICKLINE_TEST_THREADS=1: threads where processes would do, and less of it, for the thread
 * sanitizer. */
static inline bool unit_threads(void)
{
    const char *value = getenv("TICKLINE_TEST_THREADS");

    return value && strcmp(value, "1") == 0;
}

static inline double unit_seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The number `index` (0, 1) of the CPUs allowed to us, or -1: we have fewer. */
static inline int unit_cpu(int index)
{
    cpu_set_t set;

    sched_getaffinity(0, sizeof(set), &set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET((unsigned int)cpu, &set) && index-- == 0)
            return cpu;
    }
    return -1;
}

#endif
