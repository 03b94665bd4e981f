/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline as it is shipped: tickline run configs/isolated.ini, with the addresses of the
 * client's sockets and a name and run directory of its own; over TCP with v2 and TCP's source and sink.
 */
#include "tests/bench/e2e_socket.h"
#include "tests/bench/e2e_stream.h"
#include "tests/bench/e2e_system.h"
#include "tests/bench/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    READY_MS = 15000,
    DONE_MS = 15000,
    EVENT_BYTES = 65536,
    ARGUMENT_BYTES = 64,
    SETTINGS_MAX = 8
};

/* ---- its commands and events, a line of JSON each ---- */

/* The next line; NULL where none comes in time. */
static json_t *read_event(struct system *system, int ms)
{
    static char line[EVENT_BYTES];
    struct pollfd ready = {.fd = system->events, .events = POLLIN};
    size_t length = 0;

    while (length < sizeof(line) && poll(&ready, 1, ms) > 0) {
        if (read(system->events, line + length, 1) != 1)
            return NULL;
        if (line[length++] == '\n')
            return json_loadb(line, length, 0, NULL);
    }
    return NULL;
}

/* The event of that name, or NULL with the reason in the note. */
static json_t *await_event(struct system *system, const char *name, int ms,
                           struct bench_result *result)
{
    for (;;) {
        json_t *event = read_event(system, ms);
        const char *got = json_string_value(json_object_get(event, "event"));
        if (!got) {
            bench_fail(result, -EIO, "tickline run: no event \"%s\"", name);
        } else if (strcmp(got, name) == 0) {
            return event;
        } else if (strcmp(got, "error") == 0) {
            bench_fail(result, -EIO, "tickline run: %s",
                       json_string_value(json_object_get(event, "message")));
        } else {
            json_decref(event);
            continue;
        }
        json_decref(event);
        return NULL;
    }
}

/* ---- start ---- */

/* The keys that differ from the shipped ones, each behind a --set; NULL ends them. */
struct settings {
    char text[SETTINGS_MAX][ARGUMENT_BYTES];
    char *argument[2 * SETTINGS_MAX + 1];
    int count;
};

__attribute__((format(printf, 2, 3))) static void set(struct settings *settings, const char *format,
                                                      ...)
{
    static char option[] = "--set";
    char *text = settings->text[settings->count];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, ARGUMENT_BYTES, format, arguments);
    va_end(arguments);
    settings->argument[2 * settings->count] = option;
    settings->argument[2 * settings->count++ + 1] = text;
}

static void choose(const struct system *system, struct settings *settings)
{
    enum client_way way = system->kind->way;

    set(settings, "pipeline.name=bench-e2e-%d", getpid());
    set(settings, "rx.bind=127.0.0.1:%u", system->port);
    if (way != CLIENT_TCP_REPLY)
        set(settings, "tx.to=127.0.0.1:%u", system->to);
    if (way == CLIENT_UDP)
        return;
    set(settings, "pipeline.schema=v2");
    set(settings, "ring.full=wait");
    set(settings, "rx.source=tcp");
    set(settings, "tx.sink=%s", way == CLIENT_TCP ? "tcp" : "reply");
}

static int run(struct system *system)
{
    char program[PATH_MAX];
    char config[PATH_MAX + sizeof("/../configs/isolated.ini")];
    struct settings settings = {0};
    int in[2];
    int out[2];
    char *argv[6 + sizeof(settings.argument) / sizeof(settings.argument[0])] = {
        program, "run", config, "--json", "--run-dir", system->folder.scratch.path};

    rig_build_folder(program, sizeof(program) - sizeof("/tickline"));
    snprintf(config, sizeof(config), "%s/../configs/isolated.ini", program);
    strcat(program, "/tickline");
    choose(system, &settings);
    memcpy(argv + 6, settings.argument, sizeof(settings.argument));
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        return -errno;
    system->pid = e2e_child_start(&(struct e2e_program){
        .argv = argv, .cpu = system->bench->cpu, .cpus = 2, .in = in[0], .out = out[1]});
    system->commands = in[1];
    system->events = out[0];
    close(in[0]);
    close(out[1]);
    return system->pid < 0 ? system->pid : 0;
}

