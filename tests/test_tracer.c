/* SPDX-License-Identifier: Apache-2.0 */
/* The tracer's files: bytes at the documented offsets, the same ones after any restart, and a trace
 * that babeltrace2 reads. */
#include "tests/unit.h"
#include "tracer/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const struct region_place anywhere = {.numa_node = -1};

static const struct ctf_uuid uuid = {
    {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 1, 2, 3, 4, 5, 6, 7, 8}};

/* ---- checksum ---- */

/* By its definition, bit by bit. */
static uint32_t crc_by_bits(const uint8_t *data, size_t bytes)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < 8 * bytes; i++) {
        uint32_t bit = (data[i / 8] >> (i % 8) & 1) ^ (crc & 1);
        crc = (crc >> 1) ^ (bit ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void test_crc32c(void)
{
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];
    /* RFC 3720, B.4 */
    static const uint8_t pdu[48] = {
        0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02};
    uint8_t bytes[200];
    memset(ones, 0xff, sizeof(ones));
    for (uint8_t i = 0; i < 32; i++) {
        up[i] = i;
        down[i] = (uint8_t)(31 - i);
    }
    CU_ASSERT_EQUAL(crc32c(zeros, 32), 0x8a9136aa);
    CU_ASSERT_EQUAL(crc32c(ones, 32), 0x62a8ab43);
    CU_ASSERT_EQUAL(crc32c(up, 32), 0x46dd794e);
    CU_ASSERT_EQUAL(crc32c(down, 32), 0x113fdb5c);
    CU_ASSERT_EQUAL(crc32c(pdu, 48), 0xd9963a56);
    CU_ASSERT_EQUAL(crc32c("123456789", 9), 0xe3069283);
    CU_ASSERT_EQUAL(crc32c("", 0), 0);
    for (uint32_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * i + 7);
    for (size_t at = 0; at < 9; at++) {
        for (size_t length = 0; length < 190; length++)
            CU_ASSERT_EQUAL(crc32c(bytes + at, length), crc_by_bits(bytes + at, length));
    }
}

/* ---- made lanes ---- */

struct fixture {
    char path[48];
    int folder;
    struct region arena;
    struct lane lane;
    struct trace trace;
};

enum { FIRST_TSC = 1000000, PAYLOAD = 12288, PLAIN_RECORDS = PAYLOAD / 32 };

/* A lane of 16 sub-buffers of four pages; its stamps begin at FIRST_TSC, so that files are literal.
 */
static void make(struct fixture *made, enum lane_kind kind)
{
    const struct lane_plan plan = {"rx", kind, 32, 16 * 16384};
    strcpy(made->path, "/tmp/tickline-test-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(made->path));
    made->folder = open(made->path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    CU_ASSERT_EQUAL_FATAL(arena_create(&made->arena, &anywhere, &plan, 1, 1), 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&made->lane, &made->arena, 0), 0);
    trace_open(&made->trace, &made->lane, 1, 3, 5);
    made->trace.last = FIRST_TSC - 10;
}

static void unmake(struct fixture *made)
{
    static const char *const names[] = {"rx", "again", "metadata", "worker0"};
    for (size_t i = 0; i < 4; i++)
        unlinkat(made->folder, names[i], 0);
    close(made->folder);
    CU_ASSERT_EQUAL(rmdir(made->path), 0);
    region_close(&made->arena);
}

static void stamp(struct fixture *made, uint64_t request)
{
    trace_stamp_at(&made->trace, made->trace.last + 10, POINT_rx_put, 1, request);
}

static void append(struct fixture *made, uint64_t request)
{
    const struct ingress_record record = {.request = request, .id = ~request, .length = 9};
    trace_append(&made->trace, &record, sizeof(record));
}

/* Drains `count` sub-buffers (or all) with a tracer of its own, which then ends or just vanishes.
 */
static void drain(struct fixture *made, const char *name, uint64_t count, bool finish)
{
    struct trace_file file;
    int more = 1;
    CU_ASSERT_EQUAL_FATAL(file_open(&file, made->folder, name, &made->lane, &uuid), 0);
    while (count-- > 0 && more == 1)
        more = file_drain(&file);
    CU_ASSERT(more >= 0);
    if (finish) {
        CU_ASSERT_EQUAL(file_finish(&file, true), 0);
        return;
    }
    close(file.fd);
    free(file.header);
}

struct bytes {
    uint8_t *data;
    size_t size;
};

static struct bytes read_file(const struct fixture *made, const char *name)
{
    struct bytes bytes = {0};
    struct stat st;
    int fd = openat(made->folder, name, O_RDONLY | O_CLOEXEC);
    CU_ASSERT_FATAL(fd >= 0 && fstat(fd, &st) == 0);
    bytes.size = (size_t)st.st_size;
    bytes.data = malloc(bytes.size + 1);
    CU_ASSERT_EQUAL_FATAL(read(fd, bytes.data, bytes.size), st.st_size);
    close(fd);
    return bytes;
}

static uint64_t word(const struct bytes *bytes, size_t at, size_t size)
{
    uint64_t value = 0;
    CU_ASSERT_FATAL(at + size <= bytes->size);
    memcpy(&value, bytes->data + at, size);
    return value;
}

/* ---- one stream, byte by byte ---- */

struct packet {
    size_t at;
    uint64_t begin, end, content, packet, sequence, discarded;
    uint32_t cpu, generation, high;
};

static void check_packet(const struct bytes *file, const struct packet *expected)
{
    static const uint8_t magic[24] = {0xc1, 0x1f, 0xfc, 0xc1, 0x11, 0x22, 0x33, 0x44,
                                      0x55, 0x66, 0x77, 0x88, 1,    2,    3,    4,
                                      5,    6,    7,    8,    0,    0,    0,    0};
    size_t at = expected->at;
    CU_ASSERT_FATAL(at + 4096 <= file->size);
    CU_ASSERT(memcmp(file->data + at, magic, 24) == 0);
    CU_ASSERT_EQUAL(word(file, at + 24, 8), expected->begin);
    CU_ASSERT_EQUAL(word(file, at + 32, 8), expected->end);
    CU_ASSERT_EQUAL(word(file, at + 40, 8), 8 * (4096 + expected->content));
    CU_ASSERT_EQUAL(word(file, at + 48, 8), 8 * expected->packet);
    CU_ASSERT_EQUAL(word(file, at + 56, 8), expected->sequence);
    CU_ASSERT_EQUAL(word(file, at + 64, 8), expected->discarded);
    CU_ASSERT_EQUAL(word(file, at + 72, 4), expected->cpu);
    CU_ASSERT_EQUAL(word(file, at + 76, 4), expected->generation);
    CU_ASSERT_EQUAL(word(file, at + 80, 4), expected->high);
    CU_ASSERT_EQUAL(word(file, at + 84, 4), crc_by_bits(file->data + at + 4096, expected->content));
    for (size_t i = 88; i < 4096; i++)
        CU_ASSERT_EQUAL_FATAL(file->data[at + i], 0);
}

/* 768 records fill the first packet; request numbers then pass 2^32 and seal the second early. */
static void write_sample(struct fixture *made)
{
    for (uint64_t i = 0; i < PAYLOAD / 16; i++)
        stamp(made, 0xfffffff0);
    for (uint64_t i = 0; i < 300; i++)
        stamp(made, 0xfffffff1);
    stamp(made, 0x100000000);
    trace_stamp_wide(&made->trace, made->trace.last + 10, POINT_rx_got, 7, 0x100000001, 0x1234,
                     0x5678);
    stamp(made, 0x100000002);
    trace_close(&made->trace);
}

static void test_stream(void)
{
    static const uint8_t events[64] = {
        0xf8, 0x6b, 0x0f, 0, 0, 0, 0, 0, 0x01, 0x00, 1, 0, 0, 0, 0, 0, /* 1000000 + 10 * 1068 */
        0x02, 0x6c, 0x0f, 0, 0, 0, 0, 0, 0x00, 0x80, 7, 0, 1, 0, 0, 0,
        0x34, 0x12, 0,    0, 0, 0, 0, 0, 0x78, 0x56, 0, 0, 0, 0, 0, 0,
        0x0c, 0x6c, 0x0f, 0, 0, 0, 0, 0, 0x01, 0x00, 1, 0, 2, 0, 0, 0,
    };
    struct fixture made;
    make(&made, LANE_TRACE);
    write_sample(&made);
    drain(&made, "rx", UINT64_MAX, true);
    struct bytes file = read_file(&made, "rx");
    CU_ASSERT_EQUAL(file.size, 4096 + 16384 + 16384 + 8192);
    const struct packet packets[] = {
        {0, FIRST_TSC - 10, FIRST_TSC - 10, 0, 4096, 0, 0, 0, 0, 0},
        {4096, 1000000, 1007670, 12288, 16384, 1, 0, 5, 3, 0},
        {4096 + 16384, 1007680, 1010670, 4800, 16384, 2, 0, 5, 3, 0},
        /* the last one is cut to whole pages, and says so */
        {4096 + 2 * 16384, 1010680, 1010700, 64, 8192, 3, 0, 5, 3, 1},
    };
    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++)
        check_packet(&file, &packets[i]);
    CU_ASSERT(memcmp(file.data + 4096 + 2 * 16384 + 4096, events, 64) == 0);
    CU_ASSERT_EQUAL(word(&file, 8192, 8), 1000000);
    CU_ASSERT_EQUAL(word(&file, 8192 + 12, 4), 0xfffffff0);
    free(file.data);
    unmake(&made);
}

static void test_nothing_stamped(void)
{
    struct fixture made;
    make(&made, LANE_TRACE);
    trace_close(&made.trace);
    drain(&made, "rx", UINT64_MAX, true);
    struct bytes file = read_file(&made, "rx");
    CU_ASSERT_EQUAL(file.size, 4096);
    uint64_t begin = word(&file, 24, 8);
    check_packet(&file, &(struct packet){0, begin, begin, 0, 4096, 0, 0, 0, 0, 0});
    free(file.data);
    unmake(&made);
}

static void test_discarded(void)
{
    struct fixture made;
    make(&made, LANE_TRACE);
    for (uint64_t i = 0; i < 16 * PAYLOAD / 16 + 5; i++) /* five too many */
        stamp(&made, i);
    drain(&made, "rx", UINT64_MAX, false);
    stamp(&made, 1);
    for (uint64_t i = 0; i < 16 * PAYLOAD / 16 + 1; i++) /* two too many, and none comes after */
        stamp(&made, i);
    trace_close(&made.trace);
    drain(&made, "rx", UINT64_MAX, true);
    struct bytes file = read_file(&made, "rx");
    CU_ASSERT_EQUAL_FATAL(file.size, 4096 + 32 * 16384 + 4096);
    for (size_t i = 0; i < 32; i++) {
        CU_ASSERT_EQUAL(word(&file, 4096 + i * 16384 + 56, 8), i + 1);
        CU_ASSERT_EQUAL(word(&file, 4096 + i * 16384 + 64, 8), i < 16 ? 0 : 5);
    }
    uint64_t end = FIRST_TSC + 10 * (32 * PAYLOAD / 16 - 1);
    check_packet(&file, &(struct packet){4096 + 32 * 16384, end, end, 0, 4096, 33, 7, 0, 0, 0});
    free(file.data);
    unmake(&made);
}

/* A file that ends while its lane goes on says nothing of discards that the next file's packets will tell. */
static void test_discards_across_files(void)
{
    struct fixture made;
    struct trace_file file;
    make(&made, LANE_TRACE);
    for (uint64_t i = 0; i < 16 * PAYLOAD / 16 + 5; i++) /* five too many */
        stamp(&made, i);
    CU_ASSERT_EQUAL_FATAL(file_open(&file, made.folder, "rx", &made.lane, &uuid), 0);
    for (int i = 0; i < 8; i++)
        CU_ASSERT_EQUAL(file_drain(&file), 1);
    CU_ASSERT_EQUAL(file_finish(&file, false), 0);
    CU_ASSERT_EQUAL(file_next(&file, made.folder, "again"), 0);
    trace_close(&made.trace);
    while (file_drain(&file) > 0)
        continue;
    CU_ASSERT_EQUAL(file_finish(&file, true), 0);
    struct bytes first = read_file(&made, "rx");
    struct bytes second = read_file(&made, "again");
    CU_ASSERT_EQUAL(first.size, 4096 + 8 * 16384);
    CU_ASSERT_EQUAL_FATAL(second.size, 4096 + 8 * 16384 + 4096);
    for (size_t i = 0; i < 8; i++)
        CU_ASSERT_EQUAL(word(&second, 4096 + i * 16384 + 64, 8), 0);
    CU_ASSERT_EQUAL(word(&second, 64, 8), 0);
    CU_ASSERT_EQUAL(word(&second, 4096 + 8 * 16384 + 64, 8), 5);
    free(first.data);
    free(second.data);
    unmake(&made);
}

/* ---- restarts ---- */

/*
 * The tracer vanishes after each count of sub-buffers, or after it has finished; its successor's
 * file is the same to the last byte.
 */
static void check_restarts(struct fixture *made)
{
    uint64_t sealed = load_relaxed(&made->lane.control->sealed);
    CU_ASSERT_FATAL(sealed >= 3 && sealed <= 16);
    store_relaxed(&made->lane.control->drained, (uint64_t)0);
    unlinkat(made->folder, "rx", 0);
    drain(made, "rx", UINT64_MAX, true);
    struct bytes expected = read_file(made, "rx");
    for (uint64_t first = 0; first <= sealed; first++) {
        for (uint64_t second = 0; first + second <= sealed; second++) {
            store_relaxed(&made->lane.control->drained, (uint64_t)0);
            drain(made, "again", first, first == sealed);
            drain(made, "again", second, false);
            drain(made, "again", UINT64_MAX, true);
            struct bytes again = read_file(made, "again");
            CU_ASSERT_EQUAL(again.size, expected.size);
            if (again.size == expected.size)
                CU_ASSERT(memcmp(again.data, expected.data, expected.size) == 0);
            free(again.data);
            unlinkat(made->folder, "again", 0);
        }
    }
    free(expected.data);
}

static void test_restarts(void)
{
    struct fixture made;
    make(&made, LANE_TRACE);
    write_sample(&made);
    check_restarts(&made);
    unmake(&made);

    make(&made, LANE_TRACE); /* with discards at the end */
    for (uint64_t i = 0; i < 16 * PAYLOAD / 16 + 5; i++)
        stamp(&made, i);
    trace_close(&made.trace);
    check_restarts(&made);
    unmake(&made);

    make(&made, LANE_TRACE); /* with discards of before, and none at the end */
    store_relaxed(&made.lane.control->discarded, (uint64_t)5);
    trace_open(&made.trace, &made.lane, 1, 3, 5);
    write_sample(&made);
    check_restarts(&made);
    struct bytes file = read_file(&made, "rx");
    CU_ASSERT_EQUAL(file.size, 4096 + 16384 + 16384 + 8192);
    CU_ASSERT_EQUAL(word(&file, 4096 + 64, 8), 5);
    free(file.data);
    unmake(&made);
}

/* A predecessor that had written without saying so: its packet is written again, to its place. */
/* Files of this process may grow no further: as on a full disk, the beginning of a packet is written. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    CU_ASSERT_EQUAL(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    signal(SIGXFSZ, SIG_IGN);
    CU_ASSERT_EQUAL(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A write that fails is tried again, and makes no difference then; else whole packets stay. */
static void test_no_room(void)
{
    const uint64_t whole = 4096 + 16384;
    struct fixture made;
    struct trace_file file;
    make(&made, LANE_TRACE);
    write_sample(&made);
    drain(&made, "again", UINT64_MAX, true);
    for (int comes_back = 0; comes_back < 2; comes_back++) {
        store_relaxed(&made.lane.control->drained, (uint64_t)0);
        unlinkat(made.folder, "rx", 0);
        CU_ASSERT_EQUAL_FATAL(file_open(&file, made.folder, "rx", &made.lane, &uuid), 0);
        limit_files(whole + 8192);
        CU_ASSERT_EQUAL(file_drain(&file), 1);
        CU_ASSERT_EQUAL(file_drain(&file), -EFBIG);
        CU_ASSERT_EQUAL(file_drain(&file), -EFBIG);
        if (comes_back) {
            limit_files(RLIM_INFINITY);
            while (file_drain(&file) == 1)
                continue;
        }
        CU_ASSERT_EQUAL(file_finish(&file, true), 0);
        limit_files(RLIM_INFINITY);
        struct bytes got = read_file(&made, "rx");
        struct bytes expected = read_file(&made, "again");
        CU_ASSERT_EQUAL(got.size, comes_back ? expected.size : whole);
        CU_ASSERT(got.size <= expected.size && memcmp(got.data, expected.data, got.size) == 0);
        free(got.data);
        free(expected.data);
    }
    unmake(&made);
}

static void test_written_twice(void)
{
    struct fixture made;
    make(&made, LANE_TRACE);
    write_sample(&made);
    drain(&made, "rx", UINT64_MAX, true);
    struct bytes expected = read_file(&made, "rx");
    store_relaxed(&made.lane.control->drained, (uint64_t)0);
    drain(&made, "again", 2, false);
    store_relaxed(&made.lane.control->drained, (uint64_t)1);
    drain(&made, "again", UINT64_MAX, true);
    struct bytes again = read_file(&made, "again");
    CU_ASSERT_EQUAL_FATAL(again.size, expected.size);
    CU_ASSERT(memcmp(again.data, expected.data, expected.size) == 0);
    free(again.data);
    free(expected.data);

    CU_ASSERT_EQUAL(unlinkat(made.folder, "again", 0), 0); /* and one whose file is gone */
    struct trace_file file;
    CU_ASSERT_EQUAL(file_open(&file, made.folder, "again", &made.lane, &uuid), -EPROTO);
    close(file.fd);
    free(file.header);
    unmake(&made);
}

/* ---- plain lane ---- */

static void check_numbers(const struct bytes *file, uint64_t count, uint64_t (*number)(uint64_t))
{
    CU_ASSERT_EQUAL_FATAL(file->size, 32 * count);
    for (uint64_t i = 0; i < count; i++) {
        CU_ASSERT_EQUAL(word(file, 32 * i, 8), number(i));
        CU_ASSERT_EQUAL(word(file, 32 * i + 8, 8), ~number(i));
    }
}

static uint64_t from_one(uint64_t i)
{
    return i + 1;
}

static void test_plain(void)
{
    struct fixture made;
    make(&made, LANE_PLAIN);
    for (uint64_t i = 1; i <= 3 * PLAIN_RECORDS + 7; i++)
        append(&made, i);
    trace_close(&made.trace);
    drain(&made, "rx", UINT64_MAX, true);
    struct bytes file = read_file(&made, "rx");
    check_numbers(&file, 3 * PLAIN_RECORDS + 7, from_one);
    free(file.data);
    check_restarts(&made);
    unmake(&made);
}

/* rx died twice in between: the sub-buffers that it left are short, the file has no hole. */
static void test_plain_gaps(void)
{
    struct fixture made;
    uint64_t next = 1;
    make(&made, LANE_PLAIN);
    for (int generation = 0; generation < 3; generation++) {
        for (uint64_t i = 0; i < PLAIN_RECORDS + 50; i++)
            append(&made, next++);
        trace_open(&made.trace, &made.lane, 1, 4, 5);
    }
    for (uint64_t i = 0; i < 20; i++)
        append(&made, next++);
    trace_close(&made.trace);
    drain(&made, "rx", UINT64_MAX, true);
    struct bytes file = read_file(&made, "rx");
    check_numbers(&file, 3 * (PLAIN_RECORDS + 50) + 20, from_one);
    free(file.data);
    check_restarts(&made);
    unmake(&made);
}

/* Killed while it closed the gaps: so far the records stand at their new places, then at the old. */
static void test_plain_half_closed(void)
{
    enum { COUNT = 2 * (PLAIN_RECORDS + 50) };
    struct fixture made;
    uint64_t next = 1;
    make(&made, LANE_PLAIN);
    for (int generation = 0; generation < 2; generation++) {
        for (uint64_t i = 0; i < PLAIN_RECORDS + 50; i++)
            append(&made, next++);
        trace_open(&made.trace, &made.lane, 1, 4, 5);
    }
    trace_close(&made.trace);
    for (uint64_t moved = 0; moved <= COUNT; moved += 31) {
        store_relaxed(&made.lane.control->drained, (uint64_t)0);
        drain(&made, "again", UINT64_MAX, false);
        int fd = openat(made.folder, "again", O_WRONLY | O_CLOEXEC);
        for (uint64_t i = 0; i < moved; i++) {
            const struct ingress_record record = {.request = i + 1, .id = ~(i + 1), .length = 9};
            CU_ASSERT_EQUAL(pwrite(fd, &record, 32, (off_t)(32 * i)), 32);
        }
        close(fd);
        drain(&made, "again", UINT64_MAX, true);
        struct bytes file = read_file(&made, "again");
        check_numbers(&file, COUNT, from_one);
        free(file.data);
        unlinkat(made.folder, "again", 0);
    }
    unmake(&made);
}

/* ---- an owner that died ---- */

static void compare(const struct fixture *made, const char *one, const char *other)
{
    struct bytes a = read_file(made, one), b = read_file(made, other);
    CU_ASSERT_EQUAL_FATAL(a.size, b.size);
    CU_ASSERT(memcmp(a.data, b.data, a.size) == 0);
    free(a.data);
    free(b.data);
}

/* The tracer can only write the control page; what it writes to disk is what an owner's seal would
 * have given, also where it is killed between the two counts. */
static void check_abandoned(enum lane_kind kind, uint64_t records)
{
    struct fixture made;
    struct region reader;
    struct region_mismatch mismatch;
    const struct region_want want = arena_want(1);
    make(&made, kind);
    for (uint64_t i = 1; i <= records; i++)
        kind == LANE_TRACE ? stamp(&made, i) : append(&made, i);
    const uint64_t now = made.trace.last + 1000;
    const struct lane_control before = *made.lane.control;
    const struct lane owned = made.lane;
    CU_ASSERT_EQUAL_FATAL(region_attach(&reader, dup(made.arena.fd), &want, false, &mismatch), 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&made.lane, &reader, 0), 0);
    CU_ASSERT_EQUAL_FATAL(lane_writable(&made.lane, &reader, false), 0);
    lane_close_abandoned(&made.lane, now);
    lane_close_abandoned(&made.lane, now); /* a second time: nothing is left to close */
    CU_ASSERT_EQUAL(load_relaxed(&owned.control->sealed), load_relaxed(&before.opened));
    CU_ASSERT_EQUAL(load_relaxed(&owned.control->records), records);
    drain(&made, "rx", UINT64_MAX, true);
    *made.lane.control = before;
    lane_seal_abandoned(&owned, now);
    CU_ASSERT_EQUAL(load_relaxed(&owned.control->records), records);
    drain(&made, "again", UINT64_MAX, true);
    compare(&made, "rx", "again");
    munmap(made.lane.control, PAGE_BYTES);
    region_close(&reader);
    unmake(&made);
}

