/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker: takes requests from its ring, parses, handles and serialises them straight into a slot of
 * tx's ring. Every input slot yields exactly one output slot: a reply, a rejection with its reason,
 * or `filtered`. A full ring downstream makes it wait, never drop. After a restart it goes on from
 * the rings alone (ring_resume).
 */
#include "worker/worker.h"

#include "shm/crash.h"
#include "stage/log.h"
#include "worker/crash.h"
#include "worker/host.h"
#include "worker/load.h"
#include "worker/schema.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Of handle_poison alone. */
enum { POISONED = TICKLINE_FULL - 1 };

struct worker {
    struct ring_consumer in;
    struct ring_producer out;
    const struct schema *schema;
    int32_t (*handle)(struct tickline_context *context, const struct tickline_request *request,
                      uint8_t *reply, uint32_t capacity);
    uint64_t poison;   /* the request that two predecessors have crashed in */
    uint32_t room;     /* bytes of a reply */
    uint32_t capacity; /* most of its payload */
    uint32_t burst;
    bool bells;
    bool was_idle;
    struct host host;
};

/* ---- open ---- */

static int open_rings(struct stage *stage, struct worker *worker)
{
    int err = stage_consumer(stage, &worker->in, "to_worker.%u", stage->worker);

    if (err == 0)
        err = stage_producer(stage, &worker->out, "to_tx.%u", stage->worker);
    if (err == 0)
        (void)ring_resume(&worker->in, &worker->out);
    return err;
}

/* The handler's block, as it was after the last request that is published. */
static int open_state(struct stage *stage, struct worker *worker)
{
    struct host *host = &worker->host;
    struct region_want want = state_want(stage->epoch);
    struct region_mismatch mismatch;
    struct region region;
    char name[32];

    snprintf(name, sizeof(name), "state.%u", stage->worker);
    int err = stage_attach(stage, &region, name, &want, true);
    if (err < 0)
        return err;
    if (state_attach(&host->state, &region, &mismatch) < 0)
        return stage_error(stage, -EPROTO, "%s: %s: expected %llu, found %llu", name,
                           mismatch.field, (unsigned long long)mismatch.expected,
                           (unsigned long long)mismatch.found);
    if (stage->generation > 1)
        state_recover(&host->state, worker->in.next);
    host->context.state = host->state.working;
    host->context.state_bytes = host->state.bytes;
    return 0;
}

/* What a predecessor knew of earlier requests is gone: from here on that is said. */
static void note_lost(struct stage *stage, const struct worker *worker)
{
    _Atomic uint64_t *from = &stage->cells->suspect_from[stage->worker];

    if (stage->generation == 1 || worker->in.next == worker->in.start)
        return;
    if (load_relaxed(from) == 0)
        store_release(from, worker->out.head - worker->out.start + 1);
    if (stage->trace.lane.control)
        trace_event(&stage->trace, tsc_read(), POINT_state_lost, (uint16_t)stage->generation, 0, 0);
}

/*
 * Stands for the handler where two workers have crashed in a request: it is the one that comes first.
 * From the next one on it is the handler's turn again.
 */
static int32_t handle_poison(struct tickline_context *context,
                             const struct tickline_request *request, uint8_t *reply,
                             uint32_t capacity)
{
    struct host *host = (struct host *)(void *)context;
    struct worker *worker =
        (struct worker *)(void *)((uint8_t *)host - offsetof(struct worker, host));

    worker->handle = host->handler->handle;
    if (request->number == worker->poison)
        return POISONED;
    return worker->handle(context, request, reply, capacity);
}

