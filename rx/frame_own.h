/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of framing: what each schema's file says to frame.c. */
#ifndef TICKLINE_RX_FRAME_OWN_H
#define TICKLINE_RX_FRAME_OWN_H

#include "rx/frame.h"
#include "rx/segment.h"

enum { FRAME_PAYLOAD_MAX = 65535 };

/*
 * How long the request at `data` is, of which `length` bytes have come, in `size`:
 *
 *   WHOLE   its bytes, at most `length`
 *   MORE    it has at least so many, more than `length`
 *   BROKEN  the bytes that show that it is none, at most `length`; the same however many follow
 */
enum frame_state fix_measure(const uint8_t *data, uint32_t length, uint32_t *size);

enum frame_state v3_measure(const uint8_t *data, uint32_t length, uint32_t *size);
enum frame_state v4_measure(const uint8_t *data, uint32_t length, uint32_t *size);

/* The id in a whole v3 or v4 request; false where the bytes hold none that can be read. */
bool v3_id(const uint8_t *data, uint32_t size, uint64_t *id);
bool v4_id(const uint8_t *data, uint64_t *id);

/* As the first; what is BROKEN reaches to the next message. */
enum frame_state fix_stream(const uint8_t *data, uint32_t length, uint32_t *size);

/* A segment of one message, the form of a request in a ring's slot; its id. */
bool segment_frame(const uint8_t *data, uint32_t length, uint64_t *id);

#endif
