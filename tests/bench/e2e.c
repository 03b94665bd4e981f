/* SPDX-License-Identifier: Apache-2.0 */
/*
 * End to end: requests over UDP or TCP on loopback through a system and back, at fixed open-loop rates,
 * and UDP as fast as it goes. The client spins on the first CPU of the pair, the system has the second
 * one.
 * A latency counts from the time a request was meant to be sent.
 */
#include "tests/bench/bench.h"
#include "tests/bench/e2e_client.h"
#include "tests/bench/e2e_loopback.h"
#include "tests/bench/e2e_system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define WARM_S  0.3
#define TOP_MAX 4000000

enum { TOP_RATE = 20000, TOP_NS = 500000000 };

struct shape {
    const struct system_kind *kind;
    double rate; /* requests a second; 0: as many as go */
};

/* Datagrams that loopback itself lost, because its queue before the sockets was full. */
static uint64_t wire_drops(void)
{
    unsigned long long drops = 0;
    FILE *in = fopen("/sys/class/net/lo/statistics/rx_dropped", "r");

    if (in) {
        if (fscanf(in, "%llu", &drops) != 1)
            drops = 0;
        fclose(in);
    }
    return drops;
}

/* Every request is somewhere: each line of it, and the two ways over the wire together. */
static int check_account(const struct client *client, const struct system_account *account,
                         uint64_t wire, struct bench_result *result)
{
    uint64_t there = account->received + account->socket_drops;
    uint64_t back = client->delivered + client_drops(client);

    if (client->corrupted)
        return bench_fail(result, -EIO, "%llu wrong replies",
                          (unsigned long long)client->corrupted);
    if (client->way != CLIENT_UDP && client->delivered != client->sent)
        return bench_fail(result, -EIO, "sent %llu, %llu came back",
                          (unsigned long long)client->sent, (unsigned long long)client->delivered);
    if (!account->known)
        return 0;
    if (account->received != account->dropped + account->transmitted)
        return bench_fail(result, -EIO, "received %llu, but dropped %llu + transmitted %llu",
                          (unsigned long long)account->received,
                          (unsigned long long)account->dropped,
                          (unsigned long long)account->transmitted);
    if (there > client->sent || back > account->transmitted ||
        client->sent - there + account->transmitted - back != wire)
        return bench_fail(result, -EIO,
                          "sent %llu, arrived %llu; transmitted %llu, arrived %llu; lost on the "
                          "wire %llu",
                          (unsigned long long)client->sent, (unsigned long long)there,
                          (unsigned long long)account->transmitted, (unsigned long long)back,
                          (unsigned long long)wire);
    return 0;
}

static int measure_rate(struct client *client, double rate, struct bench_result *result)
{
    double seconds = client->bench->quick ? 0.5 : 3;
    uint32_t measured = (uint32_t)(rate * seconds);

    client_run(client, rate, (uint32_t)(rate * WARM_S), measured);
    bench_extra(result, "late", (double)client->late / measured);
    bench_extra(result, "lost", (double)(client->sent - client->delivered));
    return 0;
}

/* Its stages find their places at a rate they can follow. */
static int measure_top(struct client *client, struct bench_result *result)
{
    uint64_t ticks;

    client_run(client, TOP_RATE, (uint32_t)(TOP_RATE * WARM_S), 0);
    uint64_t delivered = client_top(client, TOP_NS, &ticks);
    if (delivered == 0)
        return bench_fail(result, -EIO, "no reply");
    bench_rate(client->bench, result, delivered, ticks);
    bench_extra(result, "sent", (double)client->sent);
    bench_extra(result, "client_drops", (double)client_drops(client));
    return 0;
}

static void tell(const struct system_account *account, uint64_t wire, struct bench_result *result)
{
    if (!account->known)
        return;
    bench_extra(result, "received", (double)account->received);
    bench_extra(result, "transmitted", (double)account->transmitted);
    bench_extra(result, "dropped_socket", (double)account->socket_drops);
    bench_extra(result, "dropped_inside", (double)account->dropped);
    bench_extra(result, "dropped_wire", (double)wire);
    if (account->work_ns > 0)
        bench_extra(result, "own_work", account->work_ns);
    else
        bench_extra(result, "rotation_mended", (double)account->rotation_mended);
    if (account->rotation_wrong)
        (void)bench_fail(result, 0, "the stages' turns were in the wrong order at the end");
}

