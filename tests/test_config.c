/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: every wrong input gets its one line, every right one comes back as it was.
 */
#include "stage/config.h"
#include "stage/config_table.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int parse(struct config *config, const char *text, char error[CONFIG_ERROR_MAX])
{
    return config_parse(config, text, strlen(text), "x.ini", error);
}

static bool same(const char *found, const char *expected)
{
    if (found != NULL && strcmp(found, expected) == 0)
        return true;
    fprintf(stderr, "\n  expected: %s\n  found:    %s\n", expected, found != NULL ? found : "NULL");
    return false;
}

#define SIZES(text)                                                                                \
    "x.ini:2: replay.payload = " text                                                              \
    ": expected bytes up to 65507: 8, 8-64, exp:32 or 8:90,256:9; try 8"

static const struct {
    const char *text, *error;
} wrong[] = {
    /* sections and keys */
    {"[wroker]\n", "x.ini:1: [wroker]: no such section; did you mean [worker]?"},
    {"\n[zzz]\na=1\n", "x.ini:2: [zzz]: no such section; see tickline config --keys"},
    {"[handler]\n", "x.ini:1: [handler]: no such section; did you mean [handler.NAME]?"},
    {"[]\n", "x.ini:1: []: no such section; see tickline config --keys"},
    {"[rx\n", "x.ini:1: [rx: expected [section]"},
    {"[rx] burst = 3\n",
     "x.ini:1: [rx] burst = 3: expected nothing behind the ]; write it on a new line"},
    {"[ring]\ndeph = 4\n", "x.ini:2: deph: no such key in [ring]; did you mean depth?"},
    {"[rx]\ndepth = 4\n", "x.ini:2: depth: no such key in [rx]; did you mean depth in [ring]?"},
    {"[rx]\nqwertyuiop = 4\n",
     "x.ini:2: qwertyuiop: no such key in [rx]; see tickline config --keys"},
    {"[tx]\nflush = 16,\n",
     "x.ini:2: tx.flush = 16,: expected replies up to 256, a time up to 100ms, "
     "or both: 16,100us; try 16,100us"},
    {"depth = 4\n", "x.ini:1: depth stands before any [section]; did you mean depth in [ring]?"},
    {"[rx]\nburst\n", "x.ini:2: burst: expected key = value or [section]"},
    {"[rx]\nburst = 3\n\nburst = 4\n",
     "x.ini:4: rx.burst is given twice, first in line 2; remove one"},
    {"[rx]\nburst = 3\n[tx]\n[rx]\nburst = 3\n",
     "x.ini:5: rx.burst is given twice, first in line 2; remove one"},
    /* counts */
    {"[ring]\ndepth = 1000\n",
     "x.ini:2: ring.depth = 1000: expected a power of two from 2 to 65536; try 1024"},
    {"[ring]\ndepth = 0\n",
     "x.ini:2: ring.depth = 0: expected a power of two from 2 to 65536; try 2"},
    {"[ring]\ndepth = 100000000000000000000\n",
     "x.ini:2: ring.depth = 100000000000000000000: expected a power of two from 2 to 65536; try "
     "1024"},
    {"[ring]\ndepth = 99999999\n",
     "x.ini:2: ring.depth = 99999999: expected a power of two from 2 to 65536; try 65536"},
    {"[ring]\ndepth = 0x400\n",
     "x.ini:2: ring.depth = 0x400: expected a power of two from 2 to 65536; try 1024"},
    {"[ring]\ndepth =\n",
     "x.ini:2: ring.depth = : expected a power of two from 2 to 65536; try 1024"},
    {"[worker]\ncount = 17\n",
     "x.ini:2: worker.count = 17: expected a number from 1 to 16; try 16"},
    {"[worker]\ncount = -1\n", "x.ini:2: worker.count = -1: expected a number from 1 to 16; try 1"},
    {"[worker]\ncount = 1.5\n",
     "x.ini:2: worker.count = 1.5: expected a number from 1 to 16; try 1"},
    {"[rx]\nburst = 257\n", "x.ini:2: rx.burst = 257: expected a number from 1 to 256; try 256"},
    {"[trace]\nsample = 0\n",
     "x.ini:2: trace.sample = 0: expected a number from 1 to 1000000; try 1"},
    {"[replay]\nrequests = 0\n",
     "x.ini:2: replay.requests = 0: expected a number from 1 to 1000000000; try 1"},
    /* units */
    {"[trace]\nlane = 8MB\n",
     "x.ini:2: trace.lane = 8MB: expected a power of two from 64KiB to 4GiB; try 8MiB"},
    {"[trace]\nlane = 3MiB\n",
     "x.ini:2: trace.lane = 3MiB: expected a power of two from 64KiB to 4GiB; try 4MiB"},
    {"[trace]\nlane = 1KiB\n",
     "x.ini:2: trace.lane = 1KiB: expected a power of two from 64KiB to 4GiB; try 64KiB"},
    {"[ring]\nslot = 100\n",
     "x.ini:2: ring.slot = 100: expected auto, or a multiple of 64 from 64B to 65664B; try 128B"},
    {"[ring]\nslot = 1MiB\n",
     "x.ini:2: ring.slot = 1MiB: expected auto, or a multiple of 64 from 64B to 65664B; try "
     "65664B"},
    {"[sched]\npark_after = 200\n",
     "x.ini:2: sched.park_after = 200: expected never, or a time from 1us to 3600s; try 200ms"},
    {"[sched]\npark_after = 0.5ns\n",
     "x.ini:2: sched.park_after = 0.5ns: expected never, or a time from 1us to 3600s; try 1us"},
    {"[supervise]\nready_timeout = 2h\n",
     "x.ini:2: supervise.ready_timeout = 2h: expected a time from 100ms to 3600s; try 10s"},
    {"[replay]\nrate = 20kHz\n",
     "x.ini:2: replay.rate = 20kHz: expected a rate a second from 1 to 10000000; try 20k"},
    {"[replay]\nrate = 0\n",
     "x.ini:2: replay.rate = 0: expected a rate a second from 1 to 10000000; try 1"},
    {"[replay]\nerrors = 2\n", "x.ini:2: replay.errors = 2: expected a share from 0 to 1; try 1"},
    {"[replay]\nspeed = 10\n",
     "x.ini:2: replay.speed = 10: expected top, a factor from 0.001x to 1000x, or 1pps to 10Mpps; "
     "try 1x"},
    {"[replay]\nspeed = 0.5pps\n", "x.ini:2: replay.speed = 0.5pps: expected top, a factor from "
                                   "0.001x to 1000x, or 1pps to 10Mpps; try 1pps"},
    {"[replay]\nspeed = 5000x\n", "x.ini:2: replay.speed = 5000x: expected top, a factor from "
                                  "0.001x to 1000x, or 1pps to 10Mpps; "
                                  "try top"},
    /* words */
    {"[worker]\ndispatch = flwo\n",
     "x.ini:2: worker.dispatch = flwo: expected flow, key or round-robin; try flow"},
    {"[pipeline]\nschema = v5\n",
     "x.ini:2: pipeline.schema = v5: expected v1, v2, v3, v4, fix, iex or datagram; try v1"},
    {"[trace]\nstamps = yes\n", "x.ini:2: trace.stamps = yes: expected on or off; try on"},
    {"[memory]\npages = 2m\n",
     "x.ini:2: memory.pages = 2m: expected 4k, want-2m or need-2m; try 4k"},
    {"[isolate]\nown_cpu = maybe\n",
     "x.ini:2: isolate.own_cpu = maybe: expected no, want or need; try want"},
    {"[rx]\nsource = tpc\n", "x.ini:2: rx.source = tpc: expected udp, tcp or packet; try tcp"},
    {"[rx]\nsource = tcp\nio = uring\n[pipeline]\nschema = v2\n",
     "x.ini:3: rx.io = uring: rx.source = tcp is read by plain calls; try auto or plain"},
    {"[rx]\nsource = tcp\n[pipeline]\nschema = iex\n",
     "x.ini:4: pipeline.schema = iex: a stream of bytes does not say where such a request ends; "
     "try v2, or rx.source = udp"},
    {"[rx]\nsource = packet\n", "x.ini:2: rx.source = packet: expected rx.interface too, the one "
                                "to tap; write its name there"},
    {"[pipeline]\nname = a/b\n",
     "x.ini:2: pipeline.name = a/b: expected 1 to 48 letters, digits and any of ._-"},
    {"[worker]\nhandler = x.so\n",
     "x.ini:2: worker.handler = x.so: expected rot1, fizzbuzz, spin, cachewalk, alloc or book, or "
     "./PATH.so; try rot1"},
    {"[worker]\nhandler = ./x.so\n[handler.a]\nb = 1\n[handler.c]\n",
     "x.ini:5: [handler.c]: expected at most one handler of one's own, and [handler.a] is there; "
     "remove one"},
    /* lists */
    {"[rx]\ncpu = 1,2\n", "x.ini:2: rx.cpu = 1,2: expected auto, or one CPU below 1024; try auto"},
    {"[rx]\ncpu = 1024\n",
     "x.ini:2: rx.cpu = 1024: expected auto, or one CPU below 1024; try auto"},
    {"[worker]\ncpu = 5-3\n",
     "x.ini:2: worker.cpu = 5-3: expected auto, or at most 16 CPUs below 1024, written 1,3-5; "
     "try auto"},
    {"[worker]\ncpu = 1,\n",
     "x.ini:2: worker.cpu = 1,: expected auto, or at most 16 CPUs below 1024, written 1,3-5; try "
     "auto"},
    {"[worker]\ncpu = 0-16\n",
     "x.ini:2: worker.cpu = 0-16: expected auto, or at most 16 CPUs below 1024, written 1,3-5; "
     "try auto"},
    {"[rx]\nbind = localhost:9000\n",
     "x.ini:2: rx.bind = localhost:9000: expected auto, or ADDRESS:PORT,..., numeric, IPv6 in "
     "brackets, none twice; try 0.0.0.0:9000"},
    {"[rx]\nbind = 1.2.3.4:9000,1.2.3.4:9000\n",
     "x.ini:2: rx.bind = 1.2.3.4:9000,1.2.3.4:9000: expected auto, or ADDRESS:PORT,..., numeric, "
     "IPv6 in brackets, none twice; try each once"},
    {"[tx]\nto = ::1:9000\n",
     "x.ini:2: tx.to = ::1:9000: expected auto, or ADDRESS:PORT, numeric, IPv6 in brackets; try "
     "auto"},
    {"[tx]\nto = 10.0.0.1:65536\n",
     "x.ini:2: tx.to = 10.0.0.1:65536: expected auto, or ADDRESS:PORT, numeric, IPv6 in "
     "brackets; try auto"},
    {"[memory]\nnuma = -1\n",
     "x.ini:2: memory.numa = -1: expected auto, or a node from 0 to 1023; try auto"},
    /* what must hold between keys */
    {"[worker]\ncount = 3\ncpu = 1-2\n",
     "x.ini:3: worker.cpu = 1-2: 2 CPUs for worker.count = 3; expected one, or one each"},
    {"[rx]\nrecv_buffers = 16\n",
     "x.ini:2: rx.recv_buffers = 16: expected at least rx.burst = 32; try 32"},
    {"[rx]\nrecv_buffers = 16\nburst = 17\n",
     "x.ini:3: rx.burst = 17: expected at most rx.recv_buffers = 16; try 16"},
    {"[rx]\nbind = 10.0.0.1:9000\n[tx]\nto = 10.0.0.1:9000\n",
     "x.ini:4: tx.to = 10.0.0.1:9000: replies would come back as requests, rx.bind has this "
     "address; try another port"},
    {"[replay]\npayload = 10000\n",
     "x.ini:2: replay.payload = 10000: expected at most 9999 for schema v1; try 9999"},
    {"[replay]\npayload = exp:625\n",
     "x.ini:2: replay.payload = exp:625: expected at most 9999 for schema v1; try 9999"},
    {"[replay]\npayload = 8:1,10000:1\n",
     "x.ini:2: replay.payload = 8:1,10000:1: expected at most 9999 for schema v1; try 9999"},
    {"[replay]\npayload = 64-8\n", SIZES("64-8")},
    {"[replay]\npayload = -8\n", SIZES("-8")},
    {"[replay]\npayload = 8-\n", SIZES("8-")},
    {"[replay]\npayload = 8:\n", SIZES("8:")},
    {"[replay]\npayload = 8:0\n", SIZES("8:0")},
    {"[replay]\npayload = 8:1,\n", SIZES("8:1,")},
    {"[replay]\npayload = 8:1,9\n", SIZES("8:1,9")},
    {"[replay]\npayload = exp:1\n", SIZES("exp:1")},
    {"[replay]\npayload = exp:9x\n", SIZES("exp:9x")},
    {"[replay]\npayload = 0-65508\n", SIZES("0-65508")},
    {"[pipeline]\nschema = datagram\n[replay]\nerrors = 1%\n",
     "x.ini:4: replay.errors = 0.01: a request of the schema datagram is never malformed; try 0"},
    /* keys of handlers */
    {"[handler.rot1]\na = 1\na = 2\n",
     "x.ini:3: handler.rot1.a is given twice, first in line 2; remove one"},
    {"[handler.rot1]\nA B = 1\n",
     "x.ini:2: handler.rot1.A B: expected a key of at most 63 of a-z, 0-9 and _; rename it"},
    {"[handler.rot1]\na =\n", "x.ini:2: handler.rot1.a: expected a value of 1 to 255 bytes"},
    /* not text */
    {"[rx]\n\x01\x02\n", "x.ini:2: expected text, found the byte 0x01; is this an INI file?"},
    {"[replay]\ncapture = a\xff.pcap\n",
     "x.ini:2: replay.capture = a?.pcap: expected text in UTF-8 without control characters"},
};

