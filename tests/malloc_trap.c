/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a stage by a test: counts its allocations in a file of eight bytes,
 * $TICKLINE_MALLOC_TRAP/PID, which the test reads while the stage runs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static _Atomic uint64_t early;
static _Atomic uint64_t *counter = &early;

__attribute__((constructor)) static void open_counter(void)
{
    const char *folder = getenv("TICKLINE_MALLOC_TRAP");
    char path[512];

    if (!folder)
        return;
    snprintf(path, sizeof(path), "%s/%d", folder, getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(uint64_t)) < 0)
        return;
    void *map = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) {
        counter = map;
        atomic_fetch_add(counter, atomic_load(&early));
    }
    close(fd);
}

void *malloc(size_t size)
{
    atomic_fetch_add(counter, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add(counter, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    atomic_fetch_add(counter, 1);
    return __libc_realloc(old, size);
}
