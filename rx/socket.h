/* SPDX-License-Identifier: Apache-2.0 */
/* rx's UDP sockets: one a port, multicast groups joined, kernel receive stamps on. */
#ifndef TICKLINE_RX_SOCKET_H
#define TICKLINE_RX_SOCKET_H

#include "stage/stage.h"

enum { SOCKETS_MAX = CONFIG_ENDPOINTS_MAX };

/*
 * Opens (or takes over from a predecessor) the sockets of rx.bind and deposits them with the
 * launcher as "rx.socket.N ADDRESS:PORT". Their number, or -errno with stage_error said.
 */
int sockets_open(struct stage *stage, int sockets[SOCKETS_MAX]);

#endif
