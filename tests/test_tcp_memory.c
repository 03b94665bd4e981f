/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of TCP survives a kill of rx: two connections whose bytes come in pieces, read and put as rx does it, cut
 * and killed at every point. The kernel is a few lines here; a kill leaves everything as it stands and forgets
 * what the process knew (compiled with crash points, tests/test_crash.c is alike).
 */
#include "rx/frame.h"
#include "rx/tcp_memory.h"
#include "shm/crash.h"
#include "tests/unit.h"

#include <endian.h>
#include <setjmp.h>

enum { PLACES = 2, LARGEST = 4096, STREAM_MAX = 64 << 10, REQUESTS_MAX = 1024 };

struct stream {
    uint8_t byte[STREAM_MAX];
    uint32_t length;
    uint32_t taken; /* by the kernel's answer to a read */
    uint32_t requests;
    uint32_t end[REQUESTS_MAX];
};

/* What no kill changes: the sockets, the rings, the cell. */
static struct {
    struct stream stream[PLACES];
    uint32_t
        cut; /* bytes that the first read of place 0 brings; the others bring at most `piece` */
    uint32_t piece;
    int fd;
    uint64_t issued;
    uint64_t published;
    uint32_t next[PLACES]; /* request of the stream that must come */
    uint64_t noted_for;    /* a number that was issued, and for which bytes */
    uint32_t noted_place;
    uint32_t noted_request;
    uint64_t wrong;
    uint32_t lives;
    uint64_t steps;
    uint64_t kill_every; /* 0: never */
    uint64_t kill_first;
} world;

static struct tcp_memory memory; /* one life's */
static jmp_buf death;

static void on_point(const char *label)
{
    (void)label;
    world.steps++;
    if (world.steps == world.kill_first ||
        (world.kill_every && world.steps % world.kill_every == 0))
        longjmp(death, 1);
}

/* As many bytes as the segments that have come hold; at the end none. */
static void kernel_reads(uint32_t index)
{
    struct stream *stream = &world.stream[index];
    uint32_t room = (uint32_t)memory.iov.iov_len;
    uint32_t left = stream->length - stream->taken;
    uint32_t most = stream->taken == 0 && index == 0 ? world.cut : world.piece;
    uint32_t length = left < most ? left : most;

    length = length < room ? length : room;
    if (length == 0)
        return; /* EAGAIN */
    memcpy(memory.iov.iov_base, stream->byte + stream->taken, length);
    stream->taken += length;
    memory.journal->message.msg_hdr.msg_controllen = 0;
    memory.journal->message.msg_len = length;
}

/* The bytes must be the stream's next request, and under the number they had before. */
static void check(uint32_t index, const uint8_t *data, uint32_t length)
{
    const struct stream *stream = &world.stream[index];
    uint32_t request = world.next[index];
    uint32_t begin = request ? stream->end[request - 1] : 0;

    world.wrong += request >= stream->requests || length != stream->end[request] - begin ||
                   memcmp(data, stream->byte + begin, length) != 0;
    if (world.noted_for == world.issued)
        world.wrong += world.noted_place != index || world.noted_request != request;
    world.noted_for = world.issued;
    world.noted_place = index;
    world.noted_request = request;
}

static void put(uint32_t index, uint64_t *issued, uint32_t length)
{
    tcp_put_begin(&memory, index, *issued + 1, length);
    world.issued = ++*issued;
    check(index, tcp_bytes(&memory, index), length);
    crash_point("rx:issued");
    world.published++;
    world.next[index]++;
    crash_point("rx:put");
    tcp_put_end(&memory, *issued);
}

static bool turn(uint32_t index, uint64_t *issued)
{
    bool moved = false;
    struct frame frame;

    for (;;) {
        uint32_t available = tcp_available(&memory.place[index]);
        if (!available ||
            frame_stream(SCHEMA_V2, tcp_bytes(&memory, index), available, &frame) != FRAME_WHOLE)
            break;
        put(index, issued, frame.length);
        moved = true;
    }
    (void)tcp_read_begin(&memory, index);
    kernel_reads(index);
    crash_point("tcp:received");
    return tcp_read_end(&memory) > 0 || moved;
}

/* One life: until nothing comes any more. */
static void live(void)
{
    uint64_t issued = world.published;
    bool moved = true;

    world.lives++;
    CU_ASSERT_EQUAL_FATAL(
        tcp_memory_open(&memory, PLACES, LARGEST, 1, false, world.fd < 0 ? -1 : dup(world.fd)), 0);
    if (world.fd < 0)
        world.fd = dup(memory.region.fd);
    CU_ASSERT(world.issued - world.published <= 1);
    uint32_t next = tcp_memory_recover(&memory, world.published);
    if (next != TCP_NOWHERE)
        (void)turn(next, &issued);
    while (moved) {
        moved = turn(0, &issued);
        moved = turn(1, &issued) || moved;
    }
}

static void run(uint64_t first, uint64_t every)
{
    world.fd = -1;
    world.issued = world.published = world.noted_for = world.wrong = world.steps = 0;
    world.lives = 0;
    world.kill_first = first;
    world.kill_every = every;
    for (uint32_t i = 0; i < PLACES; i++)
        world.next[i] = world.stream[i].taken = 0;
    crash_hook = on_point;
    if (setjmp(death) != 0)
        tcp_memory_close(&memory);
    live();
    tcp_memory_close(&memory);
    close(world.fd);
}

static void add(struct stream *stream, uint64_t id, uint32_t payload)
{
    uint64_t wire_id = htobe64(id);
    uint32_t wire_length = htobe32(payload);

    memcpy(stream->byte + stream->length, &wire_id, 8);
    memcpy(stream->byte + stream->length + 8, &wire_length, 4);
    for (uint32_t i = 0; i < payload; i++)
        stream->byte[stream->length + 12 + i] = (uint8_t)(id + i);
    stream->length += 12 + payload;
    stream->end[stream->requests++] = stream->length;
}

