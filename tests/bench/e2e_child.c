/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/e2e_child.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { POLL_NS = 1000000 };

/* ---- programs ---- */

static void redirect(int fd, int to)
{
    int from = fd >= 0 ? fd : open("/dev/null", O_RDWR | O_CLOEXEC);

    if (from >= 0)
        dup2(from, to);
}

pid_t e2e_child_start(const struct e2e_program *program)
{
    pid_t parent = getpid();
    cpu_set_t set;

    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid < 0 ? -errno : pid;
    CPU_ZERO(&set);
    for (int i = 0; i < program->cpus; i++)
        CPU_SET((unsigned)program->cpu[i], &set);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || sched_setaffinity(0, sizeof(set), &set) < 0)
        _exit(4);
    redirect(program->in, STDIN_FILENO);
    redirect(program->out, STDOUT_FILENO);
    execv(program->argv[0], program->argv);
    _exit(127);
}

int e2e_child_end(pid_t pid, int signal, int ms)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};
    int status;

    if (signal)
        kill(pid, signal);
    for (int i = 0; i < ms; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return status == 0 ? 0 : -EIO;
        nanosleep(&pause, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -EIO;
}

/* ---- the folder ---- */

/* A process of its own, so that the folder goes also where we are killed: the pipe ends when all
 * who have inherited its other end are gone. */
static void remove_later(const struct e2e_folder *folder, int end)
{
    char byte;

    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    close(folder->held);
    redirect(-1, STDIN_FILENO);
    redirect(-1, STDOUT_FILENO);
    while (read(end, &byte, 1) < 0 && errno == EINTR) {
    }
    scratch_remove(&folder->scratch);
    _exit(0);
}

int e2e_folder_open(struct e2e_folder *folder, struct bench_result *result)
{
    int ends[2];

    int err = scratch_make(&folder->scratch, NULL, result);
    if (err < 0)
        return err;
    if (pipe(ends) < 0)
        return bench_fail(result, -errno, "pipe: %s", strerror(errno));
    folder->held = ends[1];
    fflush(NULL);
    folder->remover = fork();
    if (folder->remover == 0)
        remove_later(folder, ends[0]);
    close(ends[0]);
    return folder->remover < 0 ? bench_fail(result, -errno, "fork: %s", strerror(errno)) : 0;
}

void e2e_folder_close(struct e2e_folder *folder)
{
    if (folder->remover <= 0)
        return;
    close(folder->held);
    waitpid(folder->remover, NULL, 0);
    folder->remover = 0;
}
