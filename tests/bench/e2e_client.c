/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/e2e_client.h"

#include "stage/decimal.h"
#include "tests/bench/e2e_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    REQUEST_BYTES = 23,
    BURST = 32,
    TAKEN_MAX = 64,
    AWAIT_TRIES = 500,
    AWAIT_NS = 10000000,
    LEAD_NS = 1000000,
    LATE_NS = 1000,
    SETTLE_NS = 200000000,
};

/* Fills in the number. */
static void number_request(char request[REQUEST_BYTES], uint64_t number)
{
    decimal_write_8((uint8_t *)request + 1, number);
}

static void make_request(char request[REQUEST_BYTES])
{
    memcpy(request, "|00000000|0008|abcdefgh", REQUEST_BYTES);
}

/* The number of a right reply; -1 where it is none. */
static int64_t parse_reply(const struct client *client, const char *reply, size_t length)
{
    uint64_t number;

    if (length != REQUEST_BYTES || reply[0] != '|' || memcmp(reply + 9, "|0008|", 6) != 0 ||
        memcmp(reply + 15, client->payload, 8) != 0 ||
        !decimal_read_8((const uint8_t *)reply + 1, &number))
        return -1;
    return (int64_t)number;
}

static uint64_t intended(const struct client *client, uint64_t number)
{
    return client->start + (uint64_t)((double)number * client->interval);
}

static void book(struct client *client, const char *reply, size_t length, uint64_t now)
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

static bool take_one(struct client *client)
{
    char reply[64];
    ssize_t got = recv(client->in, reply, sizeof(reply), MSG_DONTWAIT);

    if (got < 0)
        return false;
    book(client, reply, (size_t)got, tsc_read());
    return true;
}

int client_open(struct client *client, const struct bench *bench, const char *payload,
                uint32_t capacity)
{
    *client = (struct client){
        .bench = bench,
        .payload = payload,
        .in = -1,
        .out = -1,
        .capacity = capacity,
        .answered = bench_shared(capacity * sizeof(*client->answered)),
    };
    client->in = e2e_socket_bound(false, &client->port);
    return client->in < 0 ? client->in : 0;
}

int client_connect(struct client *client, uint16_t port)
{
    client->out = e2e_socket_connected(port);
    return client->out < 0 ? client->out : 0;
}

int client_await(struct client *client)
{
    const struct timespec pause = {.tv_nsec = AWAIT_NS};
    char bytes[64];

    for (int i = 0; i < AWAIT_TRIES; i++) {
        make_request(bytes);
        /* Refused as long as nobody listens. */
        bool asked = send(client->out, bytes, REQUEST_BYTES, MSG_NOSIGNAL) >= 0;
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
    char request[REQUEST_BYTES];

    make_request(request);
    client->first = warm;
    client->interval = client->bench->clock.hz / rate;
    client->start = tsc_read() + clock_ticks(&client->bench->clock, LEAD_NS);
    while (client->sent < warm + measured && client->sent < client->capacity) {
        uint64_t due = intended(client, client->sent);
        number_request(request, client->sent);
        while (position_diff(tsc_read(), due) < 0)
            (void)take_one(client);
        if (client->sent >= warm && tsc_read() - due > late_ticks)
            client->late++;
        client->sent++;
        /* One that is not sent (nobody listens) is one that is not answered. */
        (void)send(client->out, request, REQUEST_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)take_one(client);
    }
    client_settle(client);
}

/* ---- as fast as it goes ---- */

struct burst {
    struct mmsghdr message[BURST];
    struct iovec iov[BURST];
    char bytes[BURST][REQUEST_BYTES];
};

struct replies {
    struct mmsghdr message[TAKEN_MAX];
    struct iovec iov[TAKEN_MAX];
    char bytes[TAKEN_MAX][64];
};

static void lay_out(struct burst *burst, struct replies *replies)
{
    for (int i = 0; i < BURST; i++) {
        make_request(burst->bytes[i]);
        burst->iov[i] = (struct iovec){burst->bytes[i], REQUEST_BYTES};
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

    lay_out(&burst, &replies);
    client->interval = 0;
    while (position_diff(tsc_read(), until) < 0 && client->sent + BURST <= client->capacity) {
        for (uint32_t i = 0; i < BURST; i++)
            number_request(burst.bytes[i], client->sent + i);
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
    uint64_t patience = clock_ticks(&client->bench->clock, SETTLE_NS);

    for (uint64_t last = tsc_read(); client->delivered < client->sent;) {
        if (take_one(client))
            last = tsc_read();
        else if (tsc_read() - last > patience)
            break;
    }
}

uint64_t client_drops(const struct client *client)
{
    return e2e_socket_drops(client->in);
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
    if (client->in >= 0)
        close(client->in);
    if (client->out >= 0)
        close(client->out);
}
