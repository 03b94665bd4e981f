/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading INI text and overrides.
 *
 * inih walks the lines. It neither reports line numbers nor sections without keys, so the reader
 * below, which hands it the lines, counts them and looks at the section headers; it also refuses
 * what is not text. The first mistake ends the reading.
 */
#include "stage/config_read.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 2 * CONFIG_TEXT_MAX };

/* One line of UTF-8 without control characters, whatever went into it. */
void config_presentable(char *text)
{
    json_t *utf8 = json_string(text);
    for (char *c = text; *c != '\0'; c++) {
        if (iscntrl((unsigned char)*c) || (utf8 == NULL && !isascii((unsigned char)*c)))
            *c = '?';
    }
    json_decref(utf8);
}

int config_fail(struct config_loader *loader, const char *origin, const char *format, ...)
{
    va_list arguments;
    loader->failed = true;
    int used = snprintf(loader->error, CONFIG_ERROR_MAX, "%.*s: ", CONFIG_ORIGIN_MAX, origin);
    va_start(arguments, format);
    vsnprintf(loader->error + used, (size_t)(CONFIG_ERROR_MAX - used), format, arguments);
    va_end(arguments);
    config_presentable(loader->error);
    return -EINVAL;
}

static void origin_here(const struct config_loader *loader, char origin[CONFIG_ORIGIN_MAX])
{
    snprintf(origin, CONFIG_ORIGIN_MAX, "%.280s:%d", loader->name, loader->line);
    config_presentable(origin);
}

static void *field_of(struct config *config, const struct config_key *key)
{
    return (char *)config + key->offset;
}

int config_remember(struct config_origin *place, const char *value, const char *origin)
{
    free(place->value);
    free(place->origin);
    place->value = strdup(value);
    place->origin = strdup(origin);
    return place->value != NULL && place->origin != NULL ? 0 : -ENOMEM;
}

int config_set(struct config_loader *loader, int index, const char *text, const char *origin)
{
    const struct config_key *key = &config_keys[index];
    void *field = field_of(loader->config, key);
    char why[CONFIG_WHY_MAX], canonical[CONFIG_TEXT_MAX];
    if (config_value_parse(key, text, field, why) != 0)
        return config_fail(loader, origin, "%s.%s = %.80s: %s", key->section, key->name, text, why);
    config_value_format(key, field, canonical);
    return config_remember(&loader->config->origins[index], canonical, origin);
}

/* A key of a handler: any name, checked by the handler alone. */
static int set_item(struct config_loader *loader, const char *section, const char *name,
                    const char *value, const char *origin, int line)
{
    char why[CONFIG_WHY_MAX];
    struct config_item *item = loader->item;
    struct config_item *end = loader->item + loader->items;
    while (item < end && (strcmp(item->section, section) != 0 || strcmp(item->key, name) != 0))
        item++;
    if (item < end && line > 0 && item->line > 0)
        return config_fail(loader, origin, "%s.%s is given twice, first in line %d; remove one",
                           section, name, item->line);
    if (item == end && loader->items == CONFIG_ITEMS_MAX)
        return config_fail(loader, origin,
                           "%s.%s: expected at most %d keys of handlers; remove some", section,
                           name, CONFIG_ITEMS_MAX);
    if (name[0] == '\0' || strlen(name) >= sizeof(item->key) ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(name))
        return config_fail(loader, origin,
                           "%s.%.80s: expected a key of at most 63 of a-z, 0-9 and _; rename it",
                           section, name);
    if (value[0] == '\0' || strlen(value) >= sizeof(item->value))
        return config_fail(loader, origin, "%s.%s: expected a value of 1 to 255 bytes", section,
                           name);
    if (config_value_writable(value, why) != 0)
        return config_fail(loader, origin, "%s.%s = %.80s: %s", section, name, value, why);
    loader->items += item == end;
    snprintf(item->section, sizeof(item->section), "%s", section);
    snprintf(item->key, sizeof(item->key), "%s", name);
    snprintf(item->value, sizeof(item->value), "%s", value);
    snprintf(item->origin, sizeof(item->origin), "%s", origin);
    item->line = line;
    return 0;
}

static bool is_builtin(const char *handler)
{
    const char *words = config_keys[config_find("worker", "handler")].words;
    char word[CONFIG_HANDLER_NAME_MAX + 1];
    for (unsigned i = 0; config_word(words, i, word, sizeof(word)); i++) {
        if (strcmp(word, handler) == 0)
            return true;
    }
    return false;
}

