/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FIX, tag=value, | for SOH:
 *
 *   8=FIX.4.1|9=112|35=D| … |10=042|
 *   ^ begin   ^     ^ body          ^ trailer, 7 bytes
 *             length of the body
 *
 * Of a message only begin, length and the form of the trailer are looked at: the sum of its bytes is the
 * worker's to check.
 */
#include "rx/frame_own.h"

#include <string.h>

enum {
    SOH = 1,
    TRAILER = 7,
    LENGTH_DIGITS_MAX = 8, /* some write zeros in front */
    /* What is no message ends here where no other follows: the smallest buffer of a connection holds it. */
    GARBAGE_MAX = 4096,
};

static bool is_digit(uint8_t byte)
{
    return (uint8_t)(byte - '0') <= 9;
}

/* Up to and with the SOH behind the length: `size` as in frame_own.h, and the length. */
static enum frame_state measure_header(const uint8_t *data, uint32_t length, uint32_t *size,
                                       uint32_t *body)
{
    const char *form = length > 5 && data[5] == 'T' ? "8=FIXT.#.#@9=" : "8=FIX.#.#@9=";
    uint32_t at = 0;

    for (; form[at]; at++) {
        *size = at + 1;
        if (at == length)
            return FRAME_MORE;
        if (form[at] == '#' ? !is_digit(data[at]) : data[at] != (form[at] == '@' ? SOH : form[at]))
            return FRAME_BROKEN;
    }
    *body = 0;
    for (uint32_t digits = 0;; digits++) {
        *size = ++at;
        if (at > length)
            return FRAME_MORE;
        if (data[at - 1] == SOH && digits > 0)
            return FRAME_WHOLE;
        if (!is_digit(data[at - 1]) || digits == LENGTH_DIGITS_MAX)
            return FRAME_BROKEN;
        *body = *body * 10 + (uint32_t)(data[at - 1] - '0');
    }
}

static bool is_trailer(const uint8_t *data)
{
    return memcmp(data, "10=", 3) == 0 && is_digit(data[3]) && is_digit(data[4]) &&
           is_digit(data[5]) && data[6] == SOH;
}

enum frame_state fix_measure(const uint8_t *data, uint32_t length, uint32_t *size)
{
    uint32_t body;

    enum frame_state state = measure_header(data, length, size, &body);
    if (state != FRAME_WHOLE)
        return state;
    if (body > FRAME_PAYLOAD_MAX)
        return FRAME_BROKEN;
    uint32_t trailer = *size + body;
    *size = trailer + TRAILER;
    if (length < *size)
        return FRAME_MORE;
    return data[trailer - 1] == SOH && is_trailer(data + trailer) ? FRAME_WHOLE : FRAME_BROKEN;
}

/* From `data + 1` on, where the next message begins; it may be so where its header is not whole. */
static enum frame_state find_next(const uint8_t *data, uint32_t length, uint32_t *at)
{
    uint32_t limit = length < GARBAGE_MAX ? length : GARBAGE_MAX;
    uint32_t size, body;

    for (*at = 1; *at < limit; ++*at) {
        const uint8_t *eight = memchr(data + *at, '8', limit - *at);
        if (!eight)
            break;
        *at = (uint32_t)(eight - data);
        enum frame_state state = measure_header(eight, length - *at, &size, &body);
        if (state != FRAME_BROKEN)
            return state;
    }
    *at = GARBAGE_MAX;
    return length < GARBAGE_MAX ? FRAME_MORE : FRAME_WHOLE;
}

enum frame_state fix_stream(const uint8_t *data, uint32_t length, uint32_t *size)
{
    enum frame_state state = fix_measure(data, length, size);

    if (state != FRAME_BROKEN || find_next(data, length, size) == FRAME_WHOLE)
        return state;
    *size = length + 1;
    return FRAME_MORE;
}
