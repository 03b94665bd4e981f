/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/decimal.h"
#include "tests/unit.h"
#include "worker/schema.h"

#include <stdlib.h>

#define BYTES(text) (const uint8_t *)(text), (uint32_t)(sizeof(text) - 1)

/* ---- well-formed ---- */

static void test_parsed(void)
{
    static const struct {
        enum config_schema schema;
        const char *bytes;
        uint32_t length;
        uint64_t id;
        uint32_t at, payload;
    } good[] = {
        {SCHEMA_V1, "|00000001|0008|abcdefgh", 23, 1, 15, 8},
        {SCHEMA_V1, "|00000000|0000|", 15, 0, 15, 0},
        {SCHEMA_V1, "|99999999|0001|\0", 16, 99999999, 15, 1},
        {SCHEMA_V1, "|00000042|0003|a|b", 18, 42, 15, 3},
        {SCHEMA_V1, "|12345678|0002|abcdefgh", 23, 12345678, 15, 2}, /* framing gives no more */
        {SCHEMA_V2, "\0\0\0\0\0\0\0\1\0\0\0\3abc", 15, 1, 12, 3},
        {SCHEMA_V2, "\0\0\0\0\0\0\0\0\0\0\0\0", 12, 0, 12, 0},
        {SCHEMA_V2, "\1\2\3\4\5\6\7\x8\0\0\0\1x", 13, 0x0102030405060708, 12, 1},
        {SCHEMA_V2, "\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\1x", 13, UINT64_MAX, 12, 1},
        {SCHEMA_DATAGRAM, "anything", 8, 0, 0, 8},
        {SCHEMA_DATAGRAM, "", 0, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        const uint8_t *bytes = (const uint8_t *)good[i].bytes;
        struct message message = {0};
        CU_ASSERT_EQUAL(schema_of(good[i].schema)->parse(bytes, good[i].length, &message), 0);
        CU_ASSERT_EQUAL(message.id, good[i].id);
        CU_ASSERT_PTR_EQUAL(message.payload, bytes + good[i].at);
        CU_ASSERT_EQUAL(message.length, good[i].payload);
    }
}

/* ---- malformed ---- */

struct bad {
    const uint8_t *bytes;
    uint32_t length;
    enum reason reason;
};

static void check_rejected(enum config_schema schema, const struct bad *bad, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct message message;
        /* A copy that ends where the request does, so that a sanitizer sees a read beyond it. */
        uint8_t *copy = malloc(bad[i].length + (bad[i].length == 0));
        if (bad[i].length)
            memcpy(copy, bad[i].bytes, bad[i].length);
        int result = schema_of(schema)->parse(copy, bad[i].length, &message);
        CU_ASSERT(result < 0);
        CU_ASSERT_EQUAL(SCHEMA_REASON(result), bad[i].reason);
        free(copy);
    }
}

