/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/sandbox.h"

#include "stage/sandbox_table.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1 /* si_code; younger than some headers */
#endif

enum { NAMES = 512 };

/* For the handler, which can only use what is there. */
static struct {
    struct cell *cell;
    const char *stage;
    const char *program;
    pid_t pid;
    const char *name[NAMES]; /* of each system call */
} armed;

/* ---- a forbidden call ---- */

static size_t append(char *line, size_t at, size_t size, const char *text)
{
    while (*text && at + 1 < size)
        line[at++] = *text++;
    line[at] = '\0';
    return at;
}

static size_t append_number(char *line, size_t at, size_t size, unsigned number)
{
    char digits[12];
    size_t first = sizeof(digits) - 1;

    digits[first] = '\0';
    do
        digits[--first] = (char)('0' + number % 10);
    while (number /= 10);
    return append(line, at, size, digits + first);
}

static void on_forbidden(int signal_number, siginfo_t *info, void *context)
{
    char line[128];
    unsigned number = (unsigned)info->si_syscall;
    const char *name = number < NAMES && armed.name[number] ? armed.name[number] : "unknown";

    (void)signal_number;
    (void)context;
    if (info->si_code == SYS_SECCOMP) {
        size_t begin = append(line, 0, sizeof(line), armed.stage);
        begin = append(line, begin, sizeof(line), ": ");
        size_t at = append(line, begin, sizeof(line), "system call ");
        at = append(line, at, sizeof(line), name);
        at = append(line, at, sizeof(line), " (");
        at = append_number(line, at, sizeof(line), number);
        at = append(line, at, sizeof(line), ") is not in ");
        at = append(line, at, sizeof(line), armed.program);
        at = append(line, at, sizeof(line), "'s table");
        memcpy(armed.cell->error, line + begin, at + 1 - begin);
        (void)cell_move(armed.cell, CELL_FAILED, CELL_BY_STAGE);
        at = append(line, at, sizeof(line), "\n");
        if (write(STDERR_FILENO, line, at) < 0) {
            /* Nowhere left to say it. */
        }
    }
    /* Its own handler is gone by now (SA_RESETHAND). */
    (void)syscall(SYS_tgkill, armed.pid, armed.pid, SIGSYS);
    __builtin_trap();
}

static int arm_handler(const struct stage *stage, const char *program)
{
    const struct sigaction action = {.sa_sigaction = on_forbidden,
                                     .sa_flags = (int)(SA_SIGINFO | SA_RESETHAND | SA_NODEFER)};

    armed.cell = stage->cell;
    armed.stage = stage->name;
    armed.program = program;
    armed.pid = getpid();
    for (int i = 0; i < NAMES; i++)
        armed.name[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
    return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

/* ---- the filter ---- */

static int allow(scmp_filter_ctx filter, const struct sandbox_call *call)
{
    static const scmp_datum_t flags[] = {F_GETFL, F_SETFL, F_SETFD};
    const uint32_t action = SCMP_ACT_ALLOW;
    int err;

    switch (call->argument) {
    case SANDBOX_STDERR:
        return seccomp_rule_add(filter, action, call->number, 1,
                                SCMP_A0(SCMP_CMP_EQ, STDERR_FILENO, 0));
    case SANDBOX_SELF:
        err = seccomp_rule_add(filter, action, call->number, 1, SCMP_A0(SCMP_CMP_EQ, 0, 0));
        return err ? err
                   : seccomp_rule_add(filter, action, call->number, 1,
                                      SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)armed.pid, 0));
    case SANDBOX_PRIVATE:
        return seccomp_rule_add(filter, action, call->number, 2,
                                SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                                SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_TYPE, MAP_PRIVATE));
    case SANDBOX_FLAGS:
        err = 0;
        for (size_t i = 0; err == 0 && i < sizeof(flags) / sizeof(flags[0]); i++)
            err = seccomp_rule_add(filter, action, call->number, 1,
                                   SCMP_A1(SCMP_CMP_EQ, flags[i], 0));
        return err;
    case SANDBOX_OUTQ:
        return seccomp_rule_add(filter, action, call->number, 1, SCMP_A1(SCMP_CMP_EQ, SIOCOUTQ, 0));
    case SANDBOX_ANY:
    default:
        return seccomp_rule_add(filter, action, call->number, 0);
    }
}

