/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the configuration: the table of keys and the reading and writing of one value.
 * For config*.c alone; everyone else includes config.h.
 */
#ifndef TICKLINE_STAGE_CONFIG_TABLE_H
#define TICKLINE_STAGE_CONFIG_TABLE_H

#include "stage/config.h"

enum config_type {
    CONFIG_NAME,      /* char[max + 1]: letters, digits and the characters of `words` */
    CONFIG_PATH,      /* char[CONFIG_TEXT_MAX] */
    CONFIG_WORD,      /* char[16]: one of `words` */
    CONFIG_HANDLER,   /* char[CONFIG_TEXT_MAX]: one of `words`, or a path with a / */
    CONFIG_CHOICE,    /* enum: the index in `words` */
    CONFIG_SWITCH,    /* bool: true is the first of `words` */
    CONFIG_U32,       /* a count: 200k */
    CONFIG_U64,       /* a count */
    CONFIG_BYTES32,   /* uint32_t: 4KiB */
    CONFIG_BYTES,     /* uint64_t: 4MiB */
    CONFIG_TIME,      /* uint64_t nanoseconds: 200ms; `words` may stand in front: last 10s */
    CONFIG_RATE,      /* double, a second: 20k */
    CONFIG_SHARE,     /* double, 0 to 1: 0.01 or 1% */
    CONFIG_FLUSH,     /* struct config_flush: 16, 100us or 16,100us */
    CONFIG_SPEED,     /* char[16]: 10x, 20000pps or top */
    CONFIG_SIZES,     /* char[CONFIG_SIZES_MAX]: 8, 8-64, exp:32 or 8:90,256:9; at most `max` */
    CONFIG_CPUS,      /* struct config_cpus, at most `max` of them */
    CONFIG_NODE,      /* int32_t, -1 for auto */
    CONFIG_ENDPOINT,  /* struct config_endpoint */
    CONFIG_ENDPOINTS, /* uint32_t count, then struct config_endpoint[CONFIG_ENDPOINTS_MAX] */
};

enum { CONFIG_POWER_OF_TWO = 0, CONFIG_ANY = 1 }; /* for `step`; else a multiple of it */

struct config_key {
    const char *section;
    const char *name;
    enum config_type type;
    size_t offset;       /* in struct config */
    const char *initial; /* the default, as one would write it */
    const char *special; /* `auto` or `never`: the word for the empty or zero value; or NULL */
    const char *words;   /* `flow|key|round-robin` */
    uint64_t min, max;
    uint32_t step;
    const char *help; /* one sentence */
};

struct config_origin {
    char *value;
    char *origin;
};

enum { CONFIG_WHY_MAX = 256 };

extern const struct config_key config_keys[];
extern const size_t config_key_count;

/* Index in config_keys, or -1. `section` and `name` need no terminating zero behind their length.
 */
int config_find(const char *section, const char *name);

bool config_section_known(const char *section);

/* Fills `hint` with `; did you mean …?` or `; see tickline config --keys`. */
void config_hint_section(const char *section, char hint[CONFIG_WHY_MAX]);
void config_hint_key(const char *section, const char *name, char hint[CONFIG_WHY_MAX]);

/* Letters to insert, delete or exchange to get from `a` to `b`; long words count as far apart. */
unsigned config_distance(const char *a, const char *b);

/* Copies word number `index` of `a|b|c`; false where there is none. */
bool config_word(const char *words, unsigned index, char *out, size_t size);

/* What may be written: `a power of two from 2 to 65536`. */
void config_value_expected(const struct config_key *key, char out[CONFIG_WHY_MAX]);

/* Reads `text` into the field; 0, or -EINVAL with `expected …; try …` in `why`. */
int config_value_parse(const struct config_key *key, const char *text, void *field,
                       char why[CONFIG_WHY_MAX]);

/* Is the field at its special value (`auto`, `never`)? */
bool config_value_is_special(const struct config_key *key, const void *field);

/* A field of the integer types. */
uint64_t config_value_integer(const struct config_key *key, const void *field);

/* The canonical text of a field. */
void config_value_format(const struct config_key *key, const void *field,
                         char out[CONFIG_TEXT_MAX]);

/* May `text` stand as a value in a file and come back as it is? 0, or -EINVAL with the reason. */
int config_value_writable(const char *text, char why[CONFIG_WHY_MAX]);

/* `expected …; try ATTEMPT` (NULL: the default) in `why`. Returns -EINVAL. */
int config_refuse(const struct config_key *key, const char *attempt, char why[CONFIG_WHY_MAX]);

/* Makes one line of valid UTF-8 of any text: what cannot be shown becomes `?`. */
void config_presentable(char *text);

/* By type; each as config_value_parse and config_value_format. */
int config_integer_parse(const struct config_key *key, const char *text, void *field, char *why);
int config_real_parse(const struct config_key *key, const char *text, void *field, char *why);
int config_speed_parse(const struct config_key *key, const char *text, char field[16], char *why);
int config_sizes_parse(const struct config_key *key, const char *text, char *field, char *why);
/* The largest size that `text` stands for; false where it is none of the forms. */
bool config_sizes_most(const char *text, uint64_t *most);
int config_flush_parse(const struct config_key *key, const char *text, struct config_flush *field,
                       char *why);
int config_cpus_parse(const struct config_key *key, const char *text, struct config_cpus *field,
                      char *why);
int config_endpoints_parse(const struct config_key *key, const char *text, void *field, char *why);
bool config_endpoint_read(const char *text, size_t length, struct config_endpoint *endpoint);
struct config_endpoint *config_endpoints_list(const void *count); /* beside rx.bind_count */
void config_integer_format(const struct config_key *key, uint64_t value, char *out, size_t size);
void config_real_format(double value, char *out, size_t size);
void config_flush_format(const struct config_flush *field, char *out, size_t size);
void config_cpus_format(const struct config_cpus *cpus, char *out, size_t size);
void config_endpoints_format(const struct config_endpoint *list, uint32_t count, char *out,
                             size_t size);

#endif