/* Which handlers there are is known in the end, when worker.handler is. */
static int note_handler(struct config_loader *loader, const char *handler, const char *origin)
{
    if (is_builtin(handler) || strcmp(loader->foreign, handler) == 0)
        return 0;
    if (loader->foreign[0] != '\0')
        return config_fail(loader, origin,
                           "[handler.%s]: expected at most one handler of one's own, and "
                           "[handler.%s] is there; remove one",
                           handler, loader->foreign);
    snprintf(loader->foreign, sizeof(loader->foreign), "%s", handler);
    snprintf(loader->foreign_origin, sizeof(loader->foreign_origin), "%s", origin);
    return 0;
}

int config_read_handler(struct config_loader *loader)
{
    struct config *config = loader->config;
    char words[CONFIG_WHY_MAX] = "";
    if (config_handler_is_path(config)) {
        memcpy(config->handler.name, loader->foreign, sizeof(config->handler.name) - 1);
        return 0;
    }
    memcpy(config->handler.name, config->worker.handler, sizeof(config->handler.name) - 1);
    if (loader->foreign[0] == '\0')
        return 0;
    const char *list = config_keys[config_find("worker", "handler")].words;
    for (size_t i = 0, used = 0; list[i] != '\0' && used + 3 < sizeof(words); i++) {
        words[used++] = list[i] == '|' ? ',' : list[i];
        if (list[i] == '|')
            words[used++] = ' ';
    }
    return config_fail(loader, loader->foreign_origin,
                       "[handler.%s]: no such handler; expected one of %s", loader->foreign, words);
}

static int check_section(struct config_loader *loader, const char *section, const char *origin)
{
    char hint[CONFIG_WHY_MAX];
    const char *handler = strncmp(section, "handler.", 8) == 0 ? section + 8 : NULL;
    if (!config_section_known(section)) {
        config_hint_section(section, hint);
        return config_fail(loader, origin, "[%.80s]: no such section; %s", section, hint);
    }
    if (handler != NULL &&
        (strlen(handler) > CONFIG_HANDLER_NAME_MAX || strpbrk(handler, ". ") != NULL))
        return config_fail(loader, origin,
                           "[%.80s]: expected a handler's name of at most %d letters", section,
                           CONFIG_HANDLER_NAME_MAX);
    return handler != NULL ? note_handler(loader, handler, origin) : 0;
}

/* Index of the key, or -EINVAL. */
static int find_key(struct config_loader *loader, const char *section, const char *name,
                    const char *origin)
{
    char hint[CONFIG_WHY_MAX];
    int index = config_find(section, name);
    if (index >= 0)
        return index;
    config_hint_key(section, name, hint);
    if (section[0] == '\0')
        return config_fail(loader, origin, "%.80s stands before any [section]; %s", name, hint);
    return config_fail(loader, origin, "%.80s: no such key in [%s]; %s", name, section, hint);
}

/* A `key = value` of the file; inih's callback: 0 stops. */
static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct config_loader *loader = user;
    char origin[CONFIG_ORIGIN_MAX];
    origin_here(loader, origin);
    if (strncmp(section, "handler.", 8) == 0)
        return set_item(loader, section, name, value, origin, loader->line) == 0;
    int index = find_key(loader, section, name, origin);
    if (index < 0)
        return 0;
    if (loader->seen[index] != 0) {
        config_fail(loader, origin, "%s.%s is given twice, first in line %d; remove one", section,
                    name, loader->seen[index]);
        return 0;
    }
    loader->seen[index] = loader->line;
    return config_set(loader, index, value, origin) == 0;
}

/* `[section]`, with nothing but a comment behind it. */
static int check_header(struct config_loader *loader, const char *line, const char *origin)
{
    char section[128];
    const char *close = strchr(line, ']');
    if (close == NULL || close - line >= (ptrdiff_t)sizeof(section))
        return config_fail(loader, origin, "%.80s: expected [section]", line);
    const char *rest = close + 1 + strspn(close + 1, " \t");
    if (*rest != '\0' && *rest != ';' && *rest != '#')
        return config_fail(loader, origin,
                           "%.80s: expected nothing behind the ]; write it on a new line", line);
    snprintf(section, sizeof(section), "%.*s", (int)(close - line - 1), line + 1);
    return check_section(loader, section, origin);
}

