/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a queue between two processes is measured, ours and its peers', in C and C++: round trips
 * and throughput.
 *
 * A program brings two operations on its queue, and the macros below make its loops of them: a copy
 * for each, in which operations and way of waiting are constants, so that nothing is called and
 * nothing is asked in a polling loop. Then it lists its cases and calls queue_main().
 *
 * put   puts items `number`, `number` + 1 … (queue_fill) and waits for room with queue_pass
 * take  hands what it finds to `accept`, one item or several, oldest first; returns how many, 0: empty
 *
 * An item of 64 bytes carries the same facts as a slot of our ring, header and 24 bytes of payload;
 * all eight words are written and read. One of 8 bytes carries its number and nothing else.
 */
#ifndef TICKLINE_TESTS_BENCH_QUEUE_H
#define TICKLINE_TESTS_BENCH_QUEUE_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUEUE_INLINE static inline __attribute__((always_inline))

enum {
    QUEUE_WARM_ROUNDS = 4000,
    QUEUE_SAMPLE_ITEMS = 1024,
    QUEUE_BURST = 32,
    QUEUE_PAYLOAD_WORDS = 3,
};

/* How a process passes the time until there is an item, or room. */
enum queue_wait { QUEUE_SPIN, QUEUE_PAUSE, QUEUE_YIELD };

/* Shared by both processes of a case; each word is written by one of them. */
struct queue_run {
    void *there;
    void *back;
    uint64_t messages;
    uint64_t payload[QUEUE_PAYLOAD_WORDS];
    uint32_t *samples; /* ticks: of a round trip, or of QUEUE_SAMPLE_ITEMS items */
    /* the consumer's */
    uint64_t sample_count;
    uint64_t ticks; /* from the first item to the last */
    uint64_t sum;   /* of what it read, so that it cannot be left out */
    uint64_t waits_empty;
    uint32_t ready;
    /* the producer's */
    uint64_t waits_full;
};

typedef void queue_put(void *queue, uint64_t number, const uint64_t *payload, enum queue_wait wait,
                       uint64_t *waits);
typedef void queue_accept(void *context, const uint64_t *item, const int words);
typedef uint32_t queue_poll(void *queue, void *context); /* `take` with its `accept` */
typedef int queue_loop(void *run);

/* What a case runs: a pair of loops for each way of waiting. */
struct queue_loops {
    queue_loop *here[3];  /* pings, or feeds */
    queue_loop *child[3]; /* echoes, or drains */
    bool throughput;
};

struct queue_case {
    const char *name;
    const struct queue_loops *loops;
    size_t bytes;               /* of the queue */
    void (*make)(void *memory); /* makes an empty one in zeroed, page-aligned shared memory */
    bool one;                   /* both processes on one CPU, taking turns */
};

/* The whole program, as bench_main(). */
int queue_main(int argc, char **argv, const struct queue_case *cases, int count);

/* ---- for the operations ---- */

/* Bench programs in C have tsc_read() and wait_pause(), from headers that are no C++. */
QUEUE_INLINE uint64_t queue_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#endif
}

QUEUE_INLINE void queue_pass(const enum queue_wait wait, uint64_t *waits)
{
    ++*waits;
    if (wait == QUEUE_YIELD) {
        sched_yield();
    } else if (wait == QUEUE_PAUSE) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        __asm__ volatile("yield");
#endif
    }
}

/* Sequence, source, request, ingress; length, kind, part, parts and flow; payload. */
QUEUE_INLINE void queue_fill(uint64_t *item, const int words, uint64_t number,
                             const uint64_t *payload)
{
    item[0] = number;
    if (words == 1)
        return;
    item[1] = number;
    item[2] = number;
    item[3] = number;
    item[4] = UINT64_C(0x010000010018);
    item[5] = payload[0];
    item[6] = payload[1];
    item[7] = payload[2];
}

/* Every word of it. */
QUEUE_INLINE uint64_t queue_digest(const uint64_t *item, const int words)
{
    uint64_t sum = 0;

    for (int i = 0; i < words; i++)
        sum += item[i];
    return sum;
}

/* ---- round trip ---- */

QUEUE_INLINE int queue_echo(const struct queue_run *run, queue_poll *poll,
                            const enum queue_wait wait)
{
    void *const there = run->there;
    void *const back = run->back;
    const uint64_t messages = run->messages;
    uint64_t waits = 0;

    for (uint64_t echoed = 0; echoed < messages;) {
        uint32_t now = poll(there, back);
        if (!now)
            queue_pass(wait, &waits);
        echoed += now;
    }
    return 0;
}

