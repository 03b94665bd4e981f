/* SPDX-License-Identifier: Apache-2.0 */
/* Frames for the tests of the tap: Ethernet, tags, IPv4 or IPv6 with options, UDP or TCP. */
#ifndef TICKLINE_TESTS_FRAMES_H
#define TICKLINE_TESTS_FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct frame_plan {
    uint32_t tags;      /* VLAN */
    bool six;           /* IPv6 */
    bool tcp;           /* else UDP */
    uint32_t options;   /* 4-byte words of IPv4 options, or 8-byte extension headers of IPv6 */
    uint32_t tcp_words; /* of TCP options */
    uint32_t padding;   /* bytes behind the packet */
    uint32_t sequence;
    uint8_t flags;
    const uint8_t *data;
    uint32_t length;
};

static inline void frame_u16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline uint32_t frame_ip(uint8_t *at, const struct frame_plan *plan, uint32_t inner)
{
    uint32_t header = plan->six ? 40 + plan->options * 8 : 20 + plan->options * 4;
    static const uint8_t ends[] = {10, 1, 0, 1, 10, 1, 0, 2};
    uint8_t protocol = plan->tcp ? 6 : 17;

    memset(at, 0, header);
    if (!plan->six) {
        at[0] = (uint8_t)(0x40 | header / 4);
        frame_u16(at + 2, header + inner);
        at[9] = protocol;
        memcpy(at + 12, ends, sizeof(ends));
        return header;
    }
    static const uint8_t kinds[] = {0, 60, 43, 44};
    at[0] = 0x60;
    frame_u16(at + 4, header - 40 + inner);
    at[8] = at[24] = 0xfd;
    at[23] = 1;
    at[39] = 2;
    at[6] = plan->options ? kinds[0] : protocol;
    for (uint32_t i = 0; i < plan->options; i++)
        at[40 + i * 8] = i + 1 < plan->options ? kinds[(i + 1) % 4] : protocol;
    return header;
}

/* Writes the frame as planned, from port 1000 to port 2000; its bytes. */
static inline uint32_t frame_write(uint8_t *out, const struct frame_plan *plan)
{
    uint32_t header = plan->tcp ? 20 + plan->tcp_words * 4 : 8;
    uint8_t *at = out + 12;

    memset(out, 2, 12);
    for (uint32_t i = 0; i < plan->tags; i++, at += 4) {
        frame_u16(at, i % 2 ? 0x8100 : 0x88a8);
        frame_u16(at + 2, 7 + i);
    }
    frame_u16(at, plan->six ? 0x86dd : 0x0800);
    at += 2;
    at += frame_ip(at, plan, header + plan->length);
    memset(at, 0, header);
    frame_u16(at, 1000);
    frame_u16(at + 2, 2000);
    if (plan->tcp) {
        frame_u16(at + 4, plan->sequence >> 16);
        frame_u16(at + 6, plan->sequence);
        at[12] = (uint8_t)(header / 4 << 4);
        at[13] = plan->flags;
    } else {
        frame_u16(at + 4, header + plan->length);
    }
    if (plan->length)
        memcpy(at + header, plan->data, plan->length);
    at += header + plan->length;
    memset(at, 0xee, plan->padding);
    return (uint32_t)(at + plan->padding - out);
}

#endif
