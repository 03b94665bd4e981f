/* SPDX-License-Identifier: Apache-2.0 */
/*
 * book: a limit order book by price level, for several symbols; the reply says what is best now.
 *
 *   [handler.book]
 *   symbols = 64      at most, 1 to 4096
 *   levels = 128      at most a side of a symbol, 1 to 4096
 *
 * Requests, by their first byte; IEX's own are little-endian, ours big-endian:
 *
 *   '8' buy, '5' sell   price level update of IEX DEEP 1.0, 30 bytes: type, flags, timestamp i64,
 *                       symbol 8, size u32, price i64 (1/10,000 $); the size is the level's, 0 removes
 *   'A' to 'Z'          any other message of a feed: filtered
 *   'a' 'r' 'q'         24 bytes: what, side 'B' or 'S', 2 zero bytes, size u32, price i64, symbol 8
 *                       add so many to a level, remove as many as there are, only ask (side, size and
 *                       price are zero)
 *
 *   reply, 32 bytes     symbol 8, best bid: price i64, size u32, best ask: price i64, size u32; a side
 *                       that is empty has 0 and 0
 *
 * A symbol gets its place with its first level. Where no place or no level is left the request is
 * refused (reason `full`) and nothing has changed. harness/ticklab/reference_book.py has the same.
 *
 * As one writes it for speed: a side is an array of levels, the best one last, so that what changes most
 * moves least; nothing is allocated, and nothing but the symbol is looked up by hash. All of it
 * is the shared state: it outlives its worker.
 */
#include "worker/load.h"
#include "worker/mix.h"

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { DEEP_BYTES = 30, FLOW_BYTES = 24, REPLY_BYTES = 32, SYMBOL_BYTES = 8 };
enum side { BID, ASK };

struct level {
    int64_t price;
    uint32_t size;
    uint32_t zero;
};

/* In the state, `places` of them; behind each its levels: bids, then asks. */
struct book {
    uint64_t symbol; /* its bytes; `used` 0: free */
    uint32_t used;
    uint32_t count[2]; /* levels of each side */
    uint32_t zero;
    struct level level[];
};

struct update {
    uint64_t symbol;
    int64_t price;
    uint32_t size;
    enum side side;
    uint8_t what; /* 's' set, 'a' add, 'r' remove, 'q' ask */
};

static struct {
    uint64_t symbols;
    uint64_t levels;
    uint64_t places; /* a power of two, at least twice the symbols */
    uint64_t stride; /* bytes from book to book */
} shape;

static struct book *book_at(const struct tickline_context *context, uint64_t place)
{
    /* The first line holds how many symbols there are. */
    return (struct book *)(void *)(context->state + 64 + place * shape.stride);
}

static void touch(struct tickline_context *context, const void *at, uint64_t bytes)
{
    context->touch(context, (uint64_t)((const uint8_t *)at - context->state), bytes);
}

/* ---- parsing ---- */

static uint32_t le32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

static uint64_t le64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

static bool parse_deep(const struct tickline_request *request, struct update *update)
{
    const uint8_t *bytes = request->payload;

    if (request->length != DEEP_BYTES)
        return false;
    update->what = 's';
    update->side = bytes[0] == '8' ? BID : ASK;
    memcpy(&update->symbol, bytes + 10, SYMBOL_BYTES);
    update->size = le32(bytes + 18);
    update->price = (int64_t)le64(bytes + 22);
    return update->price > 0;
}

static bool parse_flow(const struct tickline_request *request, struct update *update)
{
    const uint8_t *bytes = request->payload;

    if (request->length != FLOW_BYTES || bytes[2] || bytes[3])
        return false;
    update->what = bytes[0];
    update->side = bytes[1] == 'S' ? ASK : BID;
    update->size = __builtin_bswap32(le32(bytes + 4));
    update->price = (int64_t)__builtin_bswap64(le64(bytes + 8));
    memcpy(&update->symbol, bytes + 16, SYMBOL_BYTES);
    if (update->what == 'q')
        return bytes[1] == 0 && update->size == 0 && update->price == 0;
    return (bytes[1] == 'B' || bytes[1] == 'S') && update->price > 0;
}

/* ---- the book ---- */

/* The symbol's place, or the free one where it would go. */
static struct book *find(const struct tickline_context *context, uint64_t symbol)
{
    uint64_t place = mix(symbol) & (shape.places - 1);
    struct book *book = book_at(context, place);

    while (book->used && book->symbol != symbol) {
        place = (place + 1) & (shape.places - 1);
        book = book_at(context, place);
    }
    return book;
}

static struct level *side_of(struct book *book, enum side side)
{
    return book->level + side * shape.levels;
}

/* Is `a` a better price than `b` on this side? */
static bool better(enum side side, int64_t a, int64_t b)
{
    return side == BID ? a > b : a < b;
}

/* Levels stand from the worst to the best: the first that is not worse than `price`, from behind. */
static uint32_t seek(const struct level *levels, uint32_t count, enum side side, int64_t price)
{
    while (count > 0 && better(side, levels[count - 1].price, price))
        count--;
    return count > 0 && levels[count - 1].price == price ? count - 1 : count;
}