static int measure(struct client *client, struct system *system, const struct shape *shape,
                   struct bench_result *result)
{
    uint64_t wire = wire_drops();

    int err = client_connect(client, system->port);
    if (err < 0)
        return bench_fail(result, err, "cannot be connected: %s", strerror(-err));
    if (shape->kind->awaited && client_await(client) < 0)
        return bench_fail(result, -ETIMEDOUT, "no answer in 5 s");
    err = shape->rate > 0 ? measure_rate(client, shape->rate, result) : measure_top(client, result);
    if (err == 0)
        err = system_finish(system, result);
    if (err < 0)
        return err;
    wire = wire_drops() - wire;
    tell(&system->account, wire, result);
    err = check_account(client, &system->account, wire, result);
    if (err < 0 || shape->rate == 0)
        return err;
    uint64_t count = client_latencies(client);
    if (count == 0)
        return bench_fail(result, -EIO, "no reply");
    bench_spread(client->bench, result, client->answered, count, 1);
    return 0;
}

static int run_system(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    const struct shape *shape = parameter;
    struct client client;
    struct system system;

    uint32_t capacity = shape->rate > 0 ? (uint32_t)(shape->rate * 4) : TOP_MAX;
    int err = client_open(&client, bench, shape->kind->way, shape->kind->reply, capacity);
    if (err < 0)
        return bench_fail(result, err, "the client's socket: %s", strerror(-err));
    err = system_start(&system, bench, shape->kind, client.port, result);
    if (err == 0)
        err = measure(&client, &system, shape, result);
    system_close(&system);
    client_close(&client);
    return err;
}

#define SHAPE(which, per_second)                                                                   \
    &(const struct shape)                                                                          \
    {                                                                                              \
        .kind = &(which), .rate = (per_second)                                                     \
    }

static const struct bench_case cases[] = {
    {"limit/loopback", loopback_one, NULL},
    {"limit/loopback/two", loopback_two, NULL},
    {"limit/forwarder/5000", run_system, SHAPE(system_forwarder, 5000)},
    {"e2e/udp/5000", run_system, SHAPE(system_pipeline, 5000)},
    {"peer/nginx/e2e/udp/5000", run_system, SHAPE(system_nginx, 5000)},
    {"peer/socat/e2e/udp/5000", run_system, SHAPE(system_socat, 5000)},
    {"limit/forwarder/20000", run_system, SHAPE(system_forwarder, 20000)},
    {"e2e/udp/20000", run_system, SHAPE(system_pipeline, 20000)},
    {"peer/nginx/e2e/udp/20000", run_system, SHAPE(system_nginx, 20000)},
    {"peer/socat/e2e/udp/20000", run_system, SHAPE(system_socat, 20000)},
    {"limit/forwarder/top", run_system, SHAPE(system_forwarder, 0)},
    {"e2e/udp/top", run_system, SHAPE(system_pipeline, 0)},
    {"limit/relay/5000", run_system, SHAPE(system_relay, 5000)},
    {"e2e/tcp/5000", run_system, SHAPE(system_gateway, 5000)},
    {"peer/haproxy-busy/e2e/tcp/5000", run_system, SHAPE(system_haproxy_busy, 5000)},
    {"peer/haproxy/e2e/tcp/5000", run_system, SHAPE(system_haproxy, 5000)},
    {"peer/nginx/e2e/tcp/5000", run_system, SHAPE(system_nginx_tcp, 5000)},
    {"limit/relay/20000", run_system, SHAPE(system_relay, 20000)},
    {"e2e/tcp/20000", run_system, SHAPE(system_gateway, 20000)},
    {"peer/haproxy-busy/e2e/tcp/20000", run_system, SHAPE(system_haproxy_busy, 20000)},
    {"peer/haproxy/e2e/tcp/20000", run_system, SHAPE(system_haproxy, 20000)},
    {"peer/nginx/e2e/tcp/20000", run_system, SHAPE(system_nginx_tcp, 20000)},
    {"limit/echo/5000", run_system, SHAPE(system_echo, 5000)},
    {"e2e/tcp/reply/5000", run_system, SHAPE(system_answering, 5000)},
    {"limit/echo/20000", run_system, SHAPE(system_echo, 20000)},
    {"e2e/tcp/reply/20000", run_system, SHAPE(system_answering, 20000)},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
