/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of senders of datagrams, where replies go back to them (rx.source = udp, tx.sink = reply): rx
 * finds a place for each, tx reads it. A request carries the number of its sender's place as `flow`.
 *
 * There is a place for 65,535 of them; the one that was silent for longest makes room for the next. A
 * request belongs to the sender that stands there only if its number is not below `first`: the reply
 * to an earlier one has nobody left to take it, and never goes to somebody else.
 *
 *   page 0 region header | places
 *
 * rx writes `first`, then 0 to `length`, the address, `length`. tx reads `first` before and after its copy
 * of the address (peer_read): where both are at most its request's number, the copy is of its sender.
 */
#ifndef TICKLINE_SHM_PEER_H
#define TICKLINE_SHM_PEER_H

#include "shm/region.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum { PEERS_MAX = UINT16_MAX, PEERS_OFFSET = PAGE_BYTES };

union peer_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct peer {
    _Alignas(LINE_BYTES) _Atomic uint64_t first; /* the lowest number a request of it may have */
    _Atomic uint32_t
        length;      /* of the address; 0: nobody. Release, pairs with peer_read's acquire */
    uint16_t socket; /* index of the socket it sends to */
    union peer_address address;
};
static_assert(sizeof(struct peer) == LINE_BYTES, "one line");

struct peers {
    struct peer peer[PEERS_MAX];
};

struct region_want peers_want(uint64_t epoch);

/* For the launcher. */
int peers_create(struct region *region, uint64_t epoch, const struct region_place *place);

static inline struct peers *peers_of(const struct region *region)
{
    return (struct peers *)region_at(region, PEERS_OFFSET);
}

/* tx: copies the place `flow` where its sender is that of the request; false: it stands there no more. */
bool peer_read(const struct peers *peers, uint16_t flow, uint64_t request, struct peer *copy);

/* ---- rx: finding places ---- */

enum { PEER_BUCKETS = 1 << 17, PEER_NOBODY = UINT16_MAX };

/* Private to rx; a successor makes it from the table, and has forgotten who was silent for how long. */
struct peer_book {
    struct peers *peers;
    uint16_t
        bucket[PEER_BUCKETS]; /* open addressing, the next one where taken; PEER_NOBODY: free */
    /* Places from the one used last to the one that goes first, a circle through PEERS_MAX. */
    uint16_t older[PEERS_MAX + 1];
    uint16_t newer[PEERS_MAX + 1];
};

void peer_book_open(struct peer_book *book, struct peers *peers);

/* The place of this sender at this socket; where it has none yet, it gets one for requests from number
 * `next` on. */
uint16_t peer_find(struct peer_book *book, const struct sockaddr *name, uint16_t socket,
                   uint64_t next);

#endif
