/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/handler.h"

#include <string.h>

static const struct handler *const handlers[] = {&handler_rot1, &handler_fizzbuzz, &handler_spin};

const struct handler *handler_find(const char *name)
{
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
        if (strcmp(handlers[i]->name, name) == 0)
            return handlers[i];
    }
    return NULL;
}

const char *handler_names(void)
{
    static char names[256];

    names[0] = '\0';
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
        if (i > 0)
            strncat(names, ", ", sizeof(names) - strlen(names) - 1);
        strncat(names, handlers[i]->name, sizeof(names) - strlen(names) - 1);
    }
    return names;
}
