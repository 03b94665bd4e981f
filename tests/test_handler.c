/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/clock.h"
#include "tests/unit.h"
#include "worker/host.h"
#include "worker/load.h"
#include "worker/mix.h"

#include <endian.h>
#include <math.h>

/* A handler as a worker opens it, with the lines of its section. */
struct opened {
    struct config config;
    struct host host;
    struct state_control control;
    uint64_t position;
};

/* 0, or the refusal with one line in `error`. */
static int open_with(struct opened *opened, const struct tickline_handler *handler,
                     const char *lines, char error[CONFIG_ERROR_MAX])
{
    char text[512];
    struct host *host = &opened->host;

    memset(opened, 0, sizeof(*opened));
    snprintf(text, sizeof(text), "[worker]\nhandler = %s\n[handler.%s]\n%s", handler->name,
             handler->name, lines);
    CU_ASSERT_EQUAL_FATAL(config_parse(&opened->config, text, strlen(text), "x.ini", error), 0);
    host_prepare(host, handler, &opened->config);
    host->context.checking = 0;
    host->context.ticks_per_second = 2.6e9;
    host->position = &opened->position;
    if (host_init(host) < 0)
        return host_blame(host, error);
    if (handler->state == TICKLINE_STATE_SHARED) {
        uint64_t bytes = host->context.state_bytes;
        host->state = (struct state){
            .control = &opened->control, .bytes = bytes, .working = aligned_alloc(64, 2 * bytes)};
        host->state.settled = host->state.working + bytes;
        memset(host->state.working, 0, 2 * bytes);
        host->context.state = host->state.working;
    }
    return 0;
}

static void open_it(struct opened *opened, const struct tickline_handler *handler,
                    const char *lines)
{
    char error[CONFIG_ERROR_MAX] = "";

    CU_ASSERT_EQUAL_FATAL(open_with(opened, handler, lines, error), 0);
}

static void close_it(struct opened *opened)
{
    if (opened->host.handler->fini)
        opened->host.handler->fini(&opened->host.context);
    free(opened->host.state.working);
    config_free(&opened->config);
}

static int32_t ask(struct opened *opened, const void *in, uint32_t length, void *out,
                   uint32_t capacity)
{
    const struct tickline_request request = {.id = 1, .payload = in, .length = length};

    return opened->host.handler->handle(&opened->host.context, &request, out, capacity);
}

/* The reply to a text. NULL: its payload is refused. */
static void check(struct opened *opened, const char *in, const char *expected)
{
    uint8_t out[64];
    memset(out, '#', sizeof(out));
    int result = ask(opened, in, (uint32_t)strlen(in), out, sizeof(out) - 1);
    if (!expected) {
        CU_ASSERT_EQUAL(result, TICKLINE_BAD_PAYLOAD);
        return;
    }
    CU_ASSERT_EQUAL_FATAL(result, (int)strlen(expected));
    CU_ASSERT(memcmp(out, expected, strlen(expected)) == 0);
    CU_ASSERT_EQUAL(out[result], '#'); /* and not a byte more */
}

static void test_rot1(void)
{
    struct opened rot1;
    open_it(&rot1, &handler_rot1, "");
    check(&rot1, "abcdefgh", "bcdefghi");
    check(&rot1, "xyz XYZ", "yza YZA");
    check(&rot1, "Hello, World 09!", "Ifmmp, Xpsme 09!");
    check(&rot1, "", "");
    close_it(&rot1);
}

