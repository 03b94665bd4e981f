/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: one strict INI file, overridden by --set, completed by --fill.
 *
 * Every key is known by name, type, unit and range (config_table.c has the only list); an
 * unknown section or key, a doubled key, a bad unit or a value out of range is an error of one line
 * that says where it stands, what was expected and how to mend it. Every effective value keeps its
 * origin.
 *
 * Values may carry units: bytes `4MiB`, times `10us`, rates `20k`, CPU lists `1,3-5`. Whatever is
 * called _ns is nanoseconds here, _bytes bytes, whatever unit the file used.
 *
 * A struct config is plain data owned by the caller; nothing in it is shared. Not for the hot path.
 */
#ifndef TICKLINE_STAGE_CONFIG_H
#define TICKLINE_STAGE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    CONFIG_WORKERS_MAX = 16,
    CONFIG_ENDPOINTS_MAX = 64,
    CONFIG_CPUS_MAX = 1024,
    CONFIG_HANDLER_KEYS_MAX = 32,
    CONFIG_HANDLER_NAME_MAX = 31,
    CONFIG_TEXT_MAX = 4096,
    CONFIG_ERROR_MAX = 512,
    CONFIG_SIZES_MAX = 128,
    CONFIG_KINDS_MAX = 256,
};

enum config_schema {
    SCHEMA_V1,
    SCHEMA_V2,
    SCHEMA_V3,
    SCHEMA_V4,
    SCHEMA_FIX,
    SCHEMA_IEX,
    SCHEMA_DATAGRAM,
};
enum config_io { IO_AUTO, IO_URING, IO_PLAIN };
enum config_dispatch { DISPATCH_FLOW, DISPATCH_KEY, DISPATCH_ROUND_ROBIN };
enum config_wait { WAIT_AUTO, WAIT_SPIN, WAIT_YIELD, WAIT_PARK };
enum config_wish { WISH_NO, WISH_WANT, WISH_NEED };
enum config_timestamps { TIMESTAMPS_SOFTWARE, TIMESTAMPS_HARDWARE };
enum config_counters { COUNTERS_OFF, COUNTERS_STAGE, COUNTERS_SPAN };
enum config_pages { PAGES_4K, PAGES_WANT_2M, PAGES_NEED_2M };

/* A list of CPUs in the order written (`1,3-5`); count 0 stands for `auto`. */
struct config_cpus {
    uint32_t count;
    uint16_t cpu[CONFIG_CPUS_MAX];
};

/* One address to bind or to send to: numeric text without brackets; port in host order. */
struct config_endpoint {
    char address[64];
    uint16_t port;
};

/* `16`, `100us` or `16,100us`: what is gathered is written once it is so many replies, or once the
 * oldest of them has waited so long; without a time, at the end of each turn. */
struct config_flush {
    uint32_t count;
    uint64_t wait_ns; /* 0: does not wait for more */
};

struct config {
    struct {
        char name[64];
        enum config_schema schema;
    } pipeline;
    struct {
        char source[16];     /* udp, tcp, packet */
        uint32_t bind_count; /* 0: auto (from the capture) */
        struct config_endpoint bind[CONFIG_ENDPOINTS_MAX];
        struct config_cpus cpu;
        enum config_io io;
        uint32_t recv_buffers; /* receive buffers (datagrams) rx holds */
        uint32_t burst;        /* most datagrams taken in one turn */
        uint64_t socket_bytes; /* SO_RCVBUF asked for */
        char interface[16];    /* where groups are joined; any: as the routes say */
        enum config_timestamps timestamps;
        uint32_t connections;      /* tcp: at most at once */
        uint32_t connection_bytes; /* tcp: receive buffer of each */
        uint64_t idle_ns;          /* tcp: a connection silent for so long is closed; 0: never */
        bool quickack;             /* tcp: acknowledge at once */
        uint64_t busy_poll_ns;     /* SO_BUSY_POLL of each socket; 0: none */
        bool blocks;               /* packet: frames come by the block */
        uint32_t reorder_bytes;    /* packet: how far behind a gap TCP segments are held */
        uint32_t frame_bytes;      /* packet: room for a frame; 0: the interface's MTU */
        bool promiscuous;          /* packet: frames that are for other hosts, too */
    } rx;
    struct {
        uint32_t count;
        char handler[CONFIG_TEXT_MAX]; /* a word, or the path of a shared object (with a /) */
        enum config_dispatch dispatch;
        struct config_cpus cpu;
        uint32_t burst;
    } worker;
    struct {
        char sink[16];             /* udp, tcp, reply */
        struct config_endpoint to; /* port 0: auto (the lab's sink) */
        struct config_cpus cpu;
        enum config_io io;
        uint32_t connections;      /* tcp: outgoing ones; a flow keeps to one of them */
        struct config_flush flush; /* tcp, reply: when what waits for a connection is written */
        bool nodelay;              /* TCP_NODELAY */
        uint64_t patience_ns;      /* tcp, reply: a connection that takes nothing for so long is
                                     * given up; 0: never */
    } tx;
    struct {
        uint32_t depth;      /* slots, a power of two */
        uint32_t slot_bytes; /* header included, a multiple of 64; 0: auto */
        bool drop;           /* full = drop (datagrams) */
    } ring;
    struct {
        bool stamps;
        uint32_t sample; /* stamp 1 request in n */
        uint64_t lane_bytes;
        uint64_t keep_ns;          /* 0: all */
        uint64_t max_bytes;        /* 0: no limit */
        uint64_t snapshot_over_ns; /* 0: never */
        uint32_t snapshots;        /* at most */
        enum config_counters counters;
    } trace;
    struct {
        struct config_cpus cpu;
    } tracer;
    struct {
        enum config_pages pages;
        int32_t numa; /* -1: auto */
        enum config_wish lock;
    } memory;
    struct {
        enum config_wait wait;
        uint64_t park_after_ns; /* idle for so long before `auto` parks; 0: never */
    } sched;
    struct {
        enum config_wish own_cpu; /* a CPU of its own for every stage; no: they share one */
        enum config_wish sandbox; /* stages keep no right that they need no more */
        char user[32];            /* whom they become for it: a name or a number */
    } isolate;
    struct {
        bool restart;
        uint32_t max_restarts; /* of all stages together, within window_ns */
        uint64_t window_ns;
        uint64_t ready_timeout_ns;
        uint64_t drain_timeout_ns;
    } supervise;
    struct {
        bool veth;          /* network = veth: namespaces of its own */
        char interface[16]; /* network = none: what the player sends on; any: nothing is played */
        struct config_cpus cpu; /* one for player and sink, or one each in this order */
        uint64_t slow_sink;     /* bytes a second; 0: as many as come */
    } lab;
    struct {
        char capture[CONFIG_TEXT_MAX]; /* `generated` or a path */
        uint64_t requests;
        double rate;                    /* requests a second */
        char arrivals[16];              /* fixed | poisson | bursts | ramp | onoff */
        uint64_t on_ns;                 /* onoff: a busy period */
        uint32_t peak;                  /* onoff: rate in it, times the average */
        char payload[CONFIG_SIZES_MAX]; /* bytes: 8 | 8-64 | exp:32 | 8:90,256:9 */
        uint32_t per_datagram;          /* requests */
        uint32_t flows;                 /* senders */
        double flow_skew;               /* exponent of Zipf's law */
        char cuts[16];                  /* segments | none | random */
        uint32_t churn;                 /* connections */
        double errors;                  /* share of malformed requests, 0..1 */
        char error_kinds[CONFIG_KINDS_MAX];
        uint64_t seed;
        char speed[16];                  /* 1x, 10x, 0.5x, 20000pps, top */
        uint64_t warmup;                 /* requests */
        char reference[CONFIG_TEXT_MAX]; /* auto, none, or the path of a Python module */
    } replay;
    struct {
        char name[CONFIG_HANDLER_NAME_MAX + 1]; /* NAME; empty: a path, and no such section */
        uint32_t count;
        struct {
            char key[64];
            char value[256];
        } item[CONFIG_HANDLER_KEYS_MAX];
    } handler; /* the section [handler.NAME] of worker.handler */
    /* Canonical text and origin of every key in the order of the table, then of the handler's keys;
     * freed by config_free. */
    struct config_origin *origins;
};

