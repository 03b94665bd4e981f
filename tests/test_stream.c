/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tx's streams over real connections on loopback, with send buffers so small that most writes end within
 * a reply. tx is left at each crash point that it passes, as a kill would leave it, and a successor goes
 * on: each reply comes once, whole, in the order of its ring. The real code, compiled with crash points.
 */
#include "stage/control.h"
#include "tests/unit.h"
#include "tx/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    RINGS = 2,
    CONNECTIONS = 3,
    DEPTH = 16,
    SLOT_BYTES = 4096,
    OUTPUTS = 60, /* a ring */
    HEADER = 4,   /* of a reply: ring, number, length */
    BUFFER = 4096,
};

struct world {
    struct stage *stage;
    struct tx *tx;
    struct region cells;
    struct region ring[RINGS];
    struct ring_producer producer[RINGS];
    uint32_t published[RINGS];
    int control[2];
    int memory; /* tx's region, as the launcher keeps it; -1: none yet */
    int ours[CONNECTIONS];
    int theirs[CONNECTIONS];
    uint8_t *received[CONNECTIONS];
    size_t bytes[CONNECTIONS];
    uint32_t failures;
    int failed_with;
    uint32_t seed;
};

static struct world *now; /* for callbacks */

/* ---- connections ---- */

static void shrink(int fd, int option)
{
    const int bytes = BUFFER;

    CU_ASSERT_EQUAL(setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof(bytes)), 0);
}

static void connect_pair(int *ours, int *theirs)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    shrink(listener, SO_RCVBUF);
    CU_ASSERT_EQUAL_FATAL(bind(listener, (struct sockaddr *)&address, length), 0);
    CU_ASSERT_EQUAL_FATAL(listen(listener, 1), 0);
    CU_ASSERT_EQUAL_FATAL(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    *ours = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    shrink(*ours, SO_SNDBUF);
    CU_ASSERT_EQUAL_FATAL(connect(*ours, (struct sockaddr *)&address, length), 0);
    *theirs = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CU_ASSERT_FATAL(*theirs >= 0);
    close(listener);
}

/* ---- the sink ---- */

static struct stream *choose(struct stage *stage, struct tx *tx, const struct ring_slot *slot)
{
    struct streams *streams = tx->own;

    (void)stage;
    return slot->flow == UINT16_MAX ? NULL : &streams->stream[slot->flow];
}

static void failed(struct stage *stage, struct tx *tx, struct stream *stream, int err)
{
    now->failures++;
    now->failed_with = err;
    stream->fd = -1;
    stream_drop(stage, tx, stream, err ? CELL_UNDELIVERED_ERROR : CELL_UNDELIVERED_PATIENCE);
}

static const struct stream_kind kind = {.choose = choose, .failed = failed};

/* ---- life ---- */

/* What tx_open does, for the first or a successor. */
static void open_tx(struct world *world)
{
    struct region_mismatch mismatch;
    struct tx *tx = calloc(1, sizeof(*tx));
    struct streams *streams = calloc(1, sizeof(*streams));

    CU_ASSERT_PTR_NOT_NULL_FATAL(tx);
    CU_ASSERT_PTR_NOT_NULL_FATAL(streams);
    world->tx = tx;
    tx->own = streams;
    tx->rings = RINGS;
    tx->burst = 4;
    for (uint32_t i = 0; i < RINGS; i++) {
        CU_ASSERT_EQUAL_FATAL(ring_consumer_attach(&tx->from[i], &world->ring[i], &mismatch), 0);
        tx->from[i].next = position_max(tx->from[i].next, cells_counted(world->stage->cells, i));
        tx->counted[i] = tx->from[i].next;
        tx->completed += tx->counted[i];
    }
    int memory = world->memory < 0 ? -1 : dup(world->memory);
    CU_ASSERT_EQUAL_FATAL(streams_open(world->stage, tx, &kind, CONNECTIONS, memory), 0);
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        struct stream *stream = &streams->stream[i];
        struct stream_record *record = &streams->memory.record[i];
        uint64_t bytes;
        CU_ASSERT_EQUAL_FATAL(stream_kernel_bytes(world->ours[i], &bytes), 0);
        if (!load_acquire(&record->up)) {
            store_relaxed(&record->base, bytes);
            stream_begin(tx, stream, 1);
            store_release(&record->up, 1u);
        }
        stream_settle(world->stage, tx, stream, bytes - load_relaxed(&record->base));
        stream->fd = world->ours[i];
    }
}

