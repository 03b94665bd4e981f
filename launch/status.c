/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/folders.h"
#include "launch/serve.h"
#include "launch/view.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { INTERVAL_MS = 200 };

static json_t *stage_json(const struct cell *cell, const struct cell_lazy *before,
                          const struct cell_lazy *now)
{
    static const char *const names[REGIME_COUNT] = {"work", "idle", "blocked", "housekeeping"};
    json_t *regimes = json_object();
    double share[REGIME_COUNT];

    bool known = view_regimes(before, now, share);
    for (int i = 0; i < REGIME_COUNT && known; i++)
        json_object_set_new(regimes, names[i], json_real(share[i]));
    return json_pack("{s:s, s:i, s:i, s:s, s:i, s:o}", "name", cell_name(cell).s, "pid",
                     (int)load_relaxed(&cell->pid), "cpu", (int)load_relaxed(&cell->cpu), "state",
                     cell_state_name(cell_state(cell)), "generation",
                     (int)load_relaxed(&cell->generation), "regimes", regimes);
}

static json_t *rings_json(const struct region *regions, uint32_t count)
{
    json_t *rings = json_array();

    for (uint32_t i = 0; i < count; i++) {
        struct view_ring ring = view_ring(&regions[i]);
        json_array_append_new(rings, json_pack("{s:I, s:I}", "depth", (json_int_t)ring.depth,
                                               "used", (json_int_t)ring.used));
    }
    return rings;
}

static json_t *view_json(const struct view *view)
{
    const struct timespec interval = {.tv_nsec = INTERVAL_MS * 1000000L};
    struct view_sample *sample = calloc(2, sizeof(*sample));
    json_t *stages = json_array();

    if (!sample)
        return NULL;
    view_sample(view, &sample[0]);
    nanosleep(&interval, NULL);
    sample[1] = sample[0];
    view_sample(view, &sample[1]);
    for (uint32_t i = 0; i < CELL_MAX; i++) {
        const struct cell *cell = &view->cells->cell[i];
        if (load_relaxed(&cell->used))
            json_array_append_new(stages, stage_json(cell, &sample[0].lazy[i], &sample[1].lazy[i]));
    }
    double rate = (double)(sample[1].issued - sample[0].issued) * 1000 / INTERVAL_MS;
    json_t *json =
        json_pack("{s:I, s:I, s:I, s:f, s:o, s:o, s:o}", "received", (json_int_t)sample[1].issued,
                  "completed", (json_int_t)sample[1].completed, "dropped",
                  (json_int_t)sample[1].dropped, "received_per_s", rate, "stages", stages,
                  "to_worker", rings_json(view->to_worker, view->workers), "to_tx",
                  rings_json(view->to_tx, view->workers));
    free(sample);
    return json;
}

static void collect(struct runfile *runfile, void *context)
{
    json_t *runs = context;
    struct view view;
    json_t *run = json_pack("{s:s, s:i, s:b, s:s}", "name", runfile->name, "pid", runfile->pid,
                            "alive", runfile->alive, "run_directory", runfile->run_directory);

    if (!runfile->alive) {
        json_object_set_new(run, "left_behind", json_string(runfile->arena));
    } else {
        int err = view_open(&view, runfile->socket, false);
        if (err < 0) {
            json_object_set_new(run, "unseen", json_string(strerror(-err)));
        } else {
            json_object_update_new(run, view_json(&view));
            view_close(&view);
        }
    }
    json_array_append_new(runs, run);
}

static double share(const json_t *stage, const char *regime)
{
    return 100 * json_number_value(json_object_get(json_object_get(stage, "regimes"), regime));
}

static void print_rings(const json_t *rings, const char *name)
{
    size_t index;
    json_t *ring;

    json_array_foreach(rings, index, ring)
        printf("  %s.%zu %" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT, name, index,
               json_integer_value(json_object_get(ring, "used")),
               json_integer_value(json_object_get(ring, "depth")));
}

static void print_run(const json_t *run)
{
    size_t index;
    json_t *stage;

    printf("%s  pid %d  %s\n", json_string_value(json_object_get(run, "name")),
           (int)json_integer_value(json_object_get(run, "pid")),
           json_string_value(json_object_get(run, "run_directory")));
    if (json_is_false(json_object_get(run, "alive"))) {
        printf(
            "  killed; left %s; `tickline salvage` saves its trace, `tickline clean` removes it\n",
            json_string_value(json_object_get(run, "left_behind")));
        return;
    }
    if (json_object_get(run, "unseen")) {
        printf("  not to be seen: %s\n", json_string_value(json_object_get(run, "unseen")));
        return;
    }
    printf("  received %" JSON_INTEGER_FORMAT " (%.0f/s)  completed %" JSON_INTEGER_FORMAT
           "  dropped %" JSON_INTEGER_FORMAT "\n ",
           json_integer_value(json_object_get(run, "received")),
           json_number_value(json_object_get(run, "received_per_s")),
           json_integer_value(json_object_get(run, "completed")),
           json_integer_value(json_object_get(run, "dropped")));
    print_rings(json_object_get(run, "to_worker"), "to_worker");
    print_rings(json_object_get(run, "to_tx"), "to_tx");
    printf("\n  %-9s %7s %3s %-9s %6s %6s %8s %13s\n", "stage", "pid", "cpu", "state", "work",
           "idle", "blocked", "housekeeping");
    json_array_foreach(json_object_get(run, "stages"), index, stage)
        printf("  %-9s %7d %3d %-9s %5.1f%% %5.1f%% %7.1f%% %12.1f%%\n",
               json_string_value(json_object_get(stage, "name")),
               (int)json_integer_value(json_object_get(stage, "pid")),
               (int)json_integer_value(json_object_get(stage, "cpu")),
               json_string_value(json_object_get(stage, "state")), share(stage, "work"),
               share(stage, "idle"), share(stage, "blocked"), share(stage, "housekeeping"));
}

int status_print(bool json)
{
    json_t *runs = json_array();
    size_t index;
    json_t *run;

    int seen = runfile_each(collect, runs);
    if (seen < 0) {
        fprintf(stderr, "tickline: run files: %s\n", strerror(-seen));
        json_decref(runs);
        return 1;
    }
    if (json) {
        json_dumpf(runs, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        putchar('\n');
    } else if (seen == 0) {
        puts("no run");
    } else {
        json_array_foreach(runs, index, run) print_run(run);
    }
    json_decref(runs);
    return 0;
}

static void remove_dead(struct runfile *runfile, void *context)
{
    int *removed = context;

    if (runfile->alive)
        return;
    int run_folder = open(runfile->run_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run_folder >= 0) {
        folders_take_back(run_folder);
        close(run_folder);
    }
    bool arena = runfile->arena[0] && access(runfile->arena, F_OK) == 0;
    printf("removed %s and %s of run %s (pid %d)%s\n", runfile->path,
           arena ? runfile->arena : "no arena", runfile->name, runfile->pid,
           arena ? "; its last stamps are lost, as it was not salvaged" : "");
    runfile_remove(runfile);
    ++*removed;
}

int status_clean(void)
{
    int removed = 0;
    int seen = runfile_each(remove_dead, &removed);

    if (seen < 0) {
        fprintf(stderr, "tickline: run files: %s\n", strerror(-seen));
        return 1;
    }
    if (removed == 0)
        puts("nothing was left behind");
    return 0;
}
