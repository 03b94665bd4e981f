/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a connection ends, in steps that a successor can go on from:
 *
 *   doomed    `fate` says how; nothing is read any more, what of it is a request is put
 *   tallied   what the figures become by it is written down
 *   counted   they are
 *   left      the table says ended or broken
 *   released  where replies go out on it: tx has answered what was asked, or given it up
 *   free      the launcher has forgotten it, its descriptor is closed
 */
#include "rx/tcp_own.h"
#include "shm/crash.h"
#include "stage/control.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

void tcp_doom(struct tcp *tcp, uint32_t place, enum connection_figure fate, uint32_t length)
{
    struct tcp_place *memory = &tcp->memory.place[place];

    store_relaxed(&memory->last, load_relaxed(&memory->consumed) + length);
    store_release(&memory->fate, (uint32_t)fate);
    crash_point("tcp:doomed");
}

/* What is left as one request. A larger one than fits anywhere is rejected by rx itself. */
static int put_last(struct stage *stage, struct rx *rx, uint32_t place)
{
    struct tcp *tcp = rx->own;
    const struct tcp_place *memory = &tcp->memory.place[place];
    uint64_t length = load_relaxed(&memory->last) - load_relaxed(&memory->consumed);
    bool oversized = load_relaxed(&memory->fate) == CONNECTION_oversized;

    if (position_diff(load_relaxed(&memory->last), load_relaxed(&memory->consumed)) <= 0)
        return 0;
    const struct frame frame = {
        .id = XXH3_64bits(tcp_bytes(&tcp->memory, place), length),
        .length = oversized ? UINT32_MAX : (uint32_t)length,
        .well_formed = oversized,
    };
    return tcp_put(stage, rx, place, &frame, (uint32_t)length);
}

/* Twice is once: the new values are written down before they are stored. */
static void count(struct tcp *tcp, uint32_t place)
{
    struct tcp_place *memory = &tcp->memory.place[place];
    struct connections *table = tcp->table;
    _Atomic uint64_t *figure = &table->figure[load_relaxed(&memory->fate)];

    if (load_relaxed(&memory->tally) == 0) {
        store_relaxed(&memory->cut, load_relaxed(&table->cut_bytes) + tcp_available(memory));
        store_release(&memory->tally, load_relaxed(figure) + 1);
    }
    crash_point("tcp:tallied");
    store_relaxed(&table->cut_bytes, load_relaxed(&memory->cut));
    store_relaxed(figure, load_relaxed(&memory->tally));
    crash_point("tcp:tallied_up");
}

static void forget_live(struct tcp *tcp, uint32_t place)
{
    uint32_t i = 0;

    while (tcp->live[i] != place)
        i++;
    tcp->live[i] = tcp->live[--tcp->live_count];
    tcp->connection[place].live = false;
}

enum served tcp_end(struct stage *stage, struct rx *rx, uint32_t place)
{
    struct tcp *tcp = rx->own;
    struct tcp_place *memory = &tcp->memory.place[place];
    struct connection *connection = &tcp->table->place[place];
    uint32_t fate = load_relaxed(&memory->fate);
    bool answerable = fate == CONNECTION_ended || fate == CONNECTION_idle;

    if (put_last(stage, rx, place) == -EAGAIN)
        return SERVED_FULL;
    count(tcp, place);
    tcp->held -= tcp_available(memory);
    (void)epoll_ctl(tcp->epoll, EPOLL_CTL_DEL, tcp->connection[place].fd, NULL);
    forget_live(tcp, place);
    if (!tcp->answers)
        store_relaxed(&connection->released, load_relaxed(&connection->number));
    store_release(&connection->state,
                  (uint32_t)(answerable ? CONNECTION_ENDED : CONNECTION_BROKEN));
    crash_point("tcp:left");
    tcp->leaving[tcp->leaving_count++] = (uint16_t)place;
    tcp_free(stage, tcp);
    return SERVED_DRY;
}

/* Of one whose peer has not ended it himself nothing is sent any more but a reset. */
static void close_socket(struct tcp *tcp, uint32_t place, int fd)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    if (load_relaxed(&tcp->table->place[place].state) == CONNECTION_BROKEN)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
}

/* False: it is still needed. */
static bool free_place(struct stage *stage, struct tcp *tcp, uint32_t place)
{
    struct connection *connection = &tcp->table->place[place];
    uint64_t number = load_relaxed(&connection->number);
    char name[CONTROL_NAME_MAX];

    if (load_acquire(&connection->released) != number)
        return false;
    snprintf(name, sizeof(name), "connection.%u", place);
    if (stage_offer(stage, name, number, -1) == -EAGAIN)
        return false;
    crash_point("tcp:released");
    if (tcp->connection[place].fd >= 0)
        close_socket(tcp, place, tcp->connection[place].fd);
    store_relaxed(&tcp->memory.place[place].freed, number);
    store_release(&connection->state, (uint32_t)CONNECTION_FREE);
    crash_point("tcp:freed");
    tcp->free[tcp->free_count++] = (uint16_t)place;
    return true;
}

void tcp_free(struct stage *stage, struct tcp *tcp)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < tcp->leaving_count; i++) {
        if (!free_place(stage, tcp, tcp->leaving[i]))
            tcp->leaving[kept++] = tcp->leaving[i];
    }
    tcp->leaving_count = kept;
}

void tcp_mind_idle(struct tcp *tcp, uint64_t now)
{
    for (uint32_t i = 0; i < tcp->live_count; i++) {
        uint32_t place = tcp->live[i];
        const struct tcp_connection *connection = &tcp->connection[place];
        /* One that waits for room in a ring is not silent. */
        if (connection->queued || position_diff(now, connection->heard + tcp->idle_ticks) <= 0)
            continue;
        tcp_doom(tcp, place, CONNECTION_idle, 0);
        tcp_wake(tcp, place);
    }
}
