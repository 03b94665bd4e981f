/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/crash.h"

#ifdef TICKLINE_CRASH_POINTS

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *process = "";
static unsigned int life = 1;

void crash_process(const char *name, unsigned int generation)
{
    process = name;
    life = generation;
}

static struct {
    bool read;
    char process[32];
    char label[64];
    unsigned long passes; /* 0: nobody is to die */
} wish;

static bool is_label(const char *label)
{
#define LABEL(name, sentence) name,
    static const char *const labels[] = {CRASH_POINTS(LABEL) CRASH_POINTS_OF_SOCKETS(LABEL)};
#undef LABEL
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        if (strcmp(labels[i], label) == 0)
            return true;
    }
    return false;
}

/* [PROCESS/]LABEL:N */
static void read_wish(void)
{
    const char *text = getenv("TICKLINE_CRASH");

    wish.read = true;
    if (!text)
        return;
    const char *slash = strchr(text, '/');
    const char *label = slash ? slash + 1 : text;
    const char *colon = strrchr(label, ':');
    if (slash)
        snprintf(wish.process, sizeof(wish.process), "%.*s", (int)(slash - text), text);
    if (colon) {
        snprintf(wish.label, sizeof(wish.label), "%.*s", (int)(colon - label), label);
        wish.passes = strtoul(colon + 1, NULL, 10);
    }
    if (wish.passes == 0 || !is_label(wish.label)) {
        fprintf(stderr,
                "TICKLINE_CRASH=%s: expected [PROCESS/]LABEL:N, such as "
                "worker0/ring:after_publish:17; the labels stand in shm/crash.h\n",
                text);
        _exit(2);
    }
}

static void obey_environment(const char *label)
{
    if (!wish.read)
        read_wish();
    if (wish.passes == 0 || life > 1 || strcmp(label, wish.label) != 0 ||
        (wish.process[0] && strcmp(process, wish.process) != 0))
        return;
    if (--wish.passes == 0)
        (void)raise(SIGKILL);
}

void (*crash_hook)(const char *label) = obey_environment;

#endif
