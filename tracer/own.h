/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose the files of a run are while it is up: their folder's owner. A tracer makes its first ones as root and
 * the others as the user that it becomes, to whom the launcher has lent the folders (launch/folders.h).
 */
#ifndef TICKLINE_TRACER_OWN_H
#define TICKLINE_TRACER_OWN_H

#include <sys/stat.h>
#include <unistd.h>

/* Gives a file just made to the owner of its folder, where that is somebody else and can be done. */
static inline void own_by_folder(int folder, int fd)
{
    struct stat st;

    if (fstat(folder, &st) == 0 && st.st_uid != geteuid() && fchown(fd, st.st_uid, st.st_gid) < 0)
        return; /* it stays ours, and the launcher finds it so */
}

#endif
