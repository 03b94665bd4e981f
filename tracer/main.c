/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracer: drains every lane of the arena to the run directory while the pipeline runs. Nobody wakes
 * it: it sleeps on a timer when there was nothing to do. It ends when all stages have ended and
 * their lanes are on disk. With --salvage it does the same for a run of which all processes were killed.
 *
 * Where it cannot write it keeps trying: the lanes fill, what does not fit is discarded and counted by its
 * owners, and requests are served as before.
 */
#include "stage/stage.h"
#include "tracer/history.h"
#include "tracer/salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* A lane of default size holds 20 ms of 25 million stamps a second; who wakes more often than there is
 * anything to write only disturbs its CPU. */
enum { NAP_MAX_NS = 20000000, WELL_NS = 1000000000 };

struct tracer {
    struct history history;
    uint64_t nap_ns; /* the next one, or 0: the shortest; longer each time nothing was found */
    int run_folder;
    int trace_folder;
    char path[256]; /* of the run folder */
    struct ctf_facts facts;
    struct clock_pair first;
    uint64_t failed_at; /* tsc of the newest write that failed; 0: told that all is well */
    uint64_t discarded; /* before the first of them */
};

static void read_path(struct tracer *tracer)
{
    char link[32];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", tracer->run_folder);
    if (readlink(link, tracer->path, sizeof(tracer->path) - 1) < 0)
        snprintf(tracer->path, sizeof(tracer->path), "the run directory");
}

static int tracer_open(struct stage *stage)
{
    struct tracer *tracer = stage->self;

    tracer->run_folder = stage_descriptor(stage, "run");
    read_path(tracer);
    tracer->trace_folder = openat(tracer->run_folder, "trace", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (tracer->trace_folder < 0)
        return stage_error(stage, -errno, "trace/: %s", strerror(errno));
    tracer->first = clock_pair_read(&stage->clock);
    tracer->facts = (struct ctf_facts){
        .uuid = ctf_uuid(stage->arena.header->epoch),
        .run = stage->config.pipeline.name,
        .clock = stage->clock,
        .pair = tracer->first,
        .arena = &stage->arena,
    };
    int err = ctf_save_metadata(tracer->trace_folder, &tracer->facts);
    if (err < 0 && stage->generation == 1) /* else a predecessor's is there */
        return stage_error(stage, err, "trace/metadata: %s", strerror(-err));
    const struct history_plan plan = {
        .config = &stage->config,
        .clock = &stage->clock,
        .arena = &stage->arena,
        .cells = stage->cells,
        .uuid = tracer->facts.uuid,
        .run_folder = tracer->run_folder,
    };
    err = history_open(&tracer->history, &plan);
    if (err < 0)
        return stage_error(stage, err, "trace files: %s", strerror(-err));
    stage_note(stage, "tracer.io", "direct", tracer->history.direct ? "direct" : "buffered",
               tracer->history.direct ? "" : "the file system refuses O_DIRECT");
    return 0;
}

static bool is_full(int err)
{
    return err == -ENOSPC || err == -EDQUOT;
}

static void note_failure(struct stage *stage, struct tracer *tracer, int err)
{
    bool first = tracer->failed_at == 0;
    tracer->failed_at = tsc_read();
    if (!first)
        return;
    tracer->discarded = history_discarded(&tracer->history);
    stage_tell(stage, "cannot write the trace: %s; stamps are discarded until %s %s",
               strerror(-err), is_full(err) ? "there is room in" : "it can be written to",
               tracer->path);
}

static void note_recovery(struct stage *stage, struct tracer *tracer)
{
    tracer->failed_at = 0;
    stage_tell(stage, "writes the trace again; %llu stamps were discarded",
               (unsigned long long)(history_discarded(&tracer->history) - tracer->discarded));
}

static int tracer_poll(struct stage *stage)
{
    struct tracer *tracer = stage->self;

    int moved = history_drain(&tracer->history);
    if (moved > 0)
        tracer->nap_ns = 0;
    if (moved < 0)
        note_failure(stage, tracer, moved);
    else if (tracer->failed_at && clock_ns(&stage->clock, tsc_read() - tracer->failed_at) > WELL_NS)
        note_recovery(stage, tracer);
    return moved < 0 ? 0 : moved;
}

static bool tracer_drained(struct stage *stage)
{
    return stage_ended(stage, CELL_TX);
}

static bool tracer_park(struct stage *stage, uint64_t ns)
{
    struct tracer *tracer = stage->self;
    uint64_t nap = tracer->nap_ns > ns ? tracer->nap_ns : ns;

    tracer->nap_ns = nap * 2 < NAP_MAX_NS ? nap * 2 : NAP_MAX_NS;
    return ring_nap(nap);
}

static void tracer_close(struct stage *stage)
{
    struct tracer *tracer = stage->self;
    struct clock_pair last = clock_pair_read(&stage->clock);

    int err = history_close(&tracer->history);
    if (err < 0)
        stage_error(stage, err, "cannot write the trace: %s%s", strerror(-err),
                    is_full(err) ? "; make room for the run directory" : "");
    else if (tracer->failed_at)
        note_recovery(stage, tracer);
    /* Over the whole run the frequency is known far better than at its start. */
    if (last.raw_ns - tracer->first.raw_ns > 1000000000ULL)
        tracer->facts.clock = clock_from_pairs(&tracer->first, &last);
    tracer->facts.pair = last;
    err = ctf_save_metadata(tracer->trace_folder, &tracer->facts);
    if (err < 0)
        stage_error(stage, err, "trace/metadata: %s", strerror(-err));
}

int main(int argc, char **argv)
{
    static struct tracer tracer;
    static const struct stage_ops ops = {
        .open = tracer_open,
        .poll = tracer_poll,
        .drained = tracer_drained,
        .close = tracer_close,
        .park = tracer_park,
    };

    if (argc > 1 && strcmp(argv[1], "--salvage") == 0)
        return salvage_main(argc - 1, argv + 1);
    return stage_main(argc, argv, &ops, &tracer);
}
