/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child becomes a stage as far as its rights go: it enters the real sandbox of rx, worker, tx or
 * tracer, and then does what it may not.
 */
#include "launch/folders.h"
#include "shm/region.h"
#include "stage/control.h"
#include "stage/io_restrict.h"
#include "stage/sandbox.h"
#include "tests/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { NOBODY = 65534 };

static struct cell *cell; /* shared with the children */
static const char *source = "udp", *sink = "udp";
static bool allocates;

static bool filtered(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    UNIT_SKIP("system call filter: a sanitizer makes calls of its own");
    return false;
#else
    return true;
#endif
}

/* Enters the sandbox of the stage in this cell; what sandbox_enter says. */
static int enter(struct stage *stage, uint32_t index, enum config_wish wish)
{
    static const char *const names[] = {"rx", "tx", "tracer", "worker0"};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    memset(cell, 0, sizeof(*cell));
    store_relaxed(&cell->state, (uint32_t)CELL_OPENING);
    *stage = (struct stage){
        .cell_index = index,
        .cell = cell,
        .control = pair[0],
        .uid = geteuid() == 0 ? NOBODY : (int64_t)geteuid(),
        .gid = geteuid() == 0 ? NOBODY : (int64_t)getegid(),
        .allocates = allocates,
    };
    strcpy(stage->name, names[index]);
    stage->config.isolate.sandbox = wish;
    strcpy(stage->config.isolate.user, "nobody");
    strcpy(stage->config.rx.source, source);
    strcpy(stage->config.tx.sink, sink);
    return sandbox_enter(stage);
}

/* ---- system calls ---- */

struct attempt {
    uint32_t index;
    long number;
    long argument[4];
    const char *name; /* of the call that is said to be forbidden; NULL: allowed */
    const char *program;
};

static int child_attempt(void *argument)
{
    const struct attempt *attempt = argument;
    const long *a = attempt->argument;
    struct stage stage;

    if (enter(&stage, attempt->index, WISH_NEED) < 0)
        return 1;
    (void)syscall(attempt->number, a[0], a[1], a[2], a[3], -1L, 0L);
    return 0;
}

enum { SHARED = MAP_SHARED | MAP_ANONYMOUS, PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS };

