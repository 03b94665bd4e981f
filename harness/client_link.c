/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "client_link.h"

#include "sink_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    EVENTS = 64,      /* looked at in one turn */
    DESCRIPTORS = 64, /* beside those of the links */
    UDP_RCVBUF = 1 << 20,
    BURST = 32, /* datagrams taken off one socket in one turn */
};

static int raise_limit(uint32_t count)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -errno;
    if (limit.rlim_cur >= (rlim_t)count + DESCRIPTORS)
        return 0;
    limit.rlim_cur = (rlim_t)count + DESCRIPTORS;
    if (limit.rlim_max < limit.rlim_cur)
        limit.rlim_max = limit.rlim_cur;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : -errno;
}

int links_open(struct links *links, uint32_t count)
{
    int rc = raise_limit(count);

    links->count = count;
    links->link = calloc((size_t)count + 1, sizeof *links->link);
    links->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (rc != 0 || !links->link || links->epoll < 0)
        return rc != 0 ? rc : links->link ? -errno : -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        links->link[i].fd = -1;
    return 0;
}

static void leave(struct link *link, enum link_state state)
{
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    link->state = state;
    link->waits = false;
    stream_free(&link->stream);
}

void links_close(struct links *links)
{
    for (uint32_t i = 0; links->link && i < links->count; i++)
        leave(&links->link[i], LINK_CLOSED);
    free(links->link);
    close(links->epoll);
}

static int broken(struct link *link, int error)
{
    leave(link, LINK_BROKEN);
    link->record.error = (uint32_t)error;
    return -error;
}

/* A write end is looked at only while somebody waits for it. */
static void watch(struct links *links, uint32_t number, int operation)
{
    struct link *link = &links->link[number];
    struct epoll_event event = {.events = EPOLLIN | (link->waits ? (uint32_t)EPOLLOUT : 0),
                                .data.u32 = number};

    epoll_ctl(links->epoll, operation, link->fd, &event);
}

static struct sockaddr_storage address_of(const struct links *links, uint32_t number)
{
    struct sockaddr_storage address = links->address;
    uint16_t port = htons((uint16_t)links->port[number]);

    if (links->one_port)
        return address;
    if (address.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&address)->sin6_port = port;
    else
        ((struct sockaddr_in *)&address)->sin_port = port;
    return address;
}