static void remove_level(struct tickline_context *context, struct book *book, enum side side,
                         uint32_t at)
{
    struct level *levels = side_of(book, side);
    uint32_t behind = book->count[side] - at - 1;

    touch(context, &levels[at], (behind + 1) * sizeof(*levels));
    touch(context, &book->count[side], sizeof(book->count[side]));
    memmove(&levels[at], &levels[at + 1], behind * sizeof(*levels));
    book->count[side]--;
}

/* The symbol's first level takes its place. False: there is none left. */
static bool claim(struct tickline_context *context, struct book *book, uint64_t symbol)
{
    uint64_t *used = (uint64_t *)(void *)context->state;

    if (*used == shape.symbols)
        return false;
    touch(context, used, sizeof(*used));
    touch(context, book, offsetof(struct book, level));
    ++*used;
    book->symbol = symbol;
    book->used = 1;
    return true;
}

static bool insert_level(struct tickline_context *context, struct book *book,
                         const struct update *update, uint32_t at)
{
    struct level *levels = side_of(book, update->side);
    uint32_t *count = &book->count[update->side];
    uint32_t behind = *count - at;

    if (*count == shape.levels || (!book->used && !claim(context, book, update->symbol)))
        return false;
    touch(context, &levels[at], (behind + 1) * sizeof(*levels));
    touch(context, count, sizeof(*count));
    memmove(&levels[at + 1], &levels[at], behind * sizeof(*levels));
    levels[at] = (struct level){.price = update->price, .size = update->size};
    ++*count;
    return true;
}

/* 0, or why not; then nothing has changed. */
static int32_t apply(struct tickline_context *context, struct book *book,
                     const struct update *update)
{
    struct level *levels = side_of(book, update->side);
    uint32_t count = book->count[update->side];

    if (update->what == 'q')
        return 0;
    uint32_t at = seek(levels, count, update->side, update->price);
    bool there = at < count && levels[at].price == update->price;
    uint32_t had = there ? levels[at].size : 0;
    uint32_t size = update->size;
    if (update->what == 'a' && __builtin_add_overflow(had, update->size, &size))
        return TICKLINE_BAD_PAYLOAD;
    if (update->what == 'r')
        size = had > update->size ? had - update->size : 0;
    if (size == had)
        return 0;
    if (!there)
        return insert_level(context, book, update, at) ? 0 : TICKLINE_FULL;
    if (size == 0) {
        remove_level(context, book, update->side, at);
        return 0;
    }
    touch(context, &levels[at].size, sizeof(levels[at].size));
    levels[at].size = size;
    return 0;
}

static uint8_t *put_best(uint8_t *out, struct book *book, enum side side)
{
    const struct level none = {0};
    uint32_t count = book->count[side];
    const struct level *best = count ? &side_of(book, side)[count - 1] : &none;
    uint64_t price = htobe64((uint64_t)best->price);
    uint32_t size = htobe32(best->size);

    memcpy(out, &price, sizeof(price));
    memcpy(out + sizeof(price), &size, sizeof(size));
    return out + sizeof(price) + sizeof(size);
}

/* ---- handler ---- */

static int32_t book_init(struct tickline_context *context)
{
    if (context->count(context, "symbols", "64", 1, 4096, &shape.symbols) < 0 ||
        context->count(context, "levels", "128", 1, 4096, &shape.levels) < 0)
        return -1;
    for (shape.places = 2; shape.places < 2 * shape.symbols;)
        shape.places *= 2;
    shape.stride = sizeof(struct book) + 2 * shape.levels * sizeof(struct level);
    context->state_bytes = 64 + shape.places * shape.stride;
    return 0;
}

static int32_t book_handle(struct tickline_context *context, const struct tickline_request *request,
                           uint8_t *reply, uint32_t capacity)
{
    uint8_t kind = request->length ? request->payload[0] : 0;
    struct update update;
    bool right = false;

    if (kind >= 'A' && kind <= 'Z')
        return TICKLINE_FILTERED;
    if (capacity < REPLY_BYTES)
        return TICKLINE_REPLY_TOO_BIG;
    if (kind == '8' || kind == '5')
        right = parse_deep(request, &update);
    else if (kind == 'a' || kind == 'r' || kind == 'q')
        right = parse_flow(request, &update);
    if (!right)
        return TICKLINE_BAD_PAYLOAD;
    struct book *book = find(context, update.symbol);
    int32_t result = apply(context, book, &update);
    if (result < 0)
        return result;
    memcpy(reply, &update.symbol, SYMBOL_BYTES);
    (void)put_best(put_best(reply + SYMBOL_BYTES, book, BID), book, ASK);
    return REPLY_BYTES;
}

const struct tickline_handler handler_book = {
    .abi = TICKLINE_HANDLER_ABI,
    .state = TICKLINE_STATE_SHARED,
    .name = "book",
    .summary = "a limit order book by price level; the reply has best bid and offer",
    .init = book_init,
    .handle = book_handle,
};
