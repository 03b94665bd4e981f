/* SPDX-License-Identifier: Apache-2.0 */
/* A run file, as a killed launcher or somebody else has left it. */
#include "launch/runfile.h"
#include "tests/fuzz/fuzz.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void check_text(const char *text)
{
    fuzz_require(strnlen(text, RUNFILE_PATH_MAX) < RUNFILE_PATH_MAX);
    for (; *text; text++)
        fuzz_require(!iscntrl((unsigned char)*text));
}

/* `tickline clean` removes what it names: nothing but an arena and a socket of ours. */
static void check_removable(const struct runfile *runfile, const char *folder)
{
    static const char arena[] = "/dev/shm/tickline-";

    if (runfile->arena[0]) {
        fuzz_require(strncmp(runfile->arena, arena, sizeof(arena) - 1) == 0);
        fuzz_require(!strchr(runfile->arena + sizeof(arena) - 1, '/'));
    }
    if (runfile->socket[0]) {
        fuzz_require(strncmp(runfile->socket, folder, strlen(folder)) == 0);
        fuzz_require(strrchr(runfile->socket, '/') == runfile->socket + strlen(folder));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char folder[64];
    static char path[96];
    struct runfile runfile;

    if (!path[0]) {
        close(fuzz_folder(folder));
        snprintf(path, sizeof(path), "%s/fuzz.1.json", folder);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fuzz_require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
    if (runfile_load(&runfile, path) == 0) {
        fuzz_require(strcmp(runfile.path, path) == 0 && !runfile.alive);
        fuzz_require(strnlen(runfile.name, sizeof(runfile.name)) < sizeof(runfile.name));
        check_text(runfile.name);
        check_text(runfile.run_directory);
        check_text(runfile.arena);
        check_text(runfile.socket);
        check_removable(&runfile, folder);
    }
    unlink(path);
    return 0;
}
