/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: defaults, then the file, then --set, then --fill, then what must hold between the keys.
 */
#include "stage/config.h"
#include "stage/config_read.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20 };

/* The file's name without folder and suffix, as far as it can name a run. */
static void stem(const char *path, char name[64])
{
    const char *slash = strrchr(path, '/');
    snprintf(name, 64, "%.48s", slash != NULL ? slash + 1 : path);
    char *dot = strrchr(name, '.');
    if (dot != NULL && dot > name)
        *dot = '\0';
    for (char *c = name; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && strchr("._-", *c) == NULL)
            *c = '-';
    }
    if (name[0] == '\0')
        snprintf(name, 64, "run");
}

static int set_defaults(struct config_loader *loader)
{
    char name[64];
    int result = 0;
    stem(loader->name, name);
    for (size_t i = 0; i < config_key_count && result == 0; i++) {
        const char *initial = config_keys[i].initial;
        result = config_set(loader, (int)i, initial[0] != '\0' ? initial : name, "default");
    }
    return result;
}

/* Keeps the keys of the handler that was chosen. */
static int keep_handler(struct config_loader *loader)
{
    struct config *config = loader->config;
    for (uint32_t i = 0; i < loader->items; i++) {
        const struct config_item *item = &loader->item[i];
        uint32_t count = config->handler.count;
        if (strcmp(item->section + 8, config->handler.name) != 0)
            continue;
        if (count == CONFIG_HANDLER_KEYS_MAX)
            return config_fail(loader, item->origin, "%s.%s: expected at most %d keys; remove some",
                               item->section, item->key, CONFIG_HANDLER_KEYS_MAX);
        memcpy(config->handler.item[count].key, item->key, sizeof(item->key));
        memcpy(config->handler.item[count].value, item->value, sizeof(item->value));
        if (config_remember(&config->origins[config_key_count + count], item->value,
                            item->origin) != 0)
            return -ENOMEM;
        config->handler.count++;
    }
    return 0;
}

/* The payload of a generated request that the schema has room for. */
static uint32_t payload_max(enum config_schema schema)
{
    static const uint32_t most[] = {
        [SCHEMA_V1] = 9999,        [SCHEMA_V2] = 65507 - 12,   [SCHEMA_V3] = 65507 - 16,
        [SCHEMA_V4] = 65507 - 39,  [SCHEMA_FIX] = 65507 - 128, [SCHEMA_IEX] = 65507,
        [SCHEMA_DATAGRAM] = 65507,
    };

    return most[schema];
}

/* The burst is too large for the buffers: says so of the key that somebody wrote. */
static int blame_burst(const struct config *config, char *error)
{
    int burst = config_find("rx", "burst");
    if (strcmp(config->origins[burst].origin, "default") == 0)
        return config_blame(config, "rx.recv_buffers", error,
                            "expected at least rx.burst = %u; try %u", config->rx.burst,
                            config->rx.burst);
    return config_blame(config, "rx.burst", error, "expected at most rx.recv_buffers = %u; try %u",
                        config->rx.recv_buffers, config->rx.recv_buffers);
}

/* Which schema can come from which source, and which sink can answer it. */
static int check_source(const struct config *config, char *error)
{
    bool tcp = strcmp(config->rx.source, "tcp") == 0;
    bool packet = strcmp(config->rx.source, "packet") == 0;
    bool unframed =
        config->pipeline.schema == SCHEMA_DATAGRAM || config->pipeline.schema == SCHEMA_IEX;

    if (tcp && unframed)
        return config_blame(config, "pipeline.schema", error,
                            "a stream of bytes does not say where such a request ends; try v2, or "
                            "rx.source = udp");
    if (tcp && config->rx.io == IO_URING)
        return config_blame(config, "rx.io", error,
                            "rx.source = tcp is read by plain calls; try auto or plain");
    if (packet && strcmp(config->rx.interface, "any") == 0)
        return config_blame(config, "rx.source", error,
                            "expected rx.interface too, the one to tap; write its name there");
    if (packet && strcmp(config->tx.sink, "reply") == 0)
        return config_blame(config, "tx.sink", error,
                            "who sent a tapped frame did not ask us; try udp or tcp");
    return 0;
}

