/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static jmp_buf stopped;
static bool stoppable;
static char folder_path[64];

void fuzz_say(const char *file, int line, const char *property)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, property);
}

uint64_t fuzz_number(struct fuzz_input *input, unsigned bytes)
{
    uint64_t value = 0;
    size_t taken = bytes < input->left ? bytes : input->left;

    if (taken == 0)
        return 0;
    memcpy(&value, input->at, taken);
    input->at += taken;
    input->left -= taken;
    return value;
}

void fuzz_patch(struct fuzz_input *input, void *base, size_t size)
{
    while (input->left) {
        size_t word = fuzz_number(input, 2) % (size / 8);
        uint64_t value = fuzz_number(input, 8);
        memcpy((uint8_t *)base + 8 * word, &value, sizeof(value));
    }
}

void *fuzz_pages(size_t size)
{
    uint8_t *room =
        mmap(NULL, size + (size_t)2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    fuzz_require(room != MAP_FAILED && size % PAGE_BYTES == 0);
    fuzz_require(mprotect(room + PAGE_BYTES, size, PROT_READ | PROT_WRITE) == 0);
    return room + PAGE_BYTES;
}

/* The linker puts it in place of region_corrupt (--wrap). */
_Noreturn void __wrap_region_corrupt(const char *what, uint64_t expected, uint64_t found);
_Noreturn void __wrap_region_corrupt(const char *what, uint64_t expected, uint64_t found)
{
    (void)expected;
    (void)found;
    if (!stoppable) {
        fprintf(stderr, "region_corrupt where nothing is to stop: %s\n", what);
        abort();
    }
    longjmp(stopped, 1);
}

bool fuzz_stops(void (*act)(void *context), void *context)
{
    stoppable = true;
    if (setjmp(stopped) == 0)
        act(context);
    else
        stoppable = false;
    bool stops = !stoppable;
    stoppable = false;
    return stops;
}

void fuzz_note_open(struct fuzz_open *open)
{
    for (int fd = 0; fd < FUZZ_DESCRIPTORS; fd++)
        open->fd[fd] = fcntl(fd, F_GETFD) >= 0;
}

int fuzz_close_new(const struct fuzz_open *open)
{
    int closed = 0;

    for (int fd = 0; fd < FUZZ_DESCRIPTORS; fd++)
        closed += !open->fd[fd] && close(fd) == 0;
    return closed;
}

static void remove_folder(void)
{
    rmdir(folder_path);
}

int fuzz_folder(char path[64])
{
    const char *above = getenv("TMPDIR");

    snprintf(path, 64, "%s/fuzz-XXXXXX", above ? above : "/tmp");
    fuzz_require(mkdtemp(path));
    memcpy(folder_path, path, sizeof(folder_path));
    atexit(remove_folder);
    return open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
}

void fuzz_sweep(int folder)
{
    DIR *entries = fdopendir(openat(folder, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC));
    struct dirent *entry;

    while (entries && (entry = readdir(entries)) != NULL)
        (void)unlinkat(folder, entry->d_name, 0);
    if (entries)
        closedir(entries);
}
