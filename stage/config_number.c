/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers with units. What is read is exact or refused: `0.5us` is 500 ns, `0.5ns` is an error.
 */
#include "stage/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit units_count[] = {
    {"", 1}, {"k", 1000}, {"M", 1000000}, {"G", 1000000000}, {NULL, 0}};
static const struct unit units_rate[] = {{"", 1},       {"k", 1000},      {"M", 1000000}, {"/s", 1},
                                         {"k/s", 1000}, {"M/s", 1000000}, {NULL, 0}};
static const struct unit units_bytes[] = {{"B", 1},         {"KiB", 1 << 10}, {"MiB", 1 << 20},
                                          {"GiB", 1 << 30}, {"", 1},          {NULL, 0}};
static const struct unit units_time[] = {
    {"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {NULL, 0}};

/* The value is digits * factor / scale, so that `0.5us` is exact. */
struct number {
    uint64_t digits;
    uint64_t factor;
    uint64_t scale;
};

static bool number_read(const char *text, const struct unit *units, struct number *number)
{
    bool fraction = false, any = false;
    *number = (struct number){.scale = 1};
    for (; isdigit((unsigned char)*text) || (*text == '.' && any && !fraction); text++) {
        if (*text == '.') {
            fraction = true;
            any = false;
            continue;
        }
        any = true;
        if (__builtin_mul_overflow(number->digits, UINT64_C(10), &number->digits) ||
            __builtin_add_overflow(number->digits, (uint64_t)(*text - '0'), &number->digits))
            return false;
        if (fraction && __builtin_mul_overflow(number->scale, UINT64_C(10), &number->scale))
            return false;
    }
    if (!any)
        return false;
    text += strspn(text, " ");
    while (units->name != NULL && strcmp(units->name, text) != 0)
        units++;
    number->factor = units->factor;
    return units->name != NULL;
}

static const struct unit *units_of(const struct config_key *key)
{
    if (key->type == CONFIG_TIME)
        return units_time;
    return key->type == CONFIG_BYTES || key->type == CONFIG_BYTES32 ? units_bytes : units_count;
}

/* A word in front of a time, as in `last 10s`; it may be left out. */
static const char *prefix_of(const struct config_key *key)
{
    return key->type == CONFIG_TIME && key->words != NULL ? key->words : "";
}

void config_integer_format(const struct config_key *key, uint64_t value, char *out, size_t size)
{
    const struct unit *units = units_of(key);
    unsigned best = 0;
    for (unsigned i = 0; units != units_count && units[i].name != NULL; i++) {
        if (units[i].factor > units[best].factor && value % units[i].factor == 0)
            best = i;
    }
    snprintf(out, size, "%s%llu%s", prefix_of(key),
             (unsigned long long)(value / units[best].factor), units[best].name);
}

/*
 * The shortest text for the double, at most 15 digits or 12 places: so much every reader takes exactly, our own too.
 * What a configuration holds is what its text says (config_real_parse).
 */
void config_real_format(double value, char *out, size_t size)
{
    for (int digits = 6; digits <= 15; digits++) {
        snprintf(out, size, "%.*g", digits, value);
        if (strtod(out, NULL) == value && strchr(out, 'e') == NULL)
            return;
    }
    if (strchr(out, 'e') != NULL)
        snprintf(out, size, "%.12f", value);
}

/* The allowed value next to `value`. */
static uint64_t integer_mend(const struct config_key *key, uint64_t value)
{
    if (value < key->min)
        return key->min;
    if (value > key->max)
        return key->max;
    if (key->step == CONFIG_POWER_OF_TWO) {
        uint64_t below = UINT64_C(1) << (63 - __builtin_clzll(value));
        return value - below < 2 * below - value || 2 * below > key->max ? below : 2 * below;
    }
    return (value + key->step - 1) / key->step * key->step;
}

int config_integer_parse(const struct config_key *key, const char *text, void *field, char *why)
{
    struct number number;
    char attempt[32];
    const char *prefix = prefix_of(key);
    if (strncmp(text, prefix, strlen(prefix)) == 0)
        text += strlen(prefix);
    if (!number_read(text, units_of(key), &number))
        return config_refuse(key, NULL, why);
    unsigned __int128 product = (unsigned __int128)number.digits * number.factor;
    unsigned __int128 whole = product / number.scale;
    uint64_t value = whole > UINT64_MAX ? UINT64_MAX : (uint64_t)whole;
    uint64_t mended = integer_mend(key, value);
    if (mended != value || product % number.scale != 0) {
        config_integer_format(key, mended, attempt, sizeof(attempt));
        return config_refuse(key, attempt, why);
    }
    if (key->type == CONFIG_U32 || key->type == CONFIG_BYTES32)
        memcpy(field, &(uint32_t){(uint32_t)value}, sizeof(uint32_t));
    else
        memcpy(field, &value, sizeof(value));
    return 0;
}

int config_real_parse(const struct config_key *key, const char *text, void *field, char *why)
{
    static const struct unit units_share[] = {{"", 1}, {"%", 100}, {NULL, 0}};
    bool share = key->type == CONFIG_SHARE;
    struct number number;
    char attempt[32], canonical[32];
    if (!number_read(text, share ? units_share : units_rate, &number))
        return config_refuse(key, NULL, why);
    double factor = (double)number.factor;
    double value = share ? (double)number.digits / ((double)number.scale * factor)
                         : (double)number.digits * factor / (double)number.scale;
    config_real_format(value, canonical, sizeof(canonical));
    value = strtod(canonical, NULL);
    if (value < (double)key->min || value > (double)key->max) {
        config_real_format((double)(value < (double)key->min ? key->min : key->max), attempt,
                           sizeof(attempt));
        return config_refuse(key, attempt, why);
    }
    memcpy(field, &value, sizeof(value));
    return 0;
}

int config_speed_parse(const struct config_key *key, const char *text, char field[16], char *why)
{
    static const struct unit units[] = {
        {"x", 1}, {"pps", 1}, {"kpps", 1000}, {"Mpps", 1000000}, {NULL, 0}};
    struct number number;
    char digits[32];
    if (strcmp(text, "top") == 0) {
        memcpy(field, "top", 4);
        return 0;
    }
    if (!number_read(text, units, &number))
        return config_refuse(key, NULL, why);
    bool factor = text[strlen(text) - 1] == 'x';
    double value = (double)number.digits * (double)number.factor / (double)number.scale;
    if (value < (factor ? 0.001 : 1.0))
        return config_refuse(key, factor ? "0.001x" : "1pps", why);
    if (value > (factor ? 1000.0 : 1e7))
        return config_refuse(key, "top", why);
    config_real_format(value, digits, sizeof(digits));
    if (strlen(digits) > (factor ? 14 : 12))
        return config_refuse(key, NULL, why);
    snprintf(field, 16, factor ? "%.14sx" : "%.12spps", digits);
    return 0;
}

/* ---- sizes ---- */

enum { SIZES_EXP_MOST = 16 }; /* exp:MEAN is cut at so many times its mean */

/* Decimal digits at *text, which moves behind them. */
static bool digits_read(const char **text, uint64_t *value)
{
    size_t length = strspn(*text, "0123456789");
    if (length == 0 || length > 9)
        return false;
    *value = strtoul(*text, NULL, 10);
    *text += length;
    return true;
}

/* `8:90,256:9`, from its first colon on; *most is the first size. */
static bool weights_read(const char *text, uint64_t *most)
{
    uint64_t size = *most, weight;
    for (;;) {
        if (*text++ != ':' || !digits_read(&text, &weight) || weight == 0)
            return false;
        *most = size > *most ? size : *most;
        if (*text == '\0')
            return true;
        if (*text++ != ',' || !digits_read(&text, &size))
            return false;
    }
}

bool config_sizes_most(const char *text, uint64_t *most)
{
    uint64_t first;
    bool exponential = strncmp(text, "exp:", 4) == 0;
    text += exponential ? 4 : 0;
    if (!digits_read(&text, most))
        return false;
    if (exponential) {
        first = *most;
        *most *= SIZES_EXP_MOST;
        return *text == '\0' && first >= 2;
    }
    if (*text == ':')
        return weights_read(text, most);
    if (*text != '-')
        return *text == '\0';
    text++;
    first = *most;
    return digits_read(&text, most) && *text == '\0' && first <= *most;
}

int config_sizes_parse(const struct config_key *key, const char *text, char *field, char *why)
{
    uint64_t most;
    size_t length = strlen(text);
    if (length >= CONFIG_SIZES_MAX || !config_sizes_most(text, &most) || most > key->max)
        return config_refuse(key, NULL, why);
    memcpy(field, text, length + 1);
    return 0;
}
