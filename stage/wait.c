/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/wait.h"

#include "shm/lane.h"

#include <sched.h>

void wait_yield(struct cell *cell)
{
    sched_yield();
    store_relaxed(&cell->resumed, tsc_read());
}
