/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/ctf.h"

#include <string.h>

/* One byte at a time from a table: the tail of a block, and all of it where the CPU has no
 * instruction. */
static uint32_t by_table(uint32_t crc, const uint8_t *data, size_t bytes)
{
    static uint32_t table[256];

    if (table[1] == 0) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = (value >> 1) ^ (0x82f63b78u & (0u - (value & 1)));
            table[i] = value;
        }
    }
    while (bytes--)
        crc = (crc >> 8) ^ table[(crc ^ *data++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
/* Eight bytes an instruction. */
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *data,
                                                                 size_t bytes)
{
    uint64_t value = crc;

    for (; bytes >= 8; bytes -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, sizeof(word));
        value = __builtin_ia32_crc32di(value, word);
    }
    return by_table((uint32_t)value, data, bytes);
}
#endif

uint32_t crc32c(const void *data, size_t bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~by_instruction(~0u, data, bytes);
#endif
    return ~by_table(~0u, data, bytes);
}
