/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers: what a request's payload is turned into.
 *
 * handle() reads `length` bytes at `in`, writes the reply's payload to `out` (room for `capacity`
 * bytes; never overlaps `in`) and returns its length. HANDLER_FILTERED: there is no reply.
 * HANDLER_REJECT(reason): the request cannot be answered. It allocates nothing and makes no system
 * call.
 */
#ifndef TICKLINE_WORKER_HANDLER_H
#define TICKLINE_WORKER_HANDLER_H

#include "shm/points.h"
#include "stage/config.h"

#include <stdint.h>

enum { HANDLER_FILTERED = -1 };
#define HANDLER_REJECT(reason) (-2 - (int)(reason))
#define HANDLER_REASON(result) ((enum reason)(-2 - (result)))

struct handler {
    const char *name;
    /* Reads its own section of the configuration; 0 or -errno with one line in `error`. May be
     * NULL. */
    int (*open)(const struct config *config, char error[CONFIG_ERROR_MAX]);
    int (*handle)(const uint8_t *in, uint32_t length, uint8_t *out, uint32_t capacity);
};

extern const struct handler handler_rot1;
extern const struct handler handler_fizzbuzz;
extern const struct handler handler_spin;

/* The handler of that name, or NULL. */
const struct handler *handler_find(const char *name);

/* All names, separated by ", ", for messages. */
const char *handler_names(void);

#endif
