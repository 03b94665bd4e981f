/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/follow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t power_of_two(uint32_t at_least)
{
    uint32_t power = 1;

    while (power < at_least)
        power *= 2;
    return power;
}

int follow_open(struct follow *follow, const struct follow_plan *plan)
{
    uint32_t beyond =
        plan->reorder_bytes > SEGMENT_BYTES_MAX ? plan->reorder_bytes : SEGMENT_BYTES_MAX;
    const struct flows_plan flows = {
        .count = power_of_two(2 * plan->connections),
        .buffer_bytes = power_of_two(plan->keep_bytes + beyond),
        .huge = plan->huge,
        .epoch = plan->epoch,
        .done = plan->done,
        .memory = plan->memory,
    };

    follow->reassembly = (struct reassembly){
        .keep_bytes = plan->keep_bytes,
        .reorder_bytes = plan->reorder_bytes,
        .buffer_bytes = flows.buffer_bytes,
        .counts = plan->counts,
        .piece = stream_piece,
        .gap = stream_gap,
        .self = &follow->stream,
    };
    follow->stream = (struct stream){
        .schema = plan->schema,
        .reassembly = &follow->reassembly,
        .scratch = malloc(flows.buffer_bytes),
        .put = plan->put,
        .self = plan->self,
    };
    follow->slot = FLOWS_NONE;
    follow->flushed = 0;
    return follow->stream.scratch ? flows_open(&follow->flows, &flows) : -ENOMEM;
}

void follow_close(struct follow *follow)
{
    flows_close(&follow->flows);
    free(follow->stream.scratch);
}

/* The slot whose flow is changed by this step. */
static void change_flow(struct follow *follow, uint32_t slot)
{
    follow->slot = slot;
    follow->before = flows_at(&follow->flows, slot);
    follow->flow = *follow->before;
    follow->reassembly.buffer = flows_buffer(&follow->flows, slot);
}

static void begin_flow(struct follow *follow, const struct decoded *segment)
{
    struct tap_counts *counts = follow->reassembly.counts;
    const struct flow *flow = &follow->flow;

    if (flow->open && memcmp(&flow->ends, &segment->ends, sizeof(segment->ends)) != 0)
        counts->evicted += !reassembly_ended(flow);
    counts->flows++;
    reassembly_begin(&follow->flow, segment);
}

/* A segment that says something of a flow that is known. */
static int take_known(struct follow *follow, uint32_t slot, const struct decoded *segment)
{
    bool reset = segment->flags & TCP_RST;

    change_flow(follow, slot);
    bool ends = reset || reassembly_is_new(&follow->flow, segment);
    if (ends && follow->flow.ranges)
        return reassembly_give_up(&follow->reassembly, &follow->flow);
    if (reset) {
        follow->flow.open = false;
        return 0;
    }
    if (ends)
        begin_flow(follow, segment);
    return reassembly_take(&follow->reassembly, &follow->flow, segment);
}

int follow_segment(struct follow *follow, const struct decoded *segment)
{
    bool speaks = segment->length || segment->flags & TCP_SYN;
    uint32_t slot = flows_find(&follow->flows, &segment->ends);
    int err = 0;

    if (slot != FLOWS_NONE && (speaks || segment->flags & (TCP_RST | TCP_FIN))) {
        err = take_known(follow, slot, segment);
    } else if (slot == FLOWS_NONE && speaks && !(segment->flags & TCP_RST)) {
        change_flow(follow, flows_room(&follow->flows));
        begin_flow(follow, segment);
        err = reassembly_take(&follow->reassembly, &follow->flow, segment);
    }
    follow->reassembly.counts->segments += err == 0;
    return err;
}

int follow_flush(struct follow *follow)
{
    for (; follow->flushed < follow->flows.count; follow->flushed++) {
        const struct flow *flow = flows_at(&follow->flows, follow->flushed);
        if (!flow->open || !flow->ranges)
            continue;
        change_flow(follow, follow->flushed);
        return reassembly_give_up(&follow->reassembly, &follow->flow);
    }
    return 0;
}

void follow_store(struct follow *follow, uint64_t step)
{
    if (follow->slot != FLOWS_NONE)
        flows_store(&follow->flows, follow->slot, &follow->flow, step);
}

void follow_done(struct follow *follow)
{
    if (follow->slot != FLOWS_NONE)
        flows_done(&follow->flows, follow->slot, follow->before);
}
