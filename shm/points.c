/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/points.h"

const struct point_info point_list[] = {
#define POINT_INFO(name_, id_, stage_, span_, sentence_)                                           \
    {.name = #name_, .stage = (stage_), .span = (span_), .sentence = (sentence_), .id = (id_)},
    POINTS(POINT_INFO)
#undef POINT_INFO
};

const uint32_t point_count = sizeof(point_list) / sizeof(point_list[0]);

const char *const reason_name[REASON_COUNT] = {
#define REASON_NAME(name, sentence) #name,
    REASONS(REASON_NAME)
#undef REASON_NAME
};
