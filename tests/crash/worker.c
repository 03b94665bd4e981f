/* SPDX-License-Identifier: Apache-2.0 */
/* The real worker with a handler that remembers, between two rings: one output for each request, whatever
 * kind it is, every stamp that it made, and in each reply the sum of exactly the requests before. */
#include "worker/worker.h"

#include "shm/state.h"
#include "stage/control.h"
#include "tests/crash/campaign.h"
#include "tests/crash/recovered.h"

#include <endian.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum {
    REQUESTS = 60,
    DEPTH = 8,
    SLOT = 128,
    EPOCH = 7,
    ORDER = 24,
    LENGTH = 12 + ORDER,
    REPLY = 44
};
/* A book of one symbol and one level a side: worker/book.c says how it is laid out. */
enum { STATE_BYTES = 64 + 2 * (24 + 2 * 16) };

static const struct region_place anywhere = {.numa_node = -1};
static const char ini[] = "[pipeline]\nschema = v2\n[worker]\nhandler = book\nburst = 4\n"
                          "[memory]\nlock = no\n[handler.book]\nsymbols = 1\nlevels = 1\n";

static struct {
    uint64_t given;
    uint64_t got;
    uint64_t wrong;
    uint64_t sum; /* of the sizes of the orders answered */
} * seen;
static struct region cells_region;
static struct region in;
static struct region out;
static struct region state;
static struct region arena;
static struct lane lane;
static struct cell *cell;
static struct ring_producer source;
static struct ring_consumer sink;

static void make(void)
{
    const struct lane_plan plan = {"worker0", LANE_TRACE, 0, LANE_BYTES_MIN};
    struct region_mismatch mismatch;

    if (!seen)
        seen = campaign_shared(sizeof(*seen));
    memset(seen, 0, sizeof(*seen));
    CU_ASSERT_EQUAL_FATAL(cells_create(&cells_region, EPOCH, &anywhere), 0);
    CU_ASSERT_EQUAL_FATAL(ring_create(&in, "crash-in", DEPTH, SLOT, 0, EPOCH, &anywhere), 0);
    CU_ASSERT_EQUAL_FATAL(ring_create(&out, "crash-out", DEPTH, SLOT, 0, EPOCH, &anywhere), 0);
    CU_ASSERT_EQUAL_FATAL(state_create(&state, "crash-state", STATE_BYTES, EPOCH, &anywhere), 0);
    CU_ASSERT_EQUAL_FATAL(arena_create(&arena, &anywhere, &plan, 1, EPOCH), 0);
    CU_ASSERT_EQUAL_FATAL(lane_open(&lane, &arena, 0), 0);
    CU_ASSERT_EQUAL_FATAL(ring_producer_attach(&source, &in, &mismatch), 0);
    CU_ASSERT_EQUAL_FATAL(ring_consumer_attach(&sink, &out, &mismatch), 0);
    cell = &cells_of(&cells_region)->cell[CELL_WORKER];
    store_relaxed(&cell->generation, 1);
    CU_ASSERT_EQUAL_FATAL(cell_move(cell, CELL_STARTING, CELL_BY_LAUNCHER), 0);
}

static void unmake(void)
{
    region_close(&cells_region);
    region_close(&in);
    region_close(&out);
    region_close(&state);
    region_close(&arena);
}

/* ---- the child: as the launcher starts it ---- */

