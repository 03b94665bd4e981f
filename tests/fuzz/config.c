/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration: INI text, and behind a zero byte an override as --set gives it. What is read is written and
 * read back to the same values; what is refused is refused in one line.
 */
#include "stage/config.h"
#include "tests/fuzz/fuzz.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static void check_error(const char *error)
{
    fuzz_require(error[0] && strnlen(error, CONFIG_ERROR_MAX) < CONFIG_ERROR_MAX);
    for (const char *c = error; *c; c++)
        fuzz_require(!iscntrl((unsigned char)*c));
}

/* Everything but where it came from, byte by byte. */
static bool same(const struct config *a, const struct config *b)
{
    static uint8_t left[sizeof(struct config)];
    static uint8_t right[sizeof(struct config)];
    const size_t origins = offsetof(struct config, origins);

    memcpy(left, a, sizeof(left));
    memcpy(right, b, sizeof(right));
    memset(left + origins, 0, sizeof(void *));
    memset(right + origins, 0, sizeof(void *));
    return memcmp(left, right, sizeof(left)) == 0;
}

static void write_and_read(const struct config *config)
{
    struct config back;
    char error[CONFIG_ERROR_MAX];
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    fuzz_require(out && config_write(config, out) == 0);
    fclose(out);
    int err = config_parse(&back, text, length, "fuzz.ini", error);
    if (err != 0 || !same(config, &back))
        fprintf(stderr, "%s\n%s", error, text);
    fuzz_require(err == 0 && same(config, &back));
    config_free(&back);
    free(text);
    out = fopen("/dev/null", "w");
    fuzz_require(out && config_write_json(config, out) == 0);
    fclose(out);
}

static void take(int result, struct config *config, const char *error)
{
    if (result != 0) {
        check_error(error);
        return;
    }
    write_and_read(config);
    config_free(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, '\0', size) : NULL;
    size_t length = zero ? (size_t)(zero - data) : size;
    static struct config config;
    char error[CONFIG_ERROR_MAX];
    char override[8300];

    take(config_parse(&config, (const char *)data, length, "fuzz.ini", error), &config, error);
    if (!zero || size - length > sizeof(override))
        return 0;
    memcpy(override, zero + 1, size - length - 1);
    override[size - length - 1] = '\0';
    for (int fill = 0; fill < 2; fill++) {
        const struct config_override one = {override, fill};
        take(config_load(&config, "/dev/null", &one, 1, error), &config, error);
    }
    return 0;
}
