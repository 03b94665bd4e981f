/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tx's streams leave to a successor: a region of tx's own that the launcher keeps ("tx.streams").
 *
 * Every output that is taken gets a place in the stream of bytes of its connection before anything of it
 * is written. The kernel says how many bytes of a connection it has taken (stream_kernel_bytes), so what
 * has become of each output is known to the byte after a kill at any moment; nothing is noted per write.
 *
 * An output is taken once cells->sending of its ring is beyond it; what stands here of others is of the
 * lap before. The outputs of a place that wait are in order by number, the greater first (a connection
 * that is made anew gives the numbers from the head of its queue on), then by begin.
 *
 *   page 0 region header | records | outputs: a slot of a ring each
 *
 * tx alone writes; atomics, because the writer may be killed between any two stores.
 */
#ifndef TICKLINE_TX_STREAM_MEMORY_H
#define TICKLINE_TX_STREAM_MEMORY_H

#include "shm/connection.h"
#include "tx/tx_own.h"

enum { STREAMS_MAX = CONNECTIONS_MAX, STREAM_NOWHERE = UINT16_MAX };

/* Of one place. */
struct stream_record {
    _Alignas(LINE_BYTES) _Atomic uint64_t
        number;              /* of the connection that the others speak of; 0: none yet */
    _Atomic uint64_t base;   /* bytes the kernel counted as taken before the first reply */
    _Atomic uint64_t queued; /* bytes of all replies that were taken for it */
    _Atomic uint64_t taken;  /* requests whose last output was taken */
    _Atomic uint32_t up;     /* outgoing: 1 from when base holds until it is lost */
};

/* Of one slot of a ring. */
struct stream_output {
    _Atomic uint64_t begin;  /* its first byte in the stream of the connection */
    _Atomic uint64_t number; /* of that connection */
    _Atomic uint64_t taken;  /* of the record, with this one */
    uint32_t next;           /* in the queue of its place; nothing to a successor */
    _Atomic uint16_t place;  /* STREAM_NOWHERE: of no connection */
    _Atomic uint8_t outcome; /* 0: it waits; else enum outcome + 1 */
};
static_assert(sizeof(struct stream_output) == 32, "two a line");

struct stream_memory {
    struct region region;
    struct stream_record *record;
    struct stream_output *output; /* ring << shift | slot */
    uint32_t shift;
};

/* Takes over a predecessor's region; `fd` -1: makes one and deposits it. 0 or -errno, said by stage_error. */
int stream_memory_open(struct stage *stage, const struct tx *tx, struct stream_memory *memory,
                       int fd);

static inline uint32_t stream_index(const struct stream_memory *memory, const struct tx *tx,
                                    uint32_t ring, uint64_t position)
{
    return ring << memory->shift | ((uint32_t)position & tx->from[ring].mask);
}

static inline const struct ring_slot *stream_slot(const struct stream_memory *memory,
                                                  const struct tx *tx, uint32_t index)
{
    const struct ring_consumer *from = &tx->from[index >> memory->shift];

    return ring_slot_at(from->slots, from->mask, from->slot_bytes, index);
}

#endif
