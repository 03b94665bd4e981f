/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "sink_judge.h"

#include "lab_child.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void judge_open(struct judge *judge, const struct judge_files *files, enum check_schema schema)
{
    const char *where;
    int rc = check_load(&judge->check, &files->expected, schema, &where);

    if (rc != 0)
        die(EXIT_USAGE, "--%s %s: %s", where == files->expected.flows ? "flows" : "expected", where,
            rc != -EBADMSG                   ? strerror(-rc)
            : where == files->expected.flows ? "not a 4-byte flow for each reply expected"
                                             : "not a whole number of 16-byte entries");
    rc = record_open(&judge->recorder, &files->records, check_count(judge->check), &where);
    if (rc != 0)
        die(EXIT_HOST, "%s: %s", where, strerror(-rc));
}

void judge_take(struct judge *judge, uint32_t flow, const uint8_t *reply, uint32_t length,
                uint64_t kernel_ns)
{
    struct check_verdict verdict = check_reply(judge->check, flow, reply, length);

    judge->delivered++;
    judge->status[verdict.status]++;
    judge->misordered += verdict.misordered;
    record_add(judge->recorder,
               &(struct record){verdict.id, kernel_ns, verdict.hash, length, verdict.status},
               reply);
}

void judge_reset(struct judge *judge)
{
    check_reset(judge->check);
    record_reset(judge->recorder);
    judge->delivered = judge->misordered = 0;
    memset(judge->status, 0, sizeof judge->status);
}

void judge_tell(const struct judge *judge, FILE *out)
{
    fprintf(out,
            "\"delivered\":%" PRIu64 ",\"duplicated\":%" PRIu64 ",\"corrupted\":%" PRIu64
            ",\"unknown\":%" PRIu64 ",\"misordered\":%" PRIu64,
            judge->delivered, judge->status[CHECK_DUPLICATED], judge->status[CHECK_CORRUPTED],
            judge->status[CHECK_UNKNOWN], judge->misordered);
}

int judge_close(struct judge *judge)
{
    const char *where;

    record_flush(judge->recorder);
    int error = record_error(judge->recorder, &where);
    if (error != 0)
        fprintf(stderr, "%s: cannot write %s: %s; the counts are right, the file is not whole\n",
                program_invocation_short_name, where, strerror(-error));
    record_close(judge->recorder);
    check_free(judge->check);
    return error != 0;
}

enum check_schema judge_schema(const char *name)
{
    static const struct {
        const char *name;
        enum check_schema schema;
    } known[] = {{"v1", CHECK_V1},           {"v2", CHECK_V2},   {"v3", CHECK_V3},
                 {"v4", CHECK_V4},           {"iex", CHECK_IEX}, {"fix", CHECK_CONTENT},
                 {"datagram", CHECK_CONTENT}};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].schema;
    die(EXIT_USAGE, "--schema %s: expected v1, v2, v3, v4, fix, iex or datagram", name);
}
