/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/peer.h"

#include "shm/crash.h"

#include <string.h>

struct region_want peers_want(uint64_t epoch)
{
    const uint64_t parts[] = {
        sizeof(struct peer),
        offsetof(struct peer, length),
        offsetof(struct peer, socket),
        offsetof(struct peer, address),
    };
    return (struct region_want){
        .kind = REGION_PEERS,
        .layout = region_hash(parts, sizeof(parts) / sizeof(parts[0])),
        .epoch = epoch,
        .geometry = {PEERS_MAX, 0, 0, 0},
        .size_min = PEERS_OFFSET + sizeof(struct peers),
    };
}

int peers_create(struct region *region, uint64_t epoch, const struct region_place *place)
{
    const struct region_want want = peers_want(epoch);

    return region_create(region, "tickline-peers", &want, place,
                         PEERS_OFFSET + sizeof(struct peers));
}

bool peer_read(const struct peers *peers, uint16_t flow, uint64_t request, struct peer *copy)
{
    if (flow >= PEERS_MAX)
        region_corrupt("place of a sender", PEERS_MAX - 1, flow);
    const struct peer *peer = &peers->peer[flow];
    uint32_t length = load_acquire(&peer->length);
    if (length > sizeof(peer->address))
        region_corrupt("length of a sender's address", sizeof(peer->address), length);
    if (length == 0 || position_diff(request, load_relaxed(&peer->first)) < 0)
        return false;
    copy->socket = peer->socket;
    copy->address = peer->address;
    store_relaxed(&copy->length, length);
    /* Pairs with the fence of set_peer: who sees a byte of the next address sees its `first`. */
    atomic_thread_fence(memory_order_acquire);
    return position_diff(request, load_relaxed(&peer->first)) >= 0;
}

/* ---- rx ---- */

static uint32_t length_of(const struct sockaddr *name)
{
    return name->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* Multiplied and folded (Fibonacci hashing). */
static uint32_t bucket_of(const void *address, uint32_t length, uint16_t socket)
{
    uint32_t words[sizeof(union peer_address) / 4] = {0};
    uint64_t hash = socket;

    memcpy(words, address, length);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
        hash ^= hash >> 29;
    }
    return (uint32_t)(hash >> 40) % PEER_BUCKETS;
}

static uint32_t home_of(const struct peer_book *book, uint16_t place)
{
    const struct peer *peer = &book->peers->peer[place];

    return bucket_of(&peer->address, load_relaxed(&peer->length), peer->socket);
}

static void enter(struct peer_book *book, uint16_t place)
{
    uint32_t at = home_of(book, place);

    while (book->bucket[at] != PEER_NOBODY)
        at = (at + 1) % PEER_BUCKETS;
    book->bucket[at] = place;
}

/* What comes behind moves up, so far as that brings it no further from home than it may be. */
static void strike(struct peer_book *book, uint16_t place)
{
    uint32_t hole = home_of(book, place);

    while (book->bucket[hole] != place)
        hole = (hole + 1) % PEER_BUCKETS;
    for (uint32_t at = (hole + 1) % PEER_BUCKETS; book->bucket[at] != PEER_NOBODY;
         at = (at + 1) % PEER_BUCKETS) {
        uint32_t home = home_of(book, book->bucket[at]);
        if ((at - home) % PEER_BUCKETS < (at - hole) % PEER_BUCKETS)
            continue;
        book->bucket[hole] = book->bucket[at];
        hole = at;
    }
    book->bucket[hole] = PEER_NOBODY;
}

/* To the front of the circle. */
static void use(struct peer_book *book, uint16_t place)
{
    uint16_t first = book->older[PEERS_MAX];

    if (first == place)
        return;
    book->older[book->newer[place]] = book->older[place];
    book->newer[book->older[place]] = book->newer[place];
    book->older[place] = first;
    book->newer[place] = PEERS_MAX;
    book->newer[first] = place;
    book->older[PEERS_MAX] = place;
}

void peer_book_open(struct peer_book *book, struct peers *peers)
{
    book->peers = peers;
    memset(book->bucket, 0xff, sizeof(book->bucket));
    for (uint32_t i = 0; i <= PEERS_MAX; i++) {
        book->newer[i] = (uint16_t)(i + 1);
        book->older[i] = (uint16_t)(i - 1);
    }
    book->newer[PEERS_MAX] = 0;
    book->older[0] = PEERS_MAX;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        uint32_t length = load_relaxed(&peers->peer[i].length);
        if (length > sizeof(union peer_address))
            region_corrupt("length of a sender's address", sizeof(union peer_address), length);
        if (length == 0)
            continue;
        enter(book, (uint16_t)i);
        use(book, (uint16_t)i);
    }
}

static void set_peer(struct peer *peer, const struct sockaddr *name, uint16_t socket, uint64_t next)
{
    uint32_t length = length_of(name);

    store_relaxed(&peer->first, next);
    crash_point("peer:first");
    store_relaxed(&peer->length, 0);
    /* Pairs with the fence of peer_read. */
    atomic_thread_fence(memory_order_release);
    memcpy(&peer->address, name, length);
    peer->socket = socket;
    crash_point("peer:address");
    store_release(&peer->length, length);
}

uint16_t peer_find(struct peer_book *book, const struct sockaddr *name, uint16_t socket,
                   uint64_t next)
{
    uint32_t length = length_of(name);
    uint32_t at = bucket_of(name, length, socket);

    for (; book->bucket[at] != PEER_NOBODY; at = (at + 1) % PEER_BUCKETS) {
        uint16_t place = book->bucket[at];
        const struct peer *peer = &book->peers->peer[place];
        if (peer->socket == socket && load_relaxed(&peer->length) == length &&
            memcmp(&peer->address, name, length) == 0) {
            use(book, place);
            return place;
        }
    }
    uint16_t place = book->newer[PEERS_MAX];
    if (load_relaxed(&book->peers->peer[place].length))
        strike(book, place);
    set_peer(&book->peers->peer[place], name, socket, next);
    enter(book, place);
    use(book, place);
    return place;
}
