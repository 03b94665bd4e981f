/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one list of trace points, of reasons and of outcomes. C, the CTF metadata, Python and the
 * documentation take names, numbers and sentences from here.
 *
 * POINT(name, id, stage, span, sentence): `span` is the kind of the span that ends at the point. A
 * point whose id has POINT_WIDE carries two more words (32 bytes a record instead of 16).
 */
#ifndef TICKLINE_SHM_POINTS_H
#define TICKLINE_SHM_POINTS_H

#include <stdint.h>

#define POINT_WIDE 0x8000

/* In the order in which a request passes them, then the points of the run itself. */
#define POINTS(POINT)                                                                              \
    POINT(                                                                                         \
        rx_got, POINT_WIDE | 0x00, "rx", "wait",                                                   \
        "rx holds the request; value is the kernel's receive time (REALTIME ns), extra the wire "  \
        "id, argument its place in the burst")                                                     \
    POINT(rx_put, 0x01, "rx", "work", "rx published the request to a worker's ring")               \
    POINT(worker_got, 0x02, "worker", "wait",                                                      \
          "the worker took the request; argument is the worker")                                   \
    POINT(worker_parsed, 0x03, "worker", "work", "the schema's parser is done")                    \
    POINT(worker_done, 0x04, "worker", "work", "the handler is done")                              \
    POINT(worker_put, 0x05, "worker", "work",                                                      \
          "the reply is serialised and published to tx's ring")                                    \
    POINT(tx_got, 0x06, "tx", "wait", "tx took the reply")                                         \
    POINT(tx_sent, 0x07, "tx", "work", "tx hands the reply to the kernel; argument is its bytes")  \
    POINT(tx_complete, 0x08, "tx", "work", "the kernel reported the send as done")                 \
    POINT(clock, POINT_WIDE | 0x10, "rx", "none",                                                  \
          "a clock pair: value is MONOTONIC_RAW ns, extra REALTIME ns, argument the bracket's "    \
          "width in ns")                                                                           \
    POINT(clock_bend, POINT_WIDE | 0x11, "rx", "none",                                             \
          "REALTIME was stepped or slewed: value is the jump in ns (two's complement), extra the " \
          "ns "                                                                                    \
          "it took")                                                                               \
    POINT(rotation, 0x12, "rx", "none",                                                            \
          "the turn order on a shared CPU was wrong; argument is the place of the stage that was " \
          "asked to step back")                                                                    \
    POINT(parked, 0x13, "any", "none",                                                             \
          "the stage woke from its sleep; argument is the µs it slept")                            \
    POINT(repeated, 0x14, "tx", "none",                                                            \
          "the reply may be sent a second time: the send of a killed predecessor is in doubt")     \
    POINT(restarted, POINT_WIDE | 0x15, "any", "none",                                             \
          "a successor takes over: value is the tsc of its predecessor's last tick, extra of its " \
          "own "                                                                                   \
          "start, argument its generation")                                                        \
    POINT(                                                                                         \
        state_lost, 0x16, "worker", "none",                                                        \
        "the handler's memory of earlier requests died with its worker: what follows is suspect; " \
        "argument is the generation")                                                              \
    POINT(counters, POINT_WIDE | 0x17, "any", "none",                                              \
          "what the stage counted between the points around it: four numbers of 32 bits, value "   \
          "the low and the high one of the first two, extra of the others, argument which four")

enum point {
#define POINT_ENUM(name, id, stage, span, sentence) POINT_##name = (id),
    POINTS(POINT_ENUM)
#undef POINT_ENUM
};

/* Why a request is not answered. The order is the number, and part of the run's files. */
#define REASONS(REASON)                                                                            \
    REASON(empty, "a datagram without a byte")                                                     \
    REASON(truncated, "fewer bytes than a header, or than the stated length")                      \
    REASON(bad_header, "a separator is not where the schema wants it")                             \
    REASON(bad_digit, "a decimal field holds something else")                                      \
    REASON(bad_length, "the stated length is beyond what a datagram can hold")                     \
    REASON(oversized, "the request does not fit a ring slot")                                      \
    REASON(bad_payload, "the handler cannot use the payload")                                      \
    REASON(reply_too_big, "the reply does not fit a ring slot")                                    \
    REASON(wrong_length, "a stated length does not lead to the end, or is not that of the type")   \
    REASON(bad_checksum, "the stated checksum is not that of the bytes")                           \
    REASON(bad_encoding, "a field, pointer or type that the encoding does not allow")              \
    REASON(full, "the handler's state has no room for what the request adds")                      \
    REASON(poison, "the handler has crashed twice in the request")

enum reason {
#define REASON_ENUM(name, sentence) REASON_##name,
    REASONS(REASON_ENUM)
#undef REASON_ENUM
        REASON_COUNT,
};

/* What became of an output slot at tx; the reasons of rejection follow the three. */
enum outcome {
    OUTCOME_TRANSMITTED,
    OUTCOME_FILTERED,
    OUTCOME_DROPPED,
    OUTCOME_REJECTED,
    OUTCOME_COUNT = OUTCOME_REJECTED + REASON_COUNT,
};

struct point_info {
    const char *name;
    const char *stage;
    const char *span;
    const char *sentence;
    uint16_t id;
};

extern const struct point_info point_list[];
extern const uint32_t point_count;
extern const char *const reason_name[REASON_COUNT];

#endif
