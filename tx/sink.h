/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sinks: where tx brings replies to (tx.sink, and for `reply` by rx.source). A sink takes outputs from the
 * rings, sends the replies among them and says what became of each; what is the same for all sinks
 * (rings, counts of outcomes, tails, slow requests) is tx.c's and tx_own.h's.
 */
#ifndef TICKLINE_TX_SINK_H
#define TICKLINE_TX_SINK_H

#include "stage/stage.h"

struct tx;

struct tx_sink {
    /* Opens all it needs while tx is privileged; after a kill it goes on where its predecessor was. 0 or
     * -errno, said by stage_error. */
    int (*open)(struct stage *stage, struct tx *tx);
    /* As stage_ops has them. */
    int (*poll)(struct stage *stage, struct tx *tx);
    void (*tick)(struct stage *stage, struct tx *tx, uint64_t now); /* may be NULL */
    bool (*given)(struct stage *stage, struct tx *tx, const char *name, uint64_t value,
                  int fd); /* may be NULL */
    /* Nothing that was taken waits to be counted. */
    bool (*idle)(const struct stage *stage, const struct tx *tx);
    /* How long tx may sleep, at most `ns`; NULL: so long. */
    uint64_t (*nap)(const struct stage *stage, const struct tx *tx, uint64_t ns);
    void (*close)(struct stage *stage, struct tx *tx);
};

extern const struct tx_sink tx_udp;       /* udp */
extern const struct tx_sink tx_tcp;       /* tcp */
extern const struct tx_sink tx_reply_udp; /* reply, rx.source = udp */
extern const struct tx_sink tx_reply_tcp; /* reply, rx.source = tcp */

#endif