static int control_end(void)
{
    const struct control_message start = {.type = CONTROL_START, .value = EPOCH};
    int config = memfd_create("crash-config", MFD_CLOEXEC);
    int ends[2];

    if (config < 0 || write(config, ini, sizeof(ini) - 1) != (ssize_t)sizeof(ini) - 1 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -1;
    const struct {
        const char *name;
        int fd;
    } gifts[] = {{"cells", cells_region.fd}, {"arena", arena.fd},   {"config", config},
                 {"to_worker.0", in.fd},     {"state.0", state.fd}, {"to_tx.0", out.fd}};
    for (size_t i = 0; i < sizeof(gifts) / sizeof(gifts[0]); i++) {
        struct control_message message = {.type = CONTROL_GIVE};
        strncpy(message.name, gifts[i].name, sizeof(message.name) - 1);
        if (control_send(ends[0], &message, gifts[i].fd) < 0)
            return -1;
    }
    return control_send(ends[0], &start, -1) < 0 ? -1 : ends[1];
}

static int live(void)
{
    static struct stage stage;
    char control[16];
    char cpu[16];

    snprintf(control, sizeof(control), "%d", control_end());
    snprintf(cpu, sizeof(cpu), "%d", unit_cpu(0));
    char *argv[] = {"worker", "--name",    "worker0", "--cell", "3",     "--worker",
                    "0",      "--control", control,   "--cpu",  cpu,     "--upstream-cpu",
                    cpu,      "--wait",    "spin",    "--hz",   "2.6e9", NULL};
    if (stage_prepare(&stage, sizeof(argv) / sizeof(argv[0]) - 1, argv, &worker_ops, NULL) < 0) {
        fprintf(stderr, "worker: %s\n", stage.error);
        return 1;
    }
    for (;;) {
        bool all = *(volatile uint64_t *)&seen->given == REQUESTS;
        int moved = worker_ops.poll(&stage);
        if (moved == 0 && all)
            break;
        if (moved <= 0)
            sched_yield();
    }
    trace_close(&stage.trace);
    worker_ops.close(&stage);
    return 0;
}

/* ---- the parent: rx and tx ---- */

static bool is_malformed(uint64_t number)
{
    return number % 5 == 4;
}

/* An order of its own size each, all to the same level. */
static uint32_t size_of(uint64_t number)
{
    return (uint32_t)(number * number % 97 + 1);
}

static void feed(void)
{
    struct ring_slot *slot;

    while (seen->given < REQUESTS && (slot = ring_claim(&source)) != NULL) {
        uint64_t number = seen->given;
        const uint64_t id = htobe64(number), price = htobe64(100);
        const uint32_t length = htobe32(ORDER), size = htobe32(size_of(number));
        uint8_t *at = slot->payload;
        slot->request = number + 1000;
        slot->kind = RING_REQUEST;
        slot->length = is_malformed(number) ? 3 : LENGTH;
        memset(at, 0, LENGTH);
        memcpy(at, &id, 8);
        memcpy(at + 8, &length, 4);
        at[12] = 'a';
        at[13] = 'B';
        memcpy(at + 16, &size, 4);
        memcpy(at + 20, &price, 8);
        memcpy(at + 28, "ABC", 4);
        ring_publish(&source);
        seen->given++;
    }
}

static bool is_answer(const struct ring_slot *slot, uint64_t number)
{
    bool right = slot->source == number && slot->request == number + 1000 && slot->parts == 1;
    uint64_t id;
    uint32_t size;

    if (is_malformed(number))
        return right && slot->kind == RING_REJECTED;
    seen->sum += size_of(number);
    memcpy(&id, slot->payload, 8);
    memcpy(&size, slot->payload + 28, 4);
    return right && slot->kind == RING_REPLY && slot->length == REPLY && be64toh(id) == number &&
           be32toh(size) == seen->sum;
}

static void feed_and_drain(void)
{
    const struct ring_slot *slot;

    feed();
    while ((slot = ring_peek(&sink)) != NULL) {
        seen->wrong += !is_answer(slot, seen->got++);
        ring_next(&sink);
        ring_commit(&sink);
    }
}

static void died(void)
{
    check_recovered(&lane);
    CU_ASSERT_EQUAL(cell_move(cell, CELL_DEAD, CELL_BY_LAUNCHER), 0);
    CU_ASSERT_EQUAL(cell_move(cell, CELL_STARTING, CELL_BY_LAUNCHER), 0);
    store_relaxed(&cell->generation, load_relaxed(&cell->generation) + 1);
}

static void check(void)
{
    struct ring_positions positions;

    CU_ASSERT_EQUAL(seen->wrong, 0);
    CU_ASSERT_EQUAL(seen->got, REQUESTS);
    CU_ASSERT_EQUAL(ring_positions(&out, &positions), 0);
    CU_ASSERT_EQUAL(positions.published, REQUESTS);
    CU_ASSERT_EQUAL(ring_positions(&in, &positions), 0);
    CU_ASSERT_EQUAL(positions.consumed, REQUESTS);
    check_lane_whole(&lane);
}

static const char *const worker_labels[] = {
    "worker:got",           "worker:made",         "worker:put",
    "worker:burst_done",    "ring:resumed",        "ring:claimed",
    "ring:before_publish",  "ring:word_published", "ring:after_publish",
    "ring:peeked",          "ring:before_commit",  "ring:after_commit",
    "cell:before_move",     "cell:after_move",     "lane:attached",
    "lane:abandoned_found", "lane:record_words",   "lane:record_done",
    "lane:close_sealed",    "lane:closed",         "state:before_begin",
    "state:begun",          "state:before_copy",   "state:copied",
    "state:settling",       "state:recovered",     NULL,
};

/* The first of them is killed with a change of the state that nobody has seen. */
static const char *const undo_labels[] = {
    "state:undoing", "state:undone", "state:recovered", "state:begun", "state:copied", NULL,
};

const struct crash_role crash_worker = {
    .name = "worker",
    .labels = worker_labels,
    .first_label = "worker:put",
    .first_pass = 19,
    .make = make,
    .live = live,
    .partner = feed_and_drain,
    .died = died,
    .check = check,
    .unmake = unmake,
};

const struct crash_role crash_worker_undo = {
    .name = "worker, undoing",
    .labels = undo_labels,
    .first_label = "worker:made",
    .first_pass = 19,
    .make = make,
    .live = live,
    .partner = feed_and_drain,
    .died = died,
    .check = check,
    .unmake = unmake,
};