#define QUEUE_ECHO(name, put, take, wait)                                                          \
    QUEUE_INLINE void name##_reply(void *back, const uint64_t *item, const int words)              \
    {                                                                                              \
        uint64_t waits = 0;                                                                        \
        put(back, item[0], words == 1 ? NULL : item + 5, wait, &waits);                            \
    }                                                                                              \
    QUEUE_INLINE uint32_t name##_poll(void *queue, void *back)                                     \
    {                                                                                              \
        return take(queue, name##_reply, back);                                                    \
    }                                                                                              \
    static int name(void *run)                                                                     \
    {                                                                                              \
        return queue_echo((const struct queue_run *)run, name##_poll, wait);                       \
    }

QUEUE_INLINE void queue_got(void *sum, const uint64_t *item, const int words)
{
    *(uint64_t *)sum += queue_digest(item, words);
}

/* Timed from round to round: a counter read behind a polling loop may be executed before the loop has
 * ended, and one between finding an item and loading it keeps the CPU from fetching both at once. */
QUEUE_INLINE int queue_ping(struct queue_run *run, queue_put *put, queue_poll *poll,
                            const enum queue_wait wait)
{
    void *const there = run->there;
    void *const back = run->back;
    const uint64_t messages = run->messages;
    uint32_t *const samples = run->samples;
    uint64_t waits = 0;
    uint64_t sum = 0;
    uint64_t last = queue_ticks();

    for (uint64_t i = 0; i < messages; i++) {
        put(there, i, run->payload, wait, &waits);
        while (!poll(back, &sum))
            queue_pass(wait, &waits);
        uint64_t now = queue_ticks();
        if (i >= QUEUE_WARM_ROUNDS)
            samples[i - QUEUE_WARM_ROUNDS] =
                now - last > UINT32_MAX ? UINT32_MAX : (uint32_t)(now - last);
        last = now;
    }
    run->sum = sum;
    return 0;
}

#define QUEUE_PING(name, put, take, wait)                                                          \
    QUEUE_INLINE uint32_t name##_poll(void *queue, void *ping)                                     \
    {                                                                                              \
        return take(queue, queue_got, ping);                                                       \
    }                                                                                              \
    static int name(void *run)                                                                     \
    {                                                                                              \
        return queue_ping((struct queue_run *)run, put, name##_poll, wait);                        \
    }

#define QUEUE_ROUND_TRIP(name, put, take)                                                          \
    QUEUE_PING(name##_ping, put, take, QUEUE_SPIN)                                                 \
    QUEUE_PING(name##_ping_pausing, put, take, QUEUE_PAUSE)                                        \
    QUEUE_PING(name##_ping_yielding, put, take, QUEUE_YIELD)                                       \
    QUEUE_ECHO(name##_echo, put, take, QUEUE_SPIN)                                                 \
    QUEUE_ECHO(name##_echo_pausing, put, take, QUEUE_PAUSE)                                        \
    QUEUE_ECHO(name##_echo_yielding, put, take, QUEUE_YIELD)                                       \
    static const struct queue_loops name = {                                                       \
        {name##_ping, name##_ping_pausing, name##_ping_yielding},                                  \
        {name##_echo, name##_echo_pausing, name##_echo_yielding},                                  \
        false}

/* ---- throughput ---- */

/* `at_once`: items that a put puts. */
QUEUE_INLINE int queue_feed(struct queue_run *run, const uint32_t at_once, queue_put *put,
                            const enum queue_wait wait)
{
    void *const there = run->there;
    const uint64_t messages = run->messages;
    uint64_t waits = 0;

    while (!__atomic_load_n(&run->ready, __ATOMIC_ACQUIRE)) /* pairs with queue_drain's release */
        queue_pass(QUEUE_YIELD, &waits);
    waits = 0;
    for (uint64_t i = 0; i < messages; i += at_once)
        put(there, i, run->payload, wait, &waits);
    run->waits_full = waits;
    return 0;
}

struct queue_tally {
    uint64_t taken;
    uint64_t sum;
    uint64_t began;
    uint64_t last;
    uint32_t *samples;
};

QUEUE_INLINE void queue_drained(void *context, const uint64_t *item, const int words)
{
    struct queue_tally *tally = (struct queue_tally *)context;

    if (tally->taken++ % QUEUE_SAMPLE_ITEMS == 0) {
        uint64_t now = queue_ticks();
        if (tally->taken == 1)
            tally->began = now;
        else
            *tally->samples++ = (uint32_t)(now - tally->last);
        tally->last = now;
    }
    tally->sum += queue_digest(item, words);
}

QUEUE_INLINE int queue_drain(struct queue_run *run, queue_poll *poll, const enum queue_wait wait)
{
    struct queue_tally tally = {0, 0, 0, 0, run->samples};
    void *const there = run->there;
    const uint64_t messages = run->messages;
    uint64_t waits = 0;

    __atomic_store_n(&run->ready, 1, __ATOMIC_RELEASE);
    while (tally.taken < messages) {
        /* Waiting for the very first item is no sign of the regime. */
        if (!poll(there, &tally) && tally.taken > 0)
            queue_pass(wait, &waits);
    }
    run->ticks = queue_ticks() - tally.began;
    run->sample_count = (uint64_t)(tally.samples - run->samples);
    run->sum = tally.sum;
    run->waits_empty = waits;
    return 0;
}

#define QUEUE_FEED(name, at_once, put, wait)                                                       \
    static int name(void *run)                                                                     \
    {                                                                                              \
        return queue_feed((struct queue_run *)run, at_once, put, wait);                            \
    }

#define QUEUE_DRAIN(name, take, wait)                                                              \
    QUEUE_INLINE uint32_t name##_poll(void *queue, void *tally)                                    \
    {                                                                                              \
        return take(queue, queue_drained, tally);                                                  \
    }                                                                                              \
    static int name(void *run)                                                                     \
    {                                                                                              \
        return queue_drain((struct queue_run *)run, name##_poll, wait);                            \
    }

#define QUEUE_THROUGHPUT(name, at_once, put, take)                                                 \
    QUEUE_FEED(name##_feed, at_once, put, QUEUE_SPIN)                                              \
    QUEUE_FEED(name##_feed_pausing, at_once, put, QUEUE_PAUSE)                                     \
    QUEUE_FEED(name##_feed_yielding, at_once, put, QUEUE_YIELD)                                    \
    QUEUE_DRAIN(name##_drain, take, QUEUE_SPIN)                                                    \
    QUEUE_DRAIN(name##_drain_pausing, take, QUEUE_PAUSE)                                           \
    QUEUE_DRAIN(name##_drain_yielding, take, QUEUE_YIELD)                                          \
    static const struct queue_loops name = {                                                       \
        {name##_feed, name##_feed_pausing, name##_feed_yielding},                                  \
        {name##_drain, name##_drain_pausing, name##_drain_yielding},                               \
        true}

#ifdef __cplusplus
}
#endif

#endif
