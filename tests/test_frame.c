/* SPDX-License-Identifier: Apache-2.0 */
/* Framing, and that it agrees with the worker's parsers, which are written apart from it. */
#include "rx/frame.h"
#include "rx/segment.h"
#include "tests/unit.h"
#include "worker/schema.h"

#include <stdlib.h>

static void check(enum config_schema schema, const char *bytes, uint32_t given, uint64_t id,
                  uint32_t length, bool well_formed)
{
    struct frame frame = frame_next(schema, (const uint8_t *)bytes, given);
    CU_ASSERT_EQUAL(frame.id, id);
    CU_ASSERT_EQUAL(frame.length, length);
    CU_ASSERT_EQUAL(frame.well_formed, well_formed);
}

/* XXH3-64 of the whole, seed 0, as python3-xxhash has it. */
#define XXH3_EMPTY 0x2d06800538d394c2
#define XXH3_X     0xeaf06c6480b2cd11
#define XXH3_SHORT 0xc845640711f5789b
#define XXH3_BAD2  0x22ae8d044648db72

static void test_v1(void)
{
    check(SCHEMA_V1, "|00000001|0008|abcdefgh", 23, 1, 23, true);
    check(SCHEMA_V1, "|00000001|0008|abcdefgh|00000002|0000|", 38, 1, 23, true);
    check(SCHEMA_V1, "|99999999|0000|", 15, 99999999, 15, true);
    check(SCHEMA_V1, "|00000001|0008|abcdefg", 22, XXH3_SHORT, 22, false);
    check(SCHEMA_V1, "x", 1, XXH3_X, 1, false);
    check(SCHEMA_V1, "", 0, XXH3_EMPTY, 0, false);
}

static void test_v2(void)
{
    check(SCHEMA_V2, "\1\2\3\4\5\6\7\x8\0\0\0\3abc", 15, 0x0102030405060708, 15, true);
    check(SCHEMA_V2, "\1\2\3\4\5\6\7\x8\0\0\0\0more", 16, 0x0102030405060708, 12, true);
    check(SCHEMA_V2, "\0\0\0\0\0\0\0\1\0\1\0\0", 12, XXH3_BAD2, 12, false);
    check(SCHEMA_V2, "x", 1, XXH3_X, 1, false);
    check(SCHEMA_V2, "", 0, XXH3_EMPTY, 0, false);
}

/* A length that no datagram can have, with as many bytes behind it. */
static void test_v2_too_long(void)
{
    static uint8_t bytes[12 + 65536] = {0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0};
    CU_ASSERT(!frame_next(SCHEMA_V2, bytes, sizeof(bytes)).well_formed);
    bytes[9] = 0;
    bytes[10] = bytes[11] = 0xff;
    struct frame frame = frame_next(SCHEMA_V2, bytes, sizeof(bytes));
    CU_ASSERT(frame.well_formed);
    CU_ASSERT_EQUAL(frame.length, 12 + 65535);
}

static void test_datagram(void)
{
    check(SCHEMA_DATAGRAM, "x", 1, XXH3_X, 1, true);
    check(SCHEMA_DATAGRAM, "|00000001|0008|abcdefg", 22, XXH3_SHORT, 22, true);
    check(SCHEMA_DATAGRAM, "", 0, XXH3_EMPTY, 0, true);
}

/* A datagram with several requests: where each begins, and that the rest is one malformed one. */
static void test_walk(void)
{
    static const struct {
        enum config_schema schema;
        const char *bytes;
        uint32_t length;
        uint32_t ends[4];
        bool last_well_formed;
    } walks[] = {
        {SCHEMA_V1, "|00000001|0001|a|00000002|0000||00000003|0002|bc", 48, {16, 31, 48}, true},
        {SCHEMA_V1, "|00000001|0001|a|00000002|0099|b|00000003|0001|c", 48, {16, 48}, false},
        {SCHEMA_V1, "|00000001|0001|aX", 17, {16, 17}, false},
        {SCHEMA_V1, "X|00000001|0001|a", 17, {17}, false},
        {SCHEMA_V2, "\0\0\0\0\0\0\0\1\0\0\0\1a\0\0\0\0\0\0\0\2\0\0\0\0", 25, {13, 25}, true},
        {SCHEMA_V2, "\0\0\0\0\0\0\0\1\0\0\0\1a\0\0\0\0\0\0\0\2\0\0\0", 24, {13, 24}, false},
    };
    for (size_t i = 0; i < sizeof(walks) / sizeof(walks[0]); i++) {
        uint32_t at = 0, n = 0;
        struct frame frame = {0};
        while (at < walks[i].length && n < 4) {
            frame = frame_next(walks[i].schema, (const uint8_t *)walks[i].bytes + at,
                               walks[i].length - at);
            at += frame.length;
            CU_ASSERT_EQUAL(at, walks[i].ends[n]);
            n++;
            CU_ASSERT(frame.well_formed || at == walks[i].length);
        }
        CU_ASSERT_EQUAL(at, walks[i].length);
        CU_ASSERT_EQUAL(frame.well_formed, walks[i].last_well_formed);
    }
}

