/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/control.h"
#include "tests/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

static void make(int ends[2])
{
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void close_both(const int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

static void test_message(void)
{
    const struct control_message sent = {
        .type = CONTROL_NOTE,
        .value = 0x1122334455667788,
        .name = "rx.io",
        .asked = "auto",
        .obtained = "plain",
        .why = "one socket",
    };
    struct control_message got;
    int ends[2], fd = 5;
    make(ends);
    CU_ASSERT_EQUAL(control_receive(ends[1], &got, &fd, 0), -EAGAIN);
    CU_ASSERT_EQUAL(fd, -1);
    for (int wait = 0; wait < 2; wait++) {
        CU_ASSERT_EQUAL(control_send(ends[0], &sent, -1), 0);
        CU_ASSERT_EQUAL(control_receive(ends[1], &got, &fd, wait), 0);
        CU_ASSERT_EQUAL(fd, -1);
        CU_ASSERT(memcmp(&got, &sent, sizeof(sent)) == 0);
    }
    close_both(ends);
}

/* What a stage tells may fill all of the text, and waits for nobody. */
static void test_tell(void)
{
    struct control_message sent = {.type = CONTROL_TELL};
    struct control_message got;
    int ends[2], fd, count = 0;
    make(ends);
    memset(sent.text, 'x', sizeof(sent.text) - 1);
    while (control_offer(ends[0], &sent, -1) == 0)
        count++;
    CU_ASSERT(count > 0);
    CU_ASSERT_EQUAL(control_offer(ends[0], &sent, -1), -EAGAIN);
    for (; count > 0; count--) {
        CU_ASSERT_EQUAL_FATAL(control_receive(ends[1], &got, &fd, 0), 0);
        CU_ASSERT_STRING_EQUAL(got.text, sent.text);
    }
    close(ends[1]);
    CU_ASSERT_EQUAL(control_offer(ends[0], &sent, -1), -ECONNRESET);
    close(ends[0]);
}

/* Descriptors are offered without waiting, too; none is left open where one was not taken. */
static void test_offer(void)
{
    const struct control_message sent = {.type = CONTROL_DEPOSIT, .name = "connection.7"};
    struct control_message got;
    int ends[2], fd, count = 0, err;
    make(ends);
    while ((err = control_offer(ends[0], &sent, STDERR_FILENO)) == 0)
        count++;
    CU_ASSERT_EQUAL(err, -EAGAIN);
    CU_ASSERT(count > 10);
    for (; count > 0; count--) {
        CU_ASSERT_EQUAL_FATAL(control_receive(ends[1], &got, &fd, 0), 0);
        CU_ASSERT_FATAL(fd >= 0);
        close(fd);
    }
    CU_ASSERT_EQUAL(control_offer(ends[0], &sent, STDERR_FILENO), 0);
    close_both(ends);
}

/* The descriptor that arrives is another number for the same open file, and closes on exec. */
static void test_descriptor(void)
{
    const struct control_message sent = {.type = CONTROL_DEPOSIT, .name = "rx.socket.0"};
    struct control_message got;
    int ends[2], tube[2], fd = -1;
    char byte = 0;
    make(ends);
    CU_ASSERT_EQUAL_FATAL(pipe(tube), 0);
    CU_ASSERT_EQUAL(control_send(ends[0], &sent, tube[1]), 0);
    close(tube[1]);
    CU_ASSERT_EQUAL(control_receive(ends[1], &got, &fd, 1), 0);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(got.type, CONTROL_DEPOSIT);
    CU_ASSERT_STRING_EQUAL(got.name, "rx.socket.0");
    CU_ASSERT_EQUAL(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CU_ASSERT_EQUAL(write(fd, "x", 1), 1);
    CU_ASSERT_EQUAL(read(tube[0], &byte, 1), 1);
    CU_ASSERT_EQUAL(byte, 'x');
    close(fd);
    close(tube[0]);
    CU_ASSERT_EQUAL(control_send(ends[0], &sent, tube[0]), -EBADF);
    close_both(ends);
}

/* Messages keep their order and their edges; each has its own descriptor or none. */
static void test_order(void)
{
    struct control_message message = {.type = CONTROL_GIVE};
    int ends[2], fd;
    make(ends);
    for (uint64_t i = 0; i < 20; i++) {
        message.value = i;
        CU_ASSERT_EQUAL(control_send(ends[0], &message, i % 2 ? STDOUT_FILENO : -1), 0);
    }
    for (uint64_t i = 0; i < 20; i++) {
        CU_ASSERT_EQUAL(control_receive(ends[1], &message, &fd, 0), 0);
        CU_ASSERT_EQUAL(message.value, i);
        CU_ASSERT_EQUAL(fd >= 0, i % 2 == 1);
        if (fd >= 0)
            close(fd);
    }
    CU_ASSERT_EQUAL(control_receive(ends[1], &message, &fd, 0), -EAGAIN);
    close_both(ends);
}

static void test_gone(void)
{
    struct control_message message = {.type = CONTROL_START, .value = 1};
    int ends[2], fd;
    make(ends);
    CU_ASSERT_EQUAL(control_send(ends[0], &message, -1), 0);
    close(ends[0]);
    CU_ASSERT_EQUAL(control_receive(ends[1], &message, &fd, 1), 0); /* what was sent arrives */
    CU_ASSERT_EQUAL(control_receive(ends[1], &message, &fd, 1), -ECONNRESET);
    CU_ASSERT_EQUAL(control_receive(ends[1], &message, &fd, 0), -ECONNRESET);
    CU_ASSERT_EQUAL(control_send(ends[1], &message, -1), -ECONNRESET);
    close(ends[1]);
}

static void test_malformed(void)
{
    struct control_message message;
    char longer[sizeof(message) + 8];
    int ends[2], fd;
    make(ends);
    memset(longer, 'x', sizeof(longer));
    CU_ASSERT(send(ends[0], longer, sizeof(message) - 1, 0) > 0);
    CU_ASSERT_EQUAL(control_receive(ends[1], &message, &fd, 0), -EPROTO);
    /* Text without an end gets one. */
    CU_ASSERT(send(ends[0], longer, sizeof(message), 0) > 0);
    CU_ASSERT_EQUAL(control_receive(ends[1], &message, &fd, 0), 0);
    CU_ASSERT_EQUAL(strlen(message.name), CONTROL_NAME_MAX - 1);
    CU_ASSERT_EQUAL(strlen(message.asked), CONTROL_TEXT_MAX - 1);
    CU_ASSERT_EQUAL(strlen(message.obtained), CONTROL_TEXT_MAX - 1);
    CU_ASSERT_EQUAL(strlen(message.why), CONTROL_TEXT_MAX - 1);
    CU_ASSERT(send(ends[0], longer, sizeof(longer), 0) > 0);
    CU_ASSERT_EQUAL(control_receive(ends[1], &message, &fd, 0), -EPROTO);
    close_both(ends);
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 64; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Of what a stage gone mad sends nothing stays open that nobody will close. */
static void test_unasked(void)
{
    static char bytes[2 * sizeof(struct control_message)];
    const size_t sizes[] = {sizeof(struct control_message), 4, sizeof(bytes)};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } buffer = {.bytes = {0}};
    const int fds[2] = {STDOUT_FILENO, STDERR_FILENO};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct iovec iov = {.iov_base = bytes, .iov_len = sizes[i]};
        struct msghdr header = {.msg_iov = &iov,
                                .msg_iovlen = 1,
                                .msg_control = buffer.bytes,
                                .msg_controllen = sizeof(buffer.bytes)};
        struct cmsghdr *control = CMSG_FIRSTHDR(&header);
        struct control_message got;
        int ends[2], fd = 5;
        make(ends);
        int before = open_descriptors();
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(sizeof(fds));
        memcpy(CMSG_DATA(control), fds, sizeof(fds));
        CU_ASSERT_EQUAL_FATAL(sendmsg(ends[0], &header, 0), (ssize_t)sizes[i]);
        CU_ASSERT_EQUAL(control_receive(ends[1], &got, &fd, 0), i == 0 ? 0 : -EPROTO);
        CU_ASSERT_EQUAL(fd >= 0, i == 0);
        CU_ASSERT_EQUAL(open_descriptors(), before + (i == 0));
        if (fd >= 0)
            close(fd);
        close_both(ends);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"message", test_message},
        {"tell", test_tell},
        {"offered descriptors", test_offer},
        {"descriptor", test_descriptor},
        {"order", test_order},
        {"far end gone", test_gone},
        {"malformed", test_malformed},
        {"descriptors that nobody asked for", test_unasked},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "control", .pTests = tests}, CU_SUITE_INFO_NULL};
    return unit_run(suites);
}
