/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v3, protobuf (request.proto), each message behind its length:
 *
 *   length varint | 0x09 id fixed64, little-endian | 0x12 length varint | payload
 *
 * is what protobuf-c writes; it reads fields in any order, the last of each, and passes over others. A
 * field of its default value (0, empty) is not written.
 *
 * Reading takes no memory from malloc: protobuf-c is given a block that is empty again at the next
 * request. A message of thousands of fields that it does not know does not fit, and is refused.
 */
#include "request.pb-c.h"
#include "worker/schema_own.h"

#include <stdbool.h>
#include <string.h>

enum {
    LENGTH_BYTES_MAX = 3,
    MESSAGE_MAX = 65535,
    V3_HEADER = LENGTH_BYTES_MAX + 9 + 1 + LENGTH_BYTES_MAX,
    PAYLOAD_MAX = MESSAGE_MAX - V3_HEADER,
    ALIGNMENT = 16,
    BLOCK_BYTES = 256 << 10,
};

static _Alignas(ALIGNMENT) uint8_t block[BLOCK_BYTES];

static void *block_take(void *used, size_t size)
{
    size_t *at = used, begin = *at;

    if (size > BLOCK_BYTES - begin)
        return NULL;
    *at = begin + (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return block + begin;
}

static void block_give(void *used, void *memory)
{
    (void)used;
    (void)memory;
}

/* Bytes of the length in front, 0: there is none yet, or a rejection. */
static int read_length(const uint8_t *bytes, uint32_t length, uint32_t *size)
{
    *size = 0;
    for (uint32_t i = 0; i < LENGTH_BYTES_MAX; i++) {
        if (i == length)
            return 0;
        *size |= (uint32_t)(bytes[i] & 0x7f) << 7 * i;
        if (bytes[i] < 0x80)
            return *size > MESSAGE_MAX ? schema_reject(REASON_bad_length) : (int)i + 1;
    }
    return schema_reject(REASON_bad_length);
}

static int v3_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    size_t used = 0;
    ProtobufCAllocator memory = {block_take, block_give, &used};
    uint32_t size;

    int header = read_length(bytes, length, &size);
    if (header < 0)
        return header;
    if (header == 0 || size > length - (uint32_t)header)
        return schema_reject(length ? REASON_truncated : REASON_empty);
    Tickline__Request *request = tickline__request__unpack(&memory, size, bytes + header);
    if (!request)
        return schema_reject(REASON_bad_encoding);
    *message = (struct message){
        .id = request->id,
        .payload = request->payload.data ? request->payload.data : bytes,
        .length = (uint32_t)request->payload.len,
    };
    return 0;
}

struct output {
    ProtobufCBuffer base;
    uint8_t *at;
};

/* The payload may lie a few bytes behind where it goes. */
static void append(ProtobufCBuffer *buffer, size_t length, const uint8_t *data)
{
    struct output *output = (struct output *)(void *)buffer;

    memmove(output->at, data, length);
    output->at += length;
}

static int v3_serialise(uint8_t *out, uint32_t capacity, const struct message *request,
                        uint32_t length)
{
    struct output output = {{append}, out};
    Tickline__Request reply = TICKLINE__REQUEST__INIT;

    (void)capacity;
    reply.id = request->id;
    reply.payload.data = out + V3_HEADER;
    reply.payload.len = length;
    size_t size = tickline__request__get_packed_size(&reply);
    for (; size >= 0x80; size >>= 7)
        *output.at++ = (uint8_t)(size | 0x80);
    *output.at++ = (uint8_t)size;
    tickline__request__pack_to_buffer(&reply, &output.base);
    return (int)(output.at - out);
}

const struct schema schema_v3 = {"v3", V3_HEADER, PAYLOAD_MAX, v3_parse, v3_serialise};
