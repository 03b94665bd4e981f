/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A crash inside of a handler is told as its own: who, where, in which request. The process then dies
 * by the signal, as it would have.
 *
 * The request is counted in struct cells. Who has crashed in the same one twice finds it refused by
 * the third worker, so that one request cannot end a run.
 */
#ifndef TICKLINE_WORKER_CRASH_H
#define TICKLINE_WORKER_CRASH_H

#include "stage/stage.h"
#include "worker/host.h"

enum { CRASH_POISON = 2 };

/* From open(): SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT, on a stack of their own. `host` and
 * `stage` outlive the process. */
int crash_arm(struct stage *stage, const struct host *host);

#endif