static void test_v1_rejected(void)
{
    static const struct bad bad[] = {
        {BYTES(""), REASON_empty},
        {BYTES("|"), REASON_truncated},
        {BYTES("|0000000"), REASON_truncated},
        {BYTES("|00000001"), REASON_truncated},
        {BYTES("|00000001|"), REASON_truncated},
        {BYTES("|00000001|0008"), REASON_truncated},
        {BYTES("|00000001|0008|"), REASON_truncated},
        {BYTES("|00000001|0008|abcdefg"), REASON_truncated},
        {BYTES("|00000001|9999|abcdefgh"), REASON_truncated},
        {BYTES("x"), REASON_bad_header},
        {BYTES("\0"), REASON_bad_header},
        {BYTES("00000001|0008|abcdefgh"), REASON_bad_header},
        {BYTES("|000000010008|abcdefgh"), REASON_bad_header},
        {BYTES("|00000001x0008|abcdefgh"), REASON_bad_header},
        {BYTES("|00000001|0008abcdefgh"), REASON_bad_header},
        {BYTES("|00000001|0008x"), REASON_bad_header},
        {BYTES("|000000011|0008|abcdefgh"), REASON_bad_header},
        {BYTES(" |00000001|0008|abcdefgh"), REASON_bad_header},
        {BYTES("|0000000a|0008|abcdefgh"), REASON_bad_digit},
        {BYTES("|-0000001|0008|abcdefgh"), REASON_bad_digit},
        {BYTES("| 0000001|0008|abcdefgh"), REASON_bad_digit},
        {BYTES("|0000001|0008|abcdefgh"), REASON_bad_digit}, /* the separator comes too early */
        {BYTES("|00000001|000x|abcdefgh"), REASON_bad_digit},
        {BYTES("|00000001|00:8|abcdefgh"), REASON_bad_digit}, /* the character after 9 */
        {BYTES("|0000/001|0008|abcdefgh"), REASON_bad_digit}, /* the one before 0 */
        {BYTES("|00000001|\xb1\xb2\xb3\xb4|"), REASON_bad_digit},
        {BYTES("||"), REASON_bad_digit},
        {BYTES("|x"), REASON_bad_digit},              /* wrong before short */
        {BYTES("|0000000x-0008|"), REASON_bad_digit}, /* the first violation decides */
        {BYTES("|00000001-000x|"), REASON_bad_header},
    };
    check_rejected(SCHEMA_V1, bad, sizeof(bad) / sizeof(bad[0]));
}

static void test_v2_rejected(void)
{
    static const struct bad bad[] = {
        {BYTES(""), REASON_empty},
        {BYTES("\0"), REASON_truncated},
        {BYTES("\0\0\0\0\0\0\0\1"), REASON_truncated},
        {BYTES("\0\0\0\0\0\0\0\1\0\0\0"), REASON_truncated},
        {BYTES("\0\0\0\0\0\0\0\1\0\0\0\1"), REASON_truncated},
        {BYTES("\0\0\0\0\0\0\0\1\0\0\0\3ab"), REASON_truncated},
        {BYTES("\0\0\0\0\0\0\0\1\0\0\xff\xff"
               "ab"),
         REASON_truncated}, /* 65,535 is no bad length */
        {BYTES("\0\0\0\0\0\0\0\1\0\1\0\0ab"), REASON_bad_length},
        {BYTES("\0\0\0\0\0\0\0\1\3\0\0\0abc"), REASON_bad_length}, /* little-endian */
        {BYTES("\0\0\0\0\0\0\0\1\xff\xff\xff\xff"), REASON_bad_length},
    };
    check_rejected(SCHEMA_V2, bad, sizeof(bad) / sizeof(bad[0]));
}

/* Sums by hand: tests/test_reference.py has the same ones. */
#define FIX_GOOD "8=FIX.4.1\0019=10\00135=0\00158=a\00110=216\001"

