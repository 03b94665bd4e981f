/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A context is the first member of its host. */
static struct host *host_of(struct tickline_context *context)
{
    return (struct host *)(void *)context;
}

/* ---- keys ---- */

static int32_t on_fail(struct tickline_context *context, const char *key, const char *why)
{
    struct host *host = host_of(context);

    if (host->why[0]) /* the first is the cause */
        return -1;
    snprintf(host->key, sizeof(host->key), "%s", key ? key : "");
    snprintf(host->why, sizeof(host->why), "%s", why && why[0] ? why : "init failed");
    return -1;
}

static void ask(struct host *host, const char *key)
{
    const struct config *config = host->config;
    size_t used = strlen(host->known);

    for (uint32_t i = 0; i < config->handler.count; i++) {
        if (strcmp(config->handler.item[i].key, key) == 0)
            host->asked |= UINT64_C(1) << i;
    }
    snprintf(host->known + used, sizeof(host->known) - used, "%s%s", used ? ", " : "", key);
}

static int32_t read_value(struct tickline_context *context, const char *key,
                          const struct config_handler_want *want, void *value)
{
    struct host *host = host_of(context);
    char why[CONFIG_ERROR_MAX];

    ask(host, key);
    if (config_handler_value(host->config, key, want, value, why) == 0)
        return 0;
    return on_fail(context, key, why);
}

static int32_t on_time(struct tickline_context *context, const char *key, const char *initial,
                       uint64_t min_ns, uint64_t max_ns, uint64_t *ns)
{
    const struct config_handler_want want = {HANDLER_TIME, initial, NULL, min_ns, max_ns};

    return read_value(context, key, &want, ns);
}

static int32_t on_bytes(struct tickline_context *context, const char *key, const char *initial,
                        uint64_t min, uint64_t max, uint64_t *bytes)
{
    const struct config_handler_want want = {HANDLER_BYTES, initial, NULL, min, max};

    return read_value(context, key, &want, bytes);
}

static int32_t on_count(struct tickline_context *context, const char *key, const char *initial,
                        uint64_t min, uint64_t max, uint64_t *count)
{
    const struct config_handler_want want = {HANDLER_COUNT, initial, NULL, min, max};

    return read_value(context, key, &want, count);
}

static int32_t on_share(struct tickline_context *context, const char *key, const char *initial,
                        double *share)
{
    const struct config_handler_want want = {HANDLER_SHARE, initial, NULL, 0, 1};

    return read_value(context, key, &want, share);
}

static int32_t on_word(struct tickline_context *context, const char *key, const char *initial,
                       const char *words, uint32_t *index)
{
    const struct config_handler_want want = {HANDLER_WORD, initial, words, 0, 0};

    return read_value(context, key, &want, index);
}

static const char *on_text(struct tickline_context *context, const char *key, const char *initial)
{
    struct host *host = host_of(context);

    ask(host, key);
    const char *text = config_handler_get(host->config, key);
    return text ? text : initial;
}

/* ---- requests ---- */

static void on_touch(struct tickline_context *context, uint64_t offset, uint64_t bytes)
{
    struct host *host = host_of(context);

    if (!state_touch(&host->state, *host->position, offset, bytes))
        region_corrupt("a handler's touch, behind", host->state.bytes, offset + bytes);
}

static void on_stamp(struct tickline_context *context, uint32_t point, uint16_t argument)
{
    struct host *host = host_of(context);

    if (point < host->handler->point_count && host->inside)
        trace_stamp(host->trace, (enum point)(LANE_POINT_FIRST + point), argument,
                    host->request.number);
}

/* ---- life ---- */

void host_prepare(struct host *host, const struct tickline_handler *handler,
                  const struct config *config)
{
    *host = (struct host){
        .context = {.ticks_per_second = 1e9,
                    .workers = config->worker.count,
                    .generation = 1,
                    .checking = 1,
                    .time = on_time,
                    .bytes = on_bytes,
                    .count = on_count,
                    .share = on_share,
                    .word = on_word,
                    .text = on_text,
                    .fail = on_fail,
                    .touch = on_touch,
                    .stamp = on_stamp},
        .handler = handler,
        .config = config,
    };
}

/* A key that was written and that nobody asked for is a mistake of a person. */
static int refuse_unknown(struct host *host)
{
    const struct config *config = host->config;
    char why[CONFIG_ERROR_MAX];

    for (uint32_t i = 0; i < config->handler.count; i++) {
        if (host->asked >> i & 1)
            continue;
        snprintf(why, sizeof(why), "no such key of this handler; expected %s%.200s",
                 host->known[0] ? "one of " : "none", host->known);
        (void)on_fail(&host->context, config->handler.item[i].key, why);
        return -EINVAL;
    }
    return 0;
}

int host_init(struct host *host)
{
    const struct tickline_handler *handler = host->handler;

    if (handler->init && handler->init(&host->context) < 0) {
        (void)on_fail(&host->context, NULL, NULL);
        return -EINVAL;
    }
    if (handler->state == TICKLINE_STATE_SHARED &&
        (host->context.state_bytes == 0 || host->context.state_bytes > STATE_BYTES_MAX)) {
        (void)on_fail(&host->context, NULL, "its state has no bytes, or more than 1GiB");
        return -EINVAL;
    }
    return refuse_unknown(host);
}

int host_blame(const struct host *host, char error[CONFIG_ERROR_MAX])
{
    return host->key[0] ? config_handler_blame(host->config, host->key, host->why, error)
                        : config_blame(host->config, "worker.handler", error, "%s", host->why);
}
