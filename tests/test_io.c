/* SPDX-License-Identifier: Apache-2.0 */
/* Receiver and sender over loopback: by plain calls and by io_uring, with the same results. */
#include "stage/io.h"
#include "tests/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>

enum { SOCKETS = 3 };

static bool uring_here(void)
{
    struct io_choice choice;
    if (io_choose(IO_URING, 1, &choice) == 0)
        return true;
    UNIT_SKIP("io_uring: %s", choice.why);
    return false;
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* A bound socket that stamps; its port in network order. */
static int bound(uint16_t *port)
{
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof(address);
    const int on = 1, bytes = 8 << 20;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    CU_ASSERT_EQUAL(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)), 0);
    CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    CU_ASSERT_EQUAL_FATAL(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = address.sin_port;
    return fd;
}

static int connected(uint16_t port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

struct fixture {
    struct receiver *receiver;
    int in[SOCKETS];
    int out[SOCKETS];
    uint32_t count;
};

static void make(struct fixture *made, bool uring, uint32_t sockets, uint32_t burst, bool sources)
{
    made->count = sockets;
    for (uint32_t i = 0; i < sockets; i++) {
        uint16_t port;
        made->in[i] = bound(&port);
        made->out[i] = connected(port);
    }
    struct receiver_plan plan = {.uring = uring,
                                 .sources = sources,
                                 .sockets = made->in,
                                 .count = sockets,
                                 .buffers = 16,
                                 .burst = burst,
                                 .memory = -1};
    CU_ASSERT_EQUAL_FATAL(receiver_open(&made->receiver, &plan), 0);
}

static void unmake(struct fixture *made)
{
    receiver_close(made->receiver);
    for (uint32_t i = 0; i < made->count; i++) {
        close(made->in[i]);
        close(made->out[i]);
    }
}

/* Polls until something is there, at most 5 s. */
static int poll_some(struct receiver *receiver, struct received **batch)
{
    double deadline = unit_seconds() + 5;
    int got = 0;
    while (got == 0 && unit_seconds() < deadline)
        got = receiver_poll(receiver, 0, batch);
    return got;
}

static uint8_t content(uint32_t n, uint32_t i)
{
    return (uint8_t)(n * 31 + i * 7 + (i >> 8));
}

/* ---- receiving ---- */

/* The clock of the kernel's receive stamps. (time() is up to a tick behind it.) */
static uint64_t realtime_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

/* Lengths that matter: none, one, a page, a buffer's edge, the longest that IPv4 carries. */
static const uint32_t lengths[] = {0,    1, 23,    64,    1472, 1473, 4096,
                                   9000, 0, 65506, 65507, 15,   0,    2048};
enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };

