/* SPDX-License-Identifier: Apache-2.0 */
/* tx.to as the kernel wants it. */
#ifndef TICKLINE_TX_ADDRESS_H
#define TICKLINE_TX_ADDRESS_H

#include "stage/stage.h"

#include <sys/socket.h>

/* 0; or -EINVAL, said by stage_error. */
int address_of_to(struct stage *stage, struct sockaddr_storage *address, socklen_t *length);

#endif
