/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/io_restrict.h"

#include <errno.h>

int io_restrict(struct io_uring *ring, const uint8_t *operations, uint32_t count)
{
    struct io_uring_restriction list[IO_RESTRICT_MAX + 1] = {{0}};

    if (count > IO_RESTRICT_MAX)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++) {
        list[i].opcode = IORING_RESTRICTION_SQE_OP;
        list[i].sqe_op = operations[i];
    }
    list[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    list[count].sqe_flags = IOSQE_BUFFER_SELECT;
    /* liburing has functions for both; Debian 12's library does not export them. */
    int fd = ring->ring_fd;
    int err = io_uring_register((unsigned)fd, IORING_REGISTER_RESTRICTIONS, list, count + 1);
    return err < 0 ? err : io_uring_register((unsigned)fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}
