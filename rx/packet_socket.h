/* SPDX-License-Identifier: Apache-2.0 */
/* The packet socket of rx.source = packet: opened, with its ring, or taken over from a predecessor. */
#ifndef TICKLINE_RX_PACKET_SOCKET_H
#define TICKLINE_RX_PACKET_SOCKET_H

#include "rx/packet_ring.h"
#include "stage/stage.h"

/*
 * Fills `ring` and maps it at this position; deposits the socket as "rx.tap INTERFACE". The socket, or
 * -errno with stage_error said.
 */
int packet_socket_open(struct stage *stage, struct packet_ring *ring, uint64_t block,
                       uint64_t frame);

#endif
