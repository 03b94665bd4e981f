/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/schema_own.h"

static const struct schema *const schemas[] = {
    [SCHEMA_V1] = &schema_v1,
    [SCHEMA_V2] = &schema_v2,
    [SCHEMA_V3] = &schema_v3,
    [SCHEMA_V4] = &schema_v4,
    [SCHEMA_FIX] = &schema_fix,
    [SCHEMA_IEX] = &schema_iex,
    [SCHEMA_DATAGRAM] = &schema_datagram,
};

const struct schema *schema_of(enum config_schema schema)
{
    return schemas[schema];
}
