/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/salvage.h"

#include "tracer/history.h"
#include "tracer/salvage_files.h"
#include "tracer/salvage_report.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_TRIES = 200, LOCK_NAP_NS = 10000000, CALIBRATE_NS = 100000000 };

static void nap(long ns)
{
    const struct timespec time = {.tv_nsec = ns};

    nanosleep(&time, NULL);
}

/* ---- the arena ---- */

/* Every process of the run holds the lock of its arena; those just killed let go in a moment. */
static int lock_arena(int fd)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return -errno;
        nap(LOCK_NAP_NS);
    }
    return -EWOULDBLOCK;
}

static int refuse(const struct salvage *salvage, int err)
{
    if (err == -EWOULDBLOCK)
        fprintf(stderr,
                "tickline: %s: processes of this run still live; expected all of them to have "
                "ended; try again when `tickline status` shows none\n",
                salvage->run_directory);
    else
        fprintf(stderr, "tickline: %s: %s\n", salvage->arena_path, strerror(-err));
    return err == -EWOULDBLOCK ? 2 : salvage_status(err);
}

/* Nothing stands in an arena whose making was not finished; that counts as none. */
static int attach(struct salvage *salvage, int fd)
{
    struct region_want want = arena_want(0);
    struct region_mismatch mismatch = {0};
    uint64_t magic = 0;

    if (pread(fd, &magic, sizeof(magic), 0) != sizeof(magic) || magic == 0)
        return 0;
    int err = region_attach(&salvage->arena, fd, &want, true, &mismatch);
    if (err == -EPROTO) {
        fprintf(stderr,
                "tickline: %s: %s: expected %#llx, found %#llx; it was made by another build of "
                "tickline, "
                "and its own can salvage it\n",
                salvage->arena_path, mismatch.field, (unsigned long long)mismatch.expected,
                (unsigned long long)mismatch.found);
        return 1;
    }
    return err < 0 ? refuse(salvage, err) : 0;
}

