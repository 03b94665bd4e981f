/* SPDX-License-Identifier: Apache-2.0 */
/* What must be true of the model's pipeline, whoever was killed (roles.h says it in words). */
#ifndef TICKLINE_TESTS_MODEL_CHECKS_H
#define TICKLINE_TESTS_MODEL_CHECKS_H

#include "shm/ring.h"
#include "tests/model/roles.h"

struct account {
    uint64_t issued;
    uint64_t dropped;
    struct ring_positions to_worker[MODEL_WORKERS_MAX];
    struct ring_positions to_tx[MODEL_WORKERS_MAX];
    uint64_t counted[MODEL_WORKERS_MAX]; /* outcomes of each worker's outputs */
};

/* What has been seen so far is part of the state: it is added to the model. */
void check_begin(const struct setup *setup, struct explore_model *model);

/* What an input must become. */
uint8_t check_kind(uint64_t input);
uint8_t check_parts(uint64_t input);

void check_given(uint64_t input, uint64_t number);
void check_dropped(uint64_t input);

/* The output at a position counted from the ring's start is sent, or completed without. */
void check_output(uint64_t ring, uint64_t position, const struct ring_slot *slot, uint64_t counted);

void check_end(const struct account *account);

#endif
