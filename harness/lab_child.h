/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the lab's own processes on the wire (sink, client) have in common: they live and end with
 * the lab, take commands on stdin, and answer in lines of JSON on stdout.
 */
#ifndef TICKLINE_HARNESS_LAB_CHILD_H
#define TICKLINE_HARNESS_LAB_CHILD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { EXIT_USAGE = 2, EXIT_HOST = 4, COMMAND_MAX = 128 };

/* One line on stderr, begun by the program's name, then exit(code). */
void die(int code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* `text`, the value of option `name`, as a number from 0 to `max`; dies where it is none. */
uint64_t parse_number(const char *name, const char *text, uint64_t max);

/* `ADDRESS:PORT`, IPv6 in brackets, as an address; dies where it is none. Its size in bytes. */
socklen_t parse_address(const char *name, const char *text, struct sockaddr_storage *address);

/* Ends with the lab, and only by its word: a terminal's Ctrl-C is the lab's to judge. */
void child_follow_parent(void);

/* Runs on this CPU alone; -1: wherever. */
void child_pin(int cpu);

/* A line of stdin that is not whole yet. */
struct commands {
    char text[COMMAND_MAX];
    size_t used;
};

/* Whom a command is given to; false ends the program. */
typedef bool child_obey(void *context, const char *command);

/*
 * Gives every command that has come to `obey`, without waiting. False when it is time to end: so
 * said a command, stdin has ended, or SIGTERM came.
 */
bool child_poll(struct commands *commands, child_obey *obey, void *context);

#endif
