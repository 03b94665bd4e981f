/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/tap.h"

#include <errno.h>

enum { TRIES = 1000 };

struct region_want tapped_want(uint64_t epoch)
{
    const uint64_t parts[] = {
        sizeof(struct tapped),
        offsetof(struct tapped, step),
        sizeof(struct tap_counts),
        offsetof(struct tapped, packets),
    };
    return (struct region_want){
        .kind = REGION_TAPPED,
        .layout = region_hash(parts, sizeof(parts) / sizeof(parts[0])),
        .epoch = epoch,
        .size_min = TAPPED_OFFSET + sizeof(struct tapped),
    };
}

int tapped_create(struct region *region, uint64_t epoch)
{
    const struct region_want want = tapped_want(epoch);
    const struct region_place place = {.numa_node = -1};

    return region_create(region, "tickline-tapped", &want, &place,
                         TAPPED_OFFSET + sizeof(struct tapped));
}

int tapped_read(const struct tapped *tapped, struct tap_step *step)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t done = load_acquire(&tapped->done);
        *step = tapped->step[done % 2];
        atomic_thread_fence(memory_order_acquire);
        if (load_relaxed(&tapped->done) == done)
            return 0;
    }
    return -EAGAIN;
}
