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

/* Stands in expected.bin for the hash of a reply of which only the id is known. */
enum { ANY_REPLY = 0 };

enum { V1_HEADER = 15, V1_ID_DIGITS = 8, V2_HEADER = 12, ID_BYTES = 8 };
enum { V3_ID_TAG = 1 << 3 | 1 }; /* field 1, of 8 bytes */
enum { IEX_ID_AT = 24 };         /* the sequence number */

static const uint32_t NONE = UINT32_MAX;

struct expected {
    uint64_t id;
    uint64_t hash;
};

struct exact {
    uint64_t key;   /* the id; 0 where the content is the identity */
    uint64_t hash;  /* of the whole reply */
    uint32_t first; /* NONE: an empty slot */
    uint32_t last;
    uint32_t next; /* the entry that the next such reply belongs to; NONE: all have come */
    uint32_t flow; /* 0 unless they are apart */
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
    uint32_t *flow;      /* of each entry */
    uint32_t *answered;  /* by flow: entries up to its last one answered; or NULL */
    size_t flows;
    bool apart;
    struct exact *exact;
    struct known *known;
};

/* Ids count up, so their bits must be spread over the table. */
static size_t spread(uint64_t value)
{
    value *= UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(value ^ (value >> 32));
}

static struct exact *exact_find(const struct check *check, uint64_t key, uint64_t hash,
                                uint32_t flow)
{
    for (size_t at = spread(key ^ hash ^ flow);; at++) {
        struct exact *slot = &check->exact[at & check->mask];
        if (slot->first == NONE || (slot->key == key && slot->hash == hash && slot->flow == flow))
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
    return check->schema == CHECK_CONTENT ? 0 : id;
}

static void expect(struct check *check, uint32_t index)
{
    const struct expected *entry = &check->entry[index];
    uint64_t key = key_of(check, entry->id);
    uint32_t flow = check->apart ? check->flow[index] : 0;
    struct exact *slot = exact_find(check, key, entry->hash, flow);

    check->following[index] = NONE;
    if (slot->first == NONE)
        *slot = (struct exact){key, entry->hash, index, index, index, flow};
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
    check->flow = calloc(check->count + 1, sizeof *check->flow);
    if (!check->entry || !check->following || !check->exact || !check->known || !check->flow)
        return -ENOMEM;
    for (size_t i = 0; i < slots; i++)
        check->exact[i].first = NONE;
    return 0;
}

/* Opens a file of `size` bytes an entry; how many there are in `*count`. */
static int open_table(const char *path, size_t size, size_t *count)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat stat;

    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &stat) != 0 ? -errno : 0;
    if (rc == 0 && (uint64_t)stat.st_size % size != 0)
        rc = -EBADMSG;
    *count = rc == 0 ? (size_t)stat.st_size / size : 0;
    if (*count > (size_t)1 << 31)
        rc = -EFBIG;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

static int load_expected(struct check *check, const char *path)
{
    int fd = open_table(path, sizeof(struct expected), &check->count);

    if (fd < 0)
        return fd;
    int rc = allocate(check);
    if (rc == 0)
        rc = read_all(fd, check->entry, check->count * sizeof(struct expected));
    close(fd);
    return rc;
}

static int load_flows(struct check *check, const char *path)
{
    size_t count = 0;
    int fd = open_table(path, sizeof *check->flow, &count);

    if (fd < 0)
        return fd;
    int rc =
        count == check->count ? read_all(fd, check->flow, count * sizeof *check->flow) : -EBADMSG;
    close(fd);
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (check->flow[i] >= check->flows)
            check->flows = (size_t)check->flow[i] + 1;
    check->answered = calloc(check->flows + 1, sizeof *check->answered);
    return rc == 0 && !check->answered ? -ENOMEM : rc;
}

int check_load(struct check **check, const struct check_files *files, enum check_schema schema,
               const char **where)
{
    struct check *made = calloc(1, sizeof *made);

    *check = made;
    *where = files->expected;
    if (!made)
        return -ENOMEM;
    made->schema = schema;
    made->apart = files->apart;
    int rc = load_expected(made, files->expected);
    if (rc == 0 && files->flows) {
        *where = files->flows;
        rc = load_flows(made, files->flows);
    }
    for (size_t i = 0; rc == 0 && i < made->count; i++) {
        made->entry[i].id = le64toh(made->entry[i].id);
        made->entry[i].hash = le64toh(made->entry[i].hash);
        expect(made, (uint32_t)i);
    }
    if (rc != 0) {
        check_free(made);
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
    free(check->flow);
    free(check->answered);
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
    if (check->answered)
        memset(check->answered, 0, check->flows * sizeof *check->answered);
}

static bool digits_of(const uint8_t *reply, size_t length, uint64_t *id)
{
    if (length < V1_HEADER || reply[0] != '|')
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

/* Where the id of protobuf stands, behind the length; past the end where there is none, as of 0. */
static size_t v3_place(const uint8_t *reply, size_t length)
{
    size_t at = 0;

    while (at < length && reply[at] >= 0x80)
        at++;
    return at + 1 < length && reply[at + 1] == V3_ID_TAG ? at + 2 : length;
}

/* Where that of Cap'n Proto stands: behind the table of segments and the pointer to the root. */
static size_t v4_place(const uint8_t *reply, size_t length)
{
    uint32_t segments = 0;

    if (length >= sizeof segments)
        memcpy(&segments, reply, sizeof segments);
    return (((size_t)le32toh(segments) + 3) / 2 + 1) * 8;
}

/* The id of a reply as its schema writes it; false where it has none. */
static bool parse_id(enum check_schema schema, const uint8_t *reply, size_t length, uint64_t *id)
{
    size_t at = 0;

    *id = 0;
    switch (schema) {
    case CHECK_V1:
        return digits_of(reply, length, id);
    case CHECK_V2:
        if (length < V2_HEADER)
            return false;
        break;
    case CHECK_V3:
        at = v3_place(reply, length);
        if (at == length)
            return length > 0;
        break;
    case CHECK_V4:
        at = v4_place(reply, length);
        break;
    case CHECK_IEX:
        at = IEX_ID_AT;
        break;
    case CHECK_CONTENT:
    default:
        return false;
    }
    if (length < at + ID_BYTES)
        return false;
    memcpy(id, reply + at, sizeof *id);
    *id = schema == CHECK_V2 ? be64toh(*id) : le64toh(*id);
    return true;
}

/* Requests of one flow are answered in order; `slot` holds one that is expected once. */
static bool out_of_order(struct check *check, const struct exact *slot)
{
    uint32_t *answered = &check->answered[check->flow[slot->first]];

    if (slot->first < *answered)
        return true;
    *answered = slot->first + 1;
    return false;
}

struct check_verdict check_reply(struct check *check, uint32_t flow, const uint8_t *reply,
                                 size_t length)
{
    struct check_verdict verdict = {0, XXH3_64bits(reply, length), CHECK_UNKNOWN, false};
    bool has_id = parse_id(check->schema, reply, length, &verdict.id);

    if (!has_id && check->schema != CHECK_CONTENT)
        return verdict;
    uint64_t key = key_of(check, verdict.id);
    uint32_t of = check->apart ? flow : 0;
    struct exact *slot = exact_find(check, key, verdict.hash, of);
    if (slot->first == NONE) /* whatever comes: it is judged elsewhere */
        slot = exact_find(check, key, ANY_REPLY, of);
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
    verdict.misordered = check->answered && slot->first == slot->last && out_of_order(check, slot);
    return verdict;
}
