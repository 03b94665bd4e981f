/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A datagram through framing, parser, handler and serialiser, as rx and a worker take it. First byte: schema
 * and handler; two bytes: what a ring slot holds; the rest is the datagram.
 */
#include "rx/frame.h"
#include "tests/fuzz/fuzz.h"
#include "worker/handler.h"
#include "worker/schema.h"

#include <stdlib.h>
#include <string.h>

/* A reply of exactly the room there is, so that one byte more is seen. */
static void answer(enum config_schema form, const struct handler *handler,
                   const struct message *message, uint32_t capacity)
{
    const struct schema *schema = schema_of(form);
    uint8_t *out = malloc(schema->header_bytes + capacity);

    fuzz_require(out);
    int length =
        handler->handle(message->payload, message->length, out + schema->header_bytes, capacity);
    if (length < 0) {
        fuzz_require(length == HANDLER_FILTERED || HANDLER_REASON(length) < REASON_COUNT);
        free(out);
        return;
    }
    fuzz_require((uint32_t)length <= capacity);
    uint32_t bytes = schema->header_bytes + (uint32_t)length;
    schema->serialise(out, schema->header_bytes + capacity, message, (uint32_t)length);
    struct frame frame = frame_next(form, out, bytes);
    struct message back;
    fuzz_require(frame.well_formed && frame.length == bytes);
    fuzz_require(schema->parse(out, bytes, &back) == 0);
    fuzz_require(back.length == (uint32_t)length && back.payload == out + schema->header_bytes);
    fuzz_require(back.id == message->id && (form == SCHEMA_DATAGRAM || frame.id == back.id));
    free(out);
}

/* What frames is what parses, with the same id and to the last byte. */
static void check_request(enum config_schema form, const struct handler *handler,
                          const uint8_t *data, const struct frame *frame, uint32_t capacity)
{
    const struct schema *schema = schema_of(form);
    struct message message;

    int result = schema->parse(data, frame->length, &message);
    fuzz_require((result == 0) == frame->well_formed);
    if (result < 0) {
        fuzz_require(SCHEMA_REASON(result) < REASON_COUNT);
        return;
    }
    fuzz_require(form == SCHEMA_DATAGRAM || message.id == frame->id);
    fuzz_require(message.payload == data + schema->header_bytes);
    fuzz_require(schema->header_bytes + message.length == frame->length);
    if (capacity >= schema->header_bytes) {
        uint32_t room = capacity - schema->header_bytes;
        answer(form, handler, &message, room < schema->payload_max ? room : schema->payload_max);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint32_t choice = (uint32_t)fuzz_number(&input, 1);
    uint32_t capacity = (uint32_t)fuzz_number(&input, 2);
    enum config_schema form = (enum config_schema)(choice % 3);
    const struct handler *handler = choice & 0x80 ? &handler_fizzbuzz : &handler_rot1;
    char error[CONFIG_ERROR_MAX];
    uint32_t offset = 0;

    if (handler->open)
        (void)handler->open(NULL, error);
    uint32_t left = (uint32_t)input.left;
    do {
        struct frame frame = frame_next(form, input.at + offset, left - offset);
        fuzz_require(frame.length <= left - offset && (frame.length > 0 || left == 0));
        fuzz_require(frame.well_formed || frame.length == left - offset);
        check_request(form, handler, input.at + offset, &frame, capacity);
        offset += frame.length;
    } while (offset < left);
    return 0;
}
