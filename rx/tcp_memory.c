/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/tcp_memory.h"

#include "shm/crash.h"

#include <string.h>

enum {
    JOURNAL_OFFSET = PAGE_BYTES,
    PLACES_OFFSET = 2 * PAGE_BYTES,
    /* So that the beginnings of the buffers do not compete for the same cache sets. */
    STAGGER_BYTES = 5 * LINE_BYTES,
};
static_assert(sizeof(struct tcp_journal) <= PAGE_BYTES, "one page");
static_assert(sizeof(struct tcp_place) == LINE_PAIR_BYTES, "one writer, one line pair");

/* ---- open ---- */

static size_t stride(uint32_t bytes)
{
    return 2 * (size_t)bytes + STAGGER_BYTES;
}

static size_t buffers_offset(uint32_t places)
{
    size_t bytes = PLACES_OFFSET + places * sizeof(struct tcp_place);

    return (bytes + PAGE_BYTES - 1) & ~((size_t)PAGE_BYTES - 1);
}

static struct region_want memory_want(uint32_t places, uint32_t bytes, uint64_t epoch)
{
    const uint64_t parts[] = {
        sizeof(struct tcp_journal),
        offsetof(struct tcp_journal, message),
        sizeof(struct tcp_place),
        offsetof(struct tcp_place, fate),
        STAGGER_BYTES,
    };
    return (struct region_want){
        .kind = REGION_RECEIVED,
        .layout = region_hash(parts, sizeof(parts) / sizeof(parts[0])),
        .epoch = epoch,
        .geometry = {places, bytes, 0, 0},
        .size_min = buffers_offset(places) + places * stride(bytes),
    };
}

/* The addresses in the message are of this process. */
static void point_message(struct tcp_memory *memory)
{
    struct msghdr *header = &memory->journal->message.msg_hdr;

    header->msg_name = NULL;
    header->msg_namelen = 0;
    header->msg_iov = &memory->iov;
    header->msg_iovlen = 1;
    header->msg_control = memory->journal->control;
}

int tcp_memory_open(struct tcp_memory *memory, uint32_t places, uint32_t bytes, uint64_t epoch,
                    bool huge, int fd)
{
    const struct region_want want = memory_want(places, bytes, epoch);
    const struct region_place where = {.numa_node = -1, .huge = huge};
    struct region_mismatch mismatch;

    *memory = (struct tcp_memory){.places = places, .bytes = bytes};
    int err = fd >= 0
                  ? region_attach(&memory->region, fd, &want, true, &mismatch)
                  : region_create(&memory->region, "tickline-tcp", &want, &where, want.size_min);
    if (err < 0)
        return err;
    memory->journal = region_at(&memory->region, JOURNAL_OFFSET);
    memory->place = region_at(&memory->region, PLACES_OFFSET);
    memory->buffers = region_at(&memory->region, buffers_offset(places));
    point_message(memory);
    if (fd < 0)
        memory->journal->message.msg_len = TCP_UNTAKEN;
    return 0;
}

void tcp_memory_close(struct tcp_memory *memory)
{
    region_close(&memory->region);
}

/* ---- places ---- */

static uint8_t *buffer_at(const struct tcp_memory *memory, uint32_t index)
{
    return memory->buffers + index * stride(memory->bytes);
}

const uint8_t *tcp_bytes(const struct tcp_memory *memory, uint32_t index)
{
    const struct tcp_place *place = &memory->place[index];

    return buffer_at(memory, index) + (load_relaxed(&place->consumed) - load_relaxed(&place->base));
}

void tcp_place_clear(struct tcp_place *place)
{
    store_relaxed(&place->consumed, load_relaxed(&place->filled));
    store_relaxed(&place->count, 0);
    store_relaxed(&place->tally, 0);
    crash_point("tcp:cleared");
    store_release(&place->fate, 0u);
}

/* The rest moves to the beginning where it does not overlap itself, and behind it there is not enough. */
static void make_room(struct tcp_memory *memory, uint32_t index)
{
    struct tcp_place *place = &memory->place[index];
    uint64_t consumed = load_relaxed(&place->consumed);
    uint32_t available = tcp_available(place);
    uint64_t offset = consumed - load_relaxed(&place->base);

    if (offset < memory->bytes && available)
        return;
    memcpy(buffer_at(memory, index), buffer_at(memory, index) + offset, available);
    crash_point("tcp:copied");
    store_release(&place->base, consumed);
}

