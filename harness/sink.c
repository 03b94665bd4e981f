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

#include "sink_check.h"
#include "sink_options.h"
#include "sink_record.h"
#include "sink_socket.h"
#include "stage/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    COMMAND_NS = 1000000, /* between two looks at stdin */
    IDLE_NS = 200000000,  /* of silence before it may sleep */
    SLEEP_NS = 100000,
};

struct sink {
    int fd;
    int rcvbuf; /* bytes granted */
    struct check *check;
    struct recorder *recorder;
    uint64_t delivered; /* replies of any status since mark */
    uint64_t status[CHECK_STATUSES];
    uint32_t drops_at_mark;
    uint64_t marked_ns; /* MONOTONIC: of start or mark */
    bool stopping;
    char command[64];
    size_t command_used;
};

static volatile sig_atomic_t terminated;

static void on_sigterm(int number)
{
    terminated = number;
}

static void take(void *context, const uint8_t *reply, uint32_t length, uint64_t kernel_ns)
{
    struct sink *sink = context;
    struct check_verdict verdict = check_reply(sink->check, reply, length);

    sink->delivered++;
    sink->status[verdict.status]++;
    record_add(sink->recorder,
               &(struct record){verdict.id, kernel_ns, verdict.hash, length, verdict.status},
               reply);
}

static int poll_socket(struct sink *sink)
{
    int got = socket_receive(sink->fd, take, sink);

    if (got < 0)
        die(EXIT_HOST, "cannot receive: %s", strerror(-got));
    return got;
}

static void empty_socket(struct sink *sink)
{
    while (poll_socket(sink) > 0)
        ;
}

static void report(const struct sink *sink, const char *event)
{
    printf("{\"event\":\"%s\",\"delivered\":%" PRIu64 ",\"duplicated\":%" PRIu64
           ",\"corrupted\":%" PRIu64 ",\"unknown\":%" PRIu64 ",\"dropped_socket\":%" PRIu32
           ",\"rcvbuf\":%d}\n",
           event, sink->delivered, sink->status[CHECK_DUPLICATED], sink->status[CHECK_CORRUPTED],
           sink->status[CHECK_UNKNOWN], socket_drops(sink->fd) - sink->drops_at_mark, sink->rcvbuf);
    fflush(stdout);
}

/* The account begins anew; what is still in the socket belongs to the time before. */
static void mark(struct sink *sink)
{
    empty_socket(sink);
    check_reset(sink->check);
    record_reset(sink->recorder);
    sink->delivered = 0;
    memset(sink->status, 0, sizeof sink->status);
    sink->drops_at_mark = socket_drops(sink->fd);
    sink->marked_ns = clock_monotonic_ns();
    puts("{\"event\":\"mark\"}");
    fflush(stdout);
}

static void obey(struct sink *sink, const char *command)
{
    if (strcmp(command, "stats") == 0)
        report(sink, "stats");
    else if (strcmp(command, "mark") == 0)
        mark(sink);
    else if (strcmp(command, "stop") == 0)
        sink->stopping = true;
    else
        fprintf(stderr, "sink: command %s: expected stats, mark or stop\n", command);
}

/* stdin stays as it was given to us (it may be shared), so poll(2) says whether read(2) would wait.
 */
static void poll_commands(struct sink *sink)
{
    struct pollfd in = {STDIN_FILENO, POLLIN, 0};
    size_t room = sizeof sink->command - 1 - sink->command_used;
    char *end;

    if (terminated)
        sink->stopping = true;
    if (sink->stopping || poll(&in, 1, 0) != 1)
        return;
    ssize_t got = read(STDIN_FILENO, sink->command + sink->command_used, room);
    if (got <= 0) {
        sink->stopping = true;
        return;
    }
    sink->command_used += (size_t)got;
    sink->command[sink->command_used] = '\0';
    while (!sink->stopping && (end = strchr(sink->command, '\n'))) {
        *end++ = '\0';
        obey(sink, sink->command);
        sink->command_used = strlen(end);
        memmove(sink->command, end, sink->command_used + 1);
    }
    if (sink->command_used == sizeof sink->command - 1)
        sink->command_used = 0; /* no command is that long */
}

static void run(struct sink *sink)
{
    uint64_t next_look = 0;

    while (!sink->stopping) {
        int got = poll_socket(sink);
        uint64_t now = clock_monotonic_ns();
        if (now >= next_look) {
            poll_commands(sink);
            next_look = now + COMMAND_NS;
        }
        if (got > 0)
            continue;
        if (sink->delivered == 0 && now > sink->marked_ns + IDLE_NS)
            nanosleep(&(struct timespec){0, SLEEP_NS}, NULL);
        else
            sched_yield();
    }
    empty_socket(sink);
}

/* Ends with the lab, and only by its word: a terminal's Ctrl-C is the lab's to judge. */
static void follow_parent(void)
{
    pid_t parent = getppid();

    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_sigterm}, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        exit(EXIT_HOST);
}

static void pin(int cpu)
{
    cpu_set_t set;

    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die(EXIT_USAGE, "--cpu %d: not a CPU this process may run on; taskset -p $$ shows which",
            cpu);
}

static void start(struct sink *sink, const struct options *options)
{
    const char *where;
    int rc = check_load(&sink->check, options->expected, options->schema);

    if (rc != 0)
        die(EXIT_USAGE, "--expected %s: %s", options->expected,
            rc == -EBADMSG ? "not a whole number of 16-byte entries" : strerror(-rc));
    rc = record_open(&sink->recorder, &options->files, check_count(sink->check), &where);
    if (rc != 0)
        die(EXIT_HOST, "%s: %s", where, strerror(-rc));
    sink->fd = socket_open((const struct sockaddr *)&options->address, options->address_size,
                           &sink->rcvbuf);
    if (sink->fd < 0)
        die(EXIT_HOST, "cannot listen on %s: %s", options->listen, strerror(-sink->fd));
    sink->marked_ns = clock_monotonic_ns();
    printf("{\"event\":\"ready\",\"pid\":%d,\"rcvbuf\":%d}\n", (int)getpid(), sink->rcvbuf);
    fflush(stdout);
}

static int finish(struct sink *sink)
{
    const char *where;

    record_flush(sink->recorder);
    int error = record_error(sink->recorder, &where);
    report(sink, "done");
    if (error != 0)
        fprintf(stderr, "sink: cannot write %s: %s; the counts are right, the file is not whole\n",
                where, strerror(-error));
    record_close(sink->recorder);
    check_free(sink->check);
    return error != 0;
}

int main(int argc, char **argv)
{
    struct options options = options_parse(argc, argv);
    struct sink sink = {.fd = -1};

    follow_parent();
    pin(options.cpu);
    start(&sink, &options);
    run(&sink);
    return finish(&sink);
}