static void test_wrong(void)
{
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct config config;
        char error[CONFIG_ERROR_MAX];
        CU_ASSERT_EQUAL(parse(&config, wrong[i].text, error), -EINVAL);
        CU_ASSERT(same(error, wrong[i].error));
        CU_ASSERT_PTR_NULL(config.origins);
    }
}

static void test_binary(void)
{
    struct config config;
    char error[CONFIG_ERROR_MAX];
    static const char elf[] = "\x7f"
                              "ELF\0\0\0";
    CU_ASSERT_EQUAL(config_parse(&config, elf, sizeof(elf), "tickline", error), -EINVAL);
    CU_ASSERT(same(error, "tickline:1: expected text, found the byte 0x7f; is this an INI file?"));
    CU_ASSERT_EQUAL(config_parse(&config, "[rx]\0", 5, "x.ini", error), -EINVAL);
    CU_ASSERT(same(error, "x.ini:1: expected text, found the byte 0x00; is this an INI file?"));
    char *line = malloc(100000);
    memset(line, 'a', 100000);
    CU_ASSERT_EQUAL(config_parse(&config, line, 100000, "x.ini", error), -EINVAL);
    CU_ASSERT(same(error, "x.ini:1: expected a line of at most 8191 bytes; is this an INI file?"));
    free(line);
}