/* What the launcher does with what tx deposits. */
static void keep_memory(struct world *world)
{
    struct control_message message;
    int fd;

    while (control_receive(world->control[1], &message, &fd, 0) == 0) {
        if (fd >= 0)
            world->memory = fd;
    }
}

static void kill_tx(struct world *world)
{
    struct streams *streams = world->tx->own;

    if (streams->memory.region.header)
        region_close(&streams->memory.region);
    free(world->tx->own);
    free(world->tx);
    world->tx = NULL;
}

static void make(struct world *world, const struct config_flush *flush, uint64_t patience_ns)
{
    const struct region_place anywhere = {.numa_node = -1};
    struct region_mismatch mismatch;

    *world = (struct world){.memory = -1, .stage = calloc(1, sizeof(*world->stage))};
    CU_ASSERT_PTR_NOT_NULL_FATAL(world->stage);
    now = world;
    struct stage *stage = world->stage;
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, world->control), 0);
    CU_ASSERT_EQUAL_FATAL(cells_create(&world->cells, 1, &anywhere), 0);
    stage->control = world->control[0];
    stage->cells = cells_of(&world->cells);
    stage->cell = &stage->cells->cell[CELL_TX];
    stage->clock = clock_from_hz(2e9);
    stage->config.tx.flush = *flush;
    stage->config.tx.patience_ns = patience_ns;
    stage->config.supervise.drain_timeout_ns = 10000000000ULL;
    stage->arena.header = world->cells.header; /* of it the epoch alone is read */
    for (uint32_t i = 0; i < RINGS; i++) {
        CU_ASSERT_EQUAL_FATAL(
            ring_create(&world->ring[i], "test", DEPTH, SLOT_BYTES, 0, 1, &anywhere), 0);
        CU_ASSERT_EQUAL_FATAL(ring_producer_attach(&world->producer[i], &world->ring[i], &mismatch),
                              0);
    }
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        connect_pair(&world->ours[i], &world->theirs[i]);
        world->received[i] = calloc(RINGS * OUTPUTS, SLOT_BYTES);
        CU_ASSERT_PTR_NOT_NULL_FATAL(world->received[i]);
    }
    open_tx(world);
    keep_memory(world);
}

static void unmake(struct world *world)
{
    kill_tx(world);
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        close(world->ours[i]);
        close(world->theirs[i]);
        free(world->received[i]);
    }
    for (uint32_t i = 0; i < RINGS; i++)
        region_close(&world->ring[i]);
    close(world->control[0]);
    close(world->control[1]);
    close(world->memory);
    region_close(&world->cells);
    free(world->stage);
}

/* ---- outputs ---- */

/* From a few bytes to more than a send buffer's worth in a row; every seventh is no reply. */
static void fill(struct ring_slot *slot, uint32_t ring, uint32_t number, uint16_t flow)
{
    slot->request = ring * OUTPUTS + number;
    slot->source = number;
    slot->part = 0;
    slot->parts = 1;
    slot->flow = flow;
    slot->reason = REASON_bad_payload;
    slot->kind = number % 7 == 3 ? RING_FILTERED : number % 7 == 5 ? RING_REJECTED : RING_REPLY;
    slot->length = (uint16_t)(HEADER + (number * 611 + ring * 97) % 4000);
    memset(slot->payload, (int)number, slot->length);
    slot->payload[0] = (uint8_t)ring;
    slot->payload[1] = (uint8_t)number;
    memcpy(slot->payload + 2, &slot->length, sizeof(slot->length));
}

static void publish(struct world *world, uint32_t ring, uint16_t flow)
{
    struct ring_slot *slot = ring_claim(&world->producer[ring]);

    CU_ASSERT_PTR_NOT_NULL_FATAL(slot);
    fill(slot, ring, world->published[ring]++, flow);
    ring_publish(&world->producer[ring]);
}

/* As many as there is room for; flows go round. */
static void publish_all(struct world *world)
{
    for (uint32_t ring = 0; ring < RINGS; ring++) {
        struct ring_producer *producer = &world->producer[ring];
        while (world->published[ring] < OUTPUTS &&
               (producer->next != producer->limit || ring_refresh(producer) > 0))
            publish(world, ring, (uint16_t)((world->published[ring] / 2) % CONNECTIONS));
    }
}

