/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/ctf.h"

#include "shm/crash.h"
#include "tracer/own.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

struct ctf_uuid ctf_uuid(uint64_t epoch)
{
    struct ctf_uuid uuid;
    uint64_t high = epoch * 0x9e3779b97f4a7c15ULL;
    uint64_t low = (epoch ^ (epoch >> 31)) * 0xbf58476d1ce4e5b9ULL;

    memcpy(uuid.byte, &high, 8);
    memcpy(uuid.byte + 8, &low, 8);
    uuid.byte[6] = (uint8_t)((uuid.byte[6] & 0x0f) | 0x40); /* RFC 4122: version 4, */
    uuid.byte[8] = (uint8_t)((uuid.byte[8] & 0x3f) | 0x80); /* variant 1 */
    return uuid;
}

static const char types[] =
    "typealias integer { size = 8; align = 8; signed = false; } := u8;\n"
    "typealias integer { size = 16; align = 16; signed = false; } := u16;\n"
    "typealias integer { size = 32; align = 16; signed = false; } := u32;\n"
    "typealias integer { size = 64; align = 16; signed = false; } := u64;\n"
    "typealias integer { size = 64; align = 16; signed = false; map = clock.tsc.value; } := "
    "tsc_t;\n"
    "typealias integer { size = 8; align = 8; signed = false; encoding = UTF8; } := padding_t;\n";

static const char stream[] = "stream {\n"
                             "    id = 0;\n"
                             "    packet.context := struct {\n"
                             "        tsc_t timestamp_begin;\n"
                             "        tsc_t timestamp_end;\n"
                             "        u64 content_size;\n"
                             "        u64 packet_size;\n"
                             "        u64 packet_seq_num;\n"
                             "        u64 events_discarded;\n"
                             "        u32 cpu_id;\n"
                             "        u32 generation;\n"
                             "        u32 request_high;\n"
                             "        u32 checksum;\n"
                             "        padding_t reserved[4008];\n"
                             "    };\n"
                             "    event.header := struct { tsc_t timestamp; u16 id; };\n"
                             "    event.context := struct { u16 argument; u32 request; };\n"
                             "};\n";

static void write_trace(FILE *out, const struct ctf_uuid *uuid)
{
    fputs("trace {\n    major = 1;\n    minor = 8;\n    uuid = \"", out);
    for (int i = 0; i < 16; i++)
        fprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid->byte[i]);
    fputs("\";\n    byte_order = le;\n"
          "    packet.header := struct { u32 magic; u8 uuid[16]; u32 stream_id; };\n};\n",
          out);
}

/* The offset is what REALTIME was at tick 0, split as the format wants it: seconds and ticks. */
static void write_clock(FILE *out, const struct clock *clock, const struct clock_pair *pair)
{
    uint64_t hz = (uint64_t)llround(clock->hz);
    unsigned __int128 tick_ns = (unsigned __int128)pair->tsc * 1000000000u / hz;
    uint64_t zero_ns = pair->real_ns - (uint64_t)tick_ns;
    uint64_t rest_ticks = (uint64_t)((unsigned __int128)(zero_ns % 1000000000u) * hz / 1000000000u);

    fprintf(out,
            "clock {\n    name = tsc;\n    description = \"time-stamp counter\";\n"
            "    freq = %" PRIu64 ";\n    offset_s = %" PRIu64 ";\n    offset = %" PRIu64 ";\n"
            "    absolute = TRUE;\n};\n",
            hz, zero_ns / 1000000000u, rest_ticks);
}

static void write_event(FILE *out, const struct point_info *point)
{
    fprintf(out, "event {\n    id = %u;\n    name = \"%s\";\n    stream_id = 0;\n", point->id,
            point->name);
    if (point->id & POINT_WIDE)
        fputs("    fields := struct { u64 value; u64 extra; };\n", out);
    fputs("};\n", out);
}

static void write_events(FILE *out, const struct region *arena)
{
    struct lane_point own;
    struct point_info info;

    for (uint32_t i = 0; i < point_count; i++)
        write_event(out, &point_list[i]);
    for (uint32_t i = 0; arena && arena_point(arena, i, &own, &info); i++)
        write_event(out, &info);
}

int ctf_write_metadata(FILE *out, const struct ctf_facts *facts)
{
    struct utsname host;

    uname(&host);
    fputs("/* CTF 1.8 */\n", out);
    fputs(types, out);
    write_trace(out, &facts->uuid);
    fprintf(out,
            "env {\n    hostname = \"%s\";\n    domain = \"tickline\";\n    run = \"%s\";\n"
            "    kernel = \"%s\";\n    build = \"%s\";\n};\n",
            host.nodename, facts->run, host.release, TICKLINE_VERSION);
    write_clock(out, &facts->clock, &facts->pair);
    fputs(stream, out);
    write_events(out, facts->arena);
    return ferror(out) || fflush(out) != 0 ? -EIO : 0;
}

int ctf_save_metadata(int folder, const struct ctf_facts *facts)
{
    int fd =
        openat(folder, "metadata.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

    if (!out)
        return -errno;
    own_by_folder(folder, fd);
    int err = ctf_write_metadata(out, facts);
    if (fclose(out) != 0 && err == 0)
        err = -errno;
    if (err < 0) {
        (void)unlinkat(folder, "metadata.new", 0);
        return err;
    }
    crash_point("file:metadata_written");
    if (renameat(folder, "metadata.new", folder, "metadata") < 0)
        return -errno;
    crash_point("file:metadata_renamed");
    return 0;
}

static bool read_uuid(const char *text, struct ctf_uuid *uuid)
{
    const char *at = strstr(text, "\n    uuid = \"");

    if (!at)
        return false;
    at += strlen("\n    uuid = \"");
    for (size_t i = 0; i < sizeof(uuid->byte); i++) {
        char digits[3] = {0};
        at += *at == '-';
        memcpy(digits, at, strnlen(at, 2));
        char *end;
        uuid->byte[i] = (uint8_t)strtoul(digits, &end, 16);
        if (end != digits + 2)
            return false;
        at += 2;
    }
    return true;
}

static bool read_number(const char *text, const char *name, uint64_t *value)
{
    const char *at = strstr(text, name);

    if (!at)
        return false;
    *value = strtoull(at + strlen(name), NULL, 10);
    return true;
}

int ctf_read_metadata(int folder, struct ctf_facts *facts)
{
    char text[32768];
    uint64_t hz, seconds, ticks;
    int fd = openat(folder, "metadata", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    if (strncmp(text, "/* CTF 1.8", 10) != 0 || !read_uuid(text, &facts->uuid) ||
        !read_number(text, "\n    freq = ", &hz) || hz == 0 ||
        !read_number(text, "\n    offset_s = ", &seconds) ||
        !read_number(text, "\n    offset = ", &ticks))
        return -EPROTO;
    facts->clock = clock_from_hz((double)hz);
    facts->pair = (struct clock_pair){
        .real_ns = seconds * 1000000000 + (uint64_t)((unsigned __int128)ticks * 1000000000 / hz)};
    return 0;
}
