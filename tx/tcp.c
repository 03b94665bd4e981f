/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tx.sink = tcp: replies go to tx.to over tx.connections connections; a flow keeps to one of them.
 *
 *   state       to         when
 *   down        connecting its time has come
 *   connecting  up         the handshake is done
 *               down       refused, or no answer: again in 10 ms, twice as long each time, at most 1 s
 *   up          down       reset, closed by the other side, or out of patience
 *
 * While a connection is down its replies wait; a reply of which the kernel had only a part is sent
 * again as a whole on the next one. What the kernel had taken whole counts as transmitted: whether the
 * other side has read it only its acknowledgements could tell (cell_streams.unacknowledged_bytes).
 *
 * A connection keeps its socket for good: connecting to AF_UNSPEC makes it new. So the launcher's copy
 * is always the right one, and in the sandbox no socket needs to be made.
 */
#include "stage/control.h"
#include "tx/address.h"
#include "tx/stream.h"

#include <errno.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OUTGOING_MAX = 64, PROBES = 8, PROBE_BYTES = 4096 };

#define BACK_OFF_MIN_NS UINT64_C(10000000)
#define BACK_OFF_MAX_NS UINT64_C(1000000000)
#define HANDSHAKE_NS    UINT64_C(3000000000)

enum state { DOWN, CONNECTING, UP };
enum news { NEWS_NONE, NEWS_LOST, NEWS_BACK };

struct outgoing {
    int fd;
    enum state state;
    int why;             /* errno of its end; 0: closed by the other side */
    uint64_t at;         /* tsc: when to try again, or to give the attempt up */
    uint64_t back_off;   /* ticks */
    uint64_t down_since; /* tsc */
    bool was_up;
    bool told; /* that it is down */
    enum news news;
};

struct tcp {
    struct streams streams; /* first: tx->own is both */
    struct sockaddr_storage to;
    socklen_t to_length;
    uint32_t count;
    uint32_t probed; /* the next to be looked at */
    uint32_t random;
    struct outgoing outgoing[OUTGOING_MAX];
};

/* ---- a connection's states ---- */

/* Whatever it was: a socket that was never connected. */
static void make_new(const struct outgoing *outgoing)
{
    const struct sockaddr none = {.sa_family = AF_UNSPEC};

    (void)connect(outgoing->fd, &none, sizeof(none));
}

/* Jittered by a quarter either way, so that many do not come back in step. */
static void wait_to_retry(const struct stage *stage, struct tcp *tcp, struct outgoing *outgoing)
{
    uint64_t least = clock_ticks(&stage->clock, BACK_OFF_MIN_NS);
    uint64_t most = clock_ticks(&stage->clock, BACK_OFF_MAX_NS);
    uint64_t wait = outgoing->back_off < least ? least : outgoing->back_off;

    tcp->random = tcp->random * 1664525u + 1013904223u;
    outgoing->state = DOWN;
    outgoing->back_off = 2 * wait > most ? most : 2 * wait;
    outgoing->at = tsc_read() + wait * 3 / 4 + wait / 2 * (tcp->random >> 16) / 65536;
}

static void say_down(struct outgoing *outgoing, int why)
{
    outgoing->why = why;
    if (!outgoing->told)
        outgoing->news = NEWS_LOST;
}

static void lose(struct stage *stage, struct tx *tx, struct stream *stream, int why)
{
    struct tcp *tcp = tx->own;
    struct outgoing *outgoing = &tcp->outgoing[stream->place];
    struct cell_streams *counters = &stage->cells->streams;

    store_release(&tcp->streams.memory.record[stream->place].up, 0u);
    crash_point("stream:down");
    stream_counter_add(&counters->lost, 1);
    stream_counter_add(&counters->unacknowledged_bytes, stream_unacknowledged(outgoing->fd));
    make_new(outgoing);
    stream->fd = -1;
    stream->offset = 0;
    stream->retry_ticks = 0;
    outgoing->down_since = tsc_read();
    outgoing->back_off = 0;
    wait_to_retry(stage, tcp, outgoing);
    say_down(outgoing, why);
}

static void refuse(struct stage *stage, struct tcp *tcp, struct outgoing *outgoing, int why)
{
    stream_counter_add(&stage->cells->streams.refused, 1);
    make_new(outgoing);
    wait_to_retry(stage, tcp, outgoing);
    say_down(outgoing, why);
}

/* With nobody there, a port of the range for outgoing connections may be given to the attempt itself, which
 * then meets itself (a simultaneous open). */