static void test_fix(void)
{
    static const struct bad bad[] = {
        {BYTES(""), REASON_empty},
        {BYTES("8=FI"), REASON_truncated},
        {BYTES("8=FIX.4.1\0019=10"), REASON_truncated},
        {BYTES("8=FIX.4.1\0019=11\00135=0\00158=a\00110=216\001"), REASON_truncated},
        {BYTES("8=FIX.4.1\0019=9\00135=0\00158=a\00110=216\001"), REASON_wrong_length},
        {BYTES("8=FIX.4.1\0019=10\00135=0\00158=ab10=216\001"), REASON_wrong_length},
        {BYTES("8=FIX.4.1\0019=10\00135=0\00158=a\00110=2160"), REASON_wrong_length},
        {BYTES("8=FIX.4.1\0019=10\00135=0\00158=a\00110=2x6\001"), REASON_bad_digit},
        {BYTES("8=FIX.4.1\0019=10\00135=0\00158=a\00110=215\001"), REASON_bad_checksum},
        {BYTES("8=FIX.4.1\0019=10\00135=0\00158=a\00110=472\001"), REASON_bad_checksum},
        {BYTES("8=FIX.4.1\0019=1x\00135=0"), REASON_bad_digit},
        {BYTES("8=FIX.4.1\0019=\00135=0"), REASON_bad_digit},
        {BYTES("8=FIX.4.1\0019=65536\001"), REASON_bad_length},
        {BYTES("8=FIX.4.1\0019=000000010\001"), REASON_bad_length},
        {BYTES("8=FIX.4:1\0019=10\001"), REASON_bad_header},
        {BYTES("8=FIXX4.1\0019=10\001"), REASON_bad_header},
        {BYTES("9=10\0018=FIX.4.1\001"), REASON_bad_header},
    };
    const struct schema *fix = schema_of(SCHEMA_FIX);
    uint8_t out[64];
    struct message message;

    check_rejected(SCHEMA_FIX, bad, sizeof(bad) / sizeof(bad[0]));
    CU_ASSERT_EQUAL_FATAL(fix->parse(BYTES(FIX_GOOD), &message), 0);
    CU_ASSERT_EQUAL(message.length, 10);
    CU_ASSERT(memcmp(message.payload, "35=0\00158=a\001", 10) == 0);
    /* The same payload back: the same message. Another begin: longer by one. */
    memcpy(out + fix->header_bytes, message.payload, 10);
    CU_ASSERT_EQUAL(fix->serialise(out, sizeof(out), &message, 10), sizeof(FIX_GOOD) - 1);
    CU_ASSERT(memcmp(out, FIX_GOOD, sizeof(FIX_GOOD) - 1) == 0);
    message.whole = (const uint8_t *)"8=FIXT.1.1\001";
    memcpy(out + fix->header_bytes, message.payload, 10);
    CU_ASSERT_EQUAL(fix->serialise(out, sizeof(out), &message, 10), sizeof(FIX_GOOD));
    CU_ASSERT_EQUAL(fix->parse(out, sizeof(FIX_GOOD), &message), 0);
    /* Room for all but one byte. */
    int result = fix->serialise(out, sizeof(FIX_GOOD) - 1, &message, 10);
    CU_ASSERT_EQUAL(SCHEMA_REASON(result), REASON_reply_too_big);
}

/* ---- v3 and v4: what their libraries make of them; tests/test_judge.py has many more ---- */

#define V3_GOOD "\x0e\x09\x08\7\6\5\4\3\2\1\x12\3abc"
#define V4_GOOD                                                                                    \
    "\0\0\0\0\4\0\0\0"                                                                             \
    "\0\0\0\0\1\0\1\0"                                                                             \
    "\x08\7\6\5\4\3\2\1"                                                                           \
    "\1\0\0\0\x1a\0\0\0"                                                                           \
    "abc\0\0\0\0\0"

/* Parses what is at an odd address as well, and writes the same bytes again. */
static void round_trip(enum config_schema form, const char *bytes, uint32_t length)
{
    const struct schema *schema = schema_of(form);
    uint8_t out[128];
    struct message message;

    for (uint32_t odd = 0; odd < 2; odd++) {
        uint8_t *copy = malloc(length + odd);
        memcpy(copy + odd, bytes, length);
        CU_ASSERT_EQUAL_FATAL(schema->parse(copy + odd, length, &message), 0);
        CU_ASSERT_EQUAL(message.id, 0x0102030405060708);
        CU_ASSERT_FATAL(message.length == 3 && memcmp(message.payload, "abc", 3) == 0);
        memset(out, '.', sizeof(out));
        memcpy(out + schema->header_bytes, message.payload, message.length);
        CU_ASSERT_EQUAL(schema->serialise(out, sizeof(out), &message, 3), length);
        CU_ASSERT(memcmp(out, bytes, length) == 0 && out[length] == '.');
        free(copy);
    }
}

