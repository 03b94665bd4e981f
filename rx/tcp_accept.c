/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New connections. Each is left with the launcher before a byte of it is read, so that it outlives rx:
 *
 *   number stored in the table's place, which is free   what is accepted next will stand here
 *   accepted                                            it exists here alone: a kill resets and counts it
 *   deposited                                           a successor has it, and opens it
 *   open                                                requests may come
 *
 * A listening socket resets what is closed (SO_LINGER, which accepted ones inherit); that ends when it is open.
 */
#include "rx/address.h"
#include "rx/tcp_own.h"
#include "shm/crash.h"
#include "stage/control.h"

#include <errno.h>
#include <linux/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { ACCEPTS_MAX = 16, BACKLOG = 4096 };

/* ---- listening ---- */

static int set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* What accepted sockets inherit. */
static int prepare(const struct config *config, int fd, int family)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int us = (int)((config->rx.busy_poll_ns + 999) / 1000);

    int err = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (err == 0 && family == AF_INET6)
        err = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (err == 0)
        err = set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
    if (err == 0 && us)
        err = set(fd, SOL_SOCKET, SO_BUSY_POLL, us);
    if (err == 0)
        err = set(fd, IPPROTO_TCP, TCP_NODELAY, config->tx.nodelay);
    if (err == 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
        err = -errno;
    return err;
}

static int open_listener(struct stage *stage, const struct config_endpoint *endpoint)
{
    union address address;
    socklen_t length;

    int err = address_parse(endpoint, &address, &length);
    if (err < 0)
        return stage_error(stage, err, "rx.bind = %s: not an IPv4 or IPv6 address",
                           endpoint->address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return stage_error(stage, -errno, "socket: %s", strerror(errno));
    err = prepare(&stage->config, fd, address.any.sa_family);
    if (err == 0 && (bind(fd, &address.any, length) < 0 || listen(fd, BACKLOG) < 0))
        err = -errno;
    if (err < 0) {
        close(fd);
        return stage_error(stage, err, "rx.bind = %s:%u: %s%s", endpoint->address, endpoint->port,
                           strerror(-err), address_hint(err, "; see who holds it: ss -ltnp"));
    }
    return fd;
}

static int watch(const struct tcp *tcp, int fd, uint32_t events, uint32_t data)
{
    struct epoll_event event = {.events = events, .data.u32 = data};

    return epoll_ctl(tcp->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int tcp_listen(struct stage *stage, struct tcp *tcp)
{
    const struct config *config = &stage->config;
    char name[CONTROL_NAME_MAX];
    int err = 0;

    if (config->rx.bind_count == 0)
        return stage_error(stage, -EINVAL,
                           "rx.bind = auto: no capture to take the address from; write rx.bind = "
                           "ADDRESS:PORT");
    if (config->rx.timestamps == TIMESTAMPS_HARDWARE)
        stage_note(stage, "rx.timestamps", "hardware", "software",
                   "segments of a stream are stamped by the kernel");
    tcp->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (tcp->epoll < 0)
        return stage_error(stage, -errno, "epoll: %s", strerror(errno));
    for (uint32_t i = 0; err == 0 && i < config->rx.bind_count; i++) {
        snprintf(name, sizeof(name), "rx.socket.%u", i);
        int fd = stage_descriptor(stage, name);
        bool mine = fd < 0;
        if (mine)
            fd = open_listener(stage, &config->rx.bind[i]);
        if (fd < 0)
            return fd;
        err = mine ? stage_deposit(stage, name, fd) : 0;
        if (err == 0)
            err = watch(tcp, fd, EPOLLIN, TCP_LISTENER + i);
        tcp->listener[i] = fd;
    }
    tcp->listeners = config->rx.bind_count;
    return err < 0 ? stage_error(stage, err, "a listening socket: %s", strerror(-err)) : 0;
}

/* ---- accepting ---- */

/* Replies are counted from here on (tx.sink = reply). */
static uint64_t written(int fd)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof(info);

    (void)getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    return info.tcpi_bytes_acked;
}

static void go_live(struct tcp *tcp, uint32_t place, int fd)
{
    tcp->connection[place] = (struct tcp_connection){.fd = fd, .live = true, .heard = tsc_read()};
    tcp->live[tcp->live_count++] = (uint16_t)place;
    if (watch(tcp, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, place) < 0)
        tcp_doom(tcp, place, CONNECTION_reset, 0);
    tcp_wake(tcp, place);
}

/* It is deposited. */
static void open_place(struct rx *rx, uint32_t place, int fd)
{
    const struct linger gracious = {0};
    struct tcp *tcp = rx->own;
    struct connection *connection = &tcp->table->place[place];

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &gracious, sizeof(gracious));
    tcp_place_clear(&tcp->memory.place[place]);
    store_relaxed(&connection->first, rx->issued + 1);
    store_relaxed(&connection->issued, 0);
    store_relaxed(&connection->written_before, written(fd));
    store_relaxed(&tcp->table->figure[CONNECTION_opened],
                  load_relaxed(&connection->number) -
                      load_relaxed(&tcp->table->figure[CONNECTION_lost]));
    store_release(&connection->state, (uint32_t)CONNECTION_OPEN);
    crash_point("tcp:opened");
    go_live(tcp, place, fd);
    tcp->moved++;
}

/* The number stays unused: it was stored, and nobody may get it a second time. It is the newest one, and of
 * those before it each was opened or lost: so counted twice is once. */
static void lose(struct tcp *tcp, uint32_t place)
{
    _Atomic uint64_t *figure = tcp->table->figure;
    uint64_t number = load_relaxed(&tcp->table->place[place].number);

    store_relaxed(&figure[CONNECTION_lost], number - load_relaxed(&figure[CONNECTION_opened]));
    store_release(&tcp->memory.place[place].freed, number);
    tcp->free[tcp->free_count++] = (uint16_t)place;
}

static void name_place(char name[CONTROL_NAME_MAX], uint32_t place)
{
    snprintf(name, CONTROL_NAME_MAX, "connection.%u", place);
}

void tcp_deposit(struct stage *stage, struct rx *rx)
{
    struct tcp *tcp = rx->own;
    uint32_t place = tcp->pending;
    int fd = tcp->connection[place].fd;
    char name[CONTROL_NAME_MAX];

    name_place(name, place);
    int err = stage_offer(stage, name, load_relaxed(&tcp->table->place[place].number), fd);
    if (err == -EAGAIN)
        return;
    tcp->pending = TCP_NOWHERE;
    if (err < 0) { /* the launcher is gone, and soon we are */
        close(fd);
        lose(tcp, place);
        return;
    }
    crash_point("tcp:deposited");
    open_place(rx, place, fd);
}

/* False: nobody waits, or nobody can be taken now. */
static bool accept_one(struct stage *stage, struct rx *rx, int listener)
{
    struct tcp *tcp = rx->own;
    uint32_t place = tcp->free[tcp->free_count - 1];
    _Atomic uint64_t *number = &tcp->table->place[place].number;

    store_release(number, tcp->number + 1);
    crash_point("tcp:reserved");
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        store_release(number, load_relaxed(&tcp->memory.place[place].freed));
        return false;
    }
    crash_point("tcp:accepted");
    tcp->number++;
    tcp->free_count--;
    tcp->connection[place].fd = fd;
    tcp->pending = place;
    tcp_deposit(stage, rx);
    return tcp->pending == TCP_NOWHERE;
}