/* ---- reading ---- */

uint32_t tcp_read_begin(struct tcp_memory *memory, uint32_t index)
{
    struct tcp_journal *journal = memory->journal;
    const struct tcp_place *place = &memory->place[index];

    make_room(memory, index);
    uint64_t filled = load_relaxed(&place->filled);
    uint64_t offset = filled - load_relaxed(&place->base);
    memory->iov = (struct iovec){.iov_base = buffer_at(memory, index) + offset,
                                 .iov_len = 2 * (size_t)memory->bytes - offset};
    store_relaxed(&journal->place, index);
    store_relaxed(&journal->before, filled);
    store_relaxed(&journal->number, load_relaxed(&journal->reads) + 1);
    journal->message.msg_hdr.msg_controllen = KERNEL_STAMP_BYTES;
    atomic_signal_fence(memory_order_release);
    return (uint32_t)memory->iov.iov_len;
}

uint32_t tcp_read_end(struct tcp_memory *memory)
{
    struct tcp_journal *journal = memory->journal;
    struct tcp_place *place = &memory->place[load_relaxed(&journal->place)];
    uint32_t length = journal->message.msg_len;

    if (length == TCP_UNTAKEN)
        return 0;
    store_relaxed(&place->kernel_ns, kernel_stamp(&journal->message.msg_hdr));
    store_relaxed(&journal->reads, load_relaxed(&journal->number));
    store_release(&place->filled, load_relaxed(&journal->before) + length);
    crash_point("tcp:filled");
    atomic_signal_fence(memory_order_release);
    journal->message.msg_len = TCP_UNTAKEN;
    atomic_signal_fence(memory_order_release);
    crash_point("tcp:taken");
    return length;
}

/* ---- requests ---- */

void tcp_put_begin(struct tcp_memory *memory, uint32_t index, uint64_t request, uint32_t length)
{
    struct tcp_put *put = &memory->journal->put[request % 2];
    const struct tcp_place *place = &memory->place[index];

    store_relaxed(&put->place, index);
    store_relaxed(&put->end, load_relaxed(&place->consumed) + length);
    store_relaxed(&put->count, load_relaxed(&place->count) + 1);
    crash_point("tcp:noted");
    store_release(&put->request, request);
    crash_point("tcp:journaled");
}

void tcp_put_end(struct tcp_memory *memory, uint64_t request)
{
    const struct tcp_put *put = &memory->journal->put[request % 2];
    struct tcp_place *place = &memory->place[load_relaxed(&put->place)];

    store_relaxed(&place->count, load_relaxed(&put->count));
    crash_point("tcp:counted");
    store_release(&place->consumed, load_relaxed(&put->end));
    crash_point("tcp:consumed");
}

/* ---- after a kill ---- */

static void check_place(const struct tcp_memory *memory, const struct tcp_place *place)
{
    uint64_t filled = load_relaxed(&place->filled);
    uint64_t base = load_relaxed(&place->base);

    if (filled - base > 2 * (uint64_t)memory->bytes)
        region_corrupt("bytes in a connection's buffer", 2 * (uint64_t)memory->bytes,
                       filled - base);
    if (load_relaxed(&place->consumed) - base > filled - base)
        region_corrupt("bytes consumed of them", filled - base,
                       load_relaxed(&place->consumed) - base);
}

uint32_t tcp_memory_recover(struct tcp_memory *memory, uint64_t done)
{
    struct tcp_journal *journal = memory->journal;
    const struct tcp_put *newest = &journal->put[done % 2];
    const struct tcp_put *next = &journal->put[(done + 1) % 2];
    uint32_t places[] = {load_relaxed(&journal->place), load_relaxed(&newest->place),
                         load_relaxed(&next->place)};

    for (uint32_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (places[i] >= memory->places)
            region_corrupt("place in the journal", memory->places - 1, places[i]);
    }
    (void)tcp_read_end(memory);
    uint64_t consumed = load_relaxed(&memory->place[load_relaxed(&newest->place)].consumed);
    if (done && load_acquire(&newest->request) == done &&
        position_diff(load_relaxed(&newest->end), consumed) > 0)
        tcp_put_end(memory, done);
    for (uint32_t i = 0; i < memory->places; i++)
        check_place(memory, &memory->place[i]);
    return load_acquire(&next->request) == done + 1 ? load_relaxed(&next->place) : TCP_NOWHERE;
}