static void test_v3(void)
{
    static const struct bad bad[] = {
        {BYTES(""), REASON_empty},
        {BYTES("\x0e"), REASON_truncated},
        {BYTES("\x8e"), REASON_truncated},
        {BYTES("\x0e\x09\x08\7\6\5\4\3\2\1\x12\3ab"), REASON_truncated},
        {BYTES("\xff\xff\xff"), REASON_bad_length},
        {BYTES("\x80\x80\x04"), REASON_bad_length},
        {BYTES("\x0e\x09\x08\7\6\5\4\3\2\1\x12\4abc"), REASON_bad_encoding},
        {BYTES("\2\x08\1"), REASON_bad_encoding},  /* the id as a varint */
        {BYTES("\2\0\0"), REASON_bad_encoding},    /* field 0 */
        {BYTES("\1\x1b"), REASON_bad_encoding},    /* a group */
        {BYTES("\5\x1d\1\2\3"), REASON_truncated}, /* not so many bytes */
        {BYTES("\4\x1d\1\2\3"), REASON_bad_encoding},
    };
    struct message message;
    check_rejected(SCHEMA_V3, bad, sizeof(bad) / sizeof(bad[0]));
    round_trip(SCHEMA_V3, V3_GOOD, sizeof(V3_GOOD) - 1);
    /* What is not there has its default, what is unknown is passed over, the last counts. */
    CU_ASSERT_EQUAL(schema_of(SCHEMA_V3)->parse(BYTES("\0"), &message), 0);
    CU_ASSERT(message.id == 0 && message.length == 0);
    CU_ASSERT_EQUAL(schema_of(SCHEMA_V3)->parse(BYTES("\x09\x12\1x\x18\7\x12\2yz"), &message), 0);
    CU_ASSERT(message.length == 2 && memcmp(message.payload, "yz", 2) == 0);
}

/* A message of fields that nobody knows takes more than there is: refused, and the next is read again. */
static void test_v3_exhausted(void)
{
    static uint8_t bytes[3 + 65000] = {0xe8, 0xfb, 0x03};
    struct message message;
    memset(bytes + 3, 0, sizeof(bytes) - 3);
    for (uint32_t i = 3; i < sizeof(bytes); i += 2)
        bytes[i] = 0x18;
    int result = schema_of(SCHEMA_V3)->parse(bytes, sizeof(bytes), &message);
    CU_ASSERT_EQUAL(SCHEMA_REASON(result), REASON_bad_encoding);
    round_trip(SCHEMA_V3, V3_GOOD, sizeof(V3_GOOD) - 1);
}

static void test_v4(void)
{
    static const struct bad bad[] = {
        {BYTES(""), REASON_empty},
        {BYTES("\0\0\0"), REASON_truncated},
        {BYTES("\0\0\0\0\4\0\0"), REASON_truncated},
        {BYTES("\0\0\0\0\4\0\0\0"), REASON_truncated},
        {BYTES("\x08\0\0\0\4\0\0\0"), REASON_bad_header},
        {BYTES("\xff\xff\xff\xff\4\0\0\0"), REASON_bad_header},
        {BYTES("\0\0\0\0\xff\x1f\0\0"), REASON_bad_length},
        {BYTES("\0\0\0\0\0\0\0\0"), REASON_bad_encoding},                 /* no root */
        {BYTES("\0\0\0\0\1\0\0\0\1\0\0\0\2\0\0\0"), REASON_bad_encoding}, /* a list */
        {BYTES("\0\0\0\0\1\0\0\0\0\0\0\0\1\0\1\0"), REASON_bad_encoding}, /* beyond the end */
        {BYTES("\0\0\0\0\1\0\0\0\2\0\0\0\0\0\0\0"), REASON_bad_encoding}, /* far */
        {BYTES("\0\0\0\0\2\0\0\0\0\0\0\0\0\0\1\0\xfc\xff\xff\xff\0\0\1\0"),
         REASON_bad_encoding}, /* the payload is a struct, and the one it is in */
    };
    struct message message;
    check_rejected(SCHEMA_V4, bad, sizeof(bad) / sizeof(bad[0]));
    round_trip(SCHEMA_V4, V4_GOOD, sizeof(V4_GOOD) - 1);
    /* A null root: all defaults. */
    const char *null = "\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0";
    CU_ASSERT_EQUAL(schema_of(SCHEMA_V4)->parse((const uint8_t *)null, 16, &message), 0);
    CU_ASSERT(message.id == 0 && message.length == 0);
}

