/* SPDX-License-Identifier: Apache-2.0 */
/* The client's command line. Called once, at start; a mistake ends the process with one line. */
#ifndef TICKLINE_HARNESS_CLIENT_OPTIONS_H
#define TICKLINE_HARNESS_CLIENT_OPTIONS_H

#include "client_play.h"
#include "lab_child.h"
#include "sink_judge.h"

struct options {
    const char *script;
    const char *to; /* as written */
    struct sockaddr_storage address;
    socklen_t address_size;
    bool has_port; /* `to` names one for all connections, else the script has them */
    bool udp;
    bool replies; /* they come to us: --expected */
    enum check_schema schema;
    frame_length *length;    /* of a reply over TCP */
    const char *sent;        /* path of sent.bin, or NULL */
    const char *connections; /* path of connections.bin, or NULL */
    const char *speed;       /* play at once, then end; NULL: wait for commands */
    uint64_t slow;
    int cpu; /* -1: not pinned */
    struct judge_files files;
};

struct options options_parse(int argc, char **argv);

/* `1x`, `20000pps` or `top`; false for any other text. */
bool options_pace(const char *text, struct pace *pace);

#endif
