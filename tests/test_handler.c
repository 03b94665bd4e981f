/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/clock.h"
#include "tests/unit.h"
#include "worker/handler.h"

enum {
    REJECTED = HANDLER_REJECT(REASON_bad_payload),
    TOO_BIG = HANDLER_REJECT(REASON_reply_too_big)
};

/* The reply of `handler` to a text. NULL: rejected with `result`. */
static void check(const struct handler *handler, const char *in, const char *expected)
{
    uint8_t out[64];
    memset(out, '#', sizeof(out));
    int result = handler->handle((const uint8_t *)in, (uint32_t)strlen(in), out, sizeof(out) - 1);
    if (!expected) {
        CU_ASSERT_EQUAL(result, REJECTED);
        return;
    }
    CU_ASSERT_EQUAL_FATAL(result, (int)strlen(expected));
    CU_ASSERT(memcmp(out, expected, strlen(expected)) == 0);
    CU_ASSERT_EQUAL(out[result], '#'); /* and not a byte more */
}

static const struct handler *opened_rot1(void)
{
    char error[CONFIG_ERROR_MAX];
    CU_ASSERT_EQUAL(handler_rot1.open(NULL, error), 0);
    return &handler_rot1;
}

static void test_rot1(void)
{
    const struct handler *rot1 = opened_rot1();
    check(rot1, "abcdefgh", "bcdefghi");
    check(rot1, "xyz XYZ", "yza YZA");
    check(rot1, "Hello, World 09!", "Ifmmp, Xpsme 09!");
    check(rot1, "", "");
}

static void test_rot1_every_byte(void)
{
    static const char from[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char to[] = "bcdefghijklmnopqrstuvwxyzaBCDEFGHIJKLMNOPQRSTUVWXYZA";
    const struct handler *rot1 = opened_rot1();
    for (int byte = 0; byte < 256; byte++) {
        uint8_t in = (uint8_t)byte, out = 0;
        const char *letter = byte ? strchr(from, byte) : NULL;
        CU_ASSERT_EQUAL(rot1->handle(&in, 1, &out, 1), 1);
        CU_ASSERT_EQUAL(out, letter ? (uint8_t)to[letter - from] : in);
    }
}

static void test_fizzbuzz(void)
{
    static const char *const known[][2] = {
        {"1", "1"},
        {"2", "2"},
        {"3", "Fizz"},
        {"4", "4"},
        {"5", "Buzz"},
        {"6", "Fizz"},
        {"9", "Fizz"},
        {"10", "Buzz"},
        {"15", "FizzBuzz"},
        {"30", "FizzBuzz"},
        {"31", "31"},
        {"0", "FizzBuzz"},
        {"000", "FizzBuzz"},
        {"0007", "0007"},
        {"0003", "Fizz"},
        {"999999999999999999", "Fizz"},
        {"999999999999999995", "Buzz"},
        {"999999999999999990", "FizzBuzz"},
        {"999999999999999998", "999999999999999998"},
        {"000000000000000001", "000000000000000001"},
        {"", NULL},
        {"1000000000000000000", NULL}, /* 19 digits */
        {"0000000000000000003", NULL},
        {"-3", NULL},
        {"+3", NULL},
        {"3 ", NULL},
        {" 3", NULL},
        {"3.0", NULL},
        {"0x3", NULL},
        {"12a", NULL},
        {"a", NULL},
        {"/", NULL},
        {":", NULL},
        {"\xb3", NULL},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        check(&handler_fizzbuzz, known[i][0], known[i][1]);
    uint8_t out[8];
    CU_ASSERT_EQUAL(handler_fizzbuzz.handle((const uint8_t *)"3\0"
                                                             "3",
                                            3, out, 8),
                    REJECTED);
}

/* A reply that does not fit is refused before a byte of it is written. */
static void test_capacity(void)
{
    const struct handler *rot1 = opened_rot1();
    uint8_t out[16];
    memset(out, '#', sizeof(out));
    CU_ASSERT_EQUAL(rot1->handle((const uint8_t *)"abcd", 4, out, 3), TOO_BIG);
    CU_ASSERT_EQUAL(handler_fizzbuzz.handle((const uint8_t *)"15", 2, out, 7), TOO_BIG);
    CU_ASSERT_EQUAL(handler_fizzbuzz.handle((const uint8_t *)"3", 1, out, 3), TOO_BIG);
    CU_ASSERT_EQUAL(handler_fizzbuzz.handle((const uint8_t *)"31", 2, out, 1), TOO_BIG);
    CU_ASSERT(memcmp(out, "################", 16) == 0);
    CU_ASSERT_EQUAL(rot1->handle((const uint8_t *)"abcd", 4, out, 4), 4);
    CU_ASSERT_EQUAL(handler_fizzbuzz.handle((const uint8_t *)"15", 2, out, 8), 8);
    CU_ASSERT_EQUAL(HANDLER_REASON(TOO_BIG), REASON_reply_too_big);
    CU_ASSERT_EQUAL(HANDLER_REASON(REJECTED), REASON_bad_payload);
    CU_ASSERT_EQUAL(HANDLER_REASON(HANDLER_REJECT(REASON_empty)), REASON_empty);
    CU_ASSERT(HANDLER_REJECT(REASON_empty) != HANDLER_FILTERED);
}

/* Opens spin with the lines of its section; 0, or its refusal with one line in `error`. */
static int open_spin(const char *lines, char error[CONFIG_ERROR_MAX])
{
    char text[256];
    struct config config;
    snprintf(text, sizeof(text), "[worker]\nhandler = spin\n[handler.spin]\n%s", lines);
    CU_ASSERT_EQUAL_FATAL(config_parse(&config, text, strlen(text), "x.ini", error), 0);
    int result = handler_spin.open(&config, error);
    config_free(&config);
    return result;
}

/* The least of 20 times that handle() takes, ns. */
static uint64_t spin_least_ns(void)
{
    uint8_t out[64];
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 20; i++) {
        struct clock_pair begin = clock_pair_read(NULL);
        CU_ASSERT_EQUAL(handler_spin.handle((const uint8_t *)"abc", 3, out, sizeof(out)), 3);
        struct clock_pair end = clock_pair_read(NULL);
        CU_ASSERT(memcmp(out, "abc", 3) == 0);
        least = end.raw_ns - begin.raw_ns < least ? end.raw_ns - begin.raw_ns : least;
    }
    return least;
}

/* By the kernel's clock, not by the one it counts with. */
static void test_spin_takes_its_time(void)
{
    static const struct {
        const char *lines;
        uint64_t ns;
    } cases[] = {{"", 20000}, {"time = 100us\n", 100000}, {"time = 0.3ms\n", 300000}};
    char error[CONFIG_ERROR_MAX];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CU_ASSERT_EQUAL_FATAL(open_spin(cases[i].lines, error), 0);
        uint64_t least = spin_least_ns();
        CU_ASSERT(least >= cases[i].ns - cases[i].ns / 1000);
        CU_ASSERT(least <= cases[i].ns + 2000);
    }
    CU_ASSERT_EQUAL_FATAL(open_spin("time = 100ns\n", error), 0);
    check(&handler_spin, "xyz XYZ", "xyz XYZ");
    check(&handler_spin, "", "");
}

