/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory into which somebody has written what must not be there. Whoever reads it stops with one line that
 * names the word and both values, or refuses it with -EPROTO and the same; nobody reads or writes outside. Every
 * region here lies between pages that cannot be touched.
 */
#include "launch/latency.h"
#include "launch/runfile.h"
#include "shm/cell.h"
#include "shm/ring.h"
#include "tests/unit.h"
#include "tracer/file.h"
#include "worker/worker.c" // NOLINT(bugprone-suspicious-include): what it does with a slot is static

#include <fcntl.h>
#include <sys/mman.h>

enum { DEPTH = 4, SLOT_BYTES = 128, HELD = 3, PUBLISHED = 6, SLOTS = RING_SLOTS_OFFSET };

static const struct region_place anywhere = {.numa_node = -1};

/* A word somewhere in a region; `bytes` of it are written. */
struct patch {
    size_t offset;
    uint32_t bytes;
    uint64_t value;
};

static void apply(const struct region *region, const struct patch *patch)
{
    memcpy(region_at(region, patch->offset), &patch->value, patch->bytes);
}

/* The same content in memory of its own, between two pages without any right; takes the region over. */
static void guard(struct region *region)
{
    const size_t room = region->size + (size_t)2 * PAGE_BYTES;
    uint8_t *base = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CU_ASSERT_NOT_EQUAL_FATAL(base, MAP_FAILED);
    CU_ASSERT_EQUAL_FATAL(mprotect(base + PAGE_BYTES, region->size, PROT_READ | PROT_WRITE), 0);
    memcpy(base + PAGE_BYTES, region->header, region->size);
    const size_t size = region->size;
    region_close(region);
    region->header = (struct region_header *)(void *)(base + PAGE_BYTES);
    region->size = size;
}

static void release(struct region *region)
{
    munmap((uint8_t *)region->header - PAGE_BYTES, region->size + (size_t)2 * PAGE_BYTES);
}

/* ---- rings ---- */

struct ends {
    struct region region;
    struct ring_producer producer;
    struct ring_consumer consumer;
};

static int attach(struct ends *ends, struct region_mismatch *mismatch)
{
    int err = ring_producer_attach(&ends->producer, &ends->region, mismatch);
    return err < 0 ? err : ring_consumer_attach(&ends->consumer, &ends->region, mismatch);
}

/* Six messages published from 0 on, three of them consumed: tail 3, head 6. */
static void make_ring(struct ends *ends)
{
    struct region_mismatch mismatch;

    CU_ASSERT_EQUAL_FATAL(ring_create(&ends->region, "test", DEPTH, SLOT_BYTES, 0, 1, &anywhere),
                          0);
    CU_ASSERT_EQUAL_FATAL(attach(ends, &mismatch), 0);
    for (uint64_t i = 0; i < PUBLISHED; i++) {
        struct ring_slot *slot = ring_claim(&ends->producer);
        CU_ASSERT_PTR_NOT_NULL_FATAL(slot);
        slot->source = i;
        slot->length = 8;
        slot->kind = RING_REQUEST;
        slot->parts = 1;
        ring_publish(&ends->producer);
        if (i < HELD) {
            CU_ASSERT_PTR_NOT_NULL_FATAL(ring_peek(&ends->consumer));
            ring_next(&ends->consumer);
            ring_commit(&ends->consumer);
        }
    }
    guard(&ends->region);
    CU_ASSERT_EQUAL_FATAL(attach(ends, &mismatch), 0);
    CU_ASSERT_EQUAL(ends->producer.head, PUBLISHED);
    CU_ASSERT_EQUAL(ends->consumer.next, HELD);
}

static size_t slot_at(uint64_t position)
{
    return SLOTS + position % DEPTH * SLOT_BYTES;
}