static void clear(void)
{
    for (uint32_t i = 0; i < PLACES; i++)
        world.stream[i].length = world.stream[i].requests = 0;
}

/* The region is unmapped at the end of a run; its counts are looked at before. */
static bool finished;

static void run_checked(uint64_t first, uint64_t every)
{
    run(first, every);
    finished = world.wrong == 0 && world.issued == world.published;
    for (uint32_t i = 0; i < PLACES; i++)
        finished = finished && world.next[i] == world.stream[i].requests;
}

/* A few small requests, the first read of them cut at each byte, without a kill. */
static void test_cuts(void)
{
    clear();
    for (uint32_t i = 0; i < 4; i++) {
        add(&world.stream[0], i, i * 3);
        add(&world.stream[1], 100 + i, 11 - i);
    }
    for (uint32_t piece = 1; piece <= world.stream[0].length; piece++) {
        world.piece = piece;
        for (world.cut = 1; world.cut <= world.stream[0].length; world.cut++) {
            run_checked(0, 0);
            if (!finished)
                CU_FAIL("a request is missing, doubled or different");
        }
    }
    CU_PASS("all cuts");
}

/* The same, killed at each step of each cut. */
static void test_kills(void)
{
    uint32_t killed = 0;

    world.piece = 17;
    for (world.cut = 1; world.cut <= world.stream[0].length; world.cut++) {
        uint64_t step = 1;
        do {
            run_checked(step++, 0);
            killed += world.lives > 1;
            if (!finished)
                CU_FAIL("a request is missing, doubled or different");
        } while (world.lives > 1);
    }
    CU_ASSERT(killed > 1000);
}

/* Requests up to the largest, so that what is left moves in the buffer; killed again and again. */
static void test_large(void)
{
    static const uint32_t payloads[] = {0, 4084, 1, 2000, 4000, 3000, 77, 4084, 4083, 12};

    clear();
    for (uint32_t i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++) {
        add(&world.stream[0], i, payloads[i]);
        add(&world.stream[1], 100 + i, payloads[(i + 3) % 10]);
    }
    world.cut = 5;
    for (world.piece = 501; world.piece < 9000; world.piece += 311) {
        for (uint64_t every = 23; every < 60; every += 3) {
            run_checked(0, every);
            if (!finished)
                CU_FAIL("a request is missing, doubled or different");
        }
        run_checked(0, 0);
        CU_ASSERT_EQUAL(world.lives, 1);
        CU_ASSERT(finished);
    }
}

/* A connection that leaves something behind, and the next one at its place. */
static void test_place_again(void)
{
    clear();
    crash_hook = on_point;
    world.kill_first = world.kill_every = 0;
    CU_ASSERT_EQUAL_FATAL(tcp_memory_open(&memory, PLACES, LARGEST, 1, false, -1), 0);
    add(&world.stream[0], 7, 30);
    world.cut = world.piece = 20;
    world.stream[0].taken = 0;
    (void)tcp_read_begin(&memory, 0);
    kernel_reads(0);
    CU_ASSERT_EQUAL(tcp_read_end(&memory), 20);
    CU_ASSERT_EQUAL(tcp_read_end(&memory), 0);
    CU_ASSERT_EQUAL(tcp_available(&memory.place[0]), 20);
    tcp_put_begin(&memory, 0, 1, 12);
    tcp_put_end(&memory, 1);
    tcp_place_clear(&memory.place[0]);
    CU_ASSERT_EQUAL(tcp_available(&memory.place[0]), 0);
    /* The journal still speaks of the one before. */
    CU_ASSERT_EQUAL(tcp_memory_recover(&memory, 1), TCP_NOWHERE);
    CU_ASSERT_EQUAL(tcp_available(&memory.place[0]), 0);
    CU_ASSERT_EQUAL(load_relaxed(&memory.place[0].count), 0);
    tcp_memory_close(&memory);
}

/* What a successor is given is not believed. */
static int recover_wrong(void *argument)
{
    crash_hook = on_point;
    world.kill_first = world.kill_every = 0;
    if (tcp_memory_open(&memory, PLACES, LARGEST, 1, false, -1) < 0)
        return 1;
    switch (*(const int *)argument) {
    case 0:
        store_relaxed(&memory.journal->place, PLACES);
        break;
    case 1:
        store_relaxed(&memory.place[1].filled, 2 * LARGEST + 1);
        break;
    default:
        store_relaxed(&memory.place[0].consumed, 1);
    }
    (void)tcp_memory_recover(&memory, 0);
    return 0;
}

static void test_corrupt(void)
{
    static const char *const lines[] = {
        "shared memory is corrupt: place in the journal: expected 1 (0x1), found 2 (0x2)\n",
        "shared memory is corrupt: bytes in a connection's buffer: expected 8192 (0x2000), found "
        "8193 "
        "(0x2001)\n",
        "shared memory is corrupt: bytes consumed of them: expected 0 (0), found 1 (0x1)\n",
    };

    for (int i = 0; i < 3; i++)
        unit_dies(recover_wrong, &i, SIGABRT, lines[i]);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"all cuts of a few requests", test_cuts},
        {"killed at each step", test_kills},
        {"large requests, killed again and again", test_large},
        {"a place used again", test_place_again},
        {"what cannot be", test_corrupt},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {
        {"tcp memory", NULL, NULL, NULL, NULL, tests},
        CU_SUITE_INFO_NULL,
    };
    return unit_run(suites);
}
