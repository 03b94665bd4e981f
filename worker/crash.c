/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/crash.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { STACK_BYTES = 64 << 10 };

/* For the signal's handler, which can only use what is there. */
static struct {
    struct stage *stage;
    const struct host *host;
    pid_t pid;
} armed;

static uintptr_t instruction(const void *context)
{
    const ucontext_t *at = context;

#if defined(__x86_64__)
    return (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
#else
    return (uintptr_t)at->uc_mcontext.pc;
#endif
}

/* `name+0x12 of example.so+0x1139`: what the object's own symbols say. */
static void place_text(uintptr_t at, char *out, size_t size)
{
    Dl_info info = {0};

    snprintf(out, size, "0x%" PRIxPTR, at);
    /* Walks the list of objects under a lock that only dlopen holds: nothing opens any here. */
    if (dladdr((void *)at, &info) == 0 || !info.dli_fname)
        return;
    const char *slash = strrchr(info.dli_fname, '/');
    const char *file = slash ? slash + 1 : info.dli_fname;
    uintptr_t base = (uintptr_t)info.dli_fbase;
    if (info.dli_sname)
        snprintf(out, size, "%.80s+0x%" PRIxPTR " of %.80s+0x%" PRIxPTR, info.dli_sname,
                 at - (uintptr_t)info.dli_saddr, file, at - base);
    else
        snprintf(out, size, "%.80s+0x%" PRIxPTR, file, at - base);
}

static const char *signal_text(int number)
{
    switch (number) {
    case SIGSEGV:
        return "SIGSEGV";
    case SIGBUS:
        return "SIGBUS";
    case SIGFPE:
        return "SIGFPE";
    case SIGILL:
        return "SIGILL";
    default:
        return "SIGABRT";
    }
}

static void count_crash(uint64_t request)
{
    struct cell_crash *crash = &armed.stage->cells->crash[armed.stage->worker];

    if (crash->count == 0 || crash->request != request)
        *crash = (struct cell_crash){.request = request};
    crash->count++;
}

static void on_crash(int number, siginfo_t *info, void *context)
{
    uint64_t request = armed.host->request.number;
    struct cell *cell = armed.stage->cell;
    char place[256];
    char line[CELL_ERROR_MAX + 32];

    if (armed.host->inside) {
        char address[40] = "";
        count_crash(request);
        place_text(instruction(context), place, sizeof(place));
        if (number == SIGSEGV || number == SIGBUS)
            snprintf(address, sizeof(address), ", address 0x%" PRIxPTR, (uintptr_t)info->si_addr);
        snprintf(cell->error, sizeof(cell->error),
                 "handler %s crashed at %s in request %" PRIu64 " (%s%s)",
                 armed.host->handler->name, place, request, signal_text(number), address);
        (void)cell_move(cell, CELL_FAILED, CELL_BY_STAGE);
        int length = snprintf(line, sizeof(line), "%s: %s\n", armed.stage->name, cell->error);
        if (write(STDERR_FILENO, line, (size_t)length) < 0) {
            /* Nowhere left to say it. */
        }
    }
    /* Its own handler is gone by now (SA_RESETHAND). */
    (void)syscall(SYS_tgkill, armed.pid, armed.pid, number);
}

int crash_arm(struct stage *stage, const struct host *host)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    const struct sigaction action = {
        .sa_sigaction = on_crash,
        .sa_flags = (int)(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND | SA_NODEFER)};
    const stack_t stack = {.ss_sp = malloc(STACK_BYTES), .ss_size = STACK_BYTES};

    if (!stack.ss_sp)
        return -ENOMEM;
    armed.stage = stage;
    armed.host = host;
    armed.pid = getpid();
    if (sigaltstack(&stack, NULL) < 0)
        return -errno;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (sigaction(signals[i], &action, NULL) < 0)
            return -errno;
    }
    return 0;
}
