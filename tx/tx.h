/* SPDX-License-Identifier: Apache-2.0 */
/* The sending stage. */
#ifndef TICKLINE_TX_TX_H
#define TICKLINE_TX_TX_H

#include "stage/stage.h"

/* open() makes the stage's own state and leaves it in stage->self. */
extern const struct stage_ops tx_ops;

#endif
