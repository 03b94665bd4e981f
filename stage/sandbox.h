/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Least privilege: what a stage gives up once it has opened everything.
 *
 *   user          becomes [isolate] user, without supplementary groups
 *   capabilities  none: permitted, effective, inheritable, ambient, bounding
 *   exec          gains nothing any more (no_new_privs)
 *   system calls  those of the stage's table (sandbox_table.c), by seccomp; any other ends it
 *
 * A call outside the table is not made. The stage says which one it was, on stderr and in its cell
 * (state failed), and ends by SIGSYS: a line for a person, where the kernel's own way of killing has
 * none. Nothing is lost by that way: the handler cannot be exchanged, since rt_sigaction is in no
 * table.
 */
#ifndef TICKLINE_STAGE_SANDBOX_H
#define TICKLINE_STAGE_SANDBOX_H

#include "stage/stage.h"

/*
 * After open(), before READY: nothing that follows may need a right. Notes `isolate.user` and
 * `isolate.sandbox`. 0; -EPERM with the error said where [isolate] sandbox = need and something could
 * not be had; -ESRCH with the error said where the launcher has died meanwhile.
 */
int sandbox_enter(struct stage *stage);

#endif
