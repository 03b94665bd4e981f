/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rx keeps about a tap (rx.source = packet), outside of itself: how far it is, and what it has
 * counted. Deposited with the launcher as "rx.tapped".
 *
 * rx goes in steps, one a frame. `done` counts them; everything that a step changes is written beside what
 * stands, and becomes true by the one store of `done` (release): step[done % 2] is the state after that
 * many steps. A successor begins the step that was not done again.
 *
 *   page 0 region header | page 1 struct tapped
 */
#ifndef TICKLINE_SHM_TAP_H
#define TICKLINE_SHM_TAP_H

#include "shm/region.h"

#include <stdbool.h>

/* X(name, what is counted). Also the order in counters.json. */
#define TAP_COUNTS(X)                                                                              \
    X(frames, "frames taken off the interface")                                                    \
    X(bytes, "bytes of datagrams and segments taken, without their headers")                       \
    X(other, "frames to nobody in rx.bind, and of other protocols")                                \
    X(fragments, "pieces of IP packets, which are not put together")                               \
    X(bad_length, "frames whose lengths contradict each other, or that are cut")                   \
    X(datagrams, "UDP datagrams taken")                                                            \
    X(segments, "TCP segments taken")                                                              \
    X(out_of_order, "segments that came before the one in front of them")                          \
    X(retransmitted_bytes, "bytes that came again")                                                \
    X(differing_bytes, "of those, bytes that were not what they had been")                         \
    X(gaps, "places where a stream was gone on with behind bytes that never came")                 \
    X(gap_bytes, "bytes that never came")                                                          \
    X(skipped_bytes, "bytes that came and belong to no request")                                   \
    X(flows, "directions of TCP connections seen")                                                 \
    X(evicted, "flows whose place was taken by another")

struct tap_counts {
#define X(name, what) uint64_t name;
    TAP_COUNTS(X)
#undef X
};

/* The state after a step. */
struct tap_step {
    uint64_t issued; /* request numbers */
    uint64_t block; /* of the kernel's ring: where the next frame is, counted from the first ever */
    uint64_t frame; /* in that block */
    uint64_t flushing; /* 1: no more frames are taken, what is held behind gaps is given up */
    struct tap_counts counts;
};

struct tapped {
    /* rx */
    _Alignas(
        LINE_PAIR_BYTES) _Atomic uint64_t done; /* release, pairs with the launcher's acquire */
    _Alignas(LINE_PAIR_BYTES) struct tap_step step[2];

    /* launcher: what the kernel counts for the socket, since it began (each reading of it clears it
     * there) */
    _Alignas(LINE_PAIR_BYTES) uint64_t packets; /* dropped ones too */
    uint64_t drops;
};

enum { TAPPED_OFFSET = PAGE_BYTES };

struct region_want tapped_want(uint64_t epoch);
int tapped_create(struct region *region, uint64_t epoch);

static inline struct tapped *tapped_of(const struct region *region)
{
    return (struct tapped *)region_at(region, TAPPED_OFFSET);
}

/* A state that once was, read while rx goes on. -EAGAIN: it goes too fast to be read. */
int tapped_read(const struct tapped *tapped, struct tap_step *step);

#endif
