/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's connections: sockets that never wait, and one epoll of them all.
 *
 *   state       moved there by               meaning
 *   closed      (initial), links_poll        no socket; may be opened
 *   connecting  link_open                    writes keep their places until it is open
 *   open        link_open, links_poll
 *   ending      link_close                   nothing more is written; what comes is read to its end
 *   reset       link_reset                   closed by us with a reset; may be opened
 *   ended       links_poll                   ended by the other side, which had read all of it: it stays so
 *   broken      link_write, links_poll       refused, or reset by the other side: it stays so
 *
 * What the other side says is read as it comes and given to `take`. One thread; nothing here waits.
 */
#ifndef TICKLINE_HARNESS_CLIENT_LINK_H
#define TICKLINE_HARNESS_CLIENT_LINK_H

#include "sink_stream.h"

#include <sys/socket.h>

enum link_state {
    LINK_CLOSED,
    LINK_CONNECTING,
    LINK_OPEN,
    LINK_ENDING,
    LINK_RESET,
    LINK_ENDED,
    LINK_BROKEN,
};

/* wire/connections.bin, little-endian: what became of each connection in a replay. */
struct link_record {
    uint64_t written; /* bytes the kernel took */
    uint64_t read;    /* bytes that came back */
    uint32_t opened;  /* times, in the replay itself */
    uint32_t resets;  /* of them by us */
    uint32_t state;   /* enum link_state, at the end */
    uint32_t error;   /* errno of a broken one */
};
_Static_assert(sizeof(struct link_record) == 32, "connections.bin has 32 bytes a connection");

struct link {
    int fd;
    enum link_state state;
    bool waits;       /* for room to write: epoll tells when there is some */
    uint32_t pending; /* the player's: its next operation that is not done, */
    uint32_t partial; /* and how many of its bytes are written */
    struct stream stream;
    struct link_record record;
};

/* `flow` is the number of the connection. As stream_take. */
typedef void link_take(void *context, uint32_t flow, const uint8_t *reply, uint32_t length,
                       uint64_t kernel_ns);

/* Told when a link that waited, or connected, may be written again, or is gone. */
typedef void link_ready(void *context, uint32_t number);

struct links {
    struct link *link;
    uint32_t count;
    int epoll;
    bool datagrams;       /* UDP: a reply is a datagram */
    frame_length *length; /* TCP: of a reply; NULL: what comes is not looked at */
    struct throttle slow; /* of all of them together */
    const uint32_t *port;
    struct sockaddr_storage address; /* of all of them, but for the port */
    socklen_t address_size;
    bool one_port; /* the address has one for all */
    link_take *take;
    void *taker; /* context of `take` */
    link_ready *ready;
    void *context; /* of `ready` */
};

/* Makes `count` closed links; raises the limit of descriptors where it must. 0 or -errno. */
int links_open(struct links *links, uint32_t count);
void links_close(struct links *links);

/* Connects. 0 (perhaps it is under way), or -errno: it is broken. */
int link_open(struct links *links, uint32_t number);

/* Bytes taken (0 as well: none now, `waits`), or -errno: it is broken. */
int64_t link_write(struct links *links, uint32_t number, const uint8_t *data, size_t size);

void link_close(struct links *links, uint32_t number);
void link_reset(struct links *links, uint32_t number);

/* Reads and tells what is there. How many links had something, or -errno. */
int links_poll(struct links *links);

/* Datagrams that their sockets have dropped. */
uint64_t links_drops(const struct links *links);

#endif
