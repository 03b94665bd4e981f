/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc: answers with the payload unchanged, by way of a string as many programs hold one: up to a
 * threshold within an object of its own, beyond it in memory that is allocated for the request and
 * freed behind it. What the step at the threshold costs is what allocating costs.
 *
 *   [handler.alloc]
 *   threshold = 15    bytes; 0 to 64KiB. 15 is that of libstdc++, 22 that of libc++
 *   copies = 4        strings a request is copied into, one from the other: 1 to 64
 */
#include "worker/load.h"

#include <stdlib.h>
#include <string.h>

enum { COPIES_MAX = 64, SMALL_MAX = 64 << 10 };

struct string {
    uint8_t *text; /* `small`, or allocated */
    uint8_t *small;
};

static struct {
    uint64_t threshold;
    uint64_t copies;
    struct string string[COPIES_MAX];
} all;

static int32_t alloc_init(struct tickline_context *context)
{
    if (context->count(context, "threshold", "15", 0, SMALL_MAX, &all.threshold) < 0 ||
        context->count(context, "copies", "4", 1, COPIES_MAX, &all.copies) < 0)
        return -1;
    for (uint64_t i = 0; i < all.copies; i++) {
        all.string[i].small = malloc(all.threshold + 1);
        if (!all.string[i].small)
            return context->fail(context, NULL, "out of memory");
    }
    return 0;
}

static void drop(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (all.string[i].text != all.string[i].small)
            free(all.string[i].text);
    }
}

static int32_t alloc_handle(struct tickline_context *context,
                            const struct tickline_request *request, uint8_t *reply,
                            uint32_t capacity)
{
    const uint8_t *from = request->payload;
    uint32_t length = request->length;

    (void)context;
    if (length > capacity)
        return TICKLINE_REPLY_TOO_BIG;
    for (uint64_t i = 0; i < all.copies; i++) {
        struct string *string = &all.string[i];
        string->text = length > all.threshold ? malloc(length) : string->small;
        if (!string->text) {
            drop(i);
            return TICKLINE_FULL;
        }
        memcpy(string->text, from, length);
        from = string->text;
    }
    memcpy(reply, from, length);
    drop(all.copies);
    return (int32_t)length;
}

const struct tickline_handler handler_alloc = {
    .abi = TICKLINE_HANDLER_ABI,
    .name = "alloc",
    .summary = "copies the payload through strings that are allocated above a threshold",
    .allocates = 1,
    .init = alloc_init,
    .handle = alloc_handle,
};
