/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames as a tap takes them: through the decoder, then TCP through reassembly and framing. First byte: schema
 * (v1, v2, fix), how often a step is taken twice; then frames, u16 its bytes and they, or, where that is
 * above 0x7fff, a segment: u8 flow and flags, u16 sequence, u16 bytes of the text below.
 */
#include "rx/follow.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEEP = 4096, REORDER = 5000, TEXT = 8192, STEPS_MAX = 4096 };

static struct follow follow;
static struct tap_counts now;
static struct tap_counts before;
static uint64_t done;
static uint64_t put_in_step;
static bool refuse;

static int put(void *self, const uint8_t *data, const struct frame *frame)
{
    uint8_t sum = 0;

    (void)self;
    fuzz_require(frame->length > 0);
    for (uint32_t i = 0; i < frame->length; i++)
        sum ^= data[i];
    put_in_step += 1 + (sum & 0);
    return refuse ? -EAGAIN : 0;
}

/* A region once for all inputs; its slots are emptied for each. */
static void open_empty(enum config_schema schema)
{
    static int memory = -1;
    struct follow_plan plan = {
        .connections = 2,
        .keep_bytes = KEEP,
        .reorder_bytes = REORDER,
        .schema = schema,
        .memory = memory < 0 ? -1 : dup(memory),
        .counts = &now,
        .put = put,
    };

    fuzz_require(follow_open(&follow, &plan) == 0);
    if (memory < 0)
        memory = dup(follow.flows.region.fd);
    memset(follow.flows.slot, 0, follow.flows.count * sizeof(*follow.flows.slot));
    follow_close(&follow);
    plan.memory = dup(memory);
    fuzz_require(follow_open(&follow, &plan) == 0);
    done = 0;
    memset(&before, 0, sizeof(before));
}

static void check_flow(const struct flow *flow)
{
    uint64_t at = flow->next;

    fuzz_require(flow->next - flow->begun < KEEP);
    fuzz_require(flow->ranges <= REASSEMBLY_RANGES_MAX);
    for (uint32_t i = 0; i < flow->ranges; i++) {
        fuzz_require(flow->range[i].begin > at && flow->range[i].end > flow->range[i].begin);
        at = flow->range[i].end;
    }
    fuzz_require(at - flow->next <= REORDER);
}

static int step(const struct decoded *segment)
{
    now = before;
    put_in_step = 0;
    follow_begin(&follow);
    return segment ? follow_segment(&follow, segment) : follow_flush(&follow);
}

/* Taken twice, the first time up to its first request: it must come to the same. */
static int step_done(const struct decoded *segment, bool twice)
{
    refuse = twice;
    if (twice)
        (void)step(segment);
    refuse = false;
    int err = step(segment);
    fuzz_require(err == 0 || err == REASSEMBLY_AGAIN);
    before = now;
    follow_store(&follow, ++done);
    if (follow.slot != FLOWS_NONE)
        check_flow(&follow.flow);
    follow_done(&follow);
    return err;
}

static void take(const struct decoded *segment, bool twice)
{
    uint32_t steps = 0;

    while (step_done(segment, twice) == REASSEMBLY_AGAIN)
        fuzz_require(++steps < STEPS_MAX);
}

static void take_frame(struct fuzz_input *input, uint32_t length, bool twice)
{
    struct decoded decoded;

    if (length > input->left)
        length = (uint32_t)input->left;
    /* A copy of exactly that size, so that a byte more is seen. */
    uint8_t *frame = malloc(length ? length : 1);
    fuzz_require(frame);
    memcpy(frame, input->at, length);
    input->at += length;
    input->left -= length;
    enum decode_kind kind = decode_frame(frame, length, &decoded);
    if (kind == DECODE_UDP || kind == DECODE_TCP)
        fuzz_require(decoded.data >= frame && decoded.data + decoded.length <= frame + length);
    if (kind == DECODE_TCP)
        take(&decoded, twice);
    free(frame);
}

static void take_text(struct fuzz_input *input, const uint8_t *text, bool twice)
{
    uint32_t choice = (uint32_t)fuzz_number(input, 1), begin = (uint32_t)fuzz_number(input, 2);
    uint32_t length = (uint32_t)fuzz_number(input, 2) % TEXT;
    struct decoded segment = {
        .data = text + begin % TEXT,
        .length = length < TEXT - begin % TEXT ? length : TEXT - begin % TEXT,
        .sequence = begin - 3000,
        .flags = choice & 7,
        .ends = {.source_port = (uint16_t)(choice >> 3 & 7)},
    };

    take(&segment, twice);
}

/* Requests of the schema, one behind the other. */
static void write_text(enum config_schema schema, uint8_t *text)
{
    static const char v1[] = "|00000001|0008|abcdefgh", v2[] = "\0\0\0\0\0\0\0\1\0\0\0\4abcd",
                      fix[] = "8=FIX.4.1\0019=5\00135=0\00110=160\001";
    const char *one = schema == SCHEMA_V1 ? v1 : schema == SCHEMA_V2 ? v2 : fix;
    size_t size = schema == SCHEMA_V1 ? sizeof(v1) : schema == SCHEMA_V2 ? sizeof(v2) : sizeof(fix);

    for (size_t i = 0; i < TEXT; i++)
        text[i] = (uint8_t)one[i % (size - 1)];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum config_schema schemas[] = {SCHEMA_V1, SCHEMA_V2, SCHEMA_FIX};
    struct fuzz_input input = {data, size};
    uint32_t choice = (uint32_t)fuzz_number(&input, 1);
    enum config_schema schema = schemas[choice % 3];
    bool twice = choice & 0x80;
    static uint8_t text[TEXT];

    write_text(schema, text);
    open_empty(schema);
    while (input.left > 0) {
        uint32_t length = (uint32_t)fuzz_number(&input, 2);
        if (length > 0x7fff)
            take_text(&input, text, twice);
        else
            take_frame(&input, length, twice);
    }
    while (step_done(NULL, twice) == REASSEMBLY_AGAIN) {
    }
    follow_close(&follow);
    return 0;
}
