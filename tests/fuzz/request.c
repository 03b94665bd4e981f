/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes through framing, parser, handler and serialiser, as rx and a worker take them, as a datagram and
 * as a stream that is cut. First byte: schema and handler; two bytes: what a ring slot holds, and where
 * the stream is cut; the rest are the bytes.
 */
#include "rx/frame.h"
#include "rx/segment.h"
#include "tests/fuzz/fuzz.h"
#include "worker/host.h"
#include "worker/load.h"
#include "worker/schema.h"

#include <stdlib.h>
#include <string.h>

/* Known by its content alone. */
static bool has_no_id(enum config_schema form)
{
    return form == SCHEMA_DATAGRAM || form == SCHEMA_FIX;
}

/* What frames is what parses, but for what only a parser looks at. */
static bool may_refuse(enum config_schema form, int result)
{
    enum reason reason = SCHEMA_REASON(result);

    return result == 0 || (form == SCHEMA_FIX && reason == REASON_bad_checksum) ||
           (form == SCHEMA_IEX && reason == REASON_wrong_length) ||
           ((form == SCHEMA_V3 || form == SCHEMA_V4) && reason == REASON_bad_encoding);
}

/* A reply of exactly the room there is, so that one byte more is seen. */
static void answer(enum config_schema form, struct host *host, const struct message *message,
                   uint32_t capacity)
{
    const struct schema *schema = schema_of(form);
    uint8_t *out = malloc(schema->header_bytes + capacity);

    fuzz_require(out);
    const struct tickline_request request = {
        .id = message->id, .payload = message->payload, .length = message->length};
    int length =
        host->handler->handle(&host->context, &request, out + schema->header_bytes, capacity);
    state_commit(&host->state);
    if (length < 0) {
        fuzz_require(length >= TICKLINE_FULL);
        free(out);
        return;
    }
    fuzz_require((uint32_t)length <= capacity);
    int bytes = schema->serialise(out, schema->header_bytes + capacity, message, (uint32_t)length);
    if (bytes < 0) {
        fuzz_require(SCHEMA_REASON(bytes) == REASON_reply_too_big);
        free(out);
        return;
    }
    struct frame frame = frame_next(form, out, (uint32_t)bytes);
    struct message back;
    const uint64_t id = message->id; /* parse() may use the message's memory again */
    fuzz_require(frame.well_formed && frame.length == (uint32_t)bytes);
    fuzz_require(may_refuse(form, schema->parse(out, (uint32_t)bytes, &back)));
    if (schema->parse(out, (uint32_t)bytes, &back) == 0) {
        fuzz_require(back.length == (uint32_t)length);
        fuzz_require(back.id == id && (has_no_id(form) || frame.id == back.id));
    }
    free(out);
}

/* As it would stand in a slot. */
static void check_request(enum config_schema form, struct host *host, const uint8_t *data,
                          const struct frame *frame, uint32_t capacity)
{
    const struct schema *schema = schema_of(form);
    uint8_t *exact = malloc(frame->length + 1);
    struct message message;

    fuzz_require(exact);
    memcpy(exact, data, frame->length);
    int result = schema->parse(exact, frame->length, &message);
    fuzz_require(result == 0 || SCHEMA_REASON(result) < REASON_COUNT);
    fuzz_require(frame->well_formed ? may_refuse(form, result) : result < 0);
    if (result == 0) {
        fuzz_require(has_no_id(form) || message.id == frame->id);
        if (capacity >= schema->header_bytes) {
            uint32_t room = capacity - schema->header_bytes;
            answer(form, host, &message, room < schema->payload_max ? room : schema->payload_max);
        }
    }
    free(exact);
}

static void check_segment(struct host *host, const uint8_t *data, uint32_t length,
                          uint32_t capacity)
{
    static uint8_t alone[SEGMENT_MAX];
    struct segment segment;
    uint32_t offset = SEGMENT_HEADER;

    if (!segment_read(data, length, &segment)) {
        struct frame frame = frame_malformed(data, length);
        check_request(SCHEMA_IEX, host, data, &frame, capacity);
        return;
    }
    for (uint32_t i = 0; i < segment.count; i++) {
        uint32_t bytes = segment_alone(data, offset, segment.first + i, alone);
        struct frame frame = frame_next(SCHEMA_IEX, alone, bytes);
        fuzz_require(frame.well_formed && frame.id == segment.first + i && frame.length == bytes);
        check_request(SCHEMA_IEX, host, alone, &frame, capacity);
        offset += segment_message_bytes(data + offset);
        fuzz_require(offset <= length);
    }
}

