/* SPDX-License-Identifier: Apache-2.0 */
/* The table of senders: who gets which place, who loses his, and what a late reply finds. */
#include "shm/peer.h"
#include "tests/unit.h"

#include <arpa/inet.h>

static struct region region;
static struct peers *peers;
static struct peer_book *book;

static void make(void)
{
    const struct region_place anywhere = {.numa_node = -1};

    CU_ASSERT_EQUAL_FATAL(peers_create(&region, 1, &anywhere), 0);
    peers = peers_of(&region);
    book = calloc(1, sizeof(*book));
    CU_ASSERT_PTR_NOT_NULL_FATAL(book);
    peer_book_open(book, peers);
}

static void unmake(void)
{
    free(book);
    region_close(&region);
}

/* What a successor of rx does. */
static void open_again(void)
{
    memset(book, 0, sizeof(*book));
    peer_book_open(book, peers);
}

static union peer_address v4(uint32_t number)
{
    return (union peer_address){.v4 = {.sin_family = AF_INET,
                                       .sin_port = htons((uint16_t)number),
                                       .sin_addr.s_addr = htonl(0x0a000000 + number / 7)}};
}

static union peer_address v6(uint16_t port)
{
    return (union peer_address){
        .v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback}};
}

static uint16_t find(uint32_t number, uint64_t next)
{
    const union peer_address address = v4(number);

    return peer_find(book, &address.any, 0, next);
}

static void test_places(void)
{
    union peer_address four = v4(5), six = v6(5);
    struct peer copy;

    make();
    uint16_t a = peer_find(book, &four.any, 0, 10);
    uint16_t b = peer_find(book, &six.any, 0, 11);
    uint16_t c = peer_find(book, &four.any, 3, 12); /* the same at another socket */
    CU_ASSERT(a != b && b != c && a != c);
    CU_ASSERT_EQUAL(peer_find(book, &four.any, 0, 20), a);
    CU_ASSERT_EQUAL(peer_find(book, &six.any, 0, 20), b);
    CU_ASSERT_EQUAL(peer_find(book, &four.any, 3, 20), c);
    CU_ASSERT(!peer_read(peers, a, 9, &copy));
    CU_ASSERT_FATAL(peer_read(peers, a, 10, &copy));
    CU_ASSERT_EQUAL(copy.length, sizeof(struct sockaddr_in));
    CU_ASSERT_EQUAL(memcmp(&copy.address, &four, sizeof(four.v4)), 0);
    CU_ASSERT_FATAL(peer_read(peers, b, 11, &copy));
    CU_ASSERT_EQUAL(memcmp(&copy.address.v6, &six.v6, sizeof(six.v6)), 0);
    CU_ASSERT_FATAL(peer_read(peers, c, 12, &copy));
    CU_ASSERT_EQUAL(copy.socket, 3);
    CU_ASSERT(!peer_read(peers, 100, 1000, &copy)); /* nobody */
    open_again();
    CU_ASSERT_EQUAL(peer_find(book, &four.any, 0, 30), a);
    CU_ASSERT_EQUAL(peer_find(book, &six.any, 0, 30), b);
    unmake();
}

/* The table is full: who was silent for longest goes, and nobody else's place is lost by it. */
static void test_full(void)
{
    static uint16_t place[PEERS_MAX];
    const uint32_t others = 5000;
    struct peer copy;
    bool used[PEERS_MAX] = {false};
    uint32_t wrong = 0;

    make();
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        place[i] = find(i, i + 1);
        wrong += used[place[i]];
        used[place[i]] = true;
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(find(0, 70000), place[0]); /* not silent any more */
    for (uint32_t i = 0; i < others; i++)
        wrong += find(100000 + i, 80000 + i) != place[i + 1];
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(!peer_read(peers, place[1], 79999, &copy)); /* late */
    CU_ASSERT_FATAL(peer_read(peers, place[1], 80000, &copy));
    union peer_address next = v4(100000);
    CU_ASSERT_EQUAL(memcmp(&copy.address, &next, sizeof(next.v4)), 0);
    for (uint32_t i = others + 1; i < PEERS_MAX; i++)
        wrong += find(i, 90000) != place[i];
    for (uint32_t i = 0; i < others; i++)
        wrong += find(100000 + i, 90000) != place[i + 1];
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(find(0, 90000), place[0]);
    open_again();
    for (uint32_t i = others + 1; i < PEERS_MAX; i++)
        wrong += find(i, 95000) != place[i];
    CU_ASSERT_EQUAL(wrong, 0);
    unmake();
}

/* A place that was being written when rx was killed is nobody's. */
static void test_torn(void)
{
    struct peer copy;

    make();
    uint16_t place = find(1, 10);
    store_relaxed(&peers->peer[place].length, 0u);
    memset(&peers->peer[place].address, 0x55, 6);
    open_again();
    CU_ASSERT(!peer_read(peers, place, 100, &copy));
    uint16_t again = find(1, 20);
    CU_ASSERT_FATAL(peer_read(peers, again, 20, &copy));
    union peer_address one = v4(1);
    CU_ASSERT_EQUAL(memcmp(&copy.address, &one, sizeof(one.v4)), 0);
    unmake();
}

static int read_far(void *argument)
{
    struct peer copy;

    (void)argument;
    make();
    return peer_read(peers, UINT16_MAX, 1, &copy);
}

static int read_long(void *argument)
{
    struct peer copy;

    (void)argument;
    make();
    store_relaxed(&peers->peer[7].length, 29u);
    return peer_read(peers, 7, 1, &copy);
}

static int open_long(void *argument)
{
    (void)argument;
    make();
    store_relaxed(&peers->peer[7].length, 1u << 30);
    open_again();
    return 0;
}

static void test_words(void)
{
    unit_dies(read_far, NULL, SIGABRT,
              "shared memory is corrupt: place of a sender: expected 65534 (0xfffe), found 65535 "
              "(0xffff)\n");
    unit_dies(read_long, NULL, SIGABRT,
              "shared memory is corrupt: length of a sender's address: expected 28 (0x1c), found "
              "29 (0x1d)\n");
    unit_dies(open_long, NULL, SIGABRT,
              "shared memory is corrupt: length of a sender's address: expected 28 (0x1c), found "
              "1073741824 (0x40000000)\n");
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"places", test_places}, {"full", test_full},
        {"torn", test_torn},     {"words that cannot be", test_words},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "peers", .pTests = tests}, CU_SUITE_INFO_NULL};

    return unit_run(suites);
}
