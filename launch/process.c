/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/process.h"

#include "stage/config.h"
#include "stage/cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A stage that has gone mad may send for ever: so many are taken at a time, and so many notes kept. */
enum { CHILD_CONTROL_FD = 3, ARGUMENTS_MAX = 32, MESSAGES_MAX = 256, NOTES_MAX = 512 };

int process_path(const char *program, char *out, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", out, size - 1);

    if (length < 0)
        return -errno;
    out[length] = '\0';
    char *slash = strrchr(out, '/');
    size_t folder = slash ? (size_t)(slash - out) + 1 : 0;
    return snprintf(out + folder, size - folder, "%s", program) < (int)(size - folder)
               ? 0
               : -ENAMETOOLONG;
}

_Noreturn static void become(const struct process *process, const char *path,
                             char *const arguments[], int control, int log, pid_t launcher)
{
    char *argv[ARGUMENTS_MAX];
    char fd_text[16];
    int count = 0;

    snprintf(fd_text, sizeof(fd_text), "%d", CHILD_CONTROL_FD);
    argv[count++] = (char *)(uintptr_t)path;
    argv[count++] = (char *)(uintptr_t) "--control";
    argv[count++] = fd_text;
    for (int i = 0; arguments[i] && count < ARGUMENTS_MAX - 1; i++)
        argv[count++] = arguments[i];
    argv[count] = NULL;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != launcher)
        _exit(1);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (cpu_pin(process->cpu) < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        _exit(126);
    /* dup2 clears close-on-exec, but not where both are the same descriptor. */
    if (control == CHILD_CONTROL_FD ? fcntl(control, F_SETFD, 0) < 0
                                    : dup2(control, CHILD_CONTROL_FD) < 0)
        _exit(126);
    execv(path, argv);
    _exit(127);
}

int process_spawn(struct process *process, char *const arguments[], int log)
{
    char path[512];
    int pair[2];

    int err = process_path(process->program, path, sizeof(path));
    if (err < 0)
        return err;
    if (access(path, X_OK) < 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    pid_t launcher = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(process, path, arguments, pair[1], log, launcher);
    close(pair[1]);
    if (pid < 0) {
        err = -errno;
        close(pair[0]);
        return err;
    }
    process->pid = pid;
    process->control = pair[0];
    process->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return process->pidfd < 0 ? -errno : 0;
}

int process_give(struct process *process, const char *name, int fd)
{
    struct control_message message = {.type = CONTROL_GIVE};

    snprintf(message.name, sizeof(message.name), "%s", name);
    return control_send(process->control, &message, fd);
}

static struct control_message giving(const struct store_item *item)
{
    struct control_message message = {.type = CONTROL_GIVE, .value = item->value};

    snprintf(message.name, sizeof(message.name), "%s", item->name);
    return message;
}

int process_give_item(struct process *process, const struct store_item *item)
{
    const struct control_message message = giving(item);

    return control_send(process->control, &message, item->fd);
}

int process_offer(struct process *process, const struct store_item *item)
{
    const struct control_message message = giving(item);

    return control_offer(process->control, &message, item->fd);
}

int process_start(struct process *process, uint64_t epoch)
{
    const struct control_message message = {.type = CONTROL_START, .value = epoch};

    return control_send(process->control, &message, -1);
}

void process_tell(const struct process *process, json_t *told, const char *format, ...)
{
    char message[CONFIG_ERROR_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    json_array_append_new(told,
                          json_pack("{s:s, s:s}", "stage", process->name, "message", message));
}

/* What goes to a terminal steers none. */
static const char *printable(char *text)
{
    for (char *at = text; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    }
    return text;
}

void process_receive(struct process *process, json_t *notes, json_t *told)
{
    struct control_message message;
    char key[80];
    int fd;

    for (int i = 0; process->control >= 0 && i < MESSAGES_MAX; i++) {
        int err = control_receive(process->control, &message, &fd, 0);
        if (err == -EAGAIN)
            return;
        if (err < 0) {
            close(process->control);
            process->control = -1;
            return;
        }
        if (message.type == CONTROL_DEPOSIT && fd >= 0) {
            store_put(&process->store, message.name, message.value, fd);
            continue;
        }
        if (fd >= 0)
            close(fd);
        if (message.type == CONTROL_RELEASE)
            store_remove(&process->store, message.name);
        if (message.type == CONTROL_TELL)
            process_tell(process, told, "%s: %s", process->name, printable(message.text));
        if (message.type != CONTROL_NOTE)
            continue;
        snprintf(key, sizeof(key), "%s %s", process->name, message.name);
        if (json_object_size(notes) == NOTES_MAX)
            continue;
        json_object_set_new(notes, key,
                            json_pack("{s:s, s:s, s:s}", "asked", message.asked, "obtained",
                                      message.obtained, "why", message.why));
    }
}

bool process_reap(struct process *process)
{
    siginfo_t info = {0};

    if (process->pid == 0)
        return true;
    if (waitid(P_PID, (id_t)process->pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return false;
    process->status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    process->pid = 0;
    close(process->pidfd);
    process->pidfd = -1;
    return true;
}

void process_ending(const struct process *process, char *out, size_t size)
{
    if (process->status > 128)
        snprintf(out, size, "killed by signal %d (%s)", process->status - 128,
                 strsignal(process->status - 128));
    else
        snprintf(out, size, "exit status %d", process->status);
}

void process_forget(struct process *process)
{
    if (process->control >= 0)
        close(process->control);
    process->control = -1;
    process->still = (struct still){0};
}

void process_close(struct process *process)
{
    process_forget(process);
    store_close(&process->store);
}
