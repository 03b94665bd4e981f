/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/io.h"

#include <string.h>

static int probe_ring(void)
{
    struct io_uring ring;
    struct io_uring_params params = {.flags =
                                         IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};

    int err = io_uring_queue_init_params(8, &ring, &params);
    if (err == 0)
        io_uring_queue_exit(&ring);
    return err;
}

static const char *refusal(int err)
{
    switch (err) {
    case -ENOSYS:
        return "the kernel has no io_uring";
    case -EPERM:
        return "io_uring is refused here (sysctl kernel.io_uring_disabled, or a container's "
               "filter)";
    case -EINVAL:
        return "the kernel's io_uring is older than 6.1 (no DEFER_TASKRUN)";
    case -ENOMEM:
        return "no locked memory for io_uring (ulimit -l)";
    default:
        return "io_uring cannot be set up";
    }
}

int io_choose(enum config_io asked, uint32_t sockets, struct io_choice *choice)
{
    if (asked == IO_PLAIN) {
        *choice = (struct io_choice){false, "asked for"};
        return 0;
    }
    if (asked == IO_AUTO && sockets == 1) {
        *choice = (struct io_choice){false, "one socket: a plain call a turn is the shorter way"};
        return 0;
    }
    int err = probe_ring();
    if (err < 0) {
        *choice = (struct io_choice){false, refusal(err)};
        return asked == IO_URING ? err : 0;
    }
    *choice = (struct io_choice){true, asked == IO_URING
                                           ? "asked for"
                                           : "many sockets: one ring instead of a call for each"};
    return 0;
}
