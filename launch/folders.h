/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders of a run directory. The tracer runs as another user and makes files while the pipeline is
 * up, so the folders that are its alone belong to that user for so long: trace/, snapshots/,
 * wire/ingress/. Nobody else opens anything in them by name meanwhile; the run directory itself, log/
 * and wire/ stay the caller's.
 *
 * A launcher that is killed gives nothing back. The run is whole then and can be read; `tickline
 * clean` gives it back.
 */
#ifndef TICKLINE_LAUNCH_FOLDERS_H
#define TICKLINE_LAUNCH_FOLDERS_H

#include "launch/user.h"

/* Makes the folders that this configuration needs and that are not there. 0 or -errno. */
int folders_make(int run_folder, const struct config *config);

/* Gives the tracer's folders to this user. 0, or -errno and all is as it was. */
int folders_lend(int run_folder, const struct user *user);

/*
 * After the tracer has ended: they and what is in them belong to the run directory's owner again, and
 * what is neither file nor folder is removed. Empty ones go. Follows no link, allocates nothing, may
 * be called by a signal handler and where nothing is lent.
 */
void folders_take_back(int run_folder);

#endif
