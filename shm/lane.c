/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/lane.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

enum { DIRECTORY_OFFSET = PAGE_BYTES, LANES_OFFSET = 2 * PAGE_BYTES };
/* What is further ahead of the newest request is no request. */
enum { TORN_AHEAD_MAX = 1 << 20 };

static uint64_t arena_layout(void)
{
    const uint64_t parts[] = {
        LANE_MAX,
        LANE_SUBBUFFERS,
        sizeof(struct lane_record),
        sizeof(struct ingress_record),
        sizeof(struct lane_packet),
        sizeof(struct lane_control),
        sizeof(struct lane_directory),
        offsetof(struct lane_control, drained),
        offsetof(struct lane_packet, request_high),
    };
    return region_hash(parts, sizeof(parts) / sizeof(parts[0]));
}

struct region_want arena_want(uint64_t epoch)
{
    return (struct region_want){
        .kind = REGION_ARENA,
        .layout = arena_layout(),
        .epoch = epoch,
        .size_min = LANES_OFFSET,
    };
}

/* Lane control page and equal sub-buffers of whole pages, at least a header and a payload page
 * each. */
static uint64_t lane_rounded(uint64_t bytes)
{
    uint64_t subbuffer = bytes / LANE_SUBBUFFERS / PAGE_BYTES * PAGE_BYTES;

    if (subbuffer < (uint64_t)2 * PAGE_BYTES)
        subbuffer = (uint64_t)2 * PAGE_BYTES;
    return PAGE_BYTES + LANE_SUBBUFFERS * subbuffer;
}

int arena_create(struct region *region, const struct region_place *place,
                 const struct lane_plan *plan, uint32_t count, uint64_t epoch)
{
    struct region_want want = arena_want(epoch);
    struct lane_directory directory = {.count = count};
    uint64_t offset = LANES_OFFSET;

    if (count > LANE_MAX)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++) {
        struct lane_entry *entry = &directory.lane[i];

        strncpy(entry->name, plan[i].name, sizeof(entry->name) - 1);
        entry->kind = (uint32_t)plan[i].kind;
        entry->record_bytes = plan[i].kind == LANE_TRACE ? LANE_RECORD_BYTES : plan[i].record_bytes;
        if (entry->record_bytes < sizeof(uint64_t) || PAGE_BYTES % entry->record_bytes != 0)
            return -EINVAL;
        entry->offset = offset;
        entry->bytes = lane_rounded(plan[i].bytes);
        offset += entry->bytes;
    }
    int err = region_create(region, "tickline-arena", &want, place, offset);
    if (err == 0)
        memcpy(region_at(region, DIRECTORY_OFFSET), &directory, sizeof(directory));
    return err;
}

void arena_name_points(const struct region *arena, const struct lane_point *points, uint32_t count)
{
    struct lane_directory *directory = region_at(arena, DIRECTORY_OFFSET);

    directory->points = count < LANE_POINTS_MAX ? count : LANE_POINTS_MAX;
    memcpy(directory->point, points, directory->points * sizeof(*points));
}

/* It goes into files that are read as text. */
static bool point_valid(const struct lane_point *point)
{
    size_t length = strnlen(point->name, sizeof(point->name));

    for (size_t i = 0; i < length; i++) {
        char c = point->name[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
            return false;
    }
    return length > 0 && length < sizeof(point->name) &&
           memchr(point->sentence, '\0', sizeof(point->sentence)) &&
           (memcmp(point->span, "work", 5) == 0 || memcmp(point->span, "wait", 5) == 0);
}

bool arena_point(const struct region *arena, uint32_t index, struct lane_point *copy,
                 struct point_info *info)
{
    const struct lane_directory *directory = region_at(arena, DIRECTORY_OFFSET);

    if (index >= LANE_POINTS_MAX || index >= directory->points)
        return false;
    *copy = directory->point[index];
    *info = (struct point_info){.name = copy->name,
                                .stage = "worker",
                                .span = copy->span,
                                .sentence = copy->sentence,
                                .id = (uint16_t)(LANE_POINT_FIRST + index)};
    return point_valid(copy);
}

static int wrong(struct region_mismatch *mismatch, const char *field, uint64_t expected,
                 uint64_t found)
{
    *mismatch = (struct region_mismatch){field, expected, found};
    return -EPROTO;
}

/* A name becomes that of a file. */
static bool name_valid(const char *name, size_t size)
{
    size_t length = strnlen(name, size);

    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)name[i]))
            return false;
    }
    return length > 0 && length < size;
}

/* Entry as arena_create writes it for a lane at `offset`; lanes stand one behind the other. */
static int entry_check(const struct lane_entry *entry, uint64_t offset, uint64_t size,
                       struct region_mismatch *mismatch)
{
    uint64_t subbuffer = (entry->bytes - PAGE_BYTES) / LANE_SUBBUFFERS;
    uint32_t record = entry->record_bytes;