/* ---- streams ---- */

#define FIX_A "8=FIX.4.1\0019=10\00135=0\00158=a\00110=216\001"
#define FIX_B "8=FIXT.1.1\0019=5\00135=0\00110=000\001" /* a wrong sum frames as well */

struct found {
    uint64_t id;
    uint32_t length;
    bool well_formed;
};

/* What `length` bytes hold, of which more and more come: `step` at a time. */
static uint32_t stream(enum config_schema schema, const char *bytes, uint32_t length, uint32_t step,
                       struct found *found, uint32_t max)
{
    uint32_t at = 0, n = 0, come = 0;
    struct frame frame;

    while (n < max) {
        uint8_t *exact = malloc(come - at + 1); /* ends where the bytes do, for the sanitizer */
        memcpy(exact + 1, bytes + at, come - at);
        enum frame_state state = frame_stream(schema, exact + 1, come - at, &frame);
        free(exact);
        if (state == FRAME_MORE) {
            CU_ASSERT_FATAL(frame.length > come - at);
            if (come == length)
                break;
            come = come + step < length ? come + step : length;
            continue;
        }
        CU_ASSERT_FATAL(frame.length > 0 && frame.length <= come - at);
        CU_ASSERT_EQUAL(frame.well_formed, state == FRAME_WHOLE);
        found[n++] = (struct found){frame.id, frame.length, frame.well_formed};
        at += frame.length;
        if (state == FRAME_BROKEN && !frame_resyncs(schema))
            break;
    }
    return n;
}

/* The same requests, however the stream is cut; `ends` where each ends, with 0 behind the last. */
static void check_stream(enum config_schema schema, const char *bytes, uint32_t length,
                         const uint32_t *ends, const char *good)
{
    struct found first[16], found[16];
    uint32_t count = stream(schema, bytes, length, length, first, 16), at = 0;

    CU_ASSERT_EQUAL_FATAL(count, strlen(good));
    for (uint32_t i = 0; i < count; i++) {
        at += first[i].length;
        CU_ASSERT_EQUAL(at, ends[i]);
        CU_ASSERT_EQUAL(first[i].well_formed, good[i] == '+');
    }
    for (uint32_t step = 1; step < length; step++) {
        CU_ASSERT_EQUAL_FATAL(stream(schema, bytes, length, step, found, 16), count);
        for (uint32_t i = 0; i < count; i++)
            CU_ASSERT(found[i].id == first[i].id && found[i].length == first[i].length &&
                      found[i].well_formed == first[i].well_formed);
    }
}

#define STREAM(schema, bytes, good, ...)                                                           \
    check_stream(schema, bytes, sizeof(bytes) - 1, (const uint32_t[]){__VA_ARGS__}, good)

static void test_stream(void)
{
    STREAM(SCHEMA_V1, "|00000001|0001|a|00000002|0000||000", "++", 16, 31);
    STREAM(SCHEMA_V1, "|00000001|0001|a|0000x002|0000|", "+-", 16, 22);
    STREAM(SCHEMA_V2, "\0\0\0\0\0\0\0\1\0\0\0\1a\0\0\0\0\0\0\0\2\0\0\0\0\0", "++", 13, 25);
    STREAM(SCHEMA_V2, "\0\0\0\0\0\0\0\1\0\1\0\0abc", "-", 12);
    STREAM(SCHEMA_FIX, FIX_A FIX_B FIX_A, "+++", 32, 59, 91);
    STREAM(SCHEMA_FIX, "x8=FIX 8=FIX.4.1" FIX_A "\r\n" FIX_A "8=FIX.4.1\0019=1", "-+-+", 16, 48, 50,
           82);
    STREAM(SCHEMA_V3, "\0\2\x18\7\x09\x09\1\0\0\0\0\0\0\0\5", "+++", 1, 4, 14);
    STREAM(SCHEMA_V3, "\1x\xff\xff\xffmore", "+-", 2, 5);
    STREAM(SCHEMA_V4, "\0\0\0\0\1\0\0\0abcdefgh\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", "++",
           16, 32);
    STREAM(SCHEMA_V4, "\0\0\0\0\0\0\0\0\x09\0\0\0more", "+-", 8, 12);
    STREAM(SCHEMA_V4, "\0\0\0\0\xff\xff\0\0more", "-", 8);
    /* A length that leads into the next message costs that one nothing. */
    STREAM(SCHEMA_FIX, "8=FIX.4.1\0019=25\00135=0\00158=a\00110=216\001" FIX_A FIX_A, "-++", 32, 64,
           96);
    /* Cut off, and the next begins. */
    STREAM(SCHEMA_FIX, "8=FIX.4.1\0019=10\00135=0\001" FIX_A, "-+", 20, 52);
}

