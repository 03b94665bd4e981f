/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tracing session of LTTng with a daemon of its own, in namespaces of its own: an empty /run and
 * /dev/shm. So nothing of the host's LTTng is seen or changed, and root and others find the daemon
 * in the same place. The daemon ends with the session, whatever becomes of that.
 */
#ifndef TICKLINE_TESTS_BENCH_PEERS_LTTNG_SESSION_H
#define TICKLINE_TESTS_BENCH_PEERS_LTTNG_SESSION_H

#include "tests/bench/bench.h"

/* In memory shared with the process that runs it. */
struct lttng_session {
    char home[512];        /* existing folder for the daemon and the trace */
    const char *event;     /* to record, of all programs of this session */
    const char *channel;   /* options of `lttng enable-channel` */
    int cpu;               /* of the traced program */
    int (*traced)(void *); /* becomes the traced program, by exec; see bench_child() */
    void *argument;
    uint64_t discarded; /* events, as LTTng counted them */
    char failure[BENCH_NOTE_MAX];
};

/*
 * Runs a session from its beginning to its end: daemon, set-up, the traced program, stop. For a
 * child process (bench_child), whose CPU the daemons share. 0, or 1 and `failure` says what failed.
 */
int lttng_session(void *session);

#endif
