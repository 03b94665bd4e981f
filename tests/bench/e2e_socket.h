/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP sockets on loopback with the options of the pipeline's own: what rx/socket.c sets on the
 * receiving one, what tx/socket.c sets on the sending one. Non-blocking, closed on exec.
 */
#ifndef TICKLINE_TESTS_BENCH_E2E_SOCKET_H
#define TICKLINE_TESTS_BENCH_E2E_SOCKET_H

#include <stdbool.h>
#include <stdint.h>

/* Bound to a free port of 127.0.0.1; with the kernel's receive stamps where `stamped`. A descriptor
 * or -errno. */
int e2e_socket_bound(bool stamped, uint16_t *port);

/* Connected to 127.0.0.1:port. A descriptor or -errno. */
int e2e_socket_connected(uint16_t port);

/* A port that was free a moment ago; 0 where there is none. */
uint16_t e2e_socket_free_port(void);

/* Datagrams that found the receive buffer full. */
uint64_t e2e_socket_drops(int fd);

/* One datagram with its stamp, as rx takes it. Its length, or -1 with errno. */
int e2e_socket_take(int fd, void *data, uint32_t capacity);

#endif
