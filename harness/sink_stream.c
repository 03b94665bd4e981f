/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "sink_stream.h"

#include "stage/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

enum {
    READ_MAX = 1 << 17,    /* bytes */
    BEHIND_NS = 100000000, /* a slow reader does not make up for more */
};

/* A rest is put in front of what is read, so that every reply stands in one piece. */
static uint8_t buffer[FRAME_MAX + READ_MAX];

uint64_t stream_stamp(struct msghdr *header)
{
    struct timespec stamp = {0, 0};

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS)
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
    return (uint64_t)stamp.tv_sec * 1000000000u + (uint64_t)stamp.tv_nsec;
}

size_t throttle_allow(struct throttle *throttle)
{
    if (throttle->rate == 0)
        return SIZE_MAX;
    uint64_t now = clock_monotonic_ns();
    uint64_t due = (uint64_t)((double)(now - throttle->since_ns) * (double)throttle->rate / 1e9);
    if (due > throttle->read + throttle->rate * BEHIND_NS / 1000000000u) {
        throttle->since_ns = now;
        throttle->read = due = 0;
    }
    return due > throttle->read ? due - throttle->read : 0;
}

static int keep(struct stream *stream, const uint8_t *rest, size_t size)
{
    if (size > stream->room) {
        uint8_t *larger = realloc(stream->rest, size * 2);
        if (!larger)
            return -ENOMEM;
        stream->rest = larger;
        stream->room = size * 2;
    }
    if (size)
        memcpy(stream->rest, rest, size);
    stream->used = size;
    return 0;
}

/* Takes the replies that are whole; bytes of them. */
static size_t cut(struct stream *stream, size_t size, frame_length *length, stream_take *take,
                  void *context, uint64_t kernel_ns)
{
    size_t at = 0;

    while (at < size) {
        int32_t reply = stream->lost ? FRAME_NONE : length(buffer + at, size - at);
        if (reply == 0 || (reply > 0 && (size_t)reply > size - at))
            break;
        stream->lost = reply < 0;
        size_t bytes = reply < 0 ? size - at : (size_t)reply;
        take(context, buffer + at, (uint32_t)bytes, kernel_ns);
        at += bytes;
    }
    return at;
}

int64_t stream_receive(struct stream *stream, int fd, struct throttle *throttle,
                       frame_length *length, stream_take *take, void *context)
{
    union {
        char space[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    size_t most = throttle_allow(throttle);
    struct iovec vector = {buffer + stream->used, most < READ_MAX ? most : READ_MAX};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control};

    if (most == 0)
        return -EAGAIN;
    ssize_t got = recvmsg(fd, &header, MSG_DONTWAIT);
    if (got <= 0)
        return got == 0 ? -EPIPE : errno == EINTR ? -EAGAIN : -errno;
    if (stream->used)
        memcpy(buffer, stream->rest, stream->used);
    throttle->read += (uint64_t)got;
    size_t size = stream->used + (size_t)got;
    size_t done = cut(stream, size, length, take, context, stream_stamp(&header));
    int rc = keep(stream, buffer + done, size - done);
    return rc < 0 ? rc : got;
}

void stream_free(struct stream *stream)
{
    free(stream->rest);
    *stream = (struct stream){0};
}
