/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP sockets on loopback for the benchmarks: non-blocking, closed on exec, no waiting to gather bytes
 * (TCP_NODELAY), with buffers that a stall of some milliseconds does not fill.
 */
#ifndef TICKLINE_TESTS_BENCH_E2E_STREAM_H
#define TICKLINE_TESTS_BENCH_E2E_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Listens on a free port of 127.0.0.1. A descriptor or -errno. */
int e2e_stream_listening(uint16_t *port);

/* Connects to 127.0.0.1:port, and tries again for `ms` while nobody listens there. A descriptor or -errno. */
int e2e_stream_connected(uint16_t port, int ms);

/* The next connection, waited for at most `ms`. A descriptor or -errno. */
int e2e_stream_accepted(int listener, int ms);

/* A port that was free a moment ago; 0 where there is none. */
uint16_t e2e_stream_free_port(void);

/* Sends all of it, spinning while there is no room. Did it? */
bool e2e_stream_send(int fd, const void *data, size_t length);

#endif
