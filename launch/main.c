/* SPDX-License-Identifier: Apache-2.0 */
/* tickline: check, config, run, status, salvage, clean, points, handler. */
#include "launch/check.h"
#include "launch/handler.h"
#include "launch/run.h"
#include "launch/salvage.h"
#include "launch/serve.h"
#include "launch/watch.h"
#include "shm/points.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { OVERRIDES_MAX = 128, PATH_BYTES = 600 };

struct arguments {
    const char *config_path;
    struct config_override override[OVERRIDES_MAX];
    size_t overrides;
    struct run_options run;
    bool keys;
    bool watch;
    bool help;
    struct handler_facts handler; /* of the configuration that was loaded */
};

static const char usage[] =
    "usage: tickline COMMAND [CONFIG] [options]\n"
    "\n"
    "  check CONFIG    what the configuration asks of this host, what was found, how to mend it\n"
    "  config CONFIG   effective values and where each comes from; --keys: every key there is\n"
    "  run CONFIG      the pipeline alone, without a lab around it, until Ctrl-C\n"
    "  status          every run on this host\n"
    "  status --watch [NAME]   one run on a screen, once a second; q ends\n"
    "  salvage [NAME|RUN_DIRECTORY]   save the trace of killed runs, then remove what they left; "
    "or "
    "mend a\n"
    "                  run directory whose files were cut\n"
    "  clean           remove what killed runs have left behind\n"
    "  points [CONFIG] the trace points and what they mean; of its handler, too\n"
    "  handler CONFIG  what its handler is, and its own points\n"
    "\n"
    "  --set SECTION.KEY=VALUE           change one value, any number of times\n"
    "  --fill SECTION.KEY=VALUE@ORIGIN   the same, only where it still is auto\n"
    "  --json                            for programs; run: commands on stdin (stats, mark, "
    "drain)\n"
    "  --run-dir DIR                     run: where its files go (runs/NAME-TIME)\n"
    "  --start-order NAMES               run: tracer,tx,worker0,rx or any other order\n"
    "\n"
    "exit status: 0 fine, 1 failed, 2 usage or configuration, 4 the host cannot, 128+n signal n\n";