static void receive_lengths(bool uring, uint32_t sockets, uint32_t burst)
{
    static uint8_t bytes[65536];
    struct fixture made;
    struct received *batch;
    unsigned int wrong = 0;
    uint64_t began = realtime_ns();
    make(&made, uring, sockets, burst, false);
    CU_ASSERT_EQUAL(receiver_poll(made.receiver, 0, &batch), 0);
    for (uint32_t n = 0; n < LENGTHS; n++) {
        for (uint32_t i = 0; i < lengths[n]; i++)
            bytes[i] = content(n, i);
        CU_ASSERT_EQUAL(send(made.out[n % sockets], bytes, lengths[n], 0), (ssize_t)lengths[n]);
        CU_ASSERT_EQUAL_FATAL(poll_some(made.receiver, &batch), 1);
        CU_ASSERT_EQUAL(batch[0].length, lengths[n]);
        CU_ASSERT_EQUAL(batch[0].socket, n % sockets);
        CU_ASSERT_EQUAL(batch[0].source, 0);
        for (uint32_t i = 0; i < lengths[n] && i < batch[0].length; i++)
            wrong += batch[0].data[i] != content(n, i);
        CU_ASSERT(batch[0].kernel_ns >= began && batch[0].kernel_ns <= realtime_ns());
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(receiver_poll(made.receiver, 0, &batch), 0);
    unmake(&made);
}

/* More at once than a burst takes, and than the ring has buffers: all arrive, in order. */
static void receive_many(bool uring, uint32_t sockets, uint32_t burst)
{
    enum { MANY = 120 };
    struct fixture made;
    struct received *batch;
    uint32_t next[SOCKETS] = {0}, total = 0;
    unsigned int wrong = 0;
    make(&made, uring, sockets, burst, false);
    for (uint32_t n = 0; n < MANY; n++) {
        for (uint32_t s = 0; s < sockets; s++)
            CU_ASSERT_EQUAL(send(made.out[s], &n, sizeof(n), 0), sizeof(n));
    }
    while (total < MANY * sockets) {
        int got = poll_some(made.receiver, &batch);
        CU_ASSERT_FATAL(got > 0 && (uint32_t)got <= burst);
        for (int i = 0; i < got; i++) {
            uint32_t n;
            memcpy(&n, batch[i].data, sizeof(n));
            wrong +=
                batch[i].length != 4 || batch[i].socket >= sockets || n != next[batch[i].socket]++;
        }
        total += (uint32_t)got;
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(receiver_poll(made.receiver, 0, &batch), 0);
    unmake(&made);
}

/* Senders are told apart, and the same one stays the same. */
static void receive_sources(bool uring)
{
    struct fixture made;
    struct received *batch;
    struct sockaddr_in to;
    socklen_t length = sizeof(to);
    uint16_t source[2] = {0};
    make(&made, uring, 1, 8, true);
    CU_ASSERT_EQUAL(getsockname(made.in[0], (struct sockaddr *)&to, &length), 0);
    int other = connected(to.sin_port);
    for (int n = 0; n < 10; n++) {
        CU_ASSERT_EQUAL(send(n % 2 ? other : made.out[0], "abc", 3, 0), 3);
        CU_ASSERT_EQUAL_FATAL(poll_some(made.receiver, &batch), 1);
        CU_ASSERT_EQUAL(batch[0].length, 3);
        CU_ASSERT(memcmp(batch[0].data, "abc", 3) == 0);
        CU_ASSERT(batch[0].kernel_ns > 0);
        if (n < 2)
            source[n] = batch[0].source;
        CU_ASSERT_EQUAL(batch[0].source, source[n % 2]);
    }
    CU_ASSERT(source[0] != source[1]); /* by 1 in 65,536 they could be the same */
    close(other);
    unmake(&made);
}

/* Takes what comes until `total` have come: each socket's numbers in order, none twice. */
static void expect_rest(struct fixture *made, struct received *batch, uint32_t held, uint32_t total,
                        uint32_t next[SOCKETS])
{
    unsigned int wrong = 0;
    uint32_t seen = 0;

    for (;;) {
        for (uint32_t i = 0; i < held; i++) {
            uint32_t n;
            memcpy(&n, batch[i].data, sizeof(n));
            /* Of what nobody had looked at it is not known where it came to: the number says. */
            wrong += batch[i].length != 4 || n % SOCKETS >= made->count ||
                     n / SOCKETS != next[n % SOCKETS]++ || batch[i].kernel_ns == 0;
        }
        seen += held;
        if (seen >= total)
            break;
        int got = poll_some(made->receiver, &batch);
        CU_ASSERT_FATAL(got > 0);
        held = (uint32_t)got;
    }
    CU_ASSERT_EQUAL(seen, total);
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(receiver_poll(made->receiver, 0, &batch), 0);
}

static void send_numbers(const struct fixture *made, uint32_t from, uint32_t to)
{
    for (uint32_t n = from; n < to; n++) {
        for (uint32_t s = 0; s < made->count; s++) {
            uint32_t number = n * SOCKETS + s;
            CU_ASSERT_EQUAL(send(made->out[s], &number, sizeof(number), 0), sizeof(number));
        }
    }
}

/* The process is gone, its region is not: a successor goes on, `times` in a row with the same batch. */
static void receive_taken_over(bool uring, uint32_t sockets, int times)
{
    enum { BURST = 5, BEFORE = 12, AFTER = 3 };
    struct fixture made;
    struct received *batch;
    struct receiver_mark mark = {0};
    uint32_t next[SOCKETS] = {0};
    make(&made, uring, sockets, BURST, true);
    send_numbers(&made, 0, BEFORE);
    uint32_t first = (uint32_t)poll_some(made.receiver, &batch);
    for (uint32_t i = 0; i < first; i++)
        next[batch[i].socket]++;
    int got = receiver_poll(made.receiver, 77, &batch); /* gives the first batch back */
    CU_ASSERT_FATAL(got > 0);
    uint32_t held = (uint32_t)got;
    for (int i = 0; i < times; i++) {
        struct receiver_plan plan = {.uring = uring,
                                     .sources = true,
                                     .sockets = made.in,
                                     .count = sockets,
                                     .buffers = 16,
                                     .burst = BURST,
                                     .memory = dup(receiver_memory(made.receiver))};
        receiver_close(made.receiver);
        CU_ASSERT_EQUAL_FATAL(receiver_open(&made.receiver, &plan), 0);
        uint32_t found = receiver_recover(made.receiver, &mark, &batch);
        CU_ASSERT(uring ? found >= held : found == held);
        CU_ASSERT_EQUAL(mark.tag, 77);
        CU_ASSERT_EQUAL(mark.datagrams, first);
        CU_ASSERT_EQUAL(mark.bytes, first * sizeof(uint32_t));
        held = found;
    }
    send_numbers(&made, BEFORE, BEFORE + AFTER);
    expect_rest(&made, batch, held, sockets * (BEFORE + AFTER) - first, next);
    unmake(&made);
}

/* Of another shape: refused, and the caller keeps its descriptor. */
static void receive_other_shape(bool uring)
{
    struct fixture made;
    make(&made, uring, 1, 8, false);
    struct receiver *other;
    struct receiver_plan plan = {.uring = uring,
                                 .sockets = made.in,
                                 .count = 1,
                                 .buffers = 16,
                                 .burst = 4,
                                 .memory = receiver_memory(made.receiver)};
    CU_ASSERT_EQUAL(receiver_open(&other, &plan), -EPROTO);
    CU_ASSERT(fcntl(receiver_memory(made.receiver), F_GETFD) >= 0);
    unmake(&made);
}

/* What the account of a dead receiver says: all that the kernel has handed over. */
static void receive_counted(bool uring)
{
    struct fixture made;
    struct received *batch;
    uint64_t taken = 0;
    make(&made, uring, 1, 4, false);
    CU_ASSERT_EQUAL(receiver_taken(receiver_memory(made.receiver), &taken), 0);
    CU_ASSERT_EQUAL(taken, 0);
    send_numbers(&made, 0, 10);
    uint32_t first = (uint32_t)poll_some(made.receiver, &batch);
    uint32_t second = (uint32_t)poll_some(made.receiver, &batch);
    CU_ASSERT_EQUAL(receiver_taken(receiver_memory(made.receiver), &taken), 0);
    CU_ASSERT(uring ? taken >= first + second && taken <= 10 : taken == first + second);
    unmake(&made);
}

static void receive_parked(bool uring)
{
    struct fixture made;
    struct received *batch;
    make(&made, uring, 2, 8, false);
    CU_ASSERT_EQUAL(receiver_poll(made.receiver, 0, &batch), 0);
    double begin = unit_seconds();
    receiver_park(made.receiver, 20000000);
    CU_ASSERT(unit_seconds() - begin >= 0.019 && unit_seconds() - begin < 2);
    CU_ASSERT_EQUAL(send(made.out[1], "x", 1, 0), 1);
    begin = unit_seconds();
    receiver_park(made.receiver, 4000000000);
    CU_ASSERT(unit_seconds() - begin < 2);
    CU_ASSERT_EQUAL(poll_some(made.receiver, &batch), 1);
    CU_ASSERT_EQUAL(batch[0].socket, 1);
    unmake(&made);
}

static void receive_all(bool uring)
{
    receive_lengths(uring, 1, 8);
    receive_lengths(uring, SOCKETS, 8);
    receive_lengths(uring, 1, 1);
    receive_many(uring, 1, 16);
    receive_many(uring, SOCKETS, 16);
    receive_many(uring, SOCKETS, 5);
    receive_sources(uring);
    receive_parked(uring);
    receive_taken_over(uring, 1, 1);
    receive_taken_over(uring, 1, 3);
    receive_taken_over(uring, SOCKETS, 2);
    receive_other_shape(uring);
    receive_counted(uring);
}

static void test_receive_plain(void)
{
    receive_all(false);
}

static void test_receive_uring(void)
{
    if (uring_here())
        receive_all(true);
}

/* ---- sending ---- */

/* One datagram until it is complete: its result, 1 or -errno. */
static int send_one(struct sender *sender, const void *data, uint32_t length, uint64_t tag)
{
    double deadline = unit_seconds() + 5;
    uint64_t done;
    int result = sender_send(sender, data, length, tag);
    if (result != 0)
        return result;
    CU_ASSERT_EQUAL(sender_submit(sender), 0);
    while (sender_reap(sender, &done, &result) == 0) {
        CU_ASSERT_EQUAL(sender_submit(sender), 0);
        if (unit_seconds() > deadline)
            return -ETIMEDOUT;
    }
    CU_ASSERT_EQUAL(done, tag);
    return result < 0 ? result : 1;
}

static void send_lengths(bool uring)
{
    static uint8_t bytes[65536], got[65536];
    struct sender *sender;
    uint16_t port;
    int in = bound(&port), out = connected(port);
    CU_ASSERT_EQUAL_FATAL(sender_open(&sender, uring, out, 8), 0);
    for (uint32_t n = 0; n < LENGTHS; n++) {
        for (uint32_t i = 0; i < lengths[n]; i++)
            bytes[i] = content(n, i);
        CU_ASSERT_EQUAL(send_one(sender, bytes, lengths[n], n), 1);
        CU_ASSERT_EQUAL(recv(in, got, sizeof(got), MSG_DONTWAIT), (ssize_t)lengths[n]);
        CU_ASSERT(memcmp(got, bytes, lengths[n]) == 0);
    }
    CU_ASSERT_EQUAL(send_one(sender, bytes, 65508, 1), -EMSGSIZE);
    CU_ASSERT_EQUAL(send_one(sender, bytes, 1, 2), 1); /* and goes on */
    CU_ASSERT_EQUAL(recv(in, got, sizeof(got), MSG_DONTWAIT), 1);
    sender_close(sender);
    close(in);
    close(out);
}

/* As many in flight as the depth allows; each completes once, in the order of sending. */
static void send_many(bool uring)
{
    enum { MANY = 1000, DEPTH = 6 };
    static uint32_t data[MANY];
    struct sender *sender;
    uint16_t port;
    uint64_t completed = 0, tag;
    uint32_t sent = 0, got;
    int result;
    double deadline = unit_seconds() + 10;
    int in = bound(&port), out = connected(port);
    CU_ASSERT_EQUAL_FATAL(sender_open(&sender, uring, out, DEPTH), 0);
    while (completed < MANY && unit_seconds() < deadline) {
        uint32_t burst = 0;
        while (sent < MANY) {
            data[sent] = sent;
            result = sender_send(sender, &data[sent], 4, sent);
            if (result < 0)
                break;
            completed += result == 1;
            sent++;
            burst++;
        }
        CU_ASSERT(result >= 0 || result == -EAGAIN);
        CU_ASSERT(!uring || burst <= DEPTH);
        CU_ASSERT_EQUAL(sender_submit(sender), 0);
        while (sender_reap(sender, &tag, &result) == 1) {
            CU_ASSERT_EQUAL(tag, completed);
            CU_ASSERT_EQUAL(result, 4);
            completed++;
        }
    }
    CU_ASSERT_EQUAL(completed, MANY);
    CU_ASSERT_EQUAL(sender_reap(sender, &tag, &result), 0);
    for (uint32_t n = 0; n < MANY; n++) {
        CU_ASSERT_EQUAL_FATAL(recv(in, &got, sizeof(got), MSG_DONTWAIT), 4);
        CU_ASSERT_EQUAL(got, n);
    }
    sender_close(sender);
    close(in);
    close(out);
}

/* Nobody listens: the kernel says so on a later send, which is innocent. */
static void test_send_refused(void)
{
    struct sender *sender;
    uint16_t port;
    int in = bound(&port), out = connected(port);
    close(in);
    CU_ASSERT_EQUAL_FATAL(sender_open(&sender, false, out, 8), 0);
    for (int i = 0; i < 20; i++)
        CU_ASSERT_EQUAL(sender_send(sender, "x", 1, 0), 1);
    sender_close(sender);
    close(out);
}

static void test_send_plain(void)
{
    send_lengths(false);
    send_many(false);
}

static void test_send_uring(void)
{
    if (!uring_here())
        return;
    send_lengths(true);
    send_many(true);
}

static void test_choice(void)
{
    struct io_choice choice;
    CU_ASSERT_EQUAL(io_choose(IO_PLAIN, 8, &choice), 0);
    CU_ASSERT(!choice.uring);
    CU_ASSERT_STRING_EQUAL(choice.why, "asked for");
    CU_ASSERT_EQUAL(io_choose(IO_AUTO, 1, &choice), 0);
    CU_ASSERT(!choice.uring);
    CU_ASSERT_STRING_EQUAL(choice.why, "one socket: a plain call a turn is the shorter way");
    bool here = uring_here();
    CU_ASSERT_EQUAL(io_choose(IO_AUTO, 2, &choice), 0);
    CU_ASSERT_EQUAL(choice.uring, here);
    CU_ASSERT_EQUAL(io_choose(IO_URING, 1, &choice) == 0, here);
}

/* A host without io_uring: no descriptor is left for the ring, and the refusal is named. */
static int child_without(void *unused)
{
    const struct rlimit limit = {3, 3};
    struct io_choice choice;
    (void)unused;
    setrlimit(RLIMIT_NOFILE, &limit);
    int err = io_choose(IO_URING, 1, &choice);
    if (err == 0 || choice.uring || strlen(choice.why) == 0)
        return 1;
    return io_choose(IO_AUTO, 2, &choice) == 0 && !choice.uring ? 0 : 2;
}

static void test_refused(void)
{
    char text[64];
    CU_ASSERT_EQUAL(unit_child(child_without, NULL, text, sizeof(text)), 0);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"choice", test_choice},
        {"io_uring refused", test_refused},
        {"receive, plain", test_receive_plain},
        {"receive, io_uring", test_receive_uring},
        {"send, plain", test_send_plain},
        {"send, io_uring", test_send_uring},
        {"send where nobody listens", test_send_refused},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "io", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
