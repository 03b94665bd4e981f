/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/decode.h"

#include <string.h>

enum {
    ETHERNET_BYTES = 14,
    TAG_BYTES = 4,
    TAGS_MAX = 4,
    EXTENSIONS_MAX = 8,
    IPV4_BYTES = 20,
    IPV6_BYTES = 40,
    UDP_BYTES = 8,
    TCP_BYTES = 20,
    /* Ethernet types */
    TYPE_IPV4 = 0x0800,
    TYPE_IPV6 = 0x86dd,
    /* protocols, and extension headers of IPv6 */
    HOP_BY_HOP = 0,
    TCP = 6,
    UDP = 17,
    ROUTING = 43,
    FRAGMENT = 44,
    OPTIONS = 60,
};

/* What is left of a frame. */
struct rest {
    const uint8_t *at;
    uint32_t length;
};

static uint16_t u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t u32(const uint8_t *at)
{
    return (uint32_t)u16(at) << 16 | u16(at + 2);
}

/* The caller has seen that there are so many. */
static void pass(struct rest *rest, uint32_t bytes)
{
    rest->at += bytes;
    rest->length -= bytes;
}

static bool is_tag(uint16_t type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

/* ---- IP: the rest becomes the packet's payload, the answer its protocol ---- */

enum { IP_FRAGMENT = 256, IP_BAD_LENGTH = 257 };

static int decode_ipv4(struct rest *rest, struct decode_ends *ends)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *ip = rest->at;

    if (rest->length < IPV4_BYTES)
        return IP_BAD_LENGTH;
    uint32_t header = (ip[0] & 15u) * 4, total = u16(ip + 2);
    if (header < IPV4_BYTES || total < header || total > rest->length)
        return IP_BAD_LENGTH;
    if (u16(ip + 6) & 0x3fff)
        return IP_FRAGMENT;
    memcpy(ends->source, mapped, sizeof(mapped));
    memcpy(ends->source + 12, ip + 12, 4);
    memcpy(ends->destination, mapped, sizeof(mapped));
    memcpy(ends->destination + 12, ip + 16, 4);
    rest->length = total;
    pass(rest, header);
    return ip[9];
}

static int decode_ipv6(struct rest *rest, struct decode_ends *ends)
{
    const uint8_t *ip = rest->at;

    if (rest->length < IPV6_BYTES || u16(ip + 4) > rest->length - IPV6_BYTES)
        return IP_BAD_LENGTH;
    memcpy(ends->source, ip + 8, 16);
    memcpy(ends->destination, ip + 24, 16);
    rest->length = IPV6_BYTES + u16(ip + 4);
    pass(rest, IPV6_BYTES);
    int protocol = ip[6];
    for (uint32_t i = 0; i < EXTENSIONS_MAX; i++) {
        const uint8_t *at = rest->at;
        if (protocol != HOP_BY_HOP && protocol != ROUTING && protocol != OPTIONS &&
            protocol != FRAGMENT)
            break;
        if (rest->length < 8)
            return IP_BAD_LENGTH;
        if (protocol == FRAGMENT && (u16(at + 2) & 0xfff9))
            return IP_FRAGMENT;
        uint32_t bytes = protocol == FRAGMENT ? 8 : (at[1] + 1u) * 8;
        if (bytes > rest->length)
            return IP_BAD_LENGTH;
        protocol = at[0];
        pass(rest, bytes);
    }
    return protocol;
}

/* ---- transport ---- */

static enum decode_kind decode_udp(const struct rest *rest, struct decoded *decoded)
{
    const uint8_t *udp = rest->at;

    if (rest->length < UDP_BYTES || u16(udp + 4) < UDP_BYTES || u16(udp + 4) > rest->length)
        return DECODE_BAD_LENGTH;
    decoded->data = udp + UDP_BYTES;
    decoded->length = u16(udp + 4) - (uint32_t)UDP_BYTES;
    decoded->sequence = 0;
    decoded->flags = 0;
    return DECODE_UDP;
}

static enum decode_kind decode_tcp(const struct rest *rest, struct decoded *decoded)
{
    const uint8_t *tcp = rest->at;

    if (rest->length < TCP_BYTES)
        return DECODE_BAD_LENGTH;
    uint32_t header = (uint32_t)(tcp[12] >> 4) * 4;
    if (header < TCP_BYTES || header > rest->length)
        return DECODE_BAD_LENGTH;
    decoded->data = tcp + header;
    decoded->length = rest->length - header;
    decoded->sequence = u32(tcp + 4);
    decoded->flags = tcp[13];
    return DECODE_TCP;
}

enum decode_kind decode_frame(const uint8_t *frame, uint32_t length, struct decoded *decoded)
{
    struct rest rest = {frame, length};
    int protocol;

    if (length < ETHERNET_BYTES)
        return DECODE_BAD_LENGTH;
    uint16_t type = u16(frame + 12);
    pass(&rest, ETHERNET_BYTES);
    for (uint32_t i = 0; i < TAGS_MAX && is_tag(type); i++) {
        if (rest.length < TAG_BYTES)
            return DECODE_BAD_LENGTH;
        type = u16(rest.at + 2);
        pass(&rest, TAG_BYTES);
    }
    if (type != TYPE_IPV4 && type != TYPE_IPV6)
        return DECODE_OTHER;
    if (rest.length == 0)
        return DECODE_BAD_LENGTH;
    if (rest.at[0] >> 4 != (type == TYPE_IPV4 ? 4 : 6))
        return DECODE_OTHER;
    protocol =
        type == TYPE_IPV4 ? decode_ipv4(&rest, &decoded->ends) : decode_ipv6(&rest, &decoded->ends);
    if (protocol == IP_FRAGMENT)
        return DECODE_FRAGMENT;
    if (protocol == IP_BAD_LENGTH)
        return DECODE_BAD_LENGTH;
    if (protocol != UDP && protocol != TCP)
        return DECODE_OTHER;
    enum decode_kind kind =
        protocol == UDP ? decode_udp(&rest, decoded) : decode_tcp(&rest, decoded);
    if (kind == DECODE_BAD_LENGTH)
        return kind;
    decoded->ends.source_port = u16(rest.at);
    decoded->ends.destination_port = u16(rest.at + 2);
    return kind;
}
