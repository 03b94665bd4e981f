/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 2, BLOCK_BYTES = 4096 }; /* snapshots/NNN-request-R/rx.000001 */

static const char *const lent[] = {"trace", "snapshots", "wire/ingress"};
enum { LENT = sizeof(lent) / sizeof(lent[0]), INGRESS = 2 };

static int make_folder(int at, const char *name)
{
    return mkdirat(at, name, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_folder(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int folders_make(int run_folder, const struct config *config)
{
    static const char *const always[] = {"trace", "wire", "log"};
    int err = 0;

    for (size_t i = 0; err == 0 && i < sizeof(always) / sizeof(always[0]); i++)
        err = make_folder(run_folder, always[i]);
    if (err == 0 && config->trace.snapshot_over_ns)
        err = make_folder(run_folder, "snapshots");
    if (err == 0 && (config->trace.keep_ns || config->trace.max_bytes))
        err = make_folder(run_folder, "wire/ingress");
    return err;
}

int folders_lend(int run_folder, const struct user *user)
{
    int err = 0;

    for (size_t i = 0; err == 0 && i < LENT; i++) {
        int folder = open_folder(run_folder, lent[i]);
        if (folder < 0)
            continue;
        if (fchown(folder, user->uid, user->gid) < 0)
            err = -errno;
        close(folder);
    }
    if (err < 0)
        folders_take_back(run_folder);
    return err;
}

struct custody {
    uid_t from; /* who had it */
    uid_t owner;
    gid_t group;
};

static void take_folder(int folder, const struct custody *custody, int depth);

/* Only what the borrower made: a link to somebody else's file stays somebody else's. */
static void take_entry(int folder, const char *name, const struct custody *custody, int depth)
{
    struct stat st;
    int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_uid == custody->from) {
        if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            int inner = open_folder(folder, name);
            if (inner >= 0)
                take_folder(inner, custody, depth + 1);
        } else if (S_ISREG(st.st_mode)) {
            (void)fchownat(fd, "", custody->owner, custody->group, AT_EMPTY_PATH);
        } else {
            (void)unlinkat(folder, name, 0);
        }
    }
    close(fd);
}

/* Closes it, too. First the folder itself, so that nothing more can come. */
static void take_folder(int folder, const struct custody *custody, int depth)
{
    _Alignas(struct dirent64) char block[BLOCK_BYTES];
    ssize_t got;

    (void)fchown(folder, custody->owner, custody->group);
    while ((got = getdents64(folder, block, sizeof(block))) > 0) {
        const struct dirent64 *entry;
        for (ssize_t at = 0; at < got; at += entry->d_reclen) {
            entry = (const struct dirent64 *)(const void *)(block + at);
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                take_entry(folder, entry->d_name, custody, depth);
        }
    }
    close(folder);
}

/* The array that the tracer has made of the chunks goes to its place once it is all that is there: else
 * it was not done with them, and salvage is. */
static void move_ingress(int run_folder)
{
    static const char from[] = "wire/ingress/ingress.bin", aside[] = "wire/ingress.bin.new";

    if (renameat(run_folder, from, run_folder, aside) < 0)
        return;
    if (unlinkat(run_folder, lent[INGRESS], AT_REMOVEDIR) == 0)
        (void)renameat(run_folder, aside, run_folder, "wire/ingress.bin");
    else
        (void)renameat(run_folder, aside, run_folder, from);
}

void folders_take_back(int run_folder)
{
    struct stat run;
    struct stat st;

    if (fstat(run_folder, &run) < 0)
        return;
    for (size_t i = 0; i < LENT; i++) {
        int folder = open_folder(run_folder, lent[i]);
        if (folder < 0)
            continue;
        if (fstat(folder, &st) == 0 && st.st_uid != run.st_uid) {
            const struct custody custody = {st.st_uid, run.st_uid, run.st_gid};
            take_folder(folder, &custody, 0);
        } else {
            close(folder);
        }
        if (i == INGRESS)
            move_ingress(run_folder);
        if (i > 0) /* where nothing is in it */
            (void)unlinkat(run_folder, lent[i], AT_REMOVEDIR);
    }
}
