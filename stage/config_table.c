/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of keys, and finding one in it. A key that the program does not honour has no line here.
 */
#include "stage/config_table.h"

#include <errno.h>
#include <string.h>

#define AT(field)  .offset = offsetof(struct config, field)
#define CPUS(most) .special = "auto", .min = 1, .max = (most)
#define KIB        UINT64_C(1024)
#define MIB        (UINT64_C(1024) * 1024)
#define GIB        (UINT64_C(1024) * 1024 * 1024)
#define SECOND     UINT64_C(1000000000)

const struct config_key config_keys[] = {
    {"pipeline", "name", CONFIG_NAME, AT(pipeline.name), "", .words = "._-", .max = 48,
     .help = "Name of the run and of its directory; default: the file's name without its suffix."},
    {"pipeline", "schema", CONFIG_CHOICE, AT(pipeline.schema), "v1",
     .words = "v1|v2|v3|v4|fix|iex|datagram",
     .help = "v1 text, v2 binary, v3 protobuf, v4 Cap'n Proto, FIX, IEX, or datagrams as such."},

    {"rx", "source", CONFIG_WORD, AT(rx.source), "udp", .words = "udp|tcp|packet",
     .help = "Where requests come from: UDP, TCP connections, or frames tapped off rx.interface."},
    {"rx", "bind", CONFIG_ENDPOINTS, AT(rx.bind_count), "auto", .special = "auto",
     .help = "Addresses to receive at; auto: those the capture was sent to."},
    {"rx", "cpu", CONFIG_CPUS, AT(rx.cpu), "auto", CPUS(1),
     .help = "CPU of the receiving process; auto: chosen by the launcher."},
    {"rx", "io", CONFIG_CHOICE, AT(rx.io), "auto", .words = "auto|uring|plain",
     .help = "How to receive: io_uring, plain system calls, or what suits the case."},
    {"rx", "recv_buffers", CONFIG_U32, AT(rx.recv_buffers), "256", .min = 2, .max = 32768,
     .step = CONFIG_POWER_OF_TWO, .help = "Receive buffers (one holds a datagram) rx keeps ready."},
    {"rx", "burst", CONFIG_U32, AT(rx.burst), "32", .min = 1, .max = 256, .step = CONFIG_ANY,
     .help = "The most datagrams rx takes in one turn; at most recv_buffers."},
    {"rx", "socket_buffer", CONFIG_BYTES, AT(rx.socket_bytes), "64MiB", .min = 4 * KIB, .max = GIB,
     .step = CONFIG_ANY,
     .help = "Receive buffer asked of the kernel for each UDP socket; what it grants is recorded."},
    {"rx", "interface", CONFIG_NAME, AT(rx.interface), "any", .words = "._-", .max = 15,
     .help = "Interface where multicast groups are joined; any: as the routes say."},
    {"rx", "timestamps", CONFIG_CHOICE, AT(rx.timestamps), "software", .words = "software|hardware",
     .help = "Receive stamps of the kernel, or of the NIC (rx.interface) where it gives them."},
    {"rx", "connections", CONFIG_U32, AT(rx.connections), "256", .min = 1, .max = 1024,
     .step = CONFIG_ANY,
     .help = "tcp, packet: the most at once; refused beyond that, or the longest silent goes."},
    {"rx", "connection_buffer", CONFIG_BYTES32, AT(rx.connection_bytes), "64KiB", .min = 4 * KIB,
     .max = MIB, .step = CONFIG_POWER_OF_TWO,
     .help = "tcp, packet: buffer of each connection, reserved twice; holds the largest request."},
    {"rx", "idle", CONFIG_TIME, AT(rx.idle_ns), "never", .special = "never", .min = 1000000,
     .max = 86400 * SECOND, .step = CONFIG_ANY,
     .help = "tcp: how long a connection may be silent before it is closed."},
    {"rx", "quickack", CONFIG_SWITCH, AT(rx.quickack), "off", .words = "on|off",
     .help = "tcp: acknowledge at once what was received, rather than with a reply."},
    {"rx", "busy_poll", CONFIG_TIME, AT(rx.busy_poll_ns), "none", .special = "none", .min = 1000,
     .max = 1000000, .step = CONFIG_ANY,
     .help = "How long a read may poll the NIC's queue (SO_BUSY_POLL), where its driver can."},

    {"rx", "tap", CONFIG_SWITCH, AT(rx.blocks), "frames", .words = "blocks|frames",
     .help = "packet: each frame at once (TPACKET_V2), or by the block within 1 ms (TPACKET_V3)."},
    {"rx", "frame", CONFIG_BYTES32, AT(rx.frame_bytes), "auto", .special = "auto", .min = 128,
     .max = 128 * KIB, .step = CONFIG_ANY,
     .help = "packet, tap = frames: room for one, longer ones are cut; auto: the interface's MTU."},
    {"rx", "reorder", CONFIG_BYTES32, AT(rx.reorder_bytes), "64KiB", .min = 4 * KIB, .max = MIB,
     .step = CONFIG_ANY,
     .help = "packet: how far behind missing bytes TCP segments wait before these are given up."},
    {"rx", "promiscuous", CONFIG_SWITCH, AT(rx.promiscuous), "on", .words = "on|off",
     .help = "packet: frames that are for other hosts, too (as a mirror port sends)."},
    {"worker", "count", CONFIG_U32, AT(worker.count), "1", .min = 1, .max = CONFIG_WORKERS_MAX,
     .step = CONFIG_ANY, .help = "Worker processes."},
    {"worker", "handler", CONFIG_HANDLER, AT(worker.handler), "rot1",
     .words = "rot1|fizzbuzz|spin|cachewalk|alloc|book", .max = CONFIG_TEXT_MAX - 1,
     .help = "What a worker does with a request; its own keys stand in [handler.NAME]."},
    {"worker", "dispatch", CONFIG_CHOICE, AT(worker.dispatch), "flow",
     .words = "flow|key|round-robin",
     .help = "By sender or connection, or by request id: its order is kept; in turn: none is."},
    {"worker", "cpu", CONFIG_CPUS, AT(worker.cpu), "auto", CPUS(CONFIG_WORKERS_MAX),
     .help = "CPUs of the workers: one for all of them, or one each."},
    {"worker", "burst", CONFIG_U32, AT(worker.burst), "32", .min = 1, .max = 256,
     .step = CONFIG_ANY, .help = "The most requests a worker takes in one turn."},

    {"tx", "sink", CONFIG_WORD, AT(tx.sink), "udp", .words = "udp|tcp|reply",
     .help = "Where replies go: to tx.to by UDP or TCP, or back to who asked."},
    {"tx", "to", CONFIG_ENDPOINT, AT(tx.to), "auto", .special = "auto",
     .help = "Address replies are sent to; auto: the lab's sink."},
    {"tx", "cpu", CONFIG_CPUS, AT(tx.cpu), "auto", CPUS(1),
     .help = "CPU of the sending process; auto: chosen by the launcher."},
    {"tx", "io", CONFIG_CHOICE, AT(tx.io), "auto", .words = "auto|uring|plain",
     .help = "How to send: io_uring, plain system calls, or what suits the case."},
    {"tx", "connections", CONFIG_U32, AT(tx.connections), "1", .min = 1, .max = 64,
     .step = CONFIG_ANY, .help = "tcp: connections to tx.to; each flow keeps to one of them."},
    {"tx", "flush", CONFIG_FLUSH, AT(tx.flush), "1",
     .help = "tcp, reply: write so many at once (16), or after so long (100us), or either."},
    {"tx", "nodelay", CONFIG_SWITCH, AT(tx.nodelay), "on", .words = "on|off",
     .help = "tcp, reply: send small segments at once (Nagle's algorithm off)."},
    {"tx", "patience", CONFIG_TIME, AT(tx.patience_ns), "never", .special = "never", .min = 1000000,
     .max = 3600 * SECOND, .step = CONFIG_ANY,
     .help = "tcp, reply: a connection that takes nothing for so long is closed, and counted."},

    {"ring", "depth", CONFIG_U32, AT(ring.depth), "1024", .min = 2, .max = 65536,
     .step = CONFIG_POWER_OF_TWO, .help = "Slots of each ring between two processes."},
    {"ring", "slot", CONFIG_BYTES32, AT(ring.slot_bytes), "auto", .special = "auto", .min = 64,
     .max = 65664, .step = 64,
     .help = "Bytes of a slot with its header; auto: room for the largest request expected."},
    {"ring", "full", CONFIG_SWITCH, AT(ring.drop), "drop", .words = "drop|wait",
     .help = "What rx does when a worker's ring is full: drop the newest and count it, or wait."},

    {"trace", "stamps", CONFIG_SWITCH, AT(trace.stamps), "on", .words = "on|off",
     .help = "Stamp requests at every step."},
    {"trace", "sample", CONFIG_U32, AT(trace.sample), "1", .min = 1, .max = 1000000,
     .step = CONFIG_ANY, .help = "Stamp 1 request in so many, the same ones in every process."},
    {"trace", "lane", CONFIG_BYTES, AT(trace.lane_bytes), "8MiB", .min = 64 * KIB, .max = 4 * GIB,
     .step = CONFIG_POWER_OF_TWO,
     .help = "Trace memory of a process; records that find no room are discarded and counted."},

    {"trace", "keep", CONFIG_TIME, AT(trace.keep_ns), "all", .special = "all", .words = "last ",
     .min = SECOND, .max = 86400 * SECOND, .step = CONFIG_ANY,
     .help = "How much of the trace stays on disk: all, or what was written in so long."},
    {"trace", "max_bytes", CONFIG_BYTES, AT(trace.max_bytes), "none", .special = "none",
     .min = 16 * MIB, .max = 1024 * GIB, .step = CONFIG_ANY,
     .help = "Most that the trace may take on disk; the oldest goes first."},
    {"trace", "snapshot_over", CONFIG_TIME, AT(trace.snapshot_over_ns), "never", .special = "never",
     .min = 1000, .max = 3600 * SECOND, .step = CONFIG_ANY,
     .help = "Set aside what is on disk when a request took longer, at most once a second."},
    {"trace", "snapshots", CONFIG_U32, AT(trace.snapshots), "20", .min = 1, .max = 1000,
     .step = CONFIG_ANY, .help = "Most snapshots of a run."},
    {"trace", "counters", CONFIG_CHOICE, AT(trace.counters), "off", .words = "off|stage|span",
     .help = "The CPU's counters, or faults and switches, of each stage, or of each span (dear)."},

    {"tracer", "cpu", CONFIG_CPUS, AT(tracer.cpu), "auto", CPUS(1),
     .help = "CPU of the tracer; auto: away from the stages where there is room."},

    {"memory", "pages", CONFIG_CHOICE, AT(memory.pages), "want-2m", .words = "4k|want-2m|need-2m",
     .help = "Page size of the rings: 4 KiB, 2 MiB where there are some, 2 MiB or fail."},
    {"memory", "numa", CONFIG_NODE, AT(memory.numa), "auto", .special = "auto", .max = 1023,
     .help = "NUMA node of the shared memory; auto: that of each ring's consumer."},
    {"memory", "lock", CONFIG_CHOICE, AT(memory.lock), "want", .words = "no|want|need",
     .help = "Lock memory so that it is never paged out."},

    {"sched", "wait", CONFIG_CHOICE, AT(sched.wait), "auto", .words = "auto|spin|yield|park",
     .help = "What an idle stage does; auto: spin on a CPU of its own, else yield, then park."},
    {"sched", "park_after", CONFIG_TIME, AT(sched.park_after_ns), "200ms", .special = "never",
     .min = 1000, .max = 3600 * SECOND, .step = CONFIG_ANY,
     .help = "How long a stage that yields is idle before it parks and leaves its CPU alone."},

    {"isolate", "own_cpu", CONFIG_CHOICE, AT(isolate.own_cpu), "want", .words = "no|want|need",
     .help = "A CPU of its own for each stage; no: all stages share one."},
    {"isolate", "sandbox", CONFIG_CHOICE, AT(isolate.sandbox), "want", .words = "no|want|need",
     .help = "Stages that are open give up root, all capabilities and what calls they do not use."},
    {"isolate", "user", CONFIG_NAME, AT(isolate.user), "nobody", .words = "._-", .max = 31,
     .help = "User, by name or number, that sandboxed stages become."},

    {"supervise", "restart", CONFIG_SWITCH, AT(supervise.restart), "on", .words = "on|off",
     .help = "Replace a stage that was killed; off: its end is the end of the run."},
    {"supervise", "max_restarts", CONFIG_U32, AT(supervise.max_restarts), "5", .min = 1, .max = 64,
     .step = CONFIG_ANY,
     .help = "Restarts within supervise.window; one more, and the run is drained and fails."},
    {"supervise", "window", CONFIG_TIME, AT(supervise.window_ns), "10s", .min = 1000000,
     .max = 3600 * SECOND, .step = CONFIG_ANY, .help = "Time over which restarts are counted."},
    {"supervise", "ready_timeout", CONFIG_TIME, AT(supervise.ready_timeout_ns), "10s",
     .min = 100000000, .max = 3600 * SECOND, .step = CONFIG_ANY,
     .help = "How long the processes may take to get ready."},
    {"supervise", "drain_timeout", CONFIG_TIME, AT(supervise.drain_timeout_ns), "10s",
     .min = 100000000, .max = 3600 * SECOND, .step = CONFIG_ANY,
     .help = "How long the processes may take to finish what is under way at the end."},

    {"lab", "network", CONFIG_SWITCH, AT(lab.veth), "veth", .words = "veth|none",
     .help = "A private network of namespaces, or none: the host's own interfaces."},
    {"lab", "interface", CONFIG_NAME, AT(lab.interface), "any", .words = "._-", .max = 15,
     .help = "network = none: interface that captures are played into; any: none are."},
    {"lab", "cpu", CONFIG_CPUS, AT(lab.cpu), "auto", CPUS(2),
     .help = "CPU of player and sink: one for both, or one each in this order."},
    {"lab", "slow_sink", CONFIG_BYTES, AT(lab.slow_sink), "none", .special = "none", .min = 1,
     .max = GIB, .step = CONFIG_ANY,
     .help = "tcp, reply: most bytes of replies a second that the lab reads, as a slow one would."},

    {"replay", "capture", CONFIG_PATH, AT(replay.capture), "generated", .max = CONFIG_TEXT_MAX - 1,
     .help = "Capture to replay (a path, from where you stand), or generated from the keys below."},
    {"replay", "requests", CONFIG_U64, AT(replay.requests), "200k", .min = 1, .max = 1000000000,
     .step = CONFIG_ANY, .help = "Requests to generate."},
    {"replay", "rate", CONFIG_RATE, AT(replay.rate), "20k", .min = 1, .max = 10000000,
     .help = "Requests a second to generate, on average."},
    {"replay", "arrivals", CONFIG_WORD, AT(replay.arrivals), "bursts",
     .words = "fixed|poisson|bursts|ramp|onoff",
     .help = "How generated requests are spread over time; ramp rises to 1.9 of the rate."},
    {"replay", "on", CONFIG_TIME, AT(replay.on_ns), "10ms", .min = 1000, .max = 3600 * SECOND,
     .step = CONFIG_ANY, .help = "How long each busy period of the arrivals onoff is."},
    {"replay", "peak", CONFIG_U32, AT(replay.peak), "4", .min = 2, .max = 1000, .step = CONFIG_ANY,
     .help = "Rate in the busy periods of onoff, times the average; silence between."},
    {"replay", "payload", CONFIG_SIZES, AT(replay.payload), "8", .max = 65507,
     .help = "Payload bytes of a request: always 8, any of 8-64, 32 on average, with weights."},
    {"replay", "per_datagram", CONFIG_U32, AT(replay.per_datagram), "1", .min = 1, .max = 64,
     .step = CONFIG_ANY, .help = "Generated requests in a datagram."},
    {"replay", "flows", CONFIG_U32, AT(replay.flows), "16", .min = 1, .max = 4096,
     .step = CONFIG_ANY, .help = "Senders (UDP source ports) of generated requests."},
    {"replay", "flow_skew", CONFIG_SHARE, AT(replay.flow_skew), "0", .max = 1,
     .help = "How uneven senders are: 0 all alike, 1 the k-th sends 1/k of the first (Zipf)."},
    {"replay", "cuts", CONFIG_WORD, AT(replay.cuts), "segments", .words = "segments|none|random",
     .help = "tcp: how requests are written: as captured, one each, or cut at random bytes."},
    {"replay", "churn", CONFIG_U32, AT(replay.churn), "0", .max = 1000000, .step = CONFIG_ANY,
     .help = "tcp: requests that get a connection of their own, closed or reset 1 ms later."},
    {"replay", "errors", CONFIG_SHARE, AT(replay.errors), "0", .max = 1,
     .help = "Share of generated requests that are malformed."},
    {"replay", "error_kinds", CONFIG_NAME, AT(replay.error_kinds), "all", .words = "_,",
     .max = CONFIG_KINDS_MAX - 1,
     .help = "Kinds of malformed request, each in its turn: all, or reasons such as truncated."},
    {"replay", "seed", CONFIG_U64, AT(replay.seed), "1", .max = INT64_MAX, .step = CONFIG_ANY,
     .help = "Same seed, same capture."},
    {"replay", "speed", CONFIG_SPEED, AT(replay.speed), "1x",
     .help = "Speed of the replay: as captured (1x), that many times faster, 20kpps, or top."},
    {"replay", "warmup", CONFIG_U64, AT(replay.warmup), "2000", .max = 1000000000,
     .step = CONFIG_ANY, .help = "Requests sent before the measured phase."},
    {"replay", "reference", CONFIG_PATH, AT(replay.reference), "auto", .words = "a Python module",
     .max = CONFIG_TEXT_MAX - 1,
     .help = "Who says which replies are right; none: nobody does. See harness/ticklab/judge.py."},
};