static void test_spin_refuses(void)
{
    static const char *const cases[][2] = {
        {"time = 99ns\n", "x.ini:4: handler.spin.time = 99ns: expected a time from 100ns to 10ms; "
                          "try 100ns"},
        {"time = 11ms\n", "x.ini:4: handler.spin.time = 11ms: expected a time from 100ns to 10ms; "
                          "try 10ms"},
        {"time = 20\n",
         "x.ini:4: handler.spin.time = 20: expected a time from 100ns to 10ms; try 20us"},
        {"tiem = 1us\n",
         "x.ini:4: handler.spin.tiem = 1us: no such key of this handler; expected one of time"},
    };
    char error[CONFIG_ERROR_MAX];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CU_ASSERT(open_spin(cases[i][0], error) < 0);
        CU_ASSERT_STRING_EQUAL(error, cases[i][1]);
    }
}

static void test_found(void)
{
    CU_ASSERT_PTR_EQUAL(handler_find("rot1"), &handler_rot1);
    CU_ASSERT_PTR_EQUAL(handler_find("fizzbuzz"), &handler_fizzbuzz);
    CU_ASSERT_PTR_EQUAL(handler_find("spin"), &handler_spin);
    CU_ASSERT_PTR_NULL(handler_find("rot"));
    CU_ASSERT_PTR_NULL(handler_find(""));
    CU_ASSERT_PTR_NULL(handler_find("rot13"));
    char names[256];
    snprintf(names, sizeof(names), "%s", handler_names());
    CU_ASSERT_STRING_EQUAL(handler_names(), names); /* asked twice, said once */
    CU_ASSERT(strncmp(names, "rot1, fizzbuzz", 14) == 0);
    for (char *name = strtok(names, ", "); name; name = strtok(NULL, ", ")) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(handler_find(name));
        CU_ASSERT_STRING_EQUAL(handler_find(name)->name, name);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"rot1", test_rot1},
        {"rot1, every byte", test_rot1_every_byte},
        {"fizzbuzz", test_fizzbuzz},
        {"no room for the reply", test_capacity},
        {"spin", test_spin_takes_its_time},
        {"spin, what it refuses", test_spin_refuses},
        {"found by name", test_found},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "handler", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
