/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few words about memory that every shared structure here needs.
 *
 * Shared words are C11 atomics with explicit order. Each has exactly one writer and stands on its
 * own pair of cache lines (CPUs fetch lines in pairs), so that no reader slows a writer it does not
 * wait for.
 */
#ifndef TICKLINE_SHM_ATOMIC_H
#define TICKLINE_SHM_ATOMIC_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

#define LINE_BYTES      64
#define LINE_PAIR_BYTES 128
#define PAGE_BYTES      4096

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define load_relaxed(p)     atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p)     atomic_load_explicit((p), memory_order_acquire)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)

/* Fetches a line that will be written, so that the store finds it ours already. (The compiler's own
 * prefetch for writing is one for reading without -mprfchw; older CPUs take this for a no-op.) */
static inline void prefetch_write(const void *line)
{
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)line));
#else
    __builtin_prefetch(line, 1);
#endif
}

/* Positions and stamps run for ever and wrap; the difference tells which is ahead. */
static inline int64_t position_diff(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b);
}

static inline uint64_t position_max(uint64_t a, uint64_t b)
{
    return position_diff(a, b) > 0 ? a : b;
}

#endif
