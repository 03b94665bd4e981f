/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FIX, tag=value, | for SOH:
 *
 *   8=FIX.4.1|9=112|35=D| … |10=042|
 *   header          payload  trailer: the sum of all bytes in front of it, modulo 256
 *             bytes of the payload, which ends with its last field's SOH
 *
 * The begin is FIX or FIXT, a digit, a dot, a digit. A request carries no id; a reply is known by its
 * content. Its header is as long as its begin and length need: the payload moves in front of the room
 * that the longest would have taken.
 */
#include "worker/schema_own.h"

#include <string.h>

enum {
    SOH = 1,
    BEGIN_MAX = 11,                 /* 8=FIXT.1.1| */
    HEADER_MAX = BEGIN_MAX + 2 + 6, /* 9=65535| */
    TRAILER = 7,                    /* 10=042| */
    PAYLOAD_MAX = 65535,
    LENGTH_DIGITS_MAX = 8, /* some write zeros in front */
    SUM_WORDS = 64,        /* so many bytes fit in a sum of 16 bits without a carry: 64 * 2 * 255 */
};

static bool is_digit(uint8_t byte)
{
    return (uint8_t)(byte - '0') <= 9;
}

/* Sum of the bytes modulo 256: eight at a time in four lanes of 16 bits. */
static uint8_t sum_of(const uint8_t *bytes, uint32_t length)
{
    uint64_t sum = 0;

    while (length >= 8) {
        uint64_t lanes = 0;
        for (uint32_t i = 0; i < SUM_WORDS && length >= 8; i++, bytes += 8, length -= 8) {
            uint64_t word;
            memcpy(&word, bytes, sizeof(word));
            lanes += (word & 0x00ff00ff00ff00ff) + (word >> 8 & 0x00ff00ff00ff00ff);
        }
        sum += lanes + (lanes >> 16) + (lanes >> 32) + (lanes >> 48);
    }
    for (; length > 0; length--)
        sum += *bytes++;
    return (uint8_t)sum;
}

/* Bytes of `8=…|9=`, or a rejection. */
static int read_begin(const uint8_t *bytes, uint32_t length)
{
    const bool transport = length > 5 && bytes[5] == 'T';
    const char *form = transport ? "8=FIXT.#.#\x01"
                                   "9="
                                 : "8=FIX.#.#\x01"
                                   "9=";
    uint32_t at = 0;

    for (; form[at]; at++) {
        if (at == length)
            return schema_reject(length ? REASON_truncated : REASON_empty);
        if (form[at] == '#' ? !is_digit(bytes[at]) : bytes[at] != (uint8_t)form[at])
            return schema_reject(REASON_bad_header);
    }
    return (int)at;
}

/* Bytes of the header, and those of the payload, or a rejection. */
static int read_header(const uint8_t *bytes, uint32_t length, uint32_t *payload)
{
    int begin = read_begin(bytes, length);

    if (begin < 0)
        return begin;
    *payload = 0;
    for (uint32_t at = (uint32_t)begin; at < length; at++) {
        if (bytes[at] == SOH && at > (uint32_t)begin)
            return *payload > PAYLOAD_MAX ? schema_reject(REASON_bad_length) : (int)at + 1;
        if (!is_digit(bytes[at]))
            return schema_reject(REASON_bad_digit);
        if (at - (uint32_t)begin == LENGTH_DIGITS_MAX)
            return schema_reject(REASON_bad_length);
        *payload = *payload * 10 + (uint32_t)(bytes[at] - '0');
    }
    return schema_reject(REASON_truncated);
}

static int fix_parse(const uint8_t *bytes, uint32_t length, struct message *message)
{
    uint32_t payload;

    int header = read_header(bytes, length, &payload);
    if (header < 0)
        return header;
    uint32_t covered = (uint32_t)header + payload;
    if (length < covered + TRAILER)
        return schema_reject(REASON_truncated);
    const uint8_t *trailer = bytes + covered;
    if (trailer[-1] != SOH || memcmp(trailer, "10=", 3) != 0 || trailer[6] != SOH)
        return schema_reject(REASON_wrong_length);
    if (!is_digit(trailer[3]) || !is_digit(trailer[4]) || !is_digit(trailer[5]))
        return schema_reject(REASON_bad_digit);
    if ((trailer[3] - '0') * 100 + (trailer[4] - '0') * 10 + (trailer[5] - '0') !=
        sum_of(bytes, covered))
        return schema_reject(REASON_bad_checksum);
    *message = (struct message){.payload = bytes + header, .length = payload, .whole = bytes};
    return 0;
}

/* `9=112|`, without zeros in front; its bytes. */
static uint32_t write_length(uint8_t *out, uint32_t length)
{
    uint8_t digits[5];
    uint32_t count = 0;

    do
        digits[count++] = (uint8_t)('0' + length % 10);
    while ((length /= 10) > 0);
    out[0] = '9';
    out[1] = '=';
    for (uint32_t i = 0; i < count; i++)
        out[2 + i] = digits[count - 1 - i];
    out[2 + count] = SOH;
    return count + 3;
}

static void write_trailer(uint8_t *out, uint8_t sum)
{
    out[0] = '1';
    out[1] = '0';
    out[2] = '=';
    out[3] = (uint8_t)('0' + sum / 100);
    out[4] = (uint8_t)('0' + sum / 10 % 10);
    out[5] = (uint8_t)('0' + sum % 10);
    out[6] = SOH;
}

static int fix_serialise(uint8_t *out, uint32_t capacity, const struct message *request,
                         uint32_t length)
{
    static const char plain[] = "8=FIX.4.4\x01";
    const uint8_t *begin = request->whole ? request->whole : (const uint8_t *)plain;
    uint32_t header = begin[5] == 'T' ? BEGIN_MAX : BEGIN_MAX - 1;

    memcpy(out, begin, header);
    header += write_length(out + header, length);
    if (header + length + TRAILER > capacity)
        return schema_reject(REASON_reply_too_big);
    memmove(out + header, out + HEADER_MAX, length);
    write_trailer(out + header + length, sum_of(out, header + length));
    return (int)(header + length + TRAILER);
}

const struct schema schema_fix = {"fix", HEADER_MAX, PAYLOAD_MAX, fix_parse, fix_serialise};
