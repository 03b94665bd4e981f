/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/ring.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { GEOMETRY_DEPTH, GEOMETRY_SLOT, GEOMETRY_START };

static uint64_t ring_layout(void)
{
    const uint64_t parts[] = {
        offsetof(struct ring_slot, sequence), offsetof(struct ring_slot, source),
        offsetof(struct ring_slot, request),  offsetof(struct ring_slot, ingress),
        offsetof(struct ring_slot, length),   offsetof(struct ring_slot, kind),
        offsetof(struct ring_slot, reason),   offsetof(struct ring_slot, part),
        offsetof(struct ring_slot, parts),    offsetof(struct ring_slot, flow),
        offsetof(struct ring_control, tail),  offsetof(struct ring_control, parked),
        offsetof(struct ring_control, bell),  offsetof(struct ring_control, seen),
        sizeof(struct ring_control),          RING_SLOTS_OFFSET,
    };
    return region_hash(parts, sizeof(parts) / sizeof(parts[0]));
}

static bool depth_valid(uint64_t depth)
{
    return depth >= RING_DEPTH_MIN && depth <= RING_DEPTH_MAX && (depth & (depth - 1)) == 0;
}

static bool slot_valid(uint64_t bytes)
{
    return bytes >= LINE_BYTES && bytes <= RING_SLOT_BYTES_MAX && bytes % LINE_BYTES == 0;
}

struct region_want ring_want(uint64_t epoch)
{
    return (struct region_want){
        .kind = REGION_RING,
        .layout = ring_layout(),
        .epoch = epoch,
        .any_geometry = true,
    };
}

int ring_create(struct region *region, const char *name, uint32_t depth, uint32_t slot_bytes,
                uint64_t start, uint64_t epoch, const struct region_place *place)
{
    if (!depth_valid(depth) || !slot_valid(slot_bytes))
        return -EINVAL;

    struct region_want want = ring_want(epoch);
    want.geometry[GEOMETRY_DEPTH] = depth;
    want.geometry[GEOMETRY_SLOT] = slot_bytes;
    want.geometry[GEOMETRY_START] = start;
    int err =
        region_create(region, name, &want, place, RING_SLOTS_OFFSET + (size_t)depth * slot_bytes);
    if (err < 0)
        return err;

    struct ring_control *control = region_at(region, RING_CONTROL_OFFSET);
    store_relaxed(&control->tail, start);
    store_relaxed(&control->seen, start);
    for (uint64_t p = start; p != start + depth; p++)
        store_relaxed(
            &ring_slot_at(region_at(region, RING_SLOTS_OFFSET), depth - 1, slot_bytes, p)->sequence,
            p + 1 - depth);
    return 0;
}

/* Copies the geometry, which stands in shared memory too, and checks it. */
static int geometry_take(const struct region *region, uint64_t geometry[4],
                         struct region_mismatch *mismatch)
{
    memcpy(geometry, region->header->geometry, sizeof(region->header->geometry));
    if (!depth_valid(geometry[GEOMETRY_DEPTH])) {
        *mismatch = (struct region_mismatch){"geometry[0]", RING_DEPTH_MAX, geometry[0]};
        return -EPROTO;
    }
    if (!slot_valid(geometry[GEOMETRY_SLOT])) {
        *mismatch = (struct region_mismatch){"geometry[1]", LINE_BYTES, geometry[1]};
        return -EPROTO;
    }
    uint64_t needed = RING_SLOTS_OFFSET + geometry[GEOMETRY_DEPTH] * geometry[GEOMETRY_SLOT];
    if (region->size < needed) {
        *mismatch = (struct region_mismatch){"size", needed, region->size};
        return -EPROTO;
    }
    return 0;
}

static uint64_t sequence_at(uint8_t *slots, uint32_t mask, uint32_t slot_bytes, uint64_t position)
{
    return load_acquire(&ring_slot_at(slots, mask, slot_bytes, position)->sequence);
}