    if (!name_valid(entry->name, sizeof(entry->name)))
        return wrong(mismatch, "lane name, first letter", 'a', (uint8_t)entry->name[0]);
    if (entry->kind != LANE_TRACE && entry->kind != LANE_PLAIN)
        return wrong(mismatch, "lane kind", LANE_TRACE, entry->kind);
    if (entry->kind == LANE_TRACE ? record != LANE_RECORD_BYTES
                                  : record < sizeof(uint64_t) || PAGE_BYTES % record)
        return wrong(mismatch, "lane record bytes", LANE_RECORD_BYTES, record);
    if (entry->offset != offset)
        return wrong(mismatch, "lane offset", offset, entry->offset);
    if (entry->bytes > size - offset)
        return wrong(mismatch, "lane bytes", size - offset, entry->bytes);
    if (entry->bytes < LANE_BYTES_MIN || subbuffer % PAGE_BYTES || subbuffer > UINT32_MAX ||
        (entry->bytes - PAGE_BYTES) % LANE_SUBBUFFERS)
        return wrong(mismatch, "lane bytes", lane_rounded(entry->bytes), entry->bytes);
    return 0;
}

/* The first `count` lanes: where they end, or 0 where one cannot be. */
static uint64_t lanes_check(const struct region *arena, uint32_t count,
                            struct region_mismatch *mismatch)
{
    const struct lane_directory *directory = region_at(arena, DIRECTORY_OFFSET);
    uint64_t offset = LANES_OFFSET;

    for (uint32_t i = 0; i < count; i++) {
        if (entry_check(&directory->lane[i], offset, arena->size, mismatch) < 0)
            return 0;
        offset += directory->lane[i].bytes;
    }
    return offset;
}

int arena_check(const struct region *arena, struct region_mismatch *mismatch)
{
    const struct lane_directory *directory = region_at(arena, DIRECTORY_OFFSET);
    uint32_t count = directory->count;

    if (count > LANE_MAX)
        return wrong(mismatch, "lane count", LANE_MAX, count);
    return lanes_check(arena, count, mismatch) ? 0 : -EPROTO;
}

int lane_open(struct lane *lane, const struct region *arena, uint32_t index)
{
    const struct lane_directory *directory = region_at(arena, DIRECTORY_OFFSET);
    struct region_mismatch mismatch;

    if (directory->count > LANE_MAX)
        return -EPROTO;
    if (index >= directory->count)
        return -ENOENT;
    const struct lane_entry *entry = &directory->lane[index];
    uint64_t end = lanes_check(arena, index + 1, &mismatch);
    if (!end)
        return -EPROTO;
    uint64_t offset = end - entry->bytes;
    *lane = (struct lane){
        .control = region_at(arena, offset),
        .buffers = region_at(arena, offset + PAGE_BYTES),
        .entry = entry,
        .count = LANE_SUBBUFFERS,
        .subbuffer_bytes = (uint32_t)((entry->bytes - PAGE_BYTES) / LANE_SUBBUFFERS),
    };
    return 0;
}

int lane_find(struct lane *lane, const struct region *arena, const char *name)
{
    int err;

    for (uint32_t i = 0; (err = lane_open(lane, arena, i)) == 0; i++) {
        if (strncmp(lane->entry->name, name, sizeof(lane->entry->name)) == 0)
            return 0;
    }
    return err;
}

int lane_writable(struct lane *lane, const struct region *arena, bool whole)
{
    uint8_t *base = region_writable(arena, lane->entry->offset,
                                    whole ? lane->entry->bytes : (uint64_t)PAGE_BYTES);

    if (!base)
        return -errno;
    lane->control = (struct lane_control *)(void *)base;
    if (whole)
        lane->buffers = base + PAGE_BYTES;
    return 0;
}

static bool point_known(uint16_t id)
{
    /* A handler may define points of its own above the list; what a stale word could look like is
     * narrower. */
    return (id & ~POINT_WIDE) < 0x400;
}

static struct lane_content scan_trace(const struct lane *lane, uint64_t number, uint64_t now)
{
    const uint8_t *payload = lane_payload(lane, number);
    uint64_t limit = lane_payload_bytes(lane);
    uint64_t last = lane_packet(lane, number)->begin;
    struct lane_content content = {.end = last};

    while (content.bytes + LANE_RECORD_BYTES <= limit) {
        const struct lane_record *record =
            (const struct lane_record *)(const void *)(payload + content.bytes);
        uint64_t tsc = load_acquire(&record->tsc);

        if (tsc < last || tsc > now || !point_known(record->point))
            break;
        uint64_t bytes = record->point & POINT_WIDE ? LANE_WIDE_BYTES : LANE_RECORD_BYTES;
        if (content.bytes + bytes > limit)
            break;
        content.bytes += bytes;
        content.records++;
        content.end = last = tsc;
    }
    return content;
}

