/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sink's UDP socket: non-blocking, kernel stamps, a receive buffer as large as the host grants.
 * One socket a process, one thread; nothing here waits.
 */
#ifndef TICKLINE_HARNESS_SINK_SOCKET_H
#define TICKLINE_HARNESS_SINK_SOCKET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* 0/positive: the descriptor, or -errno. `*rcvbuf` is what was granted, in bytes. */
int socket_open(const struct sockaddr *address, socklen_t size, int *rcvbuf);

/* What `take` is given: valid until it returns; kernel_ns is CLOCK_REALTIME. */
typedef void socket_take(void *context, const uint8_t *reply, uint32_t length, uint64_t kernel_ns);

/* Takes what is there, at most one burst. How many, 0 when there is none, or -errno. */
int socket_receive(int fd, socket_take *take, void *context);

/* Datagrams the socket has dropped since it was opened (wraps at 2^32). */
uint32_t socket_drops(int fd);

#endif
