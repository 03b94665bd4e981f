/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/sandbox_table.h"

#include "shm/cell.h"

#include <seccomp.h>
#include <string.h>

#define LIST(calls)                                                                                \
    {                                                                                              \
        calls, sizeof(calls) / sizeof((calls)[0])                                                  \
    }

static const struct sandbox_call every[] = {
    {SCMP_SYS(sched_yield), SANDBOX_ANY},     /* a turn for the others on our CPU */
    {SCMP_SYS(clock_nanosleep), SANDBOX_ANY}, /* idle for long, or waiting for RUN */
    {SCMP_SYS(restart_syscall), SANDBOX_ANY}, /* the same, after it was stopped and continued */
    {SCMP_SYS(clock_gettime), SANDBOX_ANY},   /* what the vDSO cannot tell, and CPU time */
    {SCMP_SYS(getrusage), SANDBOX_ANY},       /* trace.counters: faults and switches */
    {SCMP_SYS(recvmsg), SANDBOX_ANY},         /* is the launcher still there? */
    {SCMP_SYS(write), SANDBOX_STDERR},        /* a line into its log */
    {SCMP_SYS(rt_sigreturn), SANDBOX_ANY},    /* told to end by SIGTERM */
    {SCMP_SYS(close), SANDBOX_ANY},           /* what it gives back at its end, these three */
    {SCMP_SYS(munmap), SANDBOX_ANY},
    {SCMP_SYS(brk), SANDBOX_ANY},
    {SCMP_SYS(exit_group), SANDBOX_ANY},
    {SCMP_SYS(rt_sigprocmask),
     SANDBOX_ANY}, /* abort() where shared memory is corrupt, these four */
    {SCMP_SYS(getpid), SANDBOX_ANY},
    {SCMP_SYS(gettid), SANDBOX_ANY},
    {SCMP_SYS(tgkill), SANDBOX_SELF},
};

static const struct sandbox_call rx[] = {
    {SCMP_SYS(recvmmsg), SANDBOX_ANY},    /* datagrams, plain */
    {SCMP_SYS(epoll_wait), SANDBOX_ANY},  /* which of many sockets has some */
    {SCMP_SYS(epoll_pwait), SANDBOX_ANY}, /* the same on aarch64 */
    {SCMP_SYS(ppoll), SANDBOX_ANY},       /* parked until one has */
    {SCMP_SYS(io_uring_enter),
     SANDBOX_ANY},                  /* datagrams, io_uring; its operations: io_restrict.h */
    {SCMP_SYS(futex), SANDBOX_ANY}, /* wakes a parked worker */
    {SCMP_SYS(sched_getattr), SANDBOX_SELF}, /* moves to its place in the rotation, these two */
    {SCMP_SYS(sched_setattr), SANDBOX_SELF},
};

static const struct sandbox_call rx_tcp[] = {
    {SCMP_SYS(accept4), SANDBOX_ANY},    /* the next connection */
    {SCMP_SYS(epoll_ctl), SANDBOX_ANY},  /* it is watched, and no more */
    {SCMP_SYS(sendmsg), SANDBOX_ANY},    /* it is left with the launcher, and forgotten there */
    {SCMP_SYS(getsockopt), SANDBOX_ANY}, /* has its peer ended it, or reset it? */
    {SCMP_SYS(setsockopt), SANDBOX_ANY}, /* quick acknowledgements; how it is to be closed */
};

/* In the place of the list above: frames stand in memory. */
static const struct sandbox_call rx_packet[] = {
    {SCMP_SYS(ppoll), SANDBOX_ANY},          /* parked until one stands there */
    {SCMP_SYS(futex), SANDBOX_ANY},          /* wakes a parked worker */
    {SCMP_SYS(sched_getattr), SANDBOX_SELF}, /* moves to its place in the rotation, these two */
    {SCMP_SYS(sched_setattr), SANDBOX_SELF},
};

static const struct sandbox_call worker[] = {
    {SCMP_SYS(futex), SANDBOX_ANY},          /* parks, wakes a parked tx */
    {SCMP_SYS(sched_getattr), SANDBOX_SELF}, /* moves to its place in the rotation, these two */
    {SCMP_SYS(sched_setattr), SANDBOX_SELF},
};

/* What malloc calls beside brk and munmap; for a handler that says it allocates. */
static const struct sandbox_call memory[] = {
    {SCMP_SYS(mmap), SANDBOX_PRIVATE}, /* a large block, or where brk has no room */
    {SCMP_SYS(mremap), SANDBOX_ANY},   /* a large block grows */
    {SCMP_SYS(madvise), SANDBOX_ANY},  /* pages of a freed one go back */
};