/* Ingress records carry consecutive request numbers; the first one that does not is an older lap's.
 */
static struct lane_content scan_plain(const struct lane *lane, uint64_t number)
{
    const struct ingress_record *record =
        (const struct ingress_record *)(const void *)lane_payload(lane, number);
    uint64_t limit = lane_payload_bytes(lane) / sizeof(*record);
    struct lane_content content = {.end = lane_packet(lane, number)->begin};

    if (lane->entry->record_bytes != sizeof(*record))
        return content;
    while (content.records < limit && record[content.records].request != 0 &&
           (content.records == 0 ||
            record[content.records].request == record[content.records - 1].request + 1))
        content.records++;
    content.bytes = content.records * sizeof(*record);
    return content;
}

struct lane_content lane_scan(const struct lane *lane, uint64_t number, uint64_t now)
{
    return lane->entry->kind == LANE_TRACE ? scan_trace(lane, number, now)
                                           : scan_plain(lane, number);
}

/* The end comes last: where it is not there, its owner did not come so far (lane_sealed). */
static void complete(struct lane_packet *packet, const struct lane_content *content)
{
    packet->content_bytes = content->bytes;
    packet->records = content->records;
    atomic_thread_fence(memory_order_release);
    packet->end = content->end;
}

/* A sum, not an addition: a successor may seal it a second time. */
static void count_sealed(const struct lane *lane, uint64_t number, uint64_t records)
{
    store_relaxed(&lane->control->records, lane_packet(lane, number)->before + records);
    crash_point("lane:seal_counted");
    store_release(&lane->control->sealed, number + 1);
    crash_point("lane:sealed");
}

static void seal(const struct lane *lane, uint64_t number, const struct lane_content *content)
{
    crash_point("lane:seal_begun");
    complete(lane_packet(lane, number), content);
    crash_point("lane:seal_packet");
    count_sealed(lane, number, content->records);
}

static bool is_abandoned(const struct lane *lane, uint64_t *number)
{
    *number = load_acquire(&lane->control->sealed);
    return load_relaxed(&lane->control->opened) == *number + 1;
}

void lane_seal_abandoned(const struct lane *lane, uint64_t now)
{
    uint64_t number;

    if (is_abandoned(lane, &number)) {
        struct lane_content content = lane_scan(lane, number, now);
        crash_point("lane:abandoned_found");
        seal(lane, number, &content);
    }
}

void lane_close_abandoned(const struct lane *lane, uint64_t now)
{
    uint64_t number;

    if (is_abandoned(lane, &number))
        count_sealed(lane, number, lane_scan(lane, number, now).records);
}

struct lane_packet lane_sealed(const struct lane *lane, uint64_t number, uint64_t now)
{
    struct lane_packet packet = *lane_packet(lane, number);

    if (unlikely(packet.end == 0)) {
        struct lane_content content = lane_scan(lane, number, now);
        complete(&packet, &content);
    }
    return packet;
}

/* Has a record, or its second half, begun at these words? `newest`: request of the last whole record
 * that has one. */
static bool torn_trace(const struct lane_record *record, uint64_t room, bool first_lap,
                       uint32_t newest)
{
    const uint64_t *words = (const uint64_t *)(const void *)record;

    if (load_relaxed(&record->tsc) == 0 && words[1] != 0)
        return true;
    if (first_lap && room >= LANE_WIDE_BYTES && words[1] == 0 && (words[2] | words[3]) != 0)
        return true;
    uint32_t ahead = record->request - newest;
    return newest != 0 && words[1] != 0 && point_known(record->point) && ahead < TORN_AHEAD_MAX;
}

static bool torn_plain(const struct ingress_record *record, const struct ingress_record *last)
{
    if (record->request == 0)
        return (record->id | record->kernel_ns | record->datagram | record->flow |
                record->length) != 0;
    return last && record->datagram - last->datagram < TORN_AHEAD_MAX;
}

static uint32_t newest_request(const uint8_t *payload, uint64_t bytes)
{
    uint32_t newest = 0;

    for (uint64_t at = 0; at + LANE_RECORD_BYTES <= bytes;) {
        const struct lane_record *record = (const struct lane_record *)(const void *)(payload + at);
        newest = record->request ? record->request : newest;
        at += record->point & POINT_WIDE ? LANE_WIDE_BYTES : LANE_RECORD_BYTES;
    }
    return newest;
}

