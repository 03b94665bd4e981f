/* SPDX-License-Identifier: Apache-2.0 */
/* The processing stage. */
#ifndef TICKLINE_WORKER_WORKER_H
#define TICKLINE_WORKER_WORKER_H

#include "stage/stage.h"

/* open() makes the stage's own state and leaves it in stage->self. */
extern const struct stage_ops worker_ops;

#endif