/* An error never has more than one line, nor more room than it was given. */
static void test_error_is_one_line(void)
{
    char text[3000] = "[rx]\ncpu = ", error[CONFIG_ERROR_MAX];
    struct config config;
    memset(text + 11, 'x', 2500);
    CU_ASSERT_EQUAL(parse(&config, text, error), -EINVAL);
    CU_ASSERT(strlen(error) < 300);
    struct config_override override = {"rx.cpu=1\n2\x1b[31m", false};
    CU_ASSERT_EQUAL(config_load(&config, "/dev/null", &override, 1, error), -EINVAL);
    CU_ASSERT(same(error, "command line: rx.cpu = 1?2?[31m: expected auto, or one CPU below 1024; "
                          "try auto"));
}

static void test_files(void)
{
    struct config config;
    char error[CONFIG_ERROR_MAX];
    CU_ASSERT_EQUAL(config_load(&config, "/nowhere/x.ini", NULL, 0, error), -ENOENT);
    CU_ASSERT(same(error, "/nowhere/x.ini: No such file or directory; expected an INI file, try "
                          "configs/isolated.ini"));
    CU_ASSERT_EQUAL(config_load(&config, "/tmp", NULL, 0, error), -EISDIR);
    CU_ASSERT(same(error, "/tmp: Is a directory; expected an INI file, try configs/isolated.ini"));
    CU_ASSERT_EQUAL(config_load(&config, "/dev/zero", NULL, 0, error), -EFBIG);
    CU_ASSERT_EQUAL(config_load(&config, "/dev/null", NULL, 0, error), 0);
    CU_ASSERT(same(config.pipeline.name, "null"));
    CU_ASSERT(same(config_text(&config, "ring.depth"), "1024"));
    config_free(&config);
}

