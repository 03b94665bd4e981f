/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "sink_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: sink --expected FILE --out FILE --listen ADDRESS:PORT --schema v1|v2|datagram\n"
    "            [--cpu N] [--replies FILE --replies-max BYTES]\n"
    "\n"
    "Receives the replies of a run over UDP and compares each with what the capture must produce.\n"
    "  --expected FILE      wire/expected.bin: {u64 id; u64 reply_hash} a reply\n"
    "  --out FILE           wire/delivered.bin: {u64 id, kernel_ns, reply_hash; u32 length, "
    "status}\n"
    "  --listen ADDR:PORT   IPv4, or IPv6 as [ADDR]:PORT\n"
    "  --schema NAME        where a reply has its id\n"
    "  --cpu N              run on this CPU alone\n"
    "  --replies FILE       keep the first replies, {u32 length; bytes} each\n"
    "  --replies-max BYTES  of that file (default 1048576)\n"
    "\n"
    "Commands on stdin, a line each, each answered by a line of JSON on stdout: stats, mark "
    "(forget what\n"
    "came so far), stop. The end of stdin or SIGTERM is stop.\n"
    "Exit: 0 fine, 1 the records could not be written, 2 usage, 4 the host refused a socket or "
    "CPU.\n";

void die(int code, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    fputs("sink: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    exit(code);
}

static uint64_t parse_number(const char *name, const char *text, uint64_t max)
{
    char *end;

    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > max)
        die(EXIT_USAGE, "%s %s: expected a number from 0 to %" PRIu64, name, text, max);
    return value;
}

static void parse_listen(struct options *options)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&options->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&options->address;
    const char *text = options->listen;
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2];

    if (!colon || (size_t)(colon - text) >= sizeof host)
        die(EXIT_USAGE, "--listen %s: expected ADDRESS:PORT or [ADDRESS]:PORT", text);
    uint16_t port = (uint16_t)parse_number("--listen port", colon + 1, UINT16_MAX);
    size_t length = (size_t)(colon - text);
    bool bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';
    size_t skip = bracketed ? 1 : 0;
    memcpy(host, text + skip, length - 2 * skip);
    host[length - 2 * skip] = '\0';
    if (bracketed && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        options->address_size = sizeof *v6;
    } else if (!bracketed && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        options->address_size = sizeof *v4;
    } else
        die(EXIT_USAGE, "--listen %s: expected ADDRESS:PORT or [ADDRESS]:PORT", text);
}

static enum check_schema parse_schema(const char *name)
{
    static const char *const names[] = {
        [CHECK_V1] = "v1", [CHECK_V2] = "v2", [CHECK_DATAGRAM] = "datagram"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum check_schema)i;
    die(EXIT_USAGE, "--schema %s: expected v1, v2 or datagram", name);
}

struct options options_parse(int argc, char **argv)
{
    static const struct option table[] = {
        {"expected", required_argument, NULL, 'e'},
        {"out", required_argument, NULL, 'o'},
        {"listen", required_argument, NULL, 'l'},
        {"schema", required_argument, NULL, 's'},
        {"cpu", required_argument, NULL, 'c'},
        {"replies", required_argument, NULL, 'r'},
        {"replies-max", required_argument, NULL, 'm'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.cpu = -1, .files.replies_max = 1 << 20};
    const char *schema = NULL;
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (option) {
        case 'e':
            options.expected = optarg;
            break;
        case 'o':
            options.files.out = optarg;
            break;
        case 'l':
            options.listen = optarg;
            break;
        case 's':
            schema = optarg;
            break;
        case 'c':
            options.cpu = (int)parse_number("--cpu", optarg, CPU_SETSIZE - 1);
            break;
        case 'r':
            options.files.replies = optarg;
            break;
        case 'm':
            options.files.replies_max = (size_t)parse_number("--replies-max", optarg, 1 << 30);
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
    if (!options.expected || !options.files.out || !options.listen || !schema)
        die(EXIT_USAGE, "--expected, --out, --listen and --schema are needed; see sink --help");
    options.schema = parse_schema(schema);
    parse_listen(&options);
    return options;
}
