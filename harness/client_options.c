/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "client_options.h"

#include <getopt.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: client --script FILE --to ADDRESS[:PORT] [--udp] [--cpu N] [--sent FILE] "
    "[--connections FILE]\n"
    "              [--expected FILE --out FILE --schema NAME [--flows FILE] [--replies FILE]\n"
    "               [--replies-max BYTES] [--slow BYTES]] [--speed SPEED]\n"
    "\n"
    "Plays a script of writes, opens, closes and resets into real connections, each at its planned "
    "time.\n"
    "  --script FILE        made by the lab; its form stands in harness/client_script.h\n"
    "  --to ADDR[:PORT]     where to connect; without a port as the script says; IPv6 as [ADDR]\n"
    "  --udp                datagrams, a socket a connection\n"
    "  --sent FILE          wire/sent.bin: {i64 planned_ns, done_ns} an operation; least: never\n"
    "  --connections FILE   wire/connections.bin: {u64 written, read; u32 opened, resets, state, "
    "error}\n"
    "  --expected …         replies come back on these connections: judge and record them as the "
    "sink does\n"
    "  --slow BYTES         read so many bytes of replies a second at most\n"
    "  --speed SPEED        play all of it at once at 1x, 10x, 20000pps (writes a second) or top, "
    "and end\n"
    "\n"
    "Commands on stdin, a line each, each answered by a line of JSON on stdout: play FIRST COUNT "
    "SPEED\n"
    "(operations; answered by played when all are done), halt (ends that), stats, mark (forget the "
    "replies\n"
    "that came so far), stop. The end of stdin or SIGTERM is stop.\n"
    "Exit: 0 fine, 1 a file could not be written, 2 usage, 4 the host refused a socket or CPU.\n";

bool options_pace(const char *text, struct pace *pace)
{
    char *end;
    double value = strtod(text, &end);

    *pace = (struct pace){0, 0};
    if (strcmp(text, "top") == 0)
        return true;
    if (text[0] < '0' || text[0] > '9' || !isfinite(value) || value <= 0)
        return false;
    if (strcmp(end, "x") == 0)
        pace->factor = value;
    else if (strcmp(end, "pps") == 0)
        pace->gap_ns = 1e9 / value;
    else
        return false;
    return true;
}

/* An address without a port gets one that nobody can have. */
static void parse_to(struct options *options, const char *text)
{
    const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
    char with[128];

    options->to = text;
    options->has_port = colon && (text[0] != '[' || (bracket && colon > bracket));
    if (!options->has_port && (size_t)snprintf(with, sizeof with, "%s:0", text) >= sizeof with)
        die(EXIT_USAGE, "--to %s: expected ADDRESS or ADDRESS:PORT", text);
    options->address_size =
        parse_address("--to", options->has_port ? text : with, &options->address);
}

static void check(struct options *options, const char *schema)
{
    struct judge_files *files = &options->files;
    struct pace pace;

    if (!options->script || !options->to)
        die(EXIT_USAGE, "--script and --to are needed; see client --help");
    options->replies = files->expected.expected != NULL;
    if (options->replies && (!files->records.out || !schema))
        die(EXIT_USAGE, "--expected: --out and --schema are needed, too; see client --help");
    if (!options->replies && (files->records.out || files->expected.flows || options->slow))
        die(EXIT_USAGE, "--out, --flows, --slow: expected with --expected alone");
    if (options->speed && !options_pace(options->speed, &pace))
        die(EXIT_USAGE, "--speed %s: expected 1x, 10x, 20000pps or top", options->speed);
    if (!options->replies)
        return;
    options->schema = judge_schema(schema);
    files->expected.apart = files->expected.flows != NULL;
    if (!options->udp && !(options->length = frame_of(schema)))
        die(EXIT_USAGE, "--schema %s: has no form in a stream; expected v1, v2, v3, v4 or fix",
            schema);
}

static const struct option table[] = {
    {"script", required_argument, NULL, 'i'},
    {"to", required_argument, NULL, 'a'},
    {"udp", no_argument, NULL, 'u'},
    {"sent", required_argument, NULL, 'n'},
    {"connections", required_argument, NULL, 'k'},
    {"expected", required_argument, NULL, 'e'},
    {"flows", required_argument, NULL, 'f'},
    {"out", required_argument, NULL, 'o'},
    {"schema", required_argument, NULL, 's'},
    {"slow", required_argument, NULL, 'w'},
    {"speed", required_argument, NULL, 'p'},
    {"cpu", required_argument, NULL, 'c'},
    {"replies", required_argument, NULL, 'r'},
    {"replies-max", required_argument, NULL, 'm'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void take_option(struct options *options, int option, const char **schema)
{
    struct judge_files *files = &options->files;

    switch (option) {
    case 'i':
        options->script = optarg;
        break;
    case 'a':
        parse_to(options, optarg);
        break;
    case 'u':
        options->udp = true;
        break;
    case 'n':
        options->sent = optarg;
        break;
    case 'k':
        options->connections = optarg;
        break;
    case 'e':
        files->expected.expected = optarg;
        break;
    case 'f':
        files->expected.flows = optarg;
        break;
    case 'o':
        files->records.out = optarg;
        break;
    case 's':
        *schema = optarg;
        break;
    case 'w':
        options->slow = parse_number("--slow", optarg, 1 << 30);
        break;
    case 'p':
        options->speed = optarg;
        break;
    case 'c':
        options->cpu = (int)parse_number("--cpu", optarg, CPU_SETSIZE - 1);
        break;
    case 'r':
        files->records.replies = optarg;
        break;
    case 'm':
        files->records.replies_max = (size_t)parse_number("--replies-max", optarg, 1 << 30);
        break;
    default:
        fputs(usage, stdout);
        exit(0);
    }
}

struct options options_parse(int argc, char **argv)
{
    struct options options = {.cpu = -1, .files.records.replies_max = 1 << 20};
    const char *schema = NULL;
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (option == '?')
            die(EXIT_USAGE, "%s: unknown option, or its value is missing; see client --help",
                argv[optind - 1]);
        take_option(&options, option, &schema);
    }
    if (optind != argc)
        die(EXIT_USAGE, "%s: expected options only; see client --help", argv[optind]);
    check(&options, schema);
    return options;
}