static const struct attempt attempts[] = {
    /* files, the network, other programs, other processes: none is open to who takes traffic */
    {CELL_RX, SYS_openat, {AT_FDCWD, 0, O_RDONLY}, "openat", "rx"},
    {CELL_RX, SYS_socket, {AF_INET, SOCK_DGRAM}, "socket", "rx"},
    {CELL_RX, SYS_sendto, {0}, "sendto", "rx"},
    {CELL_RX, SYS_io_uring_setup, {1}, "io_uring_setup", "rx"},
    {CELL_RX, SYS_io_uring_register, {-1}, "io_uring_register", "rx"},
    {CELL_WORKER, SYS_recvmmsg, {-1}, "recvmmsg", "worker"},
    {CELL_WORKER, SYS_execve, {0}, "execve", "worker"},
    {CELL_WORKER, SYS_clone, {0}, "clone", "worker"},
    {CELL_WORKER, SYS_io_uring_enter, {-1}, "io_uring_enter", "worker"},
    {CELL_TX, SYS_connect, {-1}, "connect", "tx"},
    {CELL_TX, SYS_sendmsg, {-1}, "sendmsg", "tx"},
    {CELL_TX, SYS_ptrace, {0}, "ptrace", "tx"},
    {CELL_TRACER, SYS_socket, {AF_INET, SOCK_DGRAM}, "socket", "tracer"},
    {CELL_TRACER, SYS_execve, {0}, "execve", "tracer"},
    {CELL_TRACER, SYS_fchownat, {-1}, "fchownat", "tracer"},
    /* no way to give oneself what was taken away */
    {CELL_RX, SYS_mprotect, {0, 4096, PROT_READ | PROT_WRITE}, "mprotect", "rx"},
    {CELL_WORKER, SYS_mprotect, {0, 4096, PROT_READ | PROT_WRITE}, "mprotect", "worker"},
    {CELL_WORKER, SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, PRIVATE}, "mmap", "worker"},
    {CELL_TX, SYS_mmap, {0, 4096, PROT_READ, PRIVATE}, "mmap", "tx"},
    {CELL_TRACER, SYS_mprotect, {0, 4096, PROT_READ | PROT_WRITE}, "mprotect", "tracer"},
    {CELL_TRACER, SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, SHARED}, "mmap", "tracer"},
    {CELL_TRACER, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, PRIVATE}, "mmap", "tracer"},
    {CELL_TRACER, SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, PRIVATE}, NULL, NULL},
    {CELL_TX, SYS_rt_sigaction, {SIGSYS}, "rt_sigaction", "tx"},
    {CELL_RX, SYS_prctl, {0}, "prctl", "rx"},
    {CELL_RX, SYS_setresuid, {0}, "setresuid", "rx"},
    {CELL_WORKER, SYS_perf_event_open, {0}, "perf_event_open", "worker"},
    {CELL_WORKER, SYS_getrusage, {RUSAGE_THREAD, 0}, NULL, NULL},
    /* by their arguments */
    {CELL_RX, SYS_write, {STDERR_FILENO, 0, 0}, NULL, NULL},
    {CELL_RX, SYS_write, {STDOUT_FILENO, 0, 0}, "write", "rx"},
    {CELL_TRACER, SYS_write, {-1, 0, 0}, NULL, NULL},
    {CELL_TX, SYS_tgkill, {1, 1, 0}, "tgkill", "tx"},
    {CELL_RX, SYS_sched_setattr, {1}, "sched_setattr", "rx"},
    {CELL_RX, SYS_sched_setattr, {0, 0, 0}, NULL, NULL},
    {CELL_TRACER, SYS_fcntl, {0, F_GETFL}, NULL, NULL},
    {CELL_TRACER, SYS_fcntl, {0, F_DUPFD, 0}, "fcntl", "tracer"},
    /* a call that the kernel does not know either */
    {CELL_TX, 509, {0}, "unknown", "tx"},
    {CELL_TX, 4000, {0}, "unknown", "tx"},
};

/* With a handler that says it allocates. */
static const struct attempt by_allocating[] = {
    {CELL_WORKER, SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, PRIVATE}, NULL, NULL},
    {CELL_WORKER, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, PRIVATE}, "mmap", "worker"},
};

/* With tx.sink = tcp, with rx.source = tcp and tx.sink = reply, and with the latter alone. */
static const struct attempt by_sink[3][5] = {
    {
        {CELL_TX, SYS_connect, {-1}, NULL, NULL},
        {CELL_TX, SYS_sendmsg, {-1}, NULL, NULL},
        {CELL_TX, SYS_ioctl, {-1, SIOCOUTQ}, NULL, NULL},
        {CELL_TX, SYS_ioctl, {-1, TIOCSTI}, "ioctl", "tx"},
        {CELL_TX, SYS_socket, {AF_INET, SOCK_STREAM}, "socket", "tx"},
    },
    {
        {CELL_TX, SYS_shutdown, {-1}, NULL, NULL},
        {CELL_TX, SYS_sendmsg, {-1}, NULL, NULL},
        {CELL_TX, SYS_connect, {-1}, "connect", "tx"},
        {CELL_TX, SYS_recvfrom, {-1}, "recvfrom", "tx"},
        {CELL_TX, SYS_accept4, {-1}, "accept4", "tx"},
    },
    {
        {CELL_TX, SYS_sendto, {-1}, NULL, NULL},
        {CELL_TX, SYS_sendmsg, {-1}, "sendmsg", "tx"},
        {CELL_TX, SYS_shutdown, {-1}, "shutdown", "tx"},
        {CELL_TX, SYS_recvfrom, {-1}, "recvfrom", "tx"},
        {CELL_TX, SYS_connect, {-1}, "connect", "tx"},
    },
};

