/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequence numbers of market data feeds: what is missing, counted by rx from the numbers alone. Part of
 * the cells, so that a successor goes on.
 *
 * A feed is a channel of a protocol. Its messages are numbered from 1 within a session; a datagram says its
 * session, the number of its first message and how many there are.
 *
 *   first > next          a gap: first - next messages are missing
 *   first < next          repeated: they came before, or were counted as missing and come late
 *   another session, or   a reset: the feed begins anew with this datagram
 *   first <= the first number it began with, and no copy of the newest datagram
 *
 * Each feed has two copies of its figures; `version` (release) says which holds, so a kill leaves one or
 * the other. A datagram has rx's number of it, and changes the figures once, however often it is noted.
 * Feeds beyond FEEDS_MAX share the last entry, which counts messages alone.
 */
#ifndef TICKLINE_SHM_FEED_H
#define TICKLINE_SHM_FEED_H

#include "shm/atomic.h"

#include <stdbool.h>

enum { FEEDS_MAX = 16 };

struct feed_figures {
    uint64_t datagram; /* rx's number of the newest */
    uint16_t protocol;
    uint32_t channel;
    uint32_t session;
    uint64_t began;  /* number of the first message since the last reset */
    uint64_t newest; /* and of the newest datagram's first */
    uint64_t next;   /* expected */
    uint64_t messages;
    uint64_t gaps;
    uint64_t missing;
    uint64_t repeated;
    uint64_t resets;
};

struct feed {
    _Atomic uint64_t
        version; /* changes so far; 0: no feed. rx, release; pairs with feed_read's acquire */
    struct feed_figures figures[2]; /* [version % 2] holds */
};

struct feeds {
    struct feed feed[FEEDS_MAX + 1];
};

/* What a datagram says of its feed. */
struct feed_datagram {
    uint64_t number; /* rx's: 1, 2 … */
    uint64_t first;  /* number of its first message, or of the next one where it has none */
    uint32_t messages;
    uint32_t channel;
    uint32_t session;
    uint16_t protocol;
};

/* rx. */
void feed_note(struct feeds *feeds, const struct feed_datagram *datagram);

/* Whoever looks on: a consistent copy; false where entry `index` has no feed. */
bool feed_read(const struct feeds *feeds, uint32_t index, struct feed_figures *figures);

#endif
