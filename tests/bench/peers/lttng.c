/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LTTng-UST beside our stamp: a tracepoint with the same facts as our record, in a tight loop, with
 * 100 ns of work between, and compiled in without a session.
 *
 * The daemons run on the second CPU, the traced program on the first. It is this one again, since
 * LTTng connects a program to its daemon when it is loaded. Buffers are a ring for each CPU, large
 * enough to lose nothing, and LTTng's default otherwise: per user, discard when full. The ring is
 * stamped full once before measuring, so that its pages are there. As a stamp of LTTng does not tell
 * its own time, percentiles are of batches: averages over BATCH stamps.
 */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "tests/bench/peers/lttng_point.h"

#include "tests/bench/bench.h"
#include "tests/bench/peers/lttng_session.h"
#include "tests/bench/scratch.h"
#include "tests/bench/work.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BATCH = 64, WORK_NS = 100, WARM_BATCHES = 16384 /* more than the ring holds */ };
enum { BATCHES_MAX = 200000 };

/* Shared by the benchmark, the session's process and the traced program. */
struct job {
    struct lttng_session session;
    int descriptor; /* of this memory, for the traced program */
    uint64_t batches;
    uint32_t steps; /* of work between stamps; 0: none */
    /* the traced program's */
    uint64_t stamps;
    uint32_t with[BATCHES_MAX];
    uint32_t without[BATCHES_MAX]; /* the work alone */
};

/* ---- the traced program ---- */

static uint32_t stamp_batch(void)
{
    uint64_t began = tsc_read();

    for (uint32_t k = 0; k < BATCH; k++)
        lttng_ust_tracepoint(tickline, stamp, 0, k);
    return bench_ticks32(tsc_read() - began);
}

static uint32_t work_batch(uint32_t steps, bool stamp)
{
    uint64_t value = steps;
    uint64_t began = tsc_read();

    for (uint32_t k = 0; k < BATCH; k++) {
        value = work(value, steps);
        if (stamp)
            lttng_ust_tracepoint(tickline, stamp, 0, (uint32_t)(value & 1));
        __asm__ volatile("" ::"r"(value) : "memory");
    }
    return bench_ticks32(tsc_read() - began);
}

static int traced_main(const char *descriptor)
{
    struct job *job =
        mmap(NULL, sizeof(*job), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(descriptor), 0);

    if (job == MAP_FAILED || !lttng_ust_tracepoint_enabled(tickline, stamp))
        return 1;
    for (uint32_t i = 0; i < WARM_BATCHES; i++)
        (void)stamp_batch();
    for (uint64_t i = 0; i < job->batches; i++) {
        job->with[i] = job->steps ? work_batch(job->steps, true) : stamp_batch();
        job->without[i] = job->steps ? work_batch(job->steps, false) : 0;
    }
    job->stamps = (WARM_BATCHES + job->batches) * BATCH;
    return 0;
}

/* ---- the benchmark ---- */

static void tell(const struct bench *bench, struct job *job, uint64_t bytes,
                 struct bench_result *result)
{
    const uint64_t discarded = job->session.discarded;
    struct bench_result plain = {0};

    bench_spread(bench, result, job->with, job->batches, BATCH);
    if (job->steps) {
        bench_spread(bench, &plain, job->without, job->batches, BATCH);
        bench_extra(result, "with_work", result->ns);
        bench_extra(result, "work", plain.ns);
        result->ns -= plain.ns;
    }
    bench_extra(result, "discarded", (double)discarded);
    bench_extra(result, "bytes_per_stamp", (double)bytes / (double)(job->stamps - discarded));
    snprintf(result->note, sizeof(result->note), "p50 to max: averages of %d stamps", BATCH);
    result->page_bytes = 4096;
}

static int become_traced(void *argument)
{
    const struct job *job = argument;
    char descriptor[16];

    snprintf(descriptor, sizeof(descriptor), "%d", job->descriptor);
    execl("/proc/self/exe", "peer_lttng", "traced", descriptor, NULL);
    return 127;
}

static int run_session(const struct bench *bench, struct job *job, struct bench_result *result)
{
    struct lttng_session *session = &job->session;
    struct scratch scratch;

    int err = scratch_make(&scratch, "/tmp", result);
    if (err < 0)
        return err;
    *session = (struct lttng_session){
        .event = "tickline:stamp",
        .channel = "--subbuf-size=1M --num-subbuf=8",
        .cpu = bench->cpu[0],
        .traced = become_traced,
        .argument = job,
    };
    snprintf(session->home, sizeof(session->home), "%s", scratch.path);
    err = bench_wait(bench_child(bench->cpu[1], lttng_session, session));
    if (err < 0)
        (void)bench_fail(result, err, "%s", session->failure);
    else
        tell(bench, job, scratch_bytes(&scratch), result);
    scratch_remove(&scratch);
    return err;
}

static int run_traced(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    const bool with_work = *(const bool *)parameter;
    const uint64_t batches = bench->quick ? BATCHES_MAX / 10 : BATCHES_MAX;
    int descriptor = memfd_create("bench", 0);

    if (descriptor < 0 || ftruncate(descriptor, sizeof(struct job)) < 0)
        return -errno;
    struct job *job =
        mmap(NULL, sizeof(*job), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, 0);
    if (job == MAP_FAILED)
        return -errno;
    job->descriptor = descriptor;
    job->steps = with_work ? work_steps(bench, WORK_NS) : 0;
    job->batches = with_work ? batches / 4 : batches;
    int err = run_session(bench, job, result);
    munmap(job, sizeof(*job));
    close(descriptor);
    return err;
}

/* A loop around the tracepoint, less the same loop without it. */
static int run_off(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    enum { LOOP = 10000, ROUNDS = 4000 };
    const uint32_t rounds = bench->quick ? ROUNDS / 10 : ROUNDS;
    uint32_t *with = bench_memory(rounds * sizeof(*with));
    uint32_t *without = bench_memory(rounds * sizeof(*without));
    struct bench_result empty = {0};

    (void)parameter;
    if (lttng_ust_tracepoint_enabled(tickline, stamp))
        return bench_fail(result, -EBUSY, "a session of this host traces every program");
    for (uint32_t r = 0; r < rounds; r++) {
        uint64_t began = tsc_read();
        for (uint32_t i = 0; i < LOOP; i++) {
            lttng_ust_tracepoint(tickline, stamp, 0, i);
            __asm__ volatile("" ::: "memory");
        }
        uint64_t middle = tsc_read();
        for (uint32_t i = 0; i < LOOP; i++)
            __asm__ volatile("" ::: "memory");
        without[r] = bench_ticks32(tsc_read() - middle);
        with[r] = bench_ticks32(middle - began);
    }
    bench_spread(bench, &empty, without, rounds, LOOP);
    bench_spread(bench, result, with, rounds, LOOP);
    bench_extra(result, "with_loop", result->ns);
    bench_extra(result, "loop", empty.ns);
    result->ns = result->ns > empty.ns ? result->ns - empty.ns : 0;
    result->n = (uint64_t)rounds * LOOP;
    return 0;
}

static const bool tight = false;
static const bool work100 = true;

static const struct bench_case cases[] = {
    {"peer/lttng/stamp/tight", run_traced, &tight},
    {"peer/lttng/stamp/work100", run_traced, &work100},
    {"peer/lttng/stamp/off", run_off, NULL},
};

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "traced") == 0)
        return traced_main(argv[2]);
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