/* All stages stand on the second CPU: else this would be another measurement. */
static int check_placement(const struct system *system, const json_t *ready,
                           struct bench_result *result)
{
    static const char *const stages[] = {"rx", "worker0", "tx"};
    const json_t *cpus = json_object_get(ready, "cpus");

    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
        json_int_t cpu = json_integer_value(json_object_get(cpus, stages[i]));
        if (cpu != system->bench->cpu[1])
            return bench_fail(
                result, -ENOTSUP, "%s was put on CPU %d; expected %d; try --cpus %d,%d", stages[i],
                (int)cpu, system->bench->cpu[1], system->bench->cpu[1], system->bench->cpu[0]);
    }
    return 0;
}

static int start(struct system *system, struct bench_result *result)
{
    system->port =
        system->kind->way == CLIENT_UDP ? e2e_socket_free_port() : e2e_stream_free_port();
    int err = e2e_folder_open(&system->folder, result);
    if (err < 0)
        return err;
    err = run(system);
    if (err < 0)
        return bench_fail(result, err, "tickline run cannot be started: %s", strerror(-err));
    json_t *ready = await_event(system, "ready", READY_MS, result);
    if (!ready)
        return -EIO;
    err = check_placement(system, ready, result);
    json_decref(ready);
    return err;
}

/* ---- finish ---- */

static uint64_t number(const json_t *object, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(object, name));
}

static int read_account(struct system *system, struct bench_result *result)
{
    char path[sizeof(system->folder.scratch.path) + sizeof("/counters.json")];
    json_t *drops;
    size_t i;

    snprintf(path, sizeof(path), "%s/counters.json", system->folder.scratch.path);
    json_t *counters = json_load_file(path, 0, NULL);
    if (!counters)
        return bench_fail(result, -EIO, "tickline run: no counters.json");
    const json_t *end = json_object_get(counters, "end");
    const json_t *rx = json_object_get(end, "rx");
    const json_t *outcomes = json_object_get(end, "outcomes");
    const json_t *rotation = json_object_get(counters, "rotation");
    json_t *rejected = json_object_get(outcomes, "rejected");
    struct system_account *account = &system->account;
    *account = (struct system_account){
        .known = true,
        .received = number(rx, "issued"),
        .dropped = number(outcomes, "dropped_tx") + number(outcomes, "filtered"),
        .transmitted = number(outcomes, "transmitted"),
        .rotation_mended = number(rotation, "mended"),
        .rotation_wrong = json_is_false(json_object_get(rotation, "right")),
    };
    json_array_foreach(json_object_get(rx, "dropped"), i, drops)
    {
        account->dropped += (uint64_t)json_integer_value(drops);
    }
    for (void *at = json_object_iter(rejected); at; at = json_object_iter_next(rejected, at))
        account->dropped += (uint64_t)json_integer_value(json_object_iter_value(at));
    json_array_foreach(json_object_get(end, "sockets"), i, drops)
    {
        account->socket_drops += number(drops, "drops");
    }
    json_decref(counters);
    return 0;
}

static int finish(struct system *system, struct bench_result *result)
{
    static const char drain[] = "drain\n";

    if (write(system->commands, drain, sizeof(drain) - 1) < 0)
        return bench_fail(result, -errno, "tickline run has gone");
    json_t *done = await_event(system, "done", DONE_MS, result);
    if (!done)
        return -EIO;
    json_decref(done);
    int err = e2e_child_end(system->pid, 0, DONE_MS);
    system->pid = 0;
    if (err < 0)
        return bench_fail(result, err, "tickline run failed");
    return read_account(system, result);
}

const struct system_kind system_pipeline = {
    .reply = "bcdefghi",
    .start = start,
    .finish = finish,
};

const struct system_kind system_gateway = {
    .reply = "bcdefghi",
    .way = CLIENT_TCP,
    .start = start,
    .finish = finish,
};

const struct system_kind system_answering = {
    .reply = "bcdefghi",
    .way = CLIENT_TCP_REPLY,
    .start = start,
    .finish = finish,
};
