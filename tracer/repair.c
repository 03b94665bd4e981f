/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packet k of a stream stands at 4096 + k * size, and its number is that of the file's first sub-buffer, k and
 * one. So a packet that is believed says by its place and number what `size` is, and after damage the next
 * place is known.
 */
#include "tracer/repair.h"

#include "tracer/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MIN_BYTES = 2 * PAGE_BYTES, PAIR_WIDTH_MAX_NS = 2000 };

struct stream {
    int fd;
    const uint8_t *data; /* the file, mapped; NULL: it is empty */
    uint64_t size;
    const struct ctf_uuid *uuid; /* NULL: any */
    uint64_t first;
    uint64_t lattice; /* bytes from a packet to the next */
    struct repair *done;

    /* the newest packet believed */
    uint64_t at;
    uint64_t bytes; /* its packet_size */
    uint64_t content;
    uint64_t number;
    uint64_t end;
};

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~((uint64_t)PAGE_BYTES - 1);
}

/* Does a whole packet of this trace stand there? Its place and order are not asked. */
static bool is_packet(const struct stream *stream, uint64_t at, struct ctf_header *header)
{
    if (at > stream->size || stream->size - at < CTF_HEADER_BYTES)
        return false;
    memcpy(header, stream->data + at, sizeof(*header));
    uint64_t content = header->content_bits / 8;
    if (header->magic != CTF_MAGIC || header->stream_id != 0 ||
        (stream->uuid && memcmp(header->uuid, stream->uuid->byte, sizeof(header->uuid)) != 0) ||
        header->content_bits % 8 || header->packet_bits % 8 || content < CTF_HEADER_BYTES ||
        content > stream->size - at || (content - CTF_HEADER_BYTES) % LANE_RECORD_BYTES ||
        header->packet_bits < header->content_bits || header->packet_bits / 8 % PAGE_BYTES ||
        header->timestamp_begin > header->timestamp_end)
        return false;
    return crc32c(stream->data + at + CTF_HEADER_BYTES, content - CTF_HEADER_BYTES) ==
           header->checksum;
}

static bool is_first(const struct stream *stream, struct ctf_header *header)
{
    return is_packet(stream, 0, header) && header->sequence == stream->first &&
           header->content_bits == UINT64_C(8) * CTF_HEADER_BYTES;
}

/* The same, of the packet that belongs to this place, behind the newest one. */
static bool is_next(const struct stream *stream, uint64_t at, struct ctf_header *header)
{
    uint64_t k = (at - CTF_HEADER_BYTES + stream->lattice - 1) / stream->lattice;

    return is_packet(stream, at, header) && header->sequence == stream->first + k + 1 &&
           header->timestamp_begin >= stream->end && header->discarded >= stream->done->discarded;
}

/* Bytes from packet to packet, by one that is not the first; by the first one's own size where no other is
 * whole, and then it does not matter. */
static uint64_t find_lattice(const struct stream *stream)
{
    struct ctf_header header;
    uint64_t own = MIN_BYTES;

    for (uint64_t at = CTF_HEADER_BYTES; at < stream->size; at += PAGE_BYTES) {
        if (!is_packet(stream, at, &header) || header.sequence <= stream->first ||
            header.content_bits == UINT64_C(8) * CTF_HEADER_BYTES)
            continue;
        uint64_t k = header.sequence - stream->first - 1;
        uint64_t bytes = k ? (at - CTF_HEADER_BYTES) / k : header.packet_bits / 8;
        if (k && bytes >= MIN_BYTES && (at - CTF_HEADER_BYTES) % k == 0 && bytes % PAGE_BYTES == 0)
            return bytes;
        if (k == 0 && at == CTF_HEADER_BYTES)
            own = bytes;
        /* On to what stands behind it: a whole file is known by its second packet. */
        uint64_t rest = stream->size - at;
        uint64_t step = header.packet_bits / 8;
        at += (step < rest && is_packet(stream, at + step, &header) ? step : 2 * PAGE_BYTES) -
              PAGE_BYTES;
    }
    return own;
}

/* ---- what stands in a packet ---- */