#ifndef __SANITIZE_ADDRESS__
void *__libc_malloc(size_t size);

static _Atomic unsigned int mallocs;

void *malloc(size_t size)
{
    mallocs++;
    return __libc_malloc(size);
}

/* Good requests take no memory, with whatever payload. */
static void test_allocates_nothing(void)
{
    static _Alignas(8) uint8_t bytes[8192], out[8192];
    static const enum config_schema forms[] = {SCHEMA_V1, SCHEMA_V2,  SCHEMA_V3,
                                               SCHEMA_V4, SCHEMA_FIX, SCHEMA_IEX};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const struct schema *schema = schema_of(forms[i]);
        unsigned int before = mallocs;
        for (uint32_t payload = 30; payload < 4000; payload += 97) {
            struct message message;
            memset(bytes + schema->header_bytes, 'z', payload);
            bytes[schema->header_bytes + payload - 1] = 1; /* what FIX wants at its end */
            int length =
                schema->serialise(bytes, sizeof(bytes), &(struct message){.id = 9}, payload);
            CU_ASSERT_EQUAL_FATAL(schema->parse(bytes, (uint32_t)length, &message), 0);
            memcpy(out + schema->header_bytes, message.payload, message.length);
            CU_ASSERT_EQUAL(schema->serialise(out, sizeof(out), &message, message.length), length);
        }
        CU_ASSERT_EQUAL(mallocs, before);
    }
    free(malloc(1));
    CU_ASSERT(mallocs > 0);
}
#else
static void test_allocates_nothing(void)
{
    puts("not with a sanitizer: malloc is its own");
}
#endif

/* The longest payload each can write, and one byte less room than it takes. */
static void test_largest_replies(void)
{
    static uint8_t out[80000];
    static const enum config_schema forms[] = {SCHEMA_V3, SCHEMA_V4};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const struct schema *schema = schema_of(forms[i]);
        const struct message request = {.id = 5};
        struct message back;
        memset(out + schema->header_bytes, 'x', schema->payload_max);
        int bytes = schema->serialise(out, sizeof(out), &request, schema->payload_max);
        CU_ASSERT_FATAL(bytes > 0 && bytes <= 65535);
        CU_ASSERT_EQUAL(schema->parse(out, (uint32_t)bytes, &back), 0);
        CU_ASSERT(back.id == 5 && back.length == schema->payload_max);
        CU_ASSERT(back.payload[0] == 'x' && back.payload[back.length - 1] == 'x');
    }
    int result = schema_of(SCHEMA_V4)->serialise(out, 39, &(struct message){.id = 1}, 1);
    CU_ASSERT_EQUAL(SCHEMA_REASON(result), REASON_reply_too_big);
}

/* A segment of `count` messages at `messages`, of which the header says `payload` bytes. */
static uint32_t write_segment(uint8_t *out, uint32_t count, const char *messages, uint32_t bytes,
                              uint32_t payload)
{
    static const uint8_t header[40] = {1, 0, 4, 0x80, 7, 0, 0, 0, 9, [24] = 0x39, 0x30};
    memcpy(out, header, sizeof(header));
    out[12] = (uint8_t)payload;
    out[14] = (uint8_t)count;
    memcpy(out + 40, messages, bytes);
    return 40 + bytes;
}

#define EVENT "\x12\0EO12345678AAPL    " /* a security event, 18 bytes */