static void test_abandoned(void)
{
    static const uint64_t records[] = {1, 100, PAYLOAD / 16 - 1, PAYLOAD / 16 + 5};
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        check_abandoned(LANE_TRACE, records[i]);
        check_abandoned(LANE_PLAIN, records[i]);
    }
}

/* rx was killed between the opening of a sub-buffer and its first record. */
static void test_abandoned_empty(void)
{
    struct fixture made;
    make(&made, LANE_PLAIN);
    append(&made, 1);
    *(struct ingress_record *)(void *)lane_payload(&made.lane, 0) = (struct ingress_record){0};
    lane_close_abandoned(&made.lane, made.trace.last + 1000);
    CU_ASSERT_EQUAL(load_relaxed(&made.lane.control->sealed), 1);
    drain(&made, "rx", UINT64_MAX, true);
    struct bytes file = read_file(&made, "rx");
    CU_ASSERT_EQUAL(file.size, 0);
    free(file.data);
    unmake(&made);
}

/* ---- metadata, and the trace as babeltrace2 sees it ---- */

static void write_metadata(const struct fixture *made)
{
    /* 2 GHz; tick 4,000,000,000 is 1700000002.5 s: tick 0 is 1700000000.5 s. */
    const struct ctf_facts facts = {
        .uuid = uuid,
        .run = "a run",
        .clock = clock_from_hz(2e9),
        .pair = {.tsc = 4000000000, .real_ns = 1700000002500000000},
    };
    char path[96];
    snprintf(path, sizeof(path), "%s/metadata", made->path);
    FILE *out = fopen(path, "we");
    CU_ASSERT_PTR_NOT_NULL_FATAL(out);
    CU_ASSERT_EQUAL(ctf_write_metadata(out, &facts), 0);
    fclose(out);
}