static void test_rot1_every_byte(void)
{
    static const char from[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char to[] = "bcdefghijklmnopqrstuvwxyzaBCDEFGHIJKLMNOPQRSTUVWXYZA";
    struct opened rot1;
    open_it(&rot1, &handler_rot1, "");
    for (int byte = 0; byte < 256; byte++) {
        uint8_t in = (uint8_t)byte, out = 0;
        const char *letter = byte ? strchr(from, byte) : NULL;
        CU_ASSERT_EQUAL(ask(&rot1, &in, 1, &out, 1), 1);
        CU_ASSERT_EQUAL(out, letter ? (uint8_t)to[letter - from] : in);
    }
    close_it(&rot1);
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
    struct opened fizzbuzz;
    uint8_t out[8];
    open_it(&fizzbuzz, &handler_fizzbuzz, "");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        check(&fizzbuzz, known[i][0], known[i][1]);
    CU_ASSERT_EQUAL(ask(&fizzbuzz, "3\0003", 3, out, 8), TICKLINE_BAD_PAYLOAD);
    close_it(&fizzbuzz);
}

/* A reply that does not fit is refused before a byte of it is written. */
static void test_capacity(void)
{
    struct opened rot1, fizzbuzz;
    uint8_t out[16];
    open_it(&rot1, &handler_rot1, "");
    open_it(&fizzbuzz, &handler_fizzbuzz, "");
    memset(out, '#', sizeof(out));
    CU_ASSERT_EQUAL(ask(&rot1, "abcd", 4, out, 3), TICKLINE_REPLY_TOO_BIG);
    CU_ASSERT_EQUAL(ask(&fizzbuzz, "15", 2, out, 7), TICKLINE_REPLY_TOO_BIG);
    CU_ASSERT_EQUAL(ask(&fizzbuzz, "3", 1, out, 3), TICKLINE_REPLY_TOO_BIG);
    CU_ASSERT_EQUAL(ask(&fizzbuzz, "31", 2, out, 1), TICKLINE_REPLY_TOO_BIG);
    CU_ASSERT(memcmp(out, "################", 16) == 0);
    CU_ASSERT_EQUAL(ask(&rot1, "abcd", 4, out, 4), 4);
    CU_ASSERT_EQUAL(ask(&fizzbuzz, "15", 2, out, 8), 8);
    close_it(&rot1);
    close_it(&fizzbuzz);
}

/* The least of 20 times that handle() takes, ns. */
static uint64_t spin_least_ns(struct opened *spin)
{
    uint8_t out[64];
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 20; i++) {
        struct clock_pair begin = clock_pair_read(NULL);
        CU_ASSERT_EQUAL(ask(spin, "abc", 3, out, sizeof(out)), 3);
        struct clock_pair end = clock_pair_read(NULL);
        CU_ASSERT(memcmp(out, "abc", 3) == 0);
        least = end.raw_ns - begin.raw_ns < least ? end.raw_ns - begin.raw_ns : least;
    }
    return least;
}

/* What handle() must take for the id 1 by the formula that stands at the top of worker/spin.c. */
static uint64_t exponential_ns(uint64_t seed, uint64_t time_ns)
{
    double u = (double)(mix(mix(seed) + 1) >> 11) * 0x1p-53;

    return (uint64_t)round(-log(1 - u) * (double)time_ns);
}

static void open_spin(struct opened *spin, const char *lines, double hz)
{
    char error[CONFIG_ERROR_MAX];
    CU_ASSERT_EQUAL_FATAL(open_with(spin, &handler_spin, lines, error), 0);
    close_it(spin);
    /* Once more, with the clock there is. */
    char text[512];
    snprintf(text, sizeof(text), "[worker]\nhandler = spin\n[handler.spin]\n%s", lines);
    CU_ASSERT_EQUAL_FATAL(config_parse(&spin->config, text, strlen(text), "x.ini", error), 0);
    host_prepare(&spin->host, &handler_spin, &spin->config);
    spin->host.context.ticks_per_second = hz;
    CU_ASSERT_EQUAL_FATAL(host_init(&spin->host), 0);
}

static double calibrated_hz(void)
{
    const struct timespec base_line = {.tv_nsec = 20000000};
    struct clock_pair first = clock_pair_read(NULL);
    nanosleep(&base_line, NULL);
    struct clock_pair second = clock_pair_read(NULL);

    return clock_from_pairs(&first, &second).hz;
}

