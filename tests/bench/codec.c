/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker does with the bytes: parse and serialise per schema, and the handlers, 8 and 64 bytes
 * of payload. */
#include "tests/bench/bench.h"
#include "worker/host.h"
#include "worker/load.h"
#include "worker/schema.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 256, BYTES = 256, BATCHES = 4000 };

struct shape {
    enum config_schema schema;
    const char *handler; /* NULL: the codec alone */
    uint32_t payload;
    bool serialise;
};

struct requests {
    uint8_t bytes[REQUESTS][BYTES];
    uint32_t length[REQUESTS];
    uint8_t reply[REQUESTS][BYTES];
};

/* Letters and digits, another request each; the schema's own serialiser writes the rest. */
static void write_requests(const struct shape *shape, const struct schema *schema,
                           struct requests *requests)
{
    for (uint32_t i = 0; i < REQUESTS; i++) {
        uint8_t *payload = requests->bytes[i] + schema->header_bytes;
        for (uint32_t k = 0; k < shape->payload; k++)
            payload[k] = (uint8_t)('a' + (i + k) % 26);
        if (shape->handler && strcmp(shape->handler, "fizzbuzz") == 0)
            snprintf((char *)payload, BYTES - schema->header_bytes, "%0*u", (int)shape->payload, i);
        /* A field of FIX ends with SOH, a message of IEX begins with its type. */
        if (shape->schema == SCHEMA_FIX)
            payload[shape->payload - 1] = 1;
        if (shape->schema == SCHEMA_IEX)
            payload[0] = 'z';
        requests->length[i] = (uint32_t)schema->serialise(
            requests->bytes[i], BYTES, &(struct message){.id = i + 1}, shape->payload);
    }
}

/* One pass over all requests; a number that depends on all results. */
static uint64_t pass(const struct shape *shape, const struct schema *schema, struct host *host,
                     struct requests *requests)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < REQUESTS; i++) {
        const uint8_t *payload = requests->bytes[i] + schema->header_bytes;
        struct message message = {0};
        if (host->handler) {
            const struct tickline_request request = {.payload = payload, .length = shape->payload};
            sum += (uint64_t)host->handler->handle(&host->context, &request, requests->reply[i],
                                                   BYTES);
        } else if (shape->serialise) {
            schema->serialise(requests->reply[i], sizeof(requests->reply[i]),
                              &(struct message){.id = i}, shape->payload);
            sum += requests->reply[i][0];
        } else {
            sum += (uint64_t)schema->parse(requests->bytes[i], requests->length[i], &message);
            sum += message.id;
        }
    }
    return sum;
}

static int run_codec(const struct bench *bench, const void *parameter, struct bench_result *result)
{
    const struct shape *shape = parameter;
    const struct schema *schema = schema_of(shape->schema);
    const struct tickline_handler *handler = shape->handler ? handler_find(shape->handler) : NULL;
    struct requests *requests = bench_memory(sizeof(*requests));
    uint32_t batches = bench->quick ? BATCHES / 4 : BATCHES;
    uint32_t *samples = bench_memory(batches * sizeof(*samples));
    static struct config config;
    static struct host host;
    char error[CONFIG_ERROR_MAX];
    uint64_t sum = 0;

    if (shape->handler && !handler)
        return bench_fail(result, -ENOENT, "no such handler");
    if (config_parse(&config, "", 0, "bench", error) < 0)
        return bench_fail(result, -EINVAL, "%s", error);
    host_prepare(&host, handler, &config);
    if (handler && host_init(&host) < 0)
        return bench_fail(result, host_blame(&host, error), "%s", error);
    write_requests(shape, schema, requests);
    for (uint32_t i = 0; i < batches; i++) {
        uint64_t began = tsc_read();
        sum += pass(shape, schema, &host, requests);
        samples[i] = bench_ticks32(tsc_read() - began);
    }
    __asm__ volatile("" ::"r"(sum));
    bench_spread(bench, result, samples, batches, REQUESTS);
    result->n = (uint64_t)batches * REQUESTS;
    result->items_per_second = 1e9 / result->ns;
    return 0;
}

#define CODEC(form, bytes, back)                                                                   \
    &(const struct shape)                                                                          \
    {                                                                                              \
        .schema = (form), .payload = (bytes), .serialise = (back)                                  \
    }
#define HANDLER(name, bytes)                                                                       \
    &(const struct shape)                                                                          \
    {                                                                                              \
        .schema = SCHEMA_V2, .handler = (name), .payload = (bytes)                                 \
    }

static const struct bench_case cases[] = {
    {"codec/v1/parse", run_codec, CODEC(SCHEMA_V1, 8, false)},
    {"codec/v1/serialise", run_codec, CODEC(SCHEMA_V1, 8, true)},
    {"codec/v2/parse", run_codec, CODEC(SCHEMA_V2, 8, false)},
    {"codec/v2/serialise", run_codec, CODEC(SCHEMA_V2, 8, true)},
    {"codec/v3/parse", run_codec, CODEC(SCHEMA_V3, 8, false)},
    {"codec/v3/serialise", run_codec, CODEC(SCHEMA_V3, 8, true)},
    {"codec/v4/parse", run_codec, CODEC(SCHEMA_V4, 8, false)},
    {"codec/v4/serialise", run_codec, CODEC(SCHEMA_V4, 8, true)},
    {"codec/fix/parse", run_codec, CODEC(SCHEMA_FIX, 100, false)},
    {"codec/fix/serialise", run_codec, CODEC(SCHEMA_FIX, 100, true)},
    {"codec/iex/parse", run_codec, CODEC(SCHEMA_IEX, 30, false)},
    {"codec/iex/serialise", run_codec, CODEC(SCHEMA_IEX, 30, true)},
    {"codec/datagram/parse", run_codec, CODEC(SCHEMA_DATAGRAM, 8, false)},
    {"codec/datagram/serialise", run_codec, CODEC(SCHEMA_DATAGRAM, 8, true)},
    {"handler/rot1/8", run_codec, HANDLER("rot1", 8)},
    {"handler/rot1/64", run_codec, HANDLER("rot1", 64)},
    {"handler/fizzbuzz/8", run_codec, HANDLER("fizzbuzz", 8)},
};

int main(int argc, char **argv)
{
    return bench_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