static int check_line(struct config_loader *loader, const char *line, size_t length)
{
    char origin[CONFIG_ORIGIN_MAX];
    origin_here(loader, origin);
    for (size_t i = 0; i < length; i++) {
        if (iscntrl((unsigned char)line[i]) && line[i] != '\t')
            return config_fail(loader, origin,
                               "expected text, found the byte 0x%02x; is this an INI file?",
                               (unsigned char)line[i]);
    }
    const char *start = line + strspn(line, " \t");
    if (*start == '\0' || *start == ';' || *start == '#')
        return 0;
    if (*start == '[')
        return check_header(loader, start, origin);
    if (strpbrk(start, "=:") == NULL)
        return config_fail(loader, origin, "%.80s: expected key = value or [section]", start);
    return 0;
}

/* Hands inih the next line, like fgets; NULL at the end and after a mistake. */
static char *next_line(char *line, int size, void *user)
{
    struct config_loader *loader = user;
    if (loader->failed || loader->cursor == loader->end)
        return NULL;
    if (loader->line == 0 && loader->end - loader->cursor >= 3 &&
        memcmp(loader->cursor, "\xEF\xBB\xBF", 3) == 0)
        loader->cursor += 3;
    loader->line++;
    size_t left = (size_t)(loader->end - loader->cursor);
    const char *newline = memchr(loader->cursor, '\n', left);
    size_t length = newline != NULL ? (size_t)(newline - loader->cursor) : left;
    const char *text = loader->cursor;
    loader->cursor += length + (newline != NULL);
    if (length > 0 && text[length - 1] == '\r')
        length--;
    if (length >= (size_t)size) {
        char origin[CONFIG_ORIGIN_MAX];
        origin_here(loader, origin);
        config_fail(loader, origin, "expected a line of at most %d bytes; is this an INI file?",
                    size - 1);
        return NULL;
    }
    memcpy(line, text, length);
    line[length] = '\0';
    return check_line(loader, line, length) == 0 ? line : NULL;
}

int config_read_lines(struct config_loader *loader, const char *text, size_t length)
{
    static char comments[] = ";#";
    ini_allow_multiline = false; /* an indented line is a line */
    ini_inline_comment_prefixes = comments;
    ini_stop_on_first_error = true;
    ini_use_stack = false;
    ini_max_line = LINE_MAX_BYTES;
    ini_initial_alloc = LINE_MAX_BYTES;
    loader->cursor = text;
    loader->end = text + length;
    int result = ini_parse_stream(next_line, loader, on_value, loader);
    if (loader->failed)
        return -EINVAL;
    return result == 0 ? 0 : -ENOMEM;
}

/* `section.key=value`, or `section.key=value@ORIGIN` for a fill. */
int config_read_override(struct config_loader *loader, const struct config_override *override)
{
    char text[2 * CONFIG_TEXT_MAX];
    const char *origin = override->fill ? "--fill" : "command line";
    snprintf(text, sizeof(text), "%s", override->text);
    char *equals = strchr(text, '=');
    char *at = equals != NULL && override->fill ? strchr(equals, '@') : NULL;
    char *dot = equals != NULL ? equals : text;
    while (dot > text && *dot != '.')
        dot--;
    if (dot == text || strlen(override->text) >= sizeof(text) || (override->fill && at == NULL))
        return config_fail(loader, origin,
                           "%.80s: expected section.key=value%s, as in ring.depth=1024%s", text,
                           override->fill ? "@ORIGIN" : "", override->fill ? "@the capture" : "");
    *dot = *equals = '\0';
    char *value = equals + 1 + strspn(equals + 1, " ");
    if (at != NULL) {
        *at = '\0';
        config_presentable(at + 1);
        origin = at + 1;
    }
    for (char *last = value + strlen(value); last > value && last[-1] == ' '; last--)
        last[-1] = '\0';
    for (char *last = equals; last > dot + 1 && last[-1] == ' '; last--)
        last[-1] = '\0';
    if (check_section(loader, text, origin) != 0)
        return -EINVAL;
    if (strncmp(text, "handler.", 8) == 0)
        return set_item(loader, text, dot + 1, value, origin, 0);
    int index = find_key(loader, text, dot + 1, origin);
    if (index < 0)
        return index;
    if (override->fill && strcmp(config_keys[index].initial, "auto") != 0)
        return config_fail(loader, origin, "%s.%s: expected a key that can be auto; use --set",
                           text, dot + 1);
    if (override->fill && strcmp(loader->config->origins[index].value, "auto") != 0)
        return 0;
    return config_set(loader, index, value, origin);
}