/* Published messages follow the tail without a hole; the first slot of another lap ends them. */
static uint64_t find_head(uint8_t *slots, uint32_t mask, uint32_t slot_bytes, uint64_t tail)
{
    uint64_t head = tail;

    while (head - tail <= mask && sequence_at(slots, mask, slot_bytes, head) == head + 1)
        head++;
    return head;
}

/*
 * The slot at the tail holds its message, or still that of the lap before; the one in front of it the message that
 * was consumed, or already that of the next lap. So it is while the side that attaches is not running.
 */
static int tail_check(uint8_t *slots, uint32_t mask, uint32_t slot_bytes, uint64_t start,
                      uint64_t tail, struct region_mismatch *mismatch)
{
    uint64_t at = sequence_at(slots, mask, slot_bytes, tail);
    uint64_t before = sequence_at(slots, mask, slot_bytes, tail - 1);

    if (at != tail + 1 && at != tail - mask) {
        *mismatch = (struct region_mismatch){"sequence at the tail", tail + 1, at};
        return -EPROTO;
    }
    if (tail != start && before != tail && before != tail + mask + 1) {
        *mismatch = (struct region_mismatch){"sequence before the tail", tail, before};
        return -EPROTO;
    }
    return 0;
}

/* Behind the head every slot holds a message of the lap before. */
static int head_check(const struct ring_producer *producer, struct region_mismatch *mismatch)
{
    for (uint64_t p = producer->head; p != producer->limit; p++) {
        uint64_t found = sequence_at(producer->slots, producer->mask, producer->slot_bytes, p);
        if (found != p - producer->mask) {
            *mismatch =
                (struct region_mismatch){"sequence behind the head", p - producer->mask, found};
            return -EPROTO;
        }
    }
    return 0;
}

/* Without a look at the order of things: for an observer both sides are moving. */
static int producer_at(struct ring_producer *producer, const struct region *region,
                       struct region_mismatch *mismatch)
{
    uint64_t geometry[4];
    int err = geometry_take(region, geometry, mismatch);
    if (err < 0)
        return err;

    *producer = (struct ring_producer){
        .slots = region_at(region, RING_SLOTS_OFFSET),
        .control = region_at(region, RING_CONTROL_OFFSET),
        .start = geometry[GEOMETRY_START],
        .mask = (uint32_t)geometry[GEOMETRY_DEPTH] - 1,
        .slot_bytes = (uint32_t)geometry[GEOMETRY_SLOT],
    };
    uint64_t tail = load_acquire(&producer->control->tail);
    producer->head = find_head(producer->slots, producer->mask, producer->slot_bytes, tail);
    producer->next = producer->head;
    producer->limit = tail + producer->mask + 1;
    crash_point("ring:producer_attached");
    return 0;
}

int ring_producer_attach(struct ring_producer *producer, const struct region *region,
                         struct region_mismatch *mismatch)
{
    int err = producer_at(producer, region, mismatch);
    if (err == 0)
        err = tail_check(producer->slots, producer->mask, producer->slot_bytes, producer->start,
                         producer->limit - producer->mask - 1, mismatch);
    return err < 0 ? err : head_check(producer, mismatch);
}

int ring_consumer_attach(struct ring_consumer *consumer, const struct region *region,
                         struct region_mismatch *mismatch)
{
    uint64_t geometry[4];
    int err = geometry_take(region, geometry, mismatch);
    if (err < 0)
        return err;

    *consumer = (struct ring_consumer){
        .slots = region_at(region, RING_SLOTS_OFFSET),
        .control = region_at(region, RING_CONTROL_OFFSET),
        .start = geometry[GEOMETRY_START],
        .mask = (uint32_t)geometry[GEOMETRY_DEPTH] - 1,
        .slot_bytes = (uint32_t)geometry[GEOMETRY_SLOT],
    };
    consumer->next = load_acquire(&consumer->control->tail);
    consumer->ahead = consumer->next;
    crash_point("ring:consumer_attached");
    return tail_check(consumer->slots, consumer->mask, consumer->slot_bytes, consumer->start,
                      consumer->next, mismatch);
}

