/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring restrictions: a ring that can do what its stage needs and nothing else. A system call
 * filter sees io_uring_enter, not what is submitted by it.
 */
#ifndef TICKLINE_STAGE_IO_RESTRICT_H
#define TICKLINE_STAGE_IO_RESTRICT_H

#include <liburing.h>
#include <stdint.h>

enum { IO_RESTRICT_MAX = 16 };

/*
 * Enables a ring that was set up with IORING_SETUP_R_DISABLED. From then on it takes these `count`
 * operations (IORING_OP_…, at most IO_RESTRICT_MAX), with no flag but IOSQE_BUFFER_SELECT, and no
 * registration at all: another operation completes with -EACCES, a registration fails with it. What
 * is to be registered is registered before, what is to be submitted after: a disabled ring takes
 * nothing. 0 or -errno.
 */
int io_restrict(struct io_uring *ring, const uint8_t *operations, uint32_t count);

#endif
