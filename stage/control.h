/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control socket: one SOCK_SEQPACKET pair between the launcher and each stage.
 *
 * The launcher gives a stage its regions, and a successor the descriptors that its predecessor had
 * deposited; a stage deposits each socket it opens (the launcher's store outlives it, as in
 * systemd's descriptor store), notes what it obtained of what was asked, and tells the person what
 * befalls it while it runs. The far end closed means that the other process is gone.
 *
 *   message: struct control_message, and one descriptor (SCM_RIGHTS) with GIVE and DEPOSIT
 *
 * The accepted connections of rx come and go while it runs: "connection.PLACE", `value` is their number
 * (shm/connection.h). With tx.sink = reply the launcher gives each to tx as soon as it has it.
 *
 * Functions return 0 or -errno; -ECONNRESET: the far end is gone. Not for the hot path.
 */
#ifndef TICKLINE_STAGE_CONTROL_H
#define TICKLINE_STAGE_CONTROL_H

#include <stdint.h>

enum control_type {
    CONTROL_GIVE = 1, /* launcher → stage: descriptor `name` */
    CONTROL_START,    /* launcher → stage: that was all; value: epoch */
    CONTROL_DEPOSIT,  /* stage → launcher: keep descriptor `name`, instead of an older one */
    CONTROL_RELEASE,  /* stage → launcher: forget descriptor `name` */
    CONTROL_NOTE,     /* stage → launcher: asked, obtained and why for `name` */
    CONTROL_TELL,     /* stage → launcher: a line for the person, in `text` */
};

enum { CONTROL_NAME_MAX = 48, CONTROL_TEXT_MAX = 128 };

struct control_message {
    uint32_t type;
    uint32_t pad;
    uint64_t value;
    char name[CONTROL_NAME_MAX];
    union {
        struct {
            char asked[CONTROL_TEXT_MAX];
            char obtained[CONTROL_TEXT_MAX];
            char why[CONTROL_TEXT_MAX];
        };
        char text[3 * CONTROL_TEXT_MAX];
    };
};

/* `fd` -1: none. */
int control_send(int socket, const struct control_message *message, int fd);

/* The same where it goes without waiting; else -EAGAIN. */
int control_offer(int socket, const struct control_message *message, int fd);

/* Waits where `wait` is set, else -EAGAIN. The received descriptor (or -1) belongs to the caller; what comes
 * with an error, or beyond the first, is closed. */
int control_receive(int socket, struct control_message *message, int *fd, int wait);

#endif
