/* SPDX-License-Identifier: Apache-2.0 */
/* tx's socket and sender, in memory: a reply is read and forgotten; those that carry a time stamp
 * say how long they took. */
#include "stage/io.h"
#include "tests/bench/memory/memory.h"
#include "tx/socket.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sender {
    uint64_t sum;
};

static struct memory *memory;
static bool marked;

int socket_open(struct stage *stage)
{
    memory = memory_attach(stage);
    marked = stage->config.pipeline.schema == SCHEMA_V2;
    return memory ? 0 : stage_error(stage, -ENOENT, "the benchmark gave no memory");
}

int sender_open(struct sender **sender, bool uring, int socket, uint32_t depth)
{
    (void)uring;
    (void)socket;
    (void)depth;
    *sender = calloc(1, sizeof(**sender));
    return *sender ? 0 : -ENOMEM;
}

int sender_send(struct sender *sender, const void *data, uint32_t length, uint64_t tag)
{
    uint64_t id = 0;

    (void)tag;
    memcpy(&id, data, length < sizeof(id) ? length : sizeof(id));
    sender->sum += id;
    id = be64toh(id);
    if (marked && id >= MEMORY_MARK_MIN) {
        uint64_t taken = load_relaxed(&memory->taken);
        uint64_t ticks = tsc_read() - id;
        memory->sample[taken % MEMORY_SAMPLES] = ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks;
        store_release(&memory->taken, taken + 1);
    }
    return 1;
}

int sender_submit(struct sender *sender)
{
    (void)sender;
    return 0;
}

int sender_reap(struct sender *sender, uint64_t *tag, int *result)
{
    (void)sender;
    (void)tag;
    (void)result;
    return 0;
}

void sender_close(struct sender *sender)
{
    free(sender);
}
