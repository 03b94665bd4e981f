/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lab's sender: plays a script into real connections and, where replies come back on them, is the sink as
 * well.
 *
 * It polls and yields, for the sink's reasons (sink.c): a sender that sleeps is woken late, and a reader
 * that sleeps lets the pipeline's send() pay for waking it. While nothing is played and nothing
 * comes it sleeps between polls. Commands come on stdin (see --help) and are looked for once a
 * millisecond.
 */
#define _GNU_SOURCE 1

#include "client_options.h"
#include "stage/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    COMMAND_NS = 1000000, /* between two looks at stdin */
    IDLE_NS = 200000000,  /* of silence before it may sleep */
    SLEEP_NS = 100000,
    CONNECT_S = 10,      /* until all connections are open */
    END_NS = 1000000000, /* of silence, after which nobody will end a connection any more */
};

struct client {
    const struct options *options;
    struct script script;
    struct links links;
    struct play play;
    struct judge judge;
    struct commands commands;
    uint64_t drops_at_mark;
    bool told;        /* that the playing has ended */
    bool unwritten;   /* a file could not be written: said so */
    uint64_t busy_ns; /* MONOTONIC: when something was done last */
};

static void take(void *context, uint32_t flow, const uint8_t *reply, uint32_t length,
                 uint64_t kernel_ns)
{
    struct client *client = context;

    if (client->options->replies)
        judge_take(&client->judge, flow, reply, length, kernel_ns);
}

/* One turn: what is due, and what has come. */
static void turn(struct client *client)
{
    bool played = play_turn(&client->play);
    int got = links_poll(&client->links);

    if (got < 0)
        die(EXIT_HOST, "cannot receive: %s", strerror(-got));
    uint64_t now = clock_monotonic_ns();
    if (played || got > 0)
        client->busy_ns = now;
    else if (!client->play.playing && now > client->busy_ns + IDLE_NS)
        nanosleep(&(struct timespec){0, SLEEP_NS}, NULL);
    else
        sched_yield();
}

/* ---- what is told ---- */

static void write_file(struct client *client, const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int error = fd < 0 ? errno : 0;

    for (size_t done = 0; !error && done < size;) {
        ssize_t got = write(fd, (const uint8_t *)data + done, size - done);
        if (got > 0)
            done += (size_t)got;
        else if (errno != EINTR)
            error = errno;
    }
    if (fd >= 0)
        close(fd);
    if (error)
        fprintf(stderr, "client: cannot write %s: %s\n", path, strerror(error));
    client->unwritten |= error != 0;
}

/* A line a connection, as they stand now. */
static void write_connections(struct client *client)
{
    const struct links *links = &client->links;
    struct link_record *records = calloc((size_t)links->count + 1, sizeof *records);

    if (!client->options->connections || !records) {
        free(records);
        return;
    }
    for (uint32_t i = 0; i < links->count; i++) {
        records[i] = links->link[i].record;
        records[i].state = links->link[i].state;
    }
    write_file(client, client->options->connections, records, links->count * sizeof *records);
    free(records);
}

static void report(const struct client *client, const char *event)
{
    const struct play *play = &client->play;

    printf("{\"event\":\"%s\",\"operations\":%" PRIu32 ",\"settled\":%" PRIu32 ",\"sent\":%" PRIu32,
           event, play->end - play->first, play->settled, play->sent);
    if (client->options->replies) {
        putchar(',');
        judge_tell(&client->judge, stdout);
        printf(",\"dropped_socket\":%" PRIu64, links_drops(&client->links) - client->drops_at_mark);
    }
    if (strcmp(event, "played") == 0)
        printf(",\"begun_ns\":%" PRIu64 ",\"took_ns\":%" PRIu64, play->real_ns,
               play->ended_ns - play->begun_ns);
    puts("}");
    fflush(stdout);
}

static void tell_played(struct client *client)
{
    const struct play *play = &client->play;

    client->told = true;
    if (client->options->sent) {
        size_t count = play->end - play->first;
        struct play_record *records = calloc(count + 1, sizeof *records);
        if (!records)
            die(EXIT_HOST, "%zu operations: %s", count, strerror(ENOMEM));
        play_tell(play, records);
        write_file(client, client->options->sent, records, count * sizeof *records);
        free(records);
    }
    report(client, "played");
}

/* ---- commands ---- */

/* Opens what must be open before the first write. */
static void connect_all(struct client *client, uint32_t first, uint32_t count)
{
    uint64_t limit = clock_monotonic_ns() + CONNECT_S * UINT64_C(1000000000);

    play_connect(&client->play, first, count);
    while (play_waits(&client->play) > 0 && clock_monotonic_ns() < limit)
        turn(client);
    for (uint32_t i = 0; i < client->links.count; i++) {
        const struct link *link = &client->links.link[i];
        if (link->state == LINK_CONNECTING ||
            (link->state == LINK_BROKEN && !link->record.written)) {
            printf("{\"event\":\"error\",\"exit\":4,\"message\":\"client: connection %" PRIu32
                   " to %s: %s\"}\n",
                   i, client->options->to,
                   link->state == LINK_CONNECTING ? "no answer"
                                                  : strerror((int)link->record.error));
            fflush(stdout);
            exit(EXIT_HOST);
        }
    }
}

