/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/handler.h"

#include "launch/process.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_MAX = 16384, PATIENCE_S = 30 };

/* The configuration as the child's stdin; -errno. */
static int config_text_file(const struct config *config)
{
    int fd = memfd_create("tickline-describe", MFD_CLOEXEC);
    FILE *out = fd < 0 ? NULL : fdopen(dup(fd), "w");
    int err = out ? config_write(config, out) : -errno;

    if (out && fclose(out) != 0 && err == 0)
        err = -errno;
    if (err == 0 && lseek(fd, 0, SEEK_SET) < 0)
        err = -errno;
    if (err == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return err;
}

_Noreturn static void become(const char *path, int in, int out)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    alarm(PATIENCE_S); /* an init that hangs */
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
        _exit(126);
    execl(path, path, "--describe", (char *)NULL);
    _exit(127);
}

/* What the child writes, and how it ended (waitpid's status). -errno where there is none. */
static int ask(const char *path, int in, char answer[ANSWER_MAX], int *status)
{
    int ends[2];
    size_t used = 0;
    ssize_t got;

    if (access(path, X_OK) < 0 || pipe(ends) < 0)
        return -errno;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        become(path, in, ends[1]);
    }
    int err = child < 0 ? -errno : 0;
    close(ends[1]);
    while (err == 0 && used < ANSWER_MAX - 1 &&
           (got = read(ends[0], answer + used, ANSWER_MAX - 1 - used)) > 0)
        used += (size_t)got;
    answer[used] = '\0';
    close(ends[0]);
    while (err == 0 && waitpid(child, status, 0) < 0)
        err = errno == EINTR ? 0 : -errno;
    return err;
}

static void take(const json_t *json, struct handler_facts *facts)
{
    const char *state = json_string_value(json_object_get(json, "state"));
    const json_t *point;
    size_t i;

    facts->state_lost = state && strcmp(state, "lost") == 0;
    if (state && strcmp(state, "shared") == 0)
        facts->state_bytes = (uint64_t)json_integer_value(json_object_get(json, "state_bytes"));
    json_array_foreach(json_object_get(json, "points"), i, point)
    {
        if (facts->points == LANE_POINTS_MAX)
            break;
        struct lane_point *to = &facts->point[facts->points++];
        snprintf(to->name, sizeof(to->name), "%s",
                 json_string_value(json_object_get(point, "name")));
        snprintf(to->span, sizeof(to->span), "%s",
                 json_string_value(json_object_get(point, "span")));
        snprintf(to->sentence, sizeof(to->sentence), "%s",
                 json_string_value(json_object_get(point, "sentence")));
    }
}

/* It did not answer: what became of it. */
static int blame_child(const struct config *config, int status, char error[CONFIG_ERROR_MAX])
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        return config_blame(config, "worker.handler", error, "its init took longer than %d s",
                            PATIENCE_S);
    if (WIFSIGNALED(status))
        return config_blame(config, "worker.handler", error,
                            "it crashed while it was looked at (signal %d)", WTERMSIG(status));
    return config_blame(config, "worker.handler", error, "it ended while it was looked at (%d)",
                        WEXITSTATUS(status));
}

int handler_ask(const struct config *config, struct handler_facts *facts,
                char error[CONFIG_ERROR_MAX])
{
    char path[512] = "worker";
    char answer[ANSWER_MAX];
    int status = 0;

    *facts = (struct handler_facts){0};
    int err = process_path("worker", path, sizeof(path));
    int in = err == 0 ? config_text_file(config) : err;
    err = in < 0 ? in : ask(path, in, answer, &status);
    if (in >= 0)
        close(in);
    if (err < 0) {
        snprintf(error, CONFIG_ERROR_MAX, "%.300s: %s; expected it beside tickline; try: make",
                 path, strerror(-err));
        return err;
    }
    const char *last = strrchr(answer, '\n');
    facts->json = json_loads(last ? last + 1 : answer, 0, NULL);
    const char *why = json_string_value(json_object_get(facts->json, "why"));
    if (facts->json && !why) {
        take(facts->json, facts);
        return 0;
    }
    if (why)
        (void)config_blame(config, json_string_value(json_object_get(facts->json, "key")), error,
                           "%s", why);
    else
        (void)blame_child(config, status, error);
    handler_free(facts);
    return -EINVAL;
}

void handler_free(struct handler_facts *facts)
{
    json_decref(facts->json);
    facts->json = NULL;
}

void handler_print(const struct config *config, const struct handler_facts *facts)
{
    const json_t *json = facts->json;
    const char *state = json_string_value(json_object_get(json, "state"));

    printf("%-14s %s\n", json_string_value(json_object_get(json, "name")),
           json_string_value(json_object_get(json, "summary")));
    if (config_handler_is_path(config))
        printf("%-14s %s\n", "path", config->worker.handler);
    printf("%-14s %s", "state", state);
    if (facts->state_bytes)
        printf(", %llu bytes a worker", (unsigned long long)facts->state_bytes);
    printf("\n");
    for (uint32_t i = 0; i < facts->points; i++)
        printf("%-14s %s\n", facts->point[i].name, facts->point[i].sentence);
}
