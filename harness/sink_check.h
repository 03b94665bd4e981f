/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sink expects: the replies that the capture must produce, how often each may come, and in
 * which order those of one flow.
 *
 * The list (wire/expected.bin, an entry a request that must be answered) is derived from the
 * capture by code that shares nothing with the pipeline, and so is what follows: the id is parsed
 * from the reply here, the content judged by its hash. Not thread-safe. Nothing here allocates
 * after check_load().
 */
#ifndef TICKLINE_HARNESS_SINK_CHECK_H
#define TICKLINE_HARNESS_SINK_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CHECK_CONTENT: a reply is known by its bytes alone, as its form gives it no id. */
enum check_schema { CHECK_V1, CHECK_V2, CHECK_V3, CHECK_V4, CHECK_IEX, CHECK_CONTENT };

/* Stands in delivered.bin as a number: never renumber. */
enum check_status {
    CHECK_OK = 0,
    CHECK_DUPLICATED = 1, /* the right content, more often than it was asked for */
    CHECK_CORRUPTED = 2,  /* a known id with a content that no request of that id has */
    CHECK_UNKNOWN = 3,    /* no id, or one that nobody asked for; by content alone: any wrong one */
    CHECK_STATUSES = 4,
};

struct check_verdict {
    uint64_t id; /* wire id of the request; 0 when unknown and not in the reply */
    uint64_t hash;
    enum check_status status;
    bool misordered; /* a later request of its flow was answered before */
};

/* Files of what is expected. */
struct check_files {
    const char *expected; /* {u64 id; u64 reply_hash} a reply */
    const char
        *flows; /* {u32 flow} a reply: the connection it was asked on; NULL: no order is known */
    bool apart; /* replies come on the flow that asked, and are looked for there alone */
};

struct check;

/* 0, or -errno and the path concerned in `*where`; -EBADMSG: not a whole number of entries, or as many
 * flows as replies are not there; -EFBIG: more than 2^31. */
int check_load(struct check **check, const struct check_files *files, enum check_schema schema,
               const char **where);
void check_free(struct check *check);

/* Entries read. */
size_t check_count(const struct check *check);

/* Forgets every reply seen. */
void check_reset(struct check *check);

/*
 * Judges one reply and remembers it. `reply` may be NULL where length is 0; `flow` counts where they are
 * apart. Of a content that is expected more than once nobody can tell the order.
 */
struct check_verdict check_reply(struct check *check, uint32_t flow, const uint8_t *reply,
                                 size_t length);

#endif
