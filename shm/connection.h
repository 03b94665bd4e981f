/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of TCP connections that requests come from: a place for each, in one region. rx accepts and
 * reads them; tx, where it answers on them (tx.sink = reply), writes them and says when it is done.
 *
 * A place is used again; rx writes the number of the next connection there while it is still free, and all
 * that is said of it may be read once `state` is open. A request carries the number of its place as `flow`, and belongs to the
 * connection that stands there only if its own number is not below `first`: a reply to an
 * earlier one has nobody left to take it.
 *
 *   state    who moves it there   from      meaning
 *   free     rx                   (initial), ended, broken
 *   open     rx                   free      requests may come
 *   ended    rx                   open      the peer has sent its last byte; it may still read
 *   broken   rx                   open, ended   reset, given up or not to be understood: no reply reaches it
 *
 * rx frees an ended or broken place once `released` says the number of the connection in it (tx.sink = reply: by
 * tx, which answers what is still to be answered first; else by rx itself).
 *
 *   page 0 region header | page 1 places
 *
 * Words of rx and of tx stand on line pairs of their own. What became of connections is counted by rx alone, at
 * once, and in such a way that a successor counts nothing twice. What is stored before `state` or `released`
 * (release) may be read after it (acquire).
 */
#ifndef TICKLINE_SHM_CONNECTION_H
#define TICKLINE_SHM_CONNECTION_H

#include "shm/region.h"

enum { CONNECTIONS_MAX = 1024, CONNECTIONS_OFFSET = PAGE_BYTES };

/* FIGURE(name, what is counted): connections, by what became of them. */
#define CONNECTION_FIGURES(FIGURE)                                                                 \
    FIGURE(opened, "that got a place")                                                             \
    FIGURE(refused, "reset at once: rx.connections were open")                                     \
    FIGURE(lost, "reset because rx was killed before it could deposit them")                       \
    FIGURE(ended, "whose peer has sent its last byte")                                             \
    FIGURE(reset, "reset by the peer, or by the network")                                          \
    FIGURE(malformed, "given up: where the next request begins could not be told")                 \
    FIGURE(oversized, "given up: a request was larger than rx.connection_buffer")                  \
    FIGURE(idle, "given up: silent for rx.idle")

enum connection_figure {
#define FIGURE_ENUM(name, sentence) CONNECTION_##name,
    CONNECTION_FIGURES(FIGURE_ENUM)
#undef FIGURE_ENUM
        CONNECTION_FIGURE_COUNT,
};

extern const char *const connection_figure_name[CONNECTION_FIGURE_COUNT];

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_OPEN,
    CONNECTION_ENDED,
    CONNECTION_BROKEN,
    CONNECTION_STATES,
};

struct connection {
    /* rx */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t number; /* 1, 2 …, of all that ever stood anywhere */
    _Atomic uint64_t first;  /* the lowest number a request of it may have */
    _Atomic uint64_t issued; /* its requests so far; stored before the request is in a ring */
    _Atomic uint32_t state;  /* enum connection_state; release, pairs with tx's acquire */
    uint32_t unused;
    _Atomic uint64_t written_before; /* bytes the kernel counts as written before the first reply */

    /* tx (tx.sink = reply) */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t
        released; /* number of the connection it is done with; release, pairs with rx's */
};

struct connections {
    struct connection place[CONNECTIONS_MAX];
    /* rx */
    _Alignas(LINE_PAIR_BYTES) _Atomic uint64_t figure[CONNECTION_FIGURE_COUNT];
    _Atomic uint64_t cut_bytes;  /* received, of a request whose rest never came */
    _Atomic uint64_t held_bytes; /* received, of no request yet; as of rx's last tick */
};

struct region_want connections_want(uint64_t epoch);

/* For the launcher. */
int connections_create(struct region *region, uint64_t epoch, const struct region_place *place);

static inline struct connections *connections_of(const struct region *region)
{
    return (struct connections *)region_at(region, CONNECTIONS_OFFSET);
}

#endif
