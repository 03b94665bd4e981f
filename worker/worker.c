/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker: takes requests from its ring, parses, handles and serialises them straight into a slot of
 * tx's ring. Every input slot yields exactly one output slot: a reply, a rejection with its reason,
 * or `filtered`. A full ring downstream makes it wait, never drop. After a restart it goes on from
 * the rings alone (ring_resume).
 */
#include "worker/worker.h"

#include "shm/crash.h"
#include "worker/handler.h"
#include "worker/schema.h"

#include <errno.h>
#include <stdlib.h>

struct worker {
    struct ring_consumer in;
    struct ring_producer out;
    const struct schema *schema;
    const struct handler *handler;
    uint32_t burst;
    bool bells;
    bool was_idle;
};

static int worker_open(struct stage *stage)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    char error[CONFIG_ERROR_MAX];

    if (!worker)
        return -ENOMEM;
    stage->self = worker;
    worker->schema = schema_of(stage->config.pipeline.schema);
    worker->handler = handler_find(stage->config.worker.handler);
    worker->burst = stage->config.worker.burst;
    worker->bells = stage->wait.park_after_ns != 0;
    if (!worker->handler)
        return stage_error(stage, -EINVAL,
                           "worker.handler = %s: there is no such handler; known: %s",
                           stage->config.worker.handler, handler_names());
    if (worker->handler->open) {
        int err = worker->handler->open(&stage->config, error);
        if (err < 0)
            return stage_error(stage, err, "%s", error);
    }
    int err = stage_consumer(stage, &worker->in, "to_worker.%u", stage->worker);
    if (err == 0)
        err = stage_producer(stage, &worker->out, "to_tx.%u", stage->worker);
    if (err == 0)
        (void)ring_resume(&worker->in, &worker->out);
    return err;
}

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

/* The work itself: bytes of `in` to bytes of `out`, each step stamped. */
static void process(struct stage *stage, struct worker *worker, const struct ring_slot *in,
                    struct ring_slot *out)
{
    const struct schema *schema = worker->schema;
    uint32_t capacity = ring_capacity(worker->out.slot_bytes) - schema->header_bytes;
    struct message message;

    int result = schema->parse(in->payload, in->length, &message);
    if (result < 0) {
        reject(out, SCHEMA_REASON(result));
        return;
    }
    trace_stamp(&stage->trace, POINT_worker_parsed, 0, in->request);

    capacity = capacity < schema->payload_max ? capacity : schema->payload_max;
    result = worker->handler->handle(message.payload, message.length,
                                     out->payload + schema->header_bytes, capacity);
    trace_stamp(&stage->trace, POINT_worker_done, 0, in->request);
    if (result == HANDLER_FILTERED) {
        out->kind = RING_FILTERED;
        out->length = 0;
        return;
    }
    if (result < 0) {
        reject(out, HANDLER_REASON(result));
        return;
    }
    result = schema->serialise(out->payload, ring_capacity(worker->out.slot_bytes), &message,
                               (uint32_t)result);
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
        process(stage, worker, in, out);
    else
        pass_on(in, out);
    crash_point("worker:made");
    ring_publish(&worker->out);
    crash_point("worker:put");
    trace_stamp(&stage->trace, POINT_worker_put, 0, in->request);
    if (worker->bells && ring_wake(&worker->out, worker->was_idle))
        stage->figures.wakes++;
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
        worker->was_idle = false;
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
    (void)stage;
}

const struct stage_ops worker_ops = {
    .open = worker_open,
    .poll = worker_poll,
    .drained = worker_drained,
    .close = worker_close,
    .park = worker_park,
};