static void test_defaults(void)
{
    struct config config;
    char error[CONFIG_ERROR_MAX];
    CU_ASSERT_EQUAL_FATAL(config_parse(&config, "", 0, "some/where/my run.v2.ini", error), 0);
    CU_ASSERT(same(config.pipeline.name, "my-run.v2"));
    CU_ASSERT_EQUAL(config.pipeline.schema, SCHEMA_V1);
    CU_ASSERT_EQUAL(config.rx.bind_count, 0);
    CU_ASSERT_EQUAL(config.rx.cpu.count, 0);
    CU_ASSERT_EQUAL(config.rx.recv_buffers, 256);
    CU_ASSERT_EQUAL(config.rx.burst, 32);
    CU_ASSERT_EQUAL(config.rx.socket_bytes, 64 << 20);
    CU_ASSERT_EQUAL(config.worker.count, 1);
    CU_ASSERT(same(config.worker.handler, "rot1"));
    CU_ASSERT_EQUAL(config.tx.to.port, 0);
    CU_ASSERT_EQUAL(config.ring.depth, 1024);
    CU_ASSERT_EQUAL(config.ring.slot_bytes, 0);
    CU_ASSERT_TRUE(config.ring.drop);
    CU_ASSERT_TRUE(config.trace.stamps);
    CU_ASSERT_EQUAL(config.trace.lane_bytes, 8 << 20);
    CU_ASSERT_EQUAL(config.memory.pages, PAGES_WANT_2M);
    CU_ASSERT_EQUAL(config.memory.numa, -1);
    CU_ASSERT_EQUAL(config.memory.lock, WISH_WANT);
    CU_ASSERT_EQUAL(config.sched.wait, WAIT_AUTO);
    CU_ASSERT_EQUAL(config.sched.park_after_ns, 200000000);
    CU_ASSERT_EQUAL(config.isolate.own_cpu, WISH_WANT);
    CU_ASSERT(same(config.replay.capture, "generated"));
    CU_ASSERT_EQUAL(config.replay.requests, 200000);
    CU_ASSERT_DOUBLE_EQUAL(config.replay.rate, 20000, 0);
    CU_ASSERT(same(config.replay.arrivals, "bursts"));
    CU_ASSERT(same(config.replay.speed, "1x"));
    config_free(&config);
}