static int allow_all(scmp_filter_ctx filter, const struct sandbox_list *list)
{
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < list->count; i++) {
        if (list->call[i].number >= 0)
            err = allow(filter, &list->call[i]);
    }
    return err;
}

static int arm_filter(const struct stage *stage)
{
    const struct sandbox_table table = sandbox_table(stage->cell_index, &stage->config);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return -ENOTSUP;
#endif
    int err = arm_handler(stage, table.program);
    scmp_filter_ctx filter = err < 0 ? NULL : seccomp_init(SCMP_ACT_TRAP);
    if (!filter)
        return err < 0 ? err : -ENOMEM;
    err = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    /* Kernels before 5.16 would else slow every load of a filtered process down (SSBD). */
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    (void)seccomp_attr_set(filter, SCMP_FLTATR_API_SYSRAWRC, 1);
    if (err == 0)
        err = allow_all(filter, &table.all);
    if (err == 0)
        err = allow_all(filter, &table.itself);
    if (err == 0)
        err = allow_all(filter, &table.more);
    if (err == 0 && stage->allocates)
        err = allow_all(filter, &table.memory);
    if (err == 0)
        err = seccomp_load(filter);
    seccomp_release(filter);
    return err;
}

/* ---- user and capabilities ---- */

static void empty_bounding_set(void)
{
    for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0;
         capability++)
        (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
}

static int become_user(const struct stage *stage)
{
    uid_t uid = (uid_t)stage->uid;
    gid_t gid = (gid_t)stage->gid;

    if (stage->uid < 0)
        return -EXDEV;
    if (getuid() == uid && geteuid() == uid)
        return 0;
    return setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0
               ? -errno
               : 0;
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

static const char *user_refusal(int err)
{
    switch (err) {
    case 0:
        return "";
    case -EXDEV:
        return "the run directory cannot be given to that user";
    case -EINVAL:
        return "this user namespace has no such user";
    case -EPERM:
        return "not started as root";
    default:
        return strerror(-err);
    }
}

static const char *filter_refusal(int err)
{
    return err == 0          ? ""
           : err == -ENOTSUP ? "a sanitizer's build makes calls of its own"
           : err == -EINVAL  ? "the kernel has no seccomp filters"
                             : strerror(-err);
}

int sandbox_enter(struct stage *stage)
{
    static const char *const asked[] = {"no", "want", "need"};
    enum config_wish wish = stage->config.isolate.sandbox;
    const char *user = stage->config.isolate.user;
    pid_t launcher = getppid();
    char before[24];

    if (wish == WISH_NO)
        return 0;
    tzset(); /* reads /etc/localtime now, not at the first line of the log */
    empty_bounding_set();
    snprintf(before, sizeof(before), "uid %u", geteuid());
    int err = become_user(stage);
    stage_note(stage, "isolate.user", user, err ? before : user, user_refusal(err));
    if (err < 0 && wish == WISH_NEED)
        return stage_error(stage, -EPERM,
                           "isolate.sandbox = need: cannot become %s: %s; start it as root, or: "
                           "--set isolate.sandbox=want",
                           user, user_refusal(err));
    /* A change of user has cleared it; who died before that is seen here. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != launcher)
        return stage_error(stage, -ESRCH, "the launcher has died");
    err = drop_capabilities();
    /* There is no sending of notes behind the filter: where it fails, another one replaces this. */
    stage_note(stage, "isolate.sandbox", asked[wish], "yes", "");
    if (err == 0)
        err = arm_filter(stage);
    if (err == 0)
        return 0;
    stage_note(stage, "isolate.sandbox", asked[wish], "no system call filter", filter_refusal(err));
    return wish == WISH_NEED
               ? stage_error(stage, -EPERM,
                             "isolate.sandbox = need: system calls are not filtered: %s; try: "
                             "--set isolate.sandbox=want",
                             filter_refusal(err))
               : 0;
}
