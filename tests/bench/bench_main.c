/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/cpu.h"
#include "tests/bench/bench.h"
#include "tests/bench/bench_report.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { FILTERS_MAX = 32, CALIBRATION_NS = 20000000, SECONDS_MAX = 120 };

struct options {
    const char *program;
    const char *filter[FILTERS_MAX];
    int filters;
    int repetitions;
    int cpu[2];
    bool quick;
    bool list;
    const char *json;
};

/* ---- one repetition: this process ---- */

static void calibrate(struct bench *bench)
{
    const struct timespec nap = {.tv_nsec = CALIBRATION_NS};
    struct clock_pair first = clock_pair_read(NULL);

    nanosleep(&nap, NULL);
    struct clock_pair second = clock_pair_read(NULL);
    bench->clock = clock_from_pairs(&first, &second);
}

static json_t *run_here(const struct bench *bench, const struct bench_case *one)
{
    struct bench_result *result = bench_memory(sizeof(*result));

    (void)cpu_pin(bench->cpu[0]);
    alarm(SECONDS_MAX);
    int err = one->run(bench, one->parameter, result);
    alarm(0);
    json_t *json = report_result(one->name, result, err);
    free(result);
    return json;
}

/* ---- many: a process start each ---- */

static json_t *run_elsewhere(const struct options *options, const struct bench_case *one)
{
    char cpus[32];
    int ends[2];
    char *argv[] = {(char *)(uintptr_t)options->program,
                    "--filter",
                    (char *)(uintptr_t)one->name,
                    "--repetitions",
                    "1",
                    "--cpus",
                    cpus,
                    "--json",
                    "-",
                    options->quick ? "--quick" : NULL,
                    NULL};

    snprintf(cpus, sizeof(cpus), "%d,%d", options->cpu[0], options->cpu[1]);
    if (pipe(ends) < 0)
        return NULL;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    json_t *all = in ? json_loadf(in, 0, NULL) : NULL;
    if (in)
        fclose(in);
    bool fine = pid > 0 && bench_wait(pid) == 0;
    json_t *result = json_incref(json_array_get(json_object_get(all, "benchmarks"), 0));
    json_decref(all);
    if (!result)
        result = json_pack("{s:s, s:s, s:s, s:b, s:s}", "name", one->name, "run_name", one->name,
                           "run_type", "iteration", "error_occurred", 1, "error_message",
                           fine ? "no result" : "the process failed");
    return result;
}

/* ---- main ---- */

static void usage(const char *program)
{
    printf("usage: %s [--filter GLOB]... [--repetitions N] [--quick] [--cpus A,B] [--json FILE]\n"
           "       %s --list\n\n"
           "  --filter GLOB    only the benchmarks whose name matches; may be given again\n"
           "  --repetitions N  process starts of each (1)\n"
           "  --quick          about a tenth of the work\n"
           "  --cpus A,B       the pair to measure on (the first two that are allowed)\n"
           "  --json FILE      Google Benchmark's JSON; - is stdout, instead of the table\n"
           "  --list           the names\n",
           program, program);
}

static void default_cpus(int cpu[2])
{
    cpu_set_t allowed;
    int found = 0;

    CPU_ZERO(&allowed);
    (void)sched_getaffinity(0, sizeof(allowed), &allowed);
    for (size_t i = 0; i < CPU_SETSIZE && found < 2; i++) {
        if (CPU_ISSET(i, &allowed))
            cpu[found++] = (int)i;
    }
    if (found == 1)
        cpu[1] = cpu[0];
}

/* A child that cannot be pinned would leave its parent waiting for it. */
static bool cpus_allowed(const int cpu[2])
{
    cpu_set_t allowed;

    CPU_ZERO(&allowed);
    (void)sched_getaffinity(0, sizeof(allowed), &allowed);
    for (int i = 0; i < 2; i++) {
        if (cpu[i] < 0 || cpu[i] >= CPU_SETSIZE || !CPU_ISSET((size_t)cpu[i], &allowed))
            return false;
    }
    return true;
}

