/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counter: numbers the requests of each sender. The reply is `#7 ` and the payload as it came.
 *
 *   [handler.counter]
 *   mark = #          what stands before the number: a letter or sign
 *   flows = 65536     numbers of senders that are counted; those above are refused as `full`
 *
 * A handler of one's own with all there is: keys, points in the trace, and a state that outlives a
 * killed worker.
 */
#include <tickline/handler.h>

#include <string.h>

enum { COUNTER_FOUND, COUNTER_WRITTEN };

static const struct tickline_point points[] = {
    [COUNTER_FOUND] = {"counter_found", "work",
                       "the sender's number is found; argument is the flow"},
    [COUNTER_WRITTEN] = {"counter_written", "work", "the new number is written"},
};

static char mark;
static uint64_t flows;

static int32_t counter_init(struct tickline_context *context)
{
    const char *text = context->text(context, "mark", "#");

    if (text[0] == '\0' || text[1] != '\0')
        return context->fail(context, "mark", "expected one letter or sign; try #");
    mark = text[0];
    if (context->count(context, "flows", "65536", 1, 65536, &flows) < 0)
        return -1;
    context->state_bytes = flows * sizeof(uint64_t); /* all zero when the run begins */
    return 0;
}

/* Decimal digits of `number` at `out`; how many. */
static uint32_t put_number(uint8_t *out, uint64_t number)
{
    uint8_t digits[20];
    uint32_t count = 0;

    do
        digits[count++] = (uint8_t)('0' + number % 10);
    while (number /= 10);
    for (uint32_t i = 0; i < count; i++)
        out[i] = digits[count - 1 - i];
    return count;
}

static int32_t counter_handle(struct tickline_context *context,
                              const struct tickline_request *request, uint8_t *reply,
                              uint32_t capacity)
{
    uint64_t *number = (uint64_t *)(void *)context->state + request->flow;
    uint8_t head[24] = {(uint8_t)mark};

    if (request->flow >= flows)
        return TICKLINE_FULL;
    context->stamp(context, COUNTER_FOUND, (uint16_t)request->flow);
    uint32_t length = 1 + put_number(head + 1, *number + 1);
    head[length++] = ' ';
    if (length + request->length > capacity)
        return TICKLINE_REPLY_TOO_BIG; /* and the number stays */
    context->touch(context, request->flow * sizeof(*number), sizeof(*number));
    ++*number;
    context->stamp(context, COUNTER_WRITTEN, 0);
    memcpy(reply, head, length);
    memcpy(reply + length, request->payload, request->length);
    return (int32_t)(length + request->length);
}

const struct tickline_handler tickline_handler = {
    .abi = TICKLINE_HANDLER_ABI,
    .state = TICKLINE_STATE_SHARED,
    .name = "counter",
    .summary = "numbers the requests of each sender",
    .points = points,
    .point_count = sizeof(points) / sizeof(points[0]),
    .init = counter_init,
    .handle = counter_handle,
};
