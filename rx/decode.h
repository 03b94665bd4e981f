/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a frame to the datagram or segment in it.
 *
 *   Ethernet | up to four VLAN tags (802.1Q, 802.1ad, 0x9100) | IPv4 with options, or IPv6 with extension
 *   headers | UDP or TCP
 *
 * A tag that the kernel or the NIC has taken off stands beside the frame and changes nothing in it.
 * Checksums are not looked at: on the way out of a host the NIC writes them, behind the tap.
 * Every length is checked against those around it; nothing is read beyond the frame. Bytes behind the IP
 * packet (Ethernet's padding) do not count.
 */
#ifndef TICKLINE_RX_DECODE_H
#define TICKLINE_RX_DECODE_H

#include <stdbool.h>
#include <stdint.h>

enum decode_kind {
    DECODE_UDP,
    DECODE_TCP,
    DECODE_OTHER,      /* another protocol */
    DECODE_FRAGMENT,   /* a piece of an IP packet */
    DECODE_BAD_LENGTH, /* headers that do not fit into what is around them, or a frame cut short */
};

/* Who sends to whom. Plain bytes without holes: compared and hashed as such. */
struct decode_ends {
    uint8_t source[16]; /* IPv4: ::ffff:a.b.c.d */
    uint8_t destination[16];
    uint16_t source_port; /* host order */
    uint16_t destination_port;
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4 };

struct decoded {
    const uint8_t *data; /* payload, in the frame */
    uint32_t length;
    uint32_t sequence; /* TCP: of the segment, as written */
    uint8_t flags;     /* TCP */
    struct decode_ends ends;
};

/* `decoded` is filled for DECODE_UDP and DECODE_TCP alone. */
enum decode_kind decode_frame(const uint8_t *frame, uint32_t length, struct decoded *decoded);

#endif
