/* SPDX-License-Identifier: Apache-2.0 */
/* Receive stamps, as the kernel hands them over with what was received. */
#ifndef TICKLINE_STAGE_KERNEL_STAMP_H
#define TICKLINE_STAGE_KERNEL_STAMP_H

#include <stdint.h>
#include <sys/socket.h>

enum { KERNEL_STAMP_BYTES = 64 }; /* room for one SCM_TIMESTAMPNS or SCM_TIMESTAMPING */

/* REALTIME ns: the NIC's stamp where there is one, else the kernel's; 0: none. */
uint64_t kernel_stamp(struct msghdr *header);

#endif
