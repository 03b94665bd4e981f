/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the schemas: each file's one schema, for the table in schema.c. */
#ifndef TICKLINE_WORKER_SCHEMA_OWN_H
#define TICKLINE_WORKER_SCHEMA_OWN_H

#include "worker/schema.h"

#include <stdbool.h>

extern const struct schema schema_v1;
extern const struct schema schema_v2;
extern const struct schema schema_v3;
extern const struct schema schema_v4;
extern const struct schema schema_fix;
extern const struct schema schema_iex;
extern const struct schema schema_datagram;

static inline int schema_reject(enum reason reason)
{
    return -1 - (int)reason;
}

#endif
