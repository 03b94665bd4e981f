/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving stage. */
#ifndef TICKLINE_RX_RX_H
#define TICKLINE_RX_RX_H

#include "stage/stage.h"

/* open() makes the stage's own state and leaves it in stage->self. */
extern const struct stage_ops rx_ops;

#endif
