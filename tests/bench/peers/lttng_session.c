/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/peers/lttng_session.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SESSION_S = 20, DAEMON_S = 5 };

static int fail(struct lttng_session *session, const char *what)
{
    snprintf(session->failure, sizeof(session->failure), "%s", what);
    return 1;
}

/* ---- namespaces ---- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return written;
}

/* Whoever is not root becomes root of a user namespace, which may mount. */
static bool enter_namespaces(void)
{
    const bool root = geteuid() == 0;
    char users[32];
    char groups[32];

    snprintf(users, sizeof(users), "0 %u 1", geteuid());
    snprintf(groups, sizeof(groups), "0 %u 1", getegid());
    if (unshare(CLONE_NEWNS | (root ? 0 : CLONE_NEWUSER)) < 0)
        return false;
    if (!root &&
        (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/uid_map", users) ||
         !write_text("/proc/self/gid_map", groups)))
        return false;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") == 0 &&
           mount("tmpfs", "/dev/shm", "tmpfs", 0, NULL) == 0;
}

/* ---- the daemon ---- */

/* Its pid once it is ready (it says so by SIGUSR1), or -1: it has ended, or takes too long. */
static pid_t start_daemon(void)
{
    const struct timespec patience = {.tv_sec = DAEMON_S};
    sigset_t news;

    sigemptyset(&news);
    sigaddset(&news, SIGUSR1);
    sigaddset(&news, SIGCHLD);
    sigprocmask(SIG_BLOCK, &news, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        sigprocmask(SIG_UNBLOCK, &news, NULL);
        execlp("lttng-sessiond", "lttng-sessiond", "--no-kernel", "--group=root", "--sig-parent",
               NULL);
        _exit(127);
    }
    if (pid < 0 || sigtimedwait(&news, NULL, &patience) == SIGUSR1)
        return pid;
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    return -1;
}

/* ---- what the lttng command does ---- */

static bool set_up(const struct lttng_session *session)
{
    char script[512];

    snprintf(script, sizeof(script),
             "lttng create bench --output=\"$LTTNG_HOME/trace\" &&"
             "lttng enable-channel --userspace %s ring &&"
             "lttng enable-event --userspace --channel=ring %s && lttng start",
             session->channel, session->event);
    return system(script) == 0;
}

/* What LTTng counted as lost, over its channels. */
static bool read_discarded(struct lttng_session *session)
{
    static const char tag[] = "<discarded_events>";
    char text[1 << 14];
    FILE *list = popen("lttng --mi=xml list bench", "r");

    if (!list)
        return false;
    size_t got = fread(text, 1, sizeof(text) - 1, list);
    text[got] = '\0';
    const char *at = strstr(text, tag);
    bool found = pclose(list) == 0 && at;
    for (; at; at = strstr(at + 1, tag))
        session->discarded += strtoull(at + strlen(tag), NULL, 10);
    return found;
}

static int trace(struct lttng_session *session)
{
    if (!set_up(session))
        return fail(session, "lttng cannot set up a session (lttng-tools)");
    if (bench_wait(bench_child(session->cpu, session->traced, session->argument)) < 0)
        return fail(session, "the traced program did not reach its session daemon");
    if (system("lttng stop") != 0 || !read_discarded(session))
        return fail(session, "lttng cannot stop and list the session");
    return 0;
}

int lttng_session(void *argument)
{
    struct lttng_session *session = argument;

    (void)fail(session, "the session took too long");
    alarm(SESSION_S); /* the daemon ends with us */
    if (!enter_namespaces())
        return fail(session, "needs a mount namespace of its own, as root or by user namespaces");
    if (setenv("LTTNG_HOME", session->home, 1) < 0 || !freopen("/dev/null", "w", stdout) ||
        !freopen("/dev/null", "w", stderr))
        return fail(session, strerror(errno));
    pid_t daemon = start_daemon();
    if (daemon < 0)
        return fail(session, "lttng-sessiond does not start (lttng-tools)");
    int status = trace(session);
    kill(daemon, SIGTERM);
    waitpid(daemon, NULL, 0);
    return status;
}