static int open_handler(struct stage *stage, struct worker *worker)
{
    const struct cell_crash *crash = &stage->cells->crash[stage->worker];
    struct host *host = &worker->host;
    char error[CONFIG_ERROR_MAX] = "there is no such handler";

    const struct tickline_handler *handler = handler_load(&stage->config, error);
    if (!handler) {
        char line[CONFIG_ERROR_MAX];
        (void)config_blame(&stage->config, "worker.handler", line, "%s", error);
        return stage_error(stage, -EINVAL, "%s", line);
    }
    host_prepare(host, handler, &stage->config);
    host->context.checking = 0;
    host->context.worker = stage->worker;
    host->context.generation = stage->generation;
    host->context.ticks_per_second = stage->clock.hz;
    host->position = &worker->in.next;
    host->trace = &stage->trace;
    worker->poison = crash->request;
    worker->handle = crash->count >= CRASH_POISON ? handle_poison : handler->handle;
    stage->allocates = handler->allocates != 0;
    int err = handler->state == TICKLINE_STATE_SHARED ? open_state(stage, worker) : 0;
    if (err < 0)
        return err;
    if (host_init(host) < 0)
        return stage_error(stage, host_blame(host, error), "%s", error);
    if (host->context.state && host->context.state_bytes != host->state.bytes)
        return stage_error(stage, -EINVAL, "handler %s: its state had %llu bytes, and now %llu",
                           handler->name, (unsigned long long)host->state.bytes,
                           (unsigned long long)host->context.state_bytes);
    if (handler->state == TICKLINE_STATE_SHARED && stage->generation == 1)
        state_settle(&host->state);
    if (handler->state == TICKLINE_STATE_LOST)
        note_lost(stage, worker);
    return crash_arm(stage, host);
}

static int worker_open(struct stage *stage)
{
    struct worker *worker = calloc(1, sizeof(*worker));

    if (!worker)
        return -ENOMEM;
    stage->self = worker;
    worker->schema = schema_of(stage->config.pipeline.schema);
    worker->burst = stage->config.worker.burst;
    worker->bells = stage->wait.park_after_ns != 0;
    int err = open_rings(stage, worker);
    worker->room = ring_capacity(worker->out.slot_bytes);
    worker->capacity = worker->room - worker->schema->header_bytes;
    if (worker->capacity > worker->schema->payload_max)
        worker->capacity = worker->schema->payload_max;
    return err < 0 ? err : open_handler(stage, worker);
}

/* ---- a request ---- */

static void reject(struct ring_slot *out, enum reason reason)
{
    out->kind = RING_REJECTED;
    out->reason = (uint8_t)reason;
    out->length = 0;
}

/* What rx has refused already; nothing else arrives that is no request. */
static void pass_on(const struct ring_slot *in, struct ring_slot *out)
{
    if (in->kind != RING_REJECTED)
        region_corrupt("ring slot kind", RING_REJECTED, in->kind);
    if (in->reason >= REASON_COUNT)
        region_corrupt("ring slot reason", REASON_COUNT - 1, in->reason);
    reject(out, (enum reason)in->reason);
}

static enum reason refusal(int32_t result)
{
    switch (result) {
    case TICKLINE_REPLY_TOO_BIG:
        return REASON_reply_too_big;
    case TICKLINE_FULL:
        return REASON_full;
    case POISONED:
        return REASON_poison;
    default:
        return REASON_bad_payload;
    }
}

/* No length and no answer: it may have written behind its room, and nothing can be believed any more.
 * That is a crash in its request. */
_Noreturn static void refuse(const struct worker *worker, int32_t result, uint32_t capacity)
{
    log_line("handler %s returned %d with room for %u bytes", worker->host.handler->name, result,
             capacity);
    abort();
}

/* The parser writes what the handler reads. */
union parsed {
    struct message message;
    struct tickline_request request;
};
static_assert(offsetof(struct message, id) == offsetof(struct tickline_request, id) &&
                  offsetof(struct message, payload) == offsetof(struct tickline_request, payload) &&
                  offsetof(struct message, length) == offsetof(struct tickline_request, length) &&
                  sizeof(struct message) <= offsetof(struct tickline_request, number),
              "one over the other");