static size_t read_some(struct world *world, uint32_t connection, size_t most, int flags)
{
    ssize_t got = recv(world->theirs[connection],
                       world->received[connection] + world->bytes[connection], most, flags);

    if (got > 0)
        world->bytes[connection] += (size_t)got;
    return got > 0 ? (size_t)got : 0;
}

static uint64_t counted(const struct world *world)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < RINGS; i++)
        sum += cells_counted(world->stage->cells, i);
    return sum;
}

/* Replies of a connection are whole and in the order of their rings; how many of each ring. */
static bool check_bytes(const struct world *world, uint32_t connection, uint32_t count[RINGS])
{
    const uint8_t *at = world->received[connection];
    const uint8_t *end = at + world->bytes[connection];
    int last[RINGS] = {-1, -1};

    while (end - at >= HEADER) {
        uint32_t ring = at[0];
        uint8_t number = at[1];
        uint16_t length;
        memcpy(&length, at + 2, sizeof(length));
        if (ring >= RINGS || number <= last[ring] || end - at < length ||
            length != HEADER + (number * 611u + ring * 97) % 4000)
            return false;
        for (uint32_t i = HEADER; i < length; i++) {
            if (at[i] != number)
                return false;
        }
        last[ring] = number;
        count[ring]++;
        at += length;
    }
    return at == end;
}

/* ---- kills ---- */

static jmp_buf killed;
static uint64_t passes;
static uint64_t kill_at; /* of the points passed since the start; 0: never */

static void count_point(const char *label)
{
    bool ours = strncmp(label, "stream:", 7) == 0 || strncmp(label, "tx:", 3) == 0 ||
                strcmp(label, "ring:after_commit") == 0;

    if (ours && ++passes == kill_at)
        longjmp(killed, 1);
}

static void no_point(const char *label)
{
    (void)label;
}

/* Hands out, reads here and there, and sends, until all is counted. */
static void work(struct world *world)
{
    double deadline = unit_seconds() + 20;

    while (counted(world) < RINGS * OUTPUTS && unit_seconds() < deadline) {
        publish_all(world);
        world->seed = world->seed * 1664525u + 1013904223u;
        (void)read_some(world, (world->seed >> 16) % CONNECTIONS, 1 + (world->seed >> 8) % 9000,
                        MSG_DONTWAIT);
        crash_hook = count_point;
        int moved = streams_poll(world->stage, world->tx);
        crash_hook = no_point;
        CU_ASSERT_FATAL(moved >= 0 || moved == -EAGAIN);
    }
    CU_ASSERT_EQUAL(counted(world), RINGS * OUTPUTS);
}

static void check_all(struct world *world)
{
    uint32_t count[RINGS] = {0};

    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        (void)shutdown(world->ours[i], SHUT_WR);
        while (read_some(world, i, SLOT_BYTES, 0) > 0)
            continue;
        CU_ASSERT(check_bytes(world, i, count));
    }
    for (uint32_t ring = 0; ring < RINGS; ring++) {
        const _Atomic uint64_t *outcome = world->stage->cells->outcome[ring];
        CU_ASSERT_EQUAL(count[ring], load_relaxed(&outcome[OUTCOME_TRANSMITTED]));
        CU_ASSERT_EQUAL(load_relaxed(&outcome[OUTCOME_DROPPED]), 0);
    }
    CU_ASSERT_EQUAL(world->failures, 0);
}

/* tx dies at the point number `first` that it passes, its successor at its point number `second` (0: not).
 * False: there are not so many points. */
static bool run_killed(const struct config_flush *flush, uint64_t first, uint64_t second)
{
    static struct world world;
    static uint64_t next;
    static bool died;

    make(&world, flush, 0);
    world.seed = (uint32_t)first;
    died = false;
    passes = 0;
    kill_at = first;
    next = second;
    if (setjmp(killed) != 0) {
        died = true;
        crash_hook = no_point;
        kill_tx(&world);
        passes = 0;
        kill_at = next;
        next = 0;
        crash_hook = count_point;
        open_tx(&world);
        crash_hook = no_point;
    }
    work(&world);
    check_all(&world);
    unmake(&world);
    return died;
}

/* Every so many points; all of them with TICKLINE_TEST_FULL=1. */
static uint64_t stride(uint64_t normally)
{
    const char *full = getenv("TICKLINE_TEST_FULL");

    return full && strcmp(full, "1") == 0 ? 1 : normally;
}

