/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spin: takes a known, constant time over each request and answers with its payload unchanged. What
 * the lab measures of it can be compared with what must come out.
 *
 *   [handler.spin]
 *   time = 20us     100ns to 10ms, from the handler's first instruction to its last
 */
#include "stage/clock.h"
#include "worker/handler.h"

#include <string.h>
#include <time.h>

enum { SPIN_NS_MIN = 100, SPIN_NS_MAX = 10000000 };

static uint64_t spin_ticks;

/* 20 ms of calibration put the time at most some ten ppm wrong. */
static struct clock calibrated(void)
{
    const struct timespec base_line = {.tv_nsec = 20000000};
    struct clock_pair first = clock_pair_read(NULL);
    nanosleep(&base_line, NULL);
    struct clock_pair second = clock_pair_read(NULL);

    return clock_from_pairs(&first, &second);
}

static int spin_open(const struct config *config, char error[CONFIG_ERROR_MAX])
{
    uint64_t ns = 0;

    int err = config_handler_known(config, "time", error);
    if (err == 0)
        err = config_handler_time(config, "time", "20us", SPIN_NS_MIN, SPIN_NS_MAX, &ns, error);
    if (err < 0)
        return err;
    struct clock clock = calibrated();
    spin_ticks = clock_ticks(&clock, ns);
    return 0;
}

/* Without `pause`: a virtual CPU may be taken away at one, and the time is to be constant. */
static int spin_handle(const uint8_t *in, uint32_t length, uint8_t *out, uint32_t capacity)
{
    uint64_t begin = tsc_read();

    if (length > capacity)
        return HANDLER_REJECT(REASON_reply_too_big);
    memcpy(out, in, length);
    while (tsc_read() - begin < spin_ticks)
        ;
    return (int)length;
}

const struct handler handler_spin = {"spin", spin_open, spin_handle};