/*
 * Reads `path`, applies the `count` overrides in order, checks every value and the relations
 * between them. An override is `section.key=value`; where `fill` is true it is
 * `section.key=value@ORIGIN` and takes effect only on a key that is still auto. 0, or -errno with
 * one line (no newline) in `error`: -EINVAL what is written is wrong, -ENOENT and other errors of
 * open(2) the file cannot be read. Free with config_free after success; after an error nothing is
 * left to free. One thread at a time.
 */
struct config_override {
    const char *text;
    bool fill;
};
int config_load(struct config *config, const char *path, const struct config_override *override,
                size_t count, char error[CONFIG_ERROR_MAX]);

/* The same from text that config_write has written; `name` is what errors call it. */
int config_parse(struct config *config, const char *text, size_t length, const char *name,
                 char error[CONFIG_ERROR_MAX]);

void config_free(struct config *config);

/* Effective values as INI text that config_parse reads back to the same values, origins as
 * comments. 0 or -EIO. */
int config_write(const struct config *config, FILE *out);

/* `{"section.key": {"value": "4MiB", "number": 4194304, "origin": "…"}, …}`; `number` stands where
 * the value is one, in bytes, nanoseconds or a second, and is absent for `auto`. 0, -ENOMEM or
 * -EIO. */
int config_write_json(const struct config *config, FILE *out);

/* Every key there is: values, default, one sentence. 0 or -EIO. */
int config_write_keys(FILE *out);

/* Canonical text of `section.key`, or NULL where there is no such key. */
const char *config_text(const struct config *config, const char *key);

/* Value of a key of the handler's own section, or NULL. */
const char *config_handler_get(const struct config *config, const char *key);

/* Is worker.handler a path? Then a shared object, whose own name says which section is its. */
bool config_handler_is_path(const struct config *config);

/*
 * A value of the handler's own section by the rules of the others: `initial` (such as `20us`)
 * where it is not given. `value` is a uint64_t (time in ns, bytes, count), a double (share) or, for
 * a word of `words` (`a|b`), its index as uint32_t. 0, or -EINVAL with the reason in `why`.
 */
enum config_handler_type {
    HANDLER_TIME,
    HANDLER_BYTES,
    HANDLER_COUNT,
    HANDLER_SHARE,
    HANDLER_WORD
};
struct config_handler_want {
    enum config_handler_type type;
    const char *initial;
    const char *words;
    uint64_t min, max;
};
int config_handler_value(const struct config *config, const char *key,
                         const struct config_handler_want *want, void *value,
                         char why[CONFIG_ERROR_MAX]);

/* config_blame of a key of the handler's own section. */
int config_handler_blame(const struct config *config, const char *key, const char *why,
                         char error[CONFIG_ERROR_MAX]);

/*
 * For whoever finds out later that a value cannot be (a CPU that does not exist, an unknown
 * handler): puts `ORIGIN: section.key = value: ` and the formatted rest into `error`. Returns
 * -EINVAL.
 */
int config_blame(const struct config *config, const char *key, char error[CONFIG_ERROR_MAX],
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
