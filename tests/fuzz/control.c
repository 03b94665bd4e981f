/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stage sends to the launcher. Records of: u8 how many descriptors (0 to 3), u16 how many bytes, these
 * bytes; a short one is filled with zeros to a whole message where the high bit of the first byte is set.
 */
#include "launch/process.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 3, MESSAGES_MAX = 100 };

static void send_one(int socket, const uint8_t *bytes, size_t size, uint32_t descriptors)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    } buffer = {.bytes = {0}};
    int fds[DESCRIPTORS_MAX] = {STDERR_FILENO, STDERR_FILENO, STDERR_FILENO};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (descriptors) {
        header.msg_control = buffer.bytes;
        header.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
        struct cmsghdr *control = CMSG_FIRSTHDR(&header);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
        memcpy(CMSG_DATA(control), fds, descriptors * sizeof(int));
    }
    (void)sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_all(int socket, struct fuzz_input *input)
{
    uint8_t message[2 * sizeof(struct control_message)];

    for (int i = 0; input->left && i < MESSAGES_MAX; i++) {
        uint32_t form = (uint32_t)fuzz_number(input, 1);
        size_t size = fuzz_number(input, 2) % sizeof(message);
        size_t there = size < input->left ? size : input->left;
        memset(message, 0, sizeof(message));
        memcpy(message, input->at, there);
        input->at += there;
        input->left -= there;
        send_one(socket, message, form & 0x80 ? sizeof(struct control_message) : size, form % 4);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    static struct process process;
    json_t *notes = json_object();
    json_t *told = json_array();
    struct fuzz_open open;
    int ends[2];

    fuzz_note_open(&open);
    fuzz_require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    process = (struct process){.name = "rx", .control = ends[0], .pidfd = -1};
    send_all(ends[1], &input);
    close(ends[1]);
    process_receive(&process, notes, told);
    fuzz_require(process.store.count <= STORE_MAX);
    for (uint32_t i = 0; i < process.store.count; i++)
        fuzz_require(strnlen(process.store.item[i].name, CONTROL_NAME_MAX) < CONTROL_NAME_MAX);
    process_close(&process);
    json_decref(notes);
    json_decref(told);
    /* Nobody fills our table of descriptors. */
    fuzz_require(fuzz_close_new(&open) == 0);
    return 0;
}