static void note_pair(struct repair *done, const struct lane_record *record)
{
    const uint64_t *words = (const uint64_t *)(const void *)record;
    struct clock_pair pair = {
        .tsc = words[0], .raw_ns = words[2], .real_ns = words[3], .width_ns = record->argument};

    if (pair.width_ns > PAIR_WIDTH_MAX_NS)
        return;
    if (done->pair[0].tsc == 0)
        done->pair[0] = pair;
    done->pair[1] = pair;
}

static void count_records(struct repair *done, const uint8_t *payload, uint64_t bytes)
{
    for (uint64_t at = 0; at + LANE_RECORD_BYTES <= bytes;) {
        const struct lane_record *record = (const struct lane_record *)(const void *)(payload + at);
        uint64_t length = record->point & POINT_WIDE ? LANE_WIDE_BYTES : LANE_RECORD_BYTES;

        if (record->point == POINT_clock && at + length <= bytes)
            note_pair(done, record);
        done->end = load_relaxed(&record->tsc);
        done->begin = done->begin ? done->begin : done->end;
        done->records++;
        at += length;
    }
}

static void take(struct stream *stream, uint64_t at, const struct ctf_header *header)
{
    struct repair *done = stream->done;
    uint64_t content = header->content_bits / 8;

    stream->at = at;
    stream->bytes = header->packet_bits / 8;
    stream->content = content;
    stream->number = header->sequence;
    stream->end = header->timestamp_end;
    done->discarded = header->discarded;
    done->packets += content > CTF_HEADER_BYTES;
    count_records(done, stream->data + at + CTF_HEADER_BYTES, content - CTF_HEADER_BYTES);
}

/* ---- mending ---- */

/* The newest packet ends where the next one, or nothing, begins. */
static int end_packet(struct stream *stream, uint64_t next)
{
    uint64_t bits = 8 * (next - stream->at);
    uint64_t where = stream->at + offsetof(struct ctf_header, packet_bits);

    if (stream->bytes == next - stream->at)
        return 0;
    ssize_t wrote = pwrite(stream->fd, &bits, sizeof(bits), (off_t)where);
    return wrote == sizeof(bits) ? 0 : wrote < 0 ? -errno : -EIO;
}

static int make_first(struct stream *stream, const struct ctf_header *next)
{
    static const uint8_t nothing[1];
    struct ctf_header header = {
        .magic = CTF_MAGIC,
        .timestamp_begin = next->timestamp_begin,
        .timestamp_end = next->timestamp_begin,
        .content_bits = UINT64_C(8) * CTF_HEADER_BYTES,
        .packet_bits = UINT64_C(8) * CTF_HEADER_BYTES,
        .sequence = stream->first,
        /* Of a file that begins in the middle of a run it is not known. */
        .discarded = stream->first ? next->discarded : 0,
        .checksum = crc32c(nothing, 0),
    };

    memcpy(header.uuid, stream->uuid->byte, sizeof(header.uuid));
    ssize_t wrote = pwrite(stream->fd, &header, sizeof(header), 0);
    if (wrote != sizeof(header))
        return wrote < 0 ? -errno : -EIO;
    stream->done->first_made = true;
    stream->bytes = stream->content = CTF_HEADER_BYTES;
    stream->number = stream->first;
    stream->end = header.timestamp_begin;
    stream->done->discarded = header.discarded;
    return 0;
}

/* The place behind the newest packet's. */
static uint64_t place_behind(const struct stream *stream)
{
    uint64_t passed =
        stream->at < CTF_HEADER_BYTES ? 0 : (stream->at - CTF_HEADER_BYTES) / stream->lattice + 1;

    return CTF_HEADER_BYTES + passed * stream->lattice;
}

/* Where the next packet stands: at its place, at a later one, or, the last of all, behind the events of the newest:
 * there a lane that ends says what it discarded. */
static bool find_next(const struct stream *stream, uint64_t *at, struct ctf_header *header)
{
    uint64_t behind = stream->at + whole_pages(stream->content);
    uint64_t place = place_behind(stream);

    if (place < stream->size && is_next(stream, place, header)) {
        *at = place;
        return true;
    }
    if (behind < place && is_next(stream, behind, header) &&
        header->content_bits == UINT64_C(8) * CTF_HEADER_BYTES) {
        *at = behind;
        return true;
    }
    while (place < stream->size && stream->size - place > stream->lattice) {
        place += stream->lattice;
        if (is_next(stream, place, header)) {
            *at = place;
            return true;
        }
    }
    return false;
}

