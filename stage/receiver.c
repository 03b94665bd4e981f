/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/crash.h"
#include "stage/receiver_memory.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Multiplied and folded (Fibonacci hashing). */
uint16_t source_of(const void *name, size_t length)
{
    uint32_t words[NAME_BYTES / 4] = {0};
    uint64_t hash = 0;

    memcpy(words, name, length < sizeof(words) ? length : sizeof(words));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
    return (uint16_t)(hash >> 48);
}

/* ---- what outlives the process ---- */

static size_t page_up(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~((size_t)PAGE_BYTES - 1);
}

/* Of journal, messages and buffers in the region. */
static size_t journal_bytes(const struct receiver *receiver)
{
    return page_up(sizeof(struct receiver_journal) +
                   (receiver->buffers + RECEIVER_SOCKETS_MAX) * sizeof(struct receiver_order));
}

static size_t messages_bytes(const struct receiver *receiver)
{
    return receiver->uring ? 0 : page_up(receiver->burst * sizeof(struct mmsghdr));
}

static size_t parts_bytes(const struct receiver *receiver)
{
    return PAGE_BYTES + journal_bytes(receiver) + messages_bytes(receiver);
}

static void find_parts(struct receiver *receiver)
{
    receiver->journal = region_at(&receiver->region, PAGE_BYTES);
    receiver->messages = region_at(&receiver->region, PAGE_BYTES + journal_bytes(receiver));
    receiver->memory = region_at(&receiver->region, parts_bytes(receiver));
}

static struct region_want memory_want(const struct receiver *receiver, uint64_t epoch)
{
    const uint64_t parts[] = {
        sizeof(struct receiver_journal),
        sizeof(struct receiver_order),
        sizeof(struct mmsghdr),
        sizeof(struct io_uring_recvmsg_out),
        BUFFER_BYTES,
    };
    return (struct region_want){
        .kind = REGION_RECEIVED,
        .layout = region_hash(parts, sizeof(parts) / sizeof(parts[0])),
        .epoch = epoch,
        .geometry = {receiver->buffers, receiver->burst, receiver->uring, receiver->sources},
    };
}

static int open_memory(struct receiver *receiver, const struct receiver_plan *plan)
{
    const struct region_want want = memory_want(receiver, plan->epoch);
    const struct region_place place = {.numa_node = -1, .huge = plan->huge};
    struct region_mismatch mismatch;
    size_t bytes = parts_bytes(receiver) + (size_t)receiver->buffers * BUFFER_BYTES;

    int err = plan->memory >= 0
                  ? region_attach(&receiver->region, plan->memory, &want, true, &mismatch)
                  : region_create(&receiver->region, "tickline-received", &want, &place, bytes);
    if (err == 0)
        find_parts(receiver);
    return err;
}

void receiver_spend(struct receiver *receiver, uint64_t tag, void (*clear)(struct receiver *))
{
    struct receiver_journal *journal = receiver->journal;
    uint64_t number = batch_number(receiver);
    const struct receiver_mark *mark = &journal->mark[number % 2];

    journal->mark[(number + 1) % 2] = (struct receiver_mark){
        .tag = tag,
        .datagrams = mark->datagrams + receiver->held,
        .bytes = mark->bytes + receiver->held_bytes,
    };
    crash_point("receiver:marked");
    enter_phase(receiver, number, RECEIVER_SPENT);
    crash_point("receiver:spent");
    clear(receiver);
    crash_point("receiver:cleared");
    enter_phase(receiver, number + 1, RECEIVER_TAKING);
    crash_point("receiver:taking");
    receiver->held = 0;
    receiver->held_bytes = 0;
}

int receiver_memory(const struct receiver *receiver)
{
    return receiver->region.fd;
}

uint32_t receiver_recover(struct receiver *receiver, struct receiver_mark *mark,
                          struct received **batch)
{
    *batch = receiver->batch;
    *mark = receiver->journal->mark[batch_number(receiver) % 2];
    return receiver->held;
}

/* ---- life ---- */

int receiver_taken(int memory, uint64_t *datagrams)
{
    struct receiver dead = {0};
    struct region_mismatch mismatch;
    struct region_want want = memory_want(&dead, 0);

    want.any_geometry = true;
    int err = region_attach(&dead.region, memory, &want, false, &mismatch);
    if (err < 0)
        return err;
    const uint64_t *geometry = dead.region.header->geometry;
    dead.buffers = (uint32_t)geometry[0];
    dead.burst = (uint32_t)geometry[1];
    dead.uring = geometry[2];
    find_parts(&dead);
    uint64_t batch = load_acquire(&dead.journal->batch);
    uint64_t next = batch % RECEIVER_PHASES == RECEIVER_SPENT;
    *datagrams = dead.journal->mark[(batch / RECEIVER_PHASES + next) % 2].datagrams;
    for (uint32_t i = 0; !next && i < dead.buffers; i++)
        *datagrams += (dead.uring ? uring_length(&dead, i) : dead.messages[i].msg_len) != UNTAKEN;
    munmap(dead.region.header, dead.region.size);
    return 0;
}

int receiver_open(struct receiver **result, const struct receiver_plan *plan)
{
    struct receiver *receiver = calloc(1, sizeof(*receiver));

    if (!receiver)
        return -ENOMEM;
    receiver->region.fd = receiver->epoll = receiver->ring.ring_fd = -1;
    receiver->uring = plan->uring;
    receiver->sources = plan->sources;
    receiver->sockets = plan->count;
    receiver->burst = plan->burst;
    receiver->buffers = plan->uring ? plan->buffers : plan->burst;
    memcpy(receiver->socket, plan->sockets, plan->count * sizeof(*plan->sockets));
    /* A predecessor's batch may be all there is. */
    receiver->batch = calloc(receiver->buffers + plan->burst, sizeof(*receiver->batch));
    int err = receiver->batch ? open_memory(receiver, plan) : -ENOMEM;
    if (err == 0)
        err = plan->uring ? uring_open(receiver) : plain_open(receiver);
    if (err < 0) {
        receiver_close(receiver);
        return err;
    }
    *result = receiver;
    return 0;
}

int receiver_poll(struct receiver *receiver, uint64_t tag, struct received **batch)
{
    *batch = receiver->batch;
    return receiver->uring ? uring_poll(receiver, tag) : plain_poll(receiver, tag);
}

void receiver_park(struct receiver *receiver, uint64_t ns)
{
    const struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000ULL),
                                     .tv_nsec = (long)(ns % 1000000000ULL)};
    struct pollfd fds[RECEIVER_SOCKETS_MAX];
    nfds_t count = receiver->sockets;

    if (receiver->uring) {
        struct __kernel_timespec limit = {.tv_sec = timeout.tv_sec, .tv_nsec = timeout.tv_nsec};
        struct io_uring_cqe *cqe;
        (void)io_uring_wait_cqe_timeout(&receiver->ring, &cqe, &limit);
        return;
    }
    for (nfds_t i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = receiver->socket[i], .events = POLLIN};
    (void)ppoll(fds, count, &timeout, NULL);
}

void receiver_close(struct receiver *receiver)
{
    if (receiver->ring.ring_fd >= 0)
        io_uring_queue_exit(&receiver->ring);
    if (receiver->buf_ring)
        munmap(receiver->buf_ring, receiver->buffers * sizeof(struct io_uring_buf));
    if (receiver->epoll >= 0)
        close(receiver->epoll);
    region_close(&receiver->region);
    free(receiver->iovs);
    free(receiver->batch);
    free(receiver);
}
