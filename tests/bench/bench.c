/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/bench.h"

#include "stage/cpu.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FILTERS_MAX = 32, CALIBRATION_NS = 20000000, SECONDS_MAX = 120 };

const double bench_quantile_at[BENCH_QUANTILES] = {
    0,   0.001, 0.005, 0.01, 0.02, 0.05, 0.1,  0.2,   0.25,  0.3,    0.4,    0.5, 0.6,
    0.7, 0.75,  0.8,   0.9,  0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1,
};

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

/* ---- for the cases ---- */

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

void bench_spread(const struct bench *bench, struct bench_result *result, uint32_t *ticks,
                  uint64_t count, double per)
{
    double ns = 1e9 / bench->clock.hz / per;

    qsort(ticks, count, sizeof(*ticks), by_size);
    for (int i = 0; i < BENCH_QUANTILES; i++) {
        /* Nearest rank: the smallest sample with at least that share of all at or below it. */
        double rank = ceil(bench_quantile_at[i] * (double)count);
        uint64_t at = rank < 1 ? 0 : (uint64_t)rank - 1;
        result->quantile[i] = ticks[at] * ns;
        if (bench_quantile_at[i] == 0.5)
            result->p50 = result->quantile[i];
        else if (bench_quantile_at[i] == 0.99)
            result->p99 = result->quantile[i];
        else if (bench_quantile_at[i] == 0.999)
            result->p99_9 = result->quantile[i];
        else if (bench_quantile_at[i] == 1)
            result->max = result->quantile[i];
    }
    result->n = count;
    result->spread = true;
    result->ns = result->p50;
}

void bench_rate(const struct bench *bench, struct bench_result *result, uint64_t operations,
                uint64_t ticks)
{
    double ns = (double)ticks * 1e9 / bench->clock.hz;

    result->n = operations;
    result->ns = ns / (double)operations;
    result->items_per_second = (double)operations * 1e9 / ns;
}

void bench_better(struct bench_result *without_pause, const struct bench_result *with_pause)
{
    double without = without_pause->p50;

    if (with_pause->p50 < without)
        *without_pause = *with_pause;
    bench_extra(without_pause, "without_pause", without);
    bench_extra(without_pause, "with_pause", with_pause->p50);
}

void bench_extra(struct bench_result *result, const char *name, double value)
{
    if (result->extras < BENCH_EXTRA_MAX)
        result->extra[result->extras++] = (struct bench_extra){name, value};
}

int bench_fail(struct bench_result *result, int err, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(result->note, sizeof(result->note), format, arguments);
    va_end(arguments);
    return err;
}

void *bench_memory(size_t bytes)
{
    void *memory = calloc(1, bytes);

    if (!memory) {
        fprintf(stderr, "bench: %zu bytes of memory: %s\n", bytes, strerror(errno));
        exit(4);
    }
    return memory;
}

void *bench_shared(size_t bytes)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (memory == MAP_FAILED) {
        fprintf(stderr, "bench: %zu bytes of shared memory: %s\n", bytes, strerror(errno));
        exit(4);
    }
    return memory;
}

pid_t bench_child(int cpu, int (*act)(void *argument), void *argument)
{
    fflush(NULL);
    pid_t pid = fork();

    if (pid < 0) {
        fprintf(stderr, "bench: fork: %s\n", strerror(errno));
        exit(4);
    }
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (cpu_pin(cpu) < 0)
        _exit(4);
    _exit(act(argument));
}

int bench_wait(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return status == 0 ? 0 : -EIO;
}

/* ---- results as JSON, Google Benchmark's ---- */

static const char *regime_name(enum bench_regime regime)
{
    static const char *const names[] = {"", "consumer keeps up", "consumer lags"};

    return names[regime];
}

static json_t *result_json(const char *name, const struct bench_result *result, int err)
{
    json_t *json = json_pack("{s:s, s:s, s:s, s:i, s:i}", "name", name, "run_name", name,
                             "run_type", "iteration", "repetition_index", 0, "threads", 1);

    if (result->note[0])
        json_object_set_new(json, "label", json_string(result->note));
    if (err < 0) {
        json_object_set_new(json, "error_occurred", json_true());
        json_object_set_new(json, "error_message",
                            json_string(result->note[0] ? result->note : strerror(-err)));
        return json;
    }
    json_object_set_new(json, "iterations", json_integer((json_int_t)result->n));
    json_object_set_new(json, "real_time", json_real(result->ns));
    json_object_set_new(json, "cpu_time", json_real(result->ns));
    json_object_set_new(json, "time_unit", json_string("ns"));
    if (result->items_per_second > 0)
        json_object_set_new(json, "items_per_second", json_real(result->items_per_second));
    if (result->spread) {
        json_object_set_new(json, "p50", json_real(result->p50));
        json_object_set_new(json, "p99", json_real(result->p99));
        json_object_set_new(json, "p99_9", json_real(result->p99_9));
        json_object_set_new(json, "max", json_real(result->max));
        json_t *quantiles = json_array();
        for (int i = 0; i < BENCH_QUANTILES; i++)
            json_array_append_new(quantiles, json_real(result->quantile[i]));
        json_object_set_new(json, "quantiles", quantiles);
    }
    if (result->regime)
        json_object_set_new(json, "regime", json_string(regime_name(result->regime)));
    if (result->page_bytes)
        json_object_set_new(json, "page_bytes", json_integer(result->page_bytes));
    for (int i = 0; i < result->extras; i++)
        json_object_set_new(json, result->extra[i].name, json_real(result->extra[i].value));
    return json;
}