static void test_ring_attach(void)
{
    const size_t tail = RING_CONTROL_OFFSET, geometry = offsetof(struct region_header, geometry);
    const struct {
        struct patch patch;
        const char *field;
        uint64_t expected;
        uint64_t found;
    } wrong[] = {
        {{tail, 8, PUBLISHED + 1}, "sequence before the tail", PUBLISHED + 1, 3},
        {{tail, 8, 100}, "sequence at the tail", 101, 5},
        {{tail, 8, UINT64_MAX}, "sequence at the tail", 0, 4},
        {{slot_at(PUBLISHED), 8, 77}, "sequence before the tail", 3, 77},
        {{slot_at(HELD), 8, 0}, "sequence behind the head", 1, 5},
        {{geometry, 8, 0}, "geometry[0]", RING_DEPTH_MAX, 0},
        {{geometry, 8, 3}, "geometry[0]", RING_DEPTH_MAX, 3},
        {{geometry, 8, RING_DEPTH_MAX},
         "size",
         SLOTS + RING_DEPTH_MAX * SLOT_BYTES,
         3 * PAGE_BYTES},
        {{geometry + 8, 8, 0}, "geometry[1]", LINE_BYTES, 0},
        {{geometry + 8, 8, 65600}, "size", SLOTS + DEPTH * 65600, 3 * PAGE_BYTES},
        {{geometry + 8, 8, (uint64_t)1 << 40}, "geometry[1]", LINE_BYTES, (uint64_t)1 << 40},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct ends ends;
        struct region_mismatch mismatch = {.field = "none"};
        make_ring(&ends);
        apply(&ends.region, &wrong[i].patch);
        CU_ASSERT_EQUAL(attach(&ends, &mismatch), -EPROTO);
        CU_ASSERT_STRING_EQUAL(mismatch.field, wrong[i].field);
        CU_ASSERT_EQUAL(mismatch.expected, wrong[i].expected);
        CU_ASSERT_EQUAL(mismatch.found, wrong[i].found);
        release(&ends.region);
    }
}

static int child_peek(void *ends)
{
    return ring_peek(&((struct ends *)ends)->consumer) != NULL;
}

static int child_refresh(void *ends)
{
    return (int)ring_refresh(&((struct ends *)ends)->producer);
}

static int child_resume(void *ends)
{
    struct ends *both = ends;

    return ring_resume(&both->consumer, &both->producer);
}

static int child_take(void *ends)
{
    struct ends *both = ends;
    static struct stage stage;
    static struct worker worker;

    worker = (struct worker){.in = both->consumer,
                             .out = both->producer,
                             .schema = schema_of(SCHEMA_V1),
                             .handle = handler_fizzbuzz.handle,
                             .burst = 1};
    stage.self = &worker;
    return worker_poll(&stage);
}

static void test_ring_words(void)
{
#define CORRUPT "shared memory is corrupt: "
    const size_t kind = offsetof(struct ring_slot, kind);
    const size_t length = offsetof(struct ring_slot, length);
    const size_t tail = RING_CONTROL_OFFSET;
    const struct {
        struct patch patch;
        int (*act)(void *ends);
        const char *said;
    } wrong[] = {
        {{slot_at(HELD) + length, 2, 89},
         child_peek,
         CORRUPT "ring slot length: expected 88 (0x58), found 89 (0x59)\n"},
        {{slot_at(HELD) + length, 2, 65535},
         child_peek,
         CORRUPT "ring slot length: expected 88 (0x58), found 65535 (0xffff)\n"},
        {{tail, 8, PUBLISHED + 1},
         child_refresh,
         CORRUPT "ring tail: expected 6 (0x6), found 7 (0x7)\n"},
        {{tail, 8, PUBLISHED - DEPTH - 1},
         child_refresh,
         CORRUPT "ring tail: expected 6 (0x6), found 1 (0x1)\n"},
        {{slot_at(PUBLISHED - 1) + 8, 8, 1000},
         child_resume,
         CORRUPT "ring slot source: expected 6 (0x6), found 1000 (0x3e8)\n"},
        {{slot_at(HELD) + kind, 1, RING_FILTERED},
         child_take,
         CORRUPT "ring slot kind: expected 3 (0x3), found 4 (0x4)\n"},
        {{slot_at(HELD) + kind, 2, REASON_COUNT << 8 | RING_REJECTED},
         child_take,
         CORRUPT "ring slot reason: expected 12 (0xc), found 13 (0xd)\n"},
    };
#undef CORRUPT
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct ends ends;
        make_ring(&ends);
        apply(&ends.region, &wrong[i].patch);
        unit_dies(wrong[i].act, &ends, SIGABRT, wrong[i].said);
        release(&ends.region);
    }
}

