/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages that do not move: each publishes its figures about once a millisecond, the napping tracer once in
 * 20 ms. Who has not for a second is told of once, with the kernel's word for what it does, and once more
 * when it goes on. Nothing is done about it: a slow process is not a dead one, and its successor would
 * meet the same host.
 *
 * Only time in which the launcher itself has looked counts: where the whole machine stood still, nobody
 * is to blame.
 */
#include "launch/pipeline_own.h"

#include <string.h>

enum { STILL_NS = 1000000000, LOOK_NS = 200000000 };
#define QUIET_NS UINT64_C(10000000000)

static const char *state_words(char state)
{
    switch (state) {
    case 'R':
        return "running";
    case 'S':
        return "sleeping";
    case 'D':
        return "waiting in the kernel";
    case 'T':
        return "stopped";
    case 't':
        return "held by a debugger";
    default:
        return "ending";
    }
}

/* The third word of /proc/PID/stat, behind a name that may hold anything. */
static char process_state(const struct process *process)
{
    char path[32];
    char text[256] = "";

    snprintf(path, sizeof(path), "/proc/%d/stat", process->pid);
    FILE *in = fopen(path, "re");
    if (!in)
        return '\0';
    text[fread(text, 1, sizeof(text) - 1, in)] = '\0';
    fclose(in);
    const char *end = strrchr(text, ')');
    return end && end[1] == ' ' ? end[2] : '\0';
}

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

void pipeline_mind_still(struct pipeline *pipeline, struct process *process, uint64_t now)
{
    struct still *still = &process->still;
    uint64_t sequence = load_relaxed(&cell_of(pipeline, process)->lazy_sequence);

    if (sequence != still->sequence || still->since_ns == 0) {
        if (still->told)
            process_tell(process, pipeline->told, "%s moves again after %.1f s", process->name,
                         seconds(now - still->since_ns));
        still->sequence = sequence;
        still->since_ns = now;
        still->told = false;
    } else if (now - pipeline->tended_ns > LOOK_NS && !still->told) {
        still->since_ns = now;
    } else if (now - still->since_ns >= STILL_NS && !still->told && now >= still->quiet_until_ns) {
        still->told = true;
        still->quiet_until_ns = now + QUIET_NS;
        process_tell(process, pipeline->told, "%s has not moved for %.1f s (%s); it is left alone",
                     process->name, seconds(now - still->since_ns),
                     state_words(process_state(process)));
    }
}
