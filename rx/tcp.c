/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rx.source = tcp: requests of up to rx.connections connections, however their segments were cut.
 *
 * Nothing is dropped here: a connection whose worker's ring is full is not read, until its peer has to wait. The
 * others go on; who is worth a look stands in a queue, and each turn looks at each of them once.
 *
 * epoll says at edges who has something new. With a few connections asking each of them costs less than asking
 * epoll whom to ask: then it is only asked now and then, for new ones.
 */
#include "rx/tcp_own.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 64,
    DIRECT_MAX = 4,    /* connections that are asked without epoll */
    DIRECT_TURNS = 64, /* of them epoll is asked in one */
    NAP_NS = 1000000,  /* parked with something to tell the launcher */
};

/* ---- who is worth a look ---- */

void tcp_wake(struct tcp *tcp, uint32_t place)
{
    struct tcp_queue *ready = &tcp->ready;

    if (tcp->connection[place].queued)
        return;
    tcp->connection[place].queued = true;
    ready->place[(ready->head + ready->count++) % CONNECTIONS_MAX] = (uint16_t)place;
}

static uint32_t take_ready(struct tcp *tcp)
{
    struct tcp_queue *ready = &tcp->ready;
    uint32_t place = ready->place[ready->head % CONNECTIONS_MAX];

    ready->head++;
    ready->count--;
    tcp->connection[place].queued = false;
    return place;
}

/* ---- turns ---- */

static void news(struct tcp *tcp, uint32_t place, uint32_t events)
{
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        tcp->connection[place].to_the_end = true;
    tcp_wake(tcp, place);
}

/* Who has something new. */
static void look(struct stage *stage, struct rx *rx)
{
    struct tcp *tcp = rx->own;
    struct epoll_event events[EVENTS];

    if (tcp->pending != TCP_NOWHERE)
        tcp_deposit(stage, rx);
    int count;
    uint32_t rounds = 0;
    do {
        count = epoll_wait(tcp->epoll, events, EVENTS, 0);
        for (int i = 0; i < count; i++) {
            uint32_t what = events[i].data.u32;
            if (what >= TCP_LISTENER)
                tcp_accept(stage, rx, what - TCP_LISTENER);
            else
                news(tcp, what, events[i].events);
        }
    } while (count == EVENTS && ++rounds < CONNECTIONS_MAX / EVENTS);
}

static int tcp_poll(struct stage *stage, struct rx *rx)
{
    struct tcp *tcp = rx->own;
    bool direct = tcp->live_count <= DIRECT_MAX;
    bool full = false;

    tcp->moved = 0;
    if (!direct || tcp->turns++ % DIRECT_TURNS == 0 || stage->draining)
        look(stage, rx);
    for (uint32_t i = 0; direct && i < tcp->live_count; i++)
        tcp_wake(tcp, tcp->live[i]);
    for (uint32_t left = tcp->ready.count; left && tcp->moved < stage->config.rx.burst; left--) {
        uint32_t place = take_ready(tcp);
        enum served served = tcp_serve(stage, rx, place);
        full = full || served == SERVED_FULL;
        if (served != SERVED_DRY)
            tcp_wake(tcp, place);
    }
    if (tcp->moved)
        return (int)tcp->moved;
    rx->was_idle = true;
    return full && !rx_is_in_vain(stage, rx) ? -EAGAIN : 0;
}

static void tcp_tick(struct stage *stage, struct rx *rx, uint64_t now)
{
    struct tcp *tcp = rx->own;

    if (tcp->leaving_count)
        tcp_free(stage, tcp);
    if (tcp->pending != TCP_NOWHERE)
        tcp_deposit(stage, rx);
    if (tcp->idle_ticks)
        tcp_mind_idle(tcp, now);
    store_relaxed(&tcp->table->held_bytes, tcp->held);
    stage->figures.datagrams = load_relaxed(&tcp->memory.journal->reads);
}

static bool tcp_drained(struct stage *stage, struct rx *rx)
{
    const struct tcp *tcp = rx->own;

    return (tcp->ready.count == 0 && tcp->pending == TCP_NOWHERE) || rx_is_in_vain(stage, rx);
}

static void tcp_park(struct stage *stage, struct rx *rx, uint64_t ns)
{
    const struct tcp *tcp = rx->own;
    struct pollfd epoll = {.fd = tcp->epoll, .events = POLLIN};

    (void)stage;
    if (ns > NAP_NS && (tcp->pending != TCP_NOWHERE || tcp->leaving_count))
        ns = NAP_NS;
    const struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000ULL),
                                     .tv_nsec = (long)(ns % 1000000000ULL)};
    (void)ppoll(&epoll, 1, &timeout, NULL);
}

/* ---- life ---- */

static int open_memory(struct stage *stage, struct rx *rx)
{
    struct tcp *tcp = rx->own;
    const struct config *config = &stage->config;
    int fd = stage_descriptor(stage, "rx.connections");
    struct region_want want = connections_want(stage->arena.header->epoch);
    struct region region;

    int err = stage_attach(stage, &region, "connections", &want, true);
    if (err < 0)
        return err;
    tcp->table = connections_of(&region);
    err = tcp_memory_open(&tcp->memory, config->rx.connections, config->rx.connection_bytes,
                          want.epoch, config->memory.pages != PAGES_4K, fd);
    if (err < 0)
        return stage_error(stage, err,
                           "no memory for %u connections: %s; make rx.connections or "
                           "rx.connection_buffer smaller",
                           config->rx.connections, strerror(-err));
    return fd >= 0 ? 0 : stage_deposit(stage, "rx.connections", tcp->memory.region.fd);
}

static int tcp_open(struct stage *stage, struct rx *rx)
{
    const struct config *config = &stage->config;
    struct tcp *tcp = calloc(1, sizeof(*tcp));

    if (!tcp)
        return -ENOMEM;
    rx->own = tcp;
    rx->drop = false;
    tcp->pending = TCP_NOWHERE;
    tcp->answers = strcmp(config->tx.sink, "reply") == 0;
    tcp->quickack = config->rx.quickack;
    tcp->idle_ticks = clock_ticks(&stage->clock, config->rx.idle_ns);
    stage_note(stage, "rx.io", config->rx.io == IO_AUTO ? "auto" : "plain", "plain",
               "connections are read by plain calls");
    int err = open_memory(stage, rx);
    if (err == 0)
        err = tcp_listen(stage, tcp);
    return err < 0 ? err : tcp_take_over(stage, rx);
}

static void tcp_close(struct stage *stage, struct rx *rx)
{
    struct tcp *tcp = rx->own;

    tcp_tick(stage, rx, tsc_read());
    close(tcp->epoll);
    tcp_memory_close(&tcp->memory);
}

const struct rx_source rx_tcp = {
    .name = "tcp",
    .open = tcp_open,
    .poll = tcp_poll,
    .tick = tcp_tick,
    .drained = tcp_drained,
    .park = tcp_park,
    .close = tcp_close,
};