/* Of what never ends, as much as the smallest buffer holds. */
static void test_garbage(void)
{
    static char bytes[10000];
    memset(bytes, '8', sizeof(bytes));
    struct found found[4];
    for (uint32_t step = 1; step <= sizeof(bytes); step += 997) {
        CU_ASSERT_EQUAL(stream(SCHEMA_FIX, bytes, sizeof(bytes), step, found, 4), 2);
        CU_ASSERT(found[0].length == 4096 && found[1].length == 4096);
        CU_ASSERT(!found[0].well_formed && !found[1].well_formed);
    }
}

static void test_fix(void)
{
    struct frame frame = frame_next(SCHEMA_FIX, (const uint8_t *)FIX_A FIX_B, 59);
    CU_ASSERT(frame.well_formed && frame.length == 32);
    frame = frame_next(SCHEMA_FIX, (const uint8_t *)FIX_B, 27);
    CU_ASSERT(frame.well_formed && frame.length == 27);
    check(SCHEMA_FIX, "x", 1, XXH3_X, 1, false);
    check(SCHEMA_FIX, "", 0, XXH3_EMPTY, 0, false);
    /* In a datagram nothing follows a malformed one. */
    frame = frame_next(SCHEMA_FIX, (const uint8_t *)"x" FIX_A, 33);
    CU_ASSERT(!frame.well_formed && frame.length == 33);
}

/* ---- segments ---- */

/* Three messages, of 3, 0 and 2 bytes, the first with number 1,000 and 500 bytes into the stream. */
static const uint8_t
    three[51] = {1,   0,   3,   0x80, 7, 0,           0, 0,           9,  0,        0,
                 0,   11,  0,   3,    0, [16] = 0xf4, 1, [24] = 0xe8, 3,  [40] = 3, 0,
                 'a', 'b', 'c', 0,    0, 2,           0, 'd',         'e'};

static void test_segment(void)
{
    static const uint32_t at[] = {40, 45, 47}, bytes[] = {5, 2, 4};
    static const char *const messages[] = {"\3\0abc", "\0\0", "\2\0de"};
    struct segment segment;
    uint8_t out[64];

    CU_ASSERT_FATAL(segment_read(three, sizeof(three), &segment));
    CU_ASSERT(segment.first == 1000 && segment.count == 3);
    CU_ASSERT(segment.channel == 7 && segment.session == 9 && segment.protocol == 0x8003);
    for (uint32_t i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(segment_message_bytes(three + at[i]), bytes[i]);
        CU_ASSERT_EQUAL(segment_alone(three, at[i], 1000 + i, out), 40 + bytes[i]);
        CU_ASSERT(memcmp(out + 40, messages[i], bytes[i]) == 0);
        CU_ASSERT(out[12] == bytes[i] && out[14] == 1 && out[24] == 0xe8 + i);
        CU_ASSERT_EQUAL(out[16] + 256 * out[17], 500 + at[i] - 40);
        struct frame frame = frame_next(SCHEMA_IEX, out, 40 + bytes[i]);
        CU_ASSERT(frame.well_formed && frame.id == 1000 + i && frame.length == 40 + bytes[i]);
    }
    CU_ASSERT(!frame_next(SCHEMA_IEX, three, sizeof(three)).well_formed);
}

/* Every length but the right one, and each byte of the header and of lengths wrong. */
static void test_segment_broken(void)
{
    struct segment segment;
    uint8_t bytes[sizeof(three) + 8] = {0};
    for (uint32_t length = 0; length < sizeof(three); length++) {
        uint8_t *exact = malloc(length + 1);
        memcpy(exact + 1, three, length);
        CU_ASSERT(!segment_read(exact + 1, length, &segment));
        free(exact);
    }
    static const uint8_t matter[] = {0, 2, 3, 12, 13, 14, 15, 40, 41, 45, 46, 47, 48};
    for (size_t i = 0; i < sizeof(matter); i++) {
        memcpy(bytes, three, sizeof(three));
        bytes[matter[i]] ^= 0x20;
        CU_ASSERT(!segment_read(bytes, sizeof(three), &segment));
    }
    memcpy(bytes, three, sizeof(three));
    CU_ASSERT(segment_read(bytes, sizeof(bytes), &segment)); /* more than its payload */
    bytes[2] = 4;                                            /* DEEP */
    CU_ASSERT(segment_read(bytes, sizeof(bytes), &segment));
    memset(bytes + 12, 0, 4); /* a heartbeat */
    CU_ASSERT(segment_read(bytes, 40, &segment) && segment.count == 0);
}