static void test_metadata(void)
{
    static const char *const lines[] = {
        "major = 1;\n    minor = 8;\n    uuid = \"11223344-5566-7788-0102-030405060708\";\n"
        "    byte_order = le;",
        "freq = 2000000000;\n    offset_s = 1700000000;\n    offset = 1000000000;\n",
        "event {\n    id = 32768;\n    name = \"rx_got\";\n    stream_id = 0;\n"
        "    fields := struct { u64 value; u64 extra; };\n};\n",
        "event {\n    id = 8;\n    name = \"tx_complete\";\n    stream_id = 0;\n};\n",
        "run = \"a run\";",
    };
    struct fixture made;
    make(&made, LANE_TRACE);
    write_metadata(&made);
    struct bytes file = read_file(&made, "metadata");
    file.data[file.size] = '\0';
    CU_ASSERT(strncmp((char *)file.data, "/* CTF 1.8 */\n", 14) == 0);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        CU_ASSERT_PTR_NOT_NULL(strstr((char *)file.data, lines[i]));
    free(file.data);
    unmake(&made);
    CU_ASSERT(memcmp(&(struct ctf_uuid[]){ctf_uuid(1)}, &(struct ctf_uuid[]){ctf_uuid(1)}, 16) ==
              0);
    CU_ASSERT(memcmp(&(struct ctf_uuid[]){ctf_uuid(1)}, &(struct ctf_uuid[]){ctf_uuid(2)}, 16) !=
              0);
    CU_ASSERT_EQUAL(ctf_uuid(1).byte[6] >> 4, 4);
}

