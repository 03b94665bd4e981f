/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tracer's files: whoever is killed, the file ends as the same bytes. Also a plain lane whose
 * owner is killed: each number stands in its file once.
 */
#include "tests/crash/campaign.h"
#include "tests/crash/recovered.h"
#include "tracer/file.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { PAYLOAD = PAGE_BYTES, NUMBERS = 391, FILE_MAX = 1 << 20 };

static const struct region_place anywhere = {.numa_node = -1};
static const struct ctf_uuid uuid = {{1, 2, 3}};
static char path[] = "/tmp/tickline-crash-XXXXXX";
static int folder;
static struct region arena;
static struct lane lane;
static struct trace trace;
static uint8_t expected[FILE_MAX];
static size_t expected_bytes;
static struct {
    uint64_t issued;
    uint64_t appended;
} * numbers;

static void make_lane(enum lane_kind kind)
{
    const struct lane_plan plan = {"rx", kind, sizeof(struct ingress_record), LANE_BYTES_MIN};

    strcpy(path + sizeof(path) - 7, "XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(path));
    folder = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    CU_ASSERT_EQUAL_FATAL(arena_create(&arena, &anywhere, &plan, 1, 1), 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&lane, &arena, 0), 0);
}

static void unmake(void)
{
    static const char *const names[] = {"rx", "metadata", "metadata.new"};

    for (size_t i = 0; i < 3; i++)
        (void)unlinkat(folder, names[i], 0);
    close(folder);
    CU_ASSERT_EQUAL(rmdir(path), 0);
    region_close(&arena);
}

/* What a tracer does in its life. */
static int drain(void)
{
    const struct ctf_facts facts = {
        .uuid = uuid, .run = "crash", .clock = clock_from_hz(2e9), .pair = {.tsc = 1}};
    struct trace_file file;
    int moved;

    if (ctf_save_metadata(folder, &facts) < 0 || file_open(&file, folder, "rx", &lane, &uuid) < 0)
        return 1;
    while ((moved = file_drain(&file)) > 0)
        continue;
    if (moved < 0)
        return 2;
    return file_finish(&file, true) < 0 ? 3 : 0;
}

static size_t read_file(const char *name, uint8_t *data)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, data, FILE_MAX);

    CU_ASSERT(got >= 0);
    close(fd);
    return got < 0 ? 0 : (size_t)got;
}

/* Drained once without a kill: that is how it must come out. */
static void note_expected(void)
{
    CU_ASSERT_EQUAL(drain(), 0);
    expected_bytes = read_file("rx", expected);
    store_relaxed(&lane.control->drained, (uint64_t)0);
    (void)unlinkat(folder, "rx", 0);
    (void)unlinkat(folder, "metadata", 0);
}

static void check_file(void)
{
    static uint8_t found[FILE_MAX];
    size_t bytes = read_file("rx", found);

    CU_ASSERT_EQUAL(bytes, expected_bytes);
    CU_ASSERT(bytes == expected_bytes && memcmp(found, expected, bytes) == 0);
    CU_ASSERT(read_file("metadata", found) > 0);
    CU_ASSERT(memcmp(found, "/* CTF 1.8 */", 13) == 0);
    CU_ASSERT_EQUAL(faccessat(folder, "metadata.new", F_OK, 0), -1);
    CU_ASSERT_EQUAL(load_relaxed(&lane.control->drained), load_relaxed(&lane.control->sealed));
}

/* ---- a trace lane: full sub-buffers, short ones, discards after the last record ---- */

static void make_stamped(void)
{
    make_lane(LANE_TRACE);
    trace_open(&trace, &lane, 1, 1, 5);
    trace.last = 1000000;
    for (uint64_t i = 0; i < 3 * PAYLOAD / LANE_RECORD_BYTES + 40; i++)
        trace_stamp_at(&trace, trace.last + 10, POINT_rx_put, 1, i);
    trace_stamp_at(&trace, trace.last + 10, POINT_rx_put, 1, 1ULL << 32);
    trace_close(&trace);
    store_relaxed(&lane.control->discarded, (uint64_t)5);
    note_expected();
}

