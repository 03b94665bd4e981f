/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that look like chance and are the same everywhere; for handlers. */
#ifndef TICKLINE_WORKER_MIX_H
#define TICKLINE_WORKER_MIX_H

#include <stdint.h>

/* A step of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/* Out of such a number one from 0 to limit - 1. */
static inline uint64_t mix_below(uint64_t number, uint64_t limit)
{
    return (uint64_t)((unsigned __int128)number * limit >> 64);
}

#endif
