/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/campaign.h"

#include "shm/crash.h"

#include <sys/mman.h>

#define LABEL(name, sentence) name,
static const char *const labels[] = {CRASH_POINTS(LABEL)};
#undef LABEL

enum { LABELS = sizeof(labels) / sizeof(labels[0]) };

static uint64_t *passes; /* of each label, in this life */
static bool killed_at[LABELS];
static size_t kill_label;
static uint64_t kill_pass; /* 0: never */

void *campaign_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CU_ASSERT_FATAL(memory != MAP_FAILED);
    return memory;
}

static size_t find(const char *label)
{
    size_t i = 0;

    while (i < LABELS && strcmp(labels[i], label) != 0)
        i++;
    return i;
}

static void in_parent(const char *label)
{
    (void)label;
}

static void in_child(const char *label)
{
    size_t i = find(label);

    if (i == LABELS) {
        fprintf(stderr, "%s is not in the list of crash points\n", label);
        _exit(3);
    }
    if (++passes[i] == kill_pass && i == kill_label)
        (void)raise(SIGKILL);
}

static int live(const struct crash_role *role)
{
    int status = -1;
    pid_t ended;

    memset(passes, 0, LABELS * sizeof(*passes));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(120);
        crash_hook = in_child;
        _exit(role->live());
    }
    do {
        if (role->partner)
            role->partner();
        ended = waitpid(pid, &status, WNOHANG);
        if (ended == 0)
            sched_yield();
    } while (ended == 0);
    if (role->partner)
        role->partner();
    return ended == pid ? status : -1;
}

enum end { WRONG, KILLED, FINISHED };

/* Where a partner runs beside, a later pass may not come: the life finishes. */
static enum end dies(const struct crash_role *role, const char *label, uint64_t pass)
{
    kill_label = find(label);
    kill_pass = pass;
    int status = live(role);
    bool died = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (status == 0 && role->partner && pass > 1)
        return FINISHED;
    if (!died)
        printf("\n    %s: not killed at pass %llu of %s (status %#x)", role->name,
               (unsigned long long)pass, label, (unsigned int)status);
    CU_ASSERT(died);
    if (died && role->died)
        role->died();
    killed_at[kill_label] = killed_at[kill_label] || died;
    return died ? KILLED : WRONG;
}

static bool finishes(const struct crash_role *role)
{
    kill_pass = 0;
    int status = live(role);
    CU_ASSERT_EQUAL(status, 0);
    return status == 0;
}

static void one_case(const struct crash_role *role, const char *label, uint64_t pass)
{
    unsigned int failed = CU_get_number_of_failures();

    role->make();
    enum end end = dies(role, role->first_label, role->first_pass);
    if (end == KILLED)
        end = dies(role, label, pass);
    if (end == FINISHED || (end == KILLED && finishes(role)))
        role->check();
    role->unmake();
    if (CU_get_number_of_failures() != failed)
        printf("\n    %s: failed when killed at pass %llu of %s ", role->name,
               (unsigned long long)pass, label);
}

void campaign(const struct crash_role *role)
{
    uint64_t often[LABELS];
    uint64_t cases = 0;

    crash_hook = in_parent;
    if (!passes)
        passes = campaign_shared(LABELS * sizeof(*passes));
    role->make();
    CU_ASSERT_EQUAL_FATAL(dies(role, role->first_label, role->first_pass), KILLED);
    if (finishes(role))
        role->check();
    role->unmake();
    memcpy(often, passes, sizeof(often));
    for (const char *const *label = role->labels; *label; label++) {
        size_t i = find(*label);
        CU_ASSERT_FATAL(i < LABELS);
        if (often[i] == 0)
            printf("\n    %s: never passes %s", role->name, *label);
        CU_ASSERT(often[i] > 0);
        const uint64_t tried[] = {1, 2, often[i] / 2, often[i]};
        uint64_t before = 0;
        for (size_t k = 0; k < 4; k++) {
            if (tried[k] <= before || tried[k] > often[i])
                continue;
            one_case(role, *label, tried[k]);
            before = tried[k];
            cases++;
        }
    }
    printf("%s: %llu kills ", role->name, (unsigned long long)cases);
}

const char *campaign_missed(void)
{
    for (size_t i = 0; i < LABELS; i++) {
        if (!killed_at[i])
            return labels[i];
    }
    return NULL;
}
