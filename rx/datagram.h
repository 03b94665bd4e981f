/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests of a datagram, one after the other into the rings. For the sources that receive datagrams,
 * whose loops it is compiled into.
 */
#ifndef TICKLINE_RX_DATAGRAM_H
#define TICKLINE_RX_DATAGRAM_H

#include "rx/put.h"

/* Where in a datagram its next request is; all 0: at its beginning. */
struct rx_cursor {
    uint32_t offset; /* bytes */
    uint32_t index;  /* requests before it */
};

/* A datagram, and what all its requests have in common. */
struct rx_datagram {
    const uint8_t *data;
    uint32_t length;
    uint64_t kernel_ns; /* as in rx_request, these three */
    uint16_t flow;
    uint16_t place;
};

/* The same for schema iex; rx/segment.c. */
int rx_put_segment(struct stage *stage, struct rx *rx, const struct rx_datagram *datagram,
                   struct rx_cursor *cursor);
uint32_t rx_skip_segment(const uint8_t *data, uint32_t length, uint64_t most,
                         struct rx_cursor *cursor);

/*
 * Puts all requests from the cursor on, perhaps none. 0: the datagram is done, the cursor at the beginning
 * of the next. -EAGAIN: as rx_put; the cursor stands at the request that must wait. The caller counts the
 * datagram (stage->figures) when it is done, and not before.
 */
static inline int rx_put_datagram(struct stage *stage, struct rx *rx,
                                  const struct rx_datagram *datagram, struct rx_cursor *cursor)
{
    struct rx_request request = {
        .kernel_ns = datagram->kernel_ns,
        .flow = datagram->flow,
        .place = datagram->place,
    };

    if (unlikely(rx->schema == SCHEMA_IEX)) {
        const struct rx_datagram copy = *datagram; /* so that all others keep theirs in registers */
        return rx_put_segment(stage, rx, &copy, cursor);
    }
    do {
        request.data = datagram->data + cursor->offset;
        request.frame = frame_next(rx->schema, request.data, datagram->length - cursor->offset);
        int err = rx_put(stage, rx, &request);
        if (err < 0)
            return err;
        cursor->offset += request.frame.length;
    } while (cursor->offset < datagram->length);
    cursor->offset = 0;
    return 0;
}

/* For a successor: passes at most `most` (at least one) requests that its predecessor had put; how many
 * there were. The cursor is at the beginning again where the datagram is done. */
static inline uint32_t rx_skip(enum config_schema schema, const uint8_t *data, uint32_t length,
                               uint64_t most, struct rx_cursor *cursor)
{
    uint32_t skipped = 0;

    if (schema == SCHEMA_IEX)
        return rx_skip_segment(data, length, most, cursor);
    do {
        cursor->offset += frame_next(schema, data + cursor->offset, length - cursor->offset).length;
        skipped++;
    } while (cursor->offset < length && skipped < most);
    if (cursor->offset >= length)
        cursor->offset = 0;
    return skipped;
}

#endif
