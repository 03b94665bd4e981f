/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One value: reading it strictly, and writing it in its one canonical form. Numbers and lists have
 * files of their own.
 */
#include "stage/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* `flow|key|round-robin` as `flow, key or round-robin`; bytes used of `out`. */
static size_t words_list(const char *words, char *out, size_t size)
{
    char word[16], next[16];
    size_t used = 0;
    bool more = config_word(words, 0, word, sizeof(word));
    for (unsigned i = 0; more && used < size; i++) {
        more = config_word(words, i + 1, next, sizeof(next));
        const char *joint = i == 0 ? "" : (more ? ", " : " or ");
        used += (size_t)snprintf(out + used, size - used, "%s%s", joint, word);
        memcpy(word, next, sizeof(word));
    }
    return used < size ? used : size - 1;
}

static void integer_expected(const struct config_key *key, char *out, size_t size)
{
    char low[32], high[32], what[32] = "a number";
    config_integer_format(key, key->min, low, sizeof(low));
    config_integer_format(key, key->max, high, sizeof(high));
    if (key->step > CONFIG_ANY)
        snprintf(what, sizeof(what), "a multiple of %u", key->step);
    else if (key->step == CONFIG_POWER_OF_TWO)
        snprintf(what, sizeof(what), "a power of two");
    else if (key->type == CONFIG_TIME)
        snprintf(what, sizeof(what), "a time");
    else if (key->type == CONFIG_BYTES)
        snprintf(what, sizeof(what), "a size");
    snprintf(out, size, "%s from %s to %s", what, low, high);
}

void config_value_expected(const struct config_key *key, char out[CONFIG_WHY_MAX])
{
    char what[160] = "";
    unsigned long long most = key->max;
    size_t used;
    switch (key->type) {
    case CONFIG_NAME:
        snprintf(what, sizeof(what), "1 to %llu letters, digits and any of %s", most, key->words);
        break;
    case CONFIG_PATH:
        snprintf(what, sizeof(what), "%s or the path of %s", key->initial,
                 key->words ? key->words : "a capture");
        break;
    case CONFIG_WORD:
    case CONFIG_CHOICE:
    case CONFIG_SWITCH:
        words_list(key->words, what, sizeof(what));
        break;
    case CONFIG_HANDLER:
        used = words_list(key->words, what, sizeof(what));
        snprintf(what + used, sizeof(what) - used, ", or ./PATH.so");
        break;
    case CONFIG_RATE:
        snprintf(what, sizeof(what), "a rate a second from %llu to %llu",
                 (unsigned long long)key->min, most);
        break;
    case CONFIG_SHARE:
        snprintf(what, sizeof(what), "a share from 0 to 1");
        break;
    case CONFIG_SPEED:
        snprintf(what, sizeof(what), "top, a factor from 0.001x to 1000x, or 1pps to 10Mpps");
        break;
    case CONFIG_FLUSH:
        snprintf(what, sizeof(what), "replies up to 256, a time up to 100ms, or both: 16,100us");
        break;
    case CONFIG_SIZES:
        snprintf(what, sizeof(what), "bytes up to %llu: 8, 8-64, exp:32 or 8:90,256:9", most);
        break;
    case CONFIG_CPUS:
        if (most == 1)
            snprintf(what, sizeof(what), "one CPU below %d", CONFIG_CPUS_MAX);
        else
            snprintf(what, sizeof(what), "at most %llu CPUs below %d, written 1,3-5", most,
                     CONFIG_CPUS_MAX);
        break;
    case CONFIG_NODE:
        snprintf(what, sizeof(what), "a node from 0 to %llu", most);
        break;
    case CONFIG_ENDPOINT:
        snprintf(what, sizeof(what), "ADDRESS:PORT, numeric, IPv6 in brackets");
        break;
    case CONFIG_ENDPOINTS:
        snprintf(what, sizeof(what), "ADDRESS:PORT,..., numeric, IPv6 in brackets, none twice");
        break;
    default:
        integer_expected(key, what, sizeof(what));
        break;
    }
    snprintf(out, CONFIG_WHY_MAX, "%s%s%s", key->special != NULL ? key->special : "",
             key->special != NULL ? ", or " : "", what);
}

