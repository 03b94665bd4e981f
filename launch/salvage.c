/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/salvage.h"

#include "launch/folders.h"
#include "launch/process.h"
#include "launch/runfile.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct search {
    const char *which;                /* NULL: all */
    char directory[RUNFILE_PATH_MAX]; /* what `which` is as a path; empty: none */
    json_t *results;                  /* NULL: for people */
    int found;
    int alive;
    int status; /* the worst */
};

/* ---- one run ---- */

/* `tracer --salvage` in a child; its exit status. `runfile` NULL: there is no arena. */
static int call_tracer(const char *directory, const struct runfile *runfile, bool quiet)
{
    const char *argv[10];
    char path[RUNFILE_PATH_MAX];
    int count = 0;
    int status;

    int err = process_path("tracer", path, sizeof(path));
    if (err < 0 || access(path, X_OK) < 0) {
        fprintf(stderr, "tickline: tracer: %s; expected it beside tickline\n",
                strerror(err < 0 ? -err : errno));
        return 1;
    }
    argv[count++] = path;
    argv[count++] = "--salvage";
    if (runfile && runfile->arena[0]) {
        argv[count++] = "--arena";
        argv[count++] = runfile->arena;
    }
    argv[count++] = "--name";
    argv[count++] = runfile ? runfile->name : directory;
    if (quiet)
        argv[count++] = "--quiet";
    argv[count++] = directory;
    argv[count] = NULL;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        execv(path, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int salvage_own(const struct runfile *runfile)
{
    return call_tracer(runfile->run_directory, runfile, true);
}

static void add_result(struct search *search, const char *directory)
{
    char path[RUNFILE_PATH_MAX + 16];

    if (!search->results)
        return;
    snprintf(path, sizeof(path), "%s/salvage.json", directory);
    json_array_append_new(search->results, json_load_file(path, 0, NULL));
}

static void worsen(struct search *search, int status)
{
    search->status = status > search->status ? status : search->status;
}

/* A launcher that was killed before it had a run directory left nothing to save. */
static void salvage_run(struct search *search, struct runfile *runfile)
{
    bool begun = runfile->run_directory[0] && access(runfile->arena, F_OK) == 0;

    if (!begun && access(runfile->run_directory, F_OK) < 0) {
        runfile_remove(runfile);
        return;
    }
    int run_folder = open(runfile->run_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run_folder >= 0) {
        folders_take_back(run_folder);
        close(run_folder);
    }
    int status = call_tracer(runfile->run_directory, runfile, search->results != NULL);
    worsen(search, status);
    if (status == 0) {
        add_result(search, runfile->run_directory);
        runfile_remove(runfile);
    }
}

/* ---- which ---- */

static bool is_meant(const struct search *search, const struct runfile *runfile)
{
    char directory[RUNFILE_PATH_MAX] = "";
    char *real;

    if (!search->which || strcmp(search->which, runfile->name) == 0)
        return true;
    real = runfile->run_directory[0] ? realpath(runfile->run_directory, NULL) : NULL;
    snprintf(directory, sizeof(directory), "%s", real ? real : runfile->run_directory);
    free(real);
    return directory[0] && strcmp(search->directory, directory) == 0;
}

static void visit(struct runfile *runfile, void *context)
{
    struct search *search = context;

    if (!is_meant(search, runfile))
        return;
    if (runfile->alive) {
        search->alive = runfile->pid;
        return;
    }
    search->found++;
    salvage_run(search, runfile);
}

static int salvage_others(struct search *search)
{
    if (!search->which) {
        if (!search->results)
            puts("nothing was left behind");
        return 0;
    }
    if (search->alive) {
        fprintf(stderr,
                "tickline: %s: this run is up (pid %d); expected one that was killed; `tickline "
                "status` "
                "shows them\n",
                search->which, search->alive);
        return 2;
    }
    if (!search->directory[0]) {
        fprintf(stderr,
                "tickline: %s: no killed run of this name, and no such run directory; `tickline "
                "status` shows "
                "what was left behind\n",
                search->which);
        return 2;
    }
    int status = call_tracer(search->which, NULL, search->results != NULL);
    if (status == 0)
        add_result(search, search->which);
    return status;
}

int salvage_runs(const char *which, bool json)
{
    struct search search = {.which = which, .results = json ? json_array() : NULL};
    char *real = which ? realpath(which, NULL) : NULL;

    snprintf(search.directory, sizeof(search.directory), "%s", real ? real : "");
    free(real);
    int seen = runfile_each(visit, &search);
    if (seen < 0) {
        fprintf(stderr, "tickline: run files: %s\n", strerror(-seen));
        search.status = 1;
    } else if (search.found == 0) {
        search.status = salvage_others(&search);
    }
    if (json) {
        json_dumpf(search.results, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        putchar('\n');
    }
    json_decref(search.results);
    return search.status;
}