static void try(const struct attempt *attempt)
{
    static const char *const names[] = {"rx", "tx", "tracer", "worker0"};
    char said[256], expected[256];
    int status = unit_child(child_attempt, (void *)(uintptr_t)attempt, said, sizeof(said));

    if (!attempt->name) {
        CU_ASSERT_EQUAL(status, 0);
        CU_ASSERT_STRING_EQUAL(said, "");
        return;
    }
    snprintf(expected, sizeof(expected), "%s: system call %s (%ld) is not in %s's table\n",
             names[attempt->index], attempt->name, attempt->number, attempt->program);
    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    CU_ASSERT_STRING_EQUAL(said, expected);
    expected[strlen(expected) - 1] = '\0';
    CU_ASSERT_STRING_EQUAL(cell->error, strchr(expected, ' ') + 1);
    CU_ASSERT_EQUAL(cell_state(cell), CELL_FAILED);
}

static void test_tables(void)
{
    static const char *const ways[3][2] = {{"udp", "tcp"}, {"tcp", "reply"}, {"udp", "reply"}};

    if (!filtered())
        return;
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
        try(&attempts[i]);
    allocates = true;
    for (size_t i = 0; i < sizeof(by_allocating) / sizeof(by_allocating[0]); i++)
        try(&by_allocating[i]);
    allocates = false;
    for (size_t way = 0; way < 3; way++) {
        source = ways[way][0];
        sink = ways[way][1];
        for (size_t i = 0; i < 5; i++)
            try(&by_sink[way][i]);
    }
    source = sink = "udp";
}

static int child_sleeps(void *unused)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    struct stage stage;

    (void)unused;
    if (enter(&stage, CELL_RX, WISH_WANT) < 0)
        return 1;
    sched_yield();
    nanosleep(&moment, NULL);
    region_corrupt("ring tail", 5, 255);
}

/* What a stage says of corrupt memory, and its way to end then, are among its calls. */
static void test_abort(void)
{
    unit_dies(child_sleeps, NULL, SIGABRT,
              "shared memory is corrupt: ring tail: expected 5 (0x5), found 255 (0xff)\n");
}

/* ---- memory ---- */

static int child_writes(void *region)
{
    struct stage stage;

    if (enter(&stage, CELL_TX, WISH_WANT) < 0)
        return 1;
    *(volatile uint64_t *)region_at(region, PAGE_BYTES) = 1;
    return 0;
}

static void test_read_only(void)
{
    const struct region_place anywhere = {.numa_node = -1};
    const struct region_want want = {.kind = REGION_RING};
    struct region owner, reader;
    struct region_mismatch mismatch;
    CU_ASSERT_EQUAL_FATAL(region_create(&owner, "test", &want, &anywhere, 8192), 0);
    CU_ASSERT_EQUAL_FATAL(region_attach(&reader, dup(owner.fd), &want, false, &mismatch), 0);
    unit_dies(child_writes, &reader, SIGSEGV, "");
    CU_ASSERT_EQUAL(*(uint64_t *)region_at(&owner, PAGE_BYTES), 0);
    region_close(&reader);
    region_close(&owner);
}

/* ---- user and capabilities ---- */

static int child_shows(void *unused)
{
    char line[256];
    struct stage stage;
    int status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

    (void)unused;
    if (enter(&stage, CELL_TRACER, WISH_WANT) < 0)
        return 1;
    /* Neither read nor lseek is the tracer's. */
    ssize_t got;
    for (off_t at = 0; (got = pread(status, line, sizeof(line), at)) > 0; at += got) {
        if (write(STDERR_FILENO, line, (size_t)got) != got)
            return 1;
    }
    return 0;
}

