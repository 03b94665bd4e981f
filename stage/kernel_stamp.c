/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/kernel_stamp.h"

#include <string.h>
#include <time.h>

uint64_t kernel_stamp(struct msghdr *header)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        struct timespec ts[3] = {0}; /* SCM_TIMESTAMPING: kernel, nothing, NIC */
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_TIMESTAMPNS)
            memcpy(ts, CMSG_DATA(c), sizeof(ts[0]));
        else if (c->cmsg_type == SCM_TIMESTAMPING)
            memcpy(ts, CMSG_DATA(c), sizeof(ts));
        else
            continue;
        const struct timespec *best = ts[2].tv_sec != 0 ? &ts[2] : &ts[0];
        return (uint64_t)best->tv_sec * 1000000000ULL + (uint64_t)best->tv_nsec;
    }
    return 0;
}
