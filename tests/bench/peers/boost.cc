/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boost::lockfree::spsc_queue beside our ring, used as its documentation offers it for speed: its
 * size a constant of the type, items read where they lie (consume_one, consume_all), whole arrays
 * pushed at once; items of 64 bytes aligned to cache lines.
 */
#include "tests/bench/queue.h"

#include <boost/lockfree/spsc_queue.hpp>
#include <new>

namespace
{

/* Items of one cache line, or of one word. */
template <int Words> struct alignas(Words * sizeof(uint64_t)) Item {
    static constexpr int words = Words;
    uint64_t word[Words];
};

template <typename Item, size_t Depth>
using Queue = boost::lockfree::spsc_queue<Item, boost::lockfree::capacity<Depth>>;

using Ring8 = Queue<Item<1>, 1024>;
using Ring64 = Queue<Item<8>, 1024>;
using Ring64Short = Queue<Item<8>, 16>;

template <typename Ring> void make(void *memory)
{
    new (memory) Ring;
}

template <typename Ring>
QUEUE_INLINE void put(void *queue, uint64_t number, const uint64_t *payload, enum queue_wait wait,
                      uint64_t *waits)
{
    typename Ring::value_type item;

    queue_fill(item.word, item.words, number, payload);
    while (!static_cast<Ring *>(queue)->push(item))
        queue_pass(wait, waits);
}

template <typename Ring>
QUEUE_INLINE void put_burst(void *queue, uint64_t number, const uint64_t *payload,
                            enum queue_wait wait, uint64_t *waits)
{
    typename Ring::value_type items[QUEUE_BURST];

    for (size_t i = 0; i < QUEUE_BURST; i++)
        queue_fill(items[i].word, items[i].words, number + i, payload);
    for (size_t done = 0; done < QUEUE_BURST;) {
        size_t pushed = static_cast<Ring *>(queue)->push(items + done, QUEUE_BURST - done);
        if (pushed == 0)
            queue_pass(wait, waits);
        done += pushed;
    }
}

/* What a queue calls with each item; what it calls in turn is a constant, so nothing is called. */
template <typename Ring, queue_accept *Accept> struct Hand {
    void *context;
    void operator()(const typename Ring::value_type &item) const
    {
        Accept(context, item.word, item.words);
    }
};

template <typename Ring, queue_accept *Accept>
QUEUE_INLINE uint32_t take(void *queue, void *context)
{
    return static_cast<Ring *>(queue)->consume_one(Hand<Ring, Accept>{context});
}

template <typename Ring, queue_accept *Accept>
QUEUE_INLINE uint32_t take_all(void *queue, void *context)
{
    return static_cast<uint32_t>(
        static_cast<Ring *>(queue)->consume_all(Hand<Ring, Accept>{context}));
}

#define TAKE_8(queue, accept, context)        take<Ring8, accept>(queue, context)
#define TAKE_64(queue, accept, context)       take<Ring64, accept>(queue, context)
#define TAKE_64_SHORT(queue, accept, context) take<Ring64Short, accept>(queue, context)
#define TAKE_64_ALL(queue, accept, context)   take_all<Ring64, accept>(queue, context)

QUEUE_ROUND_TRIP(rtt_8, put<Ring8>, TAKE_8);
QUEUE_ROUND_TRIP(rtt_64, put<Ring64>, TAKE_64);
QUEUE_ROUND_TRIP(rtt_64_short, put<Ring64Short>, TAKE_64_SHORT);
QUEUE_THROUGHPUT(single, 1, put<Ring64>, TAKE_64);
QUEUE_THROUGHPUT(single_all, 1, put<Ring64>, TAKE_64_ALL);
QUEUE_THROUGHPUT(burst, QUEUE_BURST, put_burst<Ring64>, TAKE_64_ALL);

const queue_case cases[] = {
    {"peer/boost/ring/rtt/8", &rtt_8, sizeof(Ring8), make<Ring8>, false},
    {"peer/boost/ring/rtt/64", &rtt_64, sizeof(Ring64), make<Ring64>, false},
    {"peer/boost/ring/rtt/64/d16", &rtt_64_short, sizeof(Ring64Short), make<Ring64Short>, false},
    {"peer/boost/ring/throughput/64/single", &single, sizeof(Ring64), make<Ring64>, false},
    {"peer/boost/ring/throughput/64/single/consume_all", &single_all, sizeof(Ring64), make<Ring64>,
     false},
    {"peer/boost/ring/throughput/64/burst32", &burst, sizeof(Ring64), make<Ring64>, false},
};

} // namespace

int main(int argc, char **argv)
{
    return queue_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
