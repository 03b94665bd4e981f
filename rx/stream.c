/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/stream.h"

static uint32_t kept(const struct flow *flow)
{
    return (uint32_t)(flow->next - flow->begun);
}

/* What is kept belongs to no request, and neither does what follows, until one begins. */
static void lose(const struct stream *stream, struct flow *flow)
{
    stream->reassembly->counts->skipped_bytes += kept(flow);
    flow->begun = flow->next;
    flow->seeking = true;
}

void stream_gap(void *self, struct flow *flow)
{
    lose(self, flow);
}

/* Puts the requests at the beginning of `data`, in `used` the bytes they take. */
static int put_requests(struct stream *stream, struct flow *flow, const uint8_t *data,
                        uint32_t length, uint32_t *used)
{
    bool resyncs = frame_resyncs(stream->schema);
    struct frame frame;

    for (*used = 0; *used < length; *used += frame.length) {
        enum frame_state state = frame_stream(stream->schema, data + *used, length - *used, &frame);
        if (state == FRAME_MORE)
            return 0;
        if (state == FRAME_BROKEN && flow->seeking) {
            stream->reassembly->counts->skipped_bytes += frame.length;
            continue;
        }
        int err = stream->put(stream->self, data + *used, &frame);
        if (err < 0)
            return err;
        flow->seeking = state == FRAME_BROKEN && !resyncs;
        if (flow->seeking) { /* the rest is lost */
            stream->reassembly->counts->skipped_bytes += length - *used - frame.length;
            frame.length = length - *used;
        }
    }
    return 0;
}

/* `length` bytes from flow->next on, together with what is kept at most what may be kept. */
static int take_kept(struct stream *stream, struct flow *flow, const uint8_t *data, uint32_t length)
{
    uint32_t used;

    if (data)
        reassembly_write(stream->reassembly, flow->next, data, length);
    flow->next += length;
    uint32_t all = kept(flow);
    const uint8_t *view = reassembly_view(stream->reassembly, flow->begun, all, stream->scratch);
    int err = put_requests(stream, flow, view, all, &used);
    flow->begun += used;
    return err;
}

/* The same where nothing is kept; what is left of them is written where they do not lie in the buffer. */
static int take_alone(struct stream *stream, struct flow *flow, const uint8_t *data,
                      uint32_t length, bool buffered)
{
    uint32_t used;

    int err = put_requests(stream, flow, data, length, &used);
    uint32_t left = length - used;
    flow->begun = flow->next + used;
    if (!buffered && left < stream->reassembly->keep_bytes)
        reassembly_write(stream->reassembly, flow->begun, data + used, left);
    flow->next += length;
    return err;
}

/* Does a piece begin with a whole request? */
static bool begins(const struct stream *stream, const uint8_t *data, uint32_t length)
{
    struct frame frame;

    return frame_stream(stream->schema, data, length, &frame) == FRAME_WHOLE;
}

int stream_piece(void *self, struct flow *flow, const uint8_t *data, uint32_t length)
{
    struct stream *stream = self;
    const struct reassembly *reassembly = stream->reassembly;
    int err = 0;

    while (err == 0 && length > 0) {
        uint32_t room = kept(flow) ? reassembly->keep_bytes - kept(flow) : length;
        uint32_t take = room < length ? room : length;
        const uint8_t *from = data;
        if (kept(flow) == 0 && !data)
            from = reassembly_view(reassembly, flow->next, take, stream->scratch);
        if (flow->seeking && !frame_resyncs(stream->schema) && !begins(stream, from, length)) {
            flow->next += length;
            lose(stream, flow);
            return 0;
        }
        err = kept(flow) ? take_kept(stream, flow, data, take)
                         : take_alone(stream, flow, from, take, !data);
        if (kept(flow) >= reassembly->keep_bytes)
            lose(stream, flow);
        data = data ? data + take : NULL;
        length -= take;
    }
    return err;
}
