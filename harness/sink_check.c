/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two open-addressing tables with linear probing, at most half full. `exact` holds each different
 * expected reply with the entries that expect it, in order, as a chain of indices: the k-th reply
 * of one content belongs to the k-th request that asked for it. `known` holds the ids alone and is
 * read only when the exact look-up failed, to tell a corrupted reply from an unknown one. One table
 * keyed by id would do both, but a capture may give one id to all its requests.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "sink_check.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { V1_HEADER = 15, V1_ID_DIGITS = 8, V2_HEADER = 12 };

static const uint32_t NONE = UINT32_MAX;

struct expected {
    uint64_t id;
    uint64_t hash;
};

struct exact {
    uint64_t key;   /* the id; 0 for `datagram`, whose identity is its content */
    uint64_t hash;  /* of the whole reply */
    uint32_t first; /* NONE: an empty slot */
    uint32_t last;
    uint32_t next; /* the entry that the next such reply belongs to; NONE: all have come */
    uint32_t unused;
};

struct known {
    uint64_t id;
    uint64_t used;
};

struct check {
    enum check_schema schema;
    size_t count;
    size_t mask; /* slots of either table - 1 */
    struct expected *entry;
    uint32_t *following; /* the next entry with the same reply, or NONE */
    struct exact *exact;
    struct known *known;
};

/* Ids count up, so their bits must be spread over the table. */
static size_t spread(uint64_t value)
{
    value *= UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(value ^ (value >> 32));
}

static struct exact *exact_find(const struct check *check, uint64_t key, uint64_t hash)
{
    for (size_t at = spread(key ^ hash);; at++) {
        struct exact *slot = &check->exact[at & check->mask];
        if (slot->first == NONE || (slot->key == key && slot->hash == hash))
            return slot;
    }
}

static struct known *known_find(const struct check *check, uint64_t id)
{
    for (size_t at = spread(id);; at++) {
        struct known *slot = &check->known[at & check->mask];
        if (!slot->used || slot->id == id)
            return slot;
    }
}

static uint64_t key_of(const struct check *check, uint64_t id)
{
    return check->schema == CHECK_DATAGRAM ? 0 : id;
}

static void expect(struct check *check, uint32_t index)
{
    const struct expected *entry = &check->entry[index];
    uint64_t key = key_of(check, entry->id);
    struct exact *slot = exact_find(check, key, entry->hash);

    check->following[index] = NONE;
    if (slot->first == NONE)
        *slot = (struct exact){key, entry->hash, index, index, index, 0};
    else
        check->following[slot->last] = index;
    slot->last = index;
    *known_find(check, entry->id) = (struct known){entry->id, 1};
}

static int read_all(int fd, void *to, size_t size)
{
    for (uint8_t *at = to; size > 0;) {
        ssize_t got = read(fd, at, size);
        if (got <= 0)
            return got < 0 ? -errno : -EBADMSG;
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

static int allocate(struct check *check)
{
    size_t slots = 2;

    while (slots < 2 * check->count)
        slots *= 2;
    check->mask = slots - 1;
    check->entry = calloc(check->count + 1, sizeof *check->entry);
    check->following = calloc(check->count + 1, sizeof *check->following);
    check->exact = calloc(slots, sizeof *check->exact);
    check->known = calloc(slots, sizeof *check->known);
    if (!check->entry || !check->following || !check->exact || !check->known)
        return -ENOMEM;
    for (size_t i = 0; i < slots; i++)
        check->exact[i].first = NONE;
    return 0;
}

static int load(struct check *check, int fd)
{
    struct stat stat;

    if (fstat(fd, &stat) != 0)
        return -errno;
    if ((uint64_t)stat.st_size % sizeof(struct expected) != 0)
        return -EBADMSG;
    check->count = (size_t)stat.st_size / sizeof(struct expected);
    if (check->count > (size_t)1 << 31)
        return -EFBIG;
    int rc = allocate(check);
    if (rc == 0)
        rc = read_all(fd, check->entry, check->count * sizeof(struct expected));
    for (size_t i = 0; rc == 0 && i < check->count; i++) {
        check->entry[i].id = le64toh(check->entry[i].id);
        check->entry[i].hash = le64toh(check->entry[i].hash);
        expect(check, (uint32_t)i);
    }
    return rc;
}

int check_load(struct check **check, const char *path, enum check_schema schema)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    *check = calloc(1, sizeof **check);
    int rc = *check ? 0 : -ENOMEM;
    if (rc == 0) {
        (*check)->schema = schema;
        rc = load(*check, fd);
    }
    close(fd);
    if (rc != 0) {
        check_free(*check);
        *check = NULL;
    }
    return rc;
}

void check_free(struct check *check)
{
    if (!check)
        return;
    free(check->entry);
    free(check->following);
    free(check->exact);
    free(check->known);
    free(check);
}

size_t check_count(const struct check *check)
{
    return check->count;
}

void check_reset(struct check *check)
{
    for (size_t i = 0; i <= check->mask; i++)
        check->exact[i].next = check->exact[i].first;
}

/* The id of a reply as its schema writes it; false where it has none. */
static bool parse_id(enum check_schema schema, const uint8_t *reply, size_t length, uint64_t *id)
{
    *id = 0;
    if (schema == CHECK_V2 && length >= V2_HEADER) {
        memcpy(id, reply, sizeof *id);
        *id = be64toh(*id);
        return true;
    }
    if (schema != CHECK_V1 || length < V1_HEADER || reply[0] != '|')
        return false;
    for (size_t i = 1; i <= V1_ID_DIGITS; i++) {
        if (reply[i] < '0' || reply[i] > '9') {
            *id = 0;
            return false;
        }
        *id = *id * 10 + (uint64_t)(reply[i] - '0');
    }
    return true;
}

struct check_verdict check_reply(struct check *check, const uint8_t *reply, size_t length)
{
    struct check_verdict verdict = {0, XXH3_64bits(reply, length), CHECK_UNKNOWN};
    bool has_id = parse_id(check->schema, reply, length, &verdict.id);

    if (!has_id && check->schema != CHECK_DATAGRAM)
        return verdict;
    struct exact *slot = exact_find(check, key_of(check, verdict.id), verdict.hash);
    if (slot->first == NONE) {
        if (has_id && known_find(check, verdict.id)->used)
            verdict.status = CHECK_CORRUPTED;
        return verdict;
    }
    if (slot->next == NONE) {
        verdict.id = check->entry[slot->last].id;
        verdict.status = CHECK_DUPLICATED;
        return verdict;
    }
    verdict.id = check->entry[slot->next].id;
    verdict.status = CHECK_OK;
    slot->next = check->following[slot->next];
    return verdict;
}
