/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a TCP connection and cuts its bytes into replies.
 *
 * The kernel's stamp of a read is that of the last segment in it: a reply that an earlier one
 * completed is stamped too late, never too early, and only where the reader came late.
 */
#ifndef TICKLINE_HARNESS_SINK_STREAM_H
#define TICKLINE_HARNESS_SINK_STREAM_H

#include "sink_frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* What stays of one connection between two reads. All zero: a new one. */
struct stream {
    uint8_t *rest;     /* of a reply that is not whole yet */
    size_t used, room; /* bytes */
    bool lost;         /* what came is no reply: all that follows is not to be told apart */
};

/* A slow reader. */
struct throttle {
    uint64_t rate;           /* bytes a second that are read at most, 0: as many as come */
    uint64_t since_ns, read; /* MONOTONIC, and the bytes read since */
};

/* How many bytes may be read now. */
size_t throttle_allow(struct throttle *throttle);

/* What a whole reply is given to: valid until it returns; kernel_ns is CLOCK_REALTIME, 0: unknown. */
typedef void stream_take(void *context, const uint8_t *reply, uint32_t length, uint64_t kernel_ns);

/*
 * Reads once, without waiting, at most what `throttle` allows. Bytes read; -EAGAIN: none, -EPIPE: the peer
 * has ended, else what errno said. What is no reply is given to `take` as it came, once a read.
 */
int64_t stream_receive(struct stream *stream, int fd, struct throttle *throttle,
                       frame_length *length, stream_take *take, void *context);

void stream_free(struct stream *stream);

/* The kernel's stamp among the control messages of a read; 0: none. */
uint64_t stream_stamp(struct msghdr *header);

#endif