static bool shows(const char *text, const char *field, const char *value)
{
    const char *at = strstr(text, field);
    size_t length = strlen(field);
    if (at && strncmp(at + length, value, strlen(value)) == 0 && at[length + strlen(value)] == '\n')
        return true;
    fprintf(stderr, "\n  %s%s expected, found %.60s\n", field, value, at ? at + length : "nothing");
    return false;
}

static void test_status(void)
{
    static const char none[] = "0000000000000000";
    char said[4096];
    CU_ASSERT_EQUAL(unit_child(child_shows, NULL, said, sizeof(said)), 0);
    CU_ASSERT(shows(said, "\nNoNewPrivs:\t", "1"));
    CU_ASSERT(shows(said, "\nCapInh:\t", none));
    CU_ASSERT(shows(said, "\nCapPrm:\t", none));
    CU_ASSERT(shows(said, "\nCapEff:\t", none));
    CU_ASSERT(shows(said, "\nCapAmb:\t", none));
    if (filtered())
        CU_ASSERT(shows(said, "\nSeccomp:\t", "2"));
    if (geteuid() != 0) {
        UNIT_SKIP("another user: needs root");
        return;
    }
    CU_ASSERT(shows(said, "\nCapBnd:\t", none));
    CU_ASSERT(shows(said, "\nUid:\t", "65534\t65534\t65534\t65534"));
    CU_ASSERT(shows(said, "\nGid:\t", "65534\t65534\t65534\t65534"));
    CU_ASSERT(shows(said, "\nGroups:\t", " ") || shows(said, "\nGroups:\t", ""));
}

/* No user was given: with `want` it stays who it is, with `need` that is an error of one line. */
static int child_no_user(void *wish)
{
    enum config_wish asked = *(enum config_wish *)wish;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return 1;
    struct stage stage = {.cell_index = CELL_TRACER, .cell = cell, .control = pair[0], .uid = -1};
    stage.config.isolate.sandbox = asked;
    strcpy(stage.config.isolate.user, "nobody");
    int err = sandbox_enter(&stage);
    fputs(stage.error, stderr);
    return err == (asked == WISH_NEED ? -EPERM : 0) ? 0 : 2;
}

static void test_no_user(void)
{
    enum config_wish wish = WISH_NEED;
    char said[512];
    CU_ASSERT_EQUAL(unit_child(child_no_user, &wish, said, sizeof(said)), 0);
    CU_ASSERT_STRING_EQUAL(said, "isolate.sandbox = need: cannot become nobody: the run directory "
                                 "cannot be given to that user; start it as root, or: --set "
                                 "isolate.sandbox=want");
    wish = WISH_WANT;
    CU_ASSERT_EQUAL(unit_child(child_no_user, &wish, said, sizeof(said)), 0);
    CU_ASSERT_STRING_EQUAL(said, "");
}

struct note {
    const char *name, *obtained, *why;
};

static void expect_note(int control, const struct note *expected)
{
    struct control_message message;
    int fd;
    CU_ASSERT_EQUAL(control_receive(control, &message, &fd, 0), 0);
    CU_ASSERT_STRING_EQUAL(message.name, expected->name);
    CU_ASSERT_STRING_EQUAL(message.obtained, expected->obtained);
    CU_ASSERT_STRING_EQUAL(message.why, expected->why);
}

static int child_notes(void *control)
{
    struct stage stage = {.cell_index = CELL_RX, .cell = cell, .control = *(int *)control};

    stage.uid = stage.gid = geteuid() == 0 ? NOBODY : (int64_t)geteuid();
    stage.config.isolate.sandbox = WISH_WANT;
    strcpy(stage.config.isolate.user, "nobody");
    return sandbox_enter(&stage) < 0;
}

static void test_notes(void)
{
    char said[256];
    int pair[2];
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    CU_ASSERT_EQUAL(unit_child(child_notes, &pair[0], said, sizeof(said)), 0);
    expect_note(pair[1], &(struct note){"isolate.user", "nobody", ""});
    expect_note(pair[1], &(struct note){"isolate.sandbox", "yes", ""});
    if (!filtered())
        expect_note(pair[1], &(struct note){"isolate.sandbox", "no system call filter",
                                            "a sanitizer's build makes calls of its own"});
    close(pair[0]);
    close(pair[1]);
}

