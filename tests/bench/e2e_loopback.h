/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel takes to carry one datagram over loopback, with the pipeline's socket options. */
#ifndef TICKLINE_TESTS_BENCH_E2E_LOOPBACK_H
#define TICKLINE_TESTS_BENCH_E2E_LOOPBACK_H

#include "tests/bench/bench.h"

/* A send to the own socket and the receive, one process on cpu[1]. */
bench_run loopback_one;

/* From before the send on cpu[0] to after the receive of a process that spins on cpu[1]: one way. */
bench_run loopback_two;

#endif
