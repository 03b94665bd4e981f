/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: replies on their way into TCP connections, for the sinks `tcp` and `reply`.
 *
 * An output taken from a ring gets its place in the bytes of its connection (stream_memory.h) and joins
 * the queue there. A queue is written from the slots where its replies lie: once it holds flush.count
 * of them, once the oldest has waited flush.wait_ns, without a time at the end of each turn. Slots stay
 * the ring's consumer's until their outputs are counted, in the ring's order; connections complete
 * theirs independently of each other. So memory is bounded by the rings, and who takes nothing holds
 * up the others once a ring is full of what is his or came after it.
 *
 * Nothing is repeated or lost on a connection by a kill of tx: streams_recover, stream_settle.
 */
#ifndef TICKLINE_TX_STREAM_H
#define TICKLINE_TX_STREAM_H

#include "tx/stream_memory.h"

struct stream {
    int fd; /* -1: not there now */
    uint16_t place;
    bool busy;        /* in the list of those with something to write */
    uint32_t offset;  /* bytes of the head that the kernel has */
    uint32_t head;    /* outputs that wait, oldest first; STREAM_END: none */
    uint32_t tail;    /* meaningless without a head */
    uint32_t waiting; /* how many */
    uint64_t number;  /* these three as in its record */
    uint64_t queued;
    uint64_t taken;
    uint64_t since;       /* tsc at which the kernel last took something, or the queue began */
    uint64_t retry_at;    /* tsc; the kernel took no more: not before */
    uint64_t retry_ticks; /* 0: it takes all */
    struct stream *next_busy;
};

enum { STREAM_END = UINT32_MAX };

/* What differs between the sinks. */
struct stream_kind {
    /* Where this output belongs; NULL: nowhere (CELL_UNDELIVERED_GONE). */
    struct stream *(*choose)(struct stage *stage, struct tx *tx, const struct ring_slot *slot);
    /* The connection failed (-errno), or its patience has ended (0). The queue is the sink's to keep
     * or to drop; the stream's descriptor is no more. */
    void (*failed)(struct stage *stage, struct tx *tx, struct stream *stream, int err);
    /* Nothing waits any more; may be NULL. */
    void (*emptied)(struct stage *stage, struct tx *tx, struct stream *stream);
};

/* The beginning of the state of both sinks: tx->own. */
struct streams {
    const struct stream_kind *kind;
    struct stream_memory memory;
    struct stream *busy;
    uint32_t count; /* of `stream` in use */
    uint32_t flush_count;
    uint64_t flush_ticks;
    uint64_t patience_ticks; /* 0: for ever */
    uint64_t drain_ticks;    /* patience once nothing more comes in */
    uint64_t ends_since;     /* tsc; 0: not yet */
    uint64_t retry_min_ticks;
    uint64_t retry_max_ticks;
    uint64_t completed; /* replies, in this life */
    bool missing;       /* something waited in the last turn for a connection that is not there */
    struct stream stream[STREAMS_MAX];
};

/* Opens the memory and, after a kill, puts what was taken and not counted back into the queues. `memory`:
 * a predecessor's "tx.streams"; below 0: there was none. */
int streams_open(struct stage *stage, struct tx *tx, const struct stream_kind *kind, uint32_t count,
                 int memory);

/* As struct tx_sink has them. */
int streams_poll(struct stage *stage, struct tx *tx);
void streams_tick(struct stage *stage, struct tx *tx, uint64_t now);
bool streams_idle(const struct stage *stage, const struct tx *tx);
uint64_t streams_nap(const struct stage *stage, const struct tx *tx, uint64_t ns);

/* All that waits there is dropped, for this reason (enum cell_undelivered). */
void stream_drop(struct stage *stage, struct tx *tx, struct stream *stream, uint32_t reason);

/* The place has a connection of this number now, of which nothing is written yet; the queue's outputs
 * begin at its first byte. */
void stream_begin(struct tx *tx, struct stream *stream, uint64_t number);

/* A successor: the kernel has so many bytes of the connection. What lies within them is complete. */
void stream_settle(struct stage *stage, struct tx *tx, struct stream *stream, uint64_t bytes);

/* ---- what stream.c and stream_recover.c share ---- */

/* Behind the others of its place; and into the list of those with something to write. */
void stream_join(struct streams *streams, struct stream *stream, uint32_t index, uint64_t now);
void stream_mind(struct streams *streams, struct stream *stream);

/* The kernel has `bytes` more of the queue, by a write that began at `begun` (tsc). */
void stream_wrote(struct stage *stage, struct tx *tx, struct stream *stream, uint64_t bytes,
                  uint64_t begun);

/* ---- a connection as the kernel knows it (stream_socket.c) ---- */

/* All bytes that were ever taken for it: 0, or -errno. The same after it was reset. */
int stream_kernel_bytes(int fd, uint64_t *bytes);

/* Of them, those that the peer has not acknowledged. */
uint64_t stream_unacknowledged(int fd);

/* tx.nodelay. Its buffer is left to the kernel, which fits it to the way. */
void stream_options(const struct config *config, int fd);

static inline void stream_counter_add(_Atomic uint64_t *counter, uint64_t by)
{
    store_relaxed(counter, load_relaxed(counter) + by);
}

#endif