/* What is written, its canonical form. */
static const struct {
    const char *key, *text, *canonical;
} forms[] = {
    {"trace.lane", "8388608", "8MiB"},
    {"trace.lane", "1 GiB", "1GiB"},
    {"trace.lane", "0.5MiB", "512KiB"},
    {"trace.lane", "65536B", "64KiB"},
    {"rx.socket_buffer", "212992", "208KiB"},
    {"rx.socket_buffer", "5000", "5000B"},
    {"sched.park_after", "1500us", "1500us"},
    {"sched.park_after", "0.25s", "250ms"},
    {"sched.park_after", "never", "never"},
    {"sched.park_after", "1000ns", "1us"},
    {"replay.requests", "1.5M", "1500000"},
    {"replay.rate", "12.5k", "12500"},
    {"replay.rate", "20k/s", "20000"},
    {"replay.rate", "0.1M", "100000"},
    {"replay.rate", "3333.3", "3333.3"},
    {"replay.errors", "0.5%", "0.005"},
    {"replay.errors", "1", "1"},
    {"replay.speed", "0.5x", "0.5x"},
    {"replay.speed", "010x", "10x"},
    {"replay.speed", "top", "top"},
    {"replay.speed", "20kpps", "20000pps"},
    {"replay.speed", "0.5Mpps", "500000pps"},
    {"replay.speed", "1pps", "1pps"},
    {"replay.payload", "8-64", "8-64"},
    {"replay.payload", "exp:32", "exp:32"},
    {"replay.payload", "8:90,256:9,1024:1", "8:90,256:9,1024:1"},
    {"replay.on", "0.5ms", "500us"},
    {"replay.seed", "9223372036854775807", "9223372036854775807"},
    {"worker.cpu", "7", "7"},
    {"worker.cpu", "auto", "auto"},
    {"lab.cpu", "3-4", "3-4"},
    {"lab.cpu", "4, 3", "4,3"},
    {"rx.bind", "[::0:1]:80, 1.2.3.4:9", "[::1]:80,1.2.3.4:9"},
    {"tx.to", "[fe80:0::1]:7", "[fe80::1]:7"},
    {"ring.slot", "1KiB", "1KiB"},
    {"ring.slot", "65664", "65664B"},
    {"ring.full", "wait", "wait"},
    {"memory.numa", "3", "3"},
    {"replay.capture", "my file.pcap", "my file.pcap"},
};

