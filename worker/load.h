/* SPDX-License-Identifier: Apache-2.0 */
/* Which handler: one of those that are built in, or a shared object. */
#ifndef TICKLINE_WORKER_LOAD_H
#define TICKLINE_WORKER_LOAD_H

#include "stage/config.h"
#include "worker/handler.h"

extern const struct tickline_handler handler_rot1;
extern const struct tickline_handler handler_fizzbuzz;
extern const struct tickline_handler handler_spin;
extern const struct tickline_handler handler_cachewalk;
extern const struct tickline_handler handler_alloc;
extern const struct tickline_handler handler_book;

/* The built-in handler of that name, or NULL. */
const struct tickline_handler *handler_find(const char *name);

/*
 * That of worker.handler, looked at from its ABI on: NULL with the reason in `why`, for
 * config_blame. A shared object stays loaded; its constructors run here, with the rights of the caller.
 */
const struct tickline_handler *handler_load(const struct config *config,
                                            char why[CONFIG_ERROR_MAX]);

#endif
