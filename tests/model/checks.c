/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/checks.h"

#include <string.h>

static const struct setup *setup;

/* The world outside remembers: */
static struct {
    uint64_t number[INPUTS_MAX]; /* given to each input */
    uint64_t out[INPUTS_MAX];    /* its parts that came out */
    uint64_t dropped;            /* a bit an input */
    uint64_t high[MODEL_WORKERS_MAX];
    uint64_t last[MODEL_WORKERS_MAX]; /* newest input that came out of each ring, + 1 */
} seen;

void check_begin(const struct setup *what, struct explore_model *model)
{
    setup = what;
    memset(&seen, 0, sizeof(seen));
    model->part[model->parts++] = (struct explore_memory){&seen, sizeof(seen)};
}

uint8_t check_kind(uint64_t input)
{
    switch (setup->inputs[input]) {
    case 'r':
        return RING_REJECTED;
    case 'f':
        return RING_FILTERED;
    default:
        return RING_REPLY;
    }
}

uint8_t check_parts(uint64_t input)
{
    return check_kind(input) == RING_REPLY ? (uint8_t)(setup->inputs[input] - '0') : 1;
}

static void want(bool right, const char *else_what)
{
    if (!right)
        explore_violated(else_what);
}

void check_given(uint64_t input, uint64_t number)
{
    want(!seen.number[input] || seen.number[input] == number, "an input got two numbers");
    for (uint64_t i = 0; i < INPUTS_MAX; i++)
        want(i == input || seen.number[i] != number, "a number was given to two inputs");
    seen.number[input] = number;
}

void check_dropped(uint64_t input)
{
    want(!(seen.dropped >> input & 1), "an input was dropped twice");
    seen.dropped |= 1ULL << input;
}

static void check_first(uint64_t ring, const struct ring_slot *slot)
{
    uint64_t input;

    memcpy(&input, slot->payload, sizeof(input));
    if (input >= strlen(setup->inputs)) {
        explore_violated("an output is of no input");
        return;
    }
    want(slot->request == seen.number[input], "an output has another input's number");
    want(slot->kind == check_kind(input) && slot->parts == check_parts(input),
         "an output is not what its input becomes");
    want(!(seen.dropped >> input & 1), "an input was dropped and came out");
    want(slot->part >= seen.out[input], "a part came out twice");
    want(slot->part <= seen.out[input], "a part is missing");
    uint64_t last = seen.last[ring];
    want(input + 1 >= last, "an output was overtaken");
    want(input + 1 == last || last == 0 || seen.out[last - 1] == check_parts(last - 1),
         "an output is not whole");
    seen.last[ring] = input + 1;
    seen.out[input]++;
}

void check_output(uint64_t ring, uint64_t position, const struct ring_slot *slot, uint64_t counted)
{
    want(position >= counted, "what was counted was sent again");
    want(position <= seen.high[ring], "an output was passed over");
    if (position < seen.high[ring])
        return; /* sent again after a kill: no more than are not counted */
    check_first(ring, slot);
    seen.high[ring]++;
    want(seen.high[ring] - counted <= setup->burst, "more than a burst may be repeated");
}

void check_end(const struct account *account)
{
    uint64_t inputs = strlen(setup->inputs);
    uint64_t published = 0;

    for (uint64_t i = 0; i < inputs; i++)
        want(seen.out[i] == (seen.dropped >> i & 1 ? 0 : check_parts(i)), "an input was lost");
    for (uint32_t i = 0; i < setup->workers; i++) {
        published += account->to_worker[i].published;
        want(account->to_worker[i].consumed == account->to_worker[i].published,
             "a request is in flight for ever");
        want(account->to_tx[i].consumed == account->to_tx[i].published,
             "an output is in flight for ever");
        want(account->counted[i] == account->to_tx[i].published,
             "outcomes are not the position of the ring");
    }
    want(account->issued == inputs, "not every input has a number");
    want(account->dropped == (uint64_t)__builtin_popcountll(seen.dropped),
         "a drop was counted twice, or not");
    want(account->issued == published + account->dropped, "issued is not published + dropped");
}