static void test_killed(void)
{
    static const struct config_flush at_once = {.count = 1}, gathered = {.count = 5};
    uint64_t first = 1;

    while (run_killed(&at_once, first, 0))
        first += stride(17);
    CU_ASSERT(first > 500);
    for (first = 3; run_killed(&gathered, first, 0); first += stride(17))
        continue;
    CU_ASSERT(first > 500);
}

static void test_killed_twice(void)
{
    static const struct config_flush gathered = {.count = 3};

    for (uint64_t first = 2; run_killed(&gathered, first, 1 + first % 29); first += stride(37))
        continue;
}

/* ---- flush, patience, failure ---- */

static void poll_a_while(struct world *world)
{
    for (int i = 0; i < 50; i++)
        (void)streams_poll(world->stage, world->tx);
}

static void test_flush(void)
{
    static const struct config_flush flush = {.count = 3, .wait_ns = 50000000};
    static struct world world;

    make(&world, &flush, 0);
    publish(&world, 0, 1);
    publish(&world, 0, 1);
    for (int i = 0; i < 50; i++)
        CU_ASSERT(streams_poll(world.stage, world.tx) >= 0);
    CU_ASSERT_EQUAL(read_some(&world, 1, SLOT_BYTES, MSG_DONTWAIT), 0);
    CU_ASSERT(!streams_idle(world.stage, world.tx));
    CU_ASSERT(streams_nap(world.stage, world.tx, 1000000000) < 50000001);
    publish(&world, 0, 1); /* now they are three */
    poll_a_while(&world);
    CU_ASSERT_EQUAL(world.tx->counted[0], 3);
    publish(&world, 0, 1); /* filtered */
    double since = unit_seconds();
    publish(&world, 0, 1);
    poll_a_while(&world);
    CU_ASSERT_EQUAL(world.tx->counted[0], 4);
    while (world.tx->counted[0] < 5 && unit_seconds() < since + 20)
        poll_a_while(&world);
    CU_ASSERT(unit_seconds() - since > 0.01);
    CU_ASSERT(streams_idle(world.stage, world.tx));
    unmake(&world);
}

static void stuff(int fd)
{
    static const char bytes[65536];

    while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue;
}

/* Who takes nothing holds up nobody until the ring is full. */
static void test_one_is_stuck(void)
{
    static const struct config_flush flush = {.count = 1};
    static struct world world;

    make(&world, &flush, 0);
    stuff(world.ours[0]);
    publish(&world, 0, 0);
    for (uint32_t i = 1; i < DEPTH; i++)
        publish(&world, 0, 1);
    double deadline = unit_seconds() + 20;
    size_t expected = 0;
    for (uint32_t i = 1; i < DEPTH; i++) {
        struct ring_slot slot_of_next[SLOT_BYTES / sizeof(struct ring_slot)];
        fill(slot_of_next, 0, i, 1);
        expected += slot_of_next->kind == RING_REPLY ? slot_of_next->length : 0;
    }
    while (world.bytes[1] < expected && unit_seconds() < deadline) {
        CU_ASSERT(streams_poll(world.stage, world.tx) >= -EAGAIN);
        (void)read_some(&world, 1, SLOT_BYTES, MSG_DONTWAIT);
    }
    CU_ASSERT_EQUAL(world.bytes[1], expected);
    CU_ASSERT_EQUAL(counted(&world), 0);
    CU_ASSERT_EQUAL(ring_refresh(&world.producer[0]), 0);
    CU_ASSERT_EQUAL(streams_poll(world.stage, world.tx), -EAGAIN);
    while (counted(&world) < DEPTH && unit_seconds() < deadline) {
        world.bytes[0] = 0; /* what it was stuffed with */
        (void)read_some(&world, 0, SLOT_BYTES, MSG_DONTWAIT);
        (void)streams_poll(world.stage, world.tx);
    }
    CU_ASSERT_EQUAL(counted(&world), DEPTH);
    CU_ASSERT_EQUAL(ring_refresh(&world.producer[0]), DEPTH);
    unmake(&world);
}

