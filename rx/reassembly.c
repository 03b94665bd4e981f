/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/reassembly.h"

#include "rx/hash.h"

#include <string.h>

/* ---- the buffer ---- */

static uint32_t place_of(const struct reassembly *reassembly, uint64_t position)
{
    return (uint32_t)(position & (reassembly->buffer_bytes - 1));
}

/* Of `length` bytes those in front of the circle's end. */
static uint32_t before_end(const struct reassembly *reassembly, uint32_t place, uint32_t length)
{
    uint32_t room = reassembly->buffer_bytes - place;

    return length < room ? length : room;
}

void reassembly_write(const struct reassembly *reassembly, uint64_t position, const uint8_t *data,
                      uint32_t length)
{
    uint32_t place = place_of(reassembly, position);
    uint32_t first = before_end(reassembly, place, length);

    memcpy(reassembly->buffer + place, data, first);
    memcpy(reassembly->buffer, data + first, length - first);
}

const uint8_t *reassembly_view(const struct reassembly *reassembly, uint64_t position,
                               uint32_t length, uint8_t *scratch)
{
    uint32_t place = place_of(reassembly, position);
    uint32_t first = before_end(reassembly, place, length);

    if (first == length)
        return reassembly->buffer + place;
    memcpy(scratch, reassembly->buffer + place, first);
    memcpy(scratch + first, reassembly->buffer, length - first);
    return scratch;
}

/* `length` bytes that came again, and the first of which are here. */
static void compare(const struct reassembly *reassembly, uint64_t position, const uint8_t *data,
                    uint32_t length)
{
    struct tap_counts *counts = reassembly->counts;
    uint32_t place = place_of(reassembly, position);

    counts->retransmitted_bytes += length;
    for (uint32_t i = 0; i < length; i++)
        counts->differing_bytes +=
            data[i] != reassembly->buffer[(place + i) & (reassembly->buffer_bytes - 1)];
}

/* ---- ranges ---- */

static void remove_ranges(struct flow *flow, uint32_t at, uint32_t count)
{
    memmove(&flow->range[at], &flow->range[at + count],
            (flow->ranges - at - count) * sizeof(flow->range[0]));
    flow->ranges = (uint8_t)(flow->ranges - count);
}

/* Keeps what is new of [begin, begin + length); false where it would be one range too many. */
static bool hold(struct reassembly *reassembly, struct flow *flow, uint64_t begin,
                 const uint8_t *data, uint32_t length)
{
    uint64_t end = begin + length, at = begin;
    uint32_t first = 0, last = 0;

    /* Those from `first` to before `last` overlap it or touch it: they become one with it. */
    for (uint32_t i = 0; i < flow->ranges; i++) {
        first += flow->range[i].end < begin;
        last += flow->range[i].begin <= end;
    }
    if (first == last && flow->ranges == REASSEMBLY_RANGES_MAX)
        return false;
    struct range merged = {begin, end};
    for (uint32_t i = first; i < last; i++) {
        const struct range *range = &flow->range[i];
        uint64_t low = range->begin > begin ? range->begin : begin;
        uint64_t high = range->end < end ? range->end : end;
        if (low < high) {
            reassembly_write(reassembly, at, data + (at - begin), (uint32_t)(low - at));
            compare(reassembly, low, data + (low - begin), (uint32_t)(high - low));
            at = high;
        }
        merged.begin = range->begin < merged.begin ? range->begin : merged.begin;
        merged.end = range->end > merged.end ? range->end : merged.end;
    }
    reassembly_write(reassembly, at, data + (at - begin), (uint32_t)(end - at));
    if (first == last) {
        memmove(&flow->range[first + 1], &flow->range[first],
                (flow->ranges - first) * sizeof(flow->range[0]));
        flow->ranges++;
    } else {
        remove_ranges(flow, first + 1, last - first - 1);
    }
    flow->range[first] = merged;
    return true;
}

