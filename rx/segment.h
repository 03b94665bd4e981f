/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments of IEX-TP: a datagram of schema iex. Each message in it is a request of its own, known by its
 * sequence number; it travels as a segment of that message alone (header with count 1, the message's own
 * sequence number and place in the stream), which is also the form of a reply. A segment without a
 * message, a heartbeat, holds no request. One that is not whole is one malformed request.
 */
#ifndef TICKLINE_RX_SEGMENT_H
#define TICKLINE_RX_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

enum { SEGMENT_HEADER = 40, SEGMENT_MAX = 65535 };

struct segment {
    uint64_t first; /* sequence number of its first message, or of the next */
    uint32_t channel;
    uint32_t session;
    uint16_t protocol;
    uint16_t count;
};

/* True where `data` begins with a whole segment of TOPS 1.6 or DEEP 1.0. */
bool segment_read(const uint8_t *data, uint32_t length, struct segment *segment);

/* Bytes of a message of a whole segment, its length's two included. */
uint32_t segment_message_bytes(const uint8_t *message);

/* Writes the message at `offset` of a whole segment as a segment of its own; its bytes, at most
 * SEGMENT_MAX. */
uint32_t segment_alone(const uint8_t *data, uint32_t offset, uint64_t sequence, uint8_t *out);

#endif
