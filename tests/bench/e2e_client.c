/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/e2e_client.h"

#include "stage/decimal.h"
#include "tests/bench/e2e_socket.h"
#include "tests/bench/e2e_stream.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    UDP_HEADER = 15,
    UDP_BYTES = 23,
    UDP_NUMBER_END = 9,
    TCP_HEADER = 12,
    WORD_BYTES = 8, /* of the payload that repeats */
    CONNECT_MS = 5000,
    BURST = 32,
    TAKEN_MAX = 64,
    AWAIT_TRIES = 500,
    AWAIT_NS = 10000000,
    LEAD_NS = 1000000,
    LATE_NS = 1000,
    SETTLE_NS = 200000000,
    STREAM_SETTLE_MS = 5000, /* nothing is lost on the way: what is late still comes */
};

/* Fills in the number. */
static void number_request(const struct client *client, uint8_t *request, uint64_t number)
{
    if (client->way == CLIENT_UDP) {
        decimal_write_8(request + 1, number);
    } else {
        number = htobe64(number);
        memcpy(request, &number, sizeof(number));
    }
}

static void make_message(const struct client *client, const char *payload,
                         uint8_t request[E2E_REQUEST_MAX])
{
    const uint32_t length = htobe32(client->bytes - client->header);

    if (client->way == CLIENT_UDP)
        memcpy(request, "|00000000|0008|", UDP_HEADER);
    else
        memcpy(request + sizeof(uint64_t), &length, sizeof(length));
    for (uint32_t i = client->header; i < client->bytes; i++)
        request[i] = (uint8_t)payload[(i - client->header) % WORD_BYTES];
}

static void make_request(const struct client *client, uint8_t request[E2E_REQUEST_MAX])
{
    make_message(client, "abcdefgh", request);
}

/* The number of a right reply; -1 where it is none. */
static int64_t parse_reply(const struct client *client, const uint8_t *reply, size_t length)
{
    uint32_t fixed = client->way == CLIENT_UDP ? UDP_NUMBER_END : sizeof(uint64_t);
    uint64_t number;

    if (length != client->bytes ||
        memcmp(reply + fixed, client->right + fixed, client->bytes - fixed) != 0)
        return -1;
    if (client->way == CLIENT_UDP)
        return reply[0] == '|' && decimal_read_8(reply + 1, &number) ? (int64_t)number : -1;
    memcpy(&number, reply, sizeof(number));
    return (int64_t)be64toh(number);
}

static uint64_t intended(const struct client *client, uint64_t number)
{
    return client->start + (uint64_t)((double)number * client->interval);
}

static void book(struct client *client, const uint8_t *reply, size_t length, uint64_t now)
{
    int64_t number = parse_reply(client, reply, length);

    if (number < 0 || (uint64_t)number >= client->sent || client->answered[number]) {
        client->corrupted++;
        return;
    }
    client->delivered++;
    client->answered[number] =
        client->interval > 0 ? bench_ticks32(now - intended(client, (uint64_t)number)) : 1;
}

static bool take_datagram(struct client *client)
{
    uint8_t reply[E2E_REQUEST_MAX];
    ssize_t got = recv(client->in, reply, sizeof(reply), MSG_DONTWAIT);

    if (got < 0)
        return false;
    book(client, reply, (size_t)got, tsc_read());
    return true;
}

static bool take_stream(struct client *client)
{
    ssize_t got = recv(client->in, client->part + client->held, sizeof(client->part) - client->held,
                       MSG_DONTWAIT);
    if (got <= 0)
        return false;
    uint64_t now = tsc_read();
    uint32_t taken = 0;
    client->held += (uint32_t)got;
    for (; client->held - taken >= client->bytes; taken += client->bytes)
        book(client, client->part + taken, client->bytes, now);
    client->held -= taken;
    memmove(client->part, client->part + taken, client->held);
    return true;
}

static bool take_some(struct client *client)
{
    return client->way == CLIENT_UDP ? take_datagram(client) : take_stream(client);
}

int client_open(struct client *client, const struct bench *bench, enum client_way way,
                const char *payload, uint32_t capacity)
{
    int fd = 0;

    *client = (struct client){
        .bench = bench,
        .way = way,
        .bytes = way == CLIENT_UDP ? UDP_BYTES : E2E_STREAM_BYTES,
        .header = way == CLIENT_UDP ? UDP_HEADER : TCP_HEADER,
        .listener = -1,
        .in = -1,
        .out = -1,
        .capacity = capacity,
        .answered = bench_shared(capacity * sizeof(*client->answered)),
    };
    make_message(client, payload, client->right);
    if (way == CLIENT_UDP)
        fd = client->in = e2e_socket_bound(false, &client->port);
    else if (way == CLIENT_TCP)
        fd = client->listener = e2e_stream_listening(&client->port);
    return fd < 0 ? fd : 0;
}

int client_connect(struct client *client, uint16_t port)
{
    client->out = client->way == CLIENT_UDP ? e2e_socket_connected(port)
                                            : e2e_stream_connected(port, CONNECT_MS);
    if (client->out < 0)
        return client->out;
    if (client->way == CLIENT_TCP)
        client->in = e2e_stream_accepted(client->listener, CONNECT_MS);
    else if (client->way == CLIENT_TCP_REPLY)
        client->in = client->out;
    return client->in < 0 ? client->in : 0;
}