static void test_forms(void)
{
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct config config;
        char text[256], error[CONFIG_ERROR_MAX];
        struct config_override override = {text, false};
        snprintf(text, sizeof(text), "%s=%s", forms[i].key, forms[i].text);
        CU_ASSERT_EQUAL_FATAL(config_load(&config, "/dev/null", &override, 1, error), 0);
        CU_ASSERT(same(config_text(&config, forms[i].key), forms[i].canonical));
        config_free(&config);
    }
}

static void test_tolerated(void)
{
    struct config config;
    char error[CONFIG_ERROR_MAX];
    CU_ASSERT_EQUAL_FATAL(parse(&config,
                                "\xef\xbb\xbf# comment\r\n[worker] ; comment\r\n"
                                "\tcount = 2 # two\r\n   cpu: 3,1\r\n\r\n"
                                "[replay]\r\ncapture = d\xc3\xa9j\xc3\xa0#1.pcap",
                                error),
                          0);
    CU_ASSERT_EQUAL(config.worker.count, 2);
    CU_ASSERT_EQUAL(config.worker.cpu.count, 2);
    CU_ASSERT_EQUAL(config.worker.cpu.cpu[0], 3);
    CU_ASSERT_EQUAL(config.worker.cpu.cpu[1], 1);
    CU_ASSERT(same(config.replay.capture, "d\xc3\xa9j\xc3\xa0#1.pcap"));
    config_free(&config);
}

/* The text of config_write or config_write_json; the caller frees. */
static char *written(const struct config *config,
                     int (*write)(const struct config *config, FILE *out))
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    CU_ASSERT_EQUAL(write(config, out), 0);
    fclose(out);
    return text;
}

static const struct config_override many[] = {
    {"rx.bind=10.0.0.1:9000,[::1]:9001", false},
    {"tx.to=10.0.0.2:9000@the lab", true},
    {"worker.count=3", false},
    {"worker.cpu=1,3-4", false},
    {"worker.handler=fizzbuzz", false},
    {"handler.fizzbuzz.most=7", false},
    {"handler.fizzbuzz.word=a b", false},
    {"replay.rate=3333.3", false},
    {"replay.speed=0.1x", false},
    {"sched.park_after=never", false},
};

