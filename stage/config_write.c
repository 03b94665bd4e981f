/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The effective configuration: asking for a value, and writing all of them as INI or JSON.
 */
#include "stage/config_table.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <string.h>

static int index_of(const char *key)
{
    char section[64];
    const char *dot = strchr(key, '.');
    if (dot == NULL || dot - key >= (ptrdiff_t)sizeof(section))
        return -1;
    snprintf(section, sizeof(section), "%.*s", (int)(dot - key), key);
    return config_find(section, dot + 1);
}

const char *config_text(const struct config *config, const char *key)
{
    int index = index_of(key);
    return index >= 0 ? config->origins[index].value : NULL;
}

const char *config_handler_get(const struct config *config, const char *key)
{
    for (uint32_t i = 0; i < config->handler.count; i++) {
        if (strcmp(config->handler.item[i].key, key) == 0)
            return config->handler.item[i].value;
    }
    return NULL;
}

/* Value and origin of a key, the handler's own included; NULL where it was not written. */
static const struct config_origin *origin_of(const struct config *config, const char *key)
{
    const char *name = strrchr(key, '.');
    int index = index_of(key);
    if (index >= 0)
        return &config->origins[index];
    for (uint32_t i = 0; strncmp(key, "handler.", 8) == 0 && i < config->handler.count; i++) {
        if (strcmp(config->handler.item[i].key, name + 1) == 0)
            return &config->origins[config_key_count + i];
    }
    return NULL;
}

bool config_handler_is_path(const struct config *config)
{
    return strchr(config->worker.handler, '/') != NULL;
}

int config_handler_blame(const struct config *config, const char *key, const char *why,
                         char error[CONFIG_ERROR_MAX])
{
    char full[128];
    snprintf(full, sizeof(full), "handler.%s.%s", config->handler.name, key);
    return config_blame(config, full, error, "%s", why);
}

int config_handler_value(const struct config *config, const char *key,
                         const struct config_handler_want *want, void *value,
                         char why[CONFIG_ERROR_MAX])
{
    static const enum config_type types[] = {
        [HANDLER_TIME] = CONFIG_TIME,   [HANDLER_BYTES] = CONFIG_BYTES,
        [HANDLER_COUNT] = CONFIG_U64,   [HANDLER_SHARE] = CONFIG_SHARE,
        [HANDLER_WORD] = CONFIG_CHOICE,
    };
    const struct config_key like = {.type = types[want->type],
                                    .initial = want->initial,
                                    .words = want->words,
                                    .min = want->min,
                                    .max = want->type == HANDLER_SHARE ? 1 : want->max,
                                    .step = CONFIG_ANY};
    const char *text = config_handler_get(config, key);
    char short_why[CONFIG_WHY_MAX];
    int err = config_value_parse(&like, text != NULL ? text : want->initial, value, short_why);
    if (err < 0)
        snprintf(why, CONFIG_ERROR_MAX, "%s", short_why);
    return err;
}

int config_blame(const struct config *config, const char *key, char error[CONFIG_ERROR_MAX],
                 const char *format, ...)
{
    va_list arguments;
    const struct config_origin *at = origin_of(config, key);
    int used = snprintf(error, CONFIG_ERROR_MAX,
                        "%.280s: %.48s = %.80s: ", at != NULL ? at->origin : "configuration", key,
                        at != NULL ? at->value : "?");
    va_start(arguments, format);
    vsnprintf(error + used, (size_t)(CONFIG_ERROR_MAX - used), format, arguments);
    va_end(arguments);
    config_presentable(error);
    return -EINVAL;
}

int config_write(const struct config *config, FILE *out)
{
    const char *section = "";
    fprintf(out, "; effective configuration; behind each value stands where it came from\n");
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        if (strcmp(section, key->section) != 0)
            fprintf(out, "\n[%s]\n", key->section);
        section = key->section;
        fprintf(out, "%s = %s ; %s\n", key->name, config->origins[i].value,
                config->origins[i].origin);
    }
    if (config->handler.count > 0)
        fprintf(out, "\n[handler.%s]\n", config->handler.name);
    for (uint32_t i = 0; i < config->handler.count; i++) {
        fprintf(out, "%s = %s ; %s\n", config->handler.item[i].key, config->handler.item[i].value,
                config->origins[config_key_count + i].origin);
    }
    return ferror(out) ? -EIO : 0;
}

/* The number a value is, in its base unit; NULL for words. */
static json_t *number_of(const struct config *config, const struct config_key *key)
{
    const void *field = (const char *)config + key->offset;
    if (config_value_is_special(key, field))
        return NULL;
    switch (key->type) {
    case CONFIG_U32:
    case CONFIG_U64:
    case CONFIG_BYTES32:
    case CONFIG_BYTES:
    case CONFIG_TIME:
        return json_integer((json_int_t)config_value_integer(key, field));
    case CONFIG_NODE:
        return json_integer(*(const int32_t *)field);
    case CONFIG_RATE:
    case CONFIG_SHARE:
        return json_real(*(const double *)field);
    default:
        return NULL;
    }
}

static int add_value(json_t *object, const char *section, const char *name,
                     const struct config_origin *at, json_t *number)
{
    char key[128];
    json_t *entry =
        json_pack("{s:s, s:o*, s:s}", "value", at->value, "number", number, "origin", at->origin);
    snprintf(key, sizeof(key), "%s.%s", section, name);
    return entry != NULL && json_object_set_new(object, key, entry) == 0 ? 0 : -ENOMEM;
}

int config_write_json(const struct config *config, FILE *out)
{
    json_t *object = json_object();
    char section[80];
    int result = object != NULL ? 0 : -ENOMEM;
    for (size_t i = 0; i < config_key_count && result == 0; i++) {
        const struct config_key *key = &config_keys[i];
        result =
            add_value(object, key->section, key->name, &config->origins[i], number_of(config, key));
    }
    snprintf(section, sizeof(section), "handler.%.64s", config->handler.name);
    for (uint32_t i = 0; i < config->handler.count && result == 0; i++)
        result = add_value(object, section, config->handler.item[i].key,
                           &config->origins[config_key_count + i], NULL);
    if (result == 0 && (json_dumpf(object, out, JSON_INDENT(1)) != 0 || fputc('\n', out) == EOF))
        result = -EIO;
    json_decref(object);
    return result;
}
