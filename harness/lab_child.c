/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "lab_child.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile sig_atomic_t terminated;

void die(int code, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    exit(code);
}

uint64_t parse_number(const char *name, const char *text, uint64_t max)
{
    char *end;

    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > max)
        die(EXIT_USAGE, "%s %s: expected a number from 0 to %" PRIu64, name, text, max);
    return value;
}

socklen_t parse_address(const char *name, const char *text, struct sockaddr_storage *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2];

    if (!colon || (size_t)(colon - text) >= sizeof host)
        die(EXIT_USAGE, "%s %s: expected ADDRESS:PORT or [ADDRESS]:PORT", name, text);
    uint16_t port = (uint16_t)parse_number("port", colon + 1, UINT16_MAX);
    size_t length = (size_t)(colon - text);
    bool bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';
    size_t skip = bracketed ? 1 : 0;
    memcpy(host, text + skip, length - 2 * skip);
    host[length - 2 * skip] = '\0';
    memset(address, 0, sizeof *address);
    if (bracketed && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return sizeof *v6;
    }
    if (bracketed || inet_pton(AF_INET, host, &v4->sin_addr) != 1)
        die(EXIT_USAGE, "%s %s: expected ADDRESS:PORT or [ADDRESS]:PORT", name, text);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    return sizeof *v4;
}

static void on_sigterm(int number)
{
    terminated = number;
}

void child_follow_parent(void)
{
    pid_t parent = getppid();

    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_sigterm}, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        exit(EXIT_HOST);
}

void child_pin(int cpu)
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

/* stdin stays as it was given to us (it may be shared), so poll(2) says whether read(2) would wait.
 */
bool child_poll(struct commands *commands, child_obey *obey, void *context)
{
    struct pollfd in = {STDIN_FILENO, POLLIN, 0};
    size_t room = sizeof commands->text - 1 - commands->used;
    char *end;

    if (terminated)
        return false;
    if (poll(&in, 1, 0) != 1)
        return true;
    ssize_t got = read(STDIN_FILENO, commands->text + commands->used, room);
    if (got <= 0)
        return false;
    commands->used += (size_t)got;
    commands->text[commands->used] = '\0';
    while ((end = strchr(commands->text, '\n'))) {
        *end++ = '\0';
        if (!obey(context, commands->text))
            return false;
        commands->used = strlen(end);
        memmove(commands->text, end, commands->used + 1);
    }
    if (commands->used == sizeof commands->text - 1)
        commands->used = 0; /* no command is that long */
    return true;
}