/* Cuts off what stands behind the values. */
static void drop_origins(char *text)
{
    char *to = text;
    for (bool comment = false; *text != '\0'; text++) {
        comment = *text != '\n' && (comment || *text == ';');
        if (!comment)
            *to++ = *text;
    }
    *to = '\0';
}

static void test_round_trip(void)
{
    struct config config, again;
    char error[CONFIG_ERROR_MAX];
    size_t count = sizeof(many) / sizeof(many[0]);
    CU_ASSERT_EQUAL_FATAL(config_load(&config, "/dev/null", many, count, error), 0);
    char *text = written(&config, config_write);
    CU_ASSERT_EQUAL_FATAL(config_parse(&again, text, strlen(text), "config.ini", error), 0);
    char *text_again = written(&again, config_write);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "count = 3 ; command line\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "to = 10.0.0.2:9000 ; the lab\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "depth = 1024 ; default\n"));
    CU_ASSERT(same(config_handler_get(&again, "word"), "a b"));
    CU_ASSERT_PTR_NULL(config_handler_get(&again, "none"));
    drop_origins(text);
    drop_origins(text_again);
    CU_ASSERT(same(text_again, text));
    CU_ASSERT_EQUAL(again.rx.bind[1].port, 9001);
    CU_ASSERT_EQUAL(again.sched.park_after_ns, 0);
    CU_ASSERT_DOUBLE_EQUAL(again.replay.rate, 3333.3, 0);
    free(text);
    free(text_again);
    config_free(&config);
    config_free(&again);
}

static void test_json(void)
{
    struct config config;
    char error[CONFIG_ERROR_MAX];
    const char *value, *origin;
    CU_ASSERT_EQUAL_FATAL(
        config_load(&config, "/dev/null", many, sizeof(many) / sizeof(many[0]), error), 0);
    char *text = written(&config, config_write_json);
    json_t *all = json_loads(text, 0, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(all);
    CU_ASSERT_EQUAL(json_object_size(all), config_key_count + 2);
    json_t *lane = json_object_get(all, "trace.lane");
    CU_ASSERT_EQUAL(json_unpack(lane, "{s:s, s:s}", "value", &value, "origin", &origin), 0);
    CU_ASSERT(same(value, "8MiB"));
    CU_ASSERT(same(origin, "default"));
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(lane, "number")), 8 << 20);
    CU_ASSERT_PTR_NULL(json_object_get(json_object_get(all, "ring.slot"), "number"));
    json_t *word = json_object_get(all, "handler.fizzbuzz.word");
    CU_ASSERT(same(json_string_value(json_object_get(word, "value")), "a b"));
    CU_ASSERT(same(json_string_value(json_object_get(word, "origin")), "command line"));
    json_decref(all);
    free(text);
    config_free(&config);
}

/* The file, then --set in order, then --fill where a key is still auto. */
static void test_precedence(void)
{
    char path[] = "/tmp/test_configXXXXXX", error[CONFIG_ERROR_MAX], *text;
    int file = mkstemp(path);
    struct config config;
    const struct config_override override[] = {
        {"rx.bind=1.1.1.1:1@the capture", true},
        {"tx.to=2.2.2.2:2@the lab", true},
        {"ring.depth=64", false},
        {"ring.depth = 128 ", false},
        {"tx.to=3.3.3.3:3", false},
        {"rx.bind=auto", false},
    };
    CU_ASSERT_FATAL(file >= 0);
    CU_ASSERT(write(file, "[ring]\ndepth=32\n[trace]\nsample=9\n", 33) == 33);
    close(file);
    CU_ASSERT_EQUAL_FATAL(config_load(&config, path, override, 6, error), 0);
    CU_ASSERT_EQUAL(config.ring.depth, 128);
    CU_ASSERT_EQUAL(config.trace.sample, 9);
    CU_ASSERT(same(config_text(&config, "rx.bind"), "1.1.1.1:1"));
    CU_ASSERT(same(config_text(&config, "tx.to"), "3.3.3.3:3"));
    text = written(&config, config_write);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "bind = 1.1.1.1:1 ; the capture\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, ":4\n"));
    free(text);
    CU_ASSERT_EQUAL(config_blame(&config, "trace.sample", error, "too %s", "bad"), -EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(error, ":4: trace.sample = 9: too bad"));
    config_free(&config);
    unlink(path);
}

