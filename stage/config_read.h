/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the configuration: what is under way while one is loaded. For config.c and
 * config_read.c.
 */
#ifndef TICKLINE_STAGE_CONFIG_READ_H
#define TICKLINE_STAGE_CONFIG_READ_H

#include "stage/config_table.h"

enum {
    CONFIG_ITEMS_MAX = 256,
    CONFIG_ORIGIN_MAX = 300,
};

/* A key of some [handler.NAME]; those of the selected handler are kept in the end. */
struct config_item {
    char section[48];
    char key[64];
    char value[256];
    char origin[CONFIG_ORIGIN_MAX];
    int line;
};

struct config_loader {
    struct config *config;
    const char *name; /* of the file */
    const char *cursor, *end;
    int line;
    int *seen; /* line of each key of the table, 0: not yet */
    struct config_item *item;
    uint32_t items;
    /* the first [handler.NAME] of no handler that we know: right where worker.handler is a path */
    char foreign[48];
    char foreign_origin[CONFIG_ORIGIN_MAX];
    bool failed;
    char *error;
};

/* Puts `origin: …` into loader->error, in one presentable line. Returns -EINVAL. */
int config_fail(struct config_loader *loader, const char *origin, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Checks and sets one key of the table. 0, -EINVAL or -ENOMEM. */
int config_set(struct config_loader *loader, int index, const char *text, const char *origin);

/* Reads INI text. 0, -EINVAL or -ENOMEM. */
int config_read_lines(struct config_loader *loader, const char *text, size_t length);

/* The handler's own section, once worker.handler is settled. 0, or -EINVAL. */
int config_read_handler(struct config_loader *loader);

/* Applies one --set or --fill. 0, -EINVAL or -ENOMEM. */
int config_read_override(struct config_loader *loader, const struct config_override *override);

/* Keeps copies of the texts. 0 or -ENOMEM. */
int config_remember(struct config_origin *place, const char *value, const char *origin);

#endif