static void test_iex(void)
{
    static const struct {
        uint32_t count;
        const char *messages;
        uint32_t bytes, payload;
        int reason; /* -1: well-formed */
    } cases[] = {
        {1, EVENT, 20, 20, -1},
        {1, EVENT "x", 21, 20, -1},                   /* what follows is nobody's */
        {1, "\x03\0?ab", 5, 5, -1},                   /* an unknown type */
        {1, "\x13\0EO12345678AAPL    +", 21, 21, -1}, /* grown */
        {1, "\x11\0EO12345678AAPL   ", 19, 19, REASON_wrong_length},
        {1, "\0\0", 2, 2, REASON_wrong_length},
        {1, EVENT, 20, 21, REASON_truncated},
        {1, EVENT, 20, 19, REASON_wrong_length},
        {0, EVENT, 20, 20, REASON_wrong_length},
        {0, "", 0, 0, REASON_wrong_length},
        {2, EVENT EVENT, 40, 40, REASON_wrong_length},
        {1, EVENT EVENT, 40, 40, REASON_wrong_length},
        {1,
         "\xff\xff"
         "E",
         3, 3, REASON_wrong_length},
    };
    const struct schema *iex = schema_of(SCHEMA_IEX);
    struct message message;
    uint8_t bytes[128], out[128];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t length = write_segment(bytes, cases[i].count, cases[i].messages, cases[i].bytes,
                                        cases[i].payload);
        uint8_t *exact = malloc(length);
        memcpy(exact, bytes, length);
        int result = iex->parse(exact, length, &message);
        CU_ASSERT_EQUAL(result < 0 ? (int)SCHEMA_REASON(result) : -1, cases[i].reason);
        if (result == 0) {
            CU_ASSERT(message.id == 12345 && message.length == cases[i].payload - 2);
            memcpy(out + iex->header_bytes, message.payload, message.length);
            uint32_t back = (uint32_t)iex->serialise(out, sizeof(out), &message, message.length);
            CU_ASSERT(back == 40 + cases[i].payload && memcmp(out, exact, back) == 0);
        }
        free(exact);
    }
    uint32_t length = write_segment(bytes, 1, EVENT, 20, 20);
    static const struct {
        uint32_t at;
        uint8_t byte;
    } headers[] = {{0, 2}, {2, 2}, {2, 5}, {3, 0}};
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        memcpy(out, bytes, length);
        out[headers[i].at] = headers[i].byte;
        CU_ASSERT_EQUAL(SCHEMA_REASON(iex->parse(out, length, &message)), REASON_bad_header);
    }
    CU_ASSERT_EQUAL(SCHEMA_REASON(iex->parse(bytes, 0, &message)), REASON_empty);
    CU_ASSERT_EQUAL(SCHEMA_REASON(iex->parse(bytes, 39, &message)), REASON_truncated);
}

static void test_longest(void)
{
    static uint8_t bytes[12 + 65535] = {0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff};
    static uint8_t text[15 + 9999] = "|00000001|9999|";
    struct message message;
    CU_ASSERT_EQUAL(schema_of(SCHEMA_V2)->parse(bytes, sizeof(bytes), &message), 0);
    CU_ASSERT_EQUAL(message.length, 65535);
    CU_ASSERT_EQUAL(schema_of(SCHEMA_V1)->parse(text, sizeof(text), &message), 0);
    CU_ASSERT_EQUAL(message.length, 9999);
    int result = schema_of(SCHEMA_V1)->parse(text, sizeof(text) - 1, &message);
    CU_ASSERT_EQUAL(SCHEMA_REASON(result), REASON_truncated);
}

/* ---- replies ---- */

static void test_serialised(void)
{
    uint8_t out[32];
    memset(out, '.', sizeof(out));
    schema_of(SCHEMA_V1)->serialise(out, sizeof(out), &(struct message){.id = 42}, 8);
    CU_ASSERT(memcmp(out, "|00000042|0008|.", 16) == 0);
    schema_of(SCHEMA_V1)->serialise(out, sizeof(out), &(struct message){.id = 99999999}, 9999);
    CU_ASSERT(memcmp(out, "|99999999|9999|.", 16) == 0);
    schema_of(SCHEMA_V1)->serialise(out, sizeof(out), &(struct message){.id = 0}, 0);
    CU_ASSERT(memcmp(out, "|00000000|0000|.", 16) == 0);
    memset(out, '.', sizeof(out));
    schema_of(SCHEMA_V2)->serialise(out, sizeof(out), &(struct message){.id = 0x0102030405060708},
                                    0xfffe);
    CU_ASSERT(memcmp(out, "\1\2\3\4\5\6\7\x8\0\0\xff\xfe.", 13) == 0);
    memset(out, '.', sizeof(out));
    schema_of(SCHEMA_DATAGRAM)->serialise(out, sizeof(out), &(struct message){.id = 7}, 7);
    CU_ASSERT(memcmp(out, "....", 4) == 0);
}

