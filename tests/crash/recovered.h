/* SPDX-License-Identifier: Apache-2.0 */
/* What of a lane is found after a kill. Its sub-buffers must all be in memory still: none drained. */
#ifndef TICKLINE_TESTS_CRASH_RECOVERED_H
#define TICKLINE_TESTS_CRASH_RECOVERED_H

#include "shm/lane.h"

/* After a death: as many records are found as the shadow count says, or one more. The count is then
 * set to what was found, for the next life. */
void check_recovered(const struct lane *lane);

/* After the end: sealed packets hold what the counts say, in order of time. */
void check_lane_whole(const struct lane *lane);

#endif
