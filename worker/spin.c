/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spin: takes a known time over each request and answers with its payload unchanged. What the lab
 * measures of it can be compared with what must come out.
 *
 *   [handler.spin]
 *   time = 20us               100ns to 10ms, from the handler's first instruction to its last
 *   distribution = constant   constant, exponential (time is the mean) or bimodal
 *   slow = 200us              bimodal: the other time,
 *   slow_share = 1%           and how many requests take it
 *   seed = 1
 *
 * The time of a request follows from the seed and the id alone (harness/ticklab/reference_spin.py has
 * the same):
 *
 *   x = mix(mix(seed) + id)           mix: a step of SplitMix64 (worker/mix.h)
 *   u = (x >> 11) / 2^53              0 <= u < 1
 *   constant     time
 *   exponential  round(-log(1 - u) * time), at most 37 times `time`
 *   bimodal      slow where u < slow_share, else time
 */
#include "shm/lane.h"
#include "worker/load.h"
#include "worker/mix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SPIN_NS_MIN = 100, SPIN_NS_MAX = 10000000 };
enum distribution { CONSTANT, EXPONENTIAL, BIMODAL };

struct spin {
    uint64_t ticks;
    uint64_t slow_ticks;
    uint64_t time_ns;
    uint64_t seed; /* mixed already */
    double ticks_per_ns;
    double slow_share;
    uint32_t distribution;
};

static uint64_t ticks_of(const struct spin *spin, uint64_t id)
{
    if (spin->distribution == CONSTANT)
        return spin->ticks;
    double u = (double)(mix(spin->seed + id) >> 11) * 0x1p-53;
    if (spin->distribution == BIMODAL)
        return u < spin->slow_share ? spin->slow_ticks : spin->ticks;
    return (uint64_t)(round(-log(1 - u) * (double)spin->time_ns) * spin->ticks_per_ns);
}

static int32_t spin_init(struct tickline_context *context)
{
    struct spin *spin = calloc(1, sizeof(*spin));
    uint64_t slow_ns = 0;

    if (!spin)
        return context->fail(context, NULL, "out of memory");
    context->self = spin;
    spin->ticks_per_ns = context->ticks_per_second / 1e9;
    if (context->time(context, "time", "20us", SPIN_NS_MIN, SPIN_NS_MAX, &spin->time_ns) < 0 ||
        context->word(context, "distribution", "constant", "constant|exponential|bimodal",
                      &spin->distribution) < 0 ||
        context->time(context, "slow", "200us", SPIN_NS_MIN, SPIN_NS_MAX, &slow_ns) < 0 ||
        context->share(context, "slow_share", "1%", &spin->slow_share) < 0 ||
        context->count(context, "seed", "1", 0, INT64_MAX, &spin->seed) < 0)
        return -1;
    spin->seed = mix(spin->seed);
    spin->ticks = (uint64_t)((double)spin->time_ns * spin->ticks_per_ns);
    spin->slow_ticks = (uint64_t)((double)slow_ns * spin->ticks_per_ns);
    return 0;
}

/* Without `pause`: a virtual CPU may be taken away at one, and the time is to be known. */
static int32_t spin_handle(struct tickline_context *context, const struct tickline_request *request,
                           uint8_t *reply, uint32_t capacity)
{
    uint64_t begin = tsc_read();

    if (request->length > capacity)
        return TICKLINE_REPLY_TOO_BIG;
    uint64_t ticks = ticks_of(context->self, request->id);
    memcpy(reply, request->payload, request->length);
    while (tsc_read() - begin < ticks)
        ;
    return (int32_t)request->length;
}

static void spin_fini(struct tickline_context *context)
{
    free(context->self);
}

const struct tickline_handler handler_spin = {
    .abi = TICKLINE_HANDLER_ABI,
    .name = "spin",
    .summary = "takes a known time and answers with the payload unchanged",
    .init = spin_init,
    .handle = spin_handle,
    .fini = spin_fini,
};
