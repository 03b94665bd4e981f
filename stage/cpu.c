/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/cpu.h"

#include <errno.h>
#include <numa.h>
#include <sched.h>

int cpu_pin(int cpu)
{
    cpu_set_t set;

    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return -EINVAL;
    CPU_ZERO(&set);
    CPU_SET((unsigned int)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        return -errno;
    if (numa_available() >= 0)
        numa_set_localalloc();
    return 0;
}