static bool met_itself(int fd)
{
    struct sockaddr_storage ours = {0};
    struct sockaddr_storage theirs = {0};
    socklen_t length = sizeof(ours);
    socklen_t their_length = sizeof(theirs);

    return getsockname(fd, (struct sockaddr *)&ours, &length) == 0 &&
           getpeername(fd, (struct sockaddr *)&theirs, &their_length) == 0 &&
           length == their_length && memcmp(&ours, &theirs, length) == 0;
}

static int become_up(struct stage *stage, struct tx *tx, uint32_t place)
{
    struct tcp *tcp = tx->own;
    struct outgoing *outgoing = &tcp->outgoing[place];
    struct stream *stream = &tcp->streams.stream[place];
    struct stream_record *record = &tcp->streams.memory.record[place];
    uint64_t base;

    int err = stream_kernel_bytes(outgoing->fd, &base);
    if (err < 0)
        return err;
    store_relaxed(&record->base, base);
    stream_begin(tx, stream, stream->number + 1);
    crash_point("stream:begun");
    store_release(&record->up, 1u);
    crash_point("stream:up");
    if (outgoing->was_up)
        stream_counter_add(&stage->cells->streams.back, 1);
    outgoing->news = outgoing->told ? NEWS_BACK : NEWS_NONE;
    outgoing->was_up = true;
    outgoing->state = UP;
    outgoing->back_off = 0;
    stream->fd = outgoing->fd;
    stream->since = tsc_read();
    return 0;
}

static int tcp_state(int fd)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof(info);

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ? -errno : info.tcpi_state;
}

static int reason_of(int fd, int state)
{
    int err = 0;
    socklen_t length = sizeof(err);

    (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &length);
    return err || state == TCP_CLOSE_WAIT ? err : ETIMEDOUT;
}

/* How far an attempt has come. */
static void follow(struct stage *stage, struct tx *tx, uint32_t place)
{
    struct tcp *tcp = tx->own;
    struct outgoing *outgoing = &tcp->outgoing[place];
    int state = tcp_state(outgoing->fd);

    if (state == TCP_ESTABLISHED) {
        int err = met_itself(outgoing->fd) ? -ECONNREFUSED : become_up(stage, tx, place);
        if (err < 0)
            refuse(stage, tcp, outgoing, -err);
    } else if (state != TCP_SYN_SENT || position_diff(tsc_read(), outgoing->at) >= 0) {
        refuse(stage, tcp, outgoing, reason_of(outgoing->fd, state));
    }
}

static void attempt(struct stage *stage, struct tx *tx, uint32_t place)
{
    struct tcp *tcp = tx->own;
    struct outgoing *outgoing = &tcp->outgoing[place];
    int result = connect(outgoing->fd, (struct sockaddr *)&tcp->to, tcp->to_length);

    crash_point("stream:connecting");
    if (result < 0 && errno != EINPROGRESS && errno != EALREADY && errno != EISCONN) {
        refuse(stage, tcp, outgoing, errno);
        return;
    }
    outgoing->state = CONNECTING;
    outgoing->at = tsc_read() + clock_ticks(&stage->clock, HANDSHAKE_NS);
    follow(stage, tx, place);
}

/* ---- as struct stream_kind has them ---- */

static struct stream *tcp_choose(struct stage *stage, struct tx *tx, const struct ring_slot *slot)
{
    struct tcp *tcp = tx->own;

    (void)stage;
    return &tcp->streams.stream[tcp->count == 1 ? 0 : slot->flow % tcp->count];
}

static void tcp_failed(struct stage *stage, struct tx *tx, struct stream *stream, int err)
{
    if (stream->fd >= 0)
        lose(stage, tx, stream, err ? -err : ETIMEDOUT);
    if (!err)
        stream_drop(stage, tx, stream, CELL_UNDELIVERED_PATIENCE);
}

static const struct stream_kind kind = {.choose = tcp_choose, .failed = tcp_failed};

/* ---- open ---- */