/* What is odd and harmless goes on: any part of any number of parts, any flow. */
static void test_ring_harmless(void)
{
    struct ends ends;
    make_ring(&ends);
    const struct patch parts = {slot_at(PUBLISHED - 1) + offsetof(struct ring_slot, part), 4,
                                0xffff0007};
    apply(&ends.region, &parts);
    CU_ASSERT_EQUAL(ring_resume(&ends.consumer, &ends.producer), 0);
    CU_ASSERT_EQUAL(ends.consumer.next, PUBLISHED);
    CU_ASSERT_PTR_NULL(ring_peek(&ends.consumer));
    release(&ends.region);
}

/* ---- arena ---- */

enum { DIRECTORY = PAGE_BYTES, LANES = 2 * PAGE_BYTES, SUB = 2 * PAGE_BYTES };
enum { LANE_BYTES = PAGE_BYTES + LANE_SUBBUFFERS * SUB };

/* Lane 0 has a sealed sub-buffer with one record and an open one. */
static void make_arena(struct region *arena)
{
    const struct lane_plan plan[] = {
        {"rx", LANE_TRACE, 0, LANE_BYTES_MIN},
        {"ingress", LANE_PLAIN, sizeof(struct ingress_record), LANE_BYTES_MIN}};
    struct lane lane;
    struct trace trace;

    CU_ASSERT_EQUAL_FATAL(arena_create(arena, &anywhere, plan, 2, 1), 0);
    guard(arena);
    CU_ASSERT_EQUAL_FATAL(lane_open(&lane, arena, 0), 0);
    trace_open(&trace, &lane, 1, 1, 0);
    trace_stamp(&trace, POINT_rx_put, 0, 1);
    trace_stamp(&trace, POINT_rx_put, 0, (uint64_t)1 << 32);
}

static void test_directory(void)
{
    const size_t first = DIRECTORY + offsetof(struct lane_directory, lane);
    const size_t second = first + sizeof(struct lane_entry);
    const size_t kind = offsetof(struct lane_entry, kind);
    const size_t record = offsetof(struct lane_entry, record_bytes);
    const size_t offset = offsetof(struct lane_entry, offset);
    const size_t bytes = offsetof(struct lane_entry, bytes);
    const struct {
        struct patch patch;
        uint32_t index; /* the lane that can no longer be opened */
        const char *field;
        uint64_t expected;
        uint64_t found;
    } wrong[] = {
        {{DIRECTORY, 4, LANE_MAX + 1}, 0, "lane count", LANE_MAX, LANE_MAX + 1},
        {{DIRECTORY, 4, 3}, 2, "lane name, first letter", 'a', 0},
        {{first, 1, '/'}, 0, "lane name, first letter", 'a', '/'},
        {{second, 3, 0x2f2e2e}, 1, "lane name, first letter", 'a', '.'},
        {{first + kind, 4, 3}, 0, "lane kind", LANE_TRACE, 3},
        {{first + record, 4, 0}, 0, "lane record bytes", 16, 0},
        {{second + record, 4, 0}, 1, "lane record bytes", 16, 0},
        {{second + record, 4, 1 << 20}, 1, "lane record bytes", 16, 1 << 20},
        {{first + offset, 8, 0}, 0, "lane offset", LANES, 0},
        {{second + offset, 8, LANES}, 1, "lane offset", LANES + LANE_BYTES, LANES},
        {{second + offset, 8, UINT64_MAX}, 1, "lane offset", LANES + LANE_BYTES, UINT64_MAX},
        {{second + bytes, 8, LANE_BYTES + 1}, 1, "lane bytes", LANE_BYTES, LANE_BYTES + 1},
        {{second + bytes, 8, UINT64_MAX}, 1, "lane bytes", LANE_BYTES, UINT64_MAX},
        {{second + bytes, 8, 0}, 1, "lane bytes", LANE_BYTES, 0},
        {{second + bytes, 8, LANE_BYTES - 16}, 1, "lane bytes", LANE_BYTES, LANE_BYTES - 16},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct region arena;
        struct region_mismatch mismatch = {.field = "none"};
        struct lane lane;
        make_arena(&arena);
        CU_ASSERT_EQUAL(arena_check(&arena, &mismatch), 0);
        apply(&arena, &wrong[i].patch);
        CU_ASSERT_EQUAL(arena_check(&arena, &mismatch), -EPROTO);
        CU_ASSERT_STRING_EQUAL(mismatch.field, wrong[i].field);
        CU_ASSERT_EQUAL(mismatch.expected, wrong[i].expected);
        CU_ASSERT_EQUAL(mismatch.found, wrong[i].found);
        CU_ASSERT_EQUAL(lane_open(&lane, &arena, wrong[i].index), -EPROTO);
        if (wrong[i].index > 0)
            CU_ASSERT_EQUAL(lane_open(&lane, &arena, 0), 0);
        release(&arena);
    }
}