static int cut(struct stream *stream)
{
    uint64_t end = stream->at + whole_pages(stream->content);

    stream->done->cut_bytes = stream->size > end ? stream->size - end : 0;
    int err = end_packet(stream, end);
    if (err == 0 && stream->size != end && ftruncate(stream->fd, (off_t)end) < 0)
        err = -errno;
    return err;
}

static bool find_any(const struct stream *stream, struct ctf_header *header)
{
    for (uint64_t at = 0; at < stream->size; at += PAGE_BYTES) {
        if (is_packet(stream, at, header))
            return true;
    }
    return false;
}

static int walk(struct stream *stream)
{
    struct ctf_header header;
    uint64_t at = 0;
    int err = 0;

    stream->lattice = find_lattice(stream);
    if (is_first(stream, &header)) {
        take(stream, 0, &header);
    } else if (find_next(stream, &at, &header)) {
        err = make_first(stream, &header);
    } else if (find_any(&(struct stream){.data = stream->data, .size = stream->size}, &header)) {
        return -ESTALE;
    } else {
        err = make_first(stream, &(struct ctf_header){0});
    }
    while (err == 0 && find_next(stream, &at, &header)) {
        uint64_t lost = header.sequence - stream->number - 1;
        if (lost && stream->done->lost_packets == 0)
            stream->done->lost_at = place_behind(stream);
        stream->done->lost_packets += lost;
        err = end_packet(stream, at);
        take(stream, at, &header);
    }
    return err < 0 ? err : cut(stream);
}

/* ---- files ---- */

static int open_stream(struct stream *stream, int folder, const char *name, int flags)
{
    struct stat st;

    stream->fd = openat(folder, name, flags | O_CLOEXEC | O_NOFOLLOW);
    if (stream->fd < 0 || fstat(stream->fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    stream->size = (uint64_t)st.st_size;
    if (stream->size == 0)
        return 0;
    stream->data = mmap(NULL, stream->size, PROT_READ, MAP_SHARED, stream->fd, 0);
    return stream->data == MAP_FAILED ? -errno : 0;
}

static void close_stream(struct stream *stream)
{
    if (stream->data && stream->data != MAP_FAILED)
        munmap((void *)(uintptr_t)stream->data, stream->size);
    if (stream->fd >= 0)
        close(stream->fd);
}

int repair_stream(int folder, const char *name, const struct ctf_uuid *uuid, uint64_t first,
                  struct repair *done)
{
    struct stream stream = {.uuid = uuid, .first = first, .done = done};

    *done = (struct repair){0};
    int err = open_stream(&stream, folder, name, O_RDWR);
    if (err == 0)
        err = walk(&stream);
    close_stream(&stream);
    return err;
}

int repair_plain(int folder, const char *name, struct repair *done)
{
    struct plain_tail tail = {0};
    struct stat st;

    *done = (struct repair){0};
    int fd = openat(folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    int err = fstat(fd, &st) < 0 ? -errno : plain_append(fd, (uint64_t)st.st_size, fd, &tail);
    if (err == 0 && tail.at != (uint64_t)st.st_size && ftruncate(fd, (off_t)tail.at) < 0)
        err = -errno;
    close(fd);
    if (err == 0) {
        done->records = tail.at / sizeof(struct ingress_record);
        done->cut_bytes = (uint64_t)st.st_size - tail.at;
    }
    return err;
}

int repair_find_uuid(int folder, const char *name, struct ctf_uuid *uuid)
{
    struct stream stream = {0};
    struct ctf_header header;

    int err = open_stream(&stream, folder, name, O_RDONLY);
    bool found = err == 0 && find_any(&stream, &header);
    if (found)
        memcpy(uuid->byte, header.uuid, sizeof(uuid->byte));
    close_stream(&stream);
    return err < 0 ? err : found ? 0 : -ENOENT;
}
