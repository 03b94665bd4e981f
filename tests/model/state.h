/* SPDX-License-Identifier: Apache-2.0 */
/* The explorer's present state: roles as coroutines, and how to keep it and come back to it. */
#ifndef TICKLINE_TESTS_MODEL_STATE_H
#define TICKLINE_TESTS_MODEL_STATE_H

#include "tests/model/explore.h"

#include <setjmp.h>

enum { STACK_BYTES = 16384 };

/* A role where it gave way, or before its first step (`label` NULL). */
struct role {
    _Alignas(16) uint8_t stack[STACK_BYTES];
    jmp_buf resume;
    const char *label;
    const void *site; /* who gave way */
    bool quiet;
    size_t live; /* bytes of the stack in use, from its end */
    bool ended;
};

/* A copy of all that a step may change; `image` is made by the first save, and the caller frees it. */
struct state {
    uint8_t *image;
    uint32_t kills;
};

extern struct role role[EXPLORE_ROLES_MAX];
extern uint32_t state_kills; /* so far */

/* All roles before their first step. */
void state_begin(const struct explore_model *model);

/* The role runs to the next place where it gives way. */
void state_step(uint32_t number);

/* What it knew for itself is gone; its next step is its first. */
void state_kill(uint32_t number);

void state_save(struct state *state);
void state_restore(const struct state *state);

/* Never 0. */
uint64_t state_hash(void);

#endif
