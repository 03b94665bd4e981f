/* SPDX-License-Identifier: Apache-2.0 */
/* The sink's command line. Called once, at start; a mistake ends the process with one line. */
#ifndef TICKLINE_HARNESS_SINK_OPTIONS_H
#define TICKLINE_HARNESS_SINK_OPTIONS_H

#include "sink_check.h"
#include "sink_record.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum { EXIT_USAGE = 2, EXIT_HOST = 4 };

struct options {
    const char *expected;
    const char *listen; /* as written */
    struct sockaddr_storage address;
    socklen_t address_size;
    enum check_schema schema;
    int cpu; /* -1: not pinned */
    struct record_files files;
};

struct options options_parse(int argc, char **argv);

/* One line on stderr, then exit(code). */
void die(int code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

#endif
