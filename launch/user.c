/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/user.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>

int user_find(const struct config *config, struct user *user, char error[CONFIG_ERROR_MAX])
{
    const char *name = config->isolate.user;
    char *end;

    if (config->isolate.sandbox == WISH_NO)
        return 0;
    uid_t number = (uid_t)strtoul(name, &end, 10);
    const struct passwd *entry = *end ? getpwnam(name) : getpwuid(number);
    if (*end && !entry)
        return config_blame(config, "isolate.user", error,
                            "no such user; expected one of: getent passwd, try nobody");
    *user = (struct user){number, (gid_t)number};
    if (entry)
        *user = (struct user){entry->pw_uid, entry->pw_gid};
    return user->uid == 0 ? config_blame(config, "isolate.user", error,
                                         "expected a user with fewer rights than root, try nobody")
                          : 0;
}
