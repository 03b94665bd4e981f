/* SPDX-License-Identifier: Apache-2.0 */
/* `16`, `100us` or `16,100us`: a count, a time, or both. */
#include "stage/config_table.h"

#include <errno.h>
#include <string.h>

enum { COUNT_MAX = 256, WAIT_NS_MAX = 100000000 };

static const struct config_key count_key = {
    .type = CONFIG_U32, .initial = "1", .min = 1, .max = COUNT_MAX, .step = CONFIG_ANY};
static const struct config_key wait_key = {
    .type = CONFIG_TIME, .initial = "100us", .min = 1000, .max = WAIT_NS_MAX, .step = CONFIG_ANY};

static bool is_time(const char *text)
{
    return text[0] != '\0' && text[strlen(text) - 1] == 's';
}

int config_flush_parse(const struct config_key *key, const char *text, struct config_flush *field,
                       char *why)
{
    struct config_flush flush = {.count = COUNT_MAX};
    char part[2][24] = {"", ""};
    const char *comma = strchr(text, ',');
    size_t first = comma ? (size_t)(comma - text) : strlen(text);

    if (first >= sizeof(part[0]) || (comma && strlen(comma + 1) >= sizeof(part[1])))
        return config_refuse(key, NULL, why);
    memcpy(part[0], text, first);
    if (comma)
        memcpy(part[1], comma + 1, strlen(comma + 1) + 1);
    const char *wait = comma ? part[1] : is_time(part[0]) ? part[0] : NULL;
    const char *count = wait == part[0] ? NULL : part[0];
    char ignored[CONFIG_WHY_MAX];
    if ((wait &&
         (!is_time(wait) || config_integer_parse(&wait_key, wait, &flush.wait_ns, ignored) < 0)) ||
        (count && config_integer_parse(&count_key, count, &flush.count, ignored) < 0))
        return config_refuse(key, comma ? "16,100us" : NULL, why);
    *field = flush;
    return 0;
}

void config_flush_format(const struct config_flush *field, char *out, size_t size)
{
    char count[24] = "";
    char wait[24] = "";

    if (field->count != COUNT_MAX || !field->wait_ns)
        config_integer_format(&count_key, field->count, count, sizeof(count));
    if (field->wait_ns)
        config_integer_format(&wait_key, field->wait_ns, wait, sizeof(wait));
    snprintf(out, size, "%s%s%s", count, count[0] && wait[0] ? "," : "", wait);
}