const size_t config_key_count = sizeof(config_keys) / sizeof(config_keys[0]);

int config_find(const char *section, const char *name)
{
    for (size_t i = 0; i < config_key_count; i++) {
        if (strcmp(config_keys[i].section, section) == 0 && strcmp(config_keys[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

bool config_section_known(const char *section)
{
    if (strncmp(section, "handler.", 8) == 0)
        return section[8] != '\0';
    for (size_t i = 0; i < config_key_count; i++) {
        if (strcmp(config_keys[i].section, section) == 0)
            return true;
    }
    return false;
}

unsigned config_distance(const char *a, const char *b)
{
    enum { MOST = 48 };
    unsigned row[MOST + 1];
    size_t length = strlen(b);
    if (length > MOST || strlen(a) > MOST)
        return MOST;
    for (unsigned j = 0; j <= length; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= length; j++) {
            unsigned cost = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            unsigned shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = cost < shorter ? cost : shorter;
        }
    }
    return row[length];
}

/* Close enough to be meant: about a third of the letters may differ. */
static bool is_near(unsigned distance, const char *written)
{
    return distance <= (strlen(written) + 2) / 3;
}

void config_hint_section(const char *section, char hint[CONFIG_WHY_MAX])
{
    const char *nearest = "handler.NAME";
    unsigned best = strncmp(section, "handler", 7) == 0 ? 0 : UINT32_MAX;
    for (size_t i = 0; i < config_key_count; i++) {
        unsigned distance = config_distance(section, config_keys[i].section);
        if (distance < best) {
            best = distance;
            nearest = config_keys[i].section;
        }
    }
    if (is_near(best, section))
        snprintf(hint, CONFIG_WHY_MAX, "did you mean [%s]?", nearest);
    else
        snprintf(hint, CONFIG_WHY_MAX, "see tickline config --keys");
}

/* A key of the same section first; then the very name, or a near one, in another section. */
void config_hint_key(const char *section, const char *name, char hint[CONFIG_WHY_MAX])
{
    const struct config_key *nearest = NULL;
    unsigned best = UINT32_MAX;
    for (size_t i = 0; i < config_key_count; i++) {
        unsigned distance = 2 * config_distance(name, config_keys[i].name);
        if (!is_near(distance / 2, name))
            continue;
        distance += strcmp(section, config_keys[i].section) != 0 ? 3 : 0;
        if (distance < best) {
            best = distance;
            nearest = &config_keys[i];
        }
    }
    if (nearest == NULL)
        snprintf(hint, CONFIG_WHY_MAX, "see tickline config --keys");
    else if (strcmp(nearest->section, section) == 0)
        snprintf(hint, CONFIG_WHY_MAX, "did you mean %s?", nearest->name);
    else
        snprintf(hint, CONFIG_WHY_MAX, "did you mean %s in [%s]?", nearest->name, nearest->section);
}

bool config_word(const char *words, unsigned index, char *out, size_t size)
{
    for (; index > 0; index--) {
        words = strchr(words, '|');
        if (words == NULL)
            return false;
        words++;
    }
    snprintf(out, size, "%.*s", (int)strcspn(words, "|"), words);
    return true;
}

int config_write_keys(FILE *out)
{
    const char *section = "";
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        char expected[CONFIG_WHY_MAX];
        if (strcmp(section, key->section) != 0) {
            section = key->section;
            fprintf(out, "%s[%s]\n", i > 0 ? "\n" : "", section);
        }
        config_value_expected(key, expected);
        fprintf(out, "  %-14s %s (%s)\n                 %s\n", key->name, expected,
                key->initial[0] != '\0' ? key->initial : "the file's name", key->help);
    }
    fprintf(out, "\n[handler.NAME]\n  the keys of the handler that worker.handler names\n");
    return ferror(out) ? -EIO : 0;
}
