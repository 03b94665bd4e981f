/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How `tickline status` sees a running pipeline: it connects to the launcher's socket and is handed
 * the cells, the rings and the trace arena, open for reading only. Nothing is asked of the stages.
 */
#ifndef TICKLINE_LAUNCH_SERVE_H
#define TICKLINE_LAUNCH_SERVE_H

#include "launch/pipeline.h"

/* A socket at this path for its owner alone, or -errno. */
int serve_listen(const char *path);

/* Answers one caller that waits; never blocks. */
void serve_status(int listener, const struct pipeline *pipeline);

/* `tickline status`: prints every run of this host (JSON: an array). The exit status. */
int status_print(bool json);

/* `tickline clean`: removes what killed runs have left. The exit status. */
int status_clean(void);

#endif
