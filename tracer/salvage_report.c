/* SPDX-License-Identifier: Apache-2.0 */
#include "tracer/salvage_report.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NUMBER_BYTES = 32 };

int salvage_status(int err)
{
    switch (err) {
    case -ENOSPC:
    case -EDQUOT:
    case -EROFS:
    case -EACCES:
    case -EPERM:
    case -ENOMEM:
        return 4;
    default:
        return 1;
    }
}

/* 1,234,567 */
static const char *grouped(uint64_t value, char out[NUMBER_BYTES])
{
    char digits[NUMBER_BYTES];
    int length = snprintf(digits, sizeof(digits), "%" PRIu64, value);
    int at = 0;

    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

static uint64_t real_ns(const struct salvage *salvage, uint64_t tsc)
{
    double after =
        (double)position_diff(tsc, salvage->facts.pair.tsc) * 1e9 / salvage->facts.clock.hz;

    return salvage->facts.pair.real_ns + (uint64_t)(int64_t)after;
}

/* Local time, as babeltrace2 shows it. */
static const char *time_of_day(uint64_t ns, char out[NUMBER_BYTES])
{
    time_t seconds = (time_t)(ns / 1000000000);
    struct tm tm;
    char text[16];

    localtime_r(&seconds, &tm);
    strftime(text, sizeof(text), "%H:%M:%S", &tm);
    snprintf(out, NUMBER_BYTES, "%s.%06u", text, (unsigned)(ns % 1000000000 / 1000));
    return out;
}

/* ---- salvage.json ---- */

static json_t *earlier(const struct salvage *salvage)
{
    int fd = openat(salvage->run_folder, "salvage.json", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    json_t *json = fd < 0 ? NULL : json_loadfd(fd, 0, NULL);

    if (fd >= 0)
        close(fd);
    return json;
}

static bool torn(const struct salvage_lane *lane, const json_t *before)
{
    const json_t *same = json_object_get(json_object_get(before, "lanes"), lane->name);

    return lane->torn || json_integer_value(json_object_get(same, "torn")) > 0;
}

static json_t *lane_json(const struct salvage *salvage, const struct salvage_lane *lane,
                         const json_t *before)
{
    const struct repair *done = &lane->done;
    json_t *json =
        json_pack("{s:I, s:i}", "records", (json_int_t)done->records, "torn", torn(lane, before));

    if (lane->plain)
        return json;
    json_object_set_new(json, "packets", json_integer((json_int_t)done->packets));
    json_object_set_new(json, "discarded", json_integer((json_int_t)done->discarded));
    json_object_set_new(json, "lost_packets", json_integer((json_int_t)done->lost_packets));
    if (done->end) {
        json_object_set_new(json, "last_tsc", json_integer((json_int_t)done->end));
        json_object_set_new(json, "last_ns", json_integer((json_int_t)real_ns(salvage, done->end)));
    }
    return json;
}

static void add_point(json_t *points, const struct point_info *point)
{
    json_array_append_new(points, json_pack("{s:i, s:s, s:b, s:s, s:s, s:s}", "id", point->id,
                                            "name", point->name, "wide",
                                            (point->id & POINT_WIDE) != 0, "span", point->span,
                                            "stage", point->stage, "sentence", point->sentence));
}

static json_t *points_json(const struct region *arena)
{
    json_t *points = json_array();
    struct lane_point own;
    struct point_info info;

    for (uint32_t i = 0; i < point_count; i++)
        add_point(points, &point_list[i]);
    for (uint32_t i = 0; arena->header && arena_point(arena, i, &own, &info); i++)
        add_point(points, &info);
    return points;
}

struct total {
    uint64_t records;
    uint64_t end; /* 0: no record */
};

static struct total total_of(const struct salvage *salvage)
{
    struct total total = {0};

    for (uint32_t i = 0; i < salvage->lanes; i++) {
        const struct salvage_lane *lane = &salvage->lane[i];
        total.records += lane->plain ? 0 : lane->done.records;
        if (lane->done.end > total.end)
            total.end = lane->done.end;
    }
    return total;
}

static json_t *report_json(const struct salvage *salvage, const json_t *before)
{
    struct total total = total_of(salvage);
    json_t *lanes = json_object();
    json_t *lost = json_incref(json_object_get(before, "lost"));

    if (!json_is_array(lost)) {
        json_decref(lost);
        lost = json_array();
    }
    for (uint32_t i = 0; i < salvage->lanes; i++)
        json_object_set_new(lanes, salvage->lane[i].name,
                            lane_json(salvage, &salvage->lane[i], before));
    for (uint32_t i = 0; i < salvage->lines; i++)
        json_array_append_new(lost, json_string(salvage->line[i]));
    json_t *json =
        json_pack("{s:i, s:s, s:f, s:I, s:o, s:o, s:o}", "schema", 1, "run", salvage->run_directory,
                  "tsc_hz", salvage->facts.clock.hz, "records", (json_int_t)total.records, "lost",
                  lost, "lanes", lanes, "points", points_json(&salvage->arena));
    if (json && total.end) {
        json_object_set_new(json, "last_tsc", json_integer((json_int_t)total.end));
        json_object_set_new(json, "last_ns", json_integer((json_int_t)real_ns(salvage, total.end)));
    }
    return json;
}

/* Written beside and renamed. */
static int save(const struct salvage *salvage, const json_t *json)
{
    int fd = openat(salvage->run_folder, "salvage.json.new",
                    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0)
        return -errno;
    int err = json ? 0 : -ENOMEM;
    if (err == 0 && json_dumpfd(json, fd, JSON_INDENT(1) | JSON_PRESERVE_ORDER) < 0)
        err = -errno;
    close(fd);
    if (err == 0 &&
        renameat(salvage->run_folder, "salvage.json.new", salvage->run_folder, "salvage.json") < 0)
        err = -errno;
    return err;
}

/* ---- for people ---- */

static void print_lane(const struct salvage *salvage, const struct salvage_lane *lane,
                       const json_t *before)
{
    const struct repair *done = &lane->done;
    char records[NUMBER_BYTES], packets[NUMBER_BYTES], discarded[NUMBER_BYTES], last[NUMBER_BYTES];

    printf("  %-10s %12s records", lane->name, grouped(done->records, records));
    if (!lane->plain)
        printf(" in %s packets, %s discarded", grouped(done->packets, packets),
               grouped(done->discarded, discarded));
    printf(", %d torn", torn(lane, before));
    if (done->end)
        printf(", the last at %s", time_of_day(real_ns(salvage, done->end), last));
    putchar('\n');
}

static void print(const struct salvage *salvage, const json_t *before)
{
    struct total total = total_of(salvage);
    char records[NUMBER_BYTES], last[NUMBER_BYTES] = "", up_to[48] = "";

    for (uint32_t i = 0; i < salvage->lanes; i++)
        print_lane(salvage, &salvage->lane[i], before);
    for (uint32_t i = 0; i < salvage->lines; i++)
        printf("  %s\n", salvage->line[i]);
    if (total.end)
        snprintf(up_to, sizeof(up_to), " up to %s", time_of_day(real_ns(salvage, total.end), last));
    printf("salvaged %s: %s stamps%s; look at it: babeltrace2 %s/trace\n", salvage->run_directory,
           grouped(total.records, records), up_to, salvage->run_directory);
}

int salvage_report(const struct salvage *salvage)
{
    json_t *before = earlier(salvage);
    json_t *json = report_json(salvage, before);

    int err = save(salvage, json);
    if (err == 0 && !salvage->quiet)
        print(salvage, before);
    json_decref(json);
    json_decref(before);
    return err;
}
