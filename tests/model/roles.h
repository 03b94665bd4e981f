/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small pipeline on real rings, for the explorer: rx, one or two workers, tx, as the stages treat
 * their rings, and the checks of what comes out.
 *
 *   rx      the batch lies in shared memory; a number is stored (`issued`) before it is used, then
 *           the request is published, or counted as dropped where the ring is full. A successor
 *           knows by issued - published - dropped (0 or 1) which request to do again.
 *   worker  each input makes one output or several parts, also where it is rejected or filtered;
 *           goes on by ring_resume
 *   tx      sends a burst, counts each output in the ring's order, then commits; a successor begins
 *           at what is counted
 *
 * Checked at every step: no number for two inputs and no input with two numbers; outputs are of the
 * input that they name, complete, in order, without a gap; what is counted is never sent again, and
 * no more than a burst is. At the end: each input either came out whole or is counted as dropped,
 * and every count is the difference of positions that it should be.
 */
#ifndef TICKLINE_TESTS_MODEL_ROLES_H
#define TICKLINE_TESTS_MODEL_ROLES_H

#include "tests/model/explore.h"

enum { INPUTS_MAX = 5, MODEL_WORKERS_MAX = 2 };

/* Rules broken on purpose: the checks must notice each of them. */
enum broken_rule {
    RULES_KEPT,
    RESUMES_FROM_TAIL, /* worker: without a look at its output */
    CLAIMS_A_LAP,      /* worker: over the slot by which a successor finds its place */
    COMMITS_FIRST,     /* worker: gives an input back before its output is published */
    COUNTS_LATE,       /* tx: after the tail has moved */
    IGNORES_COUNTED,   /* tx: begins at the tail alone */
    ISSUES_LATE,       /* rx: stores the number after the publish */
    NEVER_REDOES,      /* rx: goes on behind the number that was issued last */
    ASKS_LATE,         /* worker: asks whether rx has ended after it found its ring empty */
};

struct setup {
    const char *inputs; /* a digit: a reply of so many parts; r: rejected, f: filtered */
    uint32_t workers;
    uint32_t depth; /* of each ring */
    uint32_t burst; /* of worker and tx */
    bool together;  /* a worker publishes all parts of an output at once */
    bool drop;      /* rx: a full ring drops; else rx waits */
    uint32_t kills;
    bool no_short_cuts; /* see explore.h */
    enum broken_rule broken;
};

/* Explores this pipeline; its memory is made and given back. */
void explore_pipeline(const struct setup *setup, struct explore_result *result);

#endif