/* What must hold between the keys. */
static int check_relations(const struct config *config, char *error)
{
    uint32_t named = config->worker.cpu.count, workers = config->worker.count;
    bool generated = strcmp(config->replay.capture, "generated") == 0;
    uint32_t payload = payload_max(config->pipeline.schema);
    uint64_t most = 0;
    if (named > 1 && named != workers)
        return config_blame(config, "worker.cpu", error,
                            "%u CPUs for worker.count = %u; expected one, or one each", named,
                            workers);
    if (config->rx.burst > config->rx.recv_buffers)
        return blame_burst(config, error);
    if (config->rx.timestamps == TIMESTAMPS_HARDWARE && strcmp(config->rx.interface, "any") == 0)
        return config_blame(config, "rx.timestamps", error,
                            "expected rx.interface too, the NIC that stamps; write its name there");
    int err = check_source(config, error);
    if (err < 0)
        return err;
    for (uint32_t i = 0; i < config->rx.bind_count; i++) {
        if (config->rx.bind[i].port == config->tx.to.port &&
            strcmp(config->rx.bind[i].address, config->tx.to.address) == 0)
            return config_blame(config, "tx.to", error,
                                "replies would come back as requests, rx.bind has this address; "
                                "try another port");
    }
    if (generated && config_sizes_most(config->replay.payload, &most) && most > payload)
        return config_blame(config, "replay.payload", error,
                            "expected at most %u for schema %s; try %u", payload,
                            config_text(config, "pipeline.schema"), payload);
    if (config->trace.snapshot_over_ns && !config->trace.keep_ns && !config->trace.max_bytes)
        return config_blame(config, "trace.snapshot_over", error,
                            "a snapshot is of a trace that is bounded; try trace.keep = last 10s");
    if (generated && config->replay.errors > 0 && config->pipeline.schema == SCHEMA_DATAGRAM)
        return config_blame(config, "replay.errors", error,
                            "a request of the schema datagram is never malformed; try 0");
    return 0;
}

/* Everything in order; the first mistake ends it. */
static int load_all(struct config_loader *loader, const char *text, size_t length,
                    const struct config_override *override, size_t count)
{
    int result = set_defaults(loader);
    if (result == 0)
        result = config_read_lines(loader, text, length);
    for (int fills = 0; fills < 2; fills++) {
        for (size_t i = 0; i < count && result == 0; i++) {
            if (override[i].fill == (fills == 1))
                result = config_read_override(loader, &override[i]);
        }
    }
    if (result == 0)
        result = config_read_handler(loader);
    if (result == 0)
        result = keep_handler(loader);
    return result == 0 ? check_relations(loader->config, loader->error) : result;
}

static int load_text(struct config *config, const char *text, size_t length, const char *name,
                     const struct config_override *override, size_t count, char *error)
{
    struct config_loader loader = {.config = config, .name = name, .error = error};
    memset(config, 0, sizeof(*config));
    error[0] = '\0';
    config->origins = calloc(config_key_count + CONFIG_HANDLER_KEYS_MAX, sizeof(*config->origins));
    loader.seen = calloc(config_key_count, sizeof(*loader.seen));
    loader.item = calloc(CONFIG_ITEMS_MAX, sizeof(*loader.item));
    int result = -ENOMEM;
    if (config->origins != NULL && loader.seen != NULL && loader.item != NULL)
        result = load_all(&loader, text, length, override, count);
    free(loader.seen);
    free(loader.item);
    if (result != 0)
        config_free(config);
    if (result != 0 && error[0] == '\0')
        snprintf(error, CONFIG_ERROR_MAX, "%.200s: %s", name, strerror(-result));
    return result;
}

int config_parse(struct config *config, const char *text, size_t length, const char *name,
                 char error[CONFIG_ERROR_MAX])
{
    return load_text(config, text, length, name, NULL, 0, error);
}

/* The whole file; its length, or -errno. */
static ssize_t read_file(const char *path, char *text)
{
    size_t length = 0;
    ssize_t got = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    do {
        got = read(file, text + length, FILE_MAX + 1 - length);
        length += got > 0 ? (size_t)got : 0;
    } while ((got > 0 && length <= FILE_MAX) || (got < 0 && errno == EINTR));
    int failed = got < 0 ? errno : 0;
    close(file);
    if (failed != 0)
        return -failed;
    return length > FILE_MAX ? -EFBIG : (ssize_t)length;
}

int config_load(struct config *config, const char *path, const struct config_override *override,
                size_t count, char error[CONFIG_ERROR_MAX])
{
    memset(config, 0, sizeof(*config));
    char *text = malloc(FILE_MAX + 1);
    ssize_t length = text != NULL ? read_file(path, text) : -ENOMEM;
    int result = (int)length;
    if (length >= 0) {
        result = load_text(config, text, (size_t)length, path, override, count, error);
    } else {
        snprintf(error, CONFIG_ERROR_MAX, "%.300s: %s; expected an INI file, try %s", path,
                 strerror((int)-length), "configs/isolated.ini");
        config_presentable(error);
    }
    free(text);
    return result;
}

void config_free(struct config *config)
{
    for (size_t i = 0; config->origins != NULL && i < config_key_count + CONFIG_HANDLER_KEYS_MAX;
         i++) {
        free(config->origins[i].value);
        free(config->origins[i].origin);
    }
    free(config->origins);
    memset(config, 0, sizeof(*config));
}