static json_t *context_json(const struct options *options, const struct bench *bench)
{
    struct utsname uts;
    char date[32];
    char host[256] = "";
    time_t now = time(NULL);
    struct tm tm;
    json_t *at = json_array();

    uname(&uts);
    (void)gethostname(host, sizeof(host) - 1);
    gmtime_r(&now, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S+00:00", &tm);
    for (int i = 0; i < BENCH_QUANTILES; i++)
        json_array_append_new(at, json_real(bench_quantile_at[i]));
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:b, s:s, s:s, s:[i,i], s:o, s:b}", "date", date,
                     "host_name", host, "executable", options->program, "num_cpus",
                     (int)sysconf(_SC_NPROCESSORS_ONLN), "mhz_per_cpu",
                     (int)(bench->clock.hz / 1e6), "cpu_scaling_enabled", 0, "library_build_type",
                     "release", "kernel", uts.release, "cpus", bench->cpu[0], bench->cpu[1],
                     "quantiles", at, "quick", options->quick);
}

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
    json_t *json = result_json(one->name, result, err);
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

/* ---- the table ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Median of a field over the repetitions of one case; `low` and `high` are its extremes. NAN where
 * no repetition has it. */
static double median(const json_t *benchmarks, const char *name, const char *field, double *low,
                     double *high)
{
    double values[1024];
    size_t count = 0;
    size_t i;
    json_t *one;

    json_array_foreach(benchmarks, i, one)
    {
        const json_t *value = json_object_get(one, field);
        if (strcmp(json_string_value(json_object_get(one, "name")), name) == 0 && value &&
            count < sizeof(values) / sizeof(values[0]))
            values[count++] = json_number_value(value);
    }
    if (count == 0)
        return NAN;
    qsort(values, count, sizeof(values[0]), by_value);
    if (low)
        *low = values[0];
    if (high)
        *high = values[count - 1];
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void print_number(double value)
{
    if (isnan(value))
        printf(" %10s", "");
    else
        printf(" %10.*f", value < 10 ? 2 : value < 1000 ? 1 : 0, value);
}

static void print_row(const json_t *benchmarks, const char *name)
{
    static const char *const fields[] = {"real_time", "p50", "p99", "p99_9", "max"};
    const json_t *last = NULL;
    double low = NAN;
    double high = NAN;
    size_t i;
    json_t *one;

    json_array_foreach(benchmarks, i, one)
    {
        if (strcmp(json_string_value(json_object_get(one, "name")), name) == 0)
            last = one;
    }
    if (!last)
        return;
    if (json_object_get(last, "error_message")) {
        printf("%-34s skipped: %s\n", name,
               json_string_value(json_object_get(last, "error_message")));
        return;
    }
    printf("%-34s", name);
    for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]); k++)
        print_number(median(benchmarks, name, fields[k], k ? NULL : &low, k ? NULL : &high));
    printf("  %+.1f %+.1f%%", (low / median(benchmarks, name, "real_time", NULL, NULL) - 1) * 100,
           (high / median(benchmarks, name, "real_time", NULL, NULL) - 1) * 100);
    double rate = median(benchmarks, name, "items_per_second", NULL, NULL);
    if (!isnan(rate))
        printf("  %.2f M/s", rate / 1e6);
    const char *regime = json_string_value(json_object_get(last, "regime"));
    if (regime && regime[0])
        printf("  %s", regime);
    const char *label = json_string_value(json_object_get(last, "label"));
    if (label)
        printf("  (%s)", label);
    printf("\n");
}

static void print_table(const struct options *options, const struct bench *bench,
                        const struct bench_case *cases, int count, const json_t *benchmarks)
{
    printf("CPUs %d and %d, TSC %.3f MHz, pages of 4 KiB, %d process start%s each; ns\n",
           bench->cpu[0], bench->cpu[1], bench->clock.hz / 1e6, options->repetitions,
           options->repetitions == 1 ? "" : "s");
    printf("%-34s %10s %10s %10s %10s %10s  spread\n", "", "median", "p50", "p99", "p99.9", "max");
    for (int i = 0; i < count; i++)
        print_row(benchmarks, cases[i].name);
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
            if (sscanf(optarg, "%d,%d", &options->cpu[0], &options->cpu[1]) != 2)
                return -EINVAL;
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
    json_t *all =
        json_pack("{s:o, s:O}", "context", context_json(options, bench), "benchmarks", benchmarks);
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
        print_table(&options, &bench, cases, count, benchmarks);
    if (options.json)
        status = write_json(&options, &bench, benchmarks);
    json_decref(benchmarks);
    return status;
}
