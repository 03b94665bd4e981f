/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/bench_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* ---- JSON ---- */

static const char *regime_name(enum bench_regime regime)
{
    static const char *const names[] = {"", "consumer keeps up", "consumer lags"};

    return names[regime];
}

json_t *report_result(const char *name, const struct bench_result *result, int err)
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

json_t *report_context(const char *program, const struct bench *bench)
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
                     "host_name", host, "executable", program, "num_cpus",
                     (int)sysconf(_SC_NPROCESSORS_ONLN), "mhz_per_cpu",
                     (int)(bench->clock.hz / 1e6), "cpu_scaling_enabled", 0, "library_build_type",
                     "release", "kernel", uts.release, "cpus", bench->cpu[0], bench->cpu[1],
                     "quantiles", at, "quick", bench->quick);
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

void report_table(const struct bench *bench, int repetitions, const struct bench_case *cases,
                  int count, const json_t *benchmarks)
{
    printf("CPUs %d and %d, TSC %.3f MHz, pages of 4 KiB, %d process start%s each; ns\n",
           bench->cpu[0], bench->cpu[1], bench->clock.hz / 1e6, repetitions,
           repetitions == 1 ? "" : "s");
    printf("%-34s %10s %10s %10s %10s %10s  spread\n", "", "median", "p50", "p99", "p99.9", "max");
    for (int i = 0; i < count; i++)
        print_row(benchmarks, cases[i].name);
}
