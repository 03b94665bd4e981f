/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/runfile.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ARENA_PREFIX "/dev/shm/tickline-"

/* Our user as the host knows him: in a user namespace geteuid() is 0 for everybody. */
static unsigned host_uid(void)
{
    unsigned inside;
    unsigned outside;
    FILE *map = fopen("/proc/self/uid_map", "re");
    bool known = map && fscanf(map, "%u %u", &inside, &outside) == 2;

    if (map)
        fclose(map);
    return known && geteuid() >= inside ? outside + (geteuid() - inside) : geteuid();
}

int runfile_folder(char path[RUNFILE_PATH_MAX])
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat st;

    if (host_uid() == 0)
        snprintf(path, RUNFILE_PATH_MAX, "/run/tickline");
    else if (runtime && runtime[0] == '/' && access(runtime, W_OK) == 0)
        snprintf(path, RUNFILE_PATH_MAX, "%s/tickline", runtime);
    else
        snprintf(path, RUNFILE_PATH_MAX, "/tmp/tickline-%u", host_uid());
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    /* In /tmp somebody else may have been first. */
    if (lstat(path, &st) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) && st.st_uid == geteuid() ? 0 : -EPERM;
}

/* Text that fits and can be shown in a line; else nothing. */
static void copy(char *to, size_t size, const json_t *value)
{
    const char *text = json_is_string(value) ? json_string_value(value) : "";

    to[0] = '\0';
    for (const char *c = text; *c; c++) {
        if (iscntrl((unsigned char)*c))
            return;
    }
    if (strlen(text) < size)
        snprintf(to, size, "%s", text);
}

/* The same for a path of a file that we shall remove: it is one directly below `prefix`. */
static void copy_below(char *to, size_t size, const json_t *value, const char *prefix)
{
    size_t length = strlen(prefix);

    copy(to, size, value);
    if (strncmp(to, prefix, length) != 0 || strchr(to + length, '/'))
        to[0] = '\0';
}

int runfile_load(struct runfile *runfile, const char *path)
{
    *runfile = (struct runfile){.fd = -1};
    snprintf(runfile->path, sizeof(runfile->path), "%s", path);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    runfile->alive = flock(fd, LOCK_EX | LOCK_NB) < 0;
    json_t *json = json_loadfd(fd, 0, NULL);
    close(fd);
    /* A launcher killed while it wrote leaves half a file: nothing was created yet then. */
    if (!json)
        return 0;
    copy(runfile->name, sizeof(runfile->name), json_object_get(json, "name"));
    copy(runfile->run_directory, sizeof(runfile->run_directory),
         json_object_get(json, "run_directory"));
    copy_below(runfile->arena, sizeof(runfile->arena), json_object_get(json, "arena"),
               ARENA_PREFIX);
    char folder[RUNFILE_PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash + 1 - path) : 0, path);
    copy_below(runfile->socket, sizeof(runfile->socket), json_object_get(json, "socket"), folder);
    runfile->pid = (int)json_integer_value(json_object_get(json, "pid"));
    runfile->started = json_integer_value(json_object_get(json, "started"));
    json_decref(json);
    return 0;
}

static int is_run_file(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');

    return dot && strcmp(dot, ".json") == 0;
}

int runfile_each(void (*visit)(struct runfile *runfile, void *context), void *context)
{
    char folder[RUNFILE_PATH_MAX];
    struct dirent **entries;
    int seen = 0;

    int err = runfile_folder(folder);
    if (err < 0)
        return err;
    int count = scandir(folder, &entries, is_run_file, alphasort);
    if (count < 0)
        return -errno;
    for (int i = 0; i < count; i++) {
        char path[RUNFILE_PATH_MAX];
        struct runfile runfile;
        snprintf(path, sizeof(path), "%.200s/%.255s", folder, entries[i]->d_name);
        if (runfile_load(&runfile, path) == 0) {
            visit(&runfile, context);
            seen++;
        }
        free(entries[i]);
    }
    free(entries);
    return seen;
}

struct namesake {
    const char *name;
    struct runfile found;
    bool alive;
};

static void look_for_namesake(struct runfile *runfile, void *context)
{
    struct namesake *namesake = context;

    if (runfile->alive && strcmp(runfile->name, namesake->name) == 0) {
        namesake->found = *runfile;
        namesake->alive = true;
    }
}

static int write_file(struct runfile *runfile)
{
    runfile->fd = open(runfile->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (runfile->fd < 0)
        return -errno;
    if (flock(runfile->fd, LOCK_EX | LOCK_NB) < 0)
        return -errno;
    json_t *json =
        json_pack("{s:s, s:i, s:s, s:s, s:s, s:I}", "name", runfile->name, "pid", runfile->pid,
                  "run_directory", runfile->run_directory, "arena", runfile->arena, "socket",
                  runfile->socket, "started", (json_int_t)time(NULL));
    int err = json && json_dumpfd(json, runfile->fd, JSON_INDENT(2)) == 0 ? 0 : -EIO;
    json_decref(json);
    return err;
}

/* Whoever reads the file stands elsewhere. */
static void make_absolute(const char *path, char out[RUNFILE_PATH_MAX])
{
    char here[RUNFILE_PATH_MAX];

    if (path[0] == '/' || !getcwd(here, sizeof(here)) ||
        snprintf(out, RUNFILE_PATH_MAX, "%s/%s", here, path) >= RUNFILE_PATH_MAX)
        snprintf(out, RUNFILE_PATH_MAX, "%s", path);
}

int runfile_claim(struct runfile *runfile, const char *name, const char *run_directory)
{
    char folder[RUNFILE_PATH_MAX];
    struct namesake namesake = {.name = name};

    *runfile = (struct runfile){.pid = getpid(), .alive = true, .fd = -1};
    int err = runfile_folder(folder);
    if (err < 0)
        return err;
    /* One claim at a time on this host. */
    int lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return -errno;
    int seen = runfile_each(look_for_namesake, &namesake);
    if (seen < 0)
        err = seen;
    if (namesake.alive) {
        *runfile = namesake.found;
        err = -EEXIST;
    }
    if (err == 0) {
        snprintf(runfile->name, sizeof(runfile->name), "%s", name);
        make_absolute(run_directory, runfile->run_directory);
        snprintf(runfile->path, sizeof(runfile->path), "%.400s/%s.%d.json", folder, name,
                 runfile->pid);
        snprintf(runfile->socket, sizeof(runfile->socket), "%.400s/%s.%d.sock", folder, name,
                 runfile->pid);
        snprintf(runfile->arena, sizeof(runfile->arena), ARENA_PREFIX "%s.%d", name, runfile->pid);
        err = write_file(runfile);
    }
    close(lock);
    return err;
}

void runfile_remove(struct runfile *runfile)
{
    if (runfile->arena[0])
        unlink(runfile->arena);
    if (runfile->socket[0])
        unlink(runfile->socket);
    unlink(runfile->path);
    if (runfile->fd >= 0)
        close(runfile->fd);
    runfile->fd = -1;
}
