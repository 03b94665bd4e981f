/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays a part of a script: every operation at its planned time, whatever became of those before it.
 *
 * An open loop: a write that the kernel does not take now keeps its place in the queue of its
 * connection, and all other connections go on. What is planned is never moved by what is late, so latency
 * can be counted from the plan. Operations of a connection that is broken are not done.
 */
#ifndef TICKLINE_HARNESS_CLIENT_PLAY_H
#define TICKLINE_HARNESS_CLIENT_PLAY_H

#include "client_link.h"
#include "client_script.h"

#include <stdbool.h>

struct pace {
    double factor; /* times as fast as captured; 0: by `gap_ns` */
    double gap_ns; /* between one write and the next; 0: as fast as it goes */
};

#define PLAY_NOT_DONE INT64_MIN

/* wire/sent.bin, little-endian, an operation each. */
struct play_record {
    int64_t planned_ns; /* from the begin of the replay */
    int64_t done_ns;    /* as struct play has it */
};
_Static_assert(sizeof(struct play_record) == 16, "sent.bin has 16 bytes an operation");

struct play {
    const struct script *script;
    struct links *links;
    int64_t *done_ns; /* of each operation, from the begin: when its last byte was given to the
                         kernel, PLAY_NOT_DONE: never */
    struct pace pace;
    uint32_t first, end; /* operations of this part */
    uint32_t due;        /* the first that is not due yet */
    uint32_t settled;    /* done, or never to be */
    uint32_t sent;       /* writes done */
    uint64_t writes;     /* due so far, for a pace in writes a second */
    uint64_t begun_ns;   /* MONOTONIC of the planned time 0 */
    uint64_t real_ns;    /* the same moment in REALTIME */
    uint64_t ended_ns;   /* MONOTONIC of the last operation done */
    bool playing;
};

/* 0 or -ENOMEM. Takes the links' `ready`. */
int play_init(struct play *play, const struct script *script, struct links *links);
void play_free(struct play *play);

/* Opens what must be open before this part begins, and counts anew what becomes of each connection. All
 * are open once play_waits() is 0. */
void play_connect(struct play *play, uint32_t first, uint32_t count);

/* How many connections are not open yet. */
uint32_t play_waits(const struct play *play);

/* Begins to play `count` operations from `first`. */
void play_begin(struct play *play, uint32_t first, uint32_t count, struct pace pace);

/* Does what is due, a bounded number of operations. Did it do any? Ends the playing where all are settled. */
bool play_turn(struct play *play);

/* What became of each operation of the part played last: `end - first` records. */
void play_tell(const struct play *play, struct play_record *records);

/* What is not done yet is never done. */
void play_halt(struct play *play);

#endif