/* ---- frame and schema agree ---- */

static uint64_t seed = 0x243f6a8885a308d3;

static uint32_t chance(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 32) % below);
}

/* A right request of up to 40 bytes of payload, then up to three bytes changed, and perhaps cut. */
static uint32_t mutate(const struct schema *schema, uint8_t *bytes)
{
    static const uint8_t likely_bytes[] = "|09/:\0\1\xff";
    uint32_t payload = chance(40);
    uint32_t length = schema->header_bytes + payload;
    schema->serialise(bytes, sizeof(bytes), &(struct message){.id = chance(100000000)}, payload);
    for (uint32_t i = 0; i < payload; i++)
        bytes[schema->header_bytes + i] = (uint8_t)chance(256);
    for (uint32_t n = chance(4); n > 0; n--)
        bytes[chance(schema->header_bytes + 2)] =
            chance(2) ? likely_bytes[chance(8)] : (uint8_t)chance(256);
    return chance(4) ? length : chance(length + 1);
}

static void agree(enum config_schema which)
{
    const struct schema *schema = schema_of(which);
    unsigned int wrong = 0, good = 0;
    for (int i = 0; i < 200000; i++) {
        uint8_t bytes[64];
        struct message message = {0};
        uint32_t length = mutate(schema, bytes);
        uint8_t *exact = malloc(length + 1); /* ends where the datagram does, for the sanitizer */
        uint8_t *data = exact + 1;
        memcpy(data, bytes, length);
        struct frame frame = frame_next(which, data, length);
        int result = schema->parse(data, frame.length, &message);
        if (frame.well_formed != (result == 0) || (!frame.well_formed && frame.length != length) ||
            (frame.well_formed &&
             (frame.id != message.id || message.payload != data + schema->header_bytes ||
              frame.length != schema->header_bytes + message.length)))
            wrong++;
        good += frame.well_formed;
        free(exact);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(good > 40000 && good < 160000); /* both kinds are there */
}

static void test_agree_v1(void)
{
    agree(SCHEMA_V1);
}

static void test_agree_v2(void)
{
    agree(SCHEMA_V2);
}

/* A sum that is wrong is the parser's to see; all else both see alike. */
static void test_agree_fix(void)
{
    static const uint8_t likely_bytes[] = "80/9=1.\001TFIX";
    const struct schema *schema = schema_of(SCHEMA_FIX);
    unsigned int wrong = 0, good = 0;
    for (int i = 0; i < 200000; i++) {
        uint8_t bytes[64] = FIX_A;
        uint32_t length = sizeof(FIX_A) - 1;
        struct message message = {0};
        for (uint32_t n = chance(4); n > 0; n--)
            bytes[chance(length)] = chance(2) ? likely_bytes[chance(12)] : (uint8_t)chance(256);
        length = chance(4) ? length : chance(length + 1);
        uint8_t *exact = malloc(length + 1);
        uint8_t *data = exact + 1;
        memcpy(data, bytes, length);
        struct frame frame = frame_next(SCHEMA_FIX, data, length);
        int result = schema->parse(data, frame.length, &message);
        bool framed = result == 0 || SCHEMA_REASON(result) == REASON_bad_checksum;
        if (frame.well_formed != framed || (!frame.well_formed && frame.length != length) ||
            (result == 0 && (message.payload < data ||
                             message.payload + message.length + 7 != data + frame.length)))
            wrong++;
        good += result == 0;
        free(exact);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(good > 20000 && good < 160000);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"v1", test_v1},
        {"v2", test_v2},
        {"v2, too long", test_v2_too_long},
        {"datagram", test_datagram},
        {"several in a datagram", test_walk},
        {"agrees with the v1 parser, 200,000 mutations", test_agree_v1},
        {"agrees with the v2 parser, 200,000 mutations", test_agree_v2},
        {"agrees with the FIX parser, 200,000 mutations", test_agree_fix},
        {"FIX", test_fix},
        {"streams, cut at every byte", test_stream},
        {"a stream of garbage", test_garbage},
        {"segment", test_segment},
        {"segment, broken", test_segment_broken},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "frame", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
