/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/e2e_system.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { END_MS = 3000 };

int system_start(struct system *system, const struct bench *bench, const struct system_kind *kind,
                 uint16_t to, struct bench_result *result)
{
    *system = (struct system){.bench = bench, .kind = kind, .to = to, .commands = -1, .events = -1};
    if (bench->cpu[0] == bench->cpu[1])
        return bench_fail(result, -ENOTSUP, "needs two CPUs");
    return kind->start(system, result);
}

int system_finish(struct system *system, struct bench_result *result)
{
    if (waitpid(system->pid, NULL, WNOHANG) != 0) {
        system->pid = 0;
        return bench_fail(result, -EIO, "it ended during the measurement");
    }
    return system->kind->finish(system, result);
}

void system_close(struct system *system)
{
    if (system->pid > 0)
        (void)e2e_child_end(system->pid, SIGTERM, END_MS);
    if (system->commands >= 0)
        close(system->commands);
    if (system->events >= 0)
        close(system->events);
    e2e_folder_close(&system->folder);
}
