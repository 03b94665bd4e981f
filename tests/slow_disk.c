/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that takes its time, for LD_PRELOAD: every pwritev(2), which only the tracer uses, waits first,
 * the first TICKLINE_SLOW_WRITES of a process. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    static long writes;
    const char *slow = getenv("TICKLINE_SLOW_WRITES");

    if (slow && writes++ < strtol(slow, NULL, 10))
        nanosleep(&(struct timespec){.tv_nsec = 400000000}, NULL);
    return syscall(SYS_pwritev, fd, iov, count, offset, 0L);
}
