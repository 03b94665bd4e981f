/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/checks.h"
#include "tests/model/line.h"

#include <string.h>

enum { RX = 0, WORKER = 1 };

static bool breaks(enum broken_rule rule)
{
    return line.setup->broken == rule;
}

static void attach_producer(struct ring_producer *producer, const struct region *region)
{
    struct region_mismatch mismatch;

    if (ring_producer_attach(producer, region, &mismatch) < 0)
        explore_violated("a ring could not be attached");
}

static void attach_consumer(struct ring_consumer *consumer, const struct region *region)
{
    struct region_mismatch mismatch;

    if (ring_consumer_attach(consumer, region, &mismatch) < 0)
        explore_violated("a ring could not be attached");
}

static void count(_Atomic uint64_t *word)
{
    store_release(word, load_relaxed(word) + 1);
}

/* ---- rx ---- */

static void put_request(struct memory *my, _Atomic uint64_t *issued)
{
    uint64_t worker = my->input % line.setup->workers;
    struct ring_producer *ring = &my->out[worker];
    struct ring_slot *slot;

    while ((slot = ring_claim(ring)) == NULL && !line.setup->drop)
        continue; /* gives way in each refresh */
    my->flag = slot != NULL;
    if (my->n)
        my->n = 0; /* issued already, by a predecessor */
    else if (++my->issued && !breaks(ISSUES_LATE))
        store_relaxed(issued, my->issued);
    explore_yield("rx:issued");
    check_given(my->input, my->issued);
    if (!my->flag) {
        count(&line.cells->dropped[worker]);
        check_dropped(my->input);
        explore_yield("rx:dropped");
    } else {
        slot = ring_slot_at(ring->slots, ring->mask, ring->slot_bytes, ring->next - 1);
        slot->source = slot->request = my->issued;
        slot->kind = RING_REQUEST;
        slot->part = 0;
        slot->parts = 1;
        slot->length = sizeof(my->input);
        memcpy(slot->payload, &my->input, sizeof(my->input));
        ring_publish(ring);
    }
    if (breaks(ISSUES_LATE))
        store_relaxed(issued, my->issued);
}

static void run_rx(struct memory *my)
{
    _Atomic uint64_t *issued = &line.cells->cell[CELL_RX].issued;

    for (my->ring = 0; my->ring < line.setup->workers; my->ring++) {
        attach_producer(&my->out[my->ring], &line.to_worker[my->ring]);
        my->input += my->out[my->ring].head - my->out[my->ring].start;
        my->input += load_relaxed(&line.cells->dropped[my->ring]);
    }
    my->issued = load_relaxed(issued);
    my->n = my->issued - my->input;
    if (my->n > 1 && !breaks(ISSUES_LATE))
        explore_violated("rx: more than one number was issued and not used");
    if (breaks(NEVER_REDOES)) {
        my->input += my->n;
        my->n = 0;
    }
    for (; my->input < strlen(line.setup->inputs); my->input++)
        put_request(my, issued);
    explore_yield("rx:all_put");
    line.ended.rx = 1;
}

/* ---- worker ---- */

static void fill_output(const struct memory *my, struct ring_slot *slot, const struct ring_slot *in)
{
    uint64_t input;

    memcpy(&input, in->payload, sizeof(input));
    slot->source = my->in[0].next;
    slot->request = in->request;
    slot->kind = check_kind(input);
    slot->part = (uint8_t)my->part;
    slot->parts = check_parts(input);
    slot->length = sizeof(input);
    memcpy(slot->payload, &input, sizeof(input));
}

/* A slot for the next part; gives its burst back while it waits. */
static struct ring_slot *claim(struct memory *my)
{
    struct ring_producer *out = &my->out[0];
    struct ring_slot *slot;
    uint64_t most = line.setup->depth - (breaks(CLAIMS_A_LAP) ? 0 : 1);

    if (out->next - out->head == most)
        ring_publish(out);
    while ((slot = ring_claim(out)) == NULL) {
        if (out->next != out->head)
            ring_publish(out);
        if (my->n)
            ring_commit(&my->in[0]);
        my->n = 0;
    }
    return slot;
}