static int child_drain(void *lane)
{
    const struct ctf_uuid uuid = {{0}};
    char folder[] = "/tmp/tickline-test-XXXXXX";
    struct trace_file file;

    if (!mkdtemp(folder))
        return 1;
    int fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    int err = file_open(&file, fd, "rx", lane, &uuid);
    unlinkat(fd, "rx", 0);
    rmdir(folder);
    return err < 0 ? 1 : file_drain(&file);
}

static void test_subbuffers(void)
{
#define CORRUPT "shared memory is corrupt: sub-buffer"
    const size_t content = LANES + PAGE_BYTES + offsetof(struct lane_packet, content_bytes);
    const size_t sealed = LANES + offsetof(struct lane_control, sealed);
    const struct {
        struct patch patch;
        const char *said;
    } wrong[] = {
        {{content, 8, PAGE_BYTES + 16},
         CORRUPT " content: expected 4096 (0x1000), found 4112 (0x1010)\n"},
        {{content, 8, 1 << 30},
         CORRUPT " content: expected 4096 (0x1000), found 1073741824 (0x40000000)\n"},
        {{content, 8, 17},
         CORRUPT " content, whole records: expected 16 (0x10), found 17 (0x11)\n"},
        {{sealed, 8, 17}, CORRUPT "s sealed: expected 16 (0x10), found 17 (0x11)\n"},
        {{sealed, 8, 1 << 30},
         CORRUPT "s sealed: expected 16 (0x10), found 1073741824 (0x40000000)\n"},
    };
#undef CORRUPT
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct region arena;
        struct lane lane;
        make_arena(&arena);
        CU_ASSERT_EQUAL_FATAL(lane_open(&lane, &arena, 0), 0);
        apply(&arena, &wrong[i].patch);
        unit_dies(child_drain, &lane, SIGABRT, wrong[i].said);
        release(&arena);
    }
}

/* The owner goes on within its lane, whatever its successor or the tracer finds there. */
static void test_owner(void)
{
    const uint64_t values[] = {0, 1, 15, 16, 17, 1000, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < 6 * sizeof(values) / sizeof(values[0]); i++) {
        const size_t words[] = {0, 8, 16, 24, 128, 136};
        struct region arena;
        struct lane lane;
        struct trace trace;
        make_arena(&arena);
        CU_ASSERT_EQUAL_FATAL(lane_open(&lane, &arena, 0), 0);
        const struct patch patch = {LANES + words[i % 6], 8, values[i / 6]};
        apply(&arena, &patch);
        trace_open(&trace, &lane, 1, 2, 0);
        for (uint64_t request = 0; request < 1000; request++)
            trace_stamp(&trace, POINT_rx_put, 0, request << (request % 40));
        trace_close(&trace);
        release(&arena);
    }
}

/* More sealed than opened led nowhere: the watcher comes back all the same. */
static void test_watcher(void)
{
    const struct patch sealed = {LANES, 8, (uint64_t)1 << 40};
    struct latency_figures figures[LATENCY_SPANS_MAX];
    struct region arena;
    struct latency *latency;
    make_arena(&arena);
    CU_ASSERT_EQUAL_FATAL(latency_open(&latency, &arena, 1e9, 1), 0);
    apply(&arena, &sealed);
    latency_read(latency, UINT64_MAX);
    uint32_t spans = latency_take(latency, figures);
    for (uint32_t i = 0; i < spans; i++)
        CU_ASSERT_EQUAL(figures[i].count, 0);
    latency_close(latency);
    release(&arena);
}

