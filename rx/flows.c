/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/flows.h"

#include "rx/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- this process's own index ---- */

static uint32_t *head_of(const struct flows *flows, const struct decode_ends *ends)
{
    return &flows->chain[hash_ends(ends) & (flows->count - 1)];
}

static uint32_t *next_of(const struct flows *flows, uint32_t slot)
{
    return &flows->chain[flows->count + slot];
}

static void link_slot(const struct flows *flows, uint32_t *head, uint32_t slot)
{
    *next_of(flows, slot) = *head;
    *head = slot;
}

static void unlink_slot(const struct flows *flows, uint32_t *head, uint32_t slot)
{
    while (*head != slot)
        head = next_of(flows, *head);
    *head = *next_of(flows, slot);
}

/* Of both copies the later; a slot never used has the step 0 twice. */
static uint32_t newer(const struct flow_slot *slot)
{
    return load_relaxed(&slot->step[1]) > load_relaxed(&slot->step[0]);
}

uint32_t flows_find(const struct flows *flows, const struct decode_ends *ends)
{
    uint32_t at = *head_of(flows, ends);

    while (at != FLOWS_NONE && memcmp(&flows_at(flows, at)->ends, ends, sizeof(*ends)) != 0)
        at = *next_of(flows, at);
    return at;
}

const struct flow *flows_at(const struct flows *flows, uint32_t slot)
{
    return &flows->slot[slot].flow[newer(&flows->slot[slot])];
}

uint32_t flows_room(const struct flows *flows)
{
    uint64_t longest = UINT64_MAX;
    uint32_t found = flows->free;

    for (uint32_t i = 0; flows->free == FLOWS_NONE && i < flows->count; i++) {
        const struct flow_slot *slot = &flows->slot[i];
        uint64_t touched = load_relaxed(&slot->step[newer(slot)]);
        touched |= reassembly_ended(flows_at(flows, i)) ? 0 : 1ULL << 63;
        if (touched < longest) {
            longest = touched;
            found = i;
        }
    }
    return found;
}

/* ---- changes ---- */

void flows_store(struct flows *flows, uint32_t slot, const struct flow *flow, uint64_t step)
{
    struct flow_slot *at = &flows->slot[slot];
    uint32_t other = !newer(at);

    at->flow[other] = *flow;
    store_release(&at->step[other], step);
}

void flows_done(struct flows *flows, uint32_t slot, const struct flow *before)
{
    const struct flow *flow = flows_at(flows, slot);

    if (flow->open && before->open && memcmp(&flow->ends, &before->ends, sizeof(flow->ends)) == 0)
        return;
    unlink_slot(flows, before->open ? head_of(flows, &before->ends) : &flows->free, slot);
    link_slot(flows, flow->open ? head_of(flows, &flow->ends) : &flows->free, slot);
}

/* ---- open ---- */

static size_t slots_bytes(const struct flows_plan *plan)
{
    size_t bytes = plan->count * sizeof(struct flow_slot);

    return (bytes + PAGE_BYTES - 1) & ~((size_t)PAGE_BYTES - 1);
}

static int open_region(struct flows *flows, const struct flows_plan *plan)
{
    const uint64_t parts[] = {sizeof(struct flow_slot), offsetof(struct flow_slot, flow),
                              sizeof(struct flow), offsetof(struct flow, range)};
    const struct region_want want = {
        .kind = REGION_FLOWS,
        .layout = region_hash(parts, sizeof(parts) / sizeof(parts[0])),
        .epoch = plan->epoch,
        .geometry = {plan->count, plan->buffer_bytes, 0, 0},
        .size_min = PAGE_BYTES + slots_bytes(plan) + (size_t)plan->count * plan->buffer_bytes,
    };
    const struct region_place place = {.numa_node = -1, .huge = plan->huge};
    struct region_mismatch mismatch;

    return plan->memory >= 0
               ? region_attach(&flows->region, plan->memory, &want, true, &mismatch)
               : region_create(&flows->region, "tickline-flows", &want, &place, want.size_min);
}

/* What a predecessor has written for a step that was never done is to be forgotten: the next step has
 * that number again, and may be another flow's. */
static void find_flows(struct flows *flows, uint64_t done)
{
    for (uint32_t i = 0; i < 2 * flows->count; i++)
        flows->chain[i] = FLOWS_NONE;
    for (uint32_t i = flows->count; i-- > 0;) {
        struct flow_slot *slot = &flows->slot[i];
        for (uint32_t copy = 0; copy < 2; copy++) {
            if (load_acquire(&slot->step[copy]) > done) {
                slot->flow[copy].open = false;
                store_relaxed(&slot->step[copy], 0);
            }
        }
        const struct flow *flow = flows_at(flows, i);
        link_slot(flows, flow->open ? head_of(flows, &flow->ends) : &flows->free, i);
    }
}

int flows_open(struct flows *flows, const struct flows_plan *plan)
{
    *flows = (struct flows){
        .region.fd = -1,
        .count = plan->count,
        .buffer_bytes = plan->buffer_bytes,
        .free = FLOWS_NONE,
    };
    flows->chain = calloc(2 * (size_t)plan->count, sizeof(*flows->chain));
    int err = flows->chain ? open_region(flows, plan) : -ENOMEM;
    if (err < 0) {
        free(flows->chain);
        return err;
    }
    flows->slot = region_at(&flows->region, PAGE_BYTES);
    flows->buffers = region_at(&flows->region, PAGE_BYTES + slots_bytes(plan));
    find_flows(flows, plan->done);
    return 0;
}

void flows_close(struct flows *flows)
{
    free(flows->chain);
    region_close(&flows->region);
}