/* `expected …; try …`; without a better idea the default is tried. */
int config_refuse(const struct config_key *key, const char *attempt, char why[CONFIG_WHY_MAX])
{
    char expected[CONFIG_WHY_MAX];
    config_value_expected(key, expected);
    if (attempt == NULL)
        attempt = key->initial;
    snprintf(why, CONFIG_WHY_MAX, "expected %.180s%s%.48s", expected,
             attempt[0] != '\0' ? "; try " : "", attempt);
    return -EINVAL;
}

static int name_parse(const struct config_key *key, const char *text, char *field, char *why)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)text[i]) && strchr(key->words, text[i]) == NULL)
            return config_refuse(key, NULL, why);
    }
    if (length == 0 || length > key->max)
        return config_refuse(key, NULL, why);
    memcpy(field, text, length + 1);
    return 0;
}

static int path_parse(const struct config_key *key, const char *text, char *field, char *why)
{
    size_t length = strlen(text);
    if (length == 0 || length > key->max)
        return config_refuse(key, NULL, why);
    if (config_value_writable(text, why) != 0)
        return -EINVAL;
    memcpy(field, text, length + 1);
    return 0;
}

static int word_parse(const struct config_key *key, const char *text, void *field, char *why)
{
    char word[16] = "", nearest[16] = ""; /* the field gets all of it */
    unsigned best = UINT32_MAX;
    for (uint32_t i = 0; config_word(key->words, i, word, sizeof(word)); i++) {
        unsigned distance = config_distance(text, word);
        if (distance == 0) {
            bool first = i == 0;
            if (key->type == CONFIG_CHOICE)
                memcpy(field, &i, sizeof(i));
            else if (key->type == CONFIG_SWITCH)
                memcpy(field, &first, sizeof(first));
            else
                memcpy(field, word, sizeof(word));
            return 0;
        }
        if (distance < best) {
            best = distance;
            memcpy(nearest, word, sizeof(nearest));
        }
    }
    return config_refuse(key, best <= 2 ? nearest : NULL, why);
}

static int node_parse(const struct config_key *key, const char *text, int32_t *field, char *why)
{
    if (strlen(text) == 0 || strlen(text) > 4 || strspn(text, "0123456789") != strlen(text) ||
        strtoul(text, NULL, 10) > key->max)
        return config_refuse(key, NULL, why);
    *field = (int32_t)strtoul(text, NULL, 10);
    return 0;
}

/* The field's empty value, which `auto` or `never` stands for. */
static int special_parse(const struct config_key *key, void *field)
{
    switch (key->type) {
    case CONFIG_NODE:
        *(int32_t *)field = -1;
        break;
    case CONFIG_ENDPOINT:
        *(struct config_endpoint *)field = (struct config_endpoint){0};
        break;
    case CONFIG_TIME:
        *(uint64_t *)field = 0;
        break;
    default: /* a count of CPUs or of endpoints, or bytes */
        *(uint32_t *)field = 0;
        break;
    }
    return 0;
}

int config_value_parse(const struct config_key *key, const char *text, void *field,
                       char why[CONFIG_WHY_MAX])
{
    if (key->special != NULL && strcmp(text, key->special) == 0)
        return special_parse(key, field);
    switch (key->type) {
    case CONFIG_NAME:
        return name_parse(key, text, field, why);
    case CONFIG_PATH:
        return path_parse(key, text, field, why);
    case CONFIG_HANDLER:
        if (strchr(text, '/') != NULL)
            return path_parse(key, text, field, why);
        return word_parse(key, text, field, why);
    case CONFIG_WORD:
    case CONFIG_CHOICE:
    case CONFIG_SWITCH:
        return word_parse(key, text, field, why);
    case CONFIG_RATE:
    case CONFIG_SHARE:
        return config_real_parse(key, text, field, why);
    case CONFIG_SPEED:
        return config_speed_parse(key, text, field, why);
    case CONFIG_FLUSH:
        return config_flush_parse(key, text, field, why);
    case CONFIG_SIZES:
        return config_sizes_parse(key, text, field, why);
    case CONFIG_CPUS:
        return config_cpus_parse(key, text, field, why);
    case CONFIG_NODE:
        return node_parse(key, text, field, why);
    case CONFIG_ENDPOINT:
        return config_endpoint_read(text, strlen(text), field) ? 0 : config_refuse(key, NULL, why);
    case CONFIG_ENDPOINTS:
        return config_endpoints_parse(key, text, field, why);
    default:
        return config_integer_parse(key, text, field, why);
    }
}

