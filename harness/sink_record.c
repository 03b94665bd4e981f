/* SPDX-License-Identifier: Apache-2.0 */
#include "sink_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "records are written as they lie in memory");

enum { RECORDS_MIN = 4096, RECORDS_MAX = 2 * 1024 * 1024 };

/* A file and the memory in front of it. */
struct spool {
    const char *path;
    int fd;
    uint8_t *data;
    size_t used; /* bytes */
    size_t room; /* bytes */
};

struct recorder {
    struct spool out;
    struct spool replies;
    bool keep; /* replies, until the first that does not fit: no gaps */
    int error;
    const char *where;
};

static int spool_open(struct spool *spool, const char *path, size_t room)
{
    spool->path = path;
    spool->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (spool->fd < 0)
        return -errno;
    spool->data = malloc(room + 1);
    if (!spool->data)
        return -ENOMEM;
    memset(spool->data, 0xff, room + 1); /* a page that is touched now faults no more later */
    spool->room = room;
    return 0;
}

static void spool_close(struct spool *spool)
{
    if (spool->fd >= 0)
        close(spool->fd);
    free(spool->data);
}

static void fail(struct recorder *recorder, const struct spool *spool, int error)
{
    if (recorder->error == 0) {
        recorder->error = error;
        recorder->where = spool->path;
    }
}

static void spool_flush(struct recorder *recorder, struct spool *spool)
{
    for (size_t done = 0; recorder->error == 0 && done < spool->used;) {
        ssize_t got = write(spool->fd, spool->data + done, spool->used - done);
        if (got >= 0)
            done += (size_t)got;
        else if (errno != EINTR)
            fail(recorder, spool, -errno);
    }
    spool->used = 0;
}

static void spool_reset(struct recorder *recorder, struct spool *spool)
{
    spool->used = 0;
    if (spool->fd >= 0 && (ftruncate(spool->fd, 0) != 0 || lseek(spool->fd, 0, SEEK_SET) != 0))
        fail(recorder, spool, -errno);
}

static void spool_add(struct spool *spool, const void *data, size_t size)
{
    memcpy(spool->data + spool->used, data, size);
    spool->used += size;
}

int record_open(struct recorder **recorder, const struct record_files *files, size_t expected,
                const char **where)
{
    struct recorder *made = calloc(1, sizeof *made);
    size_t records = expected < RECORDS_MIN ? RECORDS_MIN : expected;

    *recorder = made;
    *where = files->out;
    if (!made)
        return -ENOMEM;
    made->out.fd = made->replies.fd = -1;
    if (records > RECORDS_MAX)
        records = RECORDS_MAX;
    int rc = spool_open(&made->out, files->out, records * sizeof(struct record));
    if (rc == 0 && files->replies) {
        *where = files->replies;
        rc = spool_open(&made->replies, files->replies, files->replies_max);
        made->keep = rc == 0;
    }
    return rc;
}

static bool keep_reply(struct spool *replies, const uint8_t *reply, uint32_t length)
{
    if (replies->room - replies->used < sizeof length + length)
        return false;
    spool_add(replies, &length, sizeof length);
    spool_add(replies, reply, length);
    return true;
}

void record_add(struct recorder *recorder, const struct record *record, const uint8_t *reply)
{
    struct spool *out = &recorder->out;

    if (out->room - out->used < sizeof *record)
        spool_flush(recorder, out);
    spool_add(out, record, sizeof *record);
    recorder->keep = recorder->keep && keep_reply(&recorder->replies, reply, record->length);
}

void record_reset(struct recorder *recorder)
{
    spool_reset(recorder, &recorder->out);
    spool_reset(recorder, &recorder->replies);
    recorder->keep = recorder->replies.fd >= 0;
}

void record_flush(struct recorder *recorder)
{
    spool_flush(recorder, &recorder->out);
    spool_flush(recorder, &recorder->replies);
}

int record_error(const struct recorder *recorder, const char **where)
{
    *where = recorder->where;
    return recorder->error;
}

void record_close(struct recorder *recorder)
{
    if (!recorder)
        return;
    spool_close(&recorder->out);
    spool_close(&recorder->replies);
    free(recorder);
}