static int open_socket(struct stage *stage, struct tcp *tcp, uint32_t place)
{
    char name[CONTROL_NAME_MAX];

    snprintf(name, sizeof(name), "tx.connection.%u", place);
    int fd = stage_descriptor(stage, name);
    if (fd >= 0)
        return fd;
    fd = socket(tcp->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return stage_error(stage, -errno, "socket: %s", strerror(errno));
    stream_options(&stage->config, fd);
    int err = stage_deposit(stage, name, fd);
    return err < 0 ? stage_error(stage, err, "cannot leave a socket with the launcher") : fd;
}

/* A predecessor's that was up goes on where it was; what has befallen it since is found by using it. */
static int resume(struct stage *stage, struct tx *tx, uint32_t place)
{
    struct tcp *tcp = tx->own;
    struct outgoing *outgoing = &tcp->outgoing[place];
    struct stream *stream = &tcp->streams.stream[place];
    uint64_t base = load_relaxed(&tcp->streams.memory.record[place].base);
    uint64_t bytes;

    int err = stream_kernel_bytes(outgoing->fd, &bytes);
    if (err < 0)
        return stage_error(stage, err, "connection %u: %s", place, strerror(-err));
    stream_settle(stage, tx, stream, bytes - base);
    outgoing->state = UP;
    outgoing->was_up = true;
    stream->fd = outgoing->fd;
    return 0;
}

/* A predecessor's may be anything between the connection it has lost and the next, of which no byte is
 * written. */
static void start(struct stage *stage, struct tx *tx, uint32_t place)
{
    const struct tcp *tcp = tx->own;

    make_new(&tcp->outgoing[place]);
    attempt(stage, tx, place);
}

static int tcp_open(struct stage *stage, struct tx *tx)
{
    struct tcp *tcp = calloc(1, sizeof(*tcp));
    int err;

    if (!tcp)
        return -ENOMEM;
    tx->own = tcp;
    tcp->count = stage->config.tx.connections;
    tcp->random = (uint32_t)stage->born;
    err = address_of_to(stage, &tcp->to, &tcp->to_length);
    if (err == 0)
        err = streams_open(stage, tx, &kind, tcp->count, stage_descriptor(stage, "tx.streams"));
    for (uint32_t i = 0; err == 0 && i < tcp->count; i++) {
        struct outgoing *outgoing = &tcp->outgoing[i];
        outgoing->fd = open_socket(stage, tcp, i);
        outgoing->down_since = stage->born;
        outgoing->was_up = tcp->streams.stream[i].number != 0;
        if (outgoing->fd < 0)
            err = outgoing->fd;
        else if (load_acquire(&tcp->streams.memory.record[i].up))
            err = resume(stage, tx, i);
        else
            start(stage, tx, i);
    }
    return err;
}

/* ---- tick ---- */

static void tell(struct stage *stage, struct tcp *tcp, uint32_t place, uint64_t now)
{
    struct outgoing *outgoing = &tcp->outgoing[place];
    const struct config_endpoint *to = &stage->config.tx.to;
    double gone_s = (double)(now - outgoing->down_since) / stage->clock.hz;

    if (outgoing->news == NEWS_LOST)
        stage_tell(stage,
                   "tx.to = %s:%u: connection %u %s: %s; its replies wait, it is tried again",
                   to->address, to->port, place, outgoing->was_up ? "is lost" : "cannot be made",
                   outgoing->why ? strerror(outgoing->why) : "closed by the other side");
    else
        stage_tell(stage, "tx.to = %s:%u: connection %u is %s after %.3f s", to->address, to->port,
                   place, load_relaxed(&stage->cells->streams.back) ? "back" : "up", gone_s);
    outgoing->told = outgoing->news == NEWS_LOST;
    outgoing->news = NEWS_NONE;
}

/* The other side has nothing to say: what comes is thrown away, and an end of it is the connection's. */
static void probe(struct stage *stage, struct tx *tx, struct stream *stream)
{
    char bytes[PROBE_BYTES];
    ssize_t got = recv(stream->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (got > 0)
        stream_counter_add(&stage->cells->streams.discarded_bytes, (uint64_t)got);
    else if (got == 0)
        lose(stage, tx, stream, 0);
    else if (errno != EAGAIN && errno != EINTR)
        lose(stage, tx, stream, errno);
}

static void tcp_tick(struct stage *stage, struct tx *tx, uint64_t now)
{
    struct tcp *tcp = tx->own;

    streams_tick(stage, tx, now);
    for (uint32_t i = 0; i < tcp->count; i++) {
        struct outgoing *outgoing = &tcp->outgoing[i];
        if (outgoing->state == CONNECTING)
            follow(stage, tx, i);
        else if (outgoing->state == DOWN && position_diff(now, outgoing->at) >= 0)
            attempt(stage, tx, i);
        if (outgoing->news)
            tell(stage, tcp, i, now);
    }
    for (uint32_t n = 0; n < PROBES && n < tcp->count; n++) {
        uint32_t place = tcp->probed++ % tcp->count;
        if (tcp->outgoing[place].state == UP)
            probe(stage, tx, &tcp->streams.stream[place]);
    }
}

/* The launcher has copies of the sockets: without this the other side would see no end. */
static void tcp_close(struct stage *stage, struct tx *tx)
{
    const struct tcp *tcp = tx->own;

    (void)stage;
    for (uint32_t i = 0; i < tcp->count; i++)
        (void)shutdown(tcp->outgoing[i].fd, SHUT_WR);
}

const struct tx_sink tx_tcp = {
    .open = tcp_open,
    .poll = streams_poll,
    .tick = tcp_tick,
    .idle = streams_idle,
    .nap = streams_nap,
    .close = tcp_close,
};