void config_value_format(const struct config_key *key, const void *field, char out[CONFIG_TEXT_MAX])
{
    uint32_t small;
    memcpy(&small, field, sizeof(small));
    switch (key->type) {
    case CONFIG_CHOICE:
        config_word(key->words, small, out, CONFIG_TEXT_MAX);
        break;
    case CONFIG_SWITCH:
        config_word(key->words, *(const bool *)field ? 0 : 1, out, CONFIG_TEXT_MAX);
        break;
    case CONFIG_NAME:
    case CONFIG_PATH:
    case CONFIG_HANDLER:
    case CONFIG_WORD:
    case CONFIG_SPEED:
    case CONFIG_SIZES:
        snprintf(out, CONFIG_TEXT_MAX, "%s", (const char *)field);
        break;
    case CONFIG_RATE:
    case CONFIG_SHARE:
        config_real_format(*(const double *)field, out, CONFIG_TEXT_MAX);
        break;
    case CONFIG_FLUSH:
        config_flush_format(field, out, CONFIG_TEXT_MAX);
        break;
    case CONFIG_CPUS:
        config_cpus_format(field, out, CONFIG_TEXT_MAX);
        break;
    case CONFIG_NODE:
        snprintf(out, CONFIG_TEXT_MAX, "%d", *(const int32_t *)field);
        break;
    case CONFIG_ENDPOINT:
        config_endpoints_format(field, 1, out, CONFIG_TEXT_MAX);
        break;
    case CONFIG_ENDPOINTS:
        config_endpoints_format(config_endpoints_list(field), small, out, CONFIG_TEXT_MAX);
        break;
    default:
        config_integer_format(key, config_value_integer(key, field), out, CONFIG_TEXT_MAX);
        break;
    }
    if (config_value_is_special(key, field))
        snprintf(out, CONFIG_TEXT_MAX, "%s", key->special);
}

uint64_t config_value_integer(const struct config_key *key, const void *field)
{
    if (key->type == CONFIG_U32 || key->type == CONFIG_BYTES32)
        return *(const uint32_t *)field;
    return *(const uint64_t *)field;
}

bool config_value_is_special(const struct config_key *key, const void *field)
{
    if (key->special == NULL)
        return false;
    if (key->type == CONFIG_NODE)
        return *(const int32_t *)field == -1;
    if (key->type == CONFIG_ENDPOINT)
        return ((const struct config_endpoint *)field)->port == 0;
    if (key->type == CONFIG_TIME || key->type == CONFIG_BYTES)
        return *(const uint64_t *)field == 0;
    return *(const uint32_t *)field == 0;
}

int config_value_writable(const char *text, char why[CONFIG_WHY_MAX])
{
    json_t *utf8 = json_string(text);
    json_decref(utf8);
    snprintf(why, CONFIG_WHY_MAX, "expected text in UTF-8 without control characters");
    if (utf8 == NULL)
        return -EINVAL;
    for (const char *c = text; *c != '\0'; c++) {
        if (iscntrl((unsigned char)*c))
            return -EINVAL;
        if ((*c == ';' || *c == '#') && (c == text || c[-1] == ' ')) {
            snprintf(why, CONFIG_WHY_MAX,
                     "a %c after a space begins a comment in a configuration; rename it", *c);
            return -EINVAL;
        }
    }
    return 0;
}