static const struct option options[] = {
    {"set", required_argument, NULL, 's'},
    {"fill", required_argument, NULL, 'f'},
    {"json", no_argument, NULL, 'j'},
    {"run-dir", required_argument, NULL, 'd'},
    {"start-order", required_argument, NULL, 'o'},
    {"keys", no_argument, NULL, 'k'},
    {"watch", no_argument, NULL, 'w'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* What getopt_long has just refused, as it was written. */
static int refuse_option(char **argv, int option)
{
    const char *word = argv[optind - 1];
    char letter[] = {'-', (char)optopt, '\0'};

    fprintf(stderr, "tickline: %s: %s; see tickline --help\n", word[0] == '-' ? word : letter,
            option == ':' ? "expected a value behind it" : "no such option");
    return 2;
}

static int parse(int argc, char **argv, struct arguments *arguments)
{
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (option) {
        case 's':
        case 'f':
            if (arguments->overrides == OVERRIDES_MAX) {
                fprintf(stderr, "tickline: more than %d --set\n", OVERRIDES_MAX);
                return 2;
            }
            arguments->override[arguments->overrides++] =
                (struct config_override){optarg, option == 'f'};
            break;
        case 'j':
            arguments->run.json = true;
            break;
        case 'd':
            arguments->run.run_directory = optarg;
            break;
        case 'o':
            arguments->run.start_order = optarg;
            break;
        case 'k':
            arguments->keys = true;
            break;
        case 'w':
            arguments->watch = true;
            break;
        case 'h':
            arguments->help = true;
            break;
        default:
            return refuse_option(argv, option);
        }
    }
    if (optind < argc)
        arguments->config_path = argv[optind++];
    if (optind < argc) {
        fprintf(stderr, "tickline: %s: one argument too many; see tickline --help\n", argv[optind]);
        return 2;
    }
    return 0;
}

static int load(struct arguments *arguments, struct config *config)
{
    char error[CONFIG_ERROR_MAX];

    if (!arguments->config_path) {
        fputs("tickline: which configuration? for example: configs/isolated.ini\n", stderr);
        return 2;
    }
    if (config_load(config, arguments->config_path, arguments->override, arguments->overrides,
                    error) < 0) {
        fprintf(stderr, "tickline: %s\n", error);
        return 2;
    }
    int err = handler_ask(config, &arguments->handler, error);
    if (err < 0) {
        fprintf(stderr, "tickline: %s\n", error);
        config_free(config);
        return err == -EINVAL ? 2 : 4;
    }
    return 0;
}

static int command_config(struct arguments *arguments)
{
    static struct config config;

    if (arguments->keys)
        return config_write_keys(stdout) < 0;
    int status = load(arguments, &config);
    if (status)
        return status;
    int err =
        arguments->run.json ? config_write_json(&config, stdout) : config_write(&config, stdout);
    config_free(&config);
    return err < 0;
}

/* What of this host the configuration names: its user, its CPUs. The exit status. */
static int place(const struct config *config, struct host_topology *topology,
                 struct placement *placement)
{
    const struct host host = {.root = ""};
    char error[CONFIG_ERROR_MAX];

    if (host_topology_read(&host, topology) < 0) {
        fputs("tickline: /proc and /sys do not say which CPUs there are; are they mounted?\n",
              stderr);
        return 4;
    }
    struct user user;
    int err = user_find(config, &user, error);
    if (err == 0)
        err = placement_plan(config, topology, placement, error);
    if (err < 0) {
        fprintf(stderr, "tickline: %s\n", error);
        return err == -EBUSY ? 4 : 2;
    }
    return 0;
}

static int command_check(struct arguments *arguments)
{
    static struct config config;
    static struct host_topology topology;
    static struct placement placement;
    static struct check_result results[CHECK_MAX];
    const struct host host = {.root = ""};

    int status = load(arguments, &config);
    if (status == 0)
        status = place(&config, &topology, &placement);
    if (status)
        return status;
    uint32_t count = check_run(&host, &config, &topology, &placement, results);
    int err = arguments->run.json ? check_print_json(results, count, &placement, stdout)
                                  : check_print(results, count, &placement, stdout);
    if (err < 0)
        return 1;
    return check_worst(results, count) == CHECK_FAIL ? 4 : 0;
}

/* What the host lacks that must be there, in one line: else memory would end in the kernel's hands.
 */
static int preflight(const struct config *config, const struct host_topology *topology,
                     const struct placement *placement)
{
    static struct check_result results[CHECK_MAX];
    const struct host host = {.root = ""};

    uint32_t count = check_run(&host, config, topology, placement, results);
    for (uint32_t i = 0; i < count; i++) {
        if (results[i].verdict != CHECK_FAIL)
            continue;
        fprintf(stderr, "tickline: %s: %s; mend: %s\n", results[i].name, results[i].found,
                results[i].remedy);
        return 4;
    }
    return 0;
}

static int command_run(struct arguments *arguments)
{
    static struct config config;
    static struct host_topology topology;
    static struct placement placement;
    static char directory[PATH_BYTES];

    int status = load(arguments, &config);
    if (status == 0)
        status = place(&config, &topology, &placement);
    if (status == 0)
        status = preflight(&config, &topology, &placement);
    if (status)
        return status;
    if (!arguments->run.run_directory) {
        time_t now = time(NULL);
        char text[32];
        strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", gmtime(&now));
        snprintf(directory, sizeof(directory), "runs/%s-%s", config.pipeline.name, text);
        (void)mkdir("runs", 0755); /* where it cannot be made, the run's own directory says so */
        arguments->run.run_directory = directory;
    }
    arguments->run.handler = &arguments->handler;
    status = run_pipeline(&config, &placement, &arguments->run);
    handler_free(&arguments->handler);
    config_free(&config);
    return status;
}

static void tell_point(json_t *points, const struct point_info *point, bool json)
{
    if (!json)
        printf("%-14s %s\n", point->name, point->sentence);
    json_array_append_new(points, json_pack("{s:i, s:s, s:b, s:s, s:s, s:s}", "id", point->id,
                                            "name", point->name, "wide",
                                            (point->id & POINT_WIDE) != 0, "span", point->span,
                                            "stage", point->stage, "sentence", point->sentence));
}

/* With a configuration those of its handler, too. */
static int command_points(struct arguments *arguments)
{
    static struct config config;
    bool json = arguments->run.json;
    const struct handler_facts *handler = &arguments->handler;

    int status = arguments->config_path ? load(arguments, &config) : 0;
    if (status)
        return status;
    json_t *points = json_array();
    for (uint32_t i = 0; i < point_count; i++)
        tell_point(points, &point_list[i], json);
    for (uint32_t i = 0; i < handler->points; i++) {
        const struct point_info own = {.name = handler->point[i].name,
                                       .stage = "worker",
                                       .span = handler->point[i].span,
                                       .sentence = handler->point[i].sentence,
                                       .id = (uint16_t)(LANE_POINT_FIRST + i)};
        tell_point(points, &own, json);
    }
    if (json) {
        json_dumpf(points, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        putchar('\n');
    }
    json_decref(points);
    return 0;
}

static int command_handler(struct arguments *arguments)
{
    static struct config config;

    int status = load(arguments, &config);
    if (status)
        return status;
    if (arguments->run.json) {
        json_dumpf(arguments->handler.json, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        putchar('\n');
    } else {
        handler_print(&config, &arguments->handler);
    }
    handler_free(&arguments->handler);
    config_free(&config);
    return 0;
}

static int command_status(const struct arguments *arguments)
{
    if (arguments->watch && arguments->run.json) {
        fputs("tickline: --watch is for people; for programs: tickline status --json\n", stderr);
        return 2;
    }
    return arguments->watch ? watch_run(arguments->config_path) : status_print(arguments->run.json);
}

int main(int argc, char **argv)
{
    static struct arguments arguments;

    if (argc < 2) {
        fputs("tickline: which command? for example: tickline check CONFIG; see tickline --help\n",
              stderr);
        return 2;
    }
    const char *command = argv[1];
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0 ||
        strcmp(command, "help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    int status = parse(argc - 1, argv + 1, &arguments);
    if (status)
        return status;
    if (arguments.help) {
        fputs(usage, stdout);
        return 0;
    }
    if (strcmp(command, "clean") == 0 && arguments.config_path) {
        fprintf(stderr, "tickline: %s: %s takes no argument; see tickline --help\n",
                arguments.config_path, command);
        return 2;
    }
    if (strcmp(command, "config") == 0)
        return command_config(&arguments);
    if (strcmp(command, "check") == 0)
        return command_check(&arguments);
    if (strcmp(command, "run") == 0)
        return command_run(&arguments);
    if (strcmp(command, "status") == 0)
        return command_status(&arguments);
    if (strcmp(command, "salvage") == 0)
        return salvage_runs(arguments.config_path, arguments.run.json);
    if (strcmp(command, "clean") == 0)
        return status_clean();
    if (strcmp(command, "points") == 0)
        return command_points(&arguments);
    if (strcmp(command, "handler") == 0)
        return command_handler(&arguments);
    fprintf(stderr,
            "tickline: %s: no such command; expected check, config, run, status, salvage, "
            "clean, points or handler\n",
            command);
    return 2;
}