const struct ring_slot *ring_last_published(const struct ring_producer *producer)
{
    if (producer->head == producer->start)
        return NULL;
    return ring_slot_at(producer->slots, producer->mask, producer->slot_bytes, producer->head - 1);
}

uint8_t ring_resume(struct ring_consumer *in, const struct ring_producer *out)
{
    const struct ring_slot *last = ring_last_published(out);

    if (!last)
        return 0;
    bool whole = last->part + 1 >= last->parts;
    uint64_t next = last->source + (whole ? 1 : 0);
    if (position_diff(next, in->next) < 0)
        return 0;
    if (next - in->next > (uint64_t)in->mask + 1)
        region_corrupt("ring slot source", in->next + in->mask, last->source);
    in->next = next;
    crash_point("ring:resumed");
    ring_commit(in);
    return whole ? 0 : (uint8_t)(last->part + 1);
}

uint64_t ring_refresh(struct ring_producer *producer)
{
    uint64_t depth = (uint64_t)producer->mask + 1;

    crash_point("ring:credit_out");
    uint64_t tail = load_acquire(&producer->control->tail);
    if (unlikely(producer->head - tail > depth))
        region_corrupt("ring tail", producer->head, tail);
    producer->limit = tail + depth;
    return producer->limit - producer->next;
}

void ring_ring_bell(struct ring_producer *producer)
{
    store_release(&producer->control->bell, load_relaxed(&producer->control->bell) + 1);
    crash_point("ring:bell_stored");
    (void)syscall(SYS_futex, &producer->control->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool ring_park(struct ring_consumer *consumer, bool near, uint64_t ns)
{
    const struct timespec limit = {.tv_nsec = (long)ns};
    struct ring_control *control = consumer->control;
    uint32_t bell = load_acquire(&control->bell);
    bool slept = false;

    atomic_store(&control->parked, (uint32_t)(near ? RING_PARKED_NEAR : RING_PARKED_FAR));
    crash_point("ring:parked");
    if (!ring_peek(consumer)) {
        (void)syscall(SYS_futex, &control->bell, FUTEX_WAIT, bell, &limit, NULL, 0);
        slept = true;
    }
    store_relaxed(&control->parked, (uint32_t)RING_AWAKE);
    return slept;
}

bool ring_nap(uint64_t ns)
{
    const struct timespec nap = {.tv_nsec = (long)ns};

    nanosleep(&nap, NULL);
    return true;
}

/* The tail that went with the head: read again by now it could be ahead of that. */
static uint64_t tail_seen(const struct ring_producer *producer)
{
    return producer->limit - producer->mask - 1;
}

int ring_positions(const struct region *region, struct ring_positions *positions)
{
    struct region_mismatch mismatch;
    struct ring_producer producer;

    int err = producer_at(&producer, region, &mismatch);
    if (err == 0)
        *positions = (struct ring_positions){
            .published = producer.head - producer.start,
            .consumed = tail_seen(&producer) - producer.start,
        };
    return err;
}

int ring_waiting(const struct region *region, struct ring_waiting *waiting)
{
    struct region_mismatch mismatch;
    struct ring_producer producer;

    int err = producer_at(&producer, region, &mismatch);
    if (err < 0)
        return err;
    uint64_t tail = tail_seen(&producer);
    *waiting = (struct ring_waiting){.count = producer.head - tail};
    if (waiting->count == 0)
        return 0;
    waiting->first =
        ring_slot_at(producer.slots, producer.mask, producer.slot_bytes, tail)->request;
    waiting->last = ring_last_published(&producer)->request;
    return 0;
}
