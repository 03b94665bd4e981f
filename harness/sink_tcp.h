/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sink's end of TCP: accepts what the pipeline connects, at most SINK_CONNECTIONS_MAX at once
 * (more wait in the kernel), and reads it all. One a process, one thread; nothing here waits.
 */
#ifndef TICKLINE_HARNESS_SINK_TCP_H
#define TICKLINE_HARNESS_SINK_TCP_H

#include "sink_stream.h"

#include <sys/socket.h>

enum { SINK_CONNECTIONS_MAX = 64 };

struct sink_tcp {
    int listener;
    frame_length *length;
    struct throttle slow;
    unsigned accepted, open;
    struct {
        int fd; /* -1: none */
        struct stream stream;
    } connection[SINK_CONNECTIONS_MAX];
};

/* 0, or -errno. `*rcvbuf`: bytes of a receive buffer, as it begins; it grows by the kernel's rules, but
 * not for a slow reader. */
int sink_tcp_open(struct sink_tcp *tcp, const struct sockaddr *address, socklen_t size,
                  int *rcvbuf);

/* Accepts, and reads each connection once. Bytes read, or -errno. */
int64_t sink_tcp_receive(struct sink_tcp *tcp, stream_take *take, void *context);

void sink_tcp_close(struct sink_tcp *tcp);

#endif
