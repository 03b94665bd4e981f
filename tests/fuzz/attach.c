/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stage is given at its start: descriptors by name over the control socket, and behind them regions into
 * which somebody has written. The input: u8 which region is written into (cells, arena, ring), u8 how many pages it
 * has less; u8 how many messages, each of u8 type, u8 name, u8 descriptor; then patches (fuzz.h).
 */
#include "stage/control.h"
#include "stage/stage.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CELLS, ARENA, RING, REGIONS, CONFIG = REGIONS, DESCRIPTORS };

static const char *const names[] = {"cells", "arena", "to_worker.0", "config", "to_tx.0", "other"};

struct work {
    struct fuzz_input input;
    int control;
    int fd[DESCRIPTORS];
    struct stage stage;
};

/* ---- what is handed over ---- */

/* A copy of the region in a file that is not sealed, fewer pages of it. */
static int damaged(const struct region *region, uint32_t pages_less, struct fuzz_input patches)
{
    static uint8_t copy[1 << 19];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    size_t less = (size_t)pages_less * PAGE_BYTES;
    size_t size = less < region->size ? region->size - less : 0;

    fuzz_require(fd >= 0 && region->size <= sizeof(copy));
    memcpy(copy, region->header, region->size);
    if (size)
        memcpy(copy + offsetof(struct region_header, size), &size, sizeof(size));
    fuzz_patch(&patches, copy, region->size);
    fuzz_require(write(fd, copy, size) == (ssize_t)size);
    return fd;
}

static void make_regions(struct region region[REGIONS])
{
    const struct region_place place = {.numa_node = -1};
    const struct lane_plan plan = {"rx", LANE_TRACE, 0, LANE_BYTES_MIN};

    fuzz_require(cells_create(&region[CELLS], 1, &place) == 0);
    fuzz_require(arena_create(&region[ARENA], &place, &plan, 1, 1) == 0);
    fuzz_require(ring_create(&region[RING], "ring", 4, 128, 0, 1, &place) == 0);
    cells_of(&region[CELLS])->cell[CELL_RX].state = CELL_STARTING;
}

static void make_descriptors(struct work *work)
{
    static struct region region[REGIONS];
    static const char text[] = "[memory]\nlock = no\n";
    uint32_t which = (uint32_t)fuzz_number(&work->input, 1) % REGIONS;
    uint32_t less = (uint32_t)fuzz_number(&work->input, 1);
    struct fuzz_input patches = work->input;
    const struct fuzz_input none = {(const uint8_t *)"", 0};

    if (!region[0].header)
        make_regions(region);
    size_t messages = 1 + 3 * (size_t)(patches.left ? patches.at[0] % 8 : 0);
    patches.at += messages < patches.left ? messages : patches.left;
    patches.left -= messages < patches.left ? messages : patches.left;
    for (uint32_t i = 0; i < REGIONS; i++)
        work->fd[i] = damaged(&region[i], i == which ? less : 0, i == which ? patches : none);
    work->fd[CONFIG] = memfd_create("config", MFD_CLOEXEC);
    fuzz_require(write(work->fd[CONFIG], text, sizeof(text) - 1) == sizeof(text) - 1);
}

static void send_messages(struct work *work, int socket)
{
    uint32_t count = (uint32_t)fuzz_number(&work->input, 1) % 8;

    for (uint32_t i = 0; i < count; i++) {
        struct control_message message = {.value = 1};
        uint32_t type = (uint32_t)fuzz_number(&work->input, 1);
        uint32_t name = (uint32_t)fuzz_number(&work->input, 1);
        uint32_t fd = (uint32_t)fuzz_number(&work->input, 1);
        message.type = type % 8;
        if (name == 0xff)
            memset(message.name, 'x', sizeof(message.name));
        else
            strcpy(message.name, names[name % (sizeof(names) / sizeof(names[0]))]);
        (void)control_send(socket, &message, fd < DESCRIPTORS ? work->fd[fd] : -1);
    }
}

/* ---- the stage ---- */

static void unmap_ring(void *slots, int fd)
{
    struct stat st;

    if (fstat(fd, &st) == 0)
        munmap((uint8_t *)slots - RING_SLOTS_OFFSET, (size_t)st.st_size);
}

/* Touches what was attached, to its last byte. */
static int look(struct stage *stage)
{
    uint64_t sum = 0;
    struct ring_consumer in;
    struct ring_producer out;
    struct lane lane;

    for (uint32_t i = 0; i < CELL_WORKERS_MAX; i++)
        sum += cells_counted(stage->cells, i);
    for (uint32_t i = 0; lane_open(&lane, &stage->arena, i) == 0; i++)
        sum += *(lane_payload(&lane, LANE_SUBBUFFERS - 1) + lane_payload_bytes(&lane) - 1);
    if (stage_consumer(stage, &in, "to_worker.%u", 0) == 0) {
        sum += *(in.slots + ((size_t)in.mask + 1) * in.slot_bytes - 1);
        unmap_ring(in.slots, stage_descriptor(stage, "to_worker.0"));
        munmap(in.control, PAGE_BYTES); /* what is written has a mapping of its own */
    }
    if (stage_producer(stage, &out, "to_tx.%u", 0) == 0) {
        sum += *(out.slots + ((size_t)out.mask + 1) * out.slot_bytes - 1);
        unmap_ring(out.slots, stage_descriptor(stage, "to_tx.0"));
    }
    if (stage->trace.lane.control)
        munmap(stage->trace.lane.control, stage->trace.lane.entry->bytes);
    return sum == 1 ? -ECANCELED : -1; /* it is read */
}

static void act(void *context)
{
    static const struct stage_ops ops = {.open = look};
    struct work *work = context;
    char number[16];
    char *arguments[] = {"rx",        "--name", "rx",   "--cell", "0",
                         "--control", number,   "--hz", "1e9",    NULL};

    snprintf(number, sizeof(number), "%d", work->control);
    fuzz_require(stage_prepare(&work->stage, 9, arguments, &ops, NULL) < 0);
    fuzz_require(work->stage.error[0]);
}

/* A stage that does not start leaves the rest to the end of its process. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct work work;
    struct fuzz_open open;
    int ends[2];

    work = (struct work){.input = {data, size}};
    static bool begun;
    if (!begun) {
        struct work first = {.input = {(const uint8_t *)"", 0}};
        make_descriptors(&first); /* the regions stay open */
        for (int i = 0; i < DESCRIPTORS; i++)
            close(first.fd[i]);
        begun = true;
    }
    fuzz_note_open(&open);
    fuzz_require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    make_descriptors(&work);
    work.control = ends[0];
    send_messages(&work, ends[1]);
    close(ends[1]);
    (void)fuzz_stops(act, &work);
    if (work.stage.cells_region.header)
        munmap(work.stage.cells_region.header, work.stage.cells_region.size);
    if (work.stage.arena.header)
        munmap(work.stage.arena.header, work.stage.arena.size);
    config_free(&work.stage.config);
    free(work.stage.descriptors);
    (void)fuzz_close_new(&open);
    return 0;
}
