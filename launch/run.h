/* SPDX-License-Identifier: Apache-2.0 */
/* `tickline run`: one run from start to account. */
#ifndef TICKLINE_LAUNCH_RUN_H
#define TICKLINE_LAUNCH_RUN_H

#include "launch/handler.h"
#include "launch/placement.h"
#include "stage/clock.h"

struct run_options {
    const char *run_directory; /* created where missing */
    const char *start_order;   /* NULL: consumers first */
    const struct handler_facts *handler;
    bool json; /* commands on stdin, answers on stdout, a line each */
};

/* Runs until told to end. The exit status. */
int run_pipeline(const struct config *config, const struct placement *placement,
                 const struct run_options *options);

#endif
