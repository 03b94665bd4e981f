/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring: one producer process, one consumer process, fixed slots, a power of two of them.
 *
 * Idea. A slot publishes itself: its first word is the sequence number of the message it holds. The
 * producer writes the slot, then stores the sequence with release; the consumer polls that word
 * with acquire. So one small message moves one cache line. The consumer's tail is only read when
 * the producer's credit has run out.
 *
 * Positions count messages from the start of the ring and never wrap in practice, but may start
 * anywhere and are compared by difference. The message at position p stands in slot p & (depth - 1)
 * and its sequence is p + 1; until then the slot holds the sequence of the lap before, p + 1 -
 * depth.
 *
 *   offset  bytes  field        offset  bytes  field
 *        0      8  sequence         34      1  kind
 *        8      8  source           35      1  reason
 *       16      8  request          36      1  part
 *       24      8  ingress          37      1  parts
 *       32      2  length           38      2  flow        40  payload
 *
 * Every input slot yields at least one output slot, in order; the output names the position of its
 * input (`source`) and which part of how many it is. That is what makes a stage restartable from
 * the rings alone, and every count a difference of positions, also after a kill:
 *
 *     next = max(own tail, last published output's source + 1)
 *
 * Both sides fetch lines ahead, but only those the other has done with: a slot fetched too early
 * would be taken from under its hands. The producer knows by its credit; the consumer by `seen`,
 * which the producer writes once in RING_AHEAD slots. That is a hint and counts nothing.
 *
 * A ring_producer or ring_consumer is private to its process; nothing here blocks, allocates or
 * makes a system call except the parking functions.
 */
#ifndef TICKLINE_SHM_RING_H
#define TICKLINE_SHM_RING_H

#include "shm/crash.h"
#include "shm/region.h"

enum {
    RING_DEPTH_MIN = 2,
    RING_DEPTH_MAX = 1 << 16,
    RING_SLOT_HEADER_BYTES = 40,
    /* A datagram of an Ethernet frame, and an odd number of lines: slots a power of two apart would
     * all compete for the same few cache sets. */
    RING_SLOT_AUTO_BYTES = 33 * LINE_BYTES,
    RING_SLOT_BYTES_MAX = 65664,
    RING_AHEAD = 16, /* slots that either side fetches ahead */
};

enum ring_kind {
    RING_REQUEST = 1, /* rx → worker: bytes to process */
    RING_REPLY,       /* worker → tx: bytes to send */
    RING_REJECTED,    /* not answered; `reason` says why */
    RING_FILTERED,    /* the handler decided that there is no reply */
};

struct ring_slot {
    _Atomic uint64_t sequence; /* producer, release; pairs with ring_peek's acquire */
    uint64_t source;           /* position of the input this was made from */
    uint64_t request;          /* request number, given by rx, unique in the run */
    uint64_t ingress;          /* tsc of the kernel's receive time */
    uint16_t length;           /* bytes of payload */
    uint8_t kind;              /* enum ring_kind */
    uint8_t reason;            /* enum reason (points.h) where rejected */
    uint8_t part;              /* 0 … parts - 1 */
    uint8_t parts;
    uint16_t flow; /* what dispatch keeps in order; index of rx's socket */
    uint8_t payload[];
};
static_assert(offsetof(struct ring_slot, length) == 32, "drawn above");
static_assert(offsetof(struct ring_slot, payload) == RING_SLOT_HEADER_BYTES, "drawn above");

/* One page between the region's header and the slots. */
struct ring_control {
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t
        tail; /* consumer, release; pairs with ring_refresh's acquire */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint32_t parked; /* consumer: it sleeps (enum ring_parked) */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint32_t bell;   /* producer: futex, counts wake-ups */
    /* producer, relaxed: published at least up to here; read by ring_next */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t seen;
};

enum { RING_CONTROL_OFFSET = PAGE_BYTES, RING_SLOTS_OFFSET = 2 * PAGE_BYTES };
static_assert(sizeof(struct ring_control) <= PAGE_BYTES, "one page");

/* AWAKE: no bell needed. NEAR: ring it. FAR: on another CPU, only a producer that was idle itself
 * rings. */
enum ring_parked { RING_AWAKE = 0, RING_PARKED_NEAR = 1, RING_PARKED_FAR = 2 };

struct ring_producer {
    uint8_t *slots;
    struct ring_control *control;
    uint64_t head;  /* published up to here */
    uint64_t next;  /* claimed up to here */
    uint64_t limit; /* may claim up to here without looking at the tail */
    uint64_t start; /* first position of the ring */
    uint32_t mask;
    uint32_t slot_bytes;
};

struct ring_consumer {
    uint8_t *slots;
    struct ring_control *control;
    uint64_t next;  /* read up to here */
    uint64_t ahead; /* newest `seen` that was read */
    uint64_t start; /* first position of the ring */
    uint32_t mask;
    uint32_t slot_bytes;
};

/* Bytes of payload that a slot of `slot_bytes` holds. */
static inline uint32_t ring_capacity(uint32_t slot_bytes)
{
    return slot_bytes - RING_SLOT_HEADER_BYTES;
}

/* ---- creation, by the launcher ---- */

/* -EINVAL: depth is no power of two in range, or slot_bytes no multiple of 64 in range. */
int ring_create(struct region *region, const char *name, uint32_t depth, uint32_t slot_bytes,
                uint64_t start, uint64_t epoch, const struct region_place *place);

/* What region_attach must find: kind, layout; any geometry. */
struct region_want ring_want(uint64_t epoch);

/* ---- attach; also after a crash: both resume where the memory says ---- */

/* -EPROTO where the geometry in the header cannot be, or the tail or the head says what no slot does
 * (mismatch says which). The region must outlive them. */
int ring_producer_attach(struct ring_producer *producer, const struct region *region,
                         struct region_mismatch *mismatch);
int ring_consumer_attach(struct ring_consumer *consumer, const struct region *region,
                         struct region_mismatch *mismatch);

/* The newest published slot, or NULL where none was ever published. For recovery and for the
 * account. */
const struct ring_slot *ring_last_published(const struct ring_producer *producer);

/*
 * Where a stage that reads `in` and writes `out` goes on: skips inputs whose outputs are all
 * published, and gives them back (with a full ring nothing might come that would). Returns the part of the input at the new position that comes next (0 unless killed
 * between parts).
 */
uint8_t ring_resume(struct ring_consumer *in, const struct ring_producer *out);

/* ---- producer ---- */

static inline struct ring_slot *ring_slot_at(uint8_t *slots, uint32_t mask, uint32_t slot_bytes,
                                             uint64_t position)
{
    return (struct ring_slot *)(void *)(slots + (position & mask) * slot_bytes);
}

/* Reads the consumer's tail (acquire; pairs with ring_commit). Returns the room now free, in slots.
 */
uint64_t ring_refresh(struct ring_producer *producer);

/*
 * Next free slot to fill, or NULL: full. Claims add up until ring_publish or ring_abandon. A stage
 * that resumes from its output (ring_resume) claims fewer than `depth` at once: the last claim of a
 * whole lap would overwrite the newest published slot, by which a successor finds its place.
 */
static inline struct ring_slot *ring_claim(struct ring_producer *producer)
{
    if (unlikely(producer->next == producer->limit) && ring_refresh(producer) == 0)
        return NULL;
    if (likely(position_diff(producer->limit, producer->next) > RING_AHEAD))
        prefetch_write(ring_slot_at(producer->slots, producer->mask, producer->slot_bytes,
                                    producer->next + RING_AHEAD));
    crash_point("ring:claimed");
    return ring_slot_at(producer->slots, producer->mask, producer->slot_bytes, producer->next++);
}

/* Publishes all claimed slots, oldest first (release; pairs with ring_peek's acquire). */
static inline void ring_publish(struct ring_producer *producer)
{
    crash_point("ring:before_publish");
    for (uint64_t p = producer->head; p != producer->next; p++) {
        store_release(
            &ring_slot_at(producer->slots, producer->mask, producer->slot_bytes, p)->sequence,
            p + 1);
        crash_point("ring:word_published");
    }
    if ((producer->head ^ producer->next) >= RING_AHEAD) {
        store_relaxed(&producer->control->seen, producer->next);
        crash_point("ring:hint_stored");
    }
    producer->head = producer->next;
    crash_point("ring:after_publish");
}

/* Gives back the claimed slots unpublished. */
static inline void ring_abandon(struct ring_producer *producer)
{
    producer->next = producer->head;
}

/* True where nothing published is waiting to be committed by the consumer. Reads the shared tail.
 */
static inline bool ring_drained(const struct ring_producer *producer)
{
    return load_acquire(&producer->control->tail) == producer->head;
}

/* ---- consumer ---- */

/* Next message not yet read, or NULL: none. The slot stays ours until ring_commit. */
static inline struct ring_slot *ring_peek(struct ring_consumer *consumer)
{
    struct ring_slot *slot =
        ring_slot_at(consumer->slots, consumer->mask, consumer->slot_bytes, consumer->next);

    if (load_acquire(&slot->sequence) != consumer->next + 1)
        return NULL;
    if (unlikely(slot->length > ring_capacity(consumer->slot_bytes)))
        region_corrupt("ring slot length", ring_capacity(consumer->slot_bytes), slot->length);
    crash_point("ring:peeked");
    return slot;
}

static inline void ring_next(struct ring_consumer *consumer)
{
    consumer->next++;
    if (position_diff(consumer->ahead, consumer->next) > RING_AHEAD)
        __builtin_prefetch(ring_slot_at(consumer->slots, consumer->mask, consumer->slot_bytes,
                                        consumer->next + RING_AHEAD));
    else if (consumer->next % RING_AHEAD == 0)
        consumer->ahead = load_relaxed(&consumer->control->seen);
}

/* Gives all before `position` back to the producer (release; pairs with ring_refresh's acquire). */
static inline void ring_commit_to(struct ring_consumer *consumer, uint64_t position)
{
    crash_point("ring:before_commit");
    store_release(&consumer->control->tail, position);
    crash_point("ring:after_commit");
}

/* The same for everything read. */
static inline void ring_commit(struct ring_consumer *consumer)
{
    ring_commit_to(consumer, consumer->next);
}

/* ---- parking: a consumer that sleeps, a producer that wakes it ---- */

/* Futex wake, about 1.2 µs on the same CPU. */
void ring_ring_bell(struct ring_producer *producer);

/*
 * After a publish, where parking is in use. Makes no fence: a consumer that parks in this very
 * moment may be missed, its own timer (at most 1 ms) finds the message then. `was_idle`: the caller
 * had nothing to do before this message, so that even a bell to another CPU delays nobody.
 */
static inline bool ring_wake(struct ring_producer *producer, bool was_idle)
{
    uint32_t parked = load_relaxed(&producer->control->parked);

    if (likely(parked == RING_AWAKE) || (parked == RING_PARKED_FAR && !was_idle))
        return false;
    ring_ring_bell(producer);
    return true;
}

/* Consumer, when it takes over: a predecessor may have been killed in its sleep, and each publish would
 * ring for it. */
static inline void ring_awake(struct ring_consumer *consumer)
{
    store_relaxed(&consumer->control->parked, (uint32_t)RING_AWAKE);
}

/*
 * Consumer: sleeps until the bell, at most `ns`. `near`: the producer runs on our CPU. False where
 * a message was there already and nobody slept.
 */
bool ring_park(struct ring_consumer *consumer, bool near, uint64_t ns);

/* Sleeps so long; true. */
bool ring_nap(uint64_t ns);

/* ---- reading from outside: the launcher's account, status, tests ---- */

struct ring_positions {
    uint64_t published; /* messages, since the start */
    uint64_t consumed;
};

int ring_positions(const struct region *region, struct ring_positions *positions);

/* What lies in a ring whose consumer is dead. */
struct ring_waiting {
    uint64_t count;
    uint64_t first; /* request numbers of the oldest and the newest; 0 where there is none */
    uint64_t last;
};

int ring_waiting(const struct region *region, struct ring_waiting *waiting);

#endif
