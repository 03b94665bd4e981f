/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/recovered.h"

#include "tests/unit.h"

void check_recovered(const struct lane *lane)
{
    struct lane_control *control = lane->control;
    uint64_t sealed = load_acquire(&control->sealed);
    uint64_t shadow = load_relaxed(&control->shadow);
    uint64_t found = 0;

    CU_ASSERT_FATAL(sealed <= lane->count);
    for (uint64_t number = 0; number < sealed; number++)
        found += lane_packet(lane, number)->records;
    if (load_relaxed(&control->opened) == sealed + 1)
        found += lane_scan(lane, sealed, tsc_read()).records;
    CU_ASSERT(found == shadow || found == shadow + 1);
    store_relaxed(&control->shadow, found);
}

void check_lane_whole(const struct lane *lane)
{
    const struct lane_control *control = lane->control;
    uint64_t sealed = load_acquire(&control->sealed);
    uint64_t records = 0;
    uint64_t last = 0;
    unsigned int wrong = 0;

    for (uint64_t number = 0; number < sealed; number++) {
        const struct lane_packet *packet = lane_packet(lane, number);
        wrong += packet->begin < last || packet->end < packet->begin;
        last = packet->end;
        records += packet->records;
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(load_relaxed(&control->opened), sealed);
    CU_ASSERT_EQUAL(load_relaxed(&control->records), records);
    CU_ASSERT_EQUAL(load_relaxed(&control->shadow), records);
    CU_ASSERT_EQUAL(load_relaxed(&control->closed), 1);
}
