/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/state.h"

#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define __asan_unpoison_memory_region(at, bytes) ((void)0)
#endif

static const struct explore_model *model;
struct role role[EXPLORE_ROLES_MAX];
uint32_t state_kills;
static struct role fresh[EXPLORE_ROLES_MAX];
static uint32_t running; /* EXPLORE_ROLES_MAX: none */
static jmp_buf scheduler;
static ucontext_t outside;

/* ---- coroutines ---- */

/* Its frame lies below all that its caller uses. */
__attribute__((noinline)) static uint8_t *stack_pointer(void)
{
    return __builtin_frame_address(0);
}

__attribute__((noinline)) static void give_way(void)
{
    struct role *mine = &role[running];

    mine->live = (size_t)(mine->stack + STACK_BYTES - stack_pointer());
    if (_setjmp(mine->resume) == 0)
        _longjmp(scheduler, 1);
}

void explore_yield(const char *label)
{
    if (running == EXPLORE_ROLES_MAX)
        return; /* a check of ours has come by */
    role[running].label = label;
    role[running].site = __builtin_return_address(0);
    role[running].quiet = !model->no_short_cuts && model->quiet(running, label);
    give_way();
}

static void begin(void)
{
    give_way(); /* here every fresh one begins */
    model->run(running);
    role[running].ended = true;
    explore_yield("ended");
}

__attribute__((noinline)) void state_step(uint32_t number)
{
    running = number;
    if (_setjmp(scheduler) == 0)
        _longjmp(role[number].resume, 1);
    __asan_unpoison_memory_region(role[number].stack, STACK_BYTES);
    running = EXPLORE_ROLES_MAX;
}

static void make_fresh(uint32_t number)
{
    ucontext_t context;

    memset(&role[number], 0, sizeof(role[number]));
    running = number;
    getcontext(&context);
    context.uc_stack.ss_sp = role[number].stack;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = NULL;
    makecontext(&context, begin, 0);
    if (_setjmp(scheduler) == 0)
        swapcontext(&outside, &context);
    __asan_unpoison_memory_region(role[number].stack, STACK_BYTES);
    running = EXPLORE_ROLES_MAX;
    fresh[number] = role[number];
    memset(model->private_of[number].at, 0, model->private_of[number].bytes);
}

void state_begin(const struct explore_model *what)
{
    model = what;
    state_kills = 0;
    for (uint32_t i = 0; i < model->roles; i++)
        make_fresh(i);
}

/* ---- states ---- */

#ifdef __SANITIZE_ADDRESS__
/* It need not know that a stack is copied. */
__attribute__((no_sanitize("address", "undefined"))) static uint8_t *copy(void *to,
                                                                          const void *from,
                                                                          size_t bytes)
{
    for (size_t i = 0; i < bytes / 8; i++)
        ((uint64_t *)to)[i] = ((const uint64_t *)from)[i];
    return (uint8_t *)to + bytes;
}
#else
static uint8_t *copy(void *to, const void *from, size_t bytes)
{
    return mempcpy(to, from, bytes);
}
#endif

static void copy_role(struct role *to, const struct role *from)
{
    size_t rest = sizeof(*from) - STACK_BYTES;
    size_t free_bytes = STACK_BYTES - from->live;

    copy(to->stack + free_bytes, from->stack + free_bytes, from->live);
    copy((uint8_t *)to + STACK_BYTES, (const uint8_t *)from + STACK_BYTES, rest);
}

void state_kill(uint32_t number)
{
    copy_role(&role[number], &fresh[number]);
    memset(model->private_of[number].at, 0, model->private_of[number].bytes);
    state_kills++;
}

static size_t memory_bytes(void)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < model->parts; i++)
        bytes += model->part[i].bytes;
    for (uint32_t i = 0; i < model->roles; i++)
        bytes += model->private_of[i].bytes;
    return bytes;
}

void state_save(struct state *state)
{
    if (!state->image)
        state->image = malloc(memory_bytes() + sizeof(role));
    struct role *roles = (struct role *)(void *)state->image;
    uint8_t *at = state->image + sizeof(role);
    for (uint32_t i = 0; i < model->roles; i++)
        copy_role(&roles[i], &role[i]);
    for (uint32_t i = 0; i < model->parts; i++)
        at = copy(at, model->part[i].at, model->part[i].bytes);
    for (uint32_t i = 0; i < model->roles; i++)
        at = copy(at, model->private_of[i].at, model->private_of[i].bytes);
    state->kills = state_kills;
}

void state_restore(const struct state *state)
{
    const struct role *roles = (const struct role *)(const void *)state->image;
    const uint8_t *at = state->image + sizeof(role);

    for (uint32_t i = 0; i < model->roles; i++)
        copy_role(&role[i], &roles[i]);
    for (uint32_t i = 0; i < model->parts; at += model->part[i++].bytes)
        copy(model->part[i].at, at, model->part[i].bytes);
    for (uint32_t i = 0; i < model->roles; at += model->private_of[i++].bytes)
        copy(model->private_of[i].at, at, model->private_of[i].bytes);
    state_kills = state->kills;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    return hash ^ (hash >> 32);
}

static uint64_t mix_memory(uint64_t hash, const struct explore_memory *memory)
{
    const uint64_t *word = memory->at;

    /* Two at a time: a step is little else. */
    uint64_t other = hash ^ 0xbf58476d1ce4e5b9ULL;
    for (size_t i = 0; i + 1 < memory->bytes / 8; i += 2) {
        hash = mix(hash, word[i]);
        other = mix(other, word[i + 1]);
    }
    return mix(hash, memory->bytes / 8 % 2 ? word[memory->bytes / 8 - 1] : 0) + other;
}

static uint64_t mix_stack(uint64_t hash, struct role *one)
{
    const struct explore_memory stack = {one->stack + STACK_BYTES - one->live, one->live};
    const struct explore_memory registers = {one->resume, sizeof(one->resume)};

    return mix_memory(mix_memory(hash, &stack), &registers);
}

uint64_t state_hash(void)
{
    uint64_t hash = state_kills + 1;

    for (uint32_t i = 0; i < model->parts; i++)
        hash = mix_memory(hash, &model->part[i]);
    for (uint32_t i = 0; i < model->roles; i++) {
        hash = mix_memory(hash, &model->private_of[i]);
        hash = mix(hash, (uint64_t)(uintptr_t)role[i].label);
        hash = mix(hash, (uint64_t)(uintptr_t)role[i].site);
        if (model->no_short_cuts)
            hash = mix_stack(hash, &role[i]);
    }
    return hash ? hash : 1;
}
