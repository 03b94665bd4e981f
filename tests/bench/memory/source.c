/* SPDX-License-Identifier: Apache-2.0 */
/* rx's sockets and receiver, in memory: a table of requests, handed out again and again. */
#include "rx/socket.h"
#include "stage/io.h"
#include "tests/bench/memory/memory.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TABLE = 1024 };

struct receiver {
    uint32_t burst;
    uint64_t next;
    uint64_t due;
    struct received *batch;
    uint8_t request[TABLE][MEMORY_REQUEST_BYTES];
    uint32_t length[TABLE];
};

static const struct stage *owner;
static struct memory *memory;
static enum config_schema schema;

int sockets_open(struct stage *stage, int sockets[SOCKETS_MAX])
{
    owner = stage;
    memory = memory_attach(stage);
    schema = stage->config.pipeline.schema;
    sockets[0] = -1;
    return memory ? 1 : stage_error(stage, -ENOENT, "the benchmark gave no memory");
}

static uint32_t write_request(uint8_t *out, uint32_t number)
{
    static const uint8_t payload[8] = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'};
    uint64_t id = htobe64(number);
    uint32_t length = htobe32(8);

    switch (schema) {
    case SCHEMA_V1:
        return (uint32_t)snprintf((char *)out, MEMORY_REQUEST_BYTES, "|%08u|0008|abcdefgh", number);
    case SCHEMA_V2:
        memcpy(out, &id, sizeof(id));
        memcpy(out + 8, &length, sizeof(length));
        memcpy(out + 12, payload, sizeof(payload));
        return 20;
    case SCHEMA_DATAGRAM:
    default:
        memcpy(out, payload, sizeof(payload));
        return 8;
    }
}

int receiver_open(struct receiver **result, const struct receiver_plan *plan)
{
    struct receiver *receiver = calloc(1, sizeof(*receiver));

    if (!receiver)
        return -ENOMEM;
    receiver->burst = plan->burst;
    receiver->batch = calloc(plan->burst, sizeof(*receiver->batch));
    if (!receiver->batch) {
        free(receiver);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < TABLE; i++)
        receiver->length[i] = write_request(receiver->request[i], i + 1);
    *result = receiver;
    return 0;
}

/* How many are due by now, at most a burst. */
static uint32_t due(struct receiver *receiver, uint64_t now)
{
    uint32_t count = 0;

    if (!memory->gap_ticks)
        return receiver->burst;
    if (!receiver->due)
        receiver->due = now;
    while (count < receiver->burst && position_diff(now, receiver->due) >= 0) {
        receiver->due += memory->gap_ticks;
        count++;
    }
    return count;
}

int receiver_poll(struct receiver *receiver, uint64_t tag, struct received **batch)
{
    uint64_t now = tsc_read();
    uint32_t count = owner->draining ? 0 : due(receiver, now);

    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)(receiver->next++ % TABLE);
        if (schema == SCHEMA_V2 && at % MEMORY_MARK_EVERY == 0) {
            uint64_t id = htobe64(now);
            memcpy(receiver->request[at], &id, sizeof(id));
        }
        receiver->batch[i] =
            (struct received){.data = receiver->request[at], .length = receiver->length[at]};
    }
    (void)tag;
    *batch = receiver->batch;
    return (int)count;
}

/* A benchmark is not killed and goes on. */
int receiver_memory(const struct receiver *receiver)
{
    (void)receiver;
    return STDIN_FILENO;
}

uint32_t receiver_recover(struct receiver *receiver, struct receiver_mark *mark,
                          struct received **batch)
{
    *mark = (struct receiver_mark){0};
    *batch = receiver->batch;
    return 0;
}

void receiver_park(struct receiver *receiver, uint64_t ns)
{
    (void)receiver;
    (void)ring_nap(ns);
}

void receiver_close(struct receiver *receiver)
{
    free(receiver->batch);
    free(receiver);
}