static bool refuse_one(struct tcp *tcp, int listener)
{
    _Atomic uint64_t *refused = &tcp->table->figure[CONNECTION_refused];
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return false;
    store_relaxed(refused, load_relaxed(refused) + 1);
    close(fd);
    return true;
}

void tcp_accept(struct stage *stage, struct rx *rx, uint32_t listener)
{
    struct tcp *tcp = rx->own;
    int fd = tcp->listener[listener];
    bool more = tcp->pending == TCP_NOWHERE;

    for (uint32_t i = 0; more && i < ACCEPTS_MAX; i++)
        more = tcp->free_count ? accept_one(stage, rx, fd) : refuse_one(tcp, fd);
}

/* ---- after a kill ---- */

/* A place that its predecessor left free: was it about to stand there? */
static void take_free(struct rx *rx, uint32_t place, int fd)
{
    struct tcp *tcp = rx->own;
    uint64_t number = load_relaxed(&tcp->table->place[place].number);

    if (number == load_relaxed(&tcp->memory.place[place].freed))
        tcp->free[tcp->free_count++] = (uint16_t)place;
    else if (fd < 0)
        lose(tcp, place);
    else
        open_place(rx, place, fd);
}

static void take_place(struct stage *stage, struct rx *rx, uint32_t place)
{
    struct tcp *tcp = rx->own;
    uint32_t state = load_relaxed(&tcp->table->place[place].state);
    char name[CONTROL_NAME_MAX];

    name_place(name, place);
    int fd = stage_descriptor(stage, name);
    if (state == CONNECTION_FREE) {
        take_free(rx, place, fd);
    } else if (state == CONNECTION_OPEN) {
        tcp->held += tcp_available(&tcp->memory.place[place]);
        go_live(tcp, place, fd);
        /* Tallied, it is counted before any other is. */
        if (load_relaxed(&tcp->memory.place[place].tally))
            (void)tcp_end(stage, rx, place);
    } else {
        tcp->connection[place].fd = fd;
        tcp->leaving[tcp->leaving_count++] = (uint16_t)place;
    }
}

int tcp_take_over(struct stage *stage, struct rx *rx)
{
    struct tcp *tcp = rx->own;
    uint64_t done = rx_done_with(stage, rx);
    uint64_t bytes = 0;

    rx->issued = done;
    uint32_t next = tcp_memory_recover(&tcp->memory, done);
    for (uint32_t i = 0; i < tcp->memory.places; i++) {
        tcp->number = position_max(tcp->number, load_relaxed(&tcp->table->place[i].number));
        bytes += load_relaxed(&tcp->memory.place[i].filled);
    }
    if (next != TCP_NOWHERE && load_relaxed(&tcp->table->place[next].state) == CONNECTION_OPEN)
        take_place(stage, rx, next);
    /* From the last to the first: the first free one is taken first. */
    for (uint32_t i = tcp->memory.places; i-- > 0;) {
        if (i != next || load_relaxed(&tcp->table->place[i].state) != CONNECTION_OPEN)
            take_place(stage, rx, i);
    }
    stage->figures.datagrams = load_relaxed(&tcp->memory.journal->reads);
    stage->figures.bytes = bytes;
    return 0;
}
