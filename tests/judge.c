/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rx and a worker make of bytes, for tests that compare it with the reference.
 *
 *   judge SCHEMA datagram|stream HANDLER  < {u32 length; bytes} …  > a line for each input
 *
 * A line has, for each request, `id:length:framed:reason:reply` (numbers in hexadecimal; a reply's XXH3-64,
 * or - where there is none), and at its end the bytes of a stream that were left.
 */
#include "rx/frame.h"
#include "rx/segment.h"
#include "worker/host.h"
#include "worker/load.h"
#include "worker/schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { INPUT_MAX = 1 << 20, ROOM = 65535 };

static enum config_schema form;
static struct host host;
static uint64_t position; /* of the request in all inputs, as a handler's state counts */

static enum config_schema form_of(const char *name)
{
    for (int i = SCHEMA_V1; i <= SCHEMA_DATAGRAM; i++) {
        if (strcmp(schema_of((enum config_schema)i)->name, name) == 0)
            return (enum config_schema)i;
    }
    exit(2);
}

/* The handler, with memory for its state where it has one. False: there is no such handler. */
static bool open_handler(const char *name)
{
    static struct config config; /* a host keeps a pointer to it */
    static struct state_control control;
    char text[128], error[CONFIG_ERROR_MAX];
    const struct tickline_handler *handler = handler_find(name);

    snprintf(text, sizeof(text), "[worker]\nhandler = %s\n", name);
    if (!handler || config_parse(&config, text, strlen(text), "judge", error) < 0)
        return false;
    host_prepare(&host, handler, &config);
    host.position = &position;
    if (host_init(&host) < 0)
        return false;
    uint64_t bytes = host.context.state_bytes;
    if (handler->state == TICKLINE_STATE_SHARED)
        host.state = (struct state){&control, calloc(1, bytes), calloc(1, bytes), bytes, 0, {{0}}};
    host.context.state = host.state.working;
    return true;
}

/* Length of the reply, or less than 0 and in `why` what the handler or the schema has against it. */
static int reply(const struct message *message, uint8_t *out, uint32_t capacity, const char **why)
{
    static const char *const refusal[] = {
        [-TICKLINE_FILTERED] = "filtered",
        [-TICKLINE_BAD_PAYLOAD] = "bad_payload",
        [-TICKLINE_REPLY_TOO_BIG] = "reply_too_big",
        [-TICKLINE_FULL] = "full",
    };
    const struct schema *schema = schema_of(form);
    const struct tickline_request request = {
        .id = message->id, .payload = message->payload, .length = message->length};
    int result = host.handler->handle(&host.context, &request, out + schema->header_bytes,
                                      schema->payload_max);

    if (host.state.ranges)
        state_commit(&host.state);
    position++;
    if (result < 0) {
        *why = refusal[-result];
        return result;
    }
    result = schema->serialise(out, capacity, message, (uint32_t)result);
    if (result < 0)
        *why = reason_name[SCHEMA_REASON(result)];
    return result;
}

/* The reply to a request as it stands in a slot. */
static void answer(const uint8_t *data, const struct frame *frame)
{
    static _Alignas(8) uint8_t out[2 * ROOM];
    uint8_t *exact = malloc(frame->length + 1); /* ends where the request does, for a sanitizer */
    struct message message;
    const char *why;

    memcpy(exact, data, frame->length);
    int result = schema_of(form)->parse(exact, frame->length, &message);
    if (result < 0)
        why = reason_name[SCHEMA_REASON(result)];
    else
        result = reply(&message, out, sizeof(out), &why);
    printf(" %" PRIx64 ":%x:%d:", frame->id, frame->length, frame->well_formed);
    if (result < 0)
        printf("%s:-", why);
    else
        printf("-:%" PRIx64, (uint64_t)XXH3_64bits(out, (size_t)result));
    free(exact);
}

static void judge_segment(const uint8_t *data, uint32_t length)
{
    static uint8_t alone[SEGMENT_MAX];
    struct segment segment;
    uint32_t offset = SEGMENT_HEADER;

    if (!segment_read(data, length, &segment)) {
        struct frame frame = frame_malformed(data, length);
        answer(data, &frame);
        return;
    }
    for (uint32_t i = 0; i < segment.count; i++) {
        uint32_t bytes = segment_alone(data, offset, segment.first + i, alone);
        struct frame frame = {segment.first + i, bytes, true};
        answer(alone, &frame);
        offset += segment_message_bytes(data + offset);
    }
}

static void judge_datagram(const uint8_t *data, uint32_t length)
{
    uint32_t at = 0;

    do {
        struct frame frame = frame_next(form, data + at, length - at);
        answer(data + at, &frame);
        at += frame.length;
    } while (at < length);
}

static void judge_stream(const uint8_t *data, uint32_t length)
{
    enum frame_state state = FRAME_WHOLE;
    struct frame frame;
    uint32_t at = 0;

    while (state == FRAME_WHOLE || frame_resyncs(form)) {
        state = frame_stream(form, data + at, length - at, &frame);
        if (state == FRAME_MORE)
            break;
        answer(data + at, &frame);
        at += frame.length;
    }
    printf(" %x", length - at);
}

int main(int argc, char **argv)
{
    static uint8_t input[INPUT_MAX];
    uint32_t length;

    if (argc != 4 || !open_handler(argv[3]))
        return 2;
    form = form_of(argv[1]);
    while (fread(&length, sizeof(length), 1, stdin) == 1) {
        if (length > INPUT_MAX || fread(input, 1, length, stdin) != length)
            return 2;
        uint8_t *exact = malloc(length + 1);
        memcpy(exact, input, length);
        if (argv[2][0] == 's')
            judge_stream(exact, length);
        else if (form == SCHEMA_IEX)
            judge_segment(exact, length);
        else
            judge_datagram(exact, length);
        free(exact);
        putchar('\n');
    }
    return 0;
}
