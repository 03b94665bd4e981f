/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks of a bounded history: files called LANE.NNNNNNNNNNNN by the sub-buffer that they begin with. So
 * their names alone say in which order they are, and where in its lane each of them stands.
 *
 * Functions return 0 or -errno. `folder` is an open directory.
 */
#ifndef TICKLINE_TRACER_CHUNK_H
#define TICKLINE_TRACER_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHUNKS_MAX = 33, CHUNK_NAME_BYTES = 64 };

/* The newest chunks of a lane, ascending. */
struct chunks {
    uint32_t count;
    uint64_t first[CHUNKS_MAX];
};

void chunk_name(const char *lane, uint64_t first, char name[CHUNK_NAME_BYTES]);

/* Is this the name of a chunk, and with which sub-buffer does it begin? `stem`: length of the lane's
 * name in it. */
bool chunk_parse(const char *name, size_t *stem, uint64_t *first);

/* `lane` NULL: of any lane. */
int chunk_list(int folder, const char *lane, struct chunks *chunks);

/*
 * The chunks of a plain lane become the one array LANE.bin that readers expect, and go. What of it was
 * joined before is kept: whoever is killed here has a successor that ends it.
 */
int chunk_join_plain(int folder, const char *lane);

#endif
