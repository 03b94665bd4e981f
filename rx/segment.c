/* SPDX-License-Identifier: Apache-2.0 */
/* rx and segments: each message into a ring, each segment's sequence numbers noted once. */
#include "rx/segment.h"

#include "rx/datagram.h"

/* rx has one request in hand at a time. */
static uint8_t alone[SEGMENT_MAX];

static void note(struct stage *stage, const struct segment *segment)
{
    feed_note(&stage->cells->feeds, &(struct feed_datagram){
                                        .number = stage->figures.datagrams + 1,
                                        .first = segment->first,
                                        .messages = segment->count,
                                        .channel = segment->channel,
                                        .session = segment->session,
                                        .protocol = segment->protocol,
                                    });
}

int rx_put_segment(struct stage *stage, struct rx *rx, const struct rx_datagram *datagram,
                   struct rx_cursor *cursor)
{
    struct rx_request request = {
        .data = datagram->data,
        .kernel_ns = datagram->kernel_ns,
        .flow = datagram->flow,
        .place = datagram->place,
    };
    struct segment segment;

    if (!segment_read(datagram->data, datagram->length, &segment)) {
        request.frame = frame_malformed(datagram->data, datagram->length);
        return rx_put(stage, rx, &request);
    }
    if (cursor->offset == 0) {
        note(stage, &segment);
        cursor->offset = SEGMENT_HEADER;
    }
    request.data = alone;
    while (cursor->index < segment.count) {
        uint64_t sequence = segment.first + cursor->index;
        request.frame = (struct frame){
            .id = sequence,
            .length = segment_alone(datagram->data, cursor->offset, sequence, alone),
            .well_formed = true,
        };
        int err = rx_put(stage, rx, &request);
        if (err < 0)
            return err;
        cursor->offset += request.frame.length - SEGMENT_HEADER;
        cursor->index++;
    }
    *cursor = (struct rx_cursor){0};
    return 0;
}

uint32_t rx_skip_segment(const uint8_t *data, uint32_t length, uint64_t most,
                         struct rx_cursor *cursor)
{
    struct segment segment;
    uint32_t skipped = 0;

    if (!segment_read(data, length, &segment))
        return 1;
    if (cursor->offset == 0)
        cursor->offset = SEGMENT_HEADER;
    for (; cursor->index < segment.count && skipped < most; cursor->index++, skipped++)
        cursor->offset += segment_message_bytes(data + cursor->offset);
    if (cursor->index == segment.count)
        *cursor = (struct rx_cursor){0};
    return skipped;
}
