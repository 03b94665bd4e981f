/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS_MAX = 4096, CHOICES = 2 };

/* A state on the present way, to come back to. */
struct level {
    struct state state;
    uint64_t hash;
    uint32_t next; /* choice to try: 2 * role, + 1 for its kill */
    uint32_t end;  /* of the choices */
    uint32_t chosen;
    bool moved; /* some role can go on */
    const char *label;
};

static const struct explore_model *model;
static struct explore_result *result;
static struct level level[LEVELS_MAX];
static uint32_t depth;

void explore_violated(const char *what)
{
    if (!result->violation)
        result->violation = what;
}

/* ---- states seen: a table of hashes, at most half full ---- */

static uint64_t *seen;
static uint64_t seen_mask;

static bool insert(uint64_t hash)
{
    uint64_t at = hash & seen_mask;

    for (; seen[at]; at = (at + 1) & seen_mask) {
        if (seen[at] == hash)
            return false;
    }
    seen[at] = hash;
    return true;
}

static bool is_new(uint64_t hash)
{
    if (2 * result->states > seen_mask) {
        uint64_t *old = seen;
        uint64_t size = seen_mask + 1;
        seen = calloc(2 * size, sizeof(*seen));
        seen_mask = 2 * size - 1;
        for (uint64_t i = 0; i < size; i++)
            old[i] ? (void)insert(old[i]) : (void)0;
        free(old);
    }
    bool added = insert(hash);
    result->states += added;
    return added;
}

/* ---- the search ---- */

static bool all_ended(void)
{
    for (uint32_t i = 0; i < model->roles; i++) {
        if (!role[i].ended)
            return false;
    }
    return true;
}

/* One choice from the present state; false where there is none. */
static bool choose(uint32_t choice)
{
    uint32_t number = choice / CHOICES;

    if (role[number].ended)
        return false;
    if (choice % CHOICES == 0) {
        state_step(number);
        result->steps++;
        return true;
    }
    if (state_kills == model->kills || !role[number].label)
        return false;
    state_kill(number);
    result->kills++;
    return true;
}

static void write_path(void)
{
    size_t used = 0;

    for (uint32_t i = 0; i < depth && used < sizeof(result->path); i++) {
        bool kill = level[i].chosen % CHOICES == 1;
        used += (size_t)snprintf(result->path + used, sizeof(result->path) - used, "%s %s\n",
                                 model->name[level[i].chosen / CHOICES],
                                 kill ? "is killed" : level[i].label);
    }
}

static void push(uint64_t hash)
{
    struct level *here = &level[depth];

    if (depth + 1 == LEVELS_MAX) {
        explore_violated("deeper than the explorer can go");
        return;
    }
    here->hash = hash;
    here->next = 0;
    here->end = CHOICES * model->roles;
    for (uint32_t i = 0; i < model->roles; i++) {
        if (role[i].quiet) {
            here->next = CHOICES * i;
            here->end = here->next + CHOICES;
            break;
        }
    }
    here->moved = false;
    state_save(&here->state);
    depth++;
}

/* Tries the next choice of the deepest level, or gives it up. */
static void advance(void)
{
    struct level *here = &level[depth - 1];

    if (here->next == here->end) {
        if (!here->moved)
            explore_violated("nobody can go on");
        depth--;
        return;
    }
    state_restore(&here->state);
    here->chosen = here->next++;
    if (!choose(here->chosen))
        return;
    here->label = role[here->chosen / CHOICES].label;
    uint64_t hash = state_hash();
    here->moved = here->moved || (here->chosen % CHOICES == 0 && hash != here->hash);
    if (result->violation || !is_new(hash))
        return;
    if (all_ended()) {
        result->executions++;
        model->ended();
        return;
    }
    push(hash);
}

void explore(const struct explore_model *what, struct explore_result *found)
{
    model = what;
    result = found;
    memset(result, 0, sizeof(*result));
    depth = 0;
    seen_mask = (1 << 16) - 1;
    seen = calloc(seen_mask + 1, sizeof(*seen));
    state_begin(model);
    (void)is_new(state_hash());
    push(state_hash());
    while (depth > 0 && !result->violation)
        advance();
    if (result->violation)
        write_path();
    for (uint32_t i = 0; i < LEVELS_MAX; i++) {
        free(level[i].state.image);
        level[i].state.image = NULL;
    }
    free(seen);
}
