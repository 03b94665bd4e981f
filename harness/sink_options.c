/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "sink_options.h"

#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
    "usage: sink --expected FILE --out FILE --listen ADDRESS:PORT --schema NAME\n"
    "            [--tcp [--slow BYTES]] [--flows FILE] [--cpu N] [--replies FILE --replies-max "
    "BYTES]\n"
    "\n"
    "Receives the replies of a run and compares each with what the capture must produce.\n"
    "  --expected FILE      wire/expected.bin: {u64 id; u64 reply_hash} a reply\n"
    "  --flows FILE         {u32 flow} a reply: those of one flow are to come in this order\n"
    "  --out FILE           wire/delivered.bin: {u64 id, kernel_ns, reply_hash; u32 length, "
    "status}\n"
    "  --listen ADDR:PORT   IPv4, or IPv6 as [ADDR]:PORT\n"
    "  --schema NAME        where a reply has its id: v1, v2, v3, v4, iex; by content: fix, "
    "datagram\n"
    "  --tcp                accept connections (at most 64) in place of UDP\n"
    "  --slow BYTES         read so many a second at most: a slow reader\n"
    "  --cpu N              run on this CPU alone\n"
    "  --replies FILE       keep the first replies, {u32 length; bytes} each\n"
    "  --replies-max BYTES  of that file (default 1048576)\n"
    "\n"
    "Commands on stdin, a line each, each answered by a line of JSON on stdout: stats, mark "
    "(forget what\n"
    "came so far), stop. The end of stdin or SIGTERM is stop.\n"
    "Exit: 0 fine, 1 the records could not be written, 2 usage, 4 the host refused a socket or "
    "CPU.\n";

struct options options_parse(int argc, char **argv)
{
    static const struct option table[] = {
        {"expected", required_argument, NULL, 'e'}, {"flows", required_argument, NULL, 'f'},
        {"out", required_argument, NULL, 'o'},      {"listen", required_argument, NULL, 'l'},
        {"schema", required_argument, NULL, 's'},   {"tcp", no_argument, NULL, 't'},
        {"slow", required_argument, NULL, 'w'},     {"cpu", required_argument, NULL, 'c'},
        {"replies", required_argument, NULL, 'r'},  {"replies-max", required_argument, NULL, 'm'},
        {"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0},
    };
    struct options options = {.cpu = -1, .files.records.replies_max = 1 << 20};
    const char *schema = NULL;
    bool tcp = false;
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (option) {
        case 'e':
            options.files.expected.expected = optarg;
            break;
        case 'f':
            options.files.expected.flows = optarg;
            break;
        case 'o':
            options.files.records.out = optarg;
            break;
        case 'l':
            options.listen = optarg;
            break;
        case 's':
            schema = optarg;
            break;
        case 't':
            tcp = true;
            break;
        case 'w':
            options.slow = parse_number("--slow", optarg, 1 << 30);
            break;
        case 'c':
            options.cpu = (int)parse_number("--cpu", optarg, CPU_SETSIZE - 1);
            break;
        case 'r':
            options.files.records.replies = optarg;
            break;
        case 'm':
            options.files.records.replies_max =
                (size_t)parse_number("--replies-max", optarg, 1 << 30);
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            die(EXIT_USAGE, "%s: unknown option, or its value is missing; see sink --help",
                argv[optind - 1]);
        }
    }
    if (optind != argc)
        die(EXIT_USAGE, "%s: expected options only; see sink --help", argv[optind]);
    if (!options.files.expected.expected || !options.files.records.out || !options.listen ||
        !schema)
        die(EXIT_USAGE, "--expected, --out, --listen and --schema are needed; see sink --help");
    options.schema = judge_schema(schema);
    options.address_size = parse_address("--listen", options.listen, &options.address);
    if (tcp && !(options.length = frame_of(schema)))
        die(EXIT_USAGE, "--schema %s: has no form in a stream; expected v1, v2, v3, v4 or fix",
            schema);
    if (options.slow && !tcp)
        die(EXIT_USAGE, "--slow: expected with --tcp alone");
    return options;
}