/* By the kernel's clock, not by the one it counts with. */
static void test_spin_takes_its_time(void)
{
    const struct {
        const char *lines;
        uint64_t ns;
    } cases[] = {
        {"", 20000},
        {"time = 100us\n", 100000},
        {"time = 0.3ms\n", 300000},
        {"time = 100us\ndistribution = exponential\nseed = 7\n", exponential_ns(7, 100000)},
        {"distribution = bimodal\nslow_share = 1\n", 200000},
        {"distribution = bimodal\nslow_share = 0\ntime = 40us\n", 40000},
    };
    struct opened spin;
    double hz = calibrated_hz();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        open_spin(&spin, cases[i].lines, hz);
        uint64_t least = spin_least_ns(&spin);
        CU_ASSERT(least >= cases[i].ns - cases[i].ns / 1000 - 2);
        CU_ASSERT(least <= cases[i].ns + 2000);
        close_it(&spin);
    }
    open_spin(&spin, "time = 100ns\n", hz);
    check(&spin, "xyz XYZ", "xyz XYZ");
    check(&spin, "", "");
    close_it(&spin);
}

static void test_refuses(void)
{
    static const struct {
        const struct tickline_handler *handler;
        const char *lines;
        const char *said;
    } cases[] = {
        {&handler_spin, "time = 99ns\n",
         "x.ini:4: handler.spin.time = 99ns: expected a time from 100ns to 10ms; try 100ns"},
        {&handler_spin, "time = 11ms\n",
         "x.ini:4: handler.spin.time = 11ms: expected a time from 100ns to 10ms; try 10ms"},
        {&handler_spin, "time = 20\n",
         "x.ini:4: handler.spin.time = 20: expected a time from 100ns to 10ms; try 20us"},
        {&handler_spin, "tiem = 1us\n",
         "x.ini:4: handler.spin.tiem = 1us: no such key of this handler; expected one of time, "
         "distribution, slow, slow_share, seed"},
        {&handler_spin, "distribution = normal\n",
         "x.ini:4: handler.spin.distribution = normal: expected constant, exponential or bimodal; "
         "try constant"},
        {&handler_rot1, "by = 13\n",
         "x.ini:4: handler.rot1.by = 13: no such key of this handler; expected none"},
        {&handler_book, "levels = 0\n",
         "x.ini:4: handler.book.levels = 0: expected a number from 1 to 4096; try 1"},
        {&handler_cachewalk, "size = 63B\n",
         "x.ini:4: handler.cachewalk.size = 63B: expected a size from 64B to 4GiB; try 64B"},
    };
    char error[CONFIG_ERROR_MAX];
    struct opened opened;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CU_ASSERT(open_with(&opened, cases[i].handler, cases[i].lines, error) < 0);
        CU_ASSERT_STRING_EQUAL(error, cases[i].said);
        if (strcmp(error, cases[i].said) != 0)
            printf("\n%s\n", error);
        close_it(&opened);
    }
}

/* ---- those that answer with the payload, in their own way ---- */

static void test_cachewalk(void)
{
    struct opened walk;
    open_it(&walk, &handler_cachewalk, "size = 1MiB\nsteps = 5\n");
    check(&walk, "abc", "abc");
    check(&walk, "", "");
    close_it(&walk);
    open_it(&walk, &handler_cachewalk, "size = 64\nsteps = 100\n"); /* one line, to itself */
    check(&walk, "abcdefghij", "abcdefghij");
    close_it(&walk);
}

static void test_alloc(void)
{
    char text[60] = {0};
    struct opened alloc;
    open_it(&alloc, &handler_alloc, "threshold = 7\ncopies = 3\n");
    for (size_t i = 0; i + 1 < sizeof(text); i++) {
        check(&alloc, text, text);
        text[i] = (char)('a' + i % 26);
    }
    close_it(&alloc);
}

/* ---- book ---- */