/* The reply's payload by the handler; as its handle(). */
static inline int32_t handle(struct worker *worker, const struct ring_slot *in, uint8_t *reply)
{
    struct host *host = &worker->host;

    host->request.flow = in->flow;
    host->request.number = in->request;
    host->request.ingress = in->ingress;
    host->inside = true;
    int32_t result = worker->handle(&host->context, &host->request, reply, worker->capacity);
    if (unlikely((uint32_t)result > worker->capacity) && (result >= 0 || result < POISONED))
        refuse(worker, result, worker->capacity);
    host->inside = false;
    return result;
}

/* The work itself: bytes of `in` to bytes of `out`, each step stamped. */
static void process(struct worker *worker, const struct ring_slot *in, struct ring_slot *out)
{
    const struct schema *schema = worker->schema;
    struct message *message = &((union parsed *)&worker->host.request)->message;

    int result = schema->parse(in->payload, in->length, message);
    if (result < 0) {
        reject(out, SCHEMA_REASON(result));
        return;
    }
    trace_stamp(worker->host.trace, POINT_worker_parsed, 0, in->request);

    result = handle(worker, in, out->payload + schema->header_bytes);
    trace_stamp(worker->host.trace, POINT_worker_done, 0, in->request);
    if (unlikely(result < 0)) {
        if (result != TICKLINE_FILTERED) {
            reject(out, refusal(result));
            return;
        }
        out->kind = RING_FILTERED;
        out->length = 0;
        return;
    }
    result = schema->serialise(out->payload, worker->room, message, (uint32_t)result);
    if (result < 0) {
        reject(out, SCHEMA_REASON(result));
        return;
    }
    out->kind = RING_REPLY;
    out->length = (uint16_t)result;
}

static void take_request(struct stage *stage, struct worker *worker, const struct ring_slot *in,
                         struct ring_slot *out)
{
    crash_point("worker:got");
    trace_stamp(&stage->trace, POINT_worker_got, (uint16_t)stage->worker, in->request);
    out->source = worker->in.next;
    out->request = in->request;
    out->ingress = in->ingress;
    out->reason = 0;
    out->part = 0;
    out->parts = 1;
    out->flow = in->flow;
    if (in->kind == RING_REQUEST)
        process(worker, in, out);
    else
        pass_on(in, out);
    crash_point("worker:made");
    ring_publish(&worker->out);
    crash_point("worker:put");
    if (worker->host.state.ranges)
        state_commit(&worker->host.state);
    trace_stamp(&stage->trace, POINT_worker_put, 0, in->request);
    if (worker->bells) {
        stage->figures.wakes += ring_wake(&worker->out, worker->was_idle);
        worker->was_idle = false;
    }
}

static int worker_poll(struct stage *stage)
{
    struct worker *worker = stage->self;
    uint32_t moved = 0;
    const struct ring_slot *in;

    while (moved < worker->burst && (in = ring_peek(&worker->in)) != NULL) {
        struct ring_slot *out = ring_claim(&worker->out);
        if (!out) {
            if (moved == 0 && !(stage->draining && stage_ended(stage, CELL_TX)))
                return -EAGAIN;
            break;
        }
        take_request(stage, worker, in, out);
        ring_next(&worker->in);
        moved++;
    }
    if (moved) {
        crash_point("worker:burst_done");
        ring_commit(&worker->in);
    } else {
        worker->was_idle = true;
    }
    return (int)moved;
}

static bool worker_drained(struct stage *stage)
{
    return stage_ended(stage, CELL_RX);
}

static bool worker_park(struct stage *stage, uint64_t ns)
{
    struct worker *worker = stage->self;

    return ring_park(&worker->in, stage->upstream_near, ns);
}

static void worker_close(struct stage *stage)
{
    struct worker *worker = stage->self;

    if (worker->host.handler->fini)
        worker->host.handler->fini(&worker->host.context);
}

const struct stage_ops worker_ops = {
    .open = worker_open,
    .poll = worker_poll,
    .drained = worker_drained,
    .close = worker_close,
    .park = worker_park,
};
