/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decimal digits of a fixed number, eight or four at a time in one register.
 *
 * Reading: all bytes are tested at once (the high nibble is 3, and stays 3 when 6 is added), then
 * pairs, fours and eights of digits are combined by multiplication (Lemire: Quickly parsing eight
 * digits, 2018). Writing goes the other way, with divisions as multiplications by a reciprocal that
 * is exact in its range (Muła: SSE: conversion integers to decimal representation, 2011).
 */
#ifndef TICKLINE_STAGE_DECIMAL_H
#define TICKLINE_STAGE_DECIMAL_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* False where one of the eight bytes is no digit. */
static inline bool decimal_read_8(const uint8_t *digits, uint64_t *value)
{
    const uint64_t high = 0xf0f0f0f0f0f0f0f0;
    uint64_t x;

    memcpy(&x, digits, sizeof(x));
    x = le64toh(x);
    if (((x & high) | ((x + 0x0606060606060606) & high) >> 4) != 0x3333333333333333)
        return false;
    x -= 0x3030303030303030;
    x = x * 10 + (x >> 8);
    *value = ((x & 0x000000ff000000ff) * 0x000f424000000064 +
              (x >> 16 & 0x000000ff000000ff) * 0x0000271000000001) >>
             32;
    return true;
}

/* The same for four. */
static inline bool decimal_read_4(const uint8_t *digits, uint32_t *value)
{
    const uint32_t high = 0xf0f0f0f0;
    uint32_t x;

    memcpy(&x, digits, sizeof(x));
    x = le32toh(x);
    if (((x & high) | ((x + 0x06060606) & high) >> 4) != 0x33333333)
        return false;
    x -= 0x30303030;
    x = x * 10 + (x >> 8);
    *value = (x & 0xff) * 100 + (x >> 16 & 0xff);
    return true;
}

/* The last four digits of `value`, one a byte and without '0' added, the first in the lowest byte. */
static inline uint64_t decimal_spread_4(uint64_t value)
{
    uint64_t tens = value * 10486 >> 20; /* / 100, exact below 43,699 */
    uint64_t x = tens | (value - 100 * tens) << 16;
    uint64_t ones = (x * 103 >> 10) & 0x000f000f; /* / 10 of both */
    return ones | (x - 10 * ones) << 8;
}

/* Writes the last eight digits of `value`. */
static inline void decimal_write_8(uint8_t *digits, uint64_t value)
{
    uint64_t low = value % 100000000;
    uint64_t x = decimal_spread_4(low / 10000) | decimal_spread_4(low % 10000) << 32;

    x = htole64(x + 0x3030303030303030);
    memcpy(digits, &x, sizeof(x));
}

/* Writes the last four. */
static inline void decimal_write_4(uint8_t *digits, uint32_t value)
{
    uint32_t x = htole32((uint32_t)decimal_spread_4(value % 10000) + 0x30303030);

    memcpy(digits, &x, sizeof(x));
}

#endif
