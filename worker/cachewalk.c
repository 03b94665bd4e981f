/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cachewalk: follows a chain of dependent loads through a working set of a given size and answers
 * with the payload unchanged. What a load costs is what the caches of that size give.
 *
 *   [handler.cachewalk]
 *   size = 4MiB      64B to 4GiB, in lines of 64 bytes
 *   steps = 1000     loads a request, each of an address that the load before has found
 *   huge = on        2 MiB pages where there are some, so that address translation costs little
 *   seed = 1
 *
 * The lines form one cycle in random order (Sattolo's algorithm), so nothing can be fetched ahead. A
 * request begins at the line that its id and its payload's first eight bytes choose: a run of
 * requests touches all of the set.
 */
#include "worker/load.h"
#include "worker/mix.h"

#include <string.h>
#include <sys/mman.h>

#define LARGE_PAGE ((uint64_t)2 << 20)

struct line {
    uint64_t next; /* index of a line */
    uint64_t rest[7];
};

static struct {
    struct line *lines;
    uint64_t count;
    uint64_t steps;
} walk;

/* One cycle through all lines. */
static void link_lines(uint64_t seed)
{
    for (uint64_t i = 0; i < walk.count; i++)
        walk.lines[i].next = i;
    for (uint64_t i = walk.count - 1; i > 0; i--) {
        uint64_t other = mix_below(mix(seed + i), i);
        uint64_t kept = walk.lines[i].next;
        walk.lines[i].next = walk.lines[other].next;
        walk.lines[other].next = kept;
    }
}

static int32_t cachewalk_init(struct tickline_context *context)
{
    uint64_t bytes = 0;
    uint64_t seed = 0;
    uint32_t small = 0;

    if (context->bytes(context, "size", "4MiB", sizeof(struct line), UINT64_C(4) << 30, &bytes) <
            0 ||
        context->count(context, "steps", "1000", 1, 1000000, &walk.steps) < 0 ||
        context->word(context, "huge", "on", "on|off", &small) < 0 ||
        context->count(context, "seed", "1", 0, INT64_MAX, &seed) < 0)
        return -1;
    if (context->checking)
        return 0;
    walk.count = bytes / sizeof(struct line);
    /* Whole large pages, also for a set smaller than one. */
    uint64_t room = (bytes + 2 * LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    void *memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return context->fail(context, "size", "this machine has no memory for it; make it smaller");
    (void)madvise(memory, room, small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    walk.lines = (struct line *)(((uintptr_t)memory + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1));
    link_lines(mix(seed));
    return 0;
}

static int32_t cachewalk_handle(struct tickline_context *context,
                                const struct tickline_request *request, uint8_t *reply,
                                uint32_t capacity)
{
    uint32_t length = request->length;
    uint64_t word = 0;

    (void)context;
    if (length > capacity)
        return TICKLINE_REPLY_TOO_BIG;
    memcpy(&word, request->payload, length < sizeof(word) ? length : sizeof(word));
    uint64_t at = mix_below(mix(request->id ^ mix(word)), walk.count);
    for (uint64_t step = 0; step < walk.steps; step++)
        at = walk.lines[at].next;
    __asm__ volatile("" ::"r"(at)); /* the walk is all there is to it */
    memcpy(reply, request->payload, length);
    return (int32_t)length;
}

const struct tickline_handler handler_cachewalk = {
    .abi = TICKLINE_HANDLER_ABI,
    .name = "cachewalk",
    .summary = "walks a working set of a given size and answers with the payload unchanged",
    .init = cachewalk_init,
    .handle = cachewalk_handle,
};
