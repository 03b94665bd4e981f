/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface of a handler: what a request's payload is turned into.
 *
 * Those that tickline brings along and one's own use the same. This header stands alone; one's own is
 * a shared object that defines `const struct tickline_handler tickline_handler` and is named by
 * worker.handler = PATH (with a / in it). examples/handler/ is one, with its Makefile.
 *
 * Life, all on one thread of the worker's process:
 *
 *   init     once a process, before it gives up its rights: reads the handler's keys, takes memory
 *   handle   once a request, in the order of its ring
 *   fini     at an orderly end; not after a kill
 *
 * init is also called in a process of its own that nobody sends requests to, where the
 * configuration is looked at (`checking` is 1): it reads its keys, sets `state_bytes`, and need not
 * do what takes long. From init on the process has no rights and few system calls (ARCHITECTURE.md,
 * Least privilege): what handle needs of files or sockets cannot be opened there. Of memory it gets
 * what malloc gives where the handler says `allocates`.
 *
 * handle neither blocks nor waits. It crashes at its own risk: the worker says so with the place and
 * the request, its successor tries that request once more, and the third refuses it (reason
 * `poison`).
 */
#ifndef TICKLINE_HANDLER_H
#define TICKLINE_HANDLER_H

#include <stdint.h>

/* Raised by whatever changes a structure or the meaning of a field; another one is refused. */
#define TICKLINE_HANDLER_ABI 1u

/*
 * What becomes of the handler's memory of earlier requests when its worker is killed. A successor
 * goes on with the first request whose reply nobody has seen.
 *
 *   STATELESS  it has none
 *   SHARED     it is the block `context->state`, zero at first. What a successor finds there is what
 *              it was after exactly the requests that are published: each change is announced by
 *              touch() before it is made, or it may be half there.
 *   LOST       it is gone. The gap stands in the trace (point state_lost), and all later requests of
 *              that worker are counted as suspect.
 */
enum tickline_state { TICKLINE_STATELESS, TICKLINE_STATE_SHARED, TICKLINE_STATE_LOST };

/* What handle returns instead of the length of a reply. Any other negative number, and more than
 * the room there is, ends the worker. */
enum tickline_answer {
    TICKLINE_FILTERED = -1,      /* there is no reply, and that is right */
    TICKLINE_BAD_PAYLOAD = -2,   /* the payload cannot be used */
    TICKLINE_REPLY_TOO_BIG = -3, /* the reply would not fit `capacity` */
    TICKLINE_FULL = -4,          /* no room is left for what the request would add to the state */
};

struct tickline_request {
    uint64_t id;            /* as it stands on the wire; 0 where the schema has none */
    const uint8_t *payload; /* `length` bytes; until handle returns */
    uint32_t length;
    uint32_t flow;    /* sender and receiver, or connection */
    const void *own;  /* tickline's own */
    uint64_t number;  /* in the order rx received them; unique in the run */
    uint64_t ingress; /* ticks at which the kernel received it */
};

/* A step of the handler's own in the trace: its spans stand beside the pipeline's. */
struct tickline_point {
    const char *name;     /* at most 23 of a-z, 0-9 and _; none of `tickline points` */
    const char *kind;     /* "work" or "wait": what the span that ends here is */
    const char *sentence; /* what has just happened; at most 127 bytes */
};

enum { TICKLINE_POINTS_MAX = 16 };

/*
 * What a handler gets of its surroundings; valid from init to fini. Calls are made as
 * context->touch(context, …).
 */
struct tickline_context {
    void *self;               /* the handler's own, set by init */
    uint8_t *state;           /* SHARED: the block, 64-byte aligned; NULL while checking */
    uint64_t state_bytes;     /* its size; init sets it, the same for the same keys */
    double ticks_per_second;  /* of `ingress` and of the CPU's counter */
    uint32_t worker, workers; /* which one this is, from 0, of how many */
    uint32_t generation;      /* 1, more in a successor; the state is zero in the first alone */
    int32_t checking;         /* 1: nobody will call handle */

    /*
     * For init: the value of a key of [handler.NAME], or `initial` where it is not written. A key
     * that init does not ask for is refused. 0, or -1 where the value is none (it has been
     * said: return -1). Units: 20us, 4MiB, 200k, 1%.
     */
    int32_t (*time)(struct tickline_context *context, const char *key, const char *initial,
                    uint64_t min_ns, uint64_t max_ns, uint64_t *ns);
    int32_t (*bytes)(struct tickline_context *context, const char *key, const char *initial,
                     uint64_t min, uint64_t max, uint64_t *bytes);
    int32_t (*count)(struct tickline_context *context, const char *key, const char *initial,
                     uint64_t min, uint64_t max, uint64_t *count);
    int32_t (*share)(struct tickline_context *context, const char *key, const char *initial,
                     double *share);
    /* `words` is "constant|exponential"; `index` counts from 0. */
    int32_t (*word)(struct tickline_context *context, const char *key, const char *initial,
                    const char *words, uint32_t *index);
    /* The text as it is written; stays valid. */
    const char *(*text)(struct tickline_context *context, const char *key, const char *initial);

    /* For init: says why it cannot, of this key or (NULL) of none, in one line. Returns -1. */
    int32_t (*fail)(struct tickline_context *context, const char *key, const char *why);

    /*
     * For handle, SHARED: before bytes of the state are changed; as often as needed, each call
     * costs about as much as copying so many bytes. Of a request that is never published all of
     * it is undone.
     */
    void (*touch)(struct tickline_context *context, uint64_t offset, uint64_t bytes);

    /* For handle: stamps the handler's own point of this index for the request under way. */
    void (*stamp)(struct tickline_context *context, uint32_t point, uint16_t argument);
};

struct tickline_handler {
    uint32_t abi;        /* TICKLINE_HANDLER_ABI; stays first for ever */
    uint32_t state;      /* enum tickline_state */
    const char *name;    /* its section is [handler.NAME]; at most 31 of a-z, 0-9, _ and - */
    const char *summary; /* one sentence */
    const struct tickline_point *points; /* `point_count`, at most TICKLINE_POINTS_MAX; or NULL */
    uint32_t point_count;
    uint32_t allocates; /* 1: handle calls malloc; brk and private mmap stay allowed */

    /* 0, or -1 after one of the calls above has said why. May be NULL. */
    int32_t (*init)(struct tickline_context *context);
    /* Writes the reply's payload to `reply`, at most `capacity` bytes, which never overlap the
     * request; its length, or one of enum tickline_answer. */
    int32_t (*handle)(struct tickline_context *context, const struct tickline_request *request,
                      uint8_t *reply, uint32_t capacity);
    /* May be NULL. */
    void (*fini)(struct tickline_context *context);
};

/* The symbol that a shared object exports. */
#define TICKLINE_HANDLER_SYMBOL "tickline_handler"
extern const struct tickline_handler tickline_handler;

#endif