/* Runs babeltrace2 over the trace: its lines, and the first of them. */
static uint64_t babeltrace(const struct fixture *made, char *first, size_t size, int *status)
{
    char command[160], line[1024];
    uint64_t lines = 0;
    snprintf(command, sizeof(command), "babeltrace2 --clock-seconds %s 2>&1", made->path);
    FILE *out = popen(command, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(out);
    while (fgets(line, sizeof(line), out)) {
        if (lines++ == 0)
            snprintf(first, size, "%s", line);
    }
    *status = pclose(out);
    return lines;
}

static bool babeltrace_here(void)
{
    if (system("command -v babeltrace2 >/dev/null") == 0)
        return true;
    UNIT_SKIP("babeltrace2 is not installed");
    return false;
}

static void test_babeltrace(void)
{
    struct fixture made;
    char first[1024] = "";
    int status;
    if (!babeltrace_here())
        return;
    make(&made, LANE_TRACE);
    write_sample(&made);
    drain(&made, "rx", UINT64_MAX, true);
    store_relaxed(&made.lane.control->drained, (uint64_t)0);
    drain(&made, "worker0", UINT64_MAX, true);
    write_metadata(&made);
    CU_ASSERT_EQUAL(babeltrace(&made, first, sizeof(first), &status), 2 * (768 + 300 + 3));
    CU_ASSERT_EQUAL(status, 0);
    /* tick 1,000,000 of 2 GHz: half a millisecond after tick 0 */
    CU_ASSERT_PTR_NOT_NULL(strstr(first, "[1700000000.500500000]"));
    CU_ASSERT_PTR_NOT_NULL(strstr(first, " rx_put: { cpu_id = 5, generation = 3, "));
    CU_ASSERT_PTR_NOT_NULL(strstr(first, "{ argument = 1, request = 4294967280 }"));
    unmake(&made);
}

/* Discards: one line of a warning for each place, beside the events. */
static void test_babeltrace_discards(void)
{
    struct fixture made;
    char first[1024] = "", command[160], line[1024];
    int status, warnings = 0;
    if (!babeltrace_here())
        return;
    make(&made, LANE_TRACE);
    for (uint64_t i = 0; i < 16 * PAYLOAD / 16 + 5; i++)
        stamp(&made, i);
    trace_close(&made.trace);
    drain(&made, "rx", UINT64_MAX, true);
    write_metadata(&made);
    CU_ASSERT(babeltrace(&made, first, sizeof(first), &status) > 16 * PAYLOAD / 16);
    CU_ASSERT_EQUAL(status, 0);
    snprintf(command, sizeof(command), "babeltrace2 %s 2>&1 >/dev/null", made.path);
    FILE *out = popen(command, "r");
    while (fgets(line, sizeof(line), out))
        warnings += strstr(line, "Tracer discarded 5 events") != NULL;
    CU_ASSERT_EQUAL(pclose(out), 0);
    CU_ASSERT_EQUAL(warnings, 1);
    unmake(&made);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"CRC-32C", test_crc32c},
        {"stream, byte by byte", test_stream},
        {"nothing stamped", test_nothing_stamped},
        {"discarded", test_discarded},
        {"discards across files", test_discards_across_files},
        {"restarted anywhere", test_restarts},
        {"no room", test_no_room},
        {"written twice", test_written_twice},
        {"plain", test_plain},
        {"plain, with gaps", test_plain_gaps},
        {"plain, gaps half closed", test_plain_half_closed},
        {"abandoned by its owner", test_abandoned},
        {"abandoned before its first record", test_abandoned_empty},
        {"metadata", test_metadata},
        {"read by babeltrace2", test_babeltrace},
        {"babeltrace2 and discards", test_babeltrace_discards},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "tracer", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
