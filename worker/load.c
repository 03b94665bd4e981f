/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/load.h"

#include "shm/points.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const struct tickline_handler *const handlers[] = {
    &handler_rot1,      &handler_fizzbuzz, &handler_spin,
    &handler_cachewalk, &handler_alloc,    &handler_book,
};

const struct tickline_handler *handler_find(const char *name)
{
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
        if (strcmp(handlers[i]->name, name) == 0)
            return handlers[i];
    }
    return NULL;
}

static bool made_of(const char *text, const char *more, size_t most)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    size_t length = text ? strnlen(text, most + 1) : 0;

    for (size_t i = 0; i < length; i++) {
        if (!strchr(letters, text[i]) && !strchr(more, text[i]))
            return false;
    }
    return length > 0 && length <= most;
}

static bool is_taken(const struct tickline_handler *handler, uint32_t index)
{
    const char *name = handler->points[index].name;

    for (uint32_t i = 0; i < point_count; i++) {
        if (strcmp(point_list[i].name, name) == 0)
            return true;
    }
    for (uint32_t i = 0; i < index; i++) {
        if (strcmp(handler->points[i].name, name) == 0)
            return true;
    }
    return strcmp(name, "kernel") == 0;
}

static const char *wrong_point(const struct tickline_handler *handler, uint32_t index)
{
    const struct tickline_point *point = &handler->points[index];

    if (!made_of(point->name, "_", 23))
        return "a point's name is at most 23 of a-z, 0-9 and _";
    if (!point->kind || (strcmp(point->kind, "work") != 0 && strcmp(point->kind, "wait") != 0))
        return "a point's kind is \"work\" or \"wait\"";
    if (!point->sentence || !point->sentence[0] || strnlen(point->sentence, 128) == 128)
        return "a point's sentence has 1 to 127 bytes";
    return is_taken(handler, index) ? "a point has the name of another one" : NULL;
}

/* What it declares that cannot be, or NULL. */
static const char *wrong_with(const struct tickline_handler *handler)
{
    if (!made_of(handler->name, "_-", CONFIG_HANDLER_NAME_MAX))
        return "its name is at most 31 of a-z, 0-9, _ and -";
    if (!handler->handle)
        return "it has no handle()";
    if (handler->state > TICKLINE_STATE_LOST)
        return "its state is none of enum tickline_state";
    if (handler->point_count > TICKLINE_POINTS_MAX || (handler->point_count && !handler->points))
        return "it declares more than 16 points, or none where it says there are";
    for (uint32_t i = 0; i < handler->point_count; i++) {
        const char *wrong = wrong_point(handler, i);
        if (wrong)
            return wrong;
    }
    return NULL;
}

const struct tickline_handler *handler_load(const struct config *config, char why[CONFIG_ERROR_MAX])
{
    const char *path = config->worker.handler;

    if (!config_handler_is_path(config))
        return handler_find(path); /* a word of the list, or it would not have been read */
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        snprintf(why, CONFIG_ERROR_MAX, "%.300s; expected a shared object", dlerror());
        return NULL;
    }
    const struct tickline_handler *handler = dlsym(object, TICKLINE_HANDLER_SYMBOL);
    if (!handler) {
        snprintf(why, CONFIG_ERROR_MAX,
                 "it has no symbol " TICKLINE_HANDLER_SYMBOL "; see tickline/handler.h");
        return NULL;
    }
    if (handler->abi != TICKLINE_HANDLER_ABI) {
        snprintf(why, CONFIG_ERROR_MAX,
                 "it has version %u of the handler ABI, this tickline has %u; build it against "
                 "this tickline/handler.h",
                 handler->abi, TICKLINE_HANDLER_ABI);
        return NULL;
    }
    const char *wrong = wrong_with(handler);
    if (wrong)
        snprintf(why, CONFIG_ERROR_MAX, "%s; see tickline/handler.h", wrong);
    return wrong ? NULL : handler;
}
