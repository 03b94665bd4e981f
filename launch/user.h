/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom the stages become once they have opened everything ([isolate] user).
 */
#ifndef TICKLINE_LAUNCH_USER_H
#define TICKLINE_LAUNCH_USER_H

#include "stage/config.h"

#include <sys/types.h>

struct user {
    uid_t uid;
    gid_t gid;
};

/*
 * Looks the user up, by name or number; with isolate.sandbox = no there is none to look up. 0, or
 * -EINVAL with one line in `error`: no such user, or root.
 */
int user_find(const struct config *config, struct user *user, char error[CONFIG_ERROR_MAX]);

#endif
