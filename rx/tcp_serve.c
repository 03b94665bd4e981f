/* SPDX-License-Identifier: Apache-2.0 */
/* A look at one connection: what stands whole in its buffer is put, and it is read. */
#include "rx/put.h"
#include "rx/tcp_own.h"

#include <linux/tcp.h>
#include <netinet/in.h>

/* TCP_CLOSE, for which another header would be needed that excludes this one. */
enum { STATE_CLOSED = 7 };

/* ---- requests ---- */

int tcp_put(struct stage *stage, struct rx *rx, uint32_t place, const struct frame *frame,
            uint32_t length)
{
    struct tcp *tcp = rx->own;
    struct connection *connection = &tcp->table->place[place];
    uint64_t number = rx->issued + 1;
    uint64_t count = load_relaxed(&tcp->memory.place[place].count);
    const struct rx_request request = {
        .data = tcp_bytes(&tcp->memory, place),
        .frame = *frame,
        .kernel_ns = load_relaxed(&tcp->memory.place[place].kernel_ns),
        .flow = (uint16_t)place,
        .place = (uint16_t)tcp->moved,
    };

    tcp_put_begin(&tcp->memory, place, number, length);
    store_relaxed(&connection->issued, count + 1);
    int err = rx_put(stage, rx, &request);
    if (err < 0) {
        store_relaxed(&connection->issued, count);
        return err;
    }
    tcp_put_end(&tcp->memory, number);
    tcp->connection[place].needed = 0;
    tcp->held -= length;
    tcp->moved++;
    rx->was_idle = false;
    return 0;
}

/* Puts whole requests, as many as a turn may. SERVED_DRY: more bytes are needed for the next one. */
static enum served put_whole(struct stage *stage, struct rx *rx, uint32_t place)
{
    struct tcp *tcp = rx->own;
    struct tcp_connection *connection = &tcp->connection[place];
    struct frame frame;

    for (;;) {
        uint32_t available = tcp_available(&tcp->memory.place[place]);
        if (available == 0 || available < connection->needed)
            return SERVED_DRY;
        if (tcp->moved >= stage->config.rx.burst)
            return SERVED_AGAIN;
        const uint8_t *data = tcp_bytes(&tcp->memory, place);
        enum frame_state state = frame_stream(rx->schema, data, available, &frame);
        if (state == FRAME_MORE && frame.length <= tcp->memory.bytes) {
            connection->needed = frame.length;
            return SERVED_DRY;
        }
        if (state == FRAME_MORE) {
            tcp_doom(tcp, place, CONNECTION_oversized, available);
            return SERVED_AGAIN;
        }
        if (state == FRAME_BROKEN && !frame_resyncs(rx->schema)) {
            tcp_doom(tcp, place, CONNECTION_malformed, frame.length);
            return SERVED_AGAIN;
        }
        if (tcp_put(stage, rx, place, &frame, frame.length) == -EAGAIN)
            return SERVED_FULL;
    }
}

/* ---- reading ---- */

/* Also of one that a killed rx has seen end: the socket says the same for ever. */
static enum connection_figure ending_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ||
        info.tcpi_state == STATE_CLOSED)
        return CONNECTION_reset;
    return CONNECTION_ended;
}

/* Nothing will come any more: what is left of a stream that was ended is one malformed request. */
static void doom_ended(struct tcp *tcp, uint32_t place)
{
    enum connection_figure fate = ending_of(tcp->connection[place].fd);
    uint32_t rest = fate == CONNECTION_ended ? tcp_available(&tcp->memory.place[place]) : 0;

    tcp_doom(tcp, place, fate, rest);
}

/* Reads once. SERVED_AGAIN: there may be something to put now, or more to read. */
static enum served read_some(struct stage *stage, struct tcp *tcp, uint32_t place, bool *last)
{
    struct tcp_connection *connection = &tcp->connection[place];
    uint32_t room = tcp_read_begin(&tcp->memory, place);
    int got = recvmmsg(connection->fd, &tcp->memory.journal->message, 1, MSG_DONTWAIT, NULL);

    if (got < 0 && errno == EAGAIN)
        return SERVED_DRY;
    crash_point("tcp:received");
    tcp->moved++; /* also an end: a turn that finds one is not the last */
    if (got < 0) {
        /* The kernel tells an error once; what came before it can be read then. */
        if (connection->failed)
            tcp_doom(tcp, place, CONNECTION_reset, 0);
        connection->failed = true;
        return SERVED_AGAIN;
    }
    uint32_t length = tcp_read_end(&tcp->memory);
    connection->failed = false;
    if (length == 0) {
        doom_ended(tcp, place);
        return SERVED_AGAIN;
    }
    *last = length < room && !connection->to_the_end;
    tcp->held += length;
    stage->figures.bytes += length;
    if (tcp->idle_ticks)
        connection->heard = tsc_read();
    if (tcp->quickack) {
        int on = 1;
        (void)setsockopt(connection->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
    }
    return SERVED_AGAIN;
}

enum served tcp_serve(struct stage *stage, struct rx *rx, uint32_t place)
{
    struct tcp *tcp = rx->own;
    const struct tcp_place *memory = &tcp->memory.place[place];
    bool last = false;

    if (!tcp->connection[place].live)
        return SERVED_DRY;
    for (int reads = 0;; reads++) {
        enum served served = SERVED_DRY;
        if (!load_relaxed(&memory->fate))
            served = put_whole(stage, rx, place);
        if (load_relaxed(&memory->fate))
            return tcp_end(stage, rx, place);
        if (served != SERVED_DRY)
            return served;
        if (reads > 0)
            return last ? SERVED_DRY : SERVED_AGAIN;
        if (read_some(stage, tcp, place, &last) == SERVED_DRY)
            return SERVED_DRY;
    }
}