static void order(uint8_t out[24], char what, char side, uint32_t size, int64_t price,
                  const char *symbol)
{
    uint64_t price_be = htobe64((uint64_t)price);
    uint32_t size_be = htobe32(size);

    memset(out, 0, 24);
    out[0] = (uint8_t)what;
    out[1] = (uint8_t)side;
    memcpy(out + 4, &size_be, 4);
    memcpy(out + 8, &price_be, 8);
    for (size_t i = 0; i < 8 && symbol[i]; i++)
        out[16 + i] = (uint8_t)symbol[i];
}

struct best {
    int64_t bid, ask;
    uint32_t bids, asks;
};

static void expect_best(struct opened *book, char what, char side, uint32_t size, int64_t price,
                        struct best expected)
{
    uint8_t in[24], out[64];
    uint64_t prices[2];
    uint32_t sizes[2];

    order(in, what, side, size, price, "ABC");
    CU_ASSERT_EQUAL_FATAL(ask(book, in, 24, out, sizeof(out)), 32);
    state_commit(&book->host.state);
    memcpy(&prices[0], out + 8, 8);
    memcpy(&sizes[0], out + 16, 4);
    memcpy(&prices[1], out + 20, 8);
    memcpy(&sizes[1], out + 28, 4);
    CU_ASSERT(memcmp(out, "ABC\0\0\0\0", 8) == 0);
    CU_ASSERT_EQUAL((int64_t)be64toh(prices[0]), expected.bid);
    CU_ASSERT_EQUAL((int64_t)be64toh(prices[1]), expected.ask);
    CU_ASSERT_EQUAL(be32toh(sizes[0]), expected.bids);
    CU_ASSERT_EQUAL(be32toh(sizes[1]), expected.asks);
    /* What was announced is what was changed. */
    CU_ASSERT(memcmp(book->host.state.working, book->host.state.settled, book->host.state.bytes) ==
              0);
}

static void test_book(void)
{
    struct opened book;
    open_it(&book, &handler_book, "symbols = 2\nlevels = 3\n");
    expect_best(&book, 'q', 0, 0, 0, (struct best){0, 0, 0, 0});
    expect_best(&book, 'r', 'B', 5, 100, (struct best){0, 0, 0, 0});
    expect_best(&book, 'a', 'B', 5, 100, (struct best){100, 0, 5, 0});
    expect_best(&book, 'a', 'B', 5, 100, (struct best){100, 0, 10, 0});
    expect_best(&book, 'a', 'S', 7, 110, (struct best){100, 110, 10, 7});
    expect_best(&book, 'a', 'S', 1, 105, (struct best){100, 105, 10, 1});
    expect_best(&book, 'a', 'S', 2, 120, (struct best){100, 105, 10, 1});
    expect_best(&book, 'r', 'S', 9, 105, (struct best){100, 110, 10, 7});
    expect_best(&book, 'r', 'S', 7, 110, (struct best){100, 120, 10, 2});
    expect_best(&book, 'a', 'B', 1, 101, (struct best){101, 120, 1, 2});
    expect_best(&book, 'r', 'B', 4, 100, (struct best){101, 120, 1, 2});
    expect_best(&book, 'r', 'B', 1, 101, (struct best){100, 120, 6, 2});
    close_it(&book);
}

