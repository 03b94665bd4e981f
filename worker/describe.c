/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/describe.h"

#include "worker/host.h"
#include "worker/load.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONFIG_BYTES_MAX = 1 << 20 };

static json_t *points_of(const struct tickline_handler *handler)
{
    json_t *points = json_array();

    for (uint32_t i = 0; i < handler->point_count; i++)
        json_array_append_new(points, json_pack("{s:s, s:s, s:s}", "name", handler->points[i].name,
                                                "span", handler->points[i].kind, "sentence",
                                                handler->points[i].sentence));
    return points;
}

static json_t *refusal(const char *key, const char *why)
{
    return json_pack("{s:s, s:s}", "key", key, "why", why);
}

static json_t *describe(const struct config *config)
{
    static const char *const states[] = {"stateless", "shared", "lost"};
    static struct host host;
    char text[CONFIG_ERROR_MAX] = "there is no such handler";

    const struct tickline_handler *handler = handler_load(config, text);
    if (!handler)
        return refusal("worker.handler", text);
    if (config->handler.count && strcmp(config->handler.name, handler->name) != 0) {
        char key[128];
        snprintf(key, sizeof(key), "handler.%s.%s", config->handler.name,
                 config->handler.item[0].key);
        snprintf(text, sizeof(text), "the handler is called %s; expected [handler.%s]",
                 handler->name, handler->name);
        return refusal(key, text);
    }
    host_prepare(&host, handler, config);
    if (host_init(&host) < 0) {
        char key[160] = "worker.handler";
        if (host.key[0])
            snprintf(key, sizeof(key), "handler.%s.%s", handler->name, host.key);
        return refusal(key, host.why);
    }
    if (handler->fini)
        handler->fini(&host.context);
    return json_pack("{s:s, s:s, s:i, s:s, s:I, s:b, s:o}", "name", handler->name, "summary",
                     handler->summary ? handler->summary : "", "abi", (int)handler->abi, "state",
                     states[handler->state], "state_bytes", (json_int_t)host.context.state_bytes,
                     "allocates", handler->allocates != 0, "points", points_of(handler));
}

int describe_main(void)
{
    static struct config config;
    char error[CONFIG_ERROR_MAX];
    char *text = malloc(CONFIG_BYTES_MAX);
    size_t length = 0;
    ssize_t got;

    if (!text)
        return 1;
    while ((got = read(STDIN_FILENO, text + length, CONFIG_BYTES_MAX - length)) > 0)
        length += (size_t)got;
    int err = config_parse(&config, text, length, "config", error);
    free(text);
    if (err < 0) {
        fprintf(stderr, "worker --describe: %s\n", error);
        return 2;
    }
    json_t *answer = describe(&config);
    /* A handler may have printed something: the answer is the last line. */
    putchar('\n');
    err = answer ? json_dumpf(answer, stdout, JSON_COMPACT) : -1;
    json_decref(answer);
    config_free(&config);
    return err < 0 || fflush(stdout) != 0 ? 1 : 0;
}
