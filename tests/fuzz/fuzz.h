/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share. A target is one file, tests/fuzz/NAME.c, with the function
 * LLVMFuzzerTestOneInput; what it links beside shm/ and stage/ is named in the Makefile. Its seeds and
 * everything that was ever found stand in corpus/NAME/, words worth trying in NAME.dict.
 *
 * A finding is a report of the sanitizers, a time-out, or fuzz_require(). Where shared memory holds what must
 * not be there the code under test may stop by region_corrupt(); that is an answer, and fuzz_stops() returns.
 */
#ifndef TICKLINE_TESTS_FUZZ_H
#define TICKLINE_TESTS_FUZZ_H

#include "shm/region.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { FUZZ_DESCRIPTORS = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that must hold for every input: says which one and aborts. */
#define fuzz_require(property)                                                                     \
    do {                                                                                           \
        if (!(property)) {                                                                         \
            fuzz_say(__FILE__, __LINE__, #property);                                               \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
void fuzz_say(const char *file, int line, const char *property);

/* What is left of the input. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

/* The next `bytes` (1 to 8) as a little-endian number; zeros where the input has ended. */
uint64_t fuzz_number(struct fuzz_input *input, unsigned bytes);

/*
 * Shared memory that somebody has written into: takes the rest of the input as patches, u16 which word of
 * eight bytes and u64 what to store there, and applies them to the `size` bytes at `base`.
 */
void fuzz_patch(struct fuzz_input *input, void *base, size_t size);

/* Pages that begin and end at memory that cannot be touched. Kept for ever. */
void *fuzz_pages(size_t size);

/* Calls act(context); true where it ended in region_corrupt(). */
bool fuzz_stops(void (*act)(void *context), void *context);

/* Which descriptors are open; later, closes those that are new and says how many these were. */
struct fuzz_open {
    bool fd[FUZZ_DESCRIPTORS];
};
void fuzz_note_open(struct fuzz_open *open);
int fuzz_close_new(const struct fuzz_open *open);

/* An empty folder of this process in TMPDIR, open; removed at its end. */
int fuzz_folder(char path[64]);

/* Removes the files in an open folder. */
void fuzz_sweep(int folder);

#endif