/* Every number of four digits, many of eight, and every byte at every place. */
static void test_decimal(void)
{
    uint8_t digits[9];
    char text[24];
    uint64_t eight;
    uint32_t four;
    for (uint32_t value = 0; value < 10000; value++) {
        snprintf(text, sizeof(text), "%04u", value);
        decimal_write_4(digits, value + 30000);
        CU_ASSERT_FATAL(memcmp(digits, text, 4) == 0);
        CU_ASSERT_FATAL(decimal_read_4(digits, &four) && four == value);
    }
    for (uint64_t i = 0; i < 100000; i++) {
        uint64_t value = i < 10 ? 99999999 - i : i * 2654435761 % 100000000;
        snprintf(text, sizeof(text), "%08u", (unsigned)value);
        decimal_write_8(digits, value + (i % 3) * 100000000);
        CU_ASSERT_FATAL(memcmp(digits, text, 8) == 0);
        CU_ASSERT_FATAL(decimal_read_8(digits, &eight) && eight == value);
    }
    for (int at = 0; at < 8; at++) {
        for (int byte = 0; byte < 256; byte++) {
            memcpy(digits, "90817263", 8);
            digits[at] = (uint8_t)byte;
            bool digit = byte >= '0' && byte <= '9';
            CU_ASSERT_EQUAL(decimal_read_8(digits, &eight), digit);
            if (at < 4)
                CU_ASSERT_EQUAL(decimal_read_4(digits, &four), digit);
        }
    }
}

static void test_facts(void)
{
    static const struct {
        enum config_schema schema;
        const char *name;
        uint32_t header, longest;
    } facts[] = {{SCHEMA_V1, "v1", 15, 9999},
                 {SCHEMA_V2, "v2", 12, 65535},
                 {SCHEMA_V3, "v3", 16, 65519},
                 {SCHEMA_V4, "v4", 32, 65496},
                 {SCHEMA_FIX, "fix", 19, 65535},
                 {SCHEMA_IEX, "iex", 42, 65493},
                 {SCHEMA_DATAGRAM, "datagram", 0, 65535}};
    static const char *const reasons[] = {
        "empty",        "truncated",   "bad_header",    "bad_digit",    "bad_length",
        "oversized",    "bad_payload", "reply_too_big", "wrong_length", "bad_checksum",
        "bad_encoding", "full",        "poison"};
    for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
        const struct schema *schema = schema_of(facts[i].schema);
        CU_ASSERT_STRING_EQUAL(schema->name, facts[i].name);
        CU_ASSERT_EQUAL(schema->header_bytes, facts[i].header);
        CU_ASSERT_EQUAL(schema->payload_max, facts[i].longest);
    }
    CU_ASSERT_EQUAL_FATAL(REASON_COUNT, 13);
    for (int i = 0; i < REASON_COUNT; i++)
        CU_ASSERT_STRING_EQUAL(reason_name[i], reasons[i]);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"parsed", test_parsed},
        {"v1 rejected", test_v1_rejected},
        {"v2 rejected", test_v2_rejected},
        {"v3", test_v3},
        {"v3, too many fields", test_v3_exhausted},
        {"v4", test_v4},
        {"allocates nothing", test_allocates_nothing},
        {"v3 and v4, longest", test_largest_replies},
        {"fix", test_fix},
        {"iex", test_iex},
        {"longest", test_longest},
        {"serialised", test_serialised},
        {"decimal digits", test_decimal},
        {"names and sizes", test_facts},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "schema", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