static void tune(const struct links *links, int fd)
{
    int on = 1, bytes = UDP_RCVBUF;

    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (!links->datagrams)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    else if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

int link_open(struct links *links, uint32_t number)
{
    struct link *link = &links->link[number];
    struct sockaddr_storage address = address_of(links, number);
    int type = (links->datagrams ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;

    if (link->state == LINK_OPEN || link->state == LINK_CONNECTING || link->state == LINK_ENDING ||
        link->state == LINK_ENDED || link->state == LINK_BROKEN)
        return 0;
    leave(link, LINK_CLOSED);
    link->fd = socket(address.ss_family, type, 0);
    if (link->fd < 0)
        return broken(link, errno);
    tune(links, link->fd);
    link->record.opened++;
    int rc = connect(link->fd, (const struct sockaddr *)&address, links->address_size);
    if (rc != 0 && errno != EINPROGRESS)
        return broken(link, errno);
    link->state = rc == 0 ? LINK_OPEN : LINK_CONNECTING;
    link->waits = link->state == LINK_CONNECTING;
    watch(links, number, EPOLL_CTL_ADD);
    return 0;
}

int64_t link_write(struct links *links, uint32_t number, const uint8_t *data, size_t size)
{
    struct link *link = &links->link[number];
    ssize_t taken = send(link->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

    /* An answer to an earlier datagram (nobody listened) is told once, and sends nothing. */
    if (taken < 0 && errno == ECONNREFUSED && links->datagrams)
        taken = send(link->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (taken < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
        return broken(link, errno);
    if (taken < 0)
        taken = 0;
    link->record.written += (uint64_t)taken;
    if ((size_t)taken < size && !link->waits) {
        link->waits = true;
        watch(links, number, EPOLL_CTL_MOD);
    }
    return taken;
}

void link_close(struct links *links, uint32_t number)
{
    struct link *link = &links->link[number];

    if (link->state != LINK_OPEN)
        return;
    if (links->datagrams)
        leave(link, LINK_CLOSED);
    else if (shutdown(link->fd, SHUT_WR) != 0)
        (void)broken(link, errno);
    else
        link->state = LINK_ENDING;
}

/* ---- what comes back ---- */

struct taking {
    const struct links *links;
    uint32_t number;
};

static void take(void *context, const uint8_t *reply, uint32_t length, uint64_t kernel_ns)
{
    const struct taking *taking = context;

    taking->links->take(taking->links->taker, taking->number, reply, length, kernel_ns);
}

static int32_t whole(const uint8_t *data, size_t length)
{
    (void)data;
    return (int32_t)length;
}

static void nobody(void *context, const uint8_t *reply, uint32_t length, uint64_t kernel_ns)
{
    (void)context, (void)reply, (void)length, (void)kernel_ns;
}

/* A datagram is a read; so is what nobody cuts into replies. */
static bool read_some(struct links *links, uint32_t number)
{
    struct link *link = &links->link[number];
    struct taking taking = {links, number};
    frame_length *length = links->length && !links->datagrams ? links->length : whole;
    int64_t got = stream_receive(&link->stream, link->fd, &links->slow, length,
                                 links->length || links->datagrams ? take : nobody, &taking);

    if (got > 0) {
        link->record.read += (uint64_t)got;
        return true;
    }
    if (links->datagrams) {
        if (got == -EPIPE) /* an empty one */
            take(&taking, (const uint8_t *)"", 0, 0);
        return got == -EPIPE;
    }
    if (got == -EPIPE)
        leave(link, link->state == LINK_ENDING ? LINK_CLOSED : LINK_ENDED);
    else if (got != -EAGAIN)
        (void)broken(link, (int)-got);
    return false;
}

void link_reset(struct links *links, uint32_t number)
{
    struct link *link = &links->link[number];
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    if (link->state == LINK_OPEN || link->state == LINK_ENDING)
        (void)read_some(links, number); /* what has come has come */
    if (link->fd < 0)
        return;
    setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    link->record.resets++;
    leave(link, LINK_RESET);
}

static void finish_connecting(struct links *links, uint32_t number)
{
    struct link *link = &links->link[number];
    int error = 0;
    socklen_t size = sizeof error;

    getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0)
        (void)broken(link, error);
    else
        link->state = LINK_OPEN;
}

static void look(struct links *links, uint32_t number, uint32_t events)
{
    struct link *link = &links->link[number];

    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && link->state != LINK_CONNECTING)
        for (int i = 0; i < (links->datagrams ? BURST : 1) && read_some(links, number); i++)
            ;
    if (link->fd >= 0 && link->waits && events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        if (link->state == LINK_CONNECTING)
            finish_connecting(links, number);
        link->waits = false;
        if (link->fd >= 0)
            watch(links, number, EPOLL_CTL_MOD);
        links->ready(links->context, number);
    } else if (link->fd < 0)
        links->ready(links->context, number);
}

int links_poll(struct links *links)
{
    struct epoll_event event[EVENTS];
    int count = epoll_wait(links->epoll, event, EVENTS, 0);

    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++)
        if (links->link[event[i].data.u32].fd >= 0) /* else gone since this turn began */
            look(links, event[i].data.u32, event[i].events);
    return count;
}

uint64_t links_drops(const struct links *links)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; links->datagrams && i < links->count; i++)
        if (links->link[i].fd >= 0)
            sum += socket_drops(links->link[i].fd);
    return sum;
}