/* ---- cells, regions, run files ---- */

static void test_cell(void)
{
    struct region region;
    CU_ASSERT_EQUAL_FATAL(cells_create(&region, 1, &anywhere), 0);
    struct cell *cell = &cells_of(&region)->cell[CELL_RX];
    memset(cell->name, 'x', sizeof(cell->name));
    store_relaxed(&cell->wanted, 0x61616161u);
    CU_ASSERT_STRING_EQUAL(cell_name(cell).s, "xxxxxxxxxxxxxxxx");
    memcpy(cell->name, "rx\x1b[2J", 7);
    CU_ASSERT_STRING_EQUAL(cell_name(cell).s, "rx??2J");
    CU_ASSERT_STRING_EQUAL(cell_state_name((enum cell_state)77), "unknown");
    region_close(&region);
}

/* Of the right kind and layout, with a header that agrees with its size, and too small all the same. */
static void test_small_region(void)
{
    const struct {
        struct region_want want;
        uint64_t needed;
    } small[] = {{cells_want(1), CELLS_OFFSET + sizeof(struct cells)}, {arena_want(1), LANES}};
    for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
        struct region owner, other;
        struct region_mismatch mismatch = {.field = "none"};
        CU_ASSERT_EQUAL_FATAL(region_create(&owner, "test", &small[i].want, &anywhere, 4096), 0);
        CU_ASSERT_EQUAL(region_attach(&other, owner.fd, &small[i].want, false, &mismatch), -EPROTO);
        CU_ASSERT_STRING_EQUAL(mismatch.field, "size");
        CU_ASSERT_EQUAL(mismatch.expected, small[i].needed);
        CU_ASSERT_EQUAL(mismatch.found, 4096);
        region_close(&owner);
    }
}

static void test_runfile(void)
{
    static const struct {
        const char *arena;
        const char *socket;
        bool kept;
    } cases[] = {
        {"/dev/shm/tickline-a.1", "a.1.sock", true},
        {"/etc/passwd", "../a.1.sock", false},
        {"/dev/shm/tickline-/../../etc/passwd", "below/a.1.sock", false},
        {"/dev/shm/other", "a\\u001b", false},
    };
    char folder[] = "/tmp/tickline-test-XXXXXX", path[64];
    struct runfile runfile;
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/a.1.json", folder);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        FILE *out = fopen(path, "w");
        CU_ASSERT_PTR_NOT_NULL_FATAL(out);
        fprintf(out, "{\"name\": \"a\", \"arena\": \"%s\", \"socket\": \"%s/%s\"}", cases[i].arena,
                folder, cases[i].socket);
        fclose(out);
        CU_ASSERT_EQUAL(runfile_load(&runfile, path), 0);
        CU_ASSERT_STRING_EQUAL(runfile.name, "a");
        CU_ASSERT_STRING_EQUAL(runfile.arena, cases[i].kept ? cases[i].arena : "");
        CU_ASSERT_EQUAL(runfile.socket[0] != '\0', cases[i].kept);
    }
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    CU_TestInfo rings[] = {
        {"attach compares tail, head and geometry", test_ring_attach},
        {"a word that cannot be stops its reader", test_ring_words},
        {"what is odd and harmless", test_ring_harmless},
        CU_TEST_INFO_NULL,
    };
    CU_TestInfo arenas[] = {
        {"directory", test_directory},
        {"sub-buffers", test_subbuffers},
        {"the owner stays in its lane", test_owner},
        {"the watcher comes back", test_watcher},
        CU_TEST_INFO_NULL,
    };
    CU_TestInfo others[] = {
        {"cell", test_cell},
        {"regions too small", test_small_region},
        {"run file", test_runfile},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "hostile rings", .pTests = rings},
                             {.pName = "hostile arenas", .pTests = arenas},
                             {.pName = "hostile rest", .pTests = others},
                             CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
