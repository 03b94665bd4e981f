/* SPDX-License-Identifier: Apache-2.0 */
/* Our trace record as an LTTng-UST tracepoint: the point is the event itself. Read more than once,
 * as LTTng wants it. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER tickline

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "tests/bench/peers/lttng_point.h"

#if !defined(TICKLINE_TESTS_BENCH_PEERS_LTTNG_POINT_H) ||                                          \
    defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define TICKLINE_TESTS_BENCH_PEERS_LTTNG_POINT_H

#include <lttng/tracepoint.h>
#include <stdint.h>

LTTNG_UST_TRACEPOINT_EVENT(tickline, stamp,
                           LTTNG_UST_TP_ARGS(uint16_t, argument, uint32_t, request),
                           LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(uint16_t, argument, argument)
                                                   lttng_ust_field_integer(uint32_t, request,
                                                                           request)))

#endif

#include <lttng/tracepoint-event.h>
