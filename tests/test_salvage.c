/* SPDX-License-Identifier: Apache-2.0 */
/* Repaired files: cut at every byte, with holes anywhere; torn records; a bounded trace whose tracer is killed between
 * any two steps. */
#include "tests/unit.h"
#include "tracer/history.h"
#include "tracer/repair.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static const struct region_place anywhere = {.numa_node = -1};
static const struct ctf_uuid uuid = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

enum { PACKETS = 5, SUBBUFFER = 8192, RECORDS = 256, FILE_MAX = 1 << 20 };

struct bytes {
    uint8_t data[FILE_MAX];
    size_t size;
};

struct fixture {
    char path[48];
    int folder;
    struct region arena;
    struct lane lane;
    struct trace trace;
};

static void make(struct fixture *made, enum lane_kind kind)
{
    const struct lane_plan plan = {"rx", kind, 32, LANE_SUBBUFFERS * SUBBUFFER};
    /* In memory: it is written a hundred thousand times. */
    strcpy(made->path, "/dev/shm/tickline-test-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(made->path));
    made->folder = open(made->path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    CU_ASSERT_EQUAL_FATAL(arena_create(&made->arena, &anywhere, &plan, 1, 1), 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&made->lane, &made->arena, 0), 0);
    trace_open(&made->trace, &made->lane, 1, 1, 0);
}

static void unmake(struct fixture *made)
{
    char command[80];
    snprintf(command, sizeof(command), "rm -r %s", made->path);
    CU_ASSERT_EQUAL(system(command), 0);
    close(made->folder);
    region_close(&made->arena);
}

static void stamp(struct fixture *made, uint64_t request)
{
    trace_stamp(&made->trace, POINT_rx_put, 1, request);
}

static void append(struct fixture *made, uint64_t request)
{
    const struct ingress_record record = {
        .request = request, .id = ~request, .datagram = (uint32_t)request};
    trace_append(&made->trace, &record, sizeof(record));
}

static void put(const struct fixture *made, const char *name, const struct bytes *bytes,
                size_t size)
{
    int fd = openat(made->folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    CU_ASSERT_EQUAL_FATAL(write(fd, bytes->data, size), (ssize_t)size);
    close(fd);
}

static void get(int folder, const char *name, struct bytes *bytes)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    CU_ASSERT_FATAL(fd >= 0);
    ssize_t got = read(fd, bytes->data, sizeof(bytes->data));
    CU_ASSERT_FATAL(got >= 0 && got < FILE_MAX);
    bytes->size = (size_t)got;
    close(fd);
}

/* PACKETS packets, the second sealed early, and discards behind the last: what a tracer leaves at its end. */
static void write_trace(struct fixture *made, const char *name, struct bytes *bytes)
{
    struct trace_file file;
    uint64_t request = 0;
    CU_ASSERT_EQUAL_FATAL(file_open(&file, made->folder, name, &made->lane, &uuid), 0);
    for (int packet = 0; packet < PACKETS; packet++) {
        int records = packet == 1 || packet == PACKETS - 1 ? RECORDS / 4 : RECORDS;
        for (int i = 0; i < records; i++)
            stamp(made, ((uint64_t)packet << 32) + ++request);
    }
    trace_close(&made->trace);
    store_relaxed(&made->lane.control->discarded, (uint64_t)9);
    while (file_drain(&file) > 0)
        continue;
    CU_ASSERT_EQUAL(file.written, PACKETS);
    CU_ASSERT_EQUAL(file_finish(&file, true), 0);
    get(made->folder, name, bytes);
    CU_ASSERT_EQUAL(bytes->size, 4096 + (PACKETS - 1) * SUBBUFFER + 8192 + 4096);
}

static struct ctf_header header_at(const struct bytes *bytes, size_t at)
{
    struct ctf_header header;
    CU_ASSERT_FATAL(at + sizeof(header) <= bytes->size);
    memcpy(&header, bytes->data + at, sizeof(header));
    return header;
}

struct walked {
    uint64_t packets;
    uint64_t records;
    uint64_t skipped; /* numbers */
    uint64_t last;    /* number */
};

/* As a reader of CTF goes through it: whatever it is, it must be valid from the first byte to the last. */
static struct walked walk(const struct bytes *bytes)
{
    struct walked walked = {0};
    uint64_t discarded = 0, end = 0, number = 0;
    for (size_t at = 0; at < bytes->size;) {
        struct ctf_header header = header_at(bytes, at);
        uint64_t content = header.content_bits / 8 - 4096, size = header.packet_bits / 8;
        CU_ASSERT_FATAL(header.magic == CTF_MAGIC && memcmp(header.uuid, &uuid, 16) == 0);
        CU_ASSERT_FATAL(size >= 4096 + content && size <= bytes->size - at);
        CU_ASSERT_EQUAL(crc32c(bytes->data + at + 4096, content), header.checksum);
        CU_ASSERT(header.timestamp_begin >= end && header.timestamp_end >= header.timestamp_begin);
        CU_ASSERT(header.discarded >= discarded);
        CU_ASSERT(at == 0 ? header.sequence == 0 : header.sequence > number);
        walked.skipped += at ? header.sequence - number - 1 : 0;
        walked.packets += content > 0;
        walked.records += content / 16;
        discarded = header.discarded;
        end = header.timestamp_end;
        walked.last = number = header.sequence;
        at += size;
    }
    return walked;
}

/* What is repaired once is repaired. */
static void check_repaired(const struct fixture *made, const char *name, struct repair *done)
{
    static struct bytes once, twice;
    struct repair again;
    CU_ASSERT_EQUAL_FATAL(repair_stream(made->folder, name, &uuid, 0, done), 0);
    get(made->folder, name, &once);
    struct walked walked = walk(&once);
    CU_ASSERT_EQUAL(walked.packets, done->packets);
    CU_ASSERT_EQUAL(walked.records, done->records);
    CU_ASSERT_EQUAL(walked.skipped, done->lost_packets);
    CU_ASSERT_EQUAL_FATAL(repair_stream(made->folder, name, &uuid, 0, &again), 0);
    get(made->folder, name, &twice);
    CU_ASSERT(once.size == twice.size && memcmp(once.data, twice.data, once.size) == 0);
    CU_ASSERT_EQUAL(again.records, done->records);
    CU_ASSERT_EQUAL(again.cut_bytes, 0);
}

static uint64_t records_of(int packet)
{
    return packet == 1 || packet == PACKETS - 1 ? RECORDS / 4 : RECORDS;
}

static void test_cut_anywhere(void)
{
    static struct bytes whole, again;
    struct fixture made;
    struct repair done;
    make(&made, LANE_TRACE);
    write_trace(&made, "rx", &whole);
    check_repaired(&made, "rx", &done);
    get(made.folder, "rx", &again);
    CU_ASSERT(again.size == whole.size && memcmp(again.data, whole.data, whole.size) == 0);
    CU_ASSERT_EQUAL(done.discarded, 9);
    for (size_t size = 0; size < whole.size; size++) {
        uint64_t packets = 0, records = 0;
        for (int i = 0; i < PACKETS; i++) {
            if ((size_t)(4096 + i * SUBBUFFER + 4096) + 16 * records_of(i) <= size) {
                packets++;
                records += records_of(i);
            }
        }
        put(&made, "cut", &whole, size);
        check_repaired(&made, "cut", &done);
        CU_ASSERT_EQUAL_FATAL(done.packets, packets);
        CU_ASSERT_EQUAL(done.records, records);
        CU_ASSERT_EQUAL(done.lost_packets, 0);
        CU_ASSERT_EQUAL(done.first_made, size < 4096);
    }
    unmake(&made);
}

/* Zeros or rubbish over a stretch: all packets that it leaves alone are there afterwards, the others are missed by number. */
static void test_holes_anywhere(void)
{
    enum { TRIES = 4000 };
    static struct bytes whole, holed;
    struct fixture made;
    struct repair done;
    uint64_t random = 1;
    make(&made, LANE_TRACE);
    write_trace(&made, "rx", &whole);
    for (int try = 0; try < TRIES; try++) {
        uint64_t kept = 0, records = 0;
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        size_t from = (size_t)(random >> 33) % whole.size;
        size_t length = 1 + (size_t)(random >> 13) % (try % 3 ? 3000 : 20000);
        length = from + length > whole.size ? whole.size - from : length;
        holed = whole;
        for (size_t i = 0; i < length; i++)
            holed.data[from + i] = (uint8_t)(try % 2 ? 0 : random >> (i % 7) ^ i);
        put(&made, "hole", &holed, holed.size);
        check_repaired(&made, "hole", &done);
        for (int i = 0; i < PACKETS; i++) {
            size_t at = 4096 + (size_t)i * SUBBUFFER;
            size_t end = at + 4096 + 16 * records_of(i);
            bool same = memcmp(whole.data + at, holed.data + at, end - at) == 0;
            kept += same;
            records += same ? records_of(i) : 0;
        }
        /* Beyond its fields a header is reserved and not looked at: one damaged there is still whole. */
        CU_ASSERT(done.packets >= kept && done.records >= records);
        CU_ASSERT(done.packets <= PACKETS);
        if (memcmp(whole.data + whole.size - 4096, holed.data + whole.size - 4096, 4096) == 0)
            CU_ASSERT_EQUAL(done.packets + done.lost_packets, PACKETS);
    }
    unmake(&made);
}

static void test_foreign(void)
{
    static const struct ctf_uuid other = {{99}};
    static struct bytes whole, after;
    struct fixture made;
    struct repair done;
    struct ctf_uuid found;
    make(&made, LANE_TRACE);
    write_trace(&made, "rx", &whole);
    CU_ASSERT_EQUAL(repair_find_uuid(made.folder, "rx", &found), 0);
    CU_ASSERT(memcmp(&found, &uuid, sizeof(uuid)) == 0);
    CU_ASSERT_EQUAL(repair_stream(made.folder, "rx", &other, 0, &done), -ESTALE);
    get(made.folder, "rx", &after);
    CU_ASSERT(after.size == whole.size && memcmp(after.data, whole.data, whole.size) == 0);
    CU_ASSERT_EQUAL(symlinkat("rx", made.folder, "link"), 0);
    CU_ASSERT_EQUAL(repair_stream(made.folder, "link", &uuid, 0, &done), -ELOOP);
    CU_ASSERT_EQUAL(repair_stream(made.folder, "none", &uuid, 0, &done), -ENOENT);
    CU_ASSERT_EQUAL(repair_stream(made.folder, ".", &uuid, 0, &done), -EISDIR);
    unmake(&made);
}

static void test_plain(void)
{
    enum { COUNT = 150 };
    static struct bytes whole, cut;
    struct fixture made;
    struct repair done;
    make(&made, LANE_PLAIN);
    struct ingress_record *record = (struct ingress_record *)(void *)whole.data;
    for (uint64_t i = 0; i < COUNT; i++)
        record[i] = (struct ingress_record){.request = i + 1, .id = ~i};
    whole.size = COUNT * 32;
    for (size_t size = 0; size <= whole.size; size++) {
        put(&made, "ingress.bin", &whole, size);
        CU_ASSERT_EQUAL(repair_plain(made.folder, "ingress.bin", &done), 0);
        get(made.folder, "ingress.bin", &cut);
        CU_ASSERT_EQUAL_FATAL(cut.size, size / 32 * 32);
        CU_ASSERT(memcmp(cut.data, whole.data, cut.size) == 0);
        CU_ASSERT(done.records == size / 32 && done.cut_bytes == size % 32);
    }
    cut = whole; /* a hole, and a doublet */
    memset(cut.data + 32 * 40, 0, (size_t)32 * 10);
    memcpy(cut.data + 32 * 90, cut.data + 32 * 89, 32);
    put(&made, "ingress.bin", &cut, whole.size);
    CU_ASSERT_EQUAL(repair_plain(made.folder, "ingress.bin", &done), 0);
    CU_ASSERT_EQUAL(done.records, COUNT - 11);
    unmake(&made);
}

/* ---- torn records ---- */

static void test_torn(void)
{
    struct fixture made;
    for (int lap = 0; lap < 2; lap++) {
        for (int words = 0; words < 4; words++) {
            make(&made, LANE_TRACE);
            uint64_t request = 0;
            for (int i = 0; i < lap * LANE_SUBBUFFERS * RECORDS; i++)
                stamp(&made, ++request);
            store_release(&made.lane.control->drained, (uint64_t)(lap * LANE_SUBBUFFERS));
            for (int i = 0; i < 20; i++)
                stamp(&made, ++request);
            struct lane_record *next = (struct lane_record *)(void *)made.trace.next;
            if (words == 1) /* a record, but for its tsc */
                trace_fill(next, POINT_rx_put, 0, request + 1);
            if (words == 2) { /* a wide one */
                trace_fill(next, POINT_rx_got, 0, request + 1);
                memset(next + 1, 1, sizeof(*next));
            }
            if (words == 3) /* of which only the values are there */
                memset(next + 1, 1, sizeof(*next));
            lane_seal_abandoned(&made.lane, tsc_read());
            uint64_t newest = load_relaxed(&made.lane.control->sealed) - 1;
            CU_ASSERT_EQUAL(lane_packet(&made.lane, newest)->records, 20);
            bool told = words == 3 ? lap == 0 : words > 0;
            CU_ASSERT_EQUAL(lane_torn(&made.lane), told);
            lane_seal_abandoned(&made.lane, tsc_read());
            CU_ASSERT_EQUAL(lane_torn(&made.lane), told); /* as often as one asks */
            unmake(&made);
        }
    }
}

static void test_torn_plain(void)
{
    struct fixture made;
    for (int lap = 0; lap < 2; lap++) {
        for (int torn = 0; torn < 2; torn++) {
            make(&made, LANE_PLAIN);
            uint64_t request = 0;
            for (int i = 0; i < lap * LANE_SUBBUFFERS * RECORDS / 2; i++)
                append(&made, ++request);
            store_release(&made.lane.control->drained, (uint64_t)(lap * LANE_SUBBUFFERS));
            for (int i = 0; i < 20; i++)
                append(&made, ++request);
            struct ingress_record *next = (struct ingress_record *)(void *)made.trace.next;
            if (torn) {
                next->id = 77;
                next->datagram = (uint32_t)request + 1;
            }
            lane_seal_abandoned(&made.lane, tsc_read());
            uint64_t newest = load_relaxed(&made.lane.control->sealed) - 1;
            CU_ASSERT_EQUAL(lane_packet(&made.lane, newest)->records, 20);
            CU_ASSERT_EQUAL(lane_torn(&made.lane), torn == 1);
            unmake(&made);
        }
    }
}

/* ---- a bounded history, killed ---- */

struct bounded {
    char path[48];
    int folder;
    struct region arena;
    struct trace rx;
    struct trace ingress;
    struct config config;
    struct clock clock;
    struct history history;
    struct cells cells;
    uint64_t request;
};

static void make_bounded(struct bounded *made, uint64_t max_bytes)
{
    static const struct lane_plan plans[] = {
        {"rx", LANE_TRACE, 32, LANE_SUBBUFFERS * SUBBUFFER},
        {"ingress", LANE_PLAIN, 32, LANE_SUBBUFFERS * SUBBUFFER}};
    struct lane lane;
    *made = (struct bounded){.clock = clock_from_hz(1e9)};
    made->config.trace.max_bytes = max_bytes;
    made->config.trace.snapshots = 10;
    strcpy(made->path, "/tmp/tickline-test-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(made->path));
    made->folder = open(made->path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    mkdirat(made->folder, "trace", 0755);
    mkdirat(made->folder, "wire", 0755);
    CU_ASSERT_EQUAL_FATAL(arena_create(&made->arena, &anywhere, plans, 2, 1), 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&lane, &made->arena, 0), 0);
    trace_open(&made->rx, &lane, 1, 1, 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&lane, &made->arena, 1), 0);
    trace_open(&made->ingress, &lane, 1, 1, 0);
}

static void unmake_bounded(struct bounded *made)
{
    char command[80];
    snprintf(command, sizeof(command), "rm -r %s", made->path);
    CU_ASSERT_EQUAL(system(command), 0);
    close(made->folder);
    region_close(&made->arena);
}

static void start_tracer(struct bounded *made, bool salvage)
{
    const struct history_plan plan = {
        .config = salvage ? NULL : &made->config,
        .clock = salvage ? NULL : &made->clock,
        .arena = &made->arena,
        .cells = &made->cells,
        .uuid = uuid,
        .run_folder = made->folder,
    };
    CU_ASSERT_EQUAL_FATAL(history_open(&made->history, &plan), 0);
}

static void kill_tracer(struct bounded *made)
{
    for (uint32_t i = 0; i < made->history.lanes; i++) {
        close(made->history.lane[i].file.fd);
        free(made->history.lane[i].file.header);
    }
    close(made->history.trace_folder);
    close(made->history.plain_folder);
}

/* `count` requests, each with a record in either lane. */
static void run_owners(struct bounded *made, int count)
{
    for (int i = 0; i < count; i++) {
        const struct ingress_record record = {.request = ++made->request, .id = ~made->request};
        trace_stamp(&made->rx, POINT_rx_put, 1, made->request);
        trace_append(&made->ingress, &record, sizeof(record));
    }
}

static void drain_all(struct bounded *made)
{
    int moved;
    while ((moved = history_drain(&made->history)) > 0)
        continue;
    CU_ASSERT_EQUAL(moved, 0);
}

/* All chunks of rx are valid and follow on one another up to the last request; the same of the one array. The number of
 * the first request kept. */
static uint64_t check_history(struct bounded *made)
{
    static struct bytes bytes;
    struct chunks chunks;
    char name[CHUNK_NAME_BYTES];
    uint64_t number = 0, first = 0, next = 0;
    int trace = openat(made->folder, "trace", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    int wire = openat(made->folder, "wire", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    CU_ASSERT_EQUAL_FATAL(chunk_list(trace, "rx", &chunks), 0);
    CU_ASSERT_FATAL(chunks.count > 0);
    for (uint32_t i = 0; i < chunks.count; i++) {
        struct repair done;
        chunk_name("rx", chunks.first[i], name);
        get(trace, name, &bytes);
        CU_ASSERT_EQUAL(repair_stream(trace, name, &uuid, chunks.first[i], &done), 0);
        CU_ASSERT(done.cut_bytes == 0 && done.lost_packets == 0 && !done.first_made);
        for (size_t at = 0; at < bytes.size;) {
            struct ctf_header header = header_at(&bytes, at);
            if (at == 0)
                CU_ASSERT_EQUAL(header.sequence, chunks.first[i]);
            if (at > 0 && number)
                CU_ASSERT_EQUAL(header.sequence, number + 1);
            number = at ? header.sequence : number;
            for (size_t k = 4096; k < header.content_bits / 8; k += 16) {
                uint32_t request;
                memcpy(&request, bytes.data + at + k + 12, 4);
                first = first ? first : request;
                if (next)
                    CU_ASSERT_EQUAL(request, next);
                next = request + 1;
            }
            at += header.packet_bits / 8;
        }
    }
    CU_ASSERT_EQUAL(next, made->request + 1);
    int ingress = openat(made->folder, "wire/ingress", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    CU_ASSERT_EQUAL_FATAL(chunk_list(ingress, "ingress", &chunks), 0);
    CU_ASSERT_EQUAL(chunks.count, 0);
    close(ingress);
    get(wire, "ingress.bin", &bytes);
    const struct ingress_record *record = (const struct ingress_record *)(void *)bytes.data;
    CU_ASSERT_FATAL(bytes.size >= 32);
    for (size_t i = 1; i < bytes.size / 32; i++)
        CU_ASSERT_EQUAL(record[i].request, record[i - 1].request + 1);
    CU_ASSERT_EQUAL(record[bytes.size / 32 - 1].request, made->request);
    close(trace);
    close(wire);
    return first;
}

static uint64_t bytes_in(const struct bounded *made, const char *folder)
{
    char command[128];
    unsigned long long bytes = 0;
    snprintf(command, sizeof(command), "cat %s/%s/* | wc -c", made->path, folder);
    FILE *out = popen(command, "r");
    CU_ASSERT_EQUAL(fscanf(out, "%llu", &bytes), 1);
    pclose(out);
    return bytes;
}

enum { MAX_BYTES = 40 * SUBBUFFER };

/* Killed after so many turns, again and again; never does more stay than is allowed. */
static void test_bounded_restarts(void)
{
    struct bounded made;
    for (int turns = 0; turns < 6; turns++) {
        make_bounded(&made, MAX_BYTES);
        for (int life = 0; life < 12; life++) {
            start_tracer(&made, false);
            for (int i = 0; i < turns; i++) {
                run_owners(&made, 300);
                drain_all(&made);
            }
            kill_tracer(&made);
            run_owners(&made, 100);
            CU_ASSERT(bytes_in(&made, "trace") + bytes_in(&made, "wire/ingress") <=
                      MAX_BYTES + 4 * SUBBUFFER);
        }
        trace_close(&made.rx);
        trace_close(&made.ingress);
        start_tracer(&made, turns % 2);
        CU_ASSERT_EQUAL(history_close(&made.history), 0);
        uint64_t first = check_history(&made);
        /* What was trimmed is gone; what was not is all there. */
        CU_ASSERT(turns == 0 ? first == 1 : turns < 3 || first > 1);
        unmake_bounded(&made);
    }
}

/* What a tracer leaves that is killed right behind each step of beginning a chunk. */
static void test_killed_between_chunks(void)
{
    for (int step = 0; step < 4; step++) {
        for (int more = 0; more < 2; more++) {
            struct bounded made;
            char name[CHUNK_NAME_BYTES];
            make_bounded(&made, 0);
            made.config.trace.keep_ns = UINT64_MAX / 8;
            start_tracer(&made, false);
            run_owners(&made, 700);
            drain_all(&made);
            for (uint32_t i = 0; i < 2; i++) {
                struct history_lane *lane = &made.history.lane[i];
                const char *lane_name = lane->file.lane.entry->name;
                int folder = i ? made.history.plain_folder : made.history.trace_folder;
                if (step >= 1)
                    CU_ASSERT_EQUAL(file_finish(&lane->file, false), 0);
                chunk_name(lane_name, lane->file.written, name);
                if (step == 2)
                    close(openat(folder, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
                if (step == 3)
                    CU_ASSERT_EQUAL(file_next(&lane->file, folder, name), 0);
                if (step == 0 || step == 3) {
                    close(lane->file.fd);
                    free(lane->file.header);
                }
            }
            close(made.history.trace_folder);
            close(made.history.plain_folder);
            if (more)
                run_owners(&made, 900);
            trace_close(&made.rx);
            trace_close(&made.ingress);
            start_tracer(&made, more);
            CU_ASSERT_EQUAL(history_close(&made.history), 0);
            CU_ASSERT_EQUAL(check_history(&made), 1);
            start_tracer(&made, true); /* and once more, on what is whole */
            CU_ASSERT_EQUAL(history_close(&made.history), 0);
            CU_ASSERT_EQUAL(check_history(&made), 1);
            unmake_bounded(&made);
        }
    }
}

/* Killed while chunks of ingress records were joined: before the array got its name, or while they went. */
static void test_killed_while_joining(void)
{
    for (int step = 0; step < 3; step++) {
        struct bounded made;
        struct chunks chunks;
        char command[256];
        make_bounded(&made, MAX_BYTES * 4);
        start_tracer(&made, false);
        for (int i = 0; i < 12; i++) {
            run_owners(&made, 300);
            drain_all(&made);
        }
        kill_tracer(&made);
        int wire = openat(made.folder, "wire/ingress", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
        snprintf(command, sizeof(command), "cd %s && cp -r wire/ingress kept", made.path);
        CU_ASSERT_EQUAL(system(command), 0);
        if (step > 0)
            CU_ASSERT_EQUAL(chunk_join_plain(wire, "ingress"), 0);
        snprintf(command, sizeof(command),
                 "cd %s && cp kept/ingress.0* wire/ingress && rm -r kept && head -c 1000 "
                 "/dev/zero > wire/ingress/ingress.bin.new",
                 made.path);
        CU_ASSERT_EQUAL(system(command), 0);
        CU_ASSERT_EQUAL(chunk_list(wire, "ingress", &chunks), 0);
        CU_ASSERT_FATAL(chunks.count >= 2);
        for (uint32_t i = 0; step == 2 && i < chunks.count - 1; i++) {
            char name[CHUNK_NAME_BYTES];
            chunk_name("ingress", chunks.first[i], name);
            CU_ASSERT_EQUAL(unlinkat(wire, name, 0), 0);
        }
        close(wire);
        trace_close(&made.rx);
        trace_close(&made.ingress);
        start_tracer(&made, true);
        CU_ASSERT_EQUAL(history_close(&made.history), 0);
        CU_ASSERT_EQUAL(check_history(&made), 1);
        unmake_bounded(&made);
    }
}

/* A successor of rx appends once more what its predecessor had just written; wherever that falls, it stands there once. */
static void test_doublet(void)
{
    for (int max = 0; max < 2; max++) {
        for (int before = 100; before <= 140; before += 14) {
            struct bounded made;
            struct lane lane;
            make_bounded(&made, max ? MAX_BYTES * 4 : 0);
            start_tracer(&made, false);
            for (uint32_t generation = 2; generation < 8; generation++) {
                run_owners(&made, before);
                CU_ASSERT_EQUAL(lane_open(&lane, &made.arena, 1), 0);
                trace_open(&made.ingress, &lane, 1, generation, 0);
                const struct ingress_record again = {.request = made.request, .id = ~made.request};
                trace_append(&made.ingress, &again, sizeof(again));
                CU_ASSERT(history_drain(&made.history) >= 0);
            }
            trace_close(&made.rx);
            trace_close(&made.ingress);
            CU_ASSERT_EQUAL(history_close(&made.history), 0);
            if (max) {
                CU_ASSERT_EQUAL(check_history(&made), 1);
            } else {
                static struct bytes bytes;
                get(made.folder, "wire/ingress.bin", &bytes);
                CU_ASSERT_EQUAL(bytes.size, 32 * made.request);
            }
            unmake_bounded(&made);
        }
    }
}

static void test_half_snapshot(void)
{
    struct bounded made;
    make_bounded(&made, MAX_BYTES);
    made.config.trace.snapshot_over_ns = 1;
    mkdirat(made.folder, "snapshots", 0755);
    mkdirat(made.folder, "snapshots/new", 0755);
    mkdirat(made.folder, "snapshots/006-request-1", 0755);
    close(
        openat(made.folder, "snapshots/new/rx.000000000000", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    start_tracer(&made, false);
    CU_ASSERT_EQUAL(made.history.snapshots, 7);
    CU_ASSERT(faccessat(made.folder, "snapshots/new", F_OK, 0) < 0 && errno == ENOENT);
    kill_tracer(&made);
    unmake_bounded(&made);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"cut at every byte", test_cut_anywhere},
        {"holes anywhere", test_holes_anywhere},
        {"another trace's file", test_foreign},
        {"plain", test_plain},
        {"torn records", test_torn},
        {"torn ingress records", test_torn_plain},
        {"bounded, restarted anywhere", test_bounded_restarts},
        {"killed between chunks", test_killed_between_chunks},
        {"killed while joining", test_killed_while_joining},
        {"an ingress record twice", test_doublet},
        {"half a snapshot", test_half_snapshot},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "salvage", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