static void test_book_is_full(void)
{
    struct opened book;
    uint8_t in[24], out[32];
    open_it(&book, &handler_book, "symbols = 2\nlevels = 3\n");
    for (int i = 0; i < 3; i++)
        expect_best(&book, 'a', 'B', 1, 100 + i, (struct best){100 + i, 0, 1, 0});
    order(in, 'a', 'B', 1, 99, "ABC");
    CU_ASSERT_EQUAL(ask(&book, in, 24, out, 32), TICKLINE_FULL);
    order(in, 'a', 'B', 1, 99, "DEF");
    CU_ASSERT_EQUAL(ask(&book, in, 24, out, 32), 32);
    order(in, 'a', 'B', 1, 99, "GHI");
    CU_ASSERT_EQUAL(ask(&book, in, 24, out, 32), TICKLINE_FULL);
    state_commit(&book.host.state);
    expect_best(&book, 'a', 'B', UINT32_MAX - 1, 102, (struct best){102, 0, UINT32_MAX, 0});
    order(in, 'a', 'B', 1, 102, "ABC");
    CU_ASSERT_EQUAL(ask(&book, in, 24, out, 32), TICKLINE_BAD_PAYLOAD);
    CU_ASSERT_EQUAL(book.host.state.ranges, 0); /* nothing was about to change */
    order(in, 'q', 0, 0, 0, "ABC");
    CU_ASSERT_EQUAL(ask(&book, in, 24, out, 31), TICKLINE_REPLY_TOO_BIG);
    CU_ASSERT_EQUAL(ask(&book, in, 23, out, 32), TICKLINE_BAD_PAYLOAD);
    CU_ASSERT_EQUAL(ask(&book, "8", 1, out, 32), TICKLINE_BAD_PAYLOAD);
    CU_ASSERT_EQUAL(ask(&book, "T", 1, out, 32), TICKLINE_FILTERED);
    CU_ASSERT_EQUAL(ask(&book, "", 0, out, 32), TICKLINE_BAD_PAYLOAD);
    close_it(&book);
}

static void test_book_of_deep(void)
{
    struct opened book;
    uint8_t in[30] = "8\1\0\0\0\0\0\0\0\0ZIEXT   ", out[32];
    uint32_t size = htole32(300);
    uint64_t price = htole64(997500);
    open_it(&book, &handler_book, "");
    memcpy(in + 18, &size, 4);
    memcpy(in + 22, &price, 8);
    CU_ASSERT_EQUAL(ask(&book, in, 30, out, 32), 32);
    CU_ASSERT(memcmp(out, "ZIEXT   \0\0\0\0\0\x0f\x38\x7c\0\0\1\x2c", 20) == 0);
    memset(in + 18, 0, 4);
    CU_ASSERT_EQUAL(ask(&book, in, 30, out, 32), 32);
    CU_ASSERT(memcmp(out + 8, "\0\0\0\0\0\0\0\0\0\0\0\0", 12) == 0);
    close_it(&book);
}

static void test_found(void)
{
    CU_ASSERT_PTR_EQUAL(handler_find("rot1"), &handler_rot1);
    CU_ASSERT_PTR_EQUAL(handler_find("fizzbuzz"), &handler_fizzbuzz);
    CU_ASSERT_PTR_EQUAL(handler_find("spin"), &handler_spin);
    CU_ASSERT_PTR_NULL(handler_find("rot"));
    CU_ASSERT_PTR_NULL(handler_find(""));
    CU_ASSERT_PTR_NULL(handler_find("rot13"));
}

/* What a configuration may name is there, and what is there may be named. */
static void test_words(void)
{
    static const char *const words[] = {"rot1", "fizzbuzz", "spin", "cachewalk", "alloc", "book"};
    char error[CONFIG_ERROR_MAX], text[64];
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        struct config config;
        snprintf(text, sizeof(text), "[worker]\nhandler = %s\n", words[i]);
        CU_ASSERT_EQUAL_FATAL(config_parse(&config, text, strlen(text), "x", error), 0);
        const struct tickline_handler *handler = handler_load(&config, error);
        CU_ASSERT_PTR_NOT_NULL_FATAL(handler);
        CU_ASSERT_STRING_EQUAL(handler->name, words[i]);
        CU_ASSERT_EQUAL(handler->abi, TICKLINE_HANDLER_ABI);
        config_free(&config);
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
        {"what they refuse", test_refuses},
        {"cachewalk", test_cachewalk},
        {"alloc", test_alloc},
        {"book", test_book},
        {"book, no room left", test_book_is_full},
        {"book, messages of DEEP", test_book_of_deep},
        {"found by name", test_found},
        {"all words of the configuration", test_words},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "handler", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
