/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracer: drains every lane of the arena to the run directory while the pipeline runs. Nobody wakes
 * it: it sleeps on a timer when there was nothing to do. It ends when all stages have ended and
 * their lanes are on disk. With --salvage it does the same for a run of which all processes were killed.
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
enum { NAP_MAX_NS = 20000000 };

struct tracer {
    struct history history;
    uint64_t nap_ns; /* the next one, or 0: the shortest; longer each time nothing was found */
    int run_folder;
    int trace_folder;
    struct ctf_facts facts;
    struct clock_pair first;
};

static int tracer_open(struct stage *stage)
{
    struct tracer *tracer = stage->self;

    tracer->run_folder = stage_descriptor(stage, "run");
    tracer->trace_folder = openat(tracer->run_folder, "trace", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (tracer->trace_folder < 0)
        return stage_error(stage, -errno, "trace/: %s", strerror(errno));
    tracer->first = clock_pair_read(&stage->clock);
    tracer->facts = (struct ctf_facts){
        .uuid = ctf_uuid(stage->arena.header->epoch),
        .run = stage->config.pipeline.name,
        .clock = stage->clock,
        .pair = tracer->first,
    };
    int err = ctf_save_metadata(tracer->trace_folder, &tracer->facts);
    if (err < 0)
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

static int tracer_poll(struct stage *stage)
{
    struct tracer *tracer = stage->self;

    int moved = history_drain(&tracer->history);
    if (moved > 0)
        tracer->nap_ns = 0;
    return moved < 0 ? stage_error(stage, moved,
                                   "cannot write the trace: %s; make room for the run directory",
                                   strerror(-moved))
                     : moved;
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
        stage_error(stage, err, "cannot write the trace: %s; make room for the run directory",
                    strerror(-err));
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
