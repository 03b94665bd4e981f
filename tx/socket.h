/* SPDX-License-Identifier: Apache-2.0 */
/* tx's UDP socket: connected to tx.to, so that a send is one call without a route look-up. */
#ifndef TICKLINE_TX_SOCKET_H
#define TICKLINE_TX_SOCKET_H

#include "stage/stage.h"

/* Opens it, or takes it over from a predecessor, and deposits it as "tx.socket". The socket, or
 * -errno. */
int socket_open(struct stage *stage);

#endif