static void begin(struct client *client, uint32_t first, uint32_t count, struct pace pace)
{
    connect_all(client, first, count);
    play_begin(&client->play, first, count, pace);
    client->told = false;
}

static void obey_play(struct client *client, const char *words)
{
    uint32_t first, count, operations = client->script.operations;
    char speed[32];
    struct pace pace;

    if (sscanf(words, "%" SCNu32 " %" SCNu32 " %31s", &first, &count, speed) != 3 ||
        !options_pace(speed, &pace) || first > operations || count > operations - first)
        fprintf(stderr,
                "client: play %s: expected FIRST COUNT SPEED within %" PRIu32 " operations\n",
                words, operations);
    else
        begin(client, first, count, pace);
}

/* The account of replies begins anew; what is still in a socket belongs to the time before. */
static void mark(struct client *client)
{
    while (links_poll(&client->links) > 0)
        ;
    if (client->options->replies)
        judge_reset(&client->judge);
    client->drops_at_mark = links_drops(&client->links);
    puts("{\"event\":\"mark\"}");
    fflush(stdout);
}

static bool obey(void *context, const char *command)
{
    struct client *client = context;

    if (strcmp(command, "stop") == 0)
        return false;
    if (strncmp(command, "play ", 5) == 0)
        obey_play(client, command + 5);
    else if (strcmp(command, "halt") == 0)
        play_halt(&client->play);
    else if (strcmp(command, "stats") == 0)
        report(client, "stats");
    else if (strcmp(command, "mark") == 0)
        mark(client);
    else
        fprintf(stderr, "client: command %s: expected play, halt, stats, mark or stop\n", command);
    return true;
}

/* ---- the program ---- */

static void run(struct client *client)
{
    bool once = client->options->speed != NULL;
    uint64_t next_look = 0;

    for (;;) {
        turn(client);
        if (!client->told && !client->play.playing) {
            tell_played(client);
            if (once)
                return;
        }
        if (once || clock_monotonic_ns() < next_look)
            continue;
        if (!child_poll(&client->commands, obey, client))
            return;
        next_look = clock_monotonic_ns() + COMMAND_NS;
    }
}

static bool is_open(const struct links *links)
{
    for (uint32_t i = 0; i < links->count; i++)
        if (links->link[i].fd >= 0)
            return true;
    return false;
}

/* What the pipeline has sent is read to its end; who was killed has none. */
static void empty(struct client *client)
{
    uint64_t quiet_from = clock_monotonic_ns();
    int got;

    client->links.slow.rate = 0;
    while (client->options->replies && is_open(&client->links)) {
        uint64_t now = clock_monotonic_ns();
        if ((got = links_poll(&client->links)) > 0)
            quiet_from = now;
        else if (got < 0 || now > quiet_from + END_NS)
            break;
        sched_yield();
    }
}

static void start(struct client *client)
{
    const struct options *options = client->options;
    int rc = script_open(&client->script, options->script);

    if (rc != 0)
        die(EXIT_USAGE, "--script %s: %s", options->script,
            rc == -EBADMSG ? "not a script of this version" : strerror(-rc));
    if (options->replies)
        judge_open(&client->judge, &options->files, options->schema);
    client->links = (struct links){
        .datagrams = options->udp,
        .length = options->length,
        .slow.rate = options->slow,
        .port = client->script.port,
        .address = options->address,
        .address_size = options->address_size,
        .one_port = options->has_port,
        .take = take,
        .taker = client,
    };
    rc = links_open(&client->links, client->script.connections);
    if (rc == 0)
        rc = play_init(&client->play, &client->script, &client->links);
    if (rc != 0)
        die(EXIT_HOST, "%" PRIu32 " connections: %s", client->script.connections, strerror(-rc));
    client->told = true;
    client->busy_ns = clock_monotonic_ns();
}

int main(int argc, char **argv)
{
    static struct client client;
    struct options options = options_parse(argc, argv);
    struct pace pace;

    client.options = &options;
    if (!options.speed) /* else a person's: Ctrl-C ends it */
        child_follow_parent();
    child_pin(options.cpu);
    start(&client);
    printf("{\"event\":\"ready\",\"pid\":%d}\n", (int)getpid());
    fflush(stdout);
    if (options.speed && options_pace(options.speed, &pace))
        begin(&client, 0, client.script.operations, pace);
    run(&client);
    write_connections(&client);
    empty(&client);
    if (options.replies)
        record_flush(client.judge.recorder);
    report(&client, "done");
    links_close(&client.links);
    play_free(&client.play);
    script_close(&client.script);
    return options.replies ? judge_close(&client.judge) || client.unwritten : client.unwritten;
}
