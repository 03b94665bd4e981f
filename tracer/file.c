/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/file.h"

#include "tracer/own.h"

#include "shm/crash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is_trace(const struct trace_file *file)
{
    return file->lane.entry->kind == LANE_TRACE;
}

static int write_all(int fd, struct iovec *iov, int count, uint64_t offset)
{
    while (count > 0) {
        ssize_t done = pwritev(fd, iov, count, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -EIO;
        offset += (uint64_t)done;
        while (count > 0 && (size_t)done >= iov->iov_len) {
            done -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0 && done > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + done;
            iov->iov_len -= (size_t)done;
        }
    }
    return 0;
}

/* A file system may take the flag and refuse the write (or the other way round): buffered then. */
static int write_direct(struct trace_file *file, struct iovec *iov, int count, uint64_t offset)
{
    struct iovec copy[2];

    memcpy(copy, iov, (size_t)count * sizeof(*iov));
    int err = write_all(file->fd, copy, count, offset);
    if (err == -EINVAL && file->direct) {
        file->direct = false;
        int flags = fcntl(file->fd, F_GETFL);
        if (flags < 0 || fcntl(file->fd, F_SETFL, flags & ~O_DIRECT) < 0)
            return -errno;
        err = write_all(file->fd, iov, count, offset);
    }
    return err;
}

static void fill_header(struct trace_file *file, uint64_t content_bytes, uint64_t packet_bytes)
{
    struct ctf_header *header = file->header;

    header->magic = CTF_MAGIC;
    memcpy(header->uuid, file->uuid.byte, sizeof(header->uuid));
    header->content_bits = 8 * (CTF_HEADER_BYTES + content_bytes);
    header->packet_bits = 8 * packet_bytes;
}

/* A packet without events: the one at the beginning, and one for discards after the last record. */
static int write_empty(struct trace_file *file, uint64_t offset, uint64_t tsc, uint64_t sequence,
                       uint64_t discarded)
{
    memset(file->header, 0, sizeof(*file->header));
    fill_header(file, 0, CTF_HEADER_BYTES);
    file->header->timestamp_begin = file->header->timestamp_end = tsc;
    file->header->sequence = sequence;
    file->header->discarded = discarded;
    file->header->checksum = crc32c(NULL, 0);
    struct iovec iov = {file->header, CTF_HEADER_BYTES};
    int err = write_direct(file, &iov, 1, offset);
    crash_point("file:empty_written");
    return err;
}

static uint64_t place(const struct trace_file *file, uint64_t number)
{
    number -= file->first;
    return is_trace(file) ? CTF_HEADER_BYTES + number * file->lane.subbuffer_bytes
                          : number * lane_payload_bytes(&file->lane);
}

/* What a predecessor has written says how far it had come: its memory may hold newer laps by now.
 */
static int continue_file(struct trace_file *file)
{
    struct ctf_header *header = file->header;

    if (!is_trace(file)) {
        file->ragged = true;
        return 0;
    }
    bool empty = file->written == file->first;
    uint64_t at = empty ? 0 : place(file, file->written - 1);
    ssize_t got = pread(file->fd, file->header, CTF_HEADER_BYTES, (off_t)at);
    if (got < 0)
        return -errno;
    if (got != CTF_HEADER_BYTES || header->magic != CTF_MAGIC)
        return -EPROTO;
    file->bytes = at + ((header->content_bits / 8 + PAGE_BYTES - 1) & ~((uint64_t)PAGE_BYTES - 1));
    file->discarded = header->discarded;
    file->end = header->timestamp_end;
    if (empty || header->packet_bits == UINT64_C(8) * file->lane.subbuffer_bytes)
        return 0;
    /* Cut by a predecessor that was about to end; what follows goes to its place all the same. */
    header->packet_bits = UINT64_C(8) * file->lane.subbuffer_bytes;
    struct iovec iov = {file->header, CTF_HEADER_BYTES};
    return write_direct(file, &iov, 1, at);
}

static void release(struct trace_file *file)
{
    close(file->fd);
    free(file->header);
    file->fd = -1;
    file->header = NULL;
}

static int create(struct trace_file *file, int folder, const char *name)
{
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;

    file->direct = true;
    file->fd = openat(folder, name, flags | O_DIRECT, 0644);
    if (file->fd < 0 && errno == EINVAL) {
        file->direct = false;
        file->fd = openat(folder, name, flags, 0644);
    }
    if (file->fd < 0)
        return -errno;
    own_by_folder(folder, file->fd);
    crash_point("file:created");
    file->header = aligned_alloc(PAGE_BYTES, sizeof(*file->header));
    if (!file->header)
        release(file);
    return file->header ? 0 : -ENOMEM;
}

int file_open(struct trace_file *file, int folder, const char *name, const struct lane *lane,
              const struct ctf_uuid *uuid)
{
    return file_open_from(file, folder, name, lane, uuid, 0);
}

int file_open_from(struct trace_file *file, int folder, const char *name, const struct lane *lane,
                   const struct ctf_uuid *uuid, uint64_t first)
{
    *file = (struct trace_file){.lane = *lane, .uuid = *uuid, .first = first};
    file->written = load_relaxed(&lane->control->drained);
    int err = create(file, folder, name);
    if (err < 0)
        return err;
    file->bytes = place(file, file->written);
    if (file->written > 0)
        return continue_file(file);
    return is_trace(file) ? write_empty(file, 0, tsc_read(), 0, 0) : 0;
}

int file_next(struct trace_file *file, int folder, const char *name)
{
    file->first = file->written;
    file->ragged = false;
    int err = create(file, folder, name);
    if (err < 0)
        return err;
    file->bytes = place(file, file->written);
    err = is_trace(file) ? write_empty(file, 0, file->end, file->first, file->discarded) : 0;
    if (err < 0)
        release(file);
    return err;
}

static int drain_trace(struct trace_file *file, const struct lane_packet *packet)
{
    const uint8_t *payload = lane_payload(&file->lane, file->written);
    struct ctf_header *header = file->header;
    uint64_t content = packet->content_bytes;

    /* Once more the first one: its owner may have been there before this tracer. */
    bool first = file->written == file->first;
    int err = first ? write_empty(file, 0, packet->begin, file->first, file->discarded) : 0;
    if (err < 0)
        return err;
    memset(header, 0, offsetof(struct ctf_header, reserved));
    fill_header(file, content, file->lane.subbuffer_bytes);
    /* From the first record: a lane may lie open for long before anything is written into it. */
    header->timestamp_begin = content ? *(const uint64_t *)(const void *)payload : packet->begin;
    header->timestamp_end = packet->end;
    header->sequence = file->written + 1;
    header->discarded = packet->discarded;
    header->cpu = packet->cpu;
    header->generation = packet->generation;
    header->request_high = packet->request_high;
    header->checksum = crc32c(payload, content);
    uint64_t whole = (content + PAGE_BYTES - 1) & ~((uint64_t)PAGE_BYTES - 1);
    struct iovec iov[2] = {{header, CTF_HEADER_BYTES}, {(void *)(uintptr_t)payload, whole}};
    err = write_direct(file, iov, 2, place(file, file->written));
    if (err == 0) {
        file->bytes = place(file, file->written) + CTF_HEADER_BYTES + whole;
        file->discarded = packet->discarded;
        file->end = packet->end;
    }
    return err;
}

static int drain_plain(struct trace_file *file, const struct lane_packet *packet)
{
    uint64_t content = packet->content_bytes;
    uint64_t rest = content % PAGE_BYTES;
    uint8_t *payload = lane_payload(&file->lane, file->written);
    uint8_t *last = (uint8_t *)file->header; /* a page that a plain lane has no other use for */

    /* A successor of the owner appends once more what may have been on its way. */
    if (file->written > file->first && packet->generation != file->generation)
        file->ragged = true;
    file->generation = packet->generation;
    if (content < lane_payload_bytes(&file->lane))
        file->ragged = true;
    /* Nothing of an older lap may stand behind the last record: its page is put together here. */
    memcpy(last, payload + content - rest, rest);
    memset(last + rest, 0, PAGE_BYTES - rest);
    struct iovec iov[2] = {{payload, content - rest}, {last, PAGE_BYTES}};
    /* Its owner may have been killed before it wrote anything. */
    int err = content ? write_direct(file, iov, rest ? 2 : 1, place(file, file->written)) : 0;
    if (err == 0) {
        file->bytes = place(file, file->written) + content;
        file->end = tsc_read(); /* its records carry no ticks */
    }
    return err;
}

/* How many sub-buffers are sealed; an owner is never more than a lap ahead of what is written. */
static uint64_t sealed_now(const struct trace_file *file)
{
    uint64_t sealed = load_acquire(&file->lane.control->sealed);

    if (sealed - file->written > file->lane.count)
        region_corrupt("sub-buffers sealed", file->written + file->lane.count, sealed);
    return sealed;
}

int file_drain(struct trace_file *file)
{
    struct lane_control *control = file->lane.control;

    if (sealed_now(file) == file->written)
        return 0;
    /* Read once: what was checked is what is used. */
    const struct lane_packet packet = lane_sealed(&file->lane, file->written, tsc_read());
    if (packet.content_bytes > lane_payload_bytes(&file->lane))
        region_corrupt("sub-buffer content", lane_payload_bytes(&file->lane), packet.content_bytes);
    if (packet.content_bytes % file->lane.entry->record_bytes)
        region_corrupt("sub-buffer content, whole records",
                       packet.content_bytes / file->lane.entry->record_bytes *
                           file->lane.entry->record_bytes,
                       packet.content_bytes);
    crash_point("file:before_write");
    int err = is_trace(file) ? drain_trace(file, &packet) : drain_plain(file, &packet);
    if (err < 0)
        return err;
    crash_point("file:after_write");
    file->written++;
    store_release(&control->drained, file->written);
    crash_point("file:drained");
    return 1;
}

/* Last packet: padding beyond its last page is cut off, and its size must say so. */
static int cut_last_packet(struct trace_file *file)
{
    if (file->written == file->first)
        return 0;
    uint64_t at = place(file, file->written - 1);
    uint64_t bits = 8 * (file->bytes - at);
    if (pwrite(file->fd, &bits, sizeof(bits),
               (off_t)(at + offsetof(struct ctf_header, packet_bits))) != sizeof(bits))
        return -errno;
    crash_point("file:last_cut");
    return 0;
}

static int finish_trace(struct trace_file *file, bool last)
{
    uint64_t discarded = load_acquire(&file->lane.control->discarded);

    int err = cut_last_packet(file);
    if (err == 0 && last && discarded != file->discarded) {
        err = write_empty(file, file->bytes, file->end, file->written + 1, discarded);
        if (err == 0) {
            file->bytes += CTF_HEADER_BYTES;
            file->discarded = discarded;
        }
        crash_point("file:discards_written");
    }
    return err;
}

int plain_append(int from, uint64_t bytes, int to, struct plain_tail *tail)
{
    struct ingress_record block[512];
    ssize_t got = 1;

    for (uint64_t at = 0; at < bytes && got > 0; at += (uint64_t)got) {
        uint64_t left = bytes - at;
        got = pread(from, block, left < sizeof(block) ? left : sizeof(block), (off_t)at);
        if (got < 0)
            return -errno;
        size_t kept = 0;
        for (size_t i = 0; i < (size_t)got / sizeof(block[0]); i++) {
            if (block[i].request > tail->last) {
                tail->last = block[i].request;
                block[kept++] = block[i];
            }
        }
        struct iovec iov = {block, kept * sizeof(block[0])};
        int err = kept ? write_all(to, &iov, 1, tail->at) : 0;
        if (err < 0)
            return err;
        tail->at += kept * sizeof(block[0]);
        crash_point("file:gap_closed");
    }
    return 0;
}

/* Closes the gaps; a second time changes nothing. */
static int finish_plain(struct trace_file *file)
{
    struct plain_tail tail = {0};

    if (!file->ragged)
        return 0;
    int err = plain_append(file->fd, file->bytes, file->fd, &tail);
    if (err == 0)
        file->bytes = tail.at;
    return err;
}

int file_finish(struct trace_file *file, bool last)
{
    if (file->fd < 0)
        return 0;
    /* What follows is short and unaligned. */
    int flags = fcntl(file->fd, F_GETFL);
    if (flags < 0 || fcntl(file->fd, F_SETFL, flags & ~O_DIRECT) < 0)
        return -errno;
    file->direct = false;
    crash_point("file:finish_begun");
    /* A write that failed has left the beginning of a packet; without it there may be room. */
    int err = ftruncate(file->fd, (off_t)file->bytes) < 0 ? -errno : 0;
    if (err == 0)
        err = is_trace(file) ? finish_trace(file, last) : finish_plain(file);
    if (ftruncate(file->fd, (off_t)file->bytes) < 0 && err == 0)
        err = -errno;
    crash_point("file:truncated");
    release(file);
    return err;
}