static const struct {
    struct config_override override;
    const char *error;
} wrong_overrides[] = {
    {{"ring.depth", false},
     "command line: ring.depth: expected section.key=value, as in ring.depth=1024"},
    {{"depth=4", false},
     "command line: depth=4: expected section.key=value, as in ring.depth=1024"},
    {{"rign.depth=4", false}, "command line: [rign]: no such section; did you mean [ring]?"},
    {{"ring.dpth=4", false}, "command line: dpth: no such key in [ring]; did you mean depth?"},
    {{"ring.depth=5", false},
     "command line: ring.depth = 5: expected a power of two from 2 to 65536; try 4"},
    {{"rx.bind=1.1.1.1:1", true},
     "--fill: rx.bind=1.1.1.1:1: expected section.key=value@ORIGIN, as in ring.depth=1024@the "
     "capture"},
    {{"rx.bind=nonsense@the capture", true},
     "the capture: rx.bind = nonsense: expected auto, or ADDRESS:PORT,..., numeric, IPv6 in "
     "brackets, none twice; try 0.0.0.0:9000"},
    {{"ring.depth=4@x", true}, "x: ring.depth: expected a key that can be auto; use --set"},
    {{"replay.capture=a ;b", false},
     "command line: replay.capture = a ;b: a ; after a space begins a comment in a "
     "configuration; rename it"},
};

static void test_wrong_overrides(void)
{
    for (size_t i = 0; i < sizeof(wrong_overrides) / sizeof(wrong_overrides[0]); i++) {
        struct config config;
        char error[CONFIG_ERROR_MAX];
        CU_ASSERT_EQUAL(config_load(&config, "/dev/null", &wrong_overrides[i].override, 1, error),
                        -EINVAL);
        CU_ASSERT(same(error, wrong_overrides[i].error));
    }
}

/* Only the keys of the handler that was chosen are kept. */
static void test_handlers(void)
{
    struct config config;
    char error[CONFIG_ERROR_MAX];
    CU_ASSERT_EQUAL_FATAL(
        parse(&config, "[handler.fizzbuzz]\na = 1\n[handler.rot1]\na = 2\nb = 3\n", error), 0);
    CU_ASSERT_EQUAL(config.handler.count, 2);
    CU_ASSERT(same(config_handler_get(&config, "a"), "2"));
    config_free(&config);
}

/* Every key has a sentence, and its default is what `config --keys` says. */
static void test_keys(void)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    CU_ASSERT_EQUAL(config_write_keys(out), 0);
    fclose(out);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "  depth          a power of two from 2 to 65536 (1024)\n"
                                        "                 Slots of each ring"));
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        CU_ASSERT(strlen(line) <= 100);
    free(text);
}

int main(void)
{
    if (CU_initialize_registry() != CUE_SUCCESS)
        return 1;
    CU_pSuite suite = CU_add_suite("config", NULL, NULL);
    CU_add_test(suite, "wrong inputs", test_wrong);
    CU_add_test(suite, "what is not text", test_binary);
    CU_add_test(suite, "errors are one line", test_error_is_one_line);
    CU_add_test(suite, "files", test_files);
    CU_add_test(suite, "defaults", test_defaults);
    CU_add_test(suite, "canonical forms", test_forms);
    CU_add_test(suite, "tolerated forms", test_tolerated);
    CU_add_test(suite, "write and read back", test_round_trip);
    CU_add_test(suite, "JSON", test_json);
    CU_add_test(suite, "precedence", test_precedence);
    CU_add_test(suite, "wrong overrides", test_wrong_overrides);
    CU_add_test(suite, "handlers", test_handlers);
    CU_add_test(suite, "list of keys", test_keys);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    return failed > 0 ? 1 : 0;
}