static int open_arena(struct salvage *salvage)
{
    struct stat st;
    int fd = open(salvage->arena_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return errno == ENOENT ? 0 : refuse(salvage, -errno);
    int err = fstat(fd, &st) < 0 ? -errno : st.st_uid != geteuid() ? -EPERM : lock_arena(fd);
    int status = err < 0 ? refuse(salvage, err) : attach(salvage, fd);
    if (!salvage->arena.header && status)
        close(fd);
    return status;
}

/* What the tracer would have done at its end. */
static int drain_arena(struct salvage *salvage)
{
    static struct history history;
    const struct history_plan plan = {
        .arena = &salvage->arena,
        .uuid = salvage->facts.uuid,
        .run_folder = salvage->run_folder,
    };

    int err = history_open(&history, &plan);
    /* In memory too, where lane_torn() looks; there is no owner any more. */
    for (uint32_t i = 0; err == 0 && i < history.lanes; i++)
        lane_seal_abandoned(&history.lane[i].file.lane, tsc_read());
    if (err == 0)
        err = history_close(&history);
    for (uint32_t i = 0; err == 0 && i < history.lanes; i++) {
        const struct lane *lane = &history.lane[i].file.lane;
        struct salvage_lane *mine =
            salvage_lane(salvage, lane->entry->name, strlen(lane->entry->name));
        if (mine)
            mine->torn = lane_torn(lane);
    }
    return err;
}

/* ---- run directory ---- */

static int make_folder(int at, const char *name)
{
    return mkdirat(at, name, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_folders(struct salvage *salvage)
{
    const int flags = O_DIRECTORY | O_RDONLY | O_CLOEXEC;
    int err = 0;

    if (salvage->arena.header)
        err = make_folder(AT_FDCWD, salvage->run_directory);
    salvage->run_folder = err < 0 ? -1 : open(salvage->run_directory, flags);
    if (salvage->run_folder < 0)
        return err < 0 ? err : -errno;
    if (salvage->arena.header) {
        err = make_folder(salvage->run_folder, "trace");
        if (err == 0)
            err = make_folder(salvage->run_folder, "wire");
    }
    salvage->trace_folder = err < 0 ? -1 : openat(salvage->run_folder, "trace", flags);
    if (salvage->trace_folder < 0)
        return err < 0 ? err : -errno;
    salvage->wire_folder = openat(salvage->run_folder, "wire", flags);
    return salvage->wire_folder < 0 && errno != ENOENT ? -errno : 0;
}

static int complain_of_directory(const struct salvage *salvage, int err)
{
    if (err != -ENOENT && err != -ENOTDIR) {
        fprintf(stderr, "tickline: %s: %s\n", salvage->run_directory, strerror(-err));
        return salvage_status(err);
    }
    fprintf(stderr,
            "tickline: %s: no trace/ in it; expected a run directory such as runs/NAME-TIME\n",
            salvage->run_directory);
    return 2;
}

/* ---- metadata ---- */

static void calibrate(struct ctf_facts *facts)
{
    struct clock_pair first = clock_pair_read(NULL);

    nap(CALIBRATE_NS);
    facts->pair = clock_pair_read(NULL);
    facts->clock = clock_from_pairs(&first, &facts->pair);
}

/*
 * The pairs that rx wrote all through the run say more than the calibration at its start. Without them that one stands; and
 * where it was lost too, the machine that the run was on can be asked, which is ours as long as there is an arena.
 */
static int settle_metadata(struct salvage *salvage, bool known)
{
    const struct clock_pair *first = &salvage->pair[0];
    const struct clock_pair *last = &salvage->pair[1];
    bool pairs = last->tsc > first->tsc && last->raw_ns > first->raw_ns;
    bool far = pairs && last->raw_ns - first->raw_ns > 1000000000;

    if (known && !salvage->arena.header)
        return 0;
    if (far || (!known && pairs))
        salvage->facts.clock = clock_from_pairs(first, last);
    else if (!known && salvage->arena.header)
        calibrate(&salvage->facts);
    else if (!known)
        return -ENODATA;
    if (far || (!known && pairs))
        salvage->facts.pair = *last;
    int err = known && !far ? 0 : ctf_save_metadata(salvage->trace_folder, &salvage->facts);
    /* What is told is what readers will make of it. */
    return err < 0 ? err : ctf_read_metadata(salvage->trace_folder, &salvage->facts);
}

/* ---- the whole ---- */

static int fail(const struct salvage *salvage, int err)
{
    if (err == -ENODATA)
        fprintf(stderr,
                "tickline: %s/trace/metadata is missing, and no clock pair is left to make it by; "
                "expected it, or the lane rx\n",
                salvage->run_directory);
    else
        fprintf(stderr,
                "tickline: %s: cannot write the trace: %s; make room for the run directory and "
                "call salvage "
                "again%s\n",
                salvage->run_directory, strerror(-err),
                salvage->arena.header ? ": the arena is kept" : "");
    return salvage_status(err);
}

static int salvage_all(struct salvage *salvage)
{
    struct ctf_facts found = {.run = salvage->name};

    int err = open_folders(salvage);
    if (err < 0)
        return complain_of_directory(salvage, err);
    bool known = ctf_read_metadata(salvage->trace_folder, &found) == 0;
    if (salvage->arena.header) {
        struct ctf_uuid uuid = ctf_uuid(salvage->arena.header->epoch);
        known = known && memcmp(&uuid, &found.uuid, sizeof(uuid)) == 0;
        found.uuid = uuid;
    } else if (!known && salvage_find_uuid(salvage, &found.uuid) < 0) {
        return complain_of_directory(salvage, -ENOENT);
    }
    salvage->facts = found;
    salvage->facts.arena = salvage->arena.header ? &salvage->arena : NULL;
    if (salvage->arena.header)
        err = drain_arena(salvage);
    if (err == 0)
        err = salvage_files(salvage);
    if (err == 0)
        err = settle_metadata(salvage, known);
    if (err == 0)
        err = salvage_report(salvage);
    return err < 0 ? fail(salvage, err) : 0;
}

static const struct option options[] = {
    {"arena", required_argument, NULL, 'a'},
    {"name", required_argument, NULL, 'n'},
    {"quiet", no_argument, NULL, 'q'},
    {NULL, 0, NULL, 0},
};

int salvage_main(int argc, char **argv)
{
    static struct salvage salvage;
    int option;

    salvage.arena_path = "";
    salvage.name = "";
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'a')
            salvage.arena_path = optarg;
        else if (option == 'n')
            salvage.name = optarg;
        else if (option == 'q')
            salvage.quiet = true;
        else
            return 2;
    }
    if (optind != argc - 1) {
        fputs("tracer: expected --salvage RUN_DIR; for people: tickline salvage\n", stderr);
        return 2;
    }
    salvage.run_directory = argv[optind];
    int status = salvage.arena_path[0] ? open_arena(&salvage) : 0;
    return status ? status : salvage_all(&salvage);
}