static void test_patience(void)
{
    static const struct config_flush flush = {.count = 1};
    static struct world world;

    make(&world, &flush, 20000000);
    stuff(world.ours[2]);
    publish(&world, 0, 2);
    publish(&world, 0, 1);
    (void)streams_poll(world.stage, world.tx);
    streams_tick(world.stage, world.tx, tsc_read());
    CU_ASSERT_EQUAL(world.failures, 0);
    double deadline = unit_seconds() + 20;
    while (world.failures == 0 && unit_seconds() < deadline)
        streams_tick(world.stage, world.tx, tsc_read());
    CU_ASSERT_EQUAL(world.failed_with, 0);
    (void)streams_poll(world.stage, world.tx);
    CU_ASSERT_EQUAL(load_relaxed(&world.stage->cells->outcome[0][OUTCOME_DROPPED]), 1);
    CU_ASSERT_EQUAL(load_relaxed(&world.stage->cells->outcome[0][OUTCOME_TRANSMITTED]), 1);
    CU_ASSERT_EQUAL(
        load_relaxed(&world.stage->cells->streams.undelivered[CELL_UNDELIVERED_PATIENCE]), 1);
    unmake(&world);
}

static void test_failure(void)
{
    static const struct config_flush flush = {.count = 1};
    static struct world world;

    make(&world, &flush, 0);
    const struct linger reset = {1, 0};
    CU_ASSERT_EQUAL(setsockopt(world.theirs[0], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    close(world.theirs[0]);
    publish(&world, 1, 0);
    publish(&world, 1, UINT16_MAX); /* of nobody */
    publish(&world, 1, 1);
    poll_a_while(&world);
    CU_ASSERT_EQUAL(world.failures, 1);
    CU_ASSERT_EQUAL(world.failed_with, -ECONNRESET);
    CU_ASSERT_EQUAL(load_relaxed(&world.stage->cells->outcome[1][OUTCOME_DROPPED]), 2);
    CU_ASSERT_EQUAL(load_relaxed(&world.stage->cells->outcome[1][OUTCOME_TRANSMITTED]), 1);
    world.theirs[0] = -1;
    unmake(&world);
}

/* ---- words that cannot be ---- */

struct damage {
    const char *what;
    uint16_t place;
    uint8_t outcome;
    uint64_t sending;
    uint64_t base;
    const char *expected;
};

static int open_damaged(void *argument)
{
    static const struct config_flush flush = {.count = 100, .wait_ns = 1000000000};
    static struct world world;
    const struct damage *damage = argument;

    make(&world, &flush, 0);
    publish(&world, 0, 1);
    (void)streams_poll(world.stage, world.tx);
    const struct streams *streams = world.tx->own;
    struct stream_output *output = &streams->memory.output[0];
    store_relaxed(&output->place, damage->place);
    store_relaxed(&output->outcome, damage->outcome);
    store_relaxed(&world.stage->cells->sending[0], damage->sending);
    struct stream_record *record = &streams->memory.record[1];
    store_relaxed(&record->base, load_relaxed(&record->base) - damage->base);
    kill_tx(&world);
    open_tx(&world);
    return 0;
}

static void test_damaged(void)
{
    static struct damage damages[] = {
        {"nothing", 1, 0, 1, 0, ""},
        {"place", 3, 0, 1, 0, "place of an output: expected 2 (0x2), found 3 (0x3)"},
        {"nowhere", UINT16_MAX, 0, 1, 0, "place of an output: expected 2 (0x2), found 65535"},
        {"outcome", 1, 200, 1, 0, ", found 200 (0xc8)"},
        {"taken", 1, 0, 2, 0, "outputs taken: expected 1 (0x1), found 2 (0x2)"},
        {"written", 1, 0, 1, 5, "bytes written: expected 4 (0x4), found 5 (0x5)"},
    };
    char text[256];

    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        int status = unit_child(open_damaged, &damages[i], text, sizeof(text));
        CU_ASSERT_EQUAL(WIFSIGNALED(status) ? WTERMSIG(status) : 0, i == 0 ? 0 : SIGABRT);
        CU_ASSERT_PTR_NOT_NULL(strstr(text, damages[i].expected));
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"flush by count and by time", test_flush},
        {"one is stuck, the others go on", test_one_is_stuck},
        {"patience", test_patience},
        {"a connection that fails", test_failure},
        {"killed at each point", test_killed},
        {"and the successor, too", test_killed_twice},
        {"words that cannot be", test_damaged},
        CU_TEST_INFO_NULL,
    };
    CU_SuiteInfo suites[] = {{.pName = "stream", .pTests = tests}, CU_SUITE_INFO_NULL};

    crash_hook = no_point;
    return unit_run(suites);
}