bool lane_torn(const struct lane *lane)
{
    uint64_t sealed = load_acquire(&lane->control->sealed);

    if (sealed == 0)
        return false;
    const uint8_t *payload = lane_payload(lane, sealed - 1);
    uint64_t bytes = lane_packet(lane, sealed - 1)->content_bytes;
    uint64_t limit = lane_payload_bytes(lane);
    if (bytes > limit || limit - bytes < lane->entry->record_bytes)
        return false;
    const void *behind = payload + bytes;
    if (lane->entry->kind == LANE_TRACE)
        return torn_trace(behind, limit - bytes, sealed <= lane->count,
                          newest_request(payload, bytes));
    const struct ingress_record *record = behind;
    return lane->entry->record_bytes == sizeof(*record) &&
           torn_plain(record, bytes ? record - 1 : NULL);
}

void trace_open(struct trace *trace, const struct lane *lane, uint32_t sample, uint32_t generation,
                uint32_t cpu)
{
    lane_seal_abandoned(lane, tsc_read());
    *trace = (struct trace){
        .lane = *lane,
        .last = tsc_read(),
        .generation = generation,
        .cpu = cpu,
        .sample_factor = sample > 1 ? UINT64_MAX / sample + 1 : 0,
        .sample_limit = sample > 1 ? UINT64_MAX / sample + 1 : sample,
        .discarded = load_relaxed(&lane->control->discarded),
        .seal_seen = load_relaxed(&lane->control->seal_asked),
    };
    crash_point("lane:attached");
}

static void seal_open(struct trace *trace)
{
    uint64_t number = load_relaxed(&trace->lane.control->sealed);

    if (load_relaxed(&trace->lane.control->opened) != number + 1)
        return;
    uint64_t bytes = (uint64_t)(trace->next - lane_payload(&trace->lane, number));
    struct lane_content content = {
        .bytes = bytes,
        .records = bytes / trace->lane.entry->record_bytes - trace->wides,
        .end = trace->last,
    };
    seal(&trace->lane, number, &content);
    trace->next = trace->end = trace->unasked = NULL;
}

static bool open_next(struct trace *trace, uint32_t request_high)
{
    struct lane_control *control = trace->lane.control;
    uint64_t number = load_relaxed(&control->sealed);

    if (number - load_acquire(&control->drained) >= trace->lane.count)
        return false;
    struct lane_packet *packet = lane_packet(&trace->lane, number);
    /* From the newest stamp, not from now: the caller may hold a tsc that it read a moment ago. */
    *packet = (struct lane_packet){
        .begin = trace->last,
        .discarded = trace->discarded,
        .before = load_relaxed(&control->records),
        .generation = trace->generation,
        .cpu = trace->cpu,
        .request_high = request_high,
    };
    crash_point("lane:open_packet");
    trace->request_high = request_high;
    trace->wides = 0;
    trace->next = lane_payload(&trace->lane, number);
    trace->end = trace->next + lane_payload_bytes(&trace->lane);
    trace->unasked = trace->sample_factor || !trace->sample_limit || trace->count
                         ? NULL
                         : trace->end - LANE_RECORD_BYTES + 1;
    /* An ingress record of an older lap must not look like the first of this one. */
    memset(trace->next, 0, trace->lane.entry->record_bytes);
    crash_point("lane:open_cleared");
    store_release(&control->opened, number + 1);
    crash_point("lane:opened");
    return true;
}

bool trace_switch(struct trace *trace, uint32_t bytes, uint32_t request_high)
{
    /* Same sub-buffer, nothing in it yet: it only needs the right high bits. */
    if (trace_fits(trace, bytes)) {
        uint64_t number = load_relaxed(&trace->lane.control->sealed);
        if (trace->next == lane_payload(&trace->lane, number)) {
            lane_packet(&trace->lane, number)->request_high = request_high;
            trace->request_high = request_high;
            crash_point("lane:high_bits");
            return true;
        }
    }
    seal_open(trace);
    if (open_next(trace, request_high))
        return true;
    trace->discarded++;
    store_relaxed(&trace->lane.control->discarded, trace->discarded);
    crash_point("lane:discarded");
    return false;
}

void trace_count_by(struct trace *trace,
                    void (*count)(struct trace *trace, enum point point, uint64_t request),
                    void *counting)
{
    trace->count = count;
    trace->counting = counting;
    trace->unasked = NULL;
}

void trace_tend(struct trace *trace)
{
    uint64_t asked = load_acquire(&trace->lane.control->seal_asked);

    if (likely(asked == trace->seal_seen))
        return;
    trace->seal_seen = asked;
    crash_point("lane:seal_asked");
    seal_open(trace);
}

void trace_close(struct trace *trace)
{
    seal_open(trace);
    crash_point("lane:close_sealed");
    store_release(&trace->lane.control->closed, 1);
    crash_point("lane:closed");
}
