/* SPDX-License-Identifier: Apache-2.0 */
/* Framing, and that it agrees with the worker's parsers, which are written apart from it. */
#include "rx/frame.h"
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
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "frame", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
