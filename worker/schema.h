/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schemas: the form of a request and of its reply (the same form, the same id).
 *
 *   v1        |00000001|0008|abcdefgh    id 8 decimal digits, length 4, payload; 15 bytes of header
 *   v2        id u64, length u32, both big-endian, payload; 12 bytes of header
 *   v3        protobuf { fixed64 id = 1; bytes payload = 2; } behind its length, a varint
 *   v4        Cap'n Proto { id @0 :UInt64; payload @1 :Data; } behind its segment table
 *   fix       8=FIX.4.1|9=8|payload|10=042| with SOH for |
 *   iex       a segment of one message: header of 40 bytes, length, message
 *   datagram  payload alone
 *
 * Each has its form drawn in its own file.
 *
 * parse() checks everything and says why not; the reasons are tried in the order of their list,
 * byte by byte over the header. Input is hostile: it is counted by reason, never fatal.
 */
#ifndef TICKLINE_WORKER_SCHEMA_H
#define TICKLINE_WORKER_SCHEMA_H

#include "shm/points.h"
#include "stage/config.h"

#include <stdint.h>

/* A parsed request; its pointers reach into the caller's bytes, or (v3) hold until the next parse(). */
struct message {
    uint64_t id;
    const uint8_t *payload;
    uint32_t length;
    const uint8_t
        *whole; /* fix, iex: the request, of which the reply has more than the id; or NULL */
};

struct schema {
    const char *name;
    uint32_t header_bytes; /* room in front of a reply's payload; what a request has may differ */
    uint32_t payload_max;  /* longest payload whose length can be written */
    /* 0, or -1 - reason */
    int (*parse)(const uint8_t *bytes, uint32_t length, struct message *message);
    /*
     * Makes the reply to `request` at `out`, whose payload of `length` bytes the handler has written at
     * out + header_bytes; at most `capacity` bytes of all. Its bytes, or -1 - reason.
     */
    int (*serialise)(uint8_t *out, uint32_t capacity, const struct message *request,
                     uint32_t length);
};

#define SCHEMA_REASON(result) ((enum reason)(-1 - (result)))

const struct schema *schema_of(enum config_schema schema);

#endif
