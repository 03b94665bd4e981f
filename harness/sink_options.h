/* SPDX-License-Identifier: Apache-2.0 */
/* The sink's command line. Called once, at start; a mistake ends the process with one line. */
#ifndef TICKLINE_HARNESS_SINK_OPTIONS_H
#define TICKLINE_HARNESS_SINK_OPTIONS_H

#include "lab_child.h"
#include "sink_frame.h"
#include "sink_judge.h"

struct options {
    const char *listen; /* as written */
    struct sockaddr_storage address;
    socklen_t address_size;
    enum check_schema schema;
    frame_length *length; /* TCP: of a reply; NULL: UDP */
    uint64_t slow;        /* TCP: bytes a second, 0: as many as come */
    int cpu;              /* -1: not pinned */
    struct judge_files files;
};

struct options options_parse(int argc, char **argv);

#endif