/* ---- folders ---- */

static void put_file(int folder, const char *name, uid_t owner)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(fchown(fd, owner, owner), 0);
    close(fd);
}

static uid_t owner_of(int folder, const char *name)
{
    struct stat st;
    return fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_uid : (uid_t)-1;
}

/* What the borrower left is the owner's again; what it only pointed at never becomes so. */
static void test_folders(void)
{
    const struct user nobody = {NOBODY, NOBODY};
    struct config config = {0};
    char path[] = "/tmp/tickline-test-XXXXXX";
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(path));
    int run = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    config.trace.keep_ns = config.trace.snapshot_over_ns = 1;
    CU_ASSERT_EQUAL(folders_make(run, &config), 0);
    CU_ASSERT_EQUAL(folders_make(run, &config), 0);
    if (geteuid() == 0) {
        CU_ASSERT_EQUAL(folders_lend(run, &nobody), 0);
        CU_ASSERT_EQUAL(owner_of(run, "trace"), NOBODY);
        CU_ASSERT_EQUAL(owner_of(run, "snapshots"), NOBODY);
        CU_ASSERT_EQUAL(owner_of(run, "wire/ingress"), NOBODY);
        CU_ASSERT_EQUAL(owner_of(run, "wire"), 0);
        CU_ASSERT_EQUAL(owner_of(run, "log"), 0);
        put_file(run, "trace/rx", NOBODY);
        put_file(run, "trace/other", 1234);
        put_file(run, "elsewhere", NOBODY);
        CU_ASSERT_EQUAL(mkdirat(run, "snapshots/000-request-1", 0755), 0);
        CU_ASSERT_EQUAL(fchownat(run, "snapshots/000-request-1", NOBODY, NOBODY, 0), 0);
        CU_ASSERT_EQUAL(linkat(run, "trace/rx", run, "snapshots/000-request-1/rx", 0), 0);
        put_file(run, "snapshots/000-request-1/tx", NOBODY);
        CU_ASSERT_EQUAL(symlinkat("../elsewhere", run, "trace/symlink"), 0);
        CU_ASSERT_EQUAL(fchownat(run, "trace/symlink", NOBODY, NOBODY, AT_SYMLINK_NOFOLLOW), 0);
        CU_ASSERT_EQUAL(mkfifoat(run, "trace/fifo", 0600), 0);
        CU_ASSERT_EQUAL(fchownat(run, "trace/fifo", NOBODY, NOBODY, 0), 0);
    } else {
        UNIT_SKIP("another owner: needs root");
    }
    folders_take_back(run);
    folders_take_back(run); /* a second time: nothing is lent */
    CU_ASSERT_EQUAL(owner_of(run, "trace"), geteuid());
    CU_ASSERT_EQUAL(owner_of(run, "wire/ingress"), (uid_t)-1); /* empty, so gone */
    if (geteuid() == 0) {
        CU_ASSERT_EQUAL(owner_of(run, "trace/rx"), 0);
        CU_ASSERT_EQUAL(owner_of(run, "snapshots/000-request-1"), 0);
        CU_ASSERT_EQUAL(owner_of(run, "snapshots/000-request-1/rx"), 0);
        CU_ASSERT_EQUAL(owner_of(run, "snapshots/000-request-1/tx"), 0);
        CU_ASSERT_EQUAL(owner_of(run, "trace/other"), 1234);
        CU_ASSERT_EQUAL(owner_of(run, "elsewhere"), NOBODY);
        CU_ASSERT_EQUAL(owner_of(run, "trace/symlink"), (uid_t)-1);
        CU_ASSERT_EQUAL(owner_of(run, "trace/fifo"), (uid_t)-1);
    }
    close(run);
    static const char *const left[] = {"trace/rx", "trace/other", "elsewhere",
                                       "snapshots/000-request-1/rx", "snapshots/000-request-1/tx"};
    static const char *const folders[] = {
        "snapshots/000-request-1", "snapshots", "trace", "wire/ingress", "wire", "log", ""};
    char full[128];
    for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
        snprintf(full, sizeof(full), "%s/%s", path, left[i]);
        unlink(full);
    }
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        snprintf(full, sizeof(full), "%s/%s", path, folders[i]);
        rmdir(full);
    }
    CU_ASSERT(access(path, F_OK) < 0);
}