static const struct sandbox_call tx[] = {
    {SCMP_SYS(sendto), SANDBOX_ANY},         /* replies, plain */
    {SCMP_SYS(io_uring_enter), SANDBOX_ANY}, /* replies, io_uring; its operations: io_restrict.h */
    {SCMP_SYS(futex), SANDBOX_ANY},          /* parks */
    {SCMP_SYS(sched_getattr), SANDBOX_SELF}, /* moves to its place in the rotation, these two */
    {SCMP_SYS(sched_setattr), SANDBOX_SELF},
};

static const struct sandbox_call tx_tcp[] = {
    {SCMP_SYS(sendmsg), SANDBOX_ANY}, /* several replies at once; tells that a connection is lost */
    {SCMP_SYS(recvfrom), SANDBOX_ANY},    /* has the other side closed it? */
    {SCMP_SYS(connect), SANDBOX_ANY},     /* tries again */
    {SCMP_SYS(getsockopt), SANDBOX_ANY},  /* how far that has come, what was acknowledged */
    {SCMP_SYS(getsockname), SANDBOX_ANY}, /* has it met itself? these two */
    {SCMP_SYS(getpeername), SANDBOX_ANY},
    {SCMP_SYS(ioctl), SANDBOX_OUTQ},   /* what was not acknowledged */
    {SCMP_SYS(shutdown), SANDBOX_ANY}, /* the end */
};

/* Over connections that rx has accepted. */
static const struct sandbox_call tx_reply[] = {
    {SCMP_SYS(sendmsg), SANDBOX_ANY},    /* several replies at once into a connection */
    {SCMP_SYS(getsockopt), SANDBOX_ANY}, /* what a predecessor had written, these two */
    {SCMP_SYS(ioctl), SANDBOX_OUTQ},
    {SCMP_SYS(shutdown), SANDBOX_ANY}, /* all of a connection is answered */
};

static const struct sandbox_call tracer[] = {
    {SCMP_SYS(pwritev), SANDBOX_ANY},    /* sub-buffers to disk */
    {SCMP_SYS(fcntl), SANDBOX_FLAGS},    /* O_DIRECT off; stdio and opendir set theirs */
    {SCMP_SYS(sendmsg), SANDBOX_ANY},    /* tells the launcher that it cannot */
    {SCMP_SYS(pread64), SANDBOX_ANY},    /* closes the gaps of a plain file */
    {SCMP_SYS(pwrite64), SANDBOX_ANY},   /* size of the last packet */
    {SCMP_SYS(ftruncate), SANDBOX_ANY},  /* cuts a file to its whole packets */
    {SCMP_SYS(openat), SANDBOX_ANY},     /* next chunk, metadata: what the user may open */
    {SCMP_SYS(uname), SANDBOX_ANY},      /* metadata: the host's name */
    {SCMP_SYS(newfstatat), SANDBOX_ANY}, /* metadata, by stdio: these three */
    {SCMP_SYS(fstat), SANDBOX_ANY},
    {SCMP_SYS(write), SANDBOX_ANY},
    {SCMP_SYS(renameat), SANDBOX_ANY}, /* metadata and snapshots appear whole */
    {SCMP_SYS(unlinkat), SANDBOX_ANY}, /* the oldest chunk */
    {SCMP_SYS(mkdirat), SANDBOX_ANY},  /* a snapshot: this and the next */
    {SCMP_SYS(linkat), SANDBOX_ANY},
    {SCMP_SYS(getdents64), SANDBOX_ANY}, /* which chunks there are */
    {SCMP_SYS(geteuid), SANDBOX_ANY},    /* whose a new file is */
    {SCMP_SYS(mmap), SANDBOX_PRIVATE},   /* memory for the next file */
};

static const struct sandbox_table tables[] = {
    [CELL_RX] = {.program = "rx", .all = LIST(every), .itself = LIST(rx)},
    [CELL_TX] = {.program = "tx", .all = LIST(every), .itself = LIST(tx)},
    [CELL_TRACER] = {.program = "tracer", .all = LIST(every), .itself = LIST(tracer)},
    [CELL_WORKER] = {.program = "worker",
                     .all = LIST(every),
                     .itself = LIST(worker),
                     .memory = LIST(memory)},
};

struct sandbox_table sandbox_table(uint32_t cell_index, const struct config *config)
{
    struct sandbox_table table = tables[cell_index < CELL_WORKER ? cell_index : CELL_WORKER];

    if (cell_index == CELL_RX && strcmp(config->rx.source, "tcp") == 0)
        table.more = (struct sandbox_list)LIST(rx_tcp);
    if (cell_index == CELL_TX && strcmp(config->tx.sink, "tcp") == 0)
        table.more = (struct sandbox_list)LIST(tx_tcp);
    if (cell_index == CELL_TX && strcmp(config->tx.sink, "reply") == 0 &&
        strcmp(config->rx.source, "tcp") == 0)
        table.more = (struct sandbox_list)LIST(tx_reply);
    if (cell_index == CELL_RX && strcmp(config->rx.source, "packet") == 0)
        table.itself = (struct sandbox_list)LIST(rx_packet);
    return table;
}