static const char *const drainer_labels[] = {
    "file:created",   "file:empty_written",    "file:before_write",     "file:after_write",
    "file:drained",   "file:finish_begun",     "file:last_cut",         "file:discards_written",
    "file:truncated", "file:metadata_written", "file:metadata_renamed", NULL,
};

const struct crash_role crash_drainer = {
    .name = "tracer",
    .labels = drainer_labels,
    .first_label = "file:after_write",
    .first_pass = 2,
    .make = make_stamped,
    .live = drain,
    .check = check_file,
    .unmake = unmake,
};

/* ---- a plain lane, with gaps and a sub-buffer in which nothing stands ---- */

static void append(uint64_t number)
{
    const struct ingress_record record = {.request = number, .id = ~number, .length = 9};

    trace_append(&trace, &record, sizeof(record));
}

static void make_appended(void)
{
    uint64_t number = 1;

    make_lane(LANE_PLAIN);
    for (int life = 0; life < 3; life++) {
        trace_open(&trace, &lane, 1, 1, 5);
        for (int i = 0; i < 150; i++)
            append(number++);
    }
    trace_close(&trace);
    (void)trace_room(&trace, sizeof(struct ingress_record), 0);
    trace_close(&trace);
    note_expected();
    CU_ASSERT_EQUAL(expected_bytes, (number - 1) * sizeof(struct ingress_record));
}

static const char *const plain_drainer_labels[] = {
    "file:created",      "file:before_write", "file:after_write", "file:drained",
    "file:finish_begun", "file:gap_closed",   "file:truncated",   NULL,
};

const struct crash_role crash_plain_drainer = {
    .name = "tracer, plain",
    .labels = plain_drainer_labels,
    .first_label = "file:after_write",
    .first_pass = 2,
    .make = make_appended,
    .live = drain,
    .check = check_file,
    .unmake = unmake,
};

/* ---- the owner of a plain lane, as rx: a number is issued, then written ---- */

static void make_plain(void)
{
    if (!numbers)
        numbers = campaign_shared(sizeof(*numbers));
    memset(numbers, 0, sizeof(*numbers));
    make_lane(LANE_PLAIN);
}

static int own(void)
{
    struct lane_control *control = lane.control;

    trace_open(&trace, &lane, 1, 1, 5);
    while (numbers->appended < NUMBERS) {
        if (numbers->issued == numbers->appended)
            numbers->issued++;
        append(numbers->issued);
        numbers->appended = numbers->issued;
        if (numbers->issued % 100 == 0)
            store_release(&control->seal_asked, load_relaxed(&control->seal_asked) + 1);
        trace_tend(&trace);
    }
    trace_close(&trace);
    return 0;
}

static void died(void)
{
    check_recovered(&lane);
}

static void check_numbers(void)
{
    static uint8_t found[FILE_MAX];
    unsigned int wrong = 0;

    check_lane_whole(&lane);
    CU_ASSERT_EQUAL(drain(), 0);
    CU_ASSERT_EQUAL(read_file("rx", found), NUMBERS * sizeof(struct ingress_record));
    for (uint64_t i = 0; i < NUMBERS; i++) {
        struct ingress_record record;
        memcpy(&record, found + i * sizeof(record), sizeof(record));
        wrong += record.request != i + 1 || record.id != ~(i + 1) || record.length != 9;
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

static const char *const plain_labels[] = {
    "lane:abandoned_found", "lane:attached",     "lane:seal_begun",
    "lane:seal_packet",     "lane:seal_counted", "lane:sealed",
    "lane:open_packet",     "lane:open_cleared", "lane:opened",
    "lane:append_words",    "lane:append_done",  "lane:seal_asked",
    "lane:close_sealed",    "lane:closed",       NULL,
};

const struct crash_role crash_plain = {
    .name = "plain lane",
    .labels = plain_labels,
    .first_label = "lane:append_done",
    .first_pass = 40,
    .make = make_plain,
    .live = own,
    .died = died,
    .check = check_numbers,
    .unmake = unmake,
};