int client_await(struct client *client)
{
    const struct timespec pause = {.tv_nsec = AWAIT_NS};
    uint8_t bytes[E2E_REQUEST_MAX];

    for (int i = 0; i < AWAIT_TRIES; i++) {
        make_request(client, bytes);
        /* Refused as long as nobody listens. */
        bool asked = send(client->out, bytes, client->bytes, MSG_NOSIGNAL) >= 0;
        nanosleep(&pause, NULL);
        if (asked && recv(client->in, bytes, sizeof(bytes), MSG_DONTWAIT) >= 0)
            break;
        if (i == AWAIT_TRIES - 1)
            return -ETIMEDOUT;
    }
    /* Answers to the tries before it, if they were only slow. */
    nanosleep(&pause, NULL);
    while (recv(client->in, bytes, sizeof(bytes), MSG_DONTWAIT) >= 0) {
    }
    return 0;
}

void client_run(struct client *client, double rate, uint32_t warm, uint32_t measured)
{
    uint64_t late_ticks = clock_ticks(&client->bench->clock, LATE_NS);
    uint8_t request[E2E_REQUEST_MAX];

    make_request(client, request);
    client->first = warm;
    client->interval = client->bench->clock.hz / rate;
    client->start = tsc_read() + clock_ticks(&client->bench->clock, LEAD_NS);
    while (client->sent < warm + measured && client->sent < client->capacity) {
        uint64_t due = intended(client, client->sent);
        number_request(client, request, client->sent);
        while (position_diff(tsc_read(), due) < 0)
            (void)take_some(client);
        if (client->sent >= warm && tsc_read() - due > late_ticks)
            client->late++;
        client->sent++;
        /* One that is not sent (nobody listens) is one that is not answered. */
        if (client->way == CLIENT_UDP)
            (void)send(client->out, request, client->bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        else if (!e2e_stream_send(client->out, request, client->bytes))
            break;
        (void)take_some(client);
    }
    client_settle(client);
}

/* ---- as fast as it goes ---- */

struct burst {
    struct mmsghdr message[BURST];
    struct iovec iov[BURST];
    uint8_t bytes[BURST][UDP_BYTES];
};

struct replies {
    struct mmsghdr message[TAKEN_MAX];
    struct iovec iov[TAKEN_MAX];
    uint8_t bytes[TAKEN_MAX][E2E_REQUEST_MAX];
};

static void lay_out(const struct client *client, struct burst *burst, struct replies *replies)
{
    for (int i = 0; i < BURST; i++) {
        make_request(client, burst->bytes[i]);
        burst->iov[i] = (struct iovec){burst->bytes[i], UDP_BYTES};
        burst->message[i].msg_hdr = (struct msghdr){.msg_iov = &burst->iov[i], .msg_iovlen = 1};
    }
    for (int i = 0; i < TAKEN_MAX; i++) {
        replies->iov[i] = (struct iovec){replies->bytes[i], sizeof(replies->bytes[i])};
        replies->message[i].msg_hdr = (struct msghdr){.msg_iov = &replies->iov[i], .msg_iovlen = 1};
    }
}

static int take_many(struct client *client, struct replies *replies)
{
    int got = recvmmsg(client->in, replies->message, TAKEN_MAX, MSG_DONTWAIT, NULL);

    for (int i = 0; i < got; i++)
        book(client, replies->bytes[i], replies->message[i].msg_len, 0);
    return got;
}

uint64_t client_top(struct client *client, uint64_t ns, uint64_t *ticks)
{
    static struct burst burst;
    static struct replies replies;
    uint64_t began = tsc_read();
    uint64_t until = began + clock_ticks(&client->bench->clock, ns);
    uint64_t delivered = client->delivered;

    lay_out(client, &burst, &replies);
    client->interval = 0;
    while (position_diff(tsc_read(), until) < 0 && client->sent + BURST <= client->capacity) {
        for (uint32_t i = 0; i < BURST; i++)
            number_request(client, burst.bytes[i], client->sent + i);
        int sent = sendmmsg(client->out, burst.message, BURST, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0)
            client->sent += (uint64_t)sent;
        (void)take_many(client, &replies);
    }
    /* What waits for us has come in time. */
    while (take_many(client, &replies) == TAKEN_MAX) {
    }
    *ticks = tsc_read() - began;
    delivered = client->delivered - delivered;
    client_settle(client);
    return delivered;
}

/* ---- the end ---- */

void client_settle(struct client *client)
{
    uint64_t patience_ns =
        client->way == CLIENT_UDP ? SETTLE_NS : STREAM_SETTLE_MS * UINT64_C(1000000);
    uint64_t patience = clock_ticks(&client->bench->clock, patience_ns);

    for (uint64_t last = tsc_read(); client->delivered < client->sent;) {
        if (take_some(client))
            last = tsc_read();
        else if (tsc_read() - last > patience)
            break;
    }
}

uint64_t client_drops(const struct client *client)
{
    return client->way == CLIENT_UDP ? e2e_socket_drops(client->in) : 0;
}

uint64_t client_latencies(struct client *client)
{
    uint64_t count = 0;

    for (uint64_t i = client->first; i < client->sent; i++) {
        if (client->answered[i])
            client->answered[count++] = client->answered[i];
    }
    return count;
}

void client_close(struct client *client)
{
    if (client->listener >= 0)
        close(client->listener);
    if (client->in >= 0 && client->in != client->out)
        close(client->in);
    if (client->out >= 0)
        close(client->out);
}
