/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All interleavings of a few roles, with kills anywhere.
 *
 * A role is a function that runs as a coroutine and gives way at every crash point of the code it
 * calls (explore_yield is the hook) and wherever it says so itself. From each state the explorer lets each role
 * take its next step, or kills it: its private memory is zeroed and it begins anew. States seen
 * before are not explored again. A state is: the memory that the model names, what is private to
 * each role, where each role gave way, and the kills that are left. So a role keeps whatever lives
 * across a step in its private memory, not in locals of its own.
 *
 * A label is quiet where the step that follows touches nothing that another role sees. Such a step
 * commutes with all of theirs: it, or the role's kill, is taken at once, without interleaving.
 *
 * Both are short cuts. With `no_short_cuts` quiet labels are as good as others, and stacks and
 * registers belong to the state: slower, and it must come to the same ends.
 *
 * Depth first; a state is gone back to by copying memory and stacks back.
 */
#ifndef TICKLINE_TESTS_MODEL_EXPLORE_H
#define TICKLINE_TESTS_MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPLORE_ROLES_MAX = 4, EXPLORE_PARTS_MAX = 24, EXPLORE_PATH_MAX = 8192 };

struct explore_memory {
    void *at;
    size_t bytes; /* a multiple of 8 */
};

struct explore_model {
    uint32_t roles;
    uint32_t kills; /* at most so many in one execution */
    bool no_short_cuts;
    const char *name[EXPLORE_ROLES_MAX];
    void (*run)(uint32_t role);
    struct explore_memory private_of[EXPLORE_ROLES_MAX];
    struct explore_memory part[EXPLORE_PARTS_MAX]; /* shared memory, and what the checks keep */
    uint32_t parts;
    bool (*quiet)(uint32_t role, const char *label);
    void (*ended)(void); /* all roles have returned: the checks of the end */
};

struct explore_result {
    uint64_t states;
    uint64_t steps; /* taken, those into states seen before included */
    uint64_t kills;
    uint64_t executions;         /* ways that came to their end */
    const char *violation;       /* the first; exploring ends there */
    char path[EXPLORE_PATH_MAX]; /* that led to it: a line a step */
};

/* Explores everything that can follow from the present content of memory. */
void explore(const struct explore_model *model, struct explore_result *result);

/* For roles: gives way here. */
void explore_yield(const char *label);

/* For roles and checks: a rule is broken. */
void explore_violated(const char *what);

#endif
