/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/line.h"

#include "tests/model/checks.h"

#include <stdlib.h>
#include <string.h>

enum { SLOT_BYTES = 64 };

struct line line;

static void ended_all(void)
{
    struct account account = {.issued = load_relaxed(&line.cells->cell[CELL_RX].issued)};

    for (uint32_t i = 0; i < line.setup->workers; i++) {
        account.dropped += load_relaxed(&line.cells->dropped[i]);
        (void)ring_positions(&line.to_worker[i], &account.to_worker[i]);
        (void)ring_positions(&line.to_tx[i], &account.to_tx[i]);
        account.counted[i] = cells_counted(line.cells, i);
    }
    check_end(&account);
}

static void add(struct explore_model *model, void *at, size_t bytes)
{
    model->part[model->parts++] = (struct explore_memory){at, bytes};
}

static void add_ring(struct explore_model *model, struct region *ring, const char *name)
{
    const struct region_place place = {.numa_node = -1};

    if (ring_create(ring, name, line.setup->depth, SLOT_BYTES, UINT64_MAX, 1, &place) < 0)
        abort();
    struct ring_control *control = region_at(ring, RING_CONTROL_OFFSET);
    add(model, &control->tail, sizeof(control->tail));
    add(model, &control->seen, sizeof(control->seen));
    add(model, region_at(ring, RING_SLOTS_OFFSET), (size_t)line.setup->depth * SLOT_BYTES);
}

void explore_pipeline(const struct setup *what, struct explore_result *result)
{
    static struct cells shared;
    struct explore_model model = {.roles = what->workers + 2,
                                  .kills = what->kills,
                                  .no_short_cuts = what->no_short_cuts,
                                  .name = {"rx", "worker0", "worker1", "worker1"},
                                  .run = role_run,
                                  .quiet = role_quiet,
                                  .ended = ended_all};

    line.setup = what;
    line.cells = &shared;
    memset(&shared, 0, sizeof(shared));
    memset(&line.ended, 0, sizeof(line.ended));
    model.name[line.setup->workers + 1] = "tx";
    check_begin(what, &model);
    for (uint32_t i = 0; i < line.setup->workers; i++) {
        add_ring(&model, &line.to_worker[i], "model-to_worker");
        add_ring(&model, &line.to_tx[i], "model-to_tx");
        add(&model, &line.cells->outcome[i], sizeof(line.cells->outcome[i]));
    }
    add(&model, &line.cells->cell[CELL_RX].issued, sizeof(uint64_t));
    add(&model, line.cells->dropped, sizeof(uint64_t) * MODEL_WORKERS_MAX);
    add(&model, &line.ended, sizeof(line.ended));
    for (uint32_t i = 0; i < model.roles; i++)
        model.private_of[i] = (struct explore_memory){&line.memory[i], sizeof(line.memory[i])};
    explore(&model, result);
    for (uint32_t i = 0; i < line.setup->workers; i++) {
        region_close(&line.to_worker[i]);
        region_close(&line.to_tx[i]);
    }
}
