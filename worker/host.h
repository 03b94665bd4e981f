/* SPDX-License-Identifier: Apache-2.0 */
/* What a handler meets: its context, as the worker gives it. */
#ifndef TICKLINE_WORKER_HOST_H
#define TICKLINE_WORKER_HOST_H

#include "shm/lane.h"
#include "shm/state.h"
#include "stage/config.h"
#include "worker/handler.h"

struct host {
    struct tickline_context context; /* first: a handler's pointer to it is one to us */
    const struct tickline_handler *handler;
    struct tickline_request request;
    bool inside;              /* handle() runs, for that request */
    struct state state;       /* SHARED; `ranges` is 0 for all others */
    const uint64_t *position; /* of the input under way */
    struct trace *trace;
    const struct config *config;
    uint64_t asked; /* keys of the section by index, a bit each */
    /* why init failed: of the key, or of worker.handler where that is empty */
    char key[64];
    char why[CONFIG_ERROR_MAX];
    char known[256]; /* the keys that init has asked for, `a, b` */
};

/*
 * Makes the context; what its owner knows better (worker, generation, clock) is set behind this and
 * before host_init.
 */
void host_prepare(struct host *host, const struct tickline_handler *handler,
                  const struct config *config);

/* Calls init. 0, or -EINVAL with the reason in `why` and `key`: also for a key nobody asks for. */
int host_init(struct host *host);

/* The reason as one line for a person. Returns -EINVAL. */
int host_blame(const struct host *host, char error[CONFIG_ERROR_MAX]);

#endif
