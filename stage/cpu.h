/* SPDX-License-Identifier: Apache-2.0 */
/* Pinning of the calling thread. Done before memory is touched, so that pages land on the CPU's own
 * node. */
#ifndef TICKLINE_STAGE_CPU_H
#define TICKLINE_STAGE_CPU_H

/* Moves the calling thread to `cpu` and keeps it there. 0, or -EINVAL: no such CPU, or not allowed
 * to us. */
int cpu_pin(int cpu);

#endif
