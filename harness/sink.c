/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lab's end of the wire: takes every reply, notes when the kernel had it, and judges it.
 *
 * It polls and yields: a sink that sleeps in the kernel would make the pipeline's send() pay for
 * waking it, and one that spins would starve the player beside it. Only before the first reply,
 * when nothing is being measured, does it sleep between polls. The hot path makes two system calls,
 * recvmmsg and sched_yield; commands come on stdin (see --help) and are looked for once a
 * millisecond.
 */
#define _GNU_SOURCE 1

#include "lab_child.h"
#include "sink_judge.h"
#include "sink_options.h"
#include "sink_socket.h"
#include "sink_tcp.h"
#include "stage/clock.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    COMMAND_NS = 1000000, /* between two looks at stdin */
    IDLE_NS = 200000000,  /* of silence before it may sleep */
    SLEEP_NS = 100000,
    END_NS = 1000000000, /* of silence, after which nobody will end a connection any more */
};

struct sink {
    int fd; /* UDP */
    struct sink_tcp tcp;
    bool is_tcp;
    int rcvbuf; /* bytes granted */
    struct judge judge;
    uint32_t drops_at_mark;
    uint64_t marked_ns; /* MONOTONIC: of start or mark */
    struct commands commands;
};

static void take(void *context, const uint8_t *reply, uint32_t length, uint64_t kernel_ns)
{
    struct sink *sink = context;

    judge_take(&sink->judge, 0, reply, length, kernel_ns);
}

static int64_t poll_socket(struct sink *sink)
{
    int64_t got = sink->is_tcp ? sink_tcp_receive(&sink->tcp, take, sink)
                               : socket_receive(sink->fd, take, sink);

    if (got < 0)
        die(EXIT_HOST, "cannot receive: %s", strerror((int)-got));
    return got;
}

static void empty_socket(struct sink *sink)
{
    while (poll_socket(sink) > 0)
        ;
}

/* A connection says when it is at its end; who was killed says nothing. */
static void empty_connections(struct sink *sink)
{
    uint64_t quiet_from = clock_monotonic_ns();

    sink->tcp.slow.rate = 0;
    while (poll_socket(sink) > 0 || sink->tcp.open) {
        uint64_t now = clock_monotonic_ns();
        if (poll_socket(sink) > 0)
            quiet_from = now;
        else if (now > quiet_from + END_NS)
            break;
        sched_yield();
    }
}

static uint32_t drops(const struct sink *sink)
{
    return sink->is_tcp ? 0 : socket_drops(sink->fd);
}

static void report(const struct sink *sink, const char *event)
{
    printf("{\"event\":\"%s\",", event);
    judge_tell(&sink->judge, stdout);
    printf(",\"dropped_socket\":%" PRIu32 ",\"rcvbuf\":%d", drops(sink) - sink->drops_at_mark,
           sink->rcvbuf);
    if (sink->is_tcp)
        printf(",\"accepted\":%u,\"open\":%u", sink->tcp.accepted, sink->tcp.open);
    puts("}");
    fflush(stdout);
}

/* The account begins anew; what is still in the socket belongs to the time before. */
static void mark(struct sink *sink)
{
    empty_socket(sink);
    judge_reset(&sink->judge);
    sink->drops_at_mark = drops(sink);
    sink->marked_ns = clock_monotonic_ns();
    puts("{\"event\":\"mark\"}");
    fflush(stdout);
}

static bool obey(void *context, const char *command)
{
    struct sink *sink = context;

    if (strcmp(command, "stop") == 0)
        return false;
    if (strcmp(command, "stats") == 0)
        report(sink, "stats");
    else if (strcmp(command, "mark") == 0)
        mark(sink);
    else
        fprintf(stderr, "sink: command %s: expected stats, mark or stop\n", command);
    return true;
}

static void run(struct sink *sink)
{
    uint64_t next_look = 0;

    for (;;) {
        int64_t got = poll_socket(sink);
        uint64_t now = clock_monotonic_ns();
        if (now >= next_look) {
            if (!child_poll(&sink->commands, obey, sink))
                break;
            next_look = now + COMMAND_NS;
        }
        if (got > 0)
            continue;
        if (sink->judge.delivered == 0 && now > sink->marked_ns + IDLE_NS)
            nanosleep(&(struct timespec){0, SLEEP_NS}, NULL);
        else
            sched_yield();
    }
    if (sink->is_tcp)
        empty_connections(sink);
    else
        empty_socket(sink);
}

static int listen_at(struct sink *sink, const struct options *options)
{
    const struct sockaddr *address = (const struct sockaddr *)&options->address;

    if (!sink->is_tcp)
        return sink->fd = socket_open(address, options->address_size, &sink->rcvbuf);
    sink->tcp.length = options->length;
    sink->tcp.slow.rate = options->slow;
    return sink_tcp_open(&sink->tcp, address, options->address_size, &sink->rcvbuf);
}

static void start(struct sink *sink, const struct options *options)
{
    judge_open(&sink->judge, &options->files, options->schema);
    sink->is_tcp = options->length != NULL;
    int rc = listen_at(sink, options);
    if (rc < 0)
        die(EXIT_HOST, "cannot listen on %s: %s", options->listen, strerror(-rc));
    sink->marked_ns = clock_monotonic_ns();
    printf("{\"event\":\"ready\",\"pid\":%d,\"rcvbuf\":%d}\n", (int)getpid(), sink->rcvbuf);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct sink sink;
    struct options options = options_parse(argc, argv);

    child_follow_parent();
    child_pin(options.cpu);
    start(&sink, &options);
    run(&sink);
    record_flush(sink.judge.recorder);
    report(&sink, "done");
    if (sink.is_tcp)
        sink_tcp_close(&sink.tcp);
    return judge_close(&sink.judge);
}
