/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/stream_memory.h"

#include <errno.h>
#include <string.h>

enum { RECORDS_OFFSET = PAGE_BYTES };

static size_t outputs_offset(void)
{
    return RECORDS_OFFSET + STREAMS_MAX * sizeof(struct stream_record);
}

int stream_memory_open(struct stage *stage, const struct tx *tx, struct stream_memory *memory,
                       int fd)
{
    const uint64_t parts[] = {
        sizeof(struct stream_record),
        offsetof(struct stream_record, up),
        sizeof(struct stream_output),
        offsetof(struct stream_output, outcome),
    };
    const uint64_t depth = (uint64_t)tx->from[0].mask + 1;
    const size_t bytes = outputs_offset() + tx->rings * depth * sizeof(struct stream_output);
    const struct region_want want = {
        .kind = REGION_STREAMS,
        .layout = region_hash(parts, sizeof(parts) / sizeof(parts[0])),
        .epoch = stage->arena.header->epoch,
        .geometry = {tx->rings, depth, 0, 0},
        .size_min = bytes,
    };
    const struct region_place place = {.numa_node = -1};
    struct region_mismatch mismatch = {0};
    struct region *region = &memory->region;

    int err = fd >= 0 ? region_attach(region, fd, &want, true, &mismatch)
                      : region_create(region, "tickline-streams", &want, &place, bytes);
    if (err == 0 && fd < 0)
        err = stage_deposit(stage, "tx.streams", region->fd);
    if (err < 0)
        return stage_error(stage, err, "table of outputs: %s%s%s", strerror(-err),
                           mismatch.field ? ": " : "", mismatch.field ? mismatch.field : "");
    memory->record = region_at(region, RECORDS_OFFSET);
    memory->output = region_at(region, outputs_offset());
    memory->shift = (uint32_t)__builtin_ctzll(depth);
    return 0;
}