static void check_datagram(enum config_schema form, struct host *host, const uint8_t *data,
                           uint32_t length, uint32_t capacity)
{
    uint32_t offset = 0;

    do {
        struct frame frame = frame_next(form, data + offset, length - offset);
        fuzz_require(frame.length <= length - offset && (frame.length > 0 || length == 0));
        fuzz_require(frame.well_formed || frame.length == length - offset);
        check_request(form, host, data + offset, &frame, capacity);
        offset += frame.length;
    } while (offset < length);
}

/* What is found in the first `come` bytes from `at` on, beside what is found when all have come. */
static void check_stream(enum config_schema form, const uint8_t *data, uint32_t length,
                         uint32_t step)
{
    struct frame whole, part;
    uint32_t at = 0;

    for (;;) {
        enum frame_state state = frame_stream(form, data + at, length - at, &whole);
        for (uint32_t come = step; come < length - at; come += step) {
            uint8_t *exact = malloc(come + 1);
            fuzz_require(exact);
            memcpy(exact, data + at, come);
            enum frame_state early = frame_stream(form, exact, come, &part);
            free(exact);
            if (early == FRAME_MORE) {
                fuzz_require(part.length > come);
                continue;
            }
            fuzz_require(early == state && part.length == whole.length && part.id == whole.id);
            break;
        }
        if (state == FRAME_MORE)
            break;
        fuzz_require(whole.length > 0 && whole.length <= length - at);
        fuzz_require(whole.well_formed == (state == FRAME_WHOLE));
        at += whole.length;
        if (state == FRAME_BROKEN && !frame_resyncs(form))
            break;
    }
}

/* A handler as a worker opens it, once each; its state goes on from input to input. */
static struct host *opened(uint32_t choice)
{
    static const struct tickline_handler *const handlers[] = {&handler_rot1, &handler_fizzbuzz,
                                                              &handler_book, &handler_alloc};
    static struct config config;
    static struct host hosts[4];
    static struct state_control control;
    static const uint64_t position = 0;
    struct host *host = &hosts[choice % 4];
    char error[CONFIG_ERROR_MAX];

    if (host->handler)
        return host;
    fuzz_require(config.origins || config_parse(&config, "", 0, "fuzz", error) == 0);
    host_prepare(host, handlers[choice % 4], &config);
    fuzz_require(host_init(host) == 0);
    uint64_t bytes = host->context.state_bytes;
    if (bytes == 0)
        return host;
    host->state = (struct state){.control = &control, .bytes = bytes};
    host->state.working = aligned_alloc(64, (bytes + 63) / 64 * 64);
    host->state.settled = aligned_alloc(64, (bytes + 63) / 64 * 64);
    fuzz_require(host->state.working && host->state.settled);
    memset(host->state.working, 0, bytes);
    host->context.state = host->state.working;
    host->position = &position;
    state_settle(&host->state);
    return host;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum config_schema forms[] = {SCHEMA_V1, SCHEMA_V2,  SCHEMA_DATAGRAM, SCHEMA_V3,
                                               SCHEMA_V4, SCHEMA_FIX, SCHEMA_IEX};
    struct fuzz_input input = {data, size};
    uint32_t choice = (uint32_t)fuzz_number(&input, 1);
    uint32_t capacity = (uint32_t)fuzz_number(&input, 2);
    enum config_schema form = forms[(choice & 0x1f) % (sizeof(forms) / sizeof(forms[0]))];
    struct host *host = opened(choice >> 5);
    uint32_t length = (uint32_t)input.left;

    if (form == SCHEMA_IEX)
        check_segment(host, input.at, length, capacity);
    else
        check_datagram(form, host, input.at, length, capacity);
    if (form != SCHEMA_IEX && form != SCHEMA_DATAGRAM)
        check_stream(form, input.at, length, 1 + capacity % 61 + length / 64);
    return 0;
}
