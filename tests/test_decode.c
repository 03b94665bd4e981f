/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of every kind, whole, cut at each byte, and with lengths that lie; each ends where memory ends. */
#include "rx/decode.h"
#include "tests/frames.h"
#include "tests/unit.h"

#include <sys/mman.h>

enum { PAGE = 4096 };

static uint8_t *edge; /* nothing behind it can be read */

static const uint8_t *at_edge(const uint8_t *frame, uint32_t length)
{
    memcpy(edge - length, frame, length);
    return edge - length;
}

static enum decode_kind decode(const uint8_t *frame, uint32_t length, struct decoded *decoded)
{
    return decode_frame(at_edge(frame, length), length, decoded);
}

/* Calls `look` with a plan of every kind of frame. */
static void each_plan(void (*look)(const struct frame_plan *))
{
    static const uint8_t data[] = "payload!";

    for (uint32_t i = 0; i < 5 * 2 * 2 * 5 * 3 * 2 * 2; i++) {
        const struct frame_plan plan = {
            .tags = i % 5,
            .six = i / 5 % 2,
            .tcp = i / 10 % 2,
            .options = i / 20 % 5,
            .tcp_words = i / 100 % 3 * 5,
            .padding = i / 300 % 2 * 6,
            .length = i / 600 % 2 * 8,
            .data = data,
            .sequence = 0xfffffff0 + i,
            .flags = TCP_SYN,
        };
        look(&plan);
    }
}

static void look_whole(const struct frame_plan *plan)
{
    uint8_t frame[256];
    struct decoded decoded;

    uint32_t length = frame_write(frame, plan);
    enum decode_kind kind = decode(frame, length, &decoded);
    CU_ASSERT_EQUAL(kind, plan->tcp ? DECODE_TCP : DECODE_UDP);
    if (kind != (plan->tcp ? DECODE_TCP : DECODE_UDP))
        return;
    CU_ASSERT_EQUAL(decoded.length, plan->length);
    CU_ASSERT_PTR_EQUAL(decoded.data, edge - plan->padding - plan->length);
    CU_ASSERT_EQUAL(decoded.ends.source_port, 1000);
    CU_ASSERT_EQUAL(decoded.ends.destination_port, 2000);
    CU_ASSERT_EQUAL(decoded.ends.source[15], 1);
    CU_ASSERT_EQUAL(decoded.ends.destination[15], 2);
    CU_ASSERT_EQUAL(decoded.ends.source[10], plan->six ? 0 : 0xff);
    CU_ASSERT_EQUAL(decoded.sequence, plan->tcp ? plan->sequence : 0);
    CU_ASSERT_EQUAL(decoded.flags, plan->tcp ? TCP_SYN : 0);
}

/* A frame that lacks a byte of its packet has a bad length; of one that lacks padding nothing is
 * missing. */
static void look_cut(const struct frame_plan *plan)
{
    uint8_t frame[256];
    struct decoded decoded;

    uint32_t whole = frame_write(frame, plan);
    for (uint32_t length = 0; length < whole; length++) {
        enum decode_kind kind = decode(frame, length, &decoded);
        enum decode_kind good = plan->tcp ? DECODE_TCP : DECODE_UDP;
        CU_ASSERT_EQUAL(kind, length >= whole - plan->padding ? good : DECODE_BAD_LENGTH);
    }
}

/* Every byte of every frame with other values: whatever is answered, the payload lies within. */
static void look_damaged(const struct frame_plan *plan)
{
    static const uint8_t values[] = {0, 1, 4, 5, 6, 0x0f, 0x40, 0x4f, 0x60, 0x7f, 0x80, 0xff};
    uint8_t frame[256];
    struct decoded decoded;

    uint32_t length = frame_write(frame, plan);
    for (uint32_t i = 12; i < length; i++) {
        uint8_t before = frame[i];
        for (size_t v = 0; v < sizeof(values); v++) {
            frame[i] = values[v];
            const uint8_t *begin = at_edge(frame, length);
            enum decode_kind kind = decode_frame(begin, length, &decoded);
            if (kind == DECODE_UDP || kind == DECODE_TCP)
                CU_ASSERT(decoded.data >= begin && decoded.data <= edge &&
                          decoded.length <= (size_t)(edge - decoded.data));
        }
        frame[i] = before;
    }
}

static void test_whole(void)
{
    each_plan(look_whole);
}

static void test_every_cut(void)
{
    each_plan(look_cut);
}

static void test_damaged(void)
{
    each_plan(look_damaged);
}

/* A frame with one field changed is of this kind. */
static void test_kinds(void)
{
    static const struct {
        bool six;
        bool tcp;
        uint32_t at;
        uint16_t value;
        enum decode_kind kind;
    } changes[] = {
        {false, false, 12, 0x0806, DECODE_OTHER},      /* ARP */
        {false, false, 14, 0x6500, DECODE_OTHER},      /* not what the type says */
        {false, false, 20, 0x2000, DECODE_FRAGMENT},   /* more fragments */
        {false, false, 20, 0x0001, DECODE_FRAGMENT},   /* the second one */
        {false, false, 20, 0x4000, DECODE_UDP},        /* not to be fragmented */
        {false, false, 22, 0x4001, DECODE_OTHER},      /* ICMP */
        {false, false, 16, 0x0013, DECODE_BAD_LENGTH}, /* shorter than its header */
        {false, false, 16, 0x0100, DECODE_BAD_LENGTH}, /* longer than the frame */
        {false, false, 14, 0x4400, DECODE_BAD_LENGTH}, /* a header of 16 bytes */
        {false, false, 38, 0x0007, DECODE_BAD_LENGTH}, /* UDP shorter than its header */
        {false, false, 38, 0x0011, DECODE_BAD_LENGTH}, /* or longer than the packet */
        {false, true, 46, 0x4002, DECODE_BAD_LENGTH},  /* TCP: a header of 16 bytes */
        {false, true, 46, 0xf002, DECODE_BAD_LENGTH},  /* or of 60 */
        {true, false, 20, 0x3a40, DECODE_OTHER},       /* ICMPv6 */
        {true, false, 20, 0x2c40, DECODE_FRAGMENT},    /* the UDP header read as a fragment's */
        {true, false, 20, 0x3240, DECODE_OTHER},       /* encrypted */
    };

    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        const struct frame_plan plan = {.six = changes[i].six,
                                        .tcp = changes[i].tcp,
                                        .data = (const uint8_t *)"payload!",
                                        .length = 8};
        uint8_t frame[256];
        struct decoded decoded;
        uint32_t length = frame_write(frame, &plan);
        frame_u16(frame + changes[i].at, changes[i].value);
        CU_ASSERT_EQUAL(decode(frame, length, &decoded), changes[i].kind);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a frame of every kind", test_whole},
        {"each of them cut at every byte", test_every_cut},
        {"each of them with other bytes", test_damaged},
        {"what is not taken, and why", test_kinds},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{"decode", NULL, NULL, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
    uint8_t *pages =
        mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_NONE) < 0)
        return 1;
    edge = pages + PAGE;
    return unit_run(suites);
}
