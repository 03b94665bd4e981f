/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/store.h"
#include "tests/unit.h"

#include <errno.h>
#include <fcntl.h>

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static int fresh(void)
{
    return fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
}

static const struct store_item *find(const struct store *store, const char *name)
{
    for (uint32_t i = 0; i < store->count; i++) {
        if (strcmp(store->item[i].name, name) == 0)
            return &store->item[i];
    }
    return NULL;
}

/* A name stands there once; what it stood for before is closed, and so is what is removed. */
static void test_names(void)
{
    struct store store = {0};
    int first = fresh(), second = fresh(), other = fresh();

    store_put(&store, "connection.3", 7, first);
    store_put(&store, "rx.socket.0", 0, other);
    store.item[0].given = true;
    store_put(&store, "connection.3", 8, second);
    CU_ASSERT_EQUAL(store.count, 2);
    CU_ASSERT(!is_open(first) && is_open(second) && is_open(other));
    const struct store_item *item = find(&store, "connection.3");
    CU_ASSERT_PTR_NOT_NULL_FATAL(item);
    CU_ASSERT(item->fd == second && item->value == 8 && !item->given);
    CU_ASSERT(store_is_connection(item));
    CU_ASSERT(!store_is_connection(find(&store, "rx.socket.0")));
    store_remove(&store, "connection.3");
    store_remove(&store, "connection.3");
    CU_ASSERT_EQUAL(store.count, 1);
    CU_ASSERT(!is_open(second) && is_open(other));
    store_close(&store);
    CU_ASSERT(!is_open(other));
}

/* As many as there are places; one more is closed and nothing else changes. */
static void test_full(void)
{
    struct store store = {0};
    char name[CONTROL_NAME_MAX];
    int last = -1;

    store_make_room(STORE_MAX + 200);
    for (uint32_t i = 0; i <= STORE_MAX; i++) {
        snprintf(name, sizeof(name), "connection.%u", i);
        last = fresh();
        if (last < 0) {
            UNIT_SKIP("%d descriptors are not allowed here", STORE_MAX);
            break;
        }
        store_put(&store, name, i + 1, last);
    }
    if (last >= 0) {
        CU_ASSERT_EQUAL(store.count, STORE_MAX);
        CU_ASSERT(!is_open(last));
    }
    store_close(&store);
    CU_ASSERT_EQUAL(store.count, 0);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"names", test_names},
        {"as many as there may be", test_full},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {
        {"store", NULL, NULL, NULL, NULL, tests},
        CU_SUITE_INFO_NULL,
    };
    return unit_run(suites);
}