static void take_request(struct memory *my, const struct ring_slot *in)
{
    uint64_t input;

    memcpy(&input, in->payload, sizeof(input));
    if (breaks(COMMITS_FIRST))
        ring_commit_to(&my->in[0], my->in[0].next + 1);
    for (; my->part < check_parts(input); my->part++) {
        struct ring_slot *slot = claim(my);
        fill_output(my, slot, in);
        if (!line.setup->together)
            ring_publish(&my->out[0]);
    }
    if (line.setup->together)
        ring_publish(&my->out[0]);
    my->part = 0;
    ring_next(&my->in[0]);
    my->n++;
}

static void run_worker(struct memory *my, uint32_t number)
{
    const struct ring_slot *in;

    attach_consumer(&my->in[0], &line.to_worker[number]);
    attach_producer(&my->out[0], &line.to_tx[number]);
    if (!breaks(RESUMES_FROM_TAIL))
        my->part = ring_resume(&my->in[0], &my->out[0]);
    for (;;) {
        my->flag = line.ended.rx;
        explore_yield("worker:asked");
        for (my->n = 0; my->n < line.setup->burst && (in = ring_peek(&my->in[0])) != NULL;)
            take_request(my, in);
        if (my->n) {
            ring_commit(&my->in[0]);
            continue;
        }
        if (breaks(ASKS_LATE)) {
            explore_yield("worker:idle");
            my->flag = line.ended.rx;
        }
        if (my->flag)
            break;
    }
    line.ended.worker[number] = 1;
}

/* ---- tx ---- */

static void take_output(struct memory *my, const struct ring_slot *slot)
{
    struct ring_consumer *ring = &my->in[my->ring];

    check_output(my->ring, ring->next - ring->start, slot,
                 cells_counted(line.cells, (uint32_t)my->ring));
    explore_yield("tx:sent");
    ring_next(ring);
    my->n++;
}

static void count_outputs(struct memory *my)
{
    struct ring_consumer *ring = &my->in[my->ring];
    uint64_t *counted = &my->counted[my->ring];

    while (*counted != ring->next) {
        uint32_t kind = ring_slot_at(ring->slots, ring->mask, ring->slot_bytes, *counted)->kind;
        count(&line.cells->outcome[my->ring][kind]);
        ++*counted;
        explore_yield("tx:counted");
    }
}

/* What was sent, counted and given back; the rings have the burst in common, as in tx. */
static void retire(struct memory *my)
{
    for (my->ring = 0; my->ring < line.setup->workers; my->ring++) {
        struct ring_consumer *ring = &my->in[my->ring];
        if (my->counted[my->ring] == ring->next)
            continue;
        if (breaks(COUNTS_LATE))
            ring_commit_to(ring, ring->next);
        count_outputs(my);
        if (!breaks(COUNTS_LATE))
            ring_commit_to(ring, my->counted[my->ring]);
    }
}

static void run_tx(struct memory *my)
{
    const struct ring_slot *slot;

    for (my->ring = 0; my->ring < line.setup->workers; my->ring++) {
        struct ring_consumer *ring = &my->in[my->ring];
        attach_consumer(ring, &line.to_tx[my->ring]);
        if (!breaks(IGNORES_COUNTED))
            ring->next = position_max(ring->next,
                                      ring->start + cells_counted(line.cells, (uint32_t)my->ring));
        my->counted[my->ring] = ring->next;
        ring_commit(ring);
    }
    do {
        my->flag = line.ended.worker[0] && (line.setup->workers == 1 || line.ended.worker[1]);
        explore_yield("tx:asked");
        my->input = 0;
        for (my->ring = 0; my->ring < line.setup->workers; my->ring++) {
            for (my->n = 0;
                 my->n < line.setup->burst && (slot = ring_peek(&my->in[my->ring])) != NULL;
                 my->input++)
                take_output(my, slot);
        }
        retire(my);
    } while (!my->flag || my->input);
}

void role_run(uint32_t role)
{
    struct memory *my = &line.memory[role];

    if (role == RX)
        run_rx(my);
    else if (role <= line.setup->workers)
        run_worker(my, role - WORKER);
    else
        run_tx(my);
}

/* What the rest of each step works on: slots that are claimed and not published, or read and not
 * committed; words that this role alone reads. */
bool role_quiet(uint32_t role, const char *label)
{
    static const char *const labels[] = {
        "ring:claimed", "ring:hint_stored", "ring:peeked", "ring:resumed",
        "rx:issued",    "rx:dropped",       "tx:counted",
    };

    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        if (strcmp(label, labels[i]) == 0)
            return true;
    }
    return role == RX && strcmp(label, "ring:after_publish") == 0;
}
