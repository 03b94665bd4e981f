/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a trace as a crash, or somebody else, has left them, before they are salvaged. First byte: bit 0 an
 * array of ingress records, else bit 1 a metadata file, else a stream. What was repaired stays as it is. */
#include "tracer/repair.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int folder = -1;

static void put(const char *name, const uint8_t *data, size_t size)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    fuzz_require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

/* The whole file; the caller frees it. */
static uint8_t *get(const char *name, size_t *size)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    struct stat st;

    fuzz_require(fd >= 0 && fstat(fd, &st) == 0);
    *size = (size_t)st.st_size;
    uint8_t *data = malloc(*size + 1);
    fuzz_require(data && read(fd, data, *size) == (ssize_t)*size);
    close(fd);
    return data;
}

static int repair(bool plain, struct repair *done)
{
    struct ctf_uuid uuid;

    if (plain)
        return repair_plain(folder, "ingress.bin", done);
    int err = repair_find_uuid(folder, "rx", &uuid);
    return err < 0 ? err : repair_stream(folder, "rx", &uuid, 0, done);
}

static void check_rising(const uint8_t *data, size_t size)
{
    uint64_t last = 0;

    fuzz_require(size % sizeof(struct ingress_record) == 0);
    for (size_t at = 0; at < size; at += sizeof(struct ingress_record)) {
        uint64_t request;
        memcpy(&request, data + at, sizeof(request));
        fuzz_require(request > last);
        last = request;
    }
}

static void repair_twice(bool plain)
{
    const char *name = plain ? "ingress.bin" : "rx";
    struct repair first, second;
    size_t size, again;

    if (repair(plain, &first) < 0)
        return;
    uint8_t *data = get(name, &size);
    if (plain)
        check_rising(data, size);
    fuzz_require(repair(plain, &second) == 0);
    uint8_t *same = get(name, &again);
    fuzz_require(size == again && memcmp(data, same, size) == 0);
    fuzz_require(first.packets == second.packets && first.records == second.records);
    fuzz_require(second.cut_bytes == 0 && !second.first_made);
    free(data);
    free(same);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct ctf_facts facts;

    if (folder < 0)
        folder = fuzz_folder(path);
    if (size == 0)
        return 0;
    put(data[0] & 1 ? "ingress.bin" : data[0] & 2 ? "metadata" : "rx", data + 1, size - 1);
    if (data[0] & 1)
        repair_twice(true);
    else if (data[0] & 2)
        (void)ctf_read_metadata(folder, &facts);
    else
        repair_twice(false);
    fuzz_sweep(folder);
    return 0;
}