static int parse(int argc, char **argv, struct options *options)
{
    static const struct option longs[] = {
        {"filter", required_argument, NULL, 'f'}, {"repetitions", required_argument, NULL, 'r'},
        {"quick", no_argument, NULL, 'q'},        {"cpus", required_argument, NULL, 'c'},
        {"json", required_argument, NULL, 'j'},   {"list", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    int option;

    *options = (struct options){.program = argv[0], .repetitions = 1};
    default_cpus(options->cpu);
    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (option) {
        case 'f':
            if (options->filters < FILTERS_MAX)
                options->filter[options->filters++] = optarg;
            break;
        case 'r':
            options->repetitions = atoi(optarg);
            break;
        case 'q':
            options->quick = true;
            break;
        case 'c':
            if (sscanf(optarg, "%d,%d", &options->cpu[0], &options->cpu[1]) != 2 ||
                !cpus_allowed(options->cpu)) {
                fprintf(
                    stderr,
                    "%s: --cpus %s: expected two CPUs allowed here, as in 0,1; see taskset -p $$\n",
                    argv[0], optarg);
                return -EINVAL;
            }
            break;
        case 'j':
            options->json = optarg;
            break;
        case 'l':
            options->list = true;
            break;
        case 'h':
            usage(argv[0]);
            exit(0);
        default:
            return -EINVAL;
        }
    }
    if (optind < argc || options->repetitions < 1 || options->repetitions > 1000) {
        fprintf(stderr, "%s: expected options only, and 1 to 1000 repetitions; see --help\n",
                argv[0]);
        return -EINVAL;
    }
    return 0;
}

static bool chosen(const struct options *options, const char *name)
{
    for (int i = 0; i < options->filters; i++) {
        if (fnmatch(options->filter[i], name, 0) == 0)
            return true;
    }
    return options->filters == 0;
}

static json_t *run_all(const struct options *options, const struct bench *bench,
                       const struct bench_case *cases, int count)
{
    json_t *benchmarks = json_array();

    for (int r = 0; r < options->repetitions; r++) {
        for (int i = 0; i < count; i++) {
            if (!chosen(options, cases[i].name))
                continue;
            json_t *one = options->repetitions == 1 ? run_here(bench, &cases[i])
                                                    : run_elsewhere(options, &cases[i]);
            json_object_set_new(one, "repetitions", json_integer(options->repetitions));
            json_object_set_new(one, "repetition_index", json_integer(r));
            json_array_append_new(benchmarks, one);
        }
    }
    return benchmarks;
}

static int write_json(const struct options *options, const struct bench *bench, json_t *benchmarks)
{
    json_t *all = json_pack("{s:o, s:O}", "context", report_context(options->program, bench),
                            "benchmarks", benchmarks);
    const size_t flags = JSON_INDENT(2) | JSON_REAL_PRECISION(8);
    int err = strcmp(options->json, "-") == 0 ? json_dumpf(all, stdout, flags)
                                              : json_dump_file(all, options->json, flags);

    json_decref(all);
    if (err)
        fprintf(stderr, "%s: %s: cannot be written\n", options->program, options->json);
    return err ? 4 : 0;
}

int bench_main(int argc, char **argv, const struct bench_case *cases, int count)
{
    struct options options;
    struct bench bench = {0};
    int status = 0;

    if (parse(argc, argv, &options) < 0)
        return 2;
    if (options.list) {
        for (int i = 0; i < count; i++) {
            if (chosen(&options, cases[i].name))
                printf("%s\n", cases[i].name);
        }
        return 0;
    }
    bench.cpu[0] = options.cpu[0];
    bench.cpu[1] = options.cpu[1];
    bench.quick = options.quick;
    calibrate(&bench);
    json_t *benchmarks = run_all(&options, &bench, cases, count);
    if (json_array_size(benchmarks) == 0) {
        fprintf(stderr, "%s: no such benchmark; see --list\n", argv[0]);
        return 2;
    }
    if (!options.json || strcmp(options.json, "-") != 0)
        report_table(&bench, options.repetitions, cases, count, benchmarks);
    if (options.json)
        status = write_json(&options, &bench, benchmarks);
    json_decref(benchmarks);
    return status;
}