static int deliver_first_range(struct reassembly *reassembly, struct flow *flow)
{
    uint32_t length = (uint32_t)(flow->range[0].end - flow->range[0].begin);

    remove_ranges(flow, 0, 1);
    return reassembly->piece(reassembly->self, flow, NULL, length);
}

/* Goes on at `position` or at the first range, whichever comes first. */
static int give_up_gap(struct reassembly *reassembly, struct flow *flow, uint64_t position)
{
    bool held = flow->ranges && flow->range[0].begin <= position;
    uint64_t to = held ? flow->range[0].begin : position;

    reassembly->counts->gaps++;
    reassembly->counts->gap_bytes += to - flow->next;
    reassembly->gap(reassembly->self, flow);
    flow->next = flow->begun = to;
    int err = held ? deliver_first_range(reassembly, flow) : 0;
    return err < 0 ? err : REASSEMBLY_AGAIN;
}

int reassembly_give_up(struct reassembly *reassembly, struct flow *flow)
{
    return give_up_gap(reassembly, flow, flow->range[0].begin);
}

/* ---- segments ---- */

/* The position next to flow->next that has this sequence number. */
static uint64_t position_of(const struct flow *flow, uint32_t sequence)
{
    return flow->next + (uint64_t)(int64_t)(int32_t)(sequence - (uint32_t)flow->next);
}

void reassembly_begin(struct flow *flow, const struct decoded *segment)
{
    bool whole = segment->flags & TCP_SYN;

    *flow = (struct flow){
        .ends = segment->ends,
        .hash = (uint16_t)hash_ends(&segment->ends),
        .open = true,
        .seeking = !whole,
    };
    /* A lap from zero, so that a segment from before the first has a position, too. */
    flow->initial = (1ULL << 32) + (uint32_t)(segment->sequence + whole);
    flow->next = flow->begun = flow->initial;
}

bool reassembly_is_new(const struct flow *flow, const struct decoded *segment)
{
    bool syn = segment->flags & TCP_SYN;

    if (!reassembly_ended(flow))
        return syn && segment->sequence + 1 != (uint32_t)flow->initial;
    uint64_t at = position_of(flow, segment->sequence);
    return syn || at < flow->initial || at + segment->length > flow->fin;
}

/* Data that begin at flow->next; ranges that stand in them came first. */
static int take_in_order(struct reassembly *reassembly, struct flow *flow, const uint8_t *data,
                         uint32_t length)
{
    while (length > 0) {
        uint64_t room = flow->ranges ? flow->range[0].begin - flow->next : length;
        uint32_t fresh = room < length ? (uint32_t)room : length;
        int err = fresh ? reassembly->piece(reassembly->self, flow, data, fresh) : 0;
        if (err < 0)
            return err;
        data += fresh;
        length -= fresh;
        if (!flow->ranges || flow->range[0].begin > flow->next)
            break;
        uint64_t stand = flow->range[0].end - flow->next;
        uint32_t again = stand < length ? (uint32_t)stand : length;
        compare(reassembly, flow->next, data, again);
        data += again;
        length -= again;
        err = deliver_first_range(reassembly, flow);
        if (err < 0)
            return err;
    }
    return 0;
}

int reassembly_take(struct reassembly *reassembly, struct flow *flow, const struct decoded *segment)
{
    uint32_t length = segment->length, syn = segment->flags & TCP_SYN ? 1 : 0;
    const uint8_t *data = segment->data;
    uint64_t at = position_of(flow, segment->sequence + syn);

    if (segment->flags & TCP_FIN) {
        flow->has_fin = true;
        flow->fin = at + length;
    }
    if (length && at > flow->next) {
        if (at + length - flow->next > reassembly->reorder_bytes ||
            !hold(reassembly, flow, at, data, length))
            return give_up_gap(reassembly, flow, at);
        reassembly->counts->out_of_order++;
        return 0;
    }
    if (at < flow->next) {
        uint64_t old = flow->next - at < length ? flow->next - at : length;
        reassembly->counts->retransmitted_bytes += old;
        data += old;
        length -= (uint32_t)old;
    }
    return take_in_order(reassembly, flow, data, length);
}