/* ---- io_uring ---- */

static int submit(struct io_uring *ring, uint8_t operation, uint8_t flags, int fd)
{
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    static char byte[8];
    io_uring_prep_rw(operation, sqe, fd, byte, operation == IORING_OP_NOP ? 0 : 1, 0);
    sqe->flags = flags;
    if (io_uring_submit_and_wait(ring, 1) < 0 || io_uring_peek_cqe(ring, &cqe) < 0)
        return -EIO;
    int result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return result;
}

static void test_io_restrict(void)
{
    static const uint8_t operations[] = {IORING_OP_SEND, IORING_OP_RECV};
    static const uint8_t many[IO_RESTRICT_MAX + 1] = {0};
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED};
    struct io_uring ring;
    int pair[2];
    int err = io_uring_queue_init_params(8, &ring, &params);
    if (err < 0) {
        UNIT_SKIP("io_uring: %s", strerror(-err));
        return;
    }
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    CU_ASSERT_EQUAL(io_restrict(&ring, many, sizeof(many)), -EINVAL);
    CU_ASSERT_EQUAL_FATAL(io_restrict(&ring, operations, sizeof(operations)), 0);
    CU_ASSERT_EQUAL(submit(&ring, IORING_OP_SEND, 0, pair[0]), 1);
    CU_ASSERT_EQUAL(submit(&ring, IORING_OP_RECV, 0, pair[1]), 1);
    CU_ASSERT_EQUAL(submit(&ring, IORING_OP_RECV, IOSQE_BUFFER_SELECT, pair[1]), -ENOBUFS);
    CU_ASSERT_EQUAL(submit(&ring, IORING_OP_SEND, IOSQE_ASYNC, pair[0]), -EACCES);
    CU_ASSERT_EQUAL(submit(&ring, IORING_OP_NOP, 0, -1), -EACCES);
    CU_ASSERT_EQUAL(submit(&ring, IORING_OP_OPENAT, 0, AT_FDCWD), -EACCES);
    CU_ASSERT_EQUAL(submit(&ring, IORING_OP_WRITE, 0, pair[0]), -EACCES);
    CU_ASSERT_EQUAL(io_uring_register_files(&ring, pair, 2), -EACCES);
    CU_ASSERT(io_restrict(&ring, operations, sizeof(operations)) < 0);
    io_uring_queue_exit(&ring);
    /* An enabled ring can be restricted no more. */
    params.flags &= ~(unsigned)IORING_SETUP_R_DISABLED;
    CU_ASSERT_EQUAL_FATAL(io_uring_queue_init_params(8, &ring, &params), 0);
    CU_ASSERT_EQUAL(io_restrict(&ring, operations, sizeof(operations)), -EBADFD);
    io_uring_queue_exit(&ring);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"each stage's table", test_tables},
        {"corruption is said", test_abort},
        {"a page that is not its to write", test_read_only},
        {"/proc/PID/status", test_status},
        {"no user to become", test_no_user},
        {"what was obtained", test_notes},
        {"folders lent and taken back", test_folders},
        {"io_uring restrictions", test_io_restrict},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "sandbox", .pTests = tests}, CU_SUITE_INFO_NULL};
    cell = mmap(NULL, sizeof(*cell), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return cell == MAP_FAILED ? 1 : unit_run(suites);
}
